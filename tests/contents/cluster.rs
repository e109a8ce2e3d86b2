//! A private PostgreSQL for the tests of contents, and the databases restored there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use pg_staging::contents::{self, Contents, Entry, ObjectType, Rules, filter};
use tempfile::TempDir;

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A private PostgreSQL on a unix socket, with the database `production` and its dump. Stopped when the last test
/// that uses it is done.
pub(super) struct Cluster {
    folder: TempDir,
    user: Option<(u32, u32)>,
    names: AtomicUsize,
}

impl Cluster {
    /// The one cluster of all tests that run at this time.
    pub(super) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Self::start());
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("contents").tempdir().unwrap();
        let user = unprivileged_user();
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let cluster = Self { folder, user, names: AtomicUsize::new(0) };
        let data = cluster.path("data");
        cluster.run(
            "initdb",
            &["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D", &data],
        );
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off -c wal_level=logical \
             -c allow_in_place_tablespaces=on",
            cluster.folder.path().display()
        );
        cluster
            .run("pg_ctl", &["-D", &data, "-l", &cluster.path("log"), "-o", &options, "-w", "-s", "start"]);
        cluster.sql(
            "postgres",
            "CREATE ROLE contents_owner; CREATE ROLE contents_reader; CREATE ROLE \"Odd \"\"Role\";",
        );
        cluster.sql("postgres", "CREATE TABLESPACE contents_space LOCATION ''");
        cluster.sql("postgres", "CREATE DATABASE production TEMPLATE template0");
        cluster.sql("production", include_str!("production.sql"));
        cluster.dump("production", &[]);
        cluster
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new(BIN).join(program));
        command.env("PGHOST", self.folder.path()).env("PGUSER", "postgres").env("PGCLIENTENCODING", "UTF8");
        command.env("LC_ALL", "C.UTF-8").current_dir(self.folder.path());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// Runs SQL in a database and gives the rows, columns separated by `|`.
    pub(super) fn sql(&self, database: &str, sql: &str) -> Vec<String> {
        let file = self.fresh("sql");
        fs::write(&file, sql).unwrap();
        let file = file.display().to_string();
        let output =
            self.run("psql", &["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", &file]);
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// A path that nothing else uses.
    pub(super) fn fresh(&self, suffix: &str) -> PathBuf {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        self.folder.path().join(format!("{number}.{suffix}"))
    }

    pub(super) fn dump(&self, database: &str, options: &[&str]) -> PathBuf {
        let file = if options.is_empty() && database == "production" {
            self.folder.path().join("production.dump")
        } else {
            self.fresh("dump")
        };
        let path = file.display().to_string();
        self.run("pg_dump", &[&["-Fc", "-d", database, "-f", &path], options].concat());
        file
    }

    pub(super) fn production(&self) -> PathBuf {
        self.folder.path().join("production.dump")
    }

    pub(super) fn create(&self) -> String {
        let name = format!("copy{}", self.names.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        name
    }

    /// Restores what the rules keep of a dump into a new database, which must go without an error or a warning.
    pub(super) fn restore(
        &self,
        dump: &Path,
        contents: &Contents,
        rules: &Rules,
        options: &[&str],
    ) -> Restored<'_> {
        let selection = filter(contents, rules);
        let list = self.fresh("list");
        fs::write(&list, selection.list(contents)).unwrap();
        let database = self.create();
        let output = self
            .command("pg_restore")
            .args(["-d", &database, "-L"])
            .arg(&list)
            .args(options)
            .arg(dump)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{rules:?}\n{said}\n{}",
            fs::read_to_string(&list).unwrap()
        );
        Restored { cluster: self, database, selection }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.path("data");
        let stopped =
            self.command("pg_ctl").args(["-D", &data, "-m", "immediate", "-w", "-s", "stop"]).status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("the test cluster in {data} could not be stopped");
        }
    }
}

/// PostgreSQL refuses to run as root; then, its own user or nobody does.
fn unprivileged_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    ["postgres", "nobody"].iter().find_map(|wanted| {
        let line = users.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// A database that a selection was restored into.
pub(super) struct Restored<'a> {
    cluster: &'a Cluster,
    database: String,
    pub(super) selection: contents::Selection,
}

impl Restored<'_> {
    /// Holds the database against the selection: dumped again, it must have the kept entries, with the very same
    /// definitions, and no others; and every table the rows of production or none.
    pub(super) fn check(&self, contents: &Contents, rules: &Rules) {
        let file = self.cluster.dump(&self.database, &[]);
        let again = read(&file);
        let kept = objects(self.selection.kept_entries(contents));
        let found =
            objects(again.entries().iter().filter(|entry| !entry.desc.as_str().starts_with("DATABASE")));
        let missing: Vec<_> = kept.difference(&found).collect();
        let surplus: Vec<_> = found.difference(&kept).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "{rules:?}\nmissing {missing:#?}\nsurplus {surplus:#?}"
        );
        assert_eq!(self.rows(contents), self.rows_expected(contents), "{rules:?}");
    }

    pub(super) fn rows(&self, contents: &Contents) -> BTreeMap<String, u64> {
        count_rows(self.cluster, &self.database, &self.selection.kept_tables(contents))
    }

    pub(super) fn rows_expected(&self, contents: &Contents) -> BTreeMap<String, u64> {
        let mut rows = count_rows(self.cluster, "production", &self.selection.kept_tables(contents));
        for table in self.selection.tables_without_rows(contents) {
            rows.insert(one_line(&table.to_string()), 0);
        }
        rows
    }
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE {}", self.database);
        let dropped = self.cluster.command("psql").args(["-X", "-q", "-d", "postgres", "-c", &drop]).status();
        if !dropped.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be dropped", self.database);
        }
    }
}

/// The contents of an archive on disk.
pub(super) fn read(file: &Path) -> Contents {
    Contents::read(std::io::BufReader::new(fs::File::open(file).unwrap())).unwrap()
}

/// Kind, name and definition of what a database holds, rows and fixtures of the format aside.
fn objects<'a>(entries: impl Iterator<Item = &'a Entry>) -> BTreeSet<String> {
    entries
        .filter(|entry| {
            !matches!(entry.desc, ObjectType::TableData | ObjectType::Encoding | ObjectType::StdStrings)
        })
        .filter(|entry| entry.desc != ObjectType::SearchPath)
        .map(|entry| {
            let defn = entry.defn.as_deref().unwrap_or_default();
            let owner = entry.owner.as_deref().unwrap_or_default();
            format!("{} [{owner}]\n{defn}", contents::describe(entry))
        })
        .collect()
}

/// How many rows each table has itself, without those of its partitions and children.
fn count_rows(
    cluster: &Cluster,
    database: &str,
    tables: &[contents::QualifiedName],
) -> BTreeMap<String, u64> {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let counts: String = tables
        .iter()
        .map(|table| format!("SELECT count(*) FROM ONLY {}.{};\n", quote(&table.schema), quote(&table.name)))
        .collect();
    let counts = cluster.sql(database, &counts);
    assert_eq!(counts.len(), tables.len());
    tables
        .iter()
        .zip(counts)
        .map(|(table, count)| (one_line(&table.to_string()), count.parse().unwrap()))
        .collect()
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}
