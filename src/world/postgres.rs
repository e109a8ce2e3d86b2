//! PostgreSQL, spoken to through the simple query protocol only, since that is what pgbouncer passes in every pool
//! mode and the only one that its console knows.
//!
//! Passwords, TLS and the like are what libpq would make of the surroundings.

mod tls;
mod url;

use std::io;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use self::url::Destination;

use super::libpq::{Binding, Limit, Mode, Surroundings};
use super::{Trouble, within};

/// Where a server is and as whom we speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Host name, address, or the folder of a unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
}

/// How long a connection may take to be made, where nobody says otherwise.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer to the simplest of questions may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// An open session in one database.
pub struct Session {
    client: Client,
    place: String,
}

/// A statement that was refused, without a word of the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// SQLSTATE (PostgreSQL's appendix A), when it was the server that refused.
    pub sqlstate: Option<String>,
    /// In the server's words, which may quote from the statement.
    pub message: String,
    /// Whether trying again may help.
    pub transient: bool,
}

/// Rows of text; NULL is `None`.
pub type Rows = Vec<Vec<Option<String>>>;

impl Server {
    /// Opens a session.
    pub async fn connect(&self, database: &str, application_name: &str) -> Result<Session, Trouble> {
        let place = format!("database {database} on {}", self.place());
        let around = Surroundings::of(self, database)?;
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .dbname(database)
            .application_name(application_name);
        kept_alive(&mut config);
        // A socket is never spoken to with TLS.
        let socket = self.host.starts_with('/');
        let modes: &[SslMode] = if socket { &[SslMode::Disable] } else { ways(around.tls.mode) };
        let client = Way::new(config, around, modes)?.client(&place).await?;
        Ok(Session { client, place })
    }

    /// The same server, database and name for a program that uses libpq, as a connection string (PostgreSQL, 34.1.1.1).
    /// What stands in it, be it empty, wins over the environment and over a service.
    pub fn conninfo(&self, database: &str, application_name: Option<&str>) -> String {
        let port = self.port.to_string();
        let words = [
            ("host", Some(self.host.as_str())),
            ("hostaddr", Some("")),
            ("port", Some(port.as_str())),
            ("user", Some(self.user.as_str())),
            ("dbname", Some(database)),
            ("application_name", application_name),
        ];
        let quoted = |value: &str| {
            let plain = |c: char| !c.is_whitespace() && c != '\'' && c != '\\';
            if !value.is_empty() && value.chars().all(plain) {
                return value.to_owned();
            }
            format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
        };
        let words = words.iter().filter_map(|(word, value)| Some(format!("{word}={}", quoted((*value)?))));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Whether PostgreSQL itself answers. Being let in does not tell: pgbouncer lets clients in, and has them wait for a
    /// server that is gone.
    pub async fn answers(&self, database: &str) -> Result<(), Trouble> {
        let session = self.connect(database, "pg_staging").await?;
        match tokio::time::timeout(ANSWER_LIMIT, session.execute("SELECT 1")).await {
            Ok(answered) => answered,
            Err(_) => Err(Trouble::new(format!("{} does not answer", session.place))
                .because(format!("nothing came within {} s", ANSWER_LIMIT.as_secs()))
                .transient(true)),
        }
    }

    /// Host and port, for people.
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A way to a server, with everything that libpq would take from the surroundings.
struct Way {
    config: Config,
    around: Surroundings,
    /// With TLS or without, in the order in which that is tried.
    modes: &'static [SslMode],
    connector: MakeRustlsConnect,
}

impl Way {
    fn new(mut config: Config, around: Surroundings, modes: &'static [SslMode]) -> Result<Way, Trouble> {
        if let (None, Some(password)) = (config.get_password(), &around.password) {
            config.password(password.text.as_bytes());
        }
        if let Some(options) = &around.options {
            config.options(options);
        }
        match around.channel_binding {
            Some(Binding::Disable) => config.channel_binding(ChannelBinding::Disable),
            Some(Binding::Require) => config.channel_binding(ChannelBinding::Require),
            None => &mut config,
        };
        let connector = tls::connector(&around.tls)?;
        Ok(Way { config, around, modes, connector })
    }

    /// A new connection to `place`, which is at work on the runtime of the caller.
    async fn client(&self, place: &str) -> Result<Client, Trouble> {
        let limit = match self.around.connect_timeout {
            None => Some(CONNECT_LIMIT),
            Some(Limit::Within(limit)) => Some(limit),
            Some(Limit::None) => None,
        };
        let mut config = self.config.clone();
        let mut refused: Vec<tokio_postgres::Error> = Vec::new();
        for mode in self.modes {
            config.ssl_mode(*mode);
            match within(limit, config.connect(self.connector.clone())).await {
                Some(Ok((client, connection))) => {
                    // What goes wrong on the connection is told to whoever waits for an answer.
                    tokio::spawn(async move { connection.await.ok() });
                    return Ok(client);
                }
                Some(Err(error)) => {
                    let may_try_otherwise = tls::is_at_fault(&error) || is_turned_away(&error);
                    refused.push(error);
                    if !may_try_otherwise {
                        break;
                    }
                }
                None => {
                    let limit = limit.unwrap_or_default().as_secs();
                    return Err(Trouble::new(format!("cannot connect to {place}"))
                        .because(format!("no answer within {limit} s"))
                        .transient(true));
                }
            }
        }
        Err(cannot_connect(place, &refused, &self.around))
    }
}

/// With TLS or without, in the order in which libpq tries.
fn ways(mode: Mode) -> &'static [SslMode] {
    match mode {
        Mode::Disable => &[SslMode::Disable],
        Mode::Allow => &[SslMode::Disable, SslMode::Require],
        Mode::Prefer => &[SslMode::Prefer, SslMode::Disable],
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => &[SslMode::Require],
    }
}

/// A connection whose other end has gone is found out.
fn kept_alive(config: &mut Config) {
    config
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(60));
}

