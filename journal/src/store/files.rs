//! Events on the files of one machine: run files that are durable at once, and a database to query them.
//!
//! | in the folder | what |
//! |---|---|
//! | `runs/<run>.log` | the events of a run: the authority |
//! | `runs/<run>.lock`, `targets/<hash>.lock` | locked by the owner of a run and of a target, who is named in them |
//! | `open/<run>` | an empty marker: the run's file may hold events that the database has not |
//! | `attachments/<hash>` | what is too large for an event |
//! | `sled/`, `sled.lock`, `sled.head` | the database, the right to open it, and how far it had come |
//! | `sled.damaged.<time>/` | a database that was set aside |
//!
//! An event goes to its run's file, and nowhere else, until a *burst* brings it into the database: when the run
//! begins, when it ends, and whenever somebody asks. A burst holds up other bursts for some milliseconds, and never an
//! append. The database can be made anew from the run files at any time, and is when anything about it is not right.

mod attachments;
mod database;
mod folder;
mod intake;
mod locks;
mod rebuild;
mod record;
mod wal;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use self::database::{Broken, Session, Turn};
use self::folder::{Folder, failed};
use self::intake::{Damage, Found};
use self::locks::Owned;
pub use self::rebuild::Rebuilt;
use self::wal::{RunFile, Scan};
use super::{Claim, Log, Store, StoreError, Stored};
use crate::clock::{Clock as _, SystemClock};
use crate::event::{Actor, Hash, RunId};
use crate::query::{Query, Summary};

/// How long the database may give no sign of life before it counts as damaged.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store whose clones share what they keep.
#[derive(Debug, Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: Folder,
    patience: Duration,
    notices: Mutex<Notices>,
    /// Who last claimed a run, to sign what the store itself records.
    actor: Mutex<Option<Actor>>,
}

#[derive(Debug, Default)]
struct Notices {
    told: Vec<String>,
    pending: Vec<String>,
}

impl FileStore {
    /// The store in the folder `dir`, which is made when it is missing.
    pub fn open(dir: PathBuf) -> Result<FileStore, StoreError> {
        FileStore::with_patience(dir, PATIENCE)
    }

    /// The same, but the database counts as damaged when it gives no sign of life for `patience`.
    pub fn with_patience(dir: PathBuf, patience: Duration) -> Result<FileStore, StoreError> {
        Ok(FileStore {
            inner: Arc::new(Inner {
                folder: Folder::open(dir)?,
                patience,
                notices: Mutex::default(),
                actor: Mutex::default(),
            }),
        })
    }

