//! Brings run files into the database, by way of the ledger.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::super::StoreError;
use super::database::Broken;
use super::folder::{self, Folder, failed};
use super::ledger::{Entry, Fact, Ledger};
use super::prune;
use super::record::Record;
use super::sealed::Sealed;
use super::session::Session;
use super::wal::{self, Scan};
use crate::codec;
use crate::event::{Hash, RunId};

/// Beyond this many bytes, what is new goes into more than one transaction.
const TRANSACTION: u64 = 512 * 1024;

/// What was found while run files were brought in, to be acted on once that is durable.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Runs whose file, of this size, holds nothing that the database has not.
    pub(super) settled: Vec<(RunId, u64)>,
    /// Runs whose file lost events that the database has, with all their events.
    pub(super) shortened: Vec<(RunId, Vec<Vec<u8>>)>,
    /// Files that cannot be read to their end, and why.
    pub(super) damaged: Vec<Damage>,
    /// Whether the ledger is not the one that the database knows.
    pub(super) ledger_lost: bool,
    /// Runs that were sealed and left the database.
    pub(super) sealed: Vec<RunId>,
}

/// A run file that cannot be read to its end.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) run: RunId,
    pub(super) path: PathBuf,
    /// Where in it, and how.
    pub(super) why: String,
    /// The events of the run, when the database has all that the file ever had.
    pub(super) whole: Option<Vec<Vec<u8>>>,
}

/// What run files hold and the database has not.
#[derive(Debug, Default)]
pub(super) struct Batch {
    news: Vec<News>,
    size: u64,
}

#[derive(Debug)]
struct News {
    old: Option<Record>,
    run: RunId,
    events: Vec<Vec<u8>>,
    known: u64,
}

impl Batch {
    /// Whether there is nothing new.
    pub(super) fn is_empty(&self) -> bool {
        self.news.is_empty()
    }

    /// Whether it is enough for a transaction.
    pub(super) fn is_large(&self) -> bool {
        self.size > TRANSACTION
    }

    /// Makes the ledger know of it, then brings it into the database, all or nothing.
    pub(super) fn bring_in(
        self,
        session: &Session,
        sealed: &Sealed,
        folder: &Folder,
        ledger: &mut Ledger,
    ) -> Result<(), Broken> {
        let mut next = session.next_seq()?.max(sealed.next_seq());
        let mut entries = Vec::new();
        let mut numbers = Vec::new();
        self.make_durable(folder)?;
        for News { run, events, known, old } in &self.news {
            // What was sealed of it has its numbers, and is known to the ledger.
            let row = if old.is_none() { sealed.row(*run)? } else { None };
            let row = row.as_ref().and_then(|(opened, at)| opened.rows.get(*at));
            let mut seqs = row.map(|row| row.seqs.clone()).unwrap_or_default();
            seqs.truncate(events.len());
            let told = known + u64::try_from(seqs.len()).unwrap_or(u64::MAX);
            let new = entries_of(folder, *run, events, told, next)?;
            let after = new.last().map_or(next, Entry::next_seq);
            seqs.extend(next..after);
            entries.extend(new);
            numbers.push(seqs);
            next = after;
        }
        ledger.append(&entries)?;
        for (news, seqs) in self.news.iter().zip(numbers) {
            put(session, news.old.as_ref(), news.run, &news.events, news.known, seqs)?;
        }
        if ledger.head() != session.ledger()? {
            session.set_ledger(ledger.head());
        }
        session.commit()
    }
}

impl Batch {
    /// What was read may not be durable yet: its owner was about to make it so, or a crash came first.
    fn make_durable(&self, folder: &Folder) -> Result<(), StoreError> {
        let paths: Vec<PathBuf> = self.news.iter().map(|news| folder.run_file(news.run)).collect();
        folder::sync_files(&folder.runs(), &paths)
    }
}