impl Session {
    /// Runs one statement and returns its rows.
    pub async fn rows(&self, sql: &str) -> Result<Rows, Trouble> {
        self.named_rows(sql).await.map(|(_, rows)| rows)
    }

    /// Runs one statement and returns the names of its columns, and its rows.
    pub async fn named_rows(&self, sql: &str) -> Result<(Vec<String>, Rows), Trouble> {
        let messages = self.client.simple_query(sql).await.map_err(|error| self.failed(sql, &error))?;
        let mut columns = Vec::new();
        let mut rows = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(described) => {
                    columns = described.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    if columns.is_empty() {
                        columns = row.columns().iter().map(|column| column.name().to_owned()).collect();
                    }
                    rows.push((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect());
                }
                _ => {}
            }
        }
        Ok((columns, rows))
    }

    /// Runs one statement whose rows do not matter.
    pub async fn execute(&self, sql: &str) -> Result<(), Trouble> {
        self.rows(sql).await.map(|_| ())
    }

    /// Runs one statement that may hold a secret.
    pub async fn attempt(&self, sql: &str) -> Result<(), Refused> {
        let refused = |error: tokio_postgres::Error| Refused {
            sqlstate: error.code().map(|code| code.code().to_owned()),
            message: error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned()),
            transient: is_transient(&error),
        };
        self.client.simple_query(sql).await.map(|_| ()).map_err(refused)
    }

    /// The first column of the first row, when there is one and it is not NULL.
    pub async fn value(&self, sql: &str) -> Result<Option<String>, Trouble> {
        Ok(self.rows(sql).await?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    fn failed(&self, sql: &str, error: &tokio_postgres::Error) -> Trouble {
        let first_line = sql.trim().lines().next().unwrap_or_default();
        let shown: String = first_line.chars().take(100).collect();
        explain(&format!("'{shown}' failed in {}", self.place), error)
    }
}

/// Why no connection could be made: what every attempt met, and what can be done about passwords and certificates.
fn cannot_connect(place: &str, refused: &[tokio_postgres::Error], around: &Surroundings) -> Trouble {
    let what = format!("cannot connect to {place}");
    let Some(last) = refused.last() else { return Trouble::new(what) };
    let trouble = explain(&what, last);
    let mut causes: Vec<String> = Vec::new();
    for cause in refused.iter().filter_map(|error| explain(&what, error).cause) {
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    let trouble = trouble.because(causes.join("; "));
    match &around.password {
        Some(password) if is_wrong_password(last) => {
            trouble.hint(format!("the password comes from {}: correct it there", password.from))
        }
        None if wants_password(last) => {
            let refused = around.refused_file.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
            trouble.because(format!("the server asks for a password, and there is none{refused}")).hint(
                "put it into ~/.pgpass (host:port:database:user:password, chmod 600), or into PGPASSWORD",
            )
        }
        _ if refused.iter().any(tls::is_at_fault) => trouble
            .hint("look at sslmode and sslrootcert (PGSSLMODE, PGSSLROOTCERT, or those of the service)"),
        _ => trouble,
    }
}

/// Whether the server did not like the password. pgbouncer has one code for all that it refuses.
fn is_wrong_password(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| match db.code() {
        code if *code == SqlState::INVALID_PASSWORD => true,
        code if *code == SqlState::PROTOCOL_VIOLATION => db.message().contains("authentication failed"),
        _ => false,
    })
}

/// Whether the server wanted a password, and we had none.
fn wants_password(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.to_string() == "password missing")
}

/// Whether the server lets nobody in by this way, which may be different with TLS, or without.
fn is_turned_away(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// An error in the server's own words.
fn explain(what: &str, error: &tokio_postgres::Error) -> Trouble {
    let trouble = Trouble::new(what).transient(is_transient(error));
    let Some(db) = error.as_db_error() else {
        let cause = causes(error).fold(error.to_string(), |all, cause| {
            let more = cause.to_string();
            if all.contains(&more) { all } else { format!("{all}: {more}") }
        });
        return trouble.because(cause);
    };
    let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let trouble = trouble.because(format!("{} [{}]{detail}", db.message(), db.code().code()));
    match db.hint() {
        Some(hint) => trouble.hint(hint),
        None if *db.code() == SqlState::DISK_FULL => {
            trouble.hint("make room on the server's disk, then try again")
        }
        None => trouble,
    }
}

/// Lost and refused connections, servers that start or stop, full pools, locks and deadlocks pass; the rest does not.
/// Codes are of PostgreSQL's appendix A.
fn is_transient(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else {
        // Not an answer of the server: the connection was refused, reset or closed, or else it is not as we can use it.
        return error.is_closed()
            || causes(error).any(|cause| cause.is::<io::Error>()) && !tls::is_at_fault(error);
    };
    code.code().starts_with("08") && *code != SqlState::PROTOCOL_VIOLATION
        || [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::OBJECT_IN_USE,
        ]
        .contains(code)
}

/// What an error came of, nearest first.
fn causes<'e>(
    error: &'e tokio_postgres::Error,
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |cause| cause.source())
}

/// `name` as an SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL string, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}