    /// The store's folder.
    pub fn path(&self) -> &Path {
        self.inner.folder.root()
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
impl Store for FileStore {
    async fn claim(&self, claim: &Claim) -> Result<Box<dyn Log>, StoreError> {
        let folder = &self.inner.folder;
        let not_an_id = |error| {
            failed("claim a run in", folder.root())(io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        let run: RunId = claim.run.parse().map_err(not_an_id)?;
        let lock = folder.run_lock(run);
        let known = lock.exists() || folder.run_file(run).exists();
        let mut locks = vec![Owned::take(lock, &claim.run, claim).await?];
        if let Some(target) = &claim.target {
            locks.push(Owned::take(folder.target_lock(target), target, claim).await?);
        }
        *self.inner.actor() = Some(claim.actor.clone());
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

    async fn is_held(&self, run: RunId) -> Result<bool, StoreError> {
        locks::held(&self.inner.folder.run_lock(run))
    }

    async fn runs(&self, query: &Query) -> Result<Vec<Summary>, StoreError> {
        let query = query.clone();
        self.blocking(move |inner| {
            let folder = inner.folder.clone();
            inner.burst(Bring::Marked, move |session| select(session, &folder, &query))
        })
        .await
    }

    async fn find(&self, part: &str) -> Result<Vec<RunId>, StoreError> {
        let part = part.to_owned();
        self.blocking(move |inner| {
            inner.burst(Bring::Marked, move |session| {
                let matching = |id: &Result<RunId, Broken>| id.as_ref().map_or(true, |id| id.matches(&part));
                session.all_runs().filter(matching).collect()
            })
        })
        .await
    }

    async fn attach(&self, bytes: &[u8]) -> Result<Hash, StoreError> {
        let bytes = bytes.to_vec();
        self.blocking(move |inner| attachments::store(&inner.folder, &bytes)).await
    }

    async fn attachment(&self, hash: Hash) -> Result<Vec<u8>, StoreError> {
        self.blocking(move |inner| attachments::load(&inner.folder, hash)).await
    }

    fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.notices().pending)
    }
}

/// The runs that `query` asks for, by the index that leaves the fewest to look at.
fn select(session: &Session, folder: &Folder, query: &Query) -> Result<Vec<Summary>, Broken> {
    type Ids<'a> = Box<dyn Iterator<Item = Result<RunId, Broken>> + 'a>;
    let ids: Ids<'_> = match (&query.section, &query.status) {
        (Some(section), _) => Box::new(session.runs_of(section)),
        (None, Some(word)) => {
            let codes = record::codes_shown_as(word).into_iter();
            Box::new(newest_of(codes.map(|code| session.runs_with(code).peekable()).collect()))
        }
        (None, None) => Box::new(session.all_runs()),
    };
    let mut found = Vec::new();
    for id in ids {
        if found.len() >= query.limit.unwrap_or(usize::MAX) {
            break;
        }
        let id = id?;
        let missing = || Broken::Damaged(format!("it lost run {id}"));
        let summary = session.record(id)?.ok_or_else(missing)?.summary;
        let mut held = Ok(false);
        let wanted = query.matches(&summary, || {
            held = locks::held(&folder.run_lock(id));
            matches!(held, Ok(true))
        });
        held?;
        if wanted {
            found.push(summary);
        }
    }
    Ok(found)
}

/// One sequence, newest first, out of several; an error comes as soon as it is seen.
fn newest_of<I>(mut sources: Vec<Peekable<I>>) -> impl Iterator<Item = Result<RunId, Broken>>
where
    I: Iterator<Item = Result<RunId, Broken>>,
{
    std::iter::from_fn(move || {
        let newest = sources.iter_mut().filter_map(|source| {
            let id = source.peek()?.as_ref().map_or(RunId(Uuid::max()), |id| *id);
            Some((id, source))
        });
        newest.max_by_key(|(id, _)| *id)?.1.next()
    })
}

/// Which run files a burst brings into the database.
#[derive(Debug, Clone, Copy)]
enum Bring {
    /// Those that may hold more than the database.
    Marked,
    /// Those, and this run's, marked or not.
    MarkedAnd(RunId),
    /// This run's, as its owner.
    Owned(RunId),
    /// All there are, and those that should be there.
    All,
}

impl Bring {
    fn runs(self, session: &Session, folder: &Folder) -> Result<BTreeSet<RunId>, Broken> {
        let mut runs = BTreeSet::new();
        match self {
            Bring::Marked => runs.extend(folder.marked()?),
            Bring::MarkedAnd(run) => {
                runs.extend(folder.marked()?);
                runs.insert(run);
            }
            Bring::Owned(run) => {
                runs.insert(run);
            }
            Bring::All => {
                runs.extend(folder.written()?);
                for run in session.all_runs() {
                    runs.insert(run?);
                }
            }
        }
        Ok(runs)
    }

    /// The run whose lock this process holds, if it does.
    fn owned(self) -> Option<RunId> {
        match self {
            Bring::Owned(run) => Some(run),
            _ => None,
        }
    }
}

impl Inner {
    /// Brings run files into the database and does `work` with it; makes it anew, once, when it turns out to be
    /// damaged, and then does `work` again.
    fn burst<T, W>(&self, bring: Bring, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: Fn(&Session) -> Result<T, Broken> + Send + Sync + 'static,
    {
        let turn = database::take_turn(&self.folder)?;
        let work = Arc::new(work);
        self.make_if_missing(&turn)?;
        match self.attempt(&turn, bring, Arc::clone(&work)) {
            Err(Broken::Damaged(why)) => {
                self.remake(&turn, &why)?;
                self.attempt(&turn, bring, work)
            }
            done => done,
        }
        .map_err(|broken| rebuild::explain(&self.folder.database(), broken))
    }

    fn attempt<T, W>(&self, turn: &Turn, bring: Bring, work: Arc<W>) -> Result<T, Broken>
    where
        T: Send + 'static,
        W: Fn(&Session) -> Result<T, Broken> + Send + Sync + 'static,
    {
        let head = database::head(&self.folder)?;
        let folder = self.folder.clone();
        let database = self.folder.database();
        let (done, found, next) = database::burst(turn, &database, self.patience, move |session| {
            session.check(head.unwrap_or(1))?;
            let mut found = Found::default();
            for run in bring.runs(session, &folder)? {
                intake::bring_in(session, &folder, run, matches!(bring, Bring::All), &mut found)?;
                session.alive();
            }
            Ok((work(session)?, found, session.next_seq()?))
        })?;
        if head != Some(next) {
            database::set_head(&self.folder, next)?;
        }
        self.act_on(&found, bring)?;
        Ok(done)
    }

    /// What remains to be done once everything that was brought in is durable.
    fn act_on(&self, found: &Found, bring: Bring) -> Result<(), StoreError> {
        for damaged in &found.damaged {
            if matches!(bring, Bring::All) && self.mend_damaged(damaged)? {
                continue;
            }
            self.tell(format!(
                "the run file {} is damaged {}; nothing after that is shown",
                damaged.path.display(),
                damaged.why
            ));
        }
        for (run, events) in &found.shortened {
            self.mend(*run, events, bring.owned() == Some(*run))?;
        }
        for (run, size) in &found.settled {
            self.unmark(*run, *size)?;
        }
        Ok(())
    }

    /// Puts back what a run file lost, unless another process owns the run and writes to that file.
    fn mend(&self, run: RunId, events: &[Vec<u8>], owned: bool) -> Result<(), StoreError> {
        let nobody_else = if owned { None } else { locks::look(&self.folder.run_lock(run))? };
        let path = self.folder.run_file(run);
        if nobody_else.is_none() && !owned {
            return Ok(());
        }
        let left = wal::read(&path, run)?;
        if left.damage.is_some() || left.events.len() >= events.len() {
            return Ok(());
        }
        wal::replace(&path, events.iter().map(Vec::as_slice))?;
        self.tell(format!(
            "the run file {} had lost {} of its {} events; they were put back from the database",
            path.display(),
            events.len() - left.events.len(),
            events.len()
        ));
        Ok(())
    }

    /// Puts a file in the place of one that is damaged and of which the database has everything, and keeps that one.
    /// Gives whether it did.
    fn mend_damaged(&self, damaged: &Damage) -> Result<bool, StoreError> {
        let nobody = locks::look(&self.folder.run_lock(damaged.run))?;
        let (Some(_nobody), Some(events)) = (nobody, &damaged.whole) else {
            return Ok(false);
        };
        let path = &damaged.path;
        let aside = path.with_extension(format!("log.damaged.{}", SystemClock.mint()));
        fs::hard_link(path, &aside).map_err(failed("set aside", path))?;
        wal::replace(path, events.iter().map(Vec::as_slice))?;
        self.tell(format!(
            "the run file {} was damaged {}; it was mended from the database, and the damaged one is {}",
            path.display(),
            damaged.why,
            aside.display()
        ));
        Ok(true)
    }

    /// Takes away the marker of a run that nobody owns and whose file, of `size` bytes then, is in the database.
    fn unmark(&self, run: RunId, size: u64) -> Result<(), StoreError> {
        let marker = self.folder.marker(run);
        if !marker.exists() {
            return Ok(());
        }
        let nobody = locks::look(&self.folder.run_lock(run))?;
        if nobody.is_some() && intake::size_of(&self.folder, run)? == size {
            folder::remove(&marker)?;
        }
        Ok(())
    }

    fn make_if_missing(&self, turn: &Turn) -> Result<(), StoreError> {
        let database = self.folder.database();
        if database.join("db").exists() {
            return Ok(());
        }
        let marked: BTreeSet<RunId> = self.folder.marked()?.into_iter().collect();
        let was_there = database.exists()
            || database::head(&self.folder)?.is_some()
            || self.folder.written()?.iter().any(|run| !marked.contains(run));
        if was_there {
            self.remake(turn, "it was gone").map(drop)
        } else {
            rebuild::make(turn, &self.folder, self.patience)
        }
    }

    fn remake(&self, turn: &Turn, why: &str) -> Result<Rebuilt, StoreError> {
        let actor = self.actor().clone();
        let rebuilt = rebuild::remake(turn, &self.folder, self.patience, actor, why)?;
        let Rebuilt { runs, events, .. } = rebuilt;
        let old = rebuilt
            .set_aside
            .as_ref()
            .map_or_else(String::new, |path| format!("; the old one is {}", path.display()));
        self.tell(format!(
            "the journal's database was made anew from {events} events of {runs} runs, because {why}{old}"
        ));
        Ok(rebuilt)
    }

    fn rebuild(&self) -> Result<Rebuilt, StoreError> {
        let turn = database::take_turn(&self.folder)?;
        if self.folder.database().join("db").exists() {
            match self.attempt(&turn, Bring::All, Arc::new(|_: &Session| Ok(()))) {
                // What it still has of run files that were damaged or removed cannot be had.
                Ok(()) | Err(Broken::Damaged(_)) => {}
                Err(broken) => return Err(rebuild::explain(&self.folder.database(), broken)),
            }
        }
        self.remake(&turn, "that was asked for")
    }

    /// What the database and the run's file hold of `run`, which agree, the file being mended if need be.
    fn know(&self, run: RunId, bring: Bring) -> Result<(Vec<Stored>, Scan), StoreError> {
        let look = || -> Result<(Vec<Stored>, Scan), StoreError> {
            let stored = self.burst(bring, move |session| session.events(run))?;
            let path = self.folder.run_file(run);
            let scan = wal::read(&path, run)?;
            match scan.damage {
                Some(what) => Err(StoreError::Damaged { path, what }),
                None => Ok((stored, scan)),
            }
        };
        let (stored, scan) = look()?;
        let differ = |(stored, event): (&Stored, &Vec<u8>)| stored.bytes != *event;
        if !stored.iter().zip(&scan.events).any(differ) {
            return Ok((stored, scan));
        }
        let turn = database::take_turn(&self.folder)?;
        self.remake(&turn, &format!("what it held of run {run} was not what the run's file holds"))?;
        drop(turn);
        look()
    }

    /// Each thing is told once.
    fn tell(&self, notice: String) {
        let mut notices = self.notices();
        if !notices.told.contains(&notice) {
            notices.told.push(notice.clone());
            notices.pending.push(notice);
        }
    }

    /// Nothing in here panics half-way, so what a poisoned lock guards is whole.
    fn notices(&self) -> MutexGuard<'_, Notices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn actor(&self) -> MutexGuard<'_, Option<Actor>> {
        self.actor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to append to a run's file.
struct FileLog {
    inner: Arc<Inner>,
    run: RunId,
    file: RunFile,
    /// Up to where the file is known to be in the database.
    published: u64,
    _locks: Vec<Owned>,
}

impl FileLog {
    /// For the owner of `run`, of which there may be something when it is `known`.
    fn open(inner: &Arc<Inner>, run: RunId, known: bool, locks: Vec<Owned>) -> Result<FileLog, StoreError> {
        let marker = inner.folder.marker(run);
        folder::private().open(&marker).map_err(failed("create", &marker))?;
        folder::sync(&inner.folder.open_runs())?;
        let scan = if known { inner.know(run, Bring::Owned(run))?.1 } else { Scan::default() };
        let file = RunFile::open(inner.folder.run_file(run), run, &scan)?;
        Ok(FileLog { inner: Arc::clone(inner), run, published: file.length(), file, _locks: locks })
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
}

impl Drop for FileLog {
    fn drop(&mut self) {
        if self.published == self.file.length() {
            // A marker that stays makes the next reader look once more.
            let _ = folder::remove(&self.inner.folder.marker(self.run));
        }
    }
}
