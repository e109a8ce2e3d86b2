//! The database while it is open: its trees, what is in them, and how they change.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ::sled::transaction::{TransactionError, Transactional as _};
use ::sled::{Batch, Db, Tree};

use super::super::{Head, StoreError, Stored};
use super::database::Broken;
use super::folder::failed;
use super::record::Record;
use crate::event::{Hash, RunId};

/// The layout of trees and keys; a database with another one is not touched.
const FORMAT: u64 = 2;
const CACHE: u64 = 4 * 1024 * 1024;

/// Is called whenever something got done.
type Heartbeat = Box<dyn Fn()>;

/// The database while it is open.
///
/// | tree | key | value |
/// |---|---|---|
/// | `events` | run, n | number in the store, encoded event |
/// | `runs` | run | [`Record`] |
/// | `by_section` | section's length (u16), section, run | |
/// | `by_status` | status, run | |
/// | `by_seq` | number in the store | run, n |
/// | default | `format`, `next` | the layout's number; the next event's number in the store |
/// | default | `ledger` | how much of the ledger is in here: entries, and the chain's hash |
///
/// All numbers in keys and values are big-endian.
pub(super) struct Session {
    db: Db,
    events: Tree,
    runs: Tree,
    by_section: Tree,
    by_status: Tree,
    by_seq: Tree,
    /// The number that follows on what was put so far.
    next: Cell<u64>,
    changed: Cell<bool>,
    heart: Heartbeat,
    changes: RefCell<Changes>,
}

/// What is to be changed in one transaction.
#[derive(Default)]
struct Changes {
    events: Batch,
    runs: Batch,
    by_section: Batch,
    by_status: Batch,
    by_seq: Batch,
    meta: Batch,
    any: bool,
    size: usize,
}

/// Beyond this many bytes, changes go into more than one transaction.
const TRANSACTION: usize = 512 * 1024;

