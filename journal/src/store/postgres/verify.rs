//! Looks at everything that the server holds, changes nothing, and tells what is wrong.
//!
//! The ledger says what there has to be, and its chain of hashes is worked out anew: whoever changes or takes away
//! anything behind the journal's back would have to change every entry since, and then the head is another one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::super::verified::{self, Damage, Flaw, Verified};
use super::super::{Head, StoreError, Stored};
use super::link::{Link, Row};
use super::{Inner, statement};
use crate::event::{Hash, RunId};

/// So many entries are asked for at a time.
const ENTRIES: usize = 5_000;
/// The events of so many runs are.
const RUNS: usize = 128;
/// A journal in which something is recorded all the time is looked at no more often.
const LOOKS: u32 = 3;

impl Inner {
    /// Looks at everything; whether the journal goes on from `against`, too.
    pub(super) async fn verify(&self, against: Option<Head>) -> Result<Verified, StoreError> {
        let mut looks = 0;
        loop {
            let head = self.head().await?;
            let found = Looking::new(&self.link, head).look(self, against).await?;
            looks += 1;
            // What is recorded, or pruned, while we look may seem to be wrong.
            if found.damage.is_empty() || looks == LOOKS || self.head().await? == head {
                return Ok(found);
            }
        }
    }

    async fn head(&self) -> Result<Head, StoreError> {
        let rows = self.link.rows(&statement::head()).await?;
        let head = rows.first().and_then(|row| match row.as_slice() {
            [Some(entry), Some(chain)] => {
                Some(Head { entries: entry.parse().ok()?, chain: chain.parse().ok()? })
            }
            _ => None,
        });
        head.ok_or_else(|| self.link.not_understood("a question for the head"))
    }
}

/// An entry of the ledger.
struct Entry {
    number: u64,
    fact: String,
    run: RunId,
    n: u64,
    seq: u64,
    hash: Hash,
    chain: Hash,
}

impl Entry {
    fn of(row: &Row) -> Option<Entry> {
        let [number, fact, run, n, seq, hash, chain] = row.as_slice() else { return None };
        Some(Entry {
            number: number.as_ref()?.parse().ok()?,
            fact: fact.clone()?,
            run: run.as_ref()?.parse().ok()?,
            n: n.as_ref()?.parse().ok()?,
            seq: seq.as_ref()?.parse().ok()?,
            hash: hash.as_ref()?.parse().ok()?,
            chain: chain.as_ref()?.parse().ok()?,
        })
    }

    /// The hash that it has to carry after an entry with `before`: as `staging_journal.enter` makes it.
    fn follows(&self, before: Hash) -> Hash {
        let Entry { number, fact, run, n, seq, hash, .. } = self;
        let told = format!("{number} {fact} {run} {n} {seq} ");
        let digest = Sha256::new().chain_update(before.0).chain_update(told).chain_update(hash.0).finalize();
        Hash(digest.into())
    }
}

/// What the ledger knows of a run.
#[derive(Default)]
struct Known {
    /// Number in the store, and hash, of each event.
    events: Vec<(u64, Hash)>,
    attachments: BTreeSet<Hash>,
}

struct Looking<'a> {
    link: &'a Link,
    known: BTreeMap<RunId, Known>,
    verified: Verified,
}

