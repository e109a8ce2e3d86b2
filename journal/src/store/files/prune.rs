//! Takes finished runs out of the journal for good, and gives their space back.
//!
//! The ledger is told first: from then on the runs are gone, and its entry of each is the tombstone that the head still
//! stands for. Then they leave the sealed segments, their files go, and they leave the database, which notes last how far
//! it followed the ledger; until it did, whoever uses it next goes on with that. Last, the database is made anew beside
//! the old one and exchanged with it, since sled's file never shrinks, and attachments go that no run names any more:
//! what a crash leaves of those, the next pruning takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::verified::{Damage, Flaw};
use super::super::{Pruned, StoreError};
use super::database::{self, Broken};
use super::folder::{self, Folder, failed};
use super::intake;
use super::ledger::{self, Entry, Fact, Ledger};
use super::locks;
use super::rebuild;
use super::record::FINISHED;
use super::seal;
use super::sealed::Sealed;
use super::session::Session;
use super::upkeep::{Bring, Inner};
use super::view::View;
use crate::clock::{Clock as _, SystemClock};
use crate::event::{Hash, RunId};

/// So many runs go at a time. Their owners-to-be are kept waiting meanwhile.
const AT_ONCE: usize = 256;
/// An attachment that was stored within so many seconds may be one that an event is about to name.
const FRESH: i64 = 24 * 60 * 60;

impl Inner {
    /// Takes those of `runs` out that are finished and that nobody works on.
    pub(super) fn prune(&self, runs: &BTreeSet<RunId>) -> Result<Pruned, StoreError> {
        // What is made anew here is made of the run files, so that they have to be right. No attachment is.
        let of_attachments = |flaw| matches!(flaw, Flaw::AttachmentChanged | Flaw::AttachmentMissing);
        let mut damage = self.verify(None)?.damage.into_iter();
        if let Some(Damage { path, what, .. }) = damage.find(|damage| !of_attachments(damage.flaw)) {
            return Err(StoreError::Damaged { path, what });
        }
        let mut pruned = Pruned::default();
        for some in runs.iter().copied().collect::<Vec<_>>().chunks(AT_ONCE) {
            pruned.runs.extend(self.take_out(some)?);
        }
        let turn = database::take_turn(&self.folder)?;
        rebuild::compact(&turn, &self.folder, self.patience())?;
        drop(turn);
        pruned.attachments = remove_attachments(&self.folder)?;
        Ok(pruned)
    }

    /// Takes out those of `runs` that may go; gives which those were.
    fn take_out(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
        let mut kept_from_owners = Vec::new();
        let mut free = Vec::new();
        for run in runs {
            if let Some(lock) = locks::look(&self.folder.run_lock(*run))? {
                kept_from_owners.push(lock);
                free.push(*run);
            }
        }
        let folder = self.folder.clone();
        self.burst(Bring::Marked, move |view| {
            let tombstones = tombstones(view, &folder, &free)?;
            let mut ledger = Ledger::open(&folder, view.session.ledger()?.entries)?;
            ledger.append(&tombstones)?;
            intake::catch_up(view.session, &folder, &ledger)?;
            Ok(tombstones.iter().map(|tombstone| tombstone.run).collect())
        })
    }
}

/// What the ledger is to be told of those of `runs` that are finished and at rest.
fn tombstones(view: &View<'_>, folder: &Folder, runs: &[RunId]) -> Result<Vec<Entry>, Broken> {
    // The newest event stays, since the database is checked by it.
    let newest = view.session.newest_run()?;
    let mut tombstones = Vec::new();
    for run in runs.iter().filter(|run| Some(**run) != newest) {
        view.alive();
        let Some(record) = view.record(*run)? else { continue };
        let at_rest = match view.session.record(*run)? {
            Some(record) => seal::is_at_rest(folder, &record)?,
            None => !folder.marker(*run).exists(),
        };
        if at_rest && FINISHED.contains(&record.status_code()) {
            let last = view.events(*run)?.last().map_or(Hash::ZERO, |event| Hash::of(&event.bytes));
            tombstones.push(Entry { fact: Fact::Pruned, ..Entry::events(*run, 0, record.count, 0, last) });
        }
    }
    Ok(tombstones)
}

/// Takes runs that the ledger says are pruned out of all else, which the caller commits. Done again it does no harm.
pub(super) fn bury(session: &Session, folder: &Folder, runs: &BTreeSet<RunId>) -> Result<(), Broken> {
    if runs.is_empty() {
        return Ok(());
    }
    remove_files(folder, runs, || session.alive())?;
    for run in runs {
        if let Some(record) = session.record(*run)? {
            session.remove(&record)?;
        }
        if session.is_large() {
            session.commit()?;
        }
    }
    Ok(())
}

/// Takes pruned runs out of the segments, and removes their files; those of a run that somebody has taken over since stay.
pub(super) fn remove_files(
    folder: &Folder,
    runs: &BTreeSet<RunId>,
    alive: impl Fn(),
) -> Result<(), StoreError> {
    Sealed::open(folder)?.remove(runs, &alive)?;
    for run in runs {
        if folder.run_file(*run).exists() || folder.run_lock(*run).exists() {
            seal::remove_files(folder, *run)?;
        }
        alive();
    }
    folder::sync(&folder.runs())
}

/// Removes the attachments that runs did name and none names now; gives how many.
fn remove_attachments(folder: &Folder) -> Result<u64, StoreError> {
    let mut ever: BTreeSet<Hash> = BTreeSet::new();
    let mut now: BTreeMap<RunId, BTreeSet<Hash>> = BTreeMap::new();
    for entry in ledger::read(folder, None, None)?.entries {
        match entry.fact {
            Fact::Attachment => {
                ever.insert(entry.hash);
                now.entry(entry.run).or_default().insert(entry.hash);
            }
            Fact::Pruned => drop(now.remove(&entry.run)),
            Fact::Events | Fact::Lost => {}
        }
    }
    let named: BTreeSet<Hash> = now.into_values().flatten().collect();
    let place = folder.attachments();
    let mut removed = 0;
    for hash in ever.difference(&named) {
        let path = folder.attachment(*hash);
        // Whoever stores the same bytes now waits, and then finds them gone.
        let lock = File::open(&place).map_err(failed("open", &place))?;
        lock.lock().map_err(failed("lock", &place))?;
        if is_old(&path)? {
            folder::remove(&path)?;
            removed += 1;
        }
    }
    folder::sync(&place)?;
    Ok(removed)
}

/// Whether a file is there and was not stored lately.
fn is_old(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(there) => Ok(there.mtime() < SystemClock.now().as_second() - FRESH),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look at", path)(error)),
    }
}
