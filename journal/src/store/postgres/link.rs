//! The connection to the server: made when it is needed, made again when it was lost.
//!
//! Everything is said in the simple query protocol, one statement a time: there is nothing prepared, set or open on
//! the server between two of them, so that each may go through another of pgbouncer's connections, and a statement that
//! has arrived comes to its end whatever becomes of us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::super::StoreError;
use super::schema;
use crate::clock::{Clock as _, SystemClock};

/// The shortest and the longest wait before something is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A row of text; NULL is `None`.
pub(super) type Row = Vec<Option<String>>;
/// Several of them.
pub(super) type Rows = Vec<Row>;

/// A connection that mends itself.
pub(super) struct Link {
    config: Config,
    place: String,
    /// How long a lost connection is tried to be made again, where nothing else sets an end.
    patience: Duration,
    client: Mutex<Option<Arc<Client>>>,
    /// Whether the server was reached before, and found to be one that we can use.
    known: AtomicBool,
}

impl Link {
    pub(super) fn new(config: Config, patience: Duration) -> Link {
        let place = place(&config);
        Link { config, place, patience, client: Mutex::default(), known: AtomicBool::new(false) }
    }

    /// Where the journal is, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The rows of one statement, which must be one that may be said twice: it is said again when no answer came.
    pub(super) async fn rows(&self, sql: &str) -> Result<Rows, StoreError> {
        self.rows_until(sql, SystemClock.monotonic() + self.patience).await
    }

    /// The same, tried again until that moment.
    pub(super) async fn rows_until(&self, sql: &str, end: Instant) -> Result<Rows, StoreError> {
        let mut wait = FIRST_WAIT;
        loop {
            let trouble = match self.once(sql, end).await {
                Ok(rows) => return Ok(rows),
                Err(trouble) => trouble,
            };
            let known = self.known.load(Ordering::Relaxed);
            if !(trouble.passes && known && SystemClock.monotonic() + wait < end) {
                return Err(trouble.at(&self.place));
            }
            SystemClock.sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn once(&self, sql: &str, end: Instant) -> Result<Rows, Trouble> {
        // A pooler may keep a question waiting for a server that is gone, where a new one would be answered.
        let left = end.saturating_duration_since(SystemClock.monotonic());
        let limit = left.min(self.patience / 3).max(FIRST_WAIT);
        let late = || Trouble::passing(format!("no answer within {limit:?}"));
        let asked = async { ask(&*self.client().await?, sql).await };
        let answer = tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(late()));
        if answer.as_ref().is_err_and(|trouble| trouble.passes) {
            *self.client.lock().await = None;
        }
        answer
    }

    async fn client(&self) -> Result<Arc<Client>, Trouble> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        // What goes wrong on the connection is told to whoever waits for an answer.
        tokio::spawn(async move { connection.await.ok() });
        if !self.known.load(Ordering::Relaxed) {
            schema::ensure(&client).await?;
            self.known.store(true, Ordering::Relaxed);
        }
        Ok(Arc::clone(slot.insert(Arc::new(client))))
    }
}

/// The rows of one statement, or of the last of several.
pub(super) async fn ask(client: &Client, sql: &str) -> Result<Rows, Trouble> {
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::RowDescription(_) => rows.clear(),
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect());
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// Why the server did not do what it was asked.
#[derive(Debug)]
pub(super) struct Trouble {
    /// In its own words.
    pub(super) what: String,
    /// What may mend it.
    pub(super) hint: Option<String>,
    /// Its code in PostgreSQL's appendix A, when the server said something.
    pub(super) code: Option<SqlState>,
    /// Whether trying again may help.
    passes: bool,
}

impl Trouble {
    fn passing(what: String) -> Trouble {
        Trouble { what, hint: None, code: None, passes: true }
    }

    /// Something that trying again does not mend.
    pub(super) fn lasting(what: String, hint: String) -> Trouble {
        Trouble { what, hint: Some(hint), code: None, passes: false }
    }

    /// Whether it is one of these.
    pub(super) fn is(&self, codes: &[SqlState]) -> bool {
        self.code.as_ref().is_some_and(|code| codes.contains(code))
    }

    fn at(self, place: &str) -> StoreError {
        StoreError::Server { place: place.to_owned(), what: self.what, hint: self.hint }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            let source = std::error::Error::source(&error);
            let what = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            return Trouble::passing(what);
        };
        Trouble {
            what: format!("{} [{}]", db.message(), db.code().code()),
            hint: db.hint().map(str::to_owned),
            passes: passes(db.code()),
            code: Some(db.code().clone()),
        }
    }
}

/// Lost connections, servers that start, stop or are still a standby, full pools, locks and deadlocks pass; the rest
/// does not. Class 08 is what pgbouncer says when it has no server.
fn passes(code: &SqlState) -> bool {
    code.code().starts_with("08")
        || [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
        ]
        .contains(code)
}

/// Hosts, ports and database, without anything that is secret.
fn place(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let host = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        let ports = config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        format!("{host}:{port}")
    });
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("postgres://{}/{database}", hosts.collect::<Vec<_>>().join(","))
}
