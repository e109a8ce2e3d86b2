//! All that one test of the program needs: names of its own, a pgbouncer, a listed backup, folders, a configuration file,
//! and the program itself, run to its end or held in hand.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;

use super::{
    Bouncer, BouncerOptions, Cluster, FAR, LOCAL, Nginx, RudeServer, Scale, Scratch, Sshd, Stage,
    error::{Doing, Result, StageError, cannot_run},
    production::{link, quoted},
    scratch::tell,
    server::{send, wait_for_exit, wait_until},
    sshd::CLIENT_SCRIPT,
};

/// How long a command of the program may take: far beyond the slowest.
const LIMIT: Duration = Duration::from_secs(180);

/// Who serves a site's backups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serving {
    /// The stage's nginx.
    #[default]
    Nginx,
    /// A [`RudeServer`] of the site's own.
    Rude,
}

/// What a site is made with.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// The name of the database; without it, `shop` and a number.
    pub dbname: Option<String>,
    /// Days of the backups that are listed, as `YYYY-MM-DD`; all of them the same dump.
    pub dates: Vec<String>,
    /// The size of that dump.
    pub scale: Scale,
    /// Another dump than the production one.
    pub dump: Option<PathBuf>,
    /// Who serves them.
    pub serving: Serving,
    /// The site's pgbouncer.
    pub bouncer: BouncerOptions,
    /// Whether the target is named by [`FAR`], so that ssh and scp are used, or by [`LOCAL`].
    pub over_ssh: bool,
}

impl Default for SiteOptions {
    fn default() -> SiteOptions {
        SiteOptions {
            dbname: None,
            dates: vec!["2026-11-21".into()],
            scale: Scale::Small,
            dump: None,
            serving: Serving::default(),
            bouncer: BouncerOptions::default(),
            over_ssh: false,
        }
    }
}

/// One target of the program, on a stage that others may use as well. Dropping it drops its databases.
#[derive(Debug)]
pub struct Site<'stage> {
    stage: &'stage Stage,
    dbname: String,
    folder: PathBuf,
    bouncer: Bouncer,
    backups: PathBuf,
    dump: PathBuf,
    rude: Option<RudeServer>,
    sshd: Option<Arc<Sshd>>,
    options: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    runs: AtomicU32,
}

impl<'stage> Site<'stage> {
    /// Makes everything, and writes the configuration file.
    pub fn new(stage: &'stage Stage, options: &SiteOptions) -> Result<Site<'stage>> {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let numbered = || format!("shop{}", NUMBERS.fetch_add(1, Ordering::Relaxed));
        let dbname = options.dbname.clone().unwrap_or_else(numbered);
        let folder = stage.scratch().new_folder("site")?;
        for name in ["home", "tmp", "sql", "runs"] {
            let path = folder.join(name);
            fs::create_dir(&path).doing(|| format!("make {}", path.display()))?;
        }
        let dump = match &options.dump {
            Some(dump) => dump.clone(),
            None => stage.production_dump(options.scale)?,
        };
        let (backups, rude, port) = serve(stage, options.serving, &dbname, &folder)?;
        let sshd = if options.over_ssh { Some(stage.sshd()?) } else { None };
        if let Some(sshd) = &sshd {
            sshd.install_client_script()?;
        }
        let bouncer = Bouncer::start(stage, &options.bouncer)?;
        let mut site = Site {
            stage,
            options: BTreeMap::new(),
            dbname,
            folder,
            bouncer,
            backups,
            dump,
            rude,
            sshd,
            environment: BTreeMap::new(),
            runs: AtomicU32::new(1),
        };
        site.options = site.first_options(port);
        site.write_configuration()?;
        for date in &options.dates {
            site.add_backup(date)?;
        }
        Ok(site)
    }

    /// The name of the database and of pgbouncer's alias.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The section of the configuration, which is the program's first argument: `<dbname>.dev`.
    pub fn section(&self) -> String {
        format!("{}.dev", self.dbname)
    }

    /// The name of a dated copy; the date as `YYYYMMDD` or `YYYY-MM-DD`.
    pub fn copy(&self, date: &str) -> String {
        format!("{}_{}", self.dbname, date.replace('-', ""))
    }

    /// The copies that exist, oldest first.
    pub fn copies(&self) -> Result<Vec<String>> {
        let prefix = format!("{}_", self.dbname);
        let databases = self.cluster().databases()?;
        Ok(databases.into_iter().filter(|name| name.starts_with(&prefix)).collect())
    }

    /// The database that the site's alias points to, if pgbouncer has the alias.
    pub fn active(&self) -> Result<Option<String>> {
        Ok(self.bouncer.show_databases()?.remove(&self.dbname).map(|destination| destination.dbname))
    }

    /// The stage.
    pub fn stage(&self) -> &'stage Stage {
        self.stage
    }

