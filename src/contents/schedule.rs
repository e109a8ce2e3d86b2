//! Which part of a restore comes next.
//!
//! While nothing is on its way over the network, the next rows are, even if all workers are busy: they cost a processor
//! little as long as they are waited for. Otherwise what follows rows that are in is made, the costliest first, so that
//! processors have work while the network is slow; and only then more rows are begun beside those that come, where that
//! makes them come faster.
//!
//! The network and the processors work one after the other on each table: its rows come, then its indexes are made. So
//! tables go in the order that keeps two such machines busy longest (S. M. Johnson, Optimal two- and three-stage production
//! schedules with setup times included, 1954): first those that give the processors more work than the network, the
//! smallest of them first; then the others, and last what leaves the least to be done. How fast either is is not known
//! before, so they count as equally fast. Where the file comes in one piece, rows come when they come, and all that is
//! to be decided is what follows them.

use std::collections::{HashMap, HashSet};

use super::parts::{LARGE, Lock, MOST_TABLES, Part, PartKind};

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
        let mut waiting: Vec<usize> = (0..parts.len()).filter(|index| !done.contains(index)).collect();
        let order = Order::of(parts);
        // What comes first is tried first.
        waiting.sort_by_key(|index| (order.rank(*index), *index));
        let (running, learnt) = (HashSet::new(), HashMap::new());
        Self { parts, workers: workers.max(1), streamed, waiting, running, done, learnt }
    }

    /// The parts to begin now, in one transaction. None when none can be begun, or no more rows are to be begun beside
    /// those that come: `link_is_full` when they would not come faster.
    pub fn begin(&mut self, link_is_full: bool) -> Vec<usize> {
        let (running, loading) = (self.running.len(), self.loading());
        let is_room = running < self.workers;
        // Who waits for rows leaves a processor to others.
        let is_room_for_others = is_room || (link_is_full && loading > 0 && running - loading < self.workers);
        let mut first = None;
        if loading == 0 && running <= self.workers {
            first = self.take(Self::has_rows);
        }
        if is_room_for_others {
            first = first.or_else(|| self.take(|this, index| !this.has_rows(index)));
        }
        if is_room && !link_is_full {
            first = first.or_else(|| self.take(Self::has_rows));
        }
        let Some(first) = first else { return Vec::new() };
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

    /// How many parts are at work whose rows are on their way.
    #[must_use]
    pub fn loading(&self) -> usize {
        self.running.iter().filter(|index| self.has_rows(**index)).count()
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

/// In which order parts are tried.
struct Order<'a> {
    parts: &'a [Part],
    /// What each leaves to be done, by what needs it directly.
    after: Vec<u64>,
    rows: u64,
    all_after: u64,
}

impl<'a> Order<'a> {
    fn of(parts: &'a [Part]) -> Order<'a> {
        let is = |part: &&Part, kind| part.kind == kind;
        let mut after = vec![0_u64; parts.len()];
        for part in parts.iter().filter(|part| is(part, PartKind::AfterRows)) {
            for need in &part.needs {
                if let Some(after) = after.get_mut(*need) {
                    *after = after.saturating_add(part.weight);
                }
            }
        }
        let rows = || parts.iter().zip(&after).filter(|(part, _)| is(part, PartKind::Rows));
        let (all, all_after) =
            (rows().map(|(part, _)| part.weight).sum(), rows().map(|(_, after)| after).sum());
        Order { parts, rows: all, all_after, after }
    }

    /// What comes first has the lowest.
    fn rank(&self, index: usize) -> (u8, u64) {
        let Some(part) = self.parts.get(index) else { return (0, 0) };
        let after = self.after.get(index).copied().unwrap_or(0);
        let share = |some: u64, of: u64| u128::from(some) * u128::from(of);
        match part.kind {
            PartKind::Rows if share(part.weight, self.all_after) < share(after, self.rows) => {
                (1, part.weight)
            }
            PartKind::Rows => (2, u64::MAX - after),
            PartKind::AfterRows => (0, u64::MAX - part.weight),
            _ => (0, 0),
        }
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
            vec![Rows { entry: 0, dump_id: 1, bytes: Some(0..weight), empties: true, waits: false }]
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
        begun_over(schedule, false)
    }

    fn begun_over(schedule: &mut Schedule<'_>, link_is_full: bool) -> Vec<Vec<usize>> {
        std::iter::from_fn(|| Some(schedule.begin(link_is_full)).filter(|begun| !begun.is_empty())).collect()
    }

    #[test]
    fn what_leaves_more_to_be_done_than_it_takes_comes_first_the_smallest_of_it_before_the_rest() {
        use PartKind::{AfterRows, Rows};
        let parts = [
            part(Rows, &[], 500),
            part(Rows, &[], 300),
            part(Rows, &[], 200),
            part(AfterRows, &[0], 500),
            part(AfterRows, &[1], 300),
            part(AfterRows, &[1], 300),
            part(AfterRows, &[2], 200),
            part(AfterRows, &[2], 200),
            part(Rows, &[], 900),
        ];
        let mut schedule = Schedule::new(&parts, 1, false, HashSet::new());
        let mut rows = Vec::new();
        while let [part] = schedule.begin(true)[..] {
            schedule.end(part);
            rows.extend((schedule.kind(part) == Some(Rows)).then_some(part));
        }
        assert_eq!(rows, [2, 1, 0, 8]);
    }

    #[test]
    fn no_more_rows_are_begun_over_a_link_that_is_full_and_it_is_never_left_idle() {
        use PartKind::{AfterRows, Rows};
        let parts = [
            part(Rows, &[], 9),
            part(Rows, &[], 9),
            part(Rows, &[], 9),
            part(AfterRows, &[0], 9),
            part(AfterRows, &[0], 8),
            part(AfterRows, &[0], 7),
        ];
        let done = || HashSet::from([0]);
        let mut full = Schedule::new(&parts, 2, false, done());
        assert_eq!(begun_over(&mut full, true), [[1], [3], [4]]);
        full.end(3);
        assert_eq!(begun_over(&mut full, true), [[5]]);
        full.end(1);
        assert_eq!(begun_over(&mut full, true), [[2]]);
        let mut fast = Schedule::new(&parts, 2, false, done());
        assert_eq!(begun_over(&mut fast, false), [[1], [3]]);
        fast.end(1);
        assert_eq!(begun_over(&mut fast, false), [[2]]);
        let mut few = Schedule::new(&parts, 3, false, HashSet::new());
        assert_eq!(begun_over(&mut few, true), [[0]]);
        assert_eq!(begun_over(&mut few, false), [[1], [2]]);
    }

    #[test]
    fn what_is_needed_comes_first_and_what_is_after_all_last() {
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
        assert_eq!(begun(&mut schedule), [[1], [2]]);
        schedule.end(1);
        assert_eq!(begun(&mut schedule), [[3]]);
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
