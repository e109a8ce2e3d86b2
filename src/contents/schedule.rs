//! Which part of a restore comes next.
//!
//! While nothing is on its way over the network, the next rows are; then what follows rows that are in, the costliest
//! first, so that processors are busy while the network is slow; then more rows. Rows go in the order of the file, since
//! that is how they are read best, but for the largest tables: what takes longest begins first. Where the file comes in
//! one piece, rows come when they come, and all that is to be decided is what follows them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::parts::{LARGE, Lock, MOST_TABLES, Part, PartKind};

/// A table is among the largest when its rows are at least one in so many bytes of all.
const LARGEST: u64 = 8;

/// How far a restore is.
#[derive(Debug)]
pub struct Schedule<'a> {
    parts: &'a [Part],
    workers: usize,
    /// Whether rows come by themselves.
    streamed: bool,
    waiting: Vec<usize>,
    running: HashSet<usize>,
    done: HashSet<usize>,
    /// What rows took, in bytes, where that turned out later.
    learnt: HashMap<usize, u64>,
}

impl<'a> Schedule<'a> {
    /// A restore by so many workers in which these parts are done.
    #[must_use]
    pub fn new(parts: &'a [Part], workers: usize, streamed: bool, done: HashSet<usize>) -> Self {
        let all: u64 = parts.iter().filter(|part| part.kind == PartKind::Rows).map(|part| part.weight).sum();
        let mut waiting: Vec<usize> = (0..parts.len()).filter(|index| !done.contains(index)).collect();
        // What comes first is tried first.
        waiting.sort_by_key(|index| {
            let weight = parts.get(*index).map_or(0, |part| match part.kind {
                PartKind::Rows if part.weight.saturating_mul(LARGEST) < all => 0,
                PartKind::Rows | PartKind::AfterRows => part.weight,
                _ => 0,
            });
            (Reverse(weight), *index)
        });
        let (running, learnt) = (HashSet::new(), HashMap::new());
        Self { parts, workers: workers.max(1), streamed, waiting, running, done, learnt }
    }

    /// The parts to begin now, in one transaction, if there is a worker for them. None when none can be begun.
    pub fn begin(&mut self) -> Vec<usize> {
        if self.running.len() >= self.workers {
            return Vec::new();
        }
        let is_loading = self.running.iter().any(|index| self.has_rows(*index));
        let Some(first) =
            self.take(|this, index| this.has_rows(index) != is_loading).or_else(|| self.take(|_, _| true))
        else {
            return Vec::new();
        };
        let mut begun = vec![first];
        let is_small = |this: &Self, index: usize| {
            this.kind(index) == Some(PartKind::AfterRows) && this.weight(index) < LARGE
        };
        // It was not known before which of them are small.
        while self.streamed && is_small(self, first) && begun.len() < MOST_TABLES {
            let Some(another) = self.take(is_small) else { break };
            begun.push(another);
        }
        begun.sort_unstable();
        begun
    }

    /// These rows came by themselves, so many bytes of them, and are being loaded.
    pub fn came(&mut self, index: usize, bytes: u64) {
        self.waiting.retain(|waiting| *waiting != index);
        self.learnt.insert(index, bytes);
    }

    /// A part that was begun is done.
    pub fn end(&mut self, index: usize) {
        self.running.remove(&index);
        self.done.insert(index);
    }

    /// Whether rows can be loaded: all that they go into is there.
    #[must_use]
    pub fn rows_may_come(&self) -> bool {
        let is_definitions = |index: &usize| self.kind(*index) == Some(PartKind::Definitions);
        !self.waiting.iter().chain(&self.running).any(is_definitions)
    }

    fn take(&mut self, wanted: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let at = self.waiting.iter().position(|index| wanted(self, *index) && self.is_ready(*index))?;
        let index = self.waiting.remove(at);
        self.running.insert(index);
        Some(index)
    }

    fn kind(&self, index: usize) -> Option<PartKind> {
        self.parts.get(index).map(|part| part.kind)
    }

    fn has_rows(&self, index: usize) -> bool {
        self.parts.get(index).is_some_and(|part| !part.rows.is_empty())
    }

    /// How much work a part is, by what is known now.
    fn weight(&self, index: usize) -> u64 {
        let Some(part) = self.parts.get(index) else { return 0 };
        part.needs
            .iter()
            .filter_map(|need| self.learnt.get(need))
            .fold(part.weight, |sum, more| sum.saturating_add(*more))
    }

