//! Events on the files of one machine: run files that are durable at once, and a database to query them.
//!
//! | in the folder | what |
//! |---|---|
//! | `runs/<run>.log` | the events of a run: the authority |
//! | `runs/<run>.progress` | how far its step is, for others to see |
//! | `runs/<run>.lock`, `targets/<hash>.lock` | locked by the owner of a run and of a target, who is named in them |
//! | `open/<run>` | an empty marker: the run's file may hold events that the database has not |
//! | `sealed/<number>.runs`, `sealed/index` | finished runs that are no longer in the database, and what is where |
//! | `attachments/<hash>` | what is too large for an event |
//! | `ledger` | which events the journal has come to know, in order; the journal's head |
//! | `sled/`, `sled.lock`, `sled.head` | the database, the right to open it, and how far it had come |
//! | `sled.damaged.<time>/` | a database that was set aside |
//!
//! An event goes to its run's file, and nowhere else, until a *burst* brings it into the database: when the run
//! begins, when it ends, and whenever somebody asks. A burst holds up other bursts for some milliseconds, and never an
//! append. The database can be made anew from the run files at any time, and is when anything about it is not right.

mod adopt;
mod attachments;
mod database;
mod examine;
mod folder;
mod intake;
mod ledger;
mod locks;
mod numbers;
mod page;
mod progress;
mod prune;
mod rebuild;
mod record;
mod seal;
mod sealed;
mod segment;
mod session;
mod upkeep;
mod verify;
mod view;
mod wal;
mod watch;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::folder::{Folder, failed};
use self::locks::Owned;
use self::progress::Board;
pub use self::rebuild::Rebuilt;
use self::sealed::Sealed;
use self::upkeep::{Bring, Inner};
use self::view::Part;
use self::wal::{RunFile, Scan};
use self::watch::FileWatch;
use super::verified::Verified;
use super::{Adopted, Claim, Head, Known, Log, One, Page, Pruned, Store, StoreError, Stored, Upkeep, Watch};
use crate::event::{Actor, Hash, RunId};
use crate::query::{Query, Summary};
use crate::step::Progress;
use async_trait::async_trait;

/// How long the database may give no sign of life before it counts as damaged.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store whose clones share what they keep.
#[derive(Debug, Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
}

impl FileStore {
    /// The store in the folder `dir`, which is made when it is missing.
    pub fn open(dir: PathBuf) -> Result<FileStore, StoreError> {
        FileStore::with_patience(dir, PATIENCE)
    }

    /// The same, but the database counts as damaged when it gives no sign of life for `patience`.
    pub fn with_patience(dir: PathBuf, patience: Duration) -> Result<FileStore, StoreError> {
        let inner = Inner::new(Folder::open(dir)?, patience);
        Ok(FileStore { inner: Arc::new(inner) })
    }

    /// The store's folder.
    pub fn path(&self) -> &Path {
        self.inner.folder.root()
    }

    /// Says who signs what the store itself records. Whoever claims a run signs from then on.
    pub fn sign(&self, actor: &Actor) {
        self.inner.signed_by(actor);
    }

    /// Sets the database aside and makes a new one from the run files. Run files that lost events which the old one
    /// still has are mended first, and so are damaged ones of which it has everything.
    pub async fn rebuild(&self) -> Result<Rebuilt, StoreError> {
        self.blocking(|inner| inner.rebuild()).await
    }

    /// Runs what may wait for a disk or for other processes where nobody else waits with it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        blocking(&self.inner, work).await
    }
}

/// Whether something of `run` is sealed.
fn is_sealed(folder: &Folder, run: RunId) -> Result<bool, StoreError> {
    Ok(Sealed::open(folder)?.row(run)?.is_some())
}

async fn blocking<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Arc<Inner>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let shared = Arc::clone(inner);
    let done = tokio::task::spawn_blocking(move || work(&shared)).await;
    done.unwrap_or_else(|error| {
        Err(StoreError::Database { path: inner.folder.database(), what: error.to_string() })
    })
}

