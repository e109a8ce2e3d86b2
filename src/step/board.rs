//! What those who bring and load rows are at, and what is done: counted here, and shown by [`Lookout`](super::lookout).

mod facts;
mod slot;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::clock::SystemClock;

pub(super) use self::facts::kind_word;
pub(super) use self::slot::Slot;

use self::facts::Facts;
use super::backends::{Backend, Building, Holder};
use crate::contents::{Contents, RestorePart};
use crate::progress::{Amount, Job, Learnt, Left, Pace, Recent, Restoring, Stall, Work, Worker, time_left};

/// The workers, side by side.
pub(super) struct Board {
    parts: Vec<Facts>,
    workers: u64,
    /// How many bytes are to come, when that is known.
    total: Option<u64>,
    /// What is counted of the step as a whole.
    unit: &'static str,
    /// For how long a server may send nothing before that is told.
    patience: Duration,
    state: Mutex<State>,
}

/// For how long a backup server may send nothing before that is told, in milliseconds, where a plan does not say so: those
/// of older versions.
pub(super) fn stall_after_ms() -> u64 {
    30_000
}

#[derive(Default)]
struct State {
    slots: Vec<Option<Busy>>,
    /// Since when a step is at work that is known as a whole only.
    since: Option<Duration>,
    ended: HashSet<usize>,
    came: u64,
    loaded: u64,
    tables: Amount,
    indexes: Amount,
    recent: Recent,
    built: Option<Pace>,
    learnt: Learnt,
    /// How many entries are loaded, where that is all that can be told.
    entries: u64,
    /// What the server says of our sessions, by the worker's number.
    backends: HashMap<usize, Backend>,
    /// The same of a program that has several sessions, which are nobody's in particular.
    others: Vec<Backend>,
}

/// Somebody at work.
struct Busy {
    what: String,
    parts: Vec<usize>,
    since: Duration,
    came: u64,
    total: Option<u64>,
    /// Since when it has waited for bytes.
    awaiting: Option<Duration>,
}

impl Board {
    /// For an attempt by so many workers at these parts, of which the entries with these dump ids are done. Bytes of rows are
    /// known where the dump does not come as a `stream`.
    pub(super) fn new(
        parts: &[RestorePart],
        contents: &Contents,
        done: &HashSet<i32>,
        stream: bool,
        total: Option<u64>,
        workers: u16,
        patience: Duration,
    ) -> Board {
        let facts: Vec<Facts> = parts.iter().map(|part| Facts::of(part, contents, done, stream)).collect();
        let all = |of: fn(&Facts) -> Amount| {
            let (in_copy, left) = facts.iter().map(of).fold((0, 0), |(done, left), amount| {
                (done + amount.done, left + amount.total.unwrap_or_default())
            });
            Amount { done: in_copy, total: Some(in_copy + left) }
        };
        let (tables, indexes) = (all(|facts| facts.tables), all(|facts| facts.indexes));
        let state = State { tables, indexes, ..State::default() };
        let (workers, unit) = (workers.into(), "bytes");
        Board { parts: facts, workers, total, unit, patience, state: Mutex::new(state) }
    }

    /// For a file that is brought here.
    pub(super) fn of_file(total: Option<u64>, patience: Duration) -> Board {
        let (parts, state) = (Vec::new(), Mutex::default());
        Board { parts, workers: 1, total, unit: "bytes", patience, state }
    }

    /// For a step of this name that has another program load so many entries. How long it takes is known as a whole only.
    pub(super) fn of_entries(step: &str, entries: u64) -> Board {
        let state = Mutex::new(State { since: Some(SystemClock.uptime()), ..State::default() });
        let (total, patience) = (Some(entries), Duration::MAX);
        Board { parts: vec![Facts::of_all(step)], workers: 1, total, unit: "entries", patience, state }
    }

    /// For a step of this name that has another program run a script while it comes. How long the program takes is known as a
    /// whole only.
    pub(super) fn of_script(step: &str, total: Option<u64>, patience: Duration) -> Board {
        let (parts, state) = (vec![Facts::of_all(step)], Mutex::default());
        // The network is at work at the same time.
        Board { parts, workers: 2, total, unit: "bytes", patience, state }
    }

