//! Which number in the store each event has: the one that the ledger says, or, where it says nothing, one that follows
//! on all of those, by time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::StoreError;
use super::folder::Folder;
use super::intake;
use super::ledger::{Entry, Fact, Ledger};
use super::prune;
use super::sealed::Sealed;
use super::wal;
use crate::codec;
use crate::event::{Hash, RunId};

/// The numbers of the events of each run, in order.
pub(super) type Numbers = BTreeMap<RunId, Vec<u64>>;

/// All run files, numbered, without those of pruned runs.
pub(super) struct Numbered {
    /// The ledger, which knows of all of them.
    pub(super) ledger: Ledger,
    pub(super) numbers: Numbers,
    /// The number that follows on all that ever were.
    pub(super) next: u64,
}

/// Numbers the events in all run files. What the ledger did not know it is told, and so it is of what is lost.
pub(super) fn number(folder: &Folder) -> Result<Numbered, StoreError> {
    let (mut ledger, entries, mended) = Ledger::mended(folder)?;
    let known = Known::of(&entries);
    prune::remove_files(folder, &known.pruned, || {})?;
    let mut numbers = Numbers::new();
    let mut missing = Vec::new();
    let mut new: Vec<(Timestamp, RunId, u64)> = Vec::new();
    for run in folder.written()? {
        let events = wal::read(&folder.run_file(run), run)?.events;
        let told = known.runs.get(&run).map(Vec::as_slice).unwrap_or_default();
        if told.len() > events.len() {
            missing.push(left(run, &events));
        }
        if mended {
            let named: BTreeSet<Hash> = events.iter().flat_map(|event| codec::named_in(event)).collect();
            let missed = named.into_iter().filter(|hash| {
                !known.attachments.contains(&(run, *hash)) && folder.attachment(*hash).exists()
            });
            missing.extend(missed.map(|hash| Entry::attachment(run, hash)));
        }
        let mut at = Timestamp::MIN;
        for (n, event) in (0..).zip(&events) {
            at = codec::header(event).map_or(at, |header| header.at.max(at));
            if usize::try_from(n).is_ok_and(|n| n >= told.len()) {
                new.push((at, run, n));
            }
        }
        numbers.insert(run, told.iter().copied().take(events.len()).collect());
    }
    let sealed = Sealed::open(folder)?.ids(|_| true)?;
    let gone = known.runs.keys().filter(|run| !numbers.contains_key(run) && !sealed.contains(run));
    missing.extend(gone.map(|run| left(*run, &[])));
    ledger.append(&missing)?;
    new.sort_unstable();
    for (seq, (_, run, _)) in (known.next..).zip(&new) {
        numbers.entry(*run).or_default().push(seq);
    }
    tell(folder, &mut ledger, &new, known.next)?;
    numbers.retain(|_, seqs| !seqs.is_empty());
    let next = known.next + u64::try_from(new.len()).unwrap_or(u64::MAX);
    Ok(Numbered { ledger, numbers, next })
}

/// What is left of a run.
fn left(run: RunId, events: &[Vec<u8>]) -> Entry {
    let hash = events.last().map_or(Hash::ZERO, |event| Hash::of(event));
    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
    Entry { fact: Fact::Lost, ..Entry::events(run, 0, count, 0, hash) }
}

/// Tells the ledger of new events, numbered from `next` on, in pieces that are of one run each.
fn tell(
    folder: &Folder,
    ledger: &mut Ledger,
    new: &[(Timestamp, RunId, u64)],
    mut next: u64,
) -> Result<(), StoreError> {
    let mut entries = Vec::new();
    for piece in new.chunk_by(|one, other| one.1 == other.1) {
        let Some((_, run, from)) = piece.first().copied() else { continue };
        let mut events = wal::read(&folder.run_file(run), run)?.events;
        events.truncate(usize::try_from(from).unwrap_or(usize::MAX).saturating_add(piece.len()));
        entries.extend(intake::entries_of(folder, run, &events, from, next)?);
        next += u64::try_from(piece.len()).unwrap_or(u64::MAX);
    }
    ledger.append(&entries)
}

/// What the ledger says of numbers.
struct Known {
    runs: Numbers,
    next: u64,
    attachments: BTreeSet<(RunId, Hash)>,
    pruned: BTreeSet<RunId>,
}

impl Known {
    fn of(entries: &[Entry]) -> Known {
        let mut known =
            Known { runs: Numbers::new(), next: 1, attachments: BTreeSet::new(), pruned: BTreeSet::new() };
        for entry in entries {
            known.next = known.next.max(entry.next_seq());
            match entry.fact {
                Fact::Events => {
                    known.pruned.remove(&entry.run);
                    let seqs = known.runs.entry(entry.run).or_default();
                    let from = usize::try_from(entry.from).unwrap_or(usize::MAX);
                    // Where an entry is missing, what follows on it is numbered anew as well.
                    if from <= seqs.len() {
                        seqs.truncate(from);
                        seqs.extend(entry.first..entry.next_seq());
                    }
                }
                Fact::Attachment => drop(known.attachments.insert((entry.run, entry.hash))),
                Fact::Pruned => {
                    known.runs.remove(&entry.run);
                    known.pruned.insert(entry.run);
                }
                Fact::Lost => {
                    let kept = usize::try_from(entry.count).unwrap_or(usize::MAX);
                    known.runs.entry(entry.run).or_default().truncate(kept);
                }
            }
        }
        known.runs.retain(|_, seqs| !seqs.is_empty());
        known
    }
}
