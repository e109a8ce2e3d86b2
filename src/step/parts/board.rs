//! What the workers of one attempt are at, and what is done: counted here, and shown by [`lookout`](super::lookout).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::clock::SystemClock;

use super::backends::{Backend, Building};
use crate::contents::{Contents, ObjectType, PartKind, RestorePart};
use crate::progress::{Amount, Job, Learnt, Left, Pace, Recent, Restoring, Stall, Work, Worker, time_left};

/// The workers, side by side.
pub(super) struct Board {
    parts: Vec<Facts>,
    workers: u64,
    /// How many bytes are to come, when that is known.
    total: Option<u64>,
    /// For how long a server may send nothing before that is told.
    patience: Duration,
    state: Mutex<State>,
}

/// What there is to know of a part.
struct Facts {
    name: String,
    kind: PartKind,
    /// Bytes of its own rows that are to be loaded.
    rows: u64,
    /// Bytes of rows that it has to do with, where that is known.
    weight: Option<u64>,
    /// How many tables and indexes it makes that are not there.
    tables: u64,
    indexes: u64,
    /// Whether it waits for rows from the server.
    fetches: bool,
}

#[derive(Default)]
struct State {
    slots: Vec<Option<Busy>>,
    ended: HashSet<usize>,
    came: u64,
    loaded: u64,
    tables: Amount,
    indexes: Amount,
    recent: Recent,
    built: Option<Pace>,
    learnt: Learnt,
    /// What the server says of our sessions, by the worker's number.
    backends: HashMap<usize, Backend>,
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

/// A place at the board, free again when this goes.
pub(super) struct Slot<'b> {
    board: &'b Board,
    number: usize,
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
        (workers, patience): (u16, Duration),
    ) -> Board {
        let mut state = State::default();
        let mut facts = Vec::new();
        for part in parts {
            let of = |is: fn(PartKind, &ObjectType) -> bool| {
                let entries = part.entries.iter().filter_map(|at| contents.entries().get(*at));
                let (in_copy, left): (Vec<_>, Vec<_>) = entries
                    .filter(|entry| is(part.kind, &entry.desc))
                    .partition(|entry| done.contains(&entry.dump_id));
                Amount { done: in_copy.len() as u64, total: Some(left.len() as u64) }
            };
            let (tables, indexes) = (of(is_table), of(is_index));
            add(&mut state.tables, tables);
            add(&mut state.indexes, indexes);
            let rows = part.rows.iter().filter(|rows| !done.contains(&rows.dump_id));
            facts.push(Facts {
                name: part.name.clone(),
                kind: part.kind,
                fetches: !part.rows.is_empty(),
                rows: rows.map(|rows| rows.length()).sum(),
                weight: (!stream).then_some(part.weight),
                tables: tables.total.unwrap_or_default(),
                indexes: indexes.total.unwrap_or_default(),
            });
        }
        Board { parts: facts, workers: workers.into(), total, patience, state: Mutex::new(state) }
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
        Slot { board: self, number }
    }

    /// These parts were found to be done.
    pub(super) fn found(&self, parts: impl IntoIterator<Item = usize>) {
        self.state().ended.extend(parts);
    }

    /// Something is known from before.
    pub(super) fn learn(&self, learnt: Learnt) {
        self.state().learnt = learnt;
    }

    /// What the server says of our sessions now.
    pub(super) fn see(&self, backends: HashMap<usize, Backend>) {
        self.state().backends = backends;
    }

    /// How many bytes have come.
    pub(super) fn came(&self) -> u64 {
        self.state().came
    }

    /// Where all of it stands.
    pub(super) fn now(&self) -> Restoring {
        let now = SystemClock.uptime();
        let mut state = self.state();
        let came = state.came;
        state.recent.note(now, came);
        let fetched = Amount { done: self.total.map_or(came, |total| came.min(total)), total: self.total };
        let rows = self.parts.iter().map(|part| part.rows).sum();
        let left = self.total.and_then(|total| self.left(&state, total.saturating_sub(came), now));
        let busy = || {
            let slots = state.slots.iter().enumerate();
            slots.filter_map(|(number, slot)| Some((slot.as_ref()?, state.backends.get(&number))))
        };
        Restoring {
            fetched,
            loaded: Amount { done: state.loaded, total: (rows > 0).then_some(rows) },
            tables: state.tables,
            indexes: state.indexes,
            left_ms: left.map(|left| left.ms),
            left_at_least: left.is_some_and(|left| left.at_least),
            following_ms: state.learnt.following_ms,
            stalls: busy().filter_map(|(busy, backend)| self.stall(busy, backend, now)).collect(),
            workers: busy().map(|(busy, backend)| busy.worker(backend)).collect(),
        }
    }

    fn left(&self, state: &State, bytes: u64, now: Duration) -> Option<Left> {
        let learnt = &state.learnt;
        let spent = |part: usize| {
            let busy = state.slots.iter().flatten().find(|busy| busy.parts.contains(&part));
            busy.map_or(0, |busy| millis(now.saturating_sub(busy.since)))
        };
        let left = self.parts.iter().enumerate().filter(|(at, _)| !state.ended.contains(at));
        let jobs = left.filter(|(_, part)| !part.fetches).map(|(at, part)| {
            let bytes = match part.kind {
                PartKind::AfterRows => part.weight,
                PartKind::Refresh => None,
                // Definitions, sequences and privileges are soon made.
                _ => Some(0),
            };
            Job { last_ms: learnt.ms_of(&part.name, bytes), bytes, spent_ms: spent(at) }
        });
        let work = Work { bytes, jobs: jobs.collect(), workers: self.workers };
        time_left(&work, state.recent.pace().or(learnt.fetching), state.built.or(learnt.building))
    }

    fn stall(&self, busy: &Busy, backend: Option<&Backend>, now: Duration) -> Option<Stall> {
        let part = busy.what.clone();
        if let Some(holder) = backend.and_then(|backend| backend.waits_for.clone()) {
            let (pid, application, query) = (holder.pid, holder.application, holder.query);
            return Some(Stall::Lock { part, pid, application, query });
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
        match backend.and_then(|backend| backend.building.clone()) {
            Some(Building { phase, done, total, unit }) => {
                Worker { part, phase: Some(phase), done, total, unit: unit.to_owned() }
            }
            None => {
                let (done, total) = (self.came, self.total);
                Worker { part, phase: None, done, total, unit: "bytes".to_owned() }
            }
        }
    }
}

