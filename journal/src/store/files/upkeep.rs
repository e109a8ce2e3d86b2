//! Keeps run files and database together: brings the ones into the other, mends what one lost from the other, and
//! makes the database anew when it is not what it should be.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::{Known, One, StoreError, Stored};
use super::database::{self, Broken, Turn};
use super::folder::{self, Folder, failed};
use super::intake::{self, Batch, Damage, Found};
use super::ledger::Ledger;
use super::locks;
use super::rebuild::{self, Rebuilt};
use super::seal;
use super::sealed::Sealed;
use super::session::Session;
use super::view::{Part, View};
use super::wal::{self, Scan};
use crate::clock::{Clock as _, SystemClock};
use crate::event::{Actor, RunId};
use crate::query::{Query, Summary};

/// Which run files a burst brings into the database.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bring {
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

/// A store's folder, and what is to be told of it.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) folder: Folder,
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

impl Inner {
    /// The store in `folder`, whose database counts as damaged when it gives no sign of life for `patience`.
    pub(super) fn new(folder: Folder, patience: Duration) -> Inner {
        Inner { folder, patience, notices: Mutex::default(), actor: Mutex::default() }
    }

    /// How long the database may give no sign of life.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Brings run files into the database and does `work` with it; makes it anew, once, when it turns out to be
    /// damaged, and then does `work` again.
    pub(super) fn burst<T, W>(&self, bring: Bring, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: Fn(&View<'_>) -> Result<T, Broken> + Send + Sync + 'static,
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
        W: Fn(&View<'_>) -> Result<T, Broken> + Send + Sync + 'static,
    {
        let head = database::head(&self.folder)?;
        let folder = self.folder.clone();
        let database = self.folder.database();
        let (done, found, next) = database::burst(turn, &database, self.patience, move |session| {
            session.check(head.unwrap_or(1))?;
            let mut found = Found::default();
            let mut ledger = Ledger::open(&folder, session.ledger()?.entries)?;
            found.ledger_lost = !ledger.continues(session.ledger()?)?;
            intake::catch_up(session, &folder, &ledger)?;
            let mut sealed = Sealed::open(&folder)?;
            let mut batch = Batch::default();
            let mut anything = false;
            for run in bring.runs(session, &folder)? {
                intake::look(session, &folder, run, matches!(bring, Bring::All), &mut found, &mut batch)?;
                if batch.is_large() {
                    std::mem::take(&mut batch).bring_in(session, &sealed, &folder, &mut ledger)?;
                    anything = true;
                }
                session.alive();
            }
            anything |= !batch.is_empty();
            batch.bring_in(session, &sealed, &folder, &mut ledger)?;
            if anything {
                found.sealed = seal::seal(session, &folder, &mut sealed)?;
            }
            let view = View { session, sealed: &sealed };
            Ok((work(&view)?, found, session.next_seq()?))
        })?;
        if head != Some(next) {
            database::set_head(&self.folder, next)?;
        }
        self.act_on(&found, bring)?;
        Ok(done)
    }

    /// What remains to be done once everything that was brought in is durable.
    fn act_on(&self, found: &Found, bring: Bring) -> Result<(), StoreError> {
        if found.ledger_lost {
            self.tell(format!(
                "the ledger {} is not the one that the database knows; journal verify says what is wrong",
                self.folder.ledger().display()
            ));
        }
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
        for run in &found.sealed {
            seal::remove_files(&self.folder, *run)?;
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

    /// Makes the database anew on request, after it has given what run files lost.
    pub(super) fn rebuild(&self) -> Result<Rebuilt, StoreError> {
        let turn = database::take_turn(&self.folder)?;
        if self.folder.database().join("db").exists() {
            match self.attempt(&turn, Bring::All, Arc::new(|_: &View<'_>| Ok(()))) {
                // What it still has of run files that were damaged or removed cannot be had.
                Ok(()) | Err(Broken::Damaged(_)) => {}
                Err(broken) => return Err(rebuild::explain(&self.folder.database(), broken)),
            }
        }
        self.remake(&turn, "that was asked for")
    }

    /// What the database and the run's file hold of `run`, which agree, the file being mended if need be.
    pub(super) fn know(&self, run: RunId, bring: Bring) -> Result<(Vec<Stored>, Scan), StoreError> {
        let look = || -> Result<(Vec<Stored>, Scan), StoreError> {
            let stored = self.burst(bring, move |view| view.events(run))?;
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

    /// The runs that `query` asks for, with what there is of each when database and run file agree.
    pub(super) fn look(&self, query: &Query) -> Result<Vec<(Summary, Option<Known>)>, StoreError> {
        let (folder, query) = (self.folder.clone(), query.clone());
        let found = self.burst(Bring::Marked, move |view| {
            let summaries = view.select(&folder, &query)?;
            let with_events = summaries.into_iter().map(|summary| Ok((view.events(summary.id)?, summary)));
            with_events.collect::<Result<Vec<_>, Broken>>()
        })?;
        let mut looked = Vec::with_capacity(found.len());
        for (events, summary) in found {
            let known = self.still_known(summary.id, events)?;
            looked.push((summary, known));
        }
        Ok(looked)
    }

    /// The one run of whose id `part` is a part, with what there is of it when database and run file agree; the ids
    /// when there are none, or several.
    pub(super) fn look_up(&self, part: Part) -> Result<One<Option<Known>>, StoreError> {
        let found = self.burst(Bring::Marked, move |view| {
            let ids = view.find(&part)?;
            let [id] = ids[..] else { return Ok(Err(ids)) };
            Ok(Ok((id, view.events(id)?)))
        })?;
        let (id, events) = match found {
            Ok(found) => found,
            Err(ids) => return Ok(Err(ids)),
        };
        Ok(Ok((id, self.still_known(id, events)?)))
    }

    /// What there is of `run` when `events` were in the database a moment ago; `None` when its file holds something else.
    fn still_known(&self, run: RunId, events: Vec<Stored>) -> Result<Option<Known>, StoreError> {
        // In this order: the owner of a run that is not held any more has written all that it is going to.
        let held = locks::held(&self.folder.run_lock(run))?;
        let path = self.folder.run_file(run);
        let agree = if path.exists() {
            let scan = wal::read(&path, run)?;
            scan.damage.is_none() && scan.events.iter().eq(events.iter().map(|stored| &stored.bytes))
        } else {
            !held && !events.is_empty()
        };
        Ok(agree.then_some(Known { events, held }))
    }

    /// Each thing is told once.
    fn tell(&self, notice: String) {
        let mut notices = self.notices();
        if !notices.told.contains(&notice) {
            notices.told.push(notice.clone());
            notices.pending.push(notice);
        }
    }

    /// What is to be told and was not yet.
    pub(super) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.notices().pending)
    }

    /// Remembers who claims runs.
    pub(super) fn signed_by(&self, actor: &Actor) {
        *self.actor() = Some(actor.clone());
    }

    /// Nothing in here panics half-way, so what a poisoned lock guards is whole.
    fn notices(&self) -> MutexGuard<'_, Notices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn actor(&self) -> MutexGuard<'_, Option<Actor>> {
        self.actor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