impl Session {
    /// Opens or makes the database in the folder `path`; `heart` is called whenever something got done.
    pub(super) fn open(path: &Path, heart: Heartbeat) -> Result<Session, Broken> {
        let db = ::sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None).open()?;
        heart();
        let session = Session {
            events: db.open_tree("events")?,
            runs: db.open_tree("runs")?,
            by_section: db.open_tree("by_section")?,
            by_status: db.open_tree("by_status")?,
            by_seq: db.open_tree("by_seq")?,
            db,
            next: Cell::new(1),
            changed: Cell::new(false),
            heart,
            changes: RefCell::default(),
        };
        session.next.set(session.next_seq()?);
        session.alive();
        Ok(session)
    }

    /// Makes what was done durable.
    pub(super) fn close(self, path: &Path, handle: &File) -> Result<(), Broken> {
        self.commit()?;
        self.alive();
        if self.changed.get() {
            self.db.flush()?;
            // sled syncs neither what it writes nor what it was once made with.
            for name in ["db", "conf"] {
                let file = path.join(name);
                File::open(&file).and_then(|file| file.sync_data()).map_err(failed("sync", &file))?;
            }
        }
        drop(self);
        make_private(path)?;
        handle.sync_all().map_err(failed("sync", path))?;
        Ok(())
    }

    /// Whether it holds what this version expects, at least up to `head`.
    pub(super) fn check(&self, head: u64) -> Result<(), Broken> {
        match self.number("format")? {
            Some(FORMAT) => {}
            Some(older) if older < FORMAT => {
                return Err(Broken::Damaged(format!("it has the layout {older} of an older version")));
            }
            None => return Err(Broken::Damaged("it does not say what it holds".to_owned())),
            Some(other) => {
                return Err(Broken::Refused(format!("it has format {other}, this version knows {FORMAT}")));
            }
        }
        let next = self.next_seq()?;
        if next < head {
            return Err(Broken::Damaged(format!(
                "it ends before event {next} of the store, and did end before {head}"
            )));
        }
        let last = self.by_seq.last()?.map(|(key, _)| number(&key));
        if last.unwrap_or(Some(0)) != next.checked_sub(1) {
            return Err(Broken::Damaged(format!(
                "its last event is not the one before number {next} of the store"
            )));
        }
        Ok(())
    }

    /// Makes an empty database one of this version.
    pub(super) fn begin(&self) {
        let mut changes = self.changes.borrow_mut();
        changes.any = true;
        changes.meta.insert("format", &FORMAT.to_be_bytes());
        changes.meta.insert("next", &1_u64.to_be_bytes());
    }

    /// The number that the next event gets. Asked before events are put, since it does not see those.
    pub(super) fn next_seq(&self) -> Result<u64, Broken> {
        Ok(self.number("next")?.unwrap_or(1))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Broken> {
        match self.db.get(name)? {
            None => Ok(None),
            Some(value) => {
                let damaged = || Broken::Damaged(format!("its '{name}' is no number"));
                number(&value).map(Some).ok_or_else(damaged)
            }
        }
    }

    /// How much of the ledger is in here.
    pub(super) fn ledger(&self) -> Result<Head, Broken> {
        let Some(value) = self.db.get("ledger")? else {
            return Ok(Head { entries: 0, chain: Hash::ZERO });
        };
        let parts = value.split_first_chunk::<8>();
        let head = parts.and_then(|(entries, chain)| {
            Some(Head { entries: u64::from_be_bytes(*entries), chain: Hash(chain.try_into().ok()?) })
        });
        head.ok_or_else(|| Broken::Damaged("its 'ledger' is no head".to_owned()))
    }

    /// Notes how much of the ledger is in here.
    pub(super) fn set_ledger(&self, head: Head) {
        let mut changes = self.changes.borrow_mut();
        changes.any = true;
        changes.meta.insert("ledger", [head.entries.to_be_bytes().as_slice(), &head.chain.0].concat());
    }

    /// What is kept of `run`.
    pub(super) fn record(&self, run: RunId) -> Result<Option<Record>, Broken> {
        let bytes = self.runs.get(run.0.as_bytes())?;
        let damaged = |why| Broken::Damaged(format!("what it keeps of run {run} cannot be read: {why}"));
        let decoded = bytes.map(|bytes| Record::decode(run, &bytes)).transpose();
        decoded.map_err(damaged)
    }

    /// The events of `run`, in order.
    pub(super) fn events(&self, run: RunId) -> Result<Vec<Stored>, Broken> {
        let count = self.record(run)?.map_or(0, |record| record.count);
        let mut events = Vec::new();
        for (n, entry) in (0..count).zip(self.events.scan_prefix(run.0.as_bytes())) {
            let (key, value) = entry?;
            if *key != event_key(run, n) {
                break;
            }
            events.push(stored(&value).ok_or_else(|| lost(run, n))?);
        }
        match u64::try_from(events.len()) {
            Ok(found) if found == count => Ok(events),
            found => Err(lost(run, found.unwrap_or(u64::MAX))),
        }
    }

    /// Event number `n` of `run`, which it holds.
    pub(super) fn event(&self, run: RunId, n: u64) -> Result<Stored, Broken> {
        let value = self.events.get(event_key(run, n))?;
        value.and_then(|value| stored(&value)).ok_or_else(|| lost(run, n))
    }

    /// Which events of which runs have the numbers from `from` on, in the order of those, each with its number.
    pub(super) fn numbered_from(
        &self,
        from: u64,
    ) -> impl Iterator<Item = Result<(u64, RunId, u64), Broken>> + use<> {
        self.by_seq.range(from.to_be_bytes()..).map(|entry| {
            let (seq, place) = entry?;
            let place = place.split_first_chunk::<16>();
            let place = place.and_then(|(run, n)| Some((uuid::Uuid::from_bytes(*run), number(n)?)));
            let damaged = || Broken::Damaged("one of its numbers leads nowhere".to_owned());
            match (number(&seq), place) {
                (Some(seq), Some((run, n))) => Ok((seq, RunId(run), n)),
                _ => Err(damaged()),
            }
        })
    }

    /// The ids of all runs, newest first.
    pub(super) fn all_runs(&self) -> impl Iterator<Item = Result<RunId, Broken>> {
        ids(self.runs.iter().keys())
    }

    /// The ids of the runs of `section`, newest first.
    pub(super) fn runs_of(&self, section: &str) -> impl Iterator<Item = Result<RunId, Broken>> + use<> {
        ids(self.by_section.scan_prefix(section_prefix(section)).keys())
    }

    /// The ids of the runs with this status, newest first.
    pub(super) fn runs_with(&self, status: u8) -> impl Iterator<Item = Result<RunId, Broken>> + use<> {
        ids(self.by_status.scan_prefix([status]).keys())
    }

    /// Puts event `n` of `run`, with its number in the store.
    pub(super) fn put_event(&self, run: RunId, n: u64, seq: u64, event: &[u8]) {
        let mut changes = self.changes.borrow_mut();
        changes.any = true;
        let key = event_key(run, n);
        changes.by_seq.insert(&seq.to_be_bytes(), &*key);
        // What was sealed and comes back has old numbers.
        self.next.set(self.next.get().max(seq.saturating_add(1)));
        changes.meta.insert("next", &self.next.get().to_be_bytes());
        let value = [&seq.to_be_bytes(), event].concat();
        changes.size += value.len();
        changes.events.insert(key, value);
    }

    /// Takes a run out, with all its events.
    pub(super) fn remove(&self, record: &Record) -> Result<(), Broken> {
        let run = record.summary.id;
        let events = self.events(run)?;
        let mut changes = self.changes.borrow_mut();
        changes.any = true;
        for (n, event) in (0..).zip(events) {
            changes.by_seq.remove(&event.seq.to_be_bytes());
            changes.events.remove(event_key(run, n));
            changes.size += 64;
        }
        changes.by_status.remove(status_key(record));
        if let Some(key) = section_key(record) {
            changes.by_section.remove(key);
        }
        changes.runs.remove(run.0.as_bytes());
        Ok(())
    }

    /// The run of the event with the last number in the store.
    pub(super) fn newest_run(&self) -> Result<Option<RunId>, Broken> {
        let last = self.by_seq.last()?;
        let id = last.and_then(|(_, place)| place.first_chunk::<16>().copied());
        Ok(id.map(|id| RunId(uuid::Uuid::from_bytes(id))))
    }

    /// Keeps `new` of its run, in the place of `old`.
    pub(super) fn put_record(&self, old: Option<&Record>, new: &Record) {
        let mut changes = self.changes.borrow_mut();
        changes.any = true;
        let run = new.summary.id;
        if let Some(old) = old {
            changes.by_status.remove(status_key(old));
            if let Some(key) = section_key(old) {
                changes.by_section.remove(key);
            }
        }
        changes.by_status.insert(status_key(new), &[]);
        if let Some(key) = section_key(new) {
            changes.by_section.insert(key, &[]);
        }
        changes.runs.insert(run.0.as_bytes(), new.encode());
    }

    /// Sets the number that the next event gets.
    pub(super) fn set_next(&self, next: u64) {
        let mut changes = self.changes.borrow_mut();
        changes.any = true;
        self.next.set(next);
        changes.meta.insert("next", &next.to_be_bytes());
    }

    /// Whether what was put so far is enough for a transaction.
    pub(super) fn is_large(&self) -> bool {
        self.changes.borrow().size > TRANSACTION
    }

    /// Says that work goes on.
    pub(super) fn alive(&self) {
        (self.heart)();
    }

    /// Commits what was put so far, all or nothing.
    pub(super) fn commit(&self) -> Result<(), Broken> {
        let changes = self.changes.take();
        if !changes.any {
            return Ok(());
        }
        let trees = (&*self.db, &self.events, &self.runs, &self.by_section, &self.by_status, &self.by_seq);
        let committed = trees.transaction(|(meta, events, runs, by_section, by_status, by_seq)| {
            meta.apply_batch(&changes.meta)?;
            events.apply_batch(&changes.events)?;
            runs.apply_batch(&changes.runs)?;
            by_section.apply_batch(&changes.by_section)?;
            by_status.apply_batch(&changes.by_status)?;
            by_seq.apply_batch(&changes.by_seq)?;
            Ok(())
        });
        self.changed.set(true);
        self.alive();
        committed.map_err(|error| match error {
            TransactionError::Storage(error) => Broken::from(error),
            TransactionError::Abort(()) => Broken::Refused("a transaction was given up".to_owned()),
        })
    }
}

