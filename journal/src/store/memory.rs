//! Events in memory, gone with the process: for tests, and the model that the other stores are held against.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Claim, Log, Numbered, Page, Seen, Store, StoreError, Stored, Watch};
use crate::codec;
use crate::event::{Hash, RunId};
use crate::query::{Query, Summary};
use crate::run::Run;
use crate::step::Progress;

/// How many events are looked at for a page: few, so that whoever pages is seen to do so.
const PAGE: usize = 16;

/// A store whose clones share what they keep.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    kept: Arc<Mutex<Kept>>,
    /// Counts what happened.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    seq: u64,
    runs: BTreeMap<RunId, Vec<Stored>>,
    attachments: BTreeMap<Hash, Vec<u8>>,
    holders: Vec<Claim>,
    shown: BTreeMap<RunId, Progress>,
}

struct MemoryLog {
    kept: Arc<Mutex<Kept>>,
    changes: watch::Sender<u64>,
    run: RunId,
    claim: Claim,
}

impl MemoryStore {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }
}

impl Kept {
    fn holds(&self, run: RunId) -> bool {
        self.holders.iter().any(|held| parse(&held.run) == run)
    }

    fn asks_for(&self, query: &Query, run: RunId) -> bool {
        let summary = self.runs.get(&run).and_then(|events| summary(run, events));
        summary.is_some_and(|summary| query.matches_run(&summary, || self.holds(run)))
    }
}

fn changed(changes: &watch::Sender<u64>) {
    changes.send_modify(|count| *count += 1);
}

/// Nothing in here panics half-way, so what a poisoned lock guards is whole.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(run: &str) -> RunId {
    run.parse().unwrap_or(RunId(Uuid::nil()))
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(&self, claim: &Claim) -> Result<Box<dyn Log>, StoreError> {
        let mut kept = self.kept();
        let holder = kept
            .holders
            .iter()
            .find(|held| held.run == claim.run || (claim.target.is_some() && held.target == claim.target));
        if let Some(holder) = holder {
            let what = if holder.run == claim.run {
                &claim.run
            } else {
                claim.target.as_ref().unwrap_or(&claim.run)
            };
            return Err(StoreError::Busy { what: what.clone(), holder: Some(Box::new(holder.clone())) });
        }
        kept.holders.push(claim.clone());
        drop(kept);
        changed(&self.changes);
        Ok(Box::new(MemoryLog {
            kept: Arc::clone(&self.kept),
            changes: self.changes.clone(),
            run: parse(&claim.run),
            claim: claim.clone(),
        }))
    }

    async fn load(&self, run: RunId) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.read(run).await?.into_iter().map(|stored| stored.bytes).collect())
    }

    async fn read(&self, run: RunId) -> Result<Vec<Stored>, StoreError> {
        self.kept().runs.get(&run).cloned().ok_or(StoreError::NoSuchRun(run))
    }

    async fn read_all(&self, runs: &[RunId]) -> Result<Vec<Vec<Stored>>, StoreError> {
        let kept = self.kept();
        Ok(runs.iter().map(|run| kept.runs.get(run).cloned().unwrap_or_default()).collect())
    }

    async fn events(&self, query: &Query, from: u64) -> Result<Page, StoreError> {
        let kept = self.kept();
        let numbered = |(run, events): (&RunId, &Vec<Stored>)| -> Vec<Numbered> {
            let place = |(n, Stored { seq, bytes }): (u64, &Stored)| Numbered {
                seq: *seq,
                run: *run,
                n,
                bytes: bytes.clone(),
            };
            (0..).zip(events).map(place).collect()
        };
        let mut all: Vec<Numbered> = kept.runs.iter().flat_map(numbered).collect();
        all.retain(|event| event.seq >= from);
        all.sort_by_key(|event| event.seq);
        let next = all.get(PAGE).map(|event| event.seq);
        all.truncate(PAGE);
        all.retain(|event| kept.asks_for(query, event.run) && query.matches_event(&event.bytes));
        let first = |event: &Numbered| Some((event.run, kept.runs.get(&event.run)?.first()?.bytes.clone()));
        let beginnings = all.iter().filter_map(first).collect();
        Ok(Page { events: all, beginnings, next, end: kept.seq + 1 })
    }

    async fn watch(&self, run: RunId) -> Result<Box<dyn Watch>, StoreError> {
        let changes = self.changes.subscribe();
        Ok(Box::new(MemoryWatch { store: self.clone(), changes, run, seen: 0, last: None }))
    }

    async fn progress(&self, run: RunId) -> Result<Option<Progress>, StoreError> {
        Ok(self.kept().shown.get(&run).cloned())
    }

    async fn is_held(&self, run: RunId) -> Result<bool, StoreError> {
        Ok(self.kept().holds(run))
    }

    async fn runs(&self, query: &Query) -> Result<Vec<Summary>, StoreError> {
        let kept = self.kept();
        let newest_first = kept.runs.iter().rev();
        let summaries = newest_first.filter_map(|(id, events)| summary(*id, events));
        let matching = summaries.filter(|summary| query.matches(summary, || kept.holds(summary.id)));
        Ok(matching.take(query.limit.unwrap_or(usize::MAX)).collect())
    }

    async fn find(&self, part: &str) -> Result<Vec<RunId>, StoreError> {
        Ok(self.kept().runs.keys().rev().filter(|id| id.matches(part)).copied().collect())
    }

    async fn attach(&self, bytes: &[u8]) -> Result<Hash, StoreError> {
        let hash = Hash::of(bytes);
        self.kept().attachments.insert(hash, bytes.to_vec());
        Ok(hash)
    }

    async fn attachment(&self, hash: Hash) -> Result<Vec<u8>, StoreError> {
        self.kept().attachments.get(&hash).cloned().ok_or(StoreError::NoSuchAttachment(hash))
    }

    fn take_notices(&self) -> Vec<String> {
        Vec::new()
    }
}

