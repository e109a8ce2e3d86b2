//! Events on a PostgreSQL server, for several machines: the same promises, kept by one row a run.
//!
//! | in the schema `staging_journal` | what |
//! |---|---|
//! | `run` | a run: its owner's epoch, until when that one owns it, how many events there are, the hash of the last |
//! | `target` | what no two runs may work on at the same time, and the run and epoch that do |
//! | `event` | an event |
//! | `attachment` | what is too large for an event |
//! | `ledger` | what the journal came to know, in that order, each entry with a hash over all before it |
//! | `journal` | one row: the version of all this, the number of the last event, and the ledger's head |
//!
//! An owner has a lease, which a thread of its process renews. An append is refused when the lease has run out by the
//! server's clock, when somebody else has become the owner since, or when it does not follow on the last event. See
//! `schema.sql`, where all of that is done.

mod adopt;
mod answer;
mod keeper;
mod link;
mod log;
mod page;
mod prune;
mod schema;
mod statement;
mod verify;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Client;

use self::keeper::Keeper;
use self::link::Link;
use self::log::PostgresLog;
use self::watch::PostgresWatch;
use super::verified::Verified;
use super::{Adopted, Claim, Head, Log, Page, Pruned, Store, StoreError, Stored, Upkeep, Watch};
use crate::event::{Hash, RunId};
use crate::query::{Query, Summary};
use crate::step::Progress;

/// How long an ownership lasts when nothing else is said: long enough for a server to be restarted.
pub const LEASE: Duration = Duration::from_secs(30);

/// Makes a connection to the server, and has it at work on the runtime that it is made on. How one gets in, and whether
/// TLS is spoken, is the caller's to know.
pub type Connect =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Client, Refused>> + Send>> + Send + Sync>;

/// Why no connection was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In words, without anything that is secret.
    pub what: String,
    /// What may mend it.
    pub hint: Option<String>,
}

/// A store whose clones share what they keep.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

/// What the store and its logs share.
struct Inner {
    keeper: Keeper,
    link: Link,
    lease: Duration,
}

impl PostgresStore {
    /// The store in the database that `connect` leads to, directly or through pgbouncer. It is connected to when it is
    /// first used; its tables are made when they are missing. `place` says to people where that is, and holds no secret.
    ///
    /// Who owns a run owns it for `lease` at a time: a process that dies holds its run for no longer.
    pub fn open(place: String, lease: Duration, connect: Connect) -> Result<PostgresStore, StoreError> {
        let link = Link::new(place, connect, lease);
        let keeper = Keeper::start().map_err(|source| StoreError::Io {
            what: "start a thread for",
            path: PathBuf::from(link.place()),
            source,
        })?;
        Ok(PostgresStore { inner: Arc::new(Inner { keeper, link, lease }) })
    }

    async fn ask<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.inner.ask(work).await
    }
}

impl Inner {
    /// Does `work` on the store's own thread.
    async fn ask<T, F>(self: &Arc<Self>, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let done = self.keeper.run(work(Arc::clone(self))).await;
        done.unwrap_or_else(|error| Err(self.link.failed(error.to_string())))
    }

    /// The events of these runs, in the order of their ids.
    async fn events_of(&self, runs: &[RunId]) -> Result<BTreeMap<RunId, Vec<Stored>>, StoreError> {
        let mut found: BTreeMap<RunId, Vec<Stored>> = BTreeMap::new();
        for row in self.link.rows(&statement::events_of(runs)).await? {
            let (run, stored) =
                answer::stored(&row).ok_or_else(|| self.link.not_understood("the events of a run"))?;
            found.entry(run).or_default().push(stored);
        }
        Ok(found)
    }

    /// The bytes of a run's events from number `n` on.
    async fn events_from(&self, run: RunId, n: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows = self.link.rows(&statement::events_from(run, n)).await?;
        let bytes = rows.into_iter().flatten().map(|bytes| answer::from_hex(&bytes?));
        bytes.collect::<Option<_>>().ok_or_else(|| self.link.not_understood("the events of a run"))
    }

    /// What is stored under `hash`, if that is what was.
    async fn attachment(&self, hash: Hash) -> Result<Vec<u8>, StoreError> {
        let rows = self.link.rows(&statement::attachment(hash)).await?;
        let text = rows.into_iter().flatten().next().flatten().ok_or(StoreError::NoSuchAttachment(hash))?;
        match answer::from_hex(&text) {
            Some(bytes) if Hash::of(&bytes) == hash => Ok(bytes),
            _ => Err(StoreError::Damaged {
                path: PathBuf::from(self.link.place()),
                what: format!("attachment {hash} is not what was stored"),
            }),
        }
    }

