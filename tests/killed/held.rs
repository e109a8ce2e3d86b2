//! Doors that a test shuts in front of the program's children, so that they are killed while a child is at work: SQL
//! waits for a row that another session has changed, the client script for the lock beside pgbouncer.ini.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Stdio},
};

use super::scene::LIMIT;
use crate::stage::{Site, wait_until};

/// Where SQL can be made to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In pg_restore, when it makes the first index.
    Restore,
    /// In a file of post SQL that runs in one transaction.
    Whole,
    /// In a file of post SQL that cannot run in one.
    Loose,
}

impl Place {
    /// The role whose row it is: roles are the cluster's, so that the lock is outside of the copy.
    fn role(self, site: &Site<'_>) -> String {
        format!("\"gate {self:?} {}\"", site.dbname())
    }

    /// What waits there; nothing happens when the door is open.
    pub(super) fn sql(self, site: &Site<'_>) -> String {
        format!("ALTER ROLE {} CONNECTION LIMIT 6;", self.role(site))
    }

    /// Makes the role.
    pub(super) fn build(self, site: &Site<'_>) {
        site.cluster().psql("postgres", &format!("CREATE ROLE {};", self.role(site))).unwrap();
    }
}

/// A shut door. Dropping it opens it.
pub(super) struct Gate {
    session: Child,
    commands: Option<ChildStdin>,
}

impl Gate {
    /// Shuts that door.
    pub(super) fn shut(site: &Site<'_>, place: Place) -> Gate {
        let mut psql = site.cluster().client("psql");
        psql.args(["-XAtq", "-d", "postgres"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut session = psql.spawn().unwrap();
        let mut commands = session.stdin.take().unwrap();
        let role = place.role(site);
        writeln!(commands, "BEGIN; ALTER ROLE {role} CONNECTION LIMIT 5;\n\\echo shut").unwrap();
        let mut answer = String::new();
        BufReader::new(session.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        assert_eq!(answer, "shut\n");
        Gate { session, commands: Some(commands) }
    }

    /// Opens it: whoever waits goes on.
    pub(super) fn open(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        // The end of its input ends psql, and with it the transaction.
        self.commands.take();
        self.session.wait().unwrap();
    }
}

/// The backends of the site's copy that wait at a gate.
pub(super) fn waiting(site: &Site<'_>, copy: &str) -> Vec<String> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE datname = '{copy}' AND wait_event_type = 'Lock' \
         AND application_name LIKE 'pg\\_staging:%' ORDER BY 1"
    );
    site.cluster().psql("postgres", &sql).unwrap().lines().map(str::to_owned).collect()
}

/// Waits until a backend waits at a gate.
pub(super) fn wait_until_waiting(site: &Site<'_>, copy: &str) {
    wait_until("a backend at the gate", LIMIT, || !waiting(site, copy).is_empty()).unwrap();
}

/// The lock that the client script takes, held by us. Dropping it lets go.
pub(super) struct ScriptLock {
    _file: File,
}

impl ScriptLock {
    /// Takes the lock.
    pub(super) fn take(site: &Site<'_>) -> ScriptLock {
        let mut path = site.bouncer().ini_path().into_os_string();
        path.push(".pg_staging.lock");
        let path = PathBuf::from(path);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(_) => {
                site.stage().scratch().write(&path, "").unwrap();
                File::open(&path).unwrap()
            }
        };
        file.lock().unwrap();
        ScriptLock { _file: file }
    }
}

/// The client scripts of this site that wait for the lock, as ids of their `flock` processes.
pub(super) fn scripts_waiting(site: &Site<'_>) -> Vec<u32> {
    let conf = format!("{}.pg_staging.lock", site.bouncer().ini_path().display());
    let holds_ours = |pid: &u32| fs::read_link(format!("/proc/{pid}/fd/9")).is_ok_and(|path| path == *conf);
    let flock =
        |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"flock\0"));
    processes().into_iter().filter(flock).filter(holds_ours).collect()
}

/// Waits until that many client scripts of this site wait for the lock.
pub(super) fn wait_until_scripts_wait(site: &Site<'_>, count: usize) {
    let what = format!("{count} client scripts at the lock");
    wait_until(&what, LIMIT, || scripts_waiting(site).len() >= count).unwrap();
}

/// Waits until no client script of this site, nor a part of one, is at work.
pub(super) fn wait_until_scripts_ended(site: &Site<'_>) {
    let conf = format!("{}.pg_staging.lock", site.bouncer().ini_path().display());
    let at_work = |pid: &u32| fs::read_link(format!("/proc/{pid}/fd/9")).is_ok_and(|path| path == *conf);
    wait_until("the client scripts to end", LIMIT, || !processes().iter().any(at_work)).unwrap();
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect()
}
