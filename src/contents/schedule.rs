//! Which part of a restore comes next.
//!
//! While nothing is on its way over the network, the next rows are; then what follows rows that are in, the costliest
//! first, so that processors are busy while the network is slow; then more rows. Rows go in the order of the file, since
//! that is how they are read best, but for the largest tables: what takes longest begins first.

use std::collections::HashSet;

use super::parts::{Part, PartKind};

/// A table is among the largest when its rows are at least one in so many bytes of all.
const LARGEST: u64 = 8;

/// How far a restore is.
#[derive(Debug)]
pub struct Schedule<'a> {
    parts: &'a [Part],
    workers: usize,
    waiting: Vec<usize>,
    running: HashSet<usize>,
    done: HashSet<usize>,
}

impl<'a> Schedule<'a> {
    /// A restore by so many workers in which these parts are done.
    #[must_use]
    pub fn new(parts: &'a [Part], workers: usize, done: HashSet<usize>) -> Self {
        let all: u64 = parts.iter().filter(|part| part.kind == PartKind::Rows).map(|part| part.weight).sum();
        let mut waiting: Vec<usize> = (0..parts.len()).filter(|index| !done.contains(index)).collect();
        // What comes first is tried first.
        waiting.sort_by_key(|index| {
            let (kind, weight) =
                parts.get(*index).map_or((PartKind::Finish, 0), |part| (part.kind, part.weight));
            let early = match kind {
                PartKind::Rows if weight.saturating_mul(LARGEST) < all => 0,
                PartKind::Rows | PartKind::AfterRows => weight,
                _ => 0,
            };
            (std::cmp::Reverse(early), *index)
        });
        Self { parts, workers: workers.max(1), waiting, running: HashSet::new(), done }
    }

    /// The part to begin now, if there is a worker for it and one that can be begun.
    pub fn begin(&mut self) -> Option<usize> {
        if self.running.len() >= self.workers {
            return None;
        }
        let is_rows =
            |this: &Self, index: usize| this.parts.get(index).is_some_and(|part| !part.rows.is_empty());
        let is_loading = self.running.iter().any(|index| is_rows(self, *index));
        let ready = |wanted: bool| {
            self.waiting.iter().position(|index| is_rows(self, *index) == wanted && self.is_ready(*index))
        };
        let at = ready(!is_loading).or_else(|| ready(is_loading))?;
        let index = self.waiting.remove(at);
        self.running.insert(index);
        Some(index)
    }

    /// A part that was begun is done.
    pub fn end(&mut self, index: usize) {
        self.running.remove(&index);
        self.done.insert(index);
    }

    fn is_ready(&self, index: usize) -> bool {
        let Some(part) = self.parts.get(index) else { return false };
        part.needs.iter().all(|need| self.done.contains(need))
            && self
                .running
                .iter()
                .filter_map(|other| self.parts.get(*other))
                .all(|other| !conflict(part, other))
    }
}

/// Whether one would wait for a lock of the other's.
fn conflict(one: &Part, other: &Part) -> bool {
    let same = |lock: &&super::parts::Lock| {
        let found = other.locks.binary_search_by_key(&lock.table, |other| other.table);
        found.ok().and_then(|at| other.locks.get(at)).is_some_and(|other| lock.alone || other.alone)
    };
    one.locks.iter().any(|lock| same(&lock))
}