    /// Whether somebody owns the run, and how far that one says it is.
    async fn owner(&self, run: RunId) -> Result<(bool, Option<Progress>), StoreError> {
        let rows = self.link.rows(&statement::owner(run)).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let [held, progress] = row.as_slice() else { return Ok((false, None)) };
        let held = answer::boolean(held.as_deref()) == Some(true);
        Ok((held, progress.as_deref().and_then(|text| answer::progress(run, text))))
    }
}

impl Link {
    fn failed(&self, what: String) -> StoreError {
        StoreError::Server { place: self.place().to_owned(), what, hint: None }
    }

    fn not_understood(&self, what: &str) -> StoreError {
        self.failed(format!("the answer to {what} was not understood"))
    }
}

#[async_trait]
impl Upkeep for PostgresStore {
    fn place(&self) -> String {
        self.inner.link.place().to_owned()
    }

    async fn verify(&self, against: Option<Head>) -> Result<Verified, StoreError> {
        self.ask(move |inner| async move { inner.verify(against).await }).await
    }

    async fn prune(&self, runs: BTreeSet<RunId>) -> Result<Pruned, StoreError> {
        self.ask(move |inner| async move { inner.prune(&runs).await }).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn claim(&self, claim: &Claim) -> Result<Box<dyn Log>, StoreError> {
        let run: RunId = claim.run.parse().map_err(|error| StoreError::Io {
            what: "claim a run in",
            path: PathBuf::from(self.inner.link.place()),
            source: io::Error::new(io::ErrorKind::InvalidInput, error),
        })?;
        let claim = claim.clone();
        let log = self.ask(move |inner| PostgresLog::claim(inner, run, claim)).await?;
        Ok(Box::new(log))
    }

    async fn load(&self, run: RunId) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.read(run).await?.into_iter().map(|stored| stored.bytes).collect())
    }

    async fn read(&self, run: RunId) -> Result<Vec<Stored>, StoreError> {
        let mut found = self.ask(move |inner| async move { inner.events_of(&[run]).await }).await?;
        found.remove(&run).ok_or(StoreError::NoSuchRun(run))
    }

    async fn read_all(&self, runs: &[RunId]) -> Result<Vec<Vec<Stored>>, StoreError> {
        let wanted = runs.to_vec();
        let found = self.ask(move |inner| async move { inner.events_of(&wanted).await }).await?;
        Ok(runs.iter().map(|run| found.get(run).cloned().unwrap_or_default()).collect())
    }

    async fn events(&self, query: &Query, from: u64) -> Result<Page, StoreError> {
        let query = query.clone();
        self.ask(move |inner| async move { page::take(&inner.link, &query, from).await }).await
    }

    async fn watch(&self, run: RunId) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(PostgresWatch::new(Arc::clone(&self.inner), run)))
    }

    async fn progress(&self, run: RunId) -> Result<Option<Progress>, StoreError> {
        Ok(self.ask(move |inner| async move { inner.owner(run).await }).await?.1)
    }

    async fn is_held(&self, run: RunId) -> Result<bool, StoreError> {
        Ok(self.ask(move |inner| async move { inner.owner(run).await }).await?.0)
    }

    async fn runs(&self, query: &Query) -> Result<Vec<Summary>, StoreError> {
        let said = statement::runs(query);
        let rows = self.ask(move |inner| async move { inner.link.rows(&said).await }).await?;
        let summaries: Option<Vec<Summary>> = rows.iter().map(answer::summary).collect();
        summaries.ok_or_else(|| self.inner.link.not_understood("a question for runs"))
    }

    async fn find(&self, part: &str) -> Result<Vec<RunId>, StoreError> {
        let said = statement::find(part);
        let rows = self.ask(move |inner| async move { inner.link.rows(&said).await }).await?;
        let ids: Option<Vec<RunId>> = rows.into_iter().flatten().map(|id| id?.parse().ok()).collect();
        ids.ok_or_else(|| self.inner.link.not_understood("a question for runs"))
    }

    async fn attach(&self, bytes: &[u8]) -> Result<Hash, StoreError> {
        let hash = Hash::of(bytes);
        let said = statement::attach(hash, bytes);
        self.ask(move |inner| async move { inner.link.rows(&said).await }).await?;
        Ok(hash)
    }

    async fn attachment(&self, hash: Hash) -> Result<Vec<u8>, StoreError> {
        self.ask(move |inner| async move { inner.attachment(hash).await }).await
    }

    async fn adopt(&self, runs: Vec<Adopted>) -> Result<u64, StoreError> {
        let (mut new, known) = self.ask(move |inner| async move { inner.adopt_new(runs).await }).await?;
        for run in known {
            new += run.append_to(self).await?;
        }
        Ok(new)
    }

    fn take_notices(&self) -> Vec<String> {
        Vec::new()
    }
}
