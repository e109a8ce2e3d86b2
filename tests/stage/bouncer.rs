//! A pgbouncer of its own, with a `pgbouncer.ini` as an administrator's hands leave one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::Signal;

use super::{
    LOCAL, Stage,
    cluster::{Cluster, SUPERUSER},
    error::{Doing, Result, StageError, find_program, output_of},
    port::on_free_port,
    scratch::Scratch,
    server::Server,
};

const PROGRAMS: &[&str] = &["/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer"];

/// How pgbouncer shares server connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// A server connection belongs to a client for one transaction.
    #[default]
    Transaction,
    /// A server connection belongs to a client for as long as the client stays.
    Session,
}

/// What a pgbouncer is started with.
#[derive(Clone, Debug, Default)]
pub struct BouncerOptions {
    /// How server connections are shared.
    pub pool_mode: PoolMode,
    /// Aliases that the configuration has from the beginning, and the databases they point to.
    pub aliases: Vec<(String, String)>,
    /// Addresses to listen on beside [`LOCAL`] and [`super::FAR`]: there pgbouncer is reached, and PostgreSQL is not.
    pub also_listen: Vec<String>,
}

/// Where an alias points to, as `SHOW DATABASES` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The host; empty for the unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The database.
    pub dbname: String,
}

/// A running pgbouncer before a [`Cluster`].
#[derive(Debug)]
pub struct Bouncer {
    folder: PathBuf,
    port: u16,
    psql: PathBuf,
    server: Option<Server>,
    scratch: Arc<Scratch>,
}

impl Bouncer {
    /// Writes a configuration and starts pgbouncer with it.
    pub fn start(stage: &Stage, options: &BouncerOptions) -> Result<Bouncer> {
        let scratch = stage.scratch();
        let cluster = stage.cluster();
        let folder = scratch.new_folder("bouncer")?;
        let users =
            format!("\"{SUPERUSER}\" \"\"\n\"staging_owner\" \"\"\n\"shop_owner\" \"\"\n\"shop_app\" \"\"\n");
        scratch.write(&folder.join("userlist.txt"), users)?;
        on_free_port(|port| {
            scratch.write(&folder.join("pgbouncer.ini"), configuration(&folder, port, cluster, options))?;
            let mut bouncer = Bouncer {
                folder: folder.clone(),
                port,
                psql: cluster.bin().join("psql"),
                server: None,
                scratch: Arc::clone(scratch),
            };
            bouncer.start_again()?;
            Ok(bouncer)
        })
    }

    /// The port, on [`LOCAL`] and [`super::FAR`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of `pgbouncer.ini`; it belongs to the stage's account, as does the folder around it.
    pub fn ini_path(&self) -> PathBuf {
        self.folder.join("pgbouncer.ini")
    }

    /// The present bytes of `pgbouncer.ini`.
    pub fn ini_bytes(&self) -> Result<Vec<u8>> {
        let path = self.ini_path();
        fs::read(&path).doing(|| format!("read {}", path.display()))
    }

    /// Puts other bytes into `pgbouncer.ini`, as an administrator's editor would; pgbouncer is not told.
    pub fn write_ini(&self, content: impl AsRef<[u8]>) -> Result<()> {
        self.scratch.write(&self.ini_path(), content)
    }

    /// The folder around `pgbouncer.ini`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// What pgbouncer has logged since it was started last.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Server::log).unwrap_or_default()
    }

    /// Runs one command of the administration console, and gives the answer with its header, fields separated by tabs.
    pub fn admin(&self, command: &str) -> Result<String> {
        self.psql("pgbouncer", command)
    }

    /// Runs SQL through pgbouncer as superuser, and gives the rows with a header, fields separated by tabs.
    pub fn psql(&self, alias: &str, sql: &str) -> Result<String> {
        let mut command = std::process::Command::new(&self.psql);
        command.env_clear().env("LC_ALL", "C.UTF-8").current_dir(self.scratch.path());
        command.args([
            "-XAq",
            "-F",
            "\t",
            "-P",
            "footer=off",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            LOCAL,
            "-U",
            SUPERUSER,
        ]);
        output_of(command.args(["-p", &self.port.to_string(), "-d", alias, "-c", sql]))
    }

    /// Where each alias points to, as pgbouncer sees it now; its own database `pgbouncer` is left out.
    pub fn show_databases(&self) -> Result<BTreeMap<String, Destination>> {
        let answer = self.admin("SHOW DATABASES")?;
        let not_understood = || StageError::Answer { what: "SHOW DATABASES".into(), answer: answer.clone() };
        let mut lines = answer.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let header = lines.next().ok_or_else(not_understood)?;
        let mut databases = BTreeMap::new();
        for line in lines {
            let field = |name| {
                let position = header.iter().position(|column| *column == name)?;
                line.get(position).map(|value| (*value).to_owned())
            };
            let name = field("name").ok_or_else(not_understood)?;
            if name == "pgbouncer" {
                continue;
            }
            let port = field("port").and_then(|port| port.parse().ok()).ok_or_else(not_understood)?;
            let dbname = field("database").ok_or_else(not_understood)?;
            databases.insert(name, Destination { host: field("host").unwrap_or_default(), port, dbname });
        }
        Ok(databases)
    }

    /// Ends pgbouncer and every connection through it.
    pub fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.stop(),
            None => Ok(()),
        }
    }

    /// Starts pgbouncer after [`Bouncer::stop`], on the same port, with what its configuration says now.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = self.scratch.account().command(find_program(PROGRAMS)?);
        command.current_dir(&self.folder).arg(self.ini_path());
        let log = self.folder.join("pgbouncer.log");
        let mut server = Server::spawn(&self.scratch, "pgbouncer", &mut command, log, Signal::TERM)?;
        server.wait_until_ready(self.port, || self.admin("SHOW VERSION").is_ok())?;
        self.server = Some(server);
        Ok(())
    }

    /// Sends a signal; `Signal::STOP` makes a pgbouncer that accepts connections and never answers, until `Signal::CONT`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match &self.server {
            Some(server) => server.signal(signal),
            None => Err(StageError::Unfit("pgbouncer is stopped".into())),
        }
    }
}

fn configuration(folder: &Path, port: u16, cluster: &Cluster, options: &BouncerOptions) -> String {
    let postgres = cluster.port();
    let aliases: String = options
        .aliases
        .iter()
        .map(|(alias, database)| format!("{alias} = host={LOCAL} port={postgres} dbname={database}\n"))
        .collect();
    let pool_mode = match options.pool_mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    };
    let listen: String = options.also_listen.iter().map(|address| format!(",{address}")).collect();
    include_str!("pgbouncer.ini")
        .replace("@ALSO_LISTEN@", &listen)
        .replace("@ALIASES@\n", &aliases)
        .replace("@POSTGRES_PORT@", &postgres.to_string())
        .replace("@PORT@", &port.to_string())
        .replace("@POOL_MODE@", pool_mode)
        .replace("@FOLDER@", &folder.display().to_string())
}
