//! The connection to the server: made when it is needed, made again when it was lost.
//!
//! Everything is said in the simple query protocol, one statement a time: there is nothing prepared, set or open on
//! the server between two of them, so that each may go through another of pgbouncer's connections, and a statement that
//! has arrived comes to its end whatever becomes of us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::super::StoreError;
use super::{Connect, Refused, schema};
use crate::clock::{Clock as _, SystemClock};

/// The shortest and the longest wait before something is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How long a question is asked again while no answer comes.
const QUESTION: Duration = Duration::from_secs(30);

/// A row of text; NULL is `None`.
pub(super) type Row = Vec<Option<String>>;
/// Several of them.
pub(super) type Rows = Vec<Row>;

/// A connection that mends itself.
pub(super) struct Link {
    place: String,
    connect: Connect,
    /// How long an ownership lasts. An answer on which one depends is waited for a third of that at most, so that there
    /// is time to ask again: a pooler may keep us waiting for a server that is gone, where a new connection is answered.
    lease: Duration,
    client: Mutex<Option<Arc<Client>>>,
    /// Whether the server was reached before, and found to be one that we can use.
    known: AtomicBool,
}

impl Link {
    pub(super) fn new(place: String, connect: Connect, lease: Duration) -> Link {
        Link { place, connect, lease, client: Mutex::default(), known: AtomicBool::new(false) }
    }

    /// Where the journal is, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The rows of one statement, which must be one that may be said twice: it is said again when no answer came.
    pub(super) async fn rows(&self, sql: &str) -> Result<Rows, StoreError> {
        self.ask(sql, SystemClock.uptime() + QUESTION, QUESTION / 3).await
    }

    /// The same for somebody who owns something until then, as [`SystemClock::uptime`] counts.
    pub(super) async fn rows_until(&self, sql: &str, end: Duration) -> Result<Rows, StoreError> {
        self.ask(sql, end, self.lease / 3).await
    }

    /// Asks until `end`, and waits no longer than `limit` for each answer.
    async fn ask(&self, sql: &str, end: Duration, limit: Duration) -> Result<Rows, StoreError> {
        let mut wait = FIRST_WAIT;
        loop {
            let trouble = match self.once(sql, end, limit).await {
                Ok(rows) => return Ok(rows),
                Err(trouble) => trouble,
            };
            let known = self.known.load(Ordering::Relaxed);
            if !(trouble.passes && known && SystemClock.uptime() + wait < end) {
                return Err(trouble.at(&self.place));
            }
            SystemClock.sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn once(&self, sql: &str, end: Duration, limit: Duration) -> Result<Rows, Trouble> {
        let left = end.saturating_sub(SystemClock.uptime());
        let limit = left.min(limit).max(FIRST_WAIT);
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
        let client = (self.connect)().await?;
        if !self.known.load(Ordering::Relaxed) {
            schema::ensure(&client).await?;
            self.known.store(true, Ordering::Relaxed);
        }
        Ok(Arc::clone(slot.insert(Arc::new(client))))
    }
}

/// The rows of one statement, or of several, which are done together or not at all.
pub(super) async fn ask(client: &Client, sql: &str) -> Result<Rows, Trouble> {
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect());
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

impl From<Refused> for Trouble {
    /// Whatever it is, somebody may mend it before the end.
    fn from(Refused { what, hint }: Refused) -> Self {
        Trouble { hint, ..Trouble::passing(what) }
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
            hint: match db.hint() {
                None if *db.code() == SqlState::INSUFFICIENT_PRIVILEGE => Some(
                    "give that role what docs/journal.md lists under \"Sharing a journal\", or use another"
                        .to_owned(),
                ),
                hint => hint.map(str::to_owned),
            },
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