    /// The stage's PostgreSQL.
    pub fn cluster(&self) -> &'stage Cluster {
        self.stage.cluster()
    }

    /// The site's pgbouncer.
    pub fn bouncer(&self) -> &Bouncer {
        &self.bouncer
    }

    /// The site's pgbouncer, to be stopped and started.
    pub fn bouncer_mut(&mut self) -> &mut Bouncer {
        &mut self.bouncer
    }

    /// The server of a site made with [`Serving::Rude`].
    pub fn rude(&self) -> Result<&RudeServer> {
        self.rude.as_ref().ok_or_else(|| StageError::Unfit("this site is served by nginx".into()))
    }

    /// The sshd of a site made with `over_ssh`.
    pub fn sshd(&self) -> Result<&Sshd> {
        self.sshd.as_deref().ok_or_else(|| StageError::Unfit("this site is not reached over ssh".into()))
    }

    /// The folder that the web server lists.
    pub fn backups(&self) -> &Path {
        &self.backups
    }

    /// The site's own folder: the working folder and, below it, `home`, `tmp`, `sql`, `journal`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that the program fetches to.
    pub fn tmpdir(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// The folder of the journal; made by the program.
    pub fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    /// The configuration file.
    pub fn ini_path(&self) -> PathBuf {
        self.folder.join("pg_staging.ini")
    }

    /// The name of a backup in the listing.
    pub fn backup_name(&self, date: &str) -> String {
        format!("{}.{date}.dump", self.dbname)
    }

    /// Lists another backup, with the same content as the others; the day as `YYYY-MM-DD`.
    pub fn add_backup(&self, date: &str) -> Result<PathBuf> {
        self.add_file(&self.dump, &self.backup_name(date))
    }

    /// Lists a file of the caller's under that name.
    pub fn add_file(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let path = self.backups.join(name);
        link(from, &path)?;
        self.stage.scratch().account().own(&path)?;
        Ok(path)
    }

    /// Lists a file with that content, in place of an older one of that name. (Writing into a listed dump itself would change
    /// the dump of all sites: they are one file.)
    pub fn write_file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        self.remove_file(name)?;
        let path = self.backups.join(name);
        self.stage.scratch().write(&path, content)?;
        Ok(path)
    }

    /// Takes a file out of the listing; nothing if it is not there.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        let path = self.backups.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The shared dump file; copy it, never change it.
    pub fn dump(&self) -> &Path {
        &self.dump
    }

    /// Adds an SQL file that the program sources in that phase, `pre` or `post`.
    pub fn add_sql(&self, phase: &str, name: &str, sql: &str) -> Result<PathBuf> {
        let folder = self.folder.join("sql").join(self.section()).join(phase);
        fs::create_dir_all(&folder).doing(|| format!("make {}", folder.display()))?;
        let path = folder.join(name);
        fs::write(&path, sql).doing(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Adds an option to the site's section, or gives it another value, and writes the configuration file again.
    pub fn set(&mut self, option: &str, value: &str) -> Result<()> {
        self.options.insert(option.into(), value.into());
        self.write_configuration()
    }

    /// Takes an option out of the site's section, and writes the configuration file again.
    pub fn unset(&mut self, option: &str) -> Result<()> {
        self.options.remove(option);
        self.write_configuration()
    }

    /// Sets an environment variable for the runs that follow.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.insert(name.into(), value.into());
    }

    /// Runs the program with these arguments to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        self.spawn(arguments)?.wait()
    }

    /// Starts the program with these arguments.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Program> {
        self.spawn_command(&mut self.command(arguments))
    }

    /// The program with these arguments, our configuration file, and an environment that holds nothing of the caller's but
    /// `PATH`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.env_clear().env("HOME", self.folder.join("home")).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        // Where a build that measures coverage leaves its counts.
        for name in ["PATH", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(&self.environment).current_dir(&self.folder).stdin(Stdio::null());
        command.arg("-c").arg(self.ini_path()).args(arguments);
        command
    }

    /// Starts a command made by [`Site::command`], with its output kept for [`Outcome`].
    pub fn spawn_command(&self, command: &mut Command) -> Result<Program> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let path = |stream| self.folder.join("runs").join(format!("{number}.{stream}"));
        let (stdout, stderr) = (path("stdout"), path("stderr"));
        let create = |path: &Path| File::create(path).doing(|| format!("create {}", path.display()));
        command.stdout(create(&stdout)?).stderr(create(&stderr)?).process_group(0);
        let child = command.spawn().map_err(|source| cannot_run(command, source))?;
        let scratch = Arc::clone(self.stage.scratch());
        scratch.guard(child.id(), Signal::KILL)?;
        Ok(Program { child, stdout, stderr, ended: false, scratch })
    }

    fn first_options(&self, web_port: u16) -> BTreeMap<String, String> {
        let cluster = self.cluster();
        let mut options = vec![
            ("backup_host", format!("{LOCAL}:{web_port}")),
            ("backup_base_url", format!("/{}/", self.dbname)),
            ("host", LOCAL.into()),
            ("dbname", self.dbname.clone()),
            ("dbowner", "staging_owner".into()),
            ("postgres_port", cluster.port().to_string()),
            ("pgbouncer_port", self.bouncer.port().to_string()),
            ("pgbouncer_conf", self.bouncer.ini_path().display().to_string()),
            ("pg_restore", cluster.bin().join("pg_restore").display().to_string()),
            ("use_sudo", "False".into()),
            ("client_script", CLIENT_SCRIPT.into()),
            ("tmpdir", self.tmpdir().display().to_string()),
            ("sql_path", self.folder.join("sql").display().to_string()),
        ];
        if let Some(sshd) = &self.sshd {
            options.push(("host", FAR.into()));
            options.push(("client_script", "./staging-client.sh".into()));
            options.push(("ssh_options", sshd.ssh_options().join(" ")));
        }
        // Of two lines with the same name the later one stays.
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn write_configuration(&self) -> Result<()> {
        // A per cent sign begins a reference in this format; ours are meant as they are.
        let line = |name: &str, value: &str| format!("{name} = {}\n", value.replace('%', "%%"));
        let lines: String = self.options.iter().map(|(name, value)| line(name, value)).collect();
        // Where those look who are asked about a run and not about a section.
        let journal = line("journal", &self.journal().display().to_string());
        let content = format!("[DEFAULT]\n{journal}\n[{}]\n{lines}", self.section());
        let path = self.ini_path();
        fs::write(&path, content).doing(|| format!("write {}", path.display()))
    }

    fn drop_copies(&self) -> Result<()> {
        // A test may have stopped the server; its databases then end with the stage.
        if self.cluster().pid().is_none() {
            return Ok(());
        }
        for copy in self.copies()? {
            self.cluster()
                .psql("postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&copy)))?;
        }
        Ok(())
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.drop_copies() {
            tell(&error.to_string());
        }
    }
}

/// The folder that lists the site's backups, the server of its own if it has one, and the port.
fn serve(
    stage: &Stage,
    serving: Serving,
    dbname: &str,
    folder: &Path,
) -> Result<(PathBuf, Option<RudeServer>, u16)> {
    match serving {
        Serving::Nginx => {
            let nginx = stage.nginx()?;
            Ok((nginx.folder(dbname)?, None, nginx.port()))
        }
        Serving::Rude => {
            let root = folder.join("www");
            let backups = root.join(dbname);
            fs::create_dir_all(&backups).doing(|| format!("make {}", backups.display()))?;
            let rude = RudeServer::start(&root)?;
            let port = rude.port();
            Ok((backups, Some(rude), port))
        }
    }
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: bool,
    scratch: Arc<Scratch>,
}

impl Program {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that was resident so far, in KiB (`VmHWM` of proc(5)); nothing when it has just ended.
    pub fn most_memory(&self) -> Option<u64> {
        self.status("VmHWM")
    }

    /// Waits for its end, and gives the most memory that it had, in KiB, without what is mapped of files: its own code, of
    /// which a build for tests has three times as much.
    pub fn most_own_memory_to_its_end(&mut self) -> Result<u64> {
        let (mut peak, mut runs) = (0, Ok(true));
        wait_until("the program to end", LIMIT, || {
            let own = self.most_memory().zip(self.status("RssFile"));
            peak = own.map_or(peak, |(most, code)| most.saturating_sub(code));
            runs = self.is_running();
            !matches!(runs, Ok(true))
        })?;
        runs.map(|_| peak)
    }

    /// A size in KiB of `/proc/<pid>/status`.
    fn status(&self, name: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        text_of(&self.stdout)
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        text_of(&self.stderr)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().doing(|| "look at the program".into())?.is_none())
    }

    /// Sends it a signal; an error if it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running()? {
            return Err(StageError::Unfit("the program has ended already".into()));
        }
        send(self.child.id(), signal)
    }

    /// Waits until it has written that text to stdout or stderr; an error if it ends without.
    pub fn wait_until_it_says(&mut self, text: &str) -> Result<()> {
        let mut runs = Ok(true);
        let mut said = false;
        wait_until(&format!("the program to say {text:?}"), LIMIT, || {
            // In this order: what it says as its last is seen after its end.
            runs = self.is_running();
            said = self.stdout().contains(text) || self.stderr().contains(text);
            said || !matches!(runs, Ok(true))
        })?;
        runs?;
        if said {
            return Ok(());
        }
        let answer = format!("{}{}", self.stdout(), self.stderr());
        Err(StageError::Answer { what: format!("a program that should have said {text:?}"), answer })
    }

    /// Kills it with SIGKILL and waits for its end. What it started lives on, as after a crash.
    pub fn kill(mut self) -> Result<Outcome> {
        self.child.kill().doing(|| "kill the program".into())?;
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<Outcome> {
        let status = wait_for_exit(&mut self.child, "the program", LIMIT).map_err(|error| match error {
            StageError::Late { what, limit, .. } => {
                StageError::Late { what, limit, log: format!("\n{}{}", self.stdout(), self.stderr()) }
            }
            other => other,
        })?;
        self.ended = true;
        self.scratch.forget(self.child.id())?;
        // What a shell would say.
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(Outcome { code, stdout: self.stdout(), stderr: self.stderr() })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let killed = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = killed {
            tell(&format!("cannot kill the program: {error}"));
        }
    }
}

/// How a run of the program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code, or 128 and the signal's number.
    pub code: i32,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

fn text_of(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The program under test: what cargo names, or for the demo, what was built beside it.
pub fn binary() -> PathBuf {
    if let Some(path) = option_env!("CARGO_BIN_EXE_pg_staging") {
        return path.into();
    }
    let beside = std::env::current_exe().ok().and_then(|us| {
        us.ancestors().skip(1).map(|folder| folder.join("pg_staging")).find(|path| path.is_file())
    });
    beside.unwrap_or_else(|| "pg_staging".into())
}
