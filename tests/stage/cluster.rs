//! A PostgreSQL cluster of its own: `initdb`, a running server, and the client programs that talk to it.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::Signal;

use super::{
    FAR, LOCAL,
    error::{Doing, Result, cannot_run, checked, find_program, output_of},
    lock,
    port::on_free_port,
    scratch::Scratch,
    server::Server,
};

/// Where Debian, and those who build from source, put the server's programs.
const BIN_FOLDERS: &[&str] = &["/usr/lib/postgresql/15/bin/postgres", "/usr/local/pgsql/bin/postgres"];

const SETTINGS: &str = include_str!("postgresql.conf");

/// The superuser of every cluster.
pub const SUPERUSER: &str = "postgres";

/// What a cluster is started with.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// Lines of `postgresql.conf` that win over those of the stage, by name.
    pub settings: BTreeMap<String, String>,
    /// The folder with the server's programs; without it, that of the system's PostgreSQL 15.
    pub bin: Option<PathBuf>,
}

/// A running PostgreSQL server, open to everyone on this machine as everyone, on [`LOCAL`], [`FAR`] and a unix socket.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    server_bin: PathBuf,
    bin: PathBuf,
    port: u16,
    scratch: Arc<Scratch>,
    server: Mutex<Option<Server>>,
}

/// The folder with the programs of the system's PostgreSQL.
pub(super) fn system_bin() -> Result<PathBuf> {
    let postgres = find_program(BIN_FOLDERS)?;
    Ok(postgres.parent().unwrap_or(Path::new("/")).to_path_buf())
}

/// Makes a new cluster and starts it.
pub(super) fn start_cluster(scratch: &Arc<Scratch>, options: &ClusterOptions) -> Result<Cluster> {
    let systems = system_bin()?;
    let bin = options.bin.clone().unwrap_or_else(|| systems.clone());
    // Some bring a server only.
    let clients = if bin.join("pg_dump").exists() { bin.clone() } else { systems };
    let folder = scratch.new_folder("pg")?;
    let data = folder.join("data");
    output_of(
        scratch
            .account()
            .command(bin.join("initdb"))
            .current_dir(&folder)
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--username",
                SUPERUSER,
            ])
            .arg("--pgdata")
            .arg(&data),
    )?;
    let mut settings = SETTINGS.to_owned();
    settings += &format!("unix_socket_directories = '{}'\n", folder.display());
    settings.extend(options.settings.iter().map(|(name, value)| format!("{name} = '{value}'\n")));
    scratch.write(&data.join("postgresql.conf"), settings)?;
    on_free_port(|port| {
        let cluster = Cluster {
            folder: folder.clone(),
            server_bin: bin.clone(),
            bin: clients.clone(),
            port,
            scratch: Arc::clone(scratch),
            server: Mutex::default(),
        };
        cluster.start_again()?;
        Ok(cluster)
    })
}

impl Cluster {
    /// The address at which the program takes the cluster for a local one; it listens on [`FAR`] too.
    pub fn host(&self) -> &'static str {
        LOCAL
    }

    /// The port, the same on every address and in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with the client's programs, which are of the server's version where that has its own.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder with the unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.folder
    }

    /// What the server has logged since it was started last.
    pub fn log(&self) -> String {
        lock(&self.server).as_ref().map(Server::log).unwrap_or_default()
    }

    /// The process id of the postmaster, while it runs.
    pub fn pid(&self) -> Option<u32> {
        lock(&self.server).as_ref().map(Server::pid)
    }

    /// Runs SQL as superuser with psql, statement by statement, stopping at the first error. Gives the rows: unaligned, fields
    /// separated by `|`, without headers.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        self.psql_with(database, sql, &[])
    }

    /// Like [`Cluster::psql`], with more arguments for psql.
    pub fn psql_with(&self, database: &str, sql: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.client("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database]).args(arguments).args(["-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| cannot_run(&command, source))?;
        let stdin = child.stdin.take();
        // Fed from another thread: psql answers while it reads, and neither side may wait for the other.
        let output = thread::scope(|scope| {
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(sql.as_bytes())));
            child.wait_with_output()
        });
        checked(&command, &output.doing(|| "wait for psql".into())?)
    }

    /// Runs pg_dump with these arguments, as superuser on that database, and gives its stdout.
    pub fn pg_dump(&self, database: &str, arguments: &[&str]) -> Result<String> {
        output_of(self.client("pg_dump").args(arguments).args(["-d", database]))
    }

    /// One of PostgreSQL's client programs, told by its environment to be the superuser on this cluster.
    pub fn client(&self, program: &str) -> Command {
        self.client_at(&self.bin.join(program))
    }

    /// The same, a program at that path.
    pub fn client_at(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("PGHOST", LOCAL).env("PGPORT", self.port.to_string()).env("PGUSER", SUPERUSER);
        command.env("PGTZ", "UTC").current_dir(self.scratch.path());
        command
    }

    /// The names of all databases but the templates.
    pub fn databases(&self) -> Result<Vec<String>> {
        let names =
            self.psql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Stops the server at once, sessions or not (a fast shutdown).
    pub fn stop(&self) -> Result<()> {
        match lock(&self.server).take() {
            Some(mut server) => server.stop_with(Signal::INT),
            None => Ok(()),
        }
    }

    /// Starts the server after [`Cluster::stop`], on the same port.
    pub fn start_again(&self) -> Result<()> {
        let mut slot = lock(&self.server);
        let mut command = self.scratch.account().command(self.server_bin.join("postgres"));
        command.current_dir(&self.folder).arg("-D").arg(self.data_dir()).args(["-p", &self.port.to_string()]);
        // QUIT is the immediate shutdown; it leaves no shared memory behind, as KILL would.
        let log = self.folder.join("server.log");
        let mut server = Server::spawn(&self.scratch, "postgres", &mut command, log, Signal::QUIT)?;
        // Asked through the socket in our own folder, where nobody else can answer.
        server.wait_until_ready(self.port, || {
            let mut ask = self.client("pg_isready");
            ask.env("PGHOST", &self.folder).arg("-q").status().is_ok_and(|status| status.success())
        })?;
        *slot = Some(server);
        Ok(())
    }

    /// Stops the server and starts it again: every session ends.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }
}