impl Slot<'_> {
    /// The worker's number, by which its sessions on the server are known.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Waits for bytes from the server.
    pub(super) async fn awaited<T>(&self, bytes: impl Future<Output = T>) -> T {
        self.busy(|busy| busy.awaiting = Some(SystemClock.uptime()));
        let came = bytes.await;
        self.busy(|busy| busy.awaiting = None);
        came
    }

    /// So many bytes came.
    pub(super) fn came(&self, bytes: u64) {
        self.board.state().came += bytes;
        self.busy(|busy| busy.came += bytes);
    }

    /// What it was at is done and durable; gives how long that took, in milliseconds.
    pub(super) fn done(&self) -> u64 {
        let mut state = self.board.state();
        let Some(busy) = state.slots.get_mut(self.number).and_then(Option::as_mut) else { return 0 };
        let (parts, ms) = (std::mem::take(&mut busy.parts), millis(SystemClock.uptime() - busy.since));
        let mut built = 0;
        for at in parts {
            let Some(part) = self.board.parts.get(at) else { continue };
            state.ended.insert(at);
            state.loaded += part.rows;
            state.tables.done += part.tables;
            state.indexes.done += part.indexes;
            built += part.weight.filter(|_| part.kind == PartKind::AfterRows).unwrap_or_default();
        }
        if built > 0 {
            let now = Pace { bytes: built, ms };
            state.built = Some(state.built.map_or(now, |before| before.and(now)));
        }
        ms
    }

    fn busy(&self, change: impl FnOnce(&mut Busy)) {
        if let Some(busy) = self.board.state().slots.get_mut(self.number).and_then(Option::as_mut) {
            change(busy);
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = self.board.state();
        if let Some(slot) = state.slots.get_mut(self.number) {
            *slot = None;
        }
        state.backends.remove(&self.number);
    }
}

/// What is recorded of a kind of part, for the runs to come.
pub(super) fn kind_word(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Definitions => "definitions",
        PartKind::Rows => "rows",
        PartKind::AfterRows => "after_rows",
        PartKind::Privileges => "privileges",
        PartKind::Refresh => "refresh",
        PartKind::Finish => "finish",
    }
}

fn is_table(kind: PartKind, entry: &ObjectType) -> bool {
    kind == PartKind::Rows && *entry == ObjectType::TableData
}

/// An index, or a constraint that has one.
fn is_index(kind: PartKind, entry: &ObjectType) -> bool {
    kind == PartKind::AfterRows && matches!(entry, ObjectType::Index | ObjectType::Constraint)
}

/// Counts what is done, and all there is: what is done and what is left.
fn add(all: &mut Amount, part: Amount) {
    all.done += part.done;
    all.total = Some(all.total.unwrap_or_default() + part.done + part.total.unwrap_or_default());
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