fn summary(id: RunId, events: &[Stored]) -> Option<Summary> {
    let decoded: Result<Vec<_>, _> = events.iter().map(|stored| codec::decode(&stored.bytes)).collect();
    let run = decoded.ok().and_then(|events| Run::fold(&events).ok());
    run.map(|run| Summary::of(&run)).or_else(|| unreadable(id, events))
}

/// What can be told of a run that this version cannot read.
pub(super) fn unreadable(id: RunId, events: &[Stored]) -> Option<Summary> {
    events.first().map(|first| unreadable_beginning(id, &first.bytes))
}

/// What can be told of a run of which this version cannot read even the first event.
pub(super) fn unreadable_beginning(id: RunId, first: &[u8]) -> Summary {
    let header = codec::header(first).ok();
    Summary {
        id,
        started_at: header.as_ref().map(|header| header.at).unwrap_or_default(),
        status: None,
        command: String::new(),
        section: None,
        user: header.map(|header| header.actor.user).unwrap_or_default(),
        read_only: false,
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn append(&mut self, n: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let mut kept = lock(&self.kept);
        let seq = kept.seq + 1;
        let events = kept.runs.entry(self.run).or_default();
        if u64::try_from(events.len()).ok() != Some(n) {
            return Err(StoreError::Fenced(self.run));
        }
        events.push(Stored { seq, bytes: bytes.to_vec() });
        kept.seq = seq;
        drop(kept);
        changed(&self.changes);
        Ok(())
    }

    async fn publish(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn show(&mut self, progress: &Progress) {
        lock(&self.kept).shown.insert(self.run, progress.clone());
        changed(&self.changes);
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        let mut kept = lock(&self.kept);
        kept.holders.retain(|held| *held != self.claim);
        kept.shown.remove(&self.run);
        drop(kept);
        changed(&self.changes);
    }
}

struct MemoryWatch {
    store: MemoryStore,
    changes: watch::Receiver<u64>,
    run: RunId,
    /// How many events were given.
    seen: usize,
    /// What else was given last.
    last: Option<(bool, Option<Progress>)>,
}

impl MemoryWatch {
    fn look(&mut self) -> Option<Seen> {
        let kept = self.store.kept();
        let all = kept.runs.get(&self.run).map(Vec::as_slice).unwrap_or_default();
        let events: Vec<Vec<u8>> = all.iter().skip(self.seen).map(|stored| stored.bytes.clone()).collect();
        let now = (kept.holds(self.run), kept.shown.get(&self.run).cloned());
        if events.is_empty() && self.last.as_ref() == Some(&now) {
            return None;
        }
        self.seen += events.len();
        self.last = Some(now.clone());
        let (held, progress) = now;
        Some(Seen { events, progress, held })
    }
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Seen, StoreError> {
        loop {
            self.changes.mark_unchanged();
            if let Some(seen) = self.look() {
                return Ok(seen);
            }
            if self.changes.changed().await.is_err() {
                // The store keeps a sender itself, so this does not come.
                std::future::pending::<()>().await;
            }
        }
    }
}
