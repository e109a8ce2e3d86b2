//! Seals finished runs: what is not likely to be looked at again leaves the database and its run file, so that neither
//! grows with the years.
//!
//! First the segment is durable, then the runs leave the database, then their files go. A crash in between leaves a run
//! in two places, which does no harm: what is here twice is the same, and the next sealing goes on.

use super::super::StoreError;
use super::database::Broken;
use super::folder::{self, Folder};
use super::intake;
use super::locks;
use super::progress;
use super::record::{FINISHED, Record};
use super::sealed::Sealed;
use super::segment::Sealing;
use super::session::Session;
use super::wal;
use crate::event::RunId;

/// So many finished runs, and bytes of their events, may be in the database before some are sealed.
const MOST: (usize, u64) = (1024, 16 * 1024 * 1024);
/// So many, or as many bytes, are then left.
const LEFT: (usize, u64) = (512, 8 * 1024 * 1024);
/// A segment has no more runs than this, and no more bytes but for its last run.
const SEGMENT: (usize, u64) = (512, 16 * 1024 * 1024);

/// Seals the oldest finished runs when there are too many of them. Gives those that left the database, whose files may
/// go once that is durable.
pub(super) fn seal(session: &Session, folder: &Folder, sealed: &mut Sealed) -> Result<Vec<RunId>, Broken> {
    let mut finished = Vec::new();
    for code in FINISHED {
        for run in session.runs_with(code) {
            finished.push(run?);
        }
    }
    finished.sort_unstable();
    let mut records = Vec::with_capacity(finished.len());
    for run in finished {
        records.extend(session.record(run)?);
    }
    let mut bytes: u64 = records.iter().map(|record| record.length).sum();
    if records.len() <= MOST.0 && bytes <= MOST.1 {
        return Ok(Vec::new());
    }
    let newest = session.newest_run()?;
    let mut left = records.len();
    let mut going = Vec::new();
    let mut batch = Batch::default();
    for record in records {
        if left <= LEFT.0 && bytes <= LEFT.1 {
            break;
        }
        let run = record.summary.id;
        // The newest event stays, since the database is checked by it.
        if Some(run) == newest || !is_at_rest(folder, &record)? {
            continue;
        }
        left -= 1;
        bytes = bytes.saturating_sub(record.length);
        going.push(record.clone());
        let known = sealed.row(run)?.and_then(|(opened, at)| Some(opened.rows.get(at)?.record.count));
        if known != Some(record.count) {
            batch.size += record.length;
            batch.runs.push(Sealing { events: session.events(run)?, record });
        }
        if batch.runs.len() >= SEGMENT.0 || batch.size >= SEGMENT.1 {
            sealed.add(&std::mem::take(&mut batch).runs)?;
        }
        session.alive();
    }
    if !batch.runs.is_empty() {
        sealed.add(&batch.runs)?;
    }
    sealed.close_all();
    for record in &going {
        session.remove(record)?;
        if session.is_large() {
            session.commit()?;
        }
    }
    session.commit()?;
    Ok(going.into_iter().map(|record| record.summary.id).collect())
}

#[derive(Default)]
struct Batch {
    runs: Vec<Sealing>,
    size: u64,
}

/// Whether nobody works on the run, and its file is what the database has.
pub(super) fn is_at_rest(folder: &Folder, record: &Record) -> Result<bool, StoreError> {
    let run = record.summary.id;
    Ok(!folder.marker(run).exists()
        && intake::size_of(folder, run)? == record.length
        && !locks::held(&folder.run_lock(run))?)
}

/// Removes the files of a run that left the database, unless somebody has taken it over since.
pub(super) fn remove_files(folder: &Folder, run: RunId) -> Result<(), StoreError> {
    let lock = folder.run_lock(run);
    let nobody = locks::look(&lock)?;
    if nobody.is_none() || folder.marker(run).exists() {
        return Ok(());
    }
    folder::remove(&folder.run_file(run))?;
    progress::clear(&folder.progress(run))?;
    folder::remove(&lock)
}

/// Gives the owner of `run` its file back, when it was sealed.
pub(super) fn unseal(folder: &Folder, run: RunId) -> Result<(), StoreError> {
    let path = folder.run_file(run);
    if path.exists() {
        return Ok(());
    }
    let events = Sealed::open(folder)?.events(run)?;
    if events.is_empty() {
        Ok(())
    } else {
        wal::replace(&path, events.iter().map(|event| event.bytes.as_slice()))
    }
}