#[async_trait]
impl Upkeep for FileStore {
    fn place(&self) -> String {
        self.path().display().to_string()
    }

    async fn verify(&self, against: Option<Head>) -> Result<Verified, StoreError> {
        self.blocking(move |inner| inner.verify(against)).await
    }

    /// The run with the newest event stays, whatever it is.
    async fn prune(&self, runs: BTreeSet<RunId>) -> Result<Pruned, StoreError> {
        self.blocking(move |inner| inner.prune(&runs)).await
    }
}

#[async_trait]
impl Store for FileStore {
    async fn claim(&self, claim: &Claim) -> Result<Box<dyn Log>, StoreError> {
        let folder = &self.inner.folder;
        let not_an_id = |error| {
            failed("claim a run in", folder.root())(io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        let run: RunId = claim.run.parse().map_err(not_an_id)?;
        let lock = folder.run_lock(run);
        let known = lock.exists() || folder.run_file(run).exists() || is_sealed(folder, run)?;
        let mut locks = vec![Owned::take(lock, &claim.run, claim).await?];
        if let Some(target) = &claim.target {
            locks.push(Owned::take(folder.target_lock(target), target, claim).await?);
        }
        self.inner.signed_by(&claim.actor);
        self.blocking(move |inner| {
            let log = FileLog::open(inner, run, known, locks)?;
            Ok(Box::new(log) as Box<dyn Log>)
        })
        .await
    }

    async fn load(&self, run: RunId) -> Result<Vec<Vec<u8>>, StoreError> {
        let (stored, scan) = self.blocking(move |inner| inner.know(run, Bring::MarkedAnd(run))).await?;
        let events = if scan.events.len() > stored.len() {
            scan.events
        } else {
            stored.into_iter().map(|stored| stored.bytes).collect()
        };
        if events.is_empty() {
            return Err(StoreError::NoSuchRun(run));
        }
        Ok(events)
    }

    async fn read(&self, run: RunId) -> Result<Vec<Stored>, StoreError> {
        let (stored, _) = self.blocking(move |inner| inner.know(run, Bring::MarkedAnd(run))).await?;
        if stored.is_empty() {
            return Err(StoreError::NoSuchRun(run));
        }
        Ok(stored)
    }

    async fn read_all(&self, runs: &[RunId]) -> Result<Vec<Vec<Stored>>, StoreError> {
        let runs = runs.to_vec();
        self.blocking(move |inner| {
            inner.burst(Bring::Marked, move |view| runs.iter().map(|run| view.events(*run)).collect())
        })
        .await
    }

    /// Opens the database once where it can.
    async fn look(&self, query: &Query) -> Result<Vec<(Summary, Known)>, StoreError> {
        let query = query.clone();
        let found = self.blocking(move |inner| inner.look(&query)).await?;
        let changed: Vec<RunId> =
            found.iter().filter(|(_, known)| known.is_none()).map(|(summary, _)| summary.id).collect();
        let mut again = if changed.is_empty() { Vec::new() } else { self.known(&changed).await? }.into_iter();
        let whole =
            |(summary, known): (Summary, Option<Known>)| Some((summary, known.or_else(|| again.next())?));
        Ok(found.into_iter().filter_map(whole).collect())
    }

    /// Opens the database once where it can.
    async fn look_up(&self, part: &str) -> Result<One<Known>, StoreError> {
        let Some(part) = Part::parse(part) else { return Ok(Err(Vec::new())) };
        Ok(match self.blocking(move |inner| inner.look_up(part)).await? {
            Ok((id, Some(known))) => Ok((id, known)),
            Ok((id, None)) => Ok((id, self.known_one(id).await?)),
            Err(ids) => Err(ids),
        })
    }

    async fn events(&self, query: &Query, from: u64) -> Result<Page, StoreError> {
        let query = query.clone();
        self.blocking(move |inner| {
            let folder = inner.folder.clone();
            inner.burst(Bring::Marked, move |view| page::take(view, &folder, &query, from))
        })
        .await
    }

    async fn watch(&self, run: RunId) -> Result<Box<dyn Watch>, StoreError> {
        let kept = if self.inner.folder.run_file(run).exists() { Vec::new() } else { self.load(run).await? };
        Ok(Box::new(FileWatch::new(self.inner.folder.clone(), run, kept)))
    }

    async fn progress(&self, run: RunId) -> Result<Option<Progress>, StoreError> {
        Ok(progress::read(&self.inner.folder.progress(run), run))
    }

    async fn is_held(&self, run: RunId) -> Result<bool, StoreError> {
        locks::held(&self.inner.folder.run_lock(run))
    }

    async fn runs(&self, query: &Query) -> Result<Vec<Summary>, StoreError> {
        let query = query.clone();
        self.blocking(move |inner| {
            let folder = inner.folder.clone();
            inner.burst(Bring::Marked, move |view| view.select(&folder, &query))
        })
        .await
    }

    async fn find(&self, part: &str) -> Result<Vec<RunId>, StoreError> {
        let Some(part) = Part::parse(part) else { return Ok(Vec::new()) };
        self.blocking(move |inner| inner.burst(Bring::Marked, move |view| view.find(&part))).await
    }

    async fn attach(&self, bytes: &[u8]) -> Result<Hash, StoreError> {
        let bytes = bytes.to_vec();
        self.blocking(move |inner| attachments::store(&inner.folder, &bytes)).await
    }

    async fn attachment(&self, hash: Hash) -> Result<Vec<u8>, StoreError> {
        self.blocking(move |inner| attachments::load(&inner.folder, hash)).await
    }

    async fn adopt(&self, runs: Vec<Adopted>) -> Result<u64, StoreError> {
        let (new, known) = self.blocking(move |inner| adopt::write_new(inner, runs)).await?;
        let mut appended = new;
        for run in known {
            appended += run.append_to(self).await?;
        }
        Ok(appended)
    }

    fn take_notices(&self) -> Vec<String> {
        self.inner.take_notices()
    }
}

/// The right to append to a run's file.
struct FileLog {
    inner: Arc<Inner>,
    run: RunId,
    file: RunFile,
    /// Up to where the file is known to be in the database.
    published: u64,
    /// Before the locks, since what it shows goes away while the run is still owned.
    board: Board,
    _locks: Vec<Owned>,
}

impl FileLog {
    /// For the owner of `run`, of which there may be something when it is `known`.
    fn open(inner: &Arc<Inner>, run: RunId, known: bool, locks: Vec<Owned>) -> Result<FileLog, StoreError> {
        let marker = inner.folder.marker(run);
        folder::private().open(&marker).map_err(failed("create", &marker))?;
        folder::sync(&inner.folder.open_runs())?;
        seal::unseal(&inner.folder, run)?;
        let scan = if known { inner.know(run, Bring::Owned(run))?.1 } else { Scan::default() };
        let file = RunFile::open(inner.folder.run_file(run), run, &scan)?;
        let board = Board::new(inner.folder.progress(run));
        Ok(FileLog { inner: Arc::clone(inner), run, published: file.length(), file, board, _locks: locks })
    }
}

#[async_trait]
impl Log for FileLog {
    /// Waits for the disk in place: that is shorter than a way to another thread and back would make worth while.
    async fn append(&mut self, n: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.append(n, bytes)
    }

    async fn publish(&mut self) -> Result<(), StoreError> {
        let (run, length) = (self.run, self.file.length());
        blocking(&self.inner, move |inner| inner.burst(Bring::Owned(run), |_| Ok(()))).await?;
        self.published = length;
        Ok(())
    }

    fn show(&mut self, progress: &Progress) {
        self.board.show(progress);
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        if self.file.is_whole() && self.published == self.file.length() {
            // A marker that stays makes the next reader look once more.
            let _ = folder::remove(&self.inner.folder.marker(self.run));
        }
    }
}
