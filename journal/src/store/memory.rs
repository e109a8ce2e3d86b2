//! Events in memory, gone with the process: for tests, and the model that the other stores are held against.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use super::{Claim, Log, Store, StoreError, Stored};
use crate::codec;
use crate::event::{Hash, RunId};
use crate::query::{Query, Summary};
use crate::run::Run;

/// A store whose clones share what they keep.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    seq: u64,
    runs: BTreeMap<RunId, Vec<Stored>>,
    attachments: BTreeMap<Hash, Vec<u8>>,
    holders: Vec<Claim>,
}

struct MemoryLog {
    kept: Arc<Mutex<Kept>>,
    run: RunId,
    claim: Claim,
}

impl MemoryStore {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }
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
        Ok(Box::new(MemoryLog { kept: Arc::clone(&self.kept), run: parse(&claim.run), claim: claim.clone() }))
    }

    async fn load(&self, run: RunId) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.read(run).await?.into_iter().map(|stored| stored.bytes).collect())
    }

    async fn read(&self, run: RunId) -> Result<Vec<Stored>, StoreError> {
        self.kept().runs.get(&run).cloned().ok_or(StoreError::NoSuchRun(run))
    }

    async fn is_held(&self, run: RunId) -> Result<bool, StoreError> {
        Ok(self.kept().holders.iter().any(|held| parse(&held.run) == run))
    }

    async fn runs(&self, query: &Query) -> Result<Vec<Summary>, StoreError> {
        let kept = self.kept();
        let newest_first = kept.runs.iter().rev();
        let summaries = newest_first.filter_map(|(id, events)| summary(*id, events));
        let matching = summaries.filter(|summary| {
            query.matches(summary, || kept.holders.iter().any(|held| parse(&held.run) == summary.id))
        });
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
    let header = codec::header(&events.first()?.bytes).ok();
    Some(Summary {
        id,
        started_at: header.as_ref().map(|header| header.at).unwrap_or_default(),
        status: None,
        command: String::new(),
        section: None,
        user: header.map(|header| header.actor.user).unwrap_or_default(),
        read_only: false,
    })
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
        Ok(())
    }

    async fn publish(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        lock(&self.kept).holders.retain(|held| *held != self.claim);
    }
}