    fn is_ready(&self, index: usize) -> bool {
        let Some(part) = self.parts.get(index) else { return false };
        !(self.streamed && self.has_rows(index))
            && part.needs.iter().all(|need| self.done.contains(need))
            && self
                .running
                .iter()
                .filter_map(|other| self.parts.get(*other))
                .all(|other| !conflict(part, other))
    }
}

/// Whether one would wait for a lock of the other's.
fn conflict(one: &Part, other: &Part) -> bool {
    let clashes = |lock: &Lock| {
        let found = other.locks.binary_search_by_key(&lock.table, |other| other.table);
        found.ok().and_then(|at| other.locks.get(at)).is_some_and(|other| lock.alone || other.alone)
    };
    one.locks.iter().any(clashes)
}

#[cfg(test)]
mod tests {
    use super::super::parts::Rows;
    use super::*;

    fn part(kind: PartKind, needs: &[usize], weight: u64) -> Part {
        let rows = if kind == PartKind::Rows {
            vec![Rows { entry: 0, dump_id: 1, bytes: Some(0..weight), empties: true }]
        } else {
            Vec::new()
        };
        let (needs, locks) = (needs.to_vec(), Vec::new());
        Part { name: String::new(), kind, entries: vec![0], needs, locks, rows, weight }
    }

    fn locking(needs: &[usize], table: usize, alone: bool) -> Part {
        Part { locks: vec![Lock { table, alone }], ..part(PartKind::AfterRows, needs, 1) }
    }

    fn begun(schedule: &mut Schedule<'_>) -> Vec<Vec<usize>> {
        std::iter::from_fn(|| Some(schedule.begin()).filter(|begun| !begun.is_empty())).collect()
    }

    #[test]
    fn what_is_needed_comes_first_and_the_largest_table_before_the_others() {
        use PartKind::{Definitions, Finish, Rows};
        let parts = [
            part(Definitions, &[], 0),
            part(Rows, &[0], 10),
            part(Rows, &[0], 20),
            part(Rows, &[0], 900),
            part(Finish, &[0, 1, 2, 3], 0),
        ];
        let mut schedule = Schedule::new(&parts, 2, false, HashSet::new());
        assert_eq!(begun(&mut schedule), [[0]]);
        schedule.end(0);
        assert_eq!(begun(&mut schedule), [[3], [1]]);
        schedule.end(1);
        assert_eq!(begun(&mut schedule), [[2]]);
        schedule.end(2);
        assert_eq!(begun(&mut schedule), Vec::<Vec<usize>>::new());
        schedule.end(3);
        assert_eq!(begun(&mut schedule), [[4]]);
    }

    #[test]
    fn while_rows_are_on_their_way_what_follows_others_is_made() {
        use PartKind::{AfterRows, Rows};
        let parts =
            [part(Rows, &[], 100), part(Rows, &[], 100), part(Rows, &[], 100), part(AfterRows, &[0], 100)];
        let mut schedule = Schedule::new(&parts, 2, false, HashSet::from([0]));
        assert_eq!(begun(&mut schedule), [[1], [3]]);
        schedule.end(3);
        assert_eq!(begun(&mut schedule), [[2]]);
    }

    #[test]
    fn a_table_is_locked_by_many_that_share_it_or_by_one() {
        let parts =
            [locking(&[], 5, false), locking(&[], 5, false), locking(&[], 5, true), locking(&[], 6, true)];
        let mut schedule = Schedule::new(&parts, 9, false, HashSet::new());
        assert_eq!(begun(&mut schedule), [[0], [1], [3]]);
        schedule.end(0);
        assert_eq!(begun(&mut schedule), Vec::<Vec<usize>>::new());
        schedule.end(1);
        assert_eq!(begun(&mut schedule), [[2]]);
    }

    #[test]
    fn what_follows_rows_that_turn_out_small_is_made_together() {
        use PartKind::{AfterRows, Rows};
        let parts = [
            part(Rows, &[], 0),
            part(Rows, &[], 0),
            part(AfterRows, &[0], 0),
            part(AfterRows, &[0], 0),
            part(AfterRows, &[1], 0),
        ];
        let mut schedule = Schedule::new(&parts, 9, true, HashSet::new());
        assert_eq!(begun(&mut schedule), Vec::<Vec<usize>>::new());
        schedule.came(0, 10);
        schedule.came(1, LARGE);
        schedule.end(0);
        schedule.end(1);
        let mut begun = begun(&mut schedule);
        begun.sort();
        assert_eq!(begun, [vec![2, 3], vec![4]]);
    }
}