impl<'a> Looking<'a> {
    fn new(link: &'a Link, head: Head) -> Looking<'a> {
        let verified =
            Verified { head, runs: 0, events: 0, attachments: 0, pruned: 0, lost: 0, damage: Vec::new() };
        Looking { link, known: BTreeMap::new(), verified }
    }

    async fn look(mut self, inner: &Inner, against: Option<Head>) -> Result<Verified, StoreError> {
        self.look_at_ledger(against).await?;
        self.look_at_runs(inner).await?;
        self.look_at_attachments(inner).await?;
        Ok(self.verified)
    }

    fn found(&mut self, flaw: Flaw, run: Option<RunId>, what: String) {
        let path = PathBuf::from(self.link.place());
        self.verified.damage.push(Damage { flaw, run, path, what });
    }

    async fn look_at_ledger(&mut self, against: Option<Head>) -> Result<(), StoreError> {
        let head = self.verified.head;
        let mut pruned = BTreeSet::new();
        let mut chain = Hash::ZERO;
        let mut asked = Some(chain).filter(|_| against.is_some_and(|against| against.entries == 0));
        let mut number = 0;
        loop {
            let rows = self.link.rows(&statement::ledger(number, head.entries, ENTRIES)).await?;
            for row in &rows {
                let entry = Entry::of(row).ok_or_else(|| self.link.not_understood("a page of the ledger"))?;
                if entry.number != number + 1 {
                    let what = format!("entries {} to {} are not there", number + 1, entry.number - 1);
                    self.found(Flaw::Ledger, None, what);
                } else if entry.chain != entry.follows(chain) {
                    let what = format!("entry {} does not follow on the one before it", entry.number);
                    self.found(Flaw::Ledger, None, what);
                }
                // Whatever an entry says, the one after it was made to follow on the hash that it carries.
                (number, chain) = (entry.number, entry.chain);
                if against.is_some_and(|against| against.entries == number) {
                    asked = Some(chain);
                }
                self.take(&entry, &mut pruned);
            }
            if rows.len() < ENTRIES {
                break;
            }
        }
        if (number, chain) != (head.entries, head.chain) {
            let what = format!("it ends with entry {number}, and should with {}", head.entries);
            self.found(Flaw::Ledger, None, what);
        }
        self.verified.pruned = u64::try_from(pruned.len()).unwrap_or(u64::MAX);
        let Some(against) = against else { return Ok(()) };
        let what = match asked {
            Some(chain) if chain == against.chain => return Ok(()),
            Some(_) => format!("after {} entries it is another journal than that head's", against.entries),
            None => format!("it has {} entries, and had {} at that head", head.entries, against.entries),
        };
        self.found(Flaw::NotContinued, None, what);
        Ok(())
    }

    fn take(&mut self, entry: &Entry, pruned: &mut BTreeSet<RunId>) {
        let run = entry.run;
        match entry.fact.as_str() {
            "event" => {
                pruned.remove(&run);
                let known = self.known.entry(run).or_default();
                let there = u64::try_from(known.events.len()).unwrap_or(u64::MAX);
                known.events.push((entry.seq, entry.hash));
                if entry.n != there {
                    let what = format!("entry {} is of event {}, after {there}", entry.number, entry.n);
                    self.found(Flaw::Ledger, Some(run), what);
                }
            }
            "attachment" => drop(self.known.entry(run).or_default().attachments.insert(entry.hash)),
            "pruned" => drop((self.known.remove(&run), pruned.insert(run))),
            fact => {
                let what = format!("entry {} is a '{fact}', which is nothing", entry.number);
                self.found(Flaw::Ledger, Some(run), what);
            }
        }
    }

    async fn look_at_runs(&mut self, inner: &Inner) -> Result<(), StoreError> {
        let rows = self.link.rows(&statement::run_rows()).await?;
        let not_understood = || self.link.not_understood("a question for runs");
        let row = |row: &Row| match row.as_slice() {
            [Some(run), Some(events), Some(head)] => {
                Some((run.parse().ok()?, (events.parse().ok()?, head.parse().ok()?)))
            }
            _ => None,
        };
        let rows: BTreeMap<RunId, (u64, Hash)> =
            rows.iter().map(row).collect::<Option<_>>().ok_or_else(not_understood)?;
        let all: BTreeSet<RunId> = rows.keys().chain(self.known.keys()).copied().collect();
        let all: Vec<RunId> = all.into_iter().collect();
        for some in all.chunks(RUNS) {
            let mut stored = inner.events_of(some).await?;
            for run in some {
                let events = stored.remove(run).unwrap_or_default();
                let known = self.known.remove(run).unwrap_or_default();
                self.look_at_run(*run, rows.get(run).copied(), &events, &known);
                self.known.insert(*run, known);
            }
        }
        Ok(())
    }

    fn look_at_run(&mut self, run: RunId, row: Option<(u64, Hash)>, stored: &[Stored], known: &Known) {
        if row.is_none() && stored.is_empty() {
            let what = format!("its {} events are gone", known.events.len());
            return self.found(Flaw::RunRemoved, Some(run), what);
        }
        self.verified.runs += 1;
        self.verified.events += u64::try_from(stored.len()).unwrap_or(u64::MAX);
        let events: Vec<Vec<u8>> = stored.iter().map(|stored| stored.bytes.clone()).collect();
        if let Some((flaw, what)) = verified::flaw(&events, run) {
            return self.found(flaw, Some(run), what);
        }
        if events.len() < known.events.len() {
            let what = format!("it has {} of its {} events", events.len(), known.events.len());
            return self.found(Flaw::Truncated, Some(run), what);
        }
        if let Some(n) =
            stored.iter().zip(&known.events).position(|(s, (_, hash))| Hash::of(&s.bytes) != *hash)
        {
            return self.found(
                Flaw::Changed,
                Some(run),
                format!("event {n} is not the one that was recorded"),
            );
        }
        if let Some(n) = stored.iter().zip(&known.events).position(|(s, (seq, _))| s.seq != *seq) {
            let what = format!("event {n} has not the number in the journal with which it was recorded");
            return self.found(Flaw::Reordered, Some(run), what);
        }
        if events.len() > known.events.len() {
            let what =
                format!("it has {} events, of which {} were recorded", events.len(), known.events.len());
            return self.found(Flaw::Changed, Some(run), what);
        }
        let last = events.last().map_or(Hash::ZERO, |event| Hash::of(event));
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        if row != Some((count, last)) {
            let what = "what is noted beside it is not what its events come to".to_owned();
            self.found(Flaw::Changed, Some(run), what);
        }
    }

    async fn look_at_attachments(&mut self, inner: &Inner) -> Result<(), StoreError> {
        let rows = self.link.rows(&statement::attachments()).await?;
        let hashes = rows.into_iter().flatten().map(|hash| hash?.parse::<Hash>().ok());
        let there: BTreeSet<Hash> = hashes
            .collect::<Option<_>>()
            .ok_or_else(|| self.link.not_understood("a question for attachments"))?;
        for hash in &there {
            match inner.attachment(*hash).await {
                Ok(_) => self.verified.attachments += 1,
                Err(StoreError::Damaged { what, .. }) => self.found(Flaw::AttachmentChanged, None, what),
                // It was pruned while we looked.
                Err(StoreError::NoSuchAttachment(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let missing: Vec<(RunId, Hash)> = self
            .known
            .iter()
            .flat_map(|(run, known)| known.attachments.iter().map(|hash| (*run, *hash)))
            .filter(|(_, hash)| !there.contains(hash))
            .collect();
        for (run, hash) in missing {
            self.found(Flaw::AttachmentMissing, Some(run), format!("it names {hash}, which is not there"));
        }
        Ok(())
    }
}