    /// Somebody begins with these parts, as `what`; `total` bytes are to come for it, when that is known.
    pub(super) fn begin(&self, what: &str, parts: Vec<usize>, total: Option<u64>) -> Slot<'_> {
        let (what, since) = (what.to_owned(), SystemClock.uptime());
        let busy = Busy { what, parts, since, came: 0, total, awaiting: None };
        let mut state = self.state();
        let number = state.slots.iter().position(Option::is_none).unwrap_or(state.slots.len());
        match state.slots.get_mut(number) {
            Some(slot) => *slot = Some(busy),
            None => state.slots.push(Some(busy)),
        }
        Slot::new(self, number)
    }

    /// These parts were found to be done.
    pub(super) fn found(&self, parts: impl IntoIterator<Item = usize>) {
        self.state().ended.extend(parts);
    }

    /// Something is known from before.
    pub(super) fn learn(&self, learnt: Learnt) {
        self.state().learnt = learnt;
    }

    /// What the server says of our sessions now, each with its worker's number, where it has one.
    pub(super) fn see(&self, backends: Vec<(Option<usize>, Backend)>) {
        let mut state = self.state();
        (state.backends, state.others) = (HashMap::new(), Vec::new());
        for (worker, backend) in backends {
            match worker {
                Some(worker) => drop(state.backends.insert(worker, backend)),
                None => state.others.push(backend),
            }
        }
    }

    /// Another entry is loaded.
    pub(super) fn entry_done(&self) {
        self.state().entries += 1;
    }

    /// What is counted of the step as a whole.
    pub(super) fn unit(&self) -> &'static str {
        self.unit
    }

    /// How much of that is done.
    pub(super) fn done(&self) -> Amount {
        let state = self.state();
        let done = if self.unit == "bytes" { state.came } else { state.entries };
        Amount { done: self.total.map_or(done, |total| done.min(total)), total: self.total }
    }

    /// How many bytes have come.
    pub(super) fn came(&self) -> u64 {
        self.state().came
    }

    /// Whether somebody waits for bytes now.
    pub(super) fn is_waited_for(&self) -> bool {
        self.state().slots.iter().flatten().any(|busy| busy.awaiting.is_some())
    }

    /// Where all of it stands.
    pub(super) fn now(&self) -> Restoring {
        let now = SystemClock.uptime();
        let mut state = self.state();
        let came = state.came;
        state.recent.note(now, came);
        let total = self.total.filter(|_| self.unit == "bytes");
        let fetched = Amount { done: total.map_or(came, |total| came.min(total)), total };
        let rows = self.parts.iter().map(|part| part.rows).sum();
        let bytes =
            if self.unit == "bytes" { total.map(|total| total.saturating_sub(came)) } else { Some(0) };
        let left = bytes.and_then(|bytes| self.left(&state, bytes, now));
        let busy = || {
            let slots = state.slots.iter().enumerate();
            slots.filter_map(|(number, slot)| Some((slot.as_ref()?, state.backends.get(&number))))
        };
        let mut stalls: Vec<Stall> =
            busy().filter_map(|(busy, backend)| self.stall(busy, backend, now)).collect();
        stalls.extend(state.others.iter().filter_map(|other| other.lock(other.query.clone())));
        let mut workers: Vec<Worker> = Vec::new();
        // Of a file alone all is said.
        if !self.parts.is_empty() {
            workers.extend(busy().map(|(busy, backend)| busy.worker(backend)));
            workers.extend(state.others.iter().map(Backend::worker));
        }
        Restoring {
            fetched,
            loaded: Amount { done: state.loaded, total: (rows > 0).then_some(rows) },
            tables: state.tables,
            indexes: state.indexes,
            left_ms: left.map(|left| left.ms),
            left_at_least: left.is_some_and(|left| left.at_least),
            following_ms: state.learnt.following_ms,
            stalls,
            workers,
        }
    }

    fn left(&self, state: &State, bytes: u64, now: Duration) -> Option<Left> {
        let learnt = &state.learnt;
        let spent = |part: usize| {
            let busy = state.slots.iter().flatten().find(|busy| busy.parts.contains(&part));
            let since = busy.map(|busy| busy.since).or(state.since);
            since.map_or(0, |since| millis(now.saturating_sub(since)))
        };
        let left = self.parts.iter().enumerate().filter(|(at, _)| !state.ended.contains(at));
        let jobs = left.filter(|(_, part)| !part.fetches).map(|(at, part)| {
            let bytes = part.work();
            Job { last_ms: learnt.ms_of(&part.name, bytes), bytes, spent_ms: spent(at) }
        });
        let work = Work { bytes, jobs: jobs.collect(), workers: self.workers };
        time_left(&work, state.recent.pace().or(learnt.fetching), state.built.or(learnt.building))
    }

    fn stall(&self, busy: &Busy, backend: Option<&Backend>, now: Duration) -> Option<Stall> {
        let part = busy.what.clone();
        if let Some(lock) = backend.and_then(|backend| backend.lock(part.clone())) {
            return Some(lock);
        }
        let silent = now.saturating_sub(busy.awaiting?);
        (silent >= self.patience).then(|| Stall::Silence { part, ms: millis(silent) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Busy {
    fn worker(&self, backend: Option<&Backend>) -> Worker {
        let part = self.what.clone();
        if let Some(building) = backend.and_then(|backend| backend.building.as_ref()) {
            return building.worker(part);
        }
        let (done, total) = (self.came, self.total);
        Worker { part, phase: None, done, total, unit: "bytes".to_owned() }
    }
}

impl Backend {
    fn lock(&self, part: String) -> Option<Stall> {
        let Holder { pid, application, query } = self.waits_for.clone()?;
        Some(Stall::Lock { part, pid, application, query })
    }

    /// One of several of a program that has shared them out itself: what it is at is all that is known of it.
    fn worker(&self) -> Worker {
        let part = self.query.clone();
        match &self.building {
            Some(building) => building.worker(part),
            None => Worker { part, ..Worker::default() },
        }
    }
}

impl Building {
    fn worker(&self, part: String) -> Worker {
        let Building { phase, done, total, unit } = self.clone();
        Worker { part, phase: Some(phase), done, total, unit: unit.to_owned() }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