fn lost(run: RunId, n: u64) -> Broken {
    Broken::Damaged(format!("it lost event {n} of run {run}"))
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn stored(value: &[u8]) -> Option<Stored> {
    let (seq, bytes) = value.split_first_chunk::<8>()?;
    Some(Stored { seq: u64::from_be_bytes(*seq), bytes: bytes.to_vec() })
}

fn event_key(run: RunId, n: u64) -> Vec<u8> {
    [run.0.as_bytes().as_slice(), &n.to_be_bytes()].concat()
}

fn status_key(record: &Record) -> Vec<u8> {
    [&[record.status_code()], record.summary.id.0.as_bytes().as_slice()].concat()
}

fn section_prefix(section: &str) -> Vec<u8> {
    let length = u16::try_from(section.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), section.as_bytes()].concat()
}

fn section_key(record: &Record) -> Option<Vec<u8>> {
    let section = record.summary.section.as_deref()?;
    Some([section_prefix(section).as_slice(), record.summary.id.0.as_bytes()].concat())
}

/// The run ids at the end of `keys`, from the last to the first.
fn ids(
    keys: impl DoubleEndedIterator<Item = ::sled::Result<::sled::IVec>>,
) -> impl Iterator<Item = Result<RunId, Broken>> {
    keys.rev().map(|key| {
        let key = key?;
        let id = key.last_chunk::<16>().copied().map(uuid::Uuid::from_bytes);
        id.map(RunId).ok_or_else(|| Broken::Damaged("one of its keys is too short".to_owned()))
    })
}

/// sled makes its files as the umask says.
fn make_private(path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let there = entry.metadata().map_err(failed("look at", path))?;
        let mode = if there.is_dir() { 0o700 } else { 0o600 };
        if there.permissions().mode() & 0o777 != mode {
            let wanted = fs::Permissions::from_mode(mode);
            fs::set_permissions(entry.path(), wanted).map_err(failed("set the mode of", path))?;
        }
    }
    Ok(())
}
