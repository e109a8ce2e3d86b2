//! PostgreSQL, spoken to through the simple query protocol only, since that is what pgbouncer passes in every pool
//! mode and the only one that its console knows.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::{Trouble, machine};

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

/// How long a connection may take to be made.
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
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .dbname(database)
            .application_name(application_name)
            .connect_timeout(CONNECT_LIMIT)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(60));
        if let Some(password) = machine::variable("PGPASSWORD") {
            config.password(password.to_string_lossy().as_bytes());
        }
        let connecting = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls));
        let (client, connection) = match connecting.await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(explain(&format!("cannot connect to {place}"), &error)),
            Err(_) => {
                let limit = CONNECT_LIMIT.as_secs();
                return Err(Trouble::new(format!("cannot connect to {place}"))
                    .because(format!("no answer within {limit} s"))
                    .transient(true));
            }
        };
        // What goes wrong on the connection is told to whoever waits for an answer.
        tokio::spawn(async move { connection.await.ok() });
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

/// An error in the server's own words.
fn explain(what: &str, error: &tokio_postgres::Error) -> Trouble {
    let trouble = Trouble::new(what).transient(is_transient(error));
    let Some(db) = error.as_db_error() else {
        let mut cause = error.to_string();
        let mut inner = std::error::Error::source(error);
        while let Some(source) = inner {
            let more = source.to_string();
            if !cause.contains(&more) {
                cause = format!("{cause}: {more}");
            }
            inner = source.source();
        }
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
        // Not an answer of the server: the connection was refused, reset or closed.
        return true;
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