/// What the ledger says of the events of `run` from number `known` on, the first of which is `first` in the store.
pub(super) fn entries_of(
    folder: &Folder,
    run: RunId,
    events: &[Vec<u8>],
    known: u64,
    first: u64,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    let new = events.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
    let Some(last) = new.last() else { return Ok(entries) };
    for hash in new.iter().flat_map(|event| codec::named_in(event)) {
        let entry = Entry::attachment(run, hash);
        if folder.attachment(hash).exists() && !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
    entries.push(Entry::events(run, known, count, first, Hash::of(last)));
    Ok(entries)
}

/// Brings the database to where the ledger is: it gets the events that a crash kept from it, numbered as the ledger says,
/// and pruned runs go.
pub(super) fn catch_up(session: &Session, folder: &Folder, ledger: &Ledger) -> Result<(), Broken> {
    let seen = session.ledger()?;
    if seen == ledger.head() || !ledger.continues(seen)? {
        return Ok(());
    }
    let mut next = session.next_seq()?;
    let mut pruned = BTreeSet::new();
    for entry in ledger.after(seen.entries)? {
        if entry.fact == Fact::Pruned {
            pruned.insert(entry.run);
        }
        let Entry { fact: Fact::Events, run, from, count, first, .. } = entry else { continue };
        next = next.max(entry.next_seq());
        let old = session.record(run)?;
        let known = old.as_ref().map_or(0, |record| record.count);
        let mut events = wal::read(&folder.run_file(run), run)?.events;
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        if known < from || known >= count || events.len() < wanted {
            continue;
        }
        events.truncate(wanted);
        put(session, old.as_ref(), run, &events, known, first + (known - from)..)?;
        session.set_next(next);
        session.commit()?;
    }
    prune::bury(session, folder, &pruned)?;
    session.set_next(next);
    session.set_ledger(ledger.head());
    session.commit()
}

/// Looks for what is new in the file of `run`. Unless `thorough`, a file that is as long as what was brought in of it
/// is not read again.
pub(super) fn look(
    session: &Session,
    folder: &Folder,
    run: RunId,
    thorough: bool,
    found: &mut Found,
    batch: &mut Batch,
) -> Result<(), Broken> {
    let record = session.record(run)?;
    let size = size_of(folder, run)?;
    if !thorough && record.as_ref().is_some_and(|record| record.length == size) {
        found.settled.push((run, size));
        return Ok(());
    }
    let path = folder.run_file(run);
    let scan = wal::read(&path, run)?;
    let known = record.as_ref().map_or(0, |record| record.count);
    agree(session, run, known, &scan)?;
    let in_file = u64::try_from(scan.events.len()).unwrap_or(u64::MAX);
    match scan.damage {
        Some(why) => {
            let events = if in_file < known { events(session, run)? } else { Vec::new() };
            let length: u64 = events.iter().map(|event| wal::frame_length(event)).sum();
            let whole = (length >= scan.size).then_some(events);
            found.damaged.push(Damage { run, path, why, whole });
        }
        None if in_file < known => found.shortened.push((run, events(session, run)?)),
        None => found.settled.push((run, scan.size)),
    }
    if in_file > known {
        batch.size += scan.whole;
        batch.news.push(News { old: record, run, events: scan.events, known });
    }
    Ok(())
}

fn events(session: &Session, run: RunId) -> Result<Vec<Vec<u8>>, Broken> {
    Ok(session.events(run)?.into_iter().map(|stored| stored.bytes).collect())
}

/// Puts the events of `run` from number `known` on, numbered in the store as `seqs` say.
pub(super) fn put(
    session: &Session,
    old: Option<&Record>,
    run: RunId,
    events: &[Vec<u8>],
    known: u64,
    seqs: impl IntoIterator<Item = u64>,
) -> Result<(), Broken> {
    let Some(record) = Record::of(run, events) else {
        return Ok(());
    };
    let skipped = usize::try_from(known).unwrap_or(usize::MAX);
    let mut so_far = Record {
        count: known,
        length: events.iter().take(skipped).map(|event| wal::frame_length(event)).sum(),
        ..record
    };
    session.put_record(old, &so_far);
    for (event, seq) in events.iter().skip(skipped).zip(seqs) {
        session.put_event(run, so_far.count, seq, event);
        so_far.count += 1;
        so_far.length += wal::frame_length(event);
        if session.is_large() {
            session.put_record(None, &so_far);
            session.commit()?;
        }
    }
    session.put_record(None, &so_far);
    Ok(())
}

/// Both hold the same as far as both go: the last event that both have is the same, and it names the one before.
fn agree(session: &Session, run: RunId, known: u64, scan: &Scan) -> Result<(), Broken> {
    let in_both = usize::try_from(known).unwrap_or(usize::MAX).min(scan.events.len());
    let Some(last) = in_both.checked_sub(1) else {
        return Ok(());
    };
    let n = u64::try_from(last).unwrap_or(u64::MAX);
    if scan.events.get(last) == Some(&session.event(run, n)?.bytes) {
        return Ok(());
    }
    Err(Broken::Damaged(format!("its event {n} of run {run} is not the one in the run's file")))
}

pub(super) fn size_of(folder: &Folder, run: RunId) -> Result<u64, StoreError> {
    let path = folder.run_file(run);
    match fs::metadata(&path) {
        Ok(there) => Ok(there.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(failed("look at", &path)(error)),
    }
}
