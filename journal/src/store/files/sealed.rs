//! All sealed segments together, by way of an index that says which there are and what is in them, so that few have to
//! be opened.
//!
//! `sealed/index` is replaced whole; a segment that it does not name is not there. Where a run is in several segments,
//! since it went on after it was sealed, the last one counts.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;

use bincode::Options as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::{StoreError, Stored};
use super::examine;
use super::folder::{self, Folder, failed};
use super::record::bincode;
use super::segment::{self, Row, Sealing, Segment};
use super::wal;
use crate::clock::{Clock as _, SystemClock};
use crate::event::{Hash, RunId};
use crate::query::Query;

/// What the index says of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Names its file.
    number: u64,
    first_run: [u8; 16],
    last_run: [u8; 16],
    runs: u64,
    /// The first and the last number in the store.
    first_seq: u64,
    last_seq: u64,
    /// When its runs began, in microseconds since 1970.
    first_at: i64,
    last_at: i64,
    sections: BTreeSet<String>,
    commands: BTreeSet<String>,
    users: BTreeSet<String>,
    statuses: BTreeSet<u8>,
    /// Whether any of its runs changes something.
    changes: bool,
}

/// The sealed runs, for as long as the right to open the database is held.
pub(super) struct Sealed {
    folder: Folder,
    entries: Vec<Entry>,
    open: RefCell<BTreeMap<u64, Rc<Opened>>>,
}

/// A segment with its rows.
pub(super) struct Opened {
    pub(super) segment: Segment,
    pub(super) rows: Vec<Row>,
}

impl Sealed {
    /// Reads the index, and makes it anew from the segments when it is not what was written.
    pub(super) fn open(folder: &Folder) -> Result<Sealed, StoreError> {
        let path = folder.sealed_index();
        let entries = match fs::read(&path) {
            Ok(bytes) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let mut sealed = Sealed { folder: folder.clone(), entries: Vec::new(), open: RefCell::default() };
        match entries {
            Some(entries) => sealed.entries = entries,
            None => sealed.index_anew()?,
        }
        Ok(sealed)
    }

    fn index_anew(&mut self) -> Result<(), StoreError> {
        let numbers = self.folder.segments()?;
        for number in &numbers {
            let opened = self.opened(*number)?;
            self.entries.extend(entry(*number, &opened.rows));
        }
        if numbers.is_empty() { Ok(()) } else { self.write_index() }
    }

    fn write_index(&self) -> Result<(), StoreError> {
        // Writing numbers and strings into memory does not fail.
        let mut bytes = bincode().serialize(&self.entries).unwrap_or_default();
        bytes.extend(Hash::of(&bytes).0);
        folder::replace(&self.folder.sealed_index(), &bytes)
    }

    /// The number that follows on all in here.
    pub(super) fn next_seq(&self) -> u64 {
        self.entries.iter().map(|entry| entry.last_seq + 1).max().unwrap_or(1)
    }

    /// Seals `runs`, which are in the order of their ids; durable on return.
    pub(super) fn add(&mut self, runs: &[Sealing]) -> Result<(), StoreError> {
        self.remove_unnamed()?;
        let number = self.next_number()?;
        folder::replace(&self.folder.segment(number), &segment::encode(runs))?;
        let opened = self.opened(number)?;
        self.entries.extend(entry(number, &opened.rows));
        self.write_index()
    }

    /// Takes `runs` out of the segments that have them, all at once; `alive` is called while that goes on.
    pub(super) fn remove(&mut self, runs: &BTreeSet<RunId>, alive: impl Fn()) -> Result<(), StoreError> {
        self.remove_unnamed()?;
        let mut next = self.next_number()?;
        let mut old = Vec::new();
        let mut entries = Vec::new();
        for before in &self.entries {
            alive();
            let Some(left) = self.left_without(runs, before)? else {
                entries.push(before.clone());
                continue;
            };
            old.push(before.number);
            if !left.is_empty() {
                folder::replace(&self.folder.segment(next), &segment::encode(&left))?;
                entries.extend(entry(next, &self.opened(next)?.rows));
                next += 1;
            }
            self.close_all();
        }
        if old.is_empty() {
            return Ok(());
        }
        self.entries = entries;
        self.write_index()?;
        old.into_iter().try_for_each(|number| folder::remove(&self.folder.segment(number)))
    }

    /// What stays of a segment when `runs` leave it; `None` when it has none of them. Of a run that is in a later one as
    /// well nothing stays, since the segment that takes its place is the last one.
    fn left_without(
        &self,
        runs: &BTreeSet<RunId>,
        entry: &Entry,
    ) -> Result<Option<Vec<Sealing>>, StoreError> {
        let id = |bytes: [u8; 16]| RunId(Uuid::from_bytes(bytes));
        if runs.range(id(entry.first_run)..=id(entry.last_run)).next().is_none() {
            return Ok(None);
        }
        let opened = self.opened(entry.number)?;
        let goes = |row: &Row| runs.contains(&row.record.summary.id);
        if !opened.rows.iter().any(goes) {
            return Ok(None);
        }
        let mut left = Vec::new();
        for row in opened.rows.iter().filter(|row| !goes(row)) {
            if !self.is_older(entry.number, row.record.summary.id)? {
                left.push(Sealing { record: row.record.clone(), events: opened.segment.events(row)? });
            }
        }
        Ok(Some(left))
    }

    /// The number of the next new segment.
    fn next_number(&self) -> Result<u64, StoreError> {
        Ok(self.folder.segments()?.last().map_or(1, |last| last + 1))
    }

    /// Removes segments that the index does not name: what a crash left of a change.
    fn remove_unnamed(&self) -> Result<(), StoreError> {
        for number in self.folder.segments()? {
            if !self.entries.iter().any(|entry| entry.number == number) {
                folder::remove(&self.folder.segment(number))?;
            }
        }
        Ok(())
    }

    /// What is sealed of `run`.
    pub(super) fn row(&self, run: RunId) -> Result<Option<(Rc<Opened>, usize)>, StoreError> {
        let holds =
            |entry: &&Entry| entry.first_run <= *run.0.as_bytes() && *run.0.as_bytes() <= entry.last_run;
        for entry in self.entries.iter().rev().filter(holds) {
            let opened = self.opened(entry.number)?;
            if let Ok(at) = opened.rows.binary_search_by_key(&run, |row| row.record.summary.id) {
                return Ok(Some((opened, at)));
            }
        }
        Ok(None)
    }

    /// Whether a later segment than that of `number` has `run` as well.
    pub(super) fn is_older(&self, number: u64, run: RunId) -> Result<bool, StoreError> {
        let latest = self.row(run)?;
        let this = self.opened(number)?;
        Ok(latest.is_some_and(|(latest, _)| !Rc::ptr_eq(&latest, &this)))
    }

    /// Sets segments aside that are not what was written, and gives what can be read of their runs back to run files.
    /// Gives the names of those that were set aside.
    pub(super) fn mend(folder: &Folder) -> Result<Vec<String>, StoreError> {
        let mut aside = Vec::new();
        for number in folder.segments()? {
            let path = folder.segment(number);
            if Opened::at(&path).and_then(|opened| opened.is_whole()).unwrap_or(false) {
                continue;
            }
            let bytes = fs::read(&path).map_err(failed("read", &path))?;
            for (run, events) in segment::salvage(&bytes) {
                let file = folder.run_file(run);
                if !file.exists() {
                    folder::open(&folder.marker(run))?;
                    wal::replace(&file, events.iter().map(Vec::as_slice))?;
                }
            }
            let name = folder.damaged_name("segment", SystemClock.now());
            fs::rename(&path, folder.root().join(&name)).map_err(failed("set aside", &path))?;
            aside.push(name);
        }
        let mut sealed = Sealed { folder: folder.clone(), entries: Vec::new(), open: RefCell::default() };
        let there = folder.segments()?;
        let index = folder.sealed_index();
        let known = fs::read(&index).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        if !known.iter().map(|entry| entry.number).eq(there.iter().copied()) {
            folder::remove(&index)?;
            sealed.index_anew()?;
        }
        Ok(aside)
    }

    /// The sealed events of `run`.
    pub(super) fn events(&self, run: RunId) -> Result<Vec<Stored>, StoreError> {
        match self.row(run)? {
            Some((opened, at)) => {
                opened.rows.get(at).map_or(Ok(Vec::new()), |row| opened.segment.events(row))
            }
            None => Ok(Vec::new()),
        }
    }

    /// The sealed runs of which `matches` says that they are asked for, without their order.
    pub(super) fn ids(&self, matches: impl Fn(RunId) -> bool) -> Result<BTreeSet<RunId>, StoreError> {
        let mut ids = BTreeSet::new();
        for entry in &self.entries {
            let segment = Segment::open(&self.folder.segment(entry.number))?;
            ids.extend(segment.ids()?.into_iter().filter(|id| matches(*id)));
        }
        Ok(ids)
    }

    /// The segments that may hold what `query` asks for, each with its newest run, from which one can tell when it has
    /// to be opened.
    pub(super) fn asked_for(&self, query: &Query, codes: Option<&[u8]>) -> Vec<(Reverse<RunId>, u64)> {
        let has = |set: &BTreeSet<String>, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| set.contains(wanted))
        };
        let micros = |at: Timestamp| at.as_microsecond();
        let wanted = self.entries.iter().filter(|entry| {
            has(&entry.sections, &query.section)
                && has(&entry.commands, &query.command)
                && has(&entry.users, &query.user)
                && codes.is_none_or(|codes| codes.iter().any(|code| entry.statuses.contains(code)))
                && (query.read_only || entry.changes)
                && query.before.is_none_or(|before| entry.first_run < before.0.into_bytes())
                && query.since.is_none_or(|since| entry.last_at >= micros(since))
                && query.until.is_none_or(|until| entry.first_at < micros(until))
        });
        wanted.map(|entry| (Reverse(RunId(Uuid::from_bytes(entry.last_run))), entry.number)).collect()
    }

    /// The segments that hold events with number `from` in the store or a later one, each with its first number.
    pub(super) fn numbered_from(&self, from: u64) -> Vec<(u64, u64)> {
        let wanted = self.entries.iter().filter(|entry| entry.last_seq >= from);
        wanted.map(|entry| (entry.first_seq.max(from), entry.number)).collect()
    }

    /// The segments that there are.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.number).collect()
    }

    /// The segment of that number, which stays open.
    pub(super) fn opened(&self, number: u64) -> Result<Rc<Opened>, StoreError> {
        if let Some(opened) = self.open.borrow().get(&number) {
            return Ok(Rc::clone(opened));
        }
        let opened = Rc::new(Opened::at(&self.folder.segment(number))?);
        self.open.borrow_mut().insert(number, Rc::clone(&opened));
        Ok(opened)
    }

    /// Closes what was opened.
    pub(super) fn close_all(&self) {
        self.open.borrow_mut().clear();
    }
}

impl Opened {
    fn at(path: &Path) -> Result<Opened, StoreError> {
        let segment = Segment::open(path)?;
        Ok(Opened { rows: segment.rows()?, segment })
    }

    /// Whether all its runs are what was written.
    fn is_whole(&self) -> Result<bool, StoreError> {
        for row in &self.rows {
            let examined = examine::file(&self.segment.body(row)?, row.record.summary.id);
            let there = u64::try_from(examined.events.len()).unwrap_or(u64::MAX);
            if examined.flaw.is_some() || there != row.record.count {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn decode(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (entries, hash) = bytes.split_last_chunk::<32>()?;
    if Hash::of(entries).0 != *hash {
        return None;
    }
    bincode().deserialize(entries).ok()
}

/// What the index is to say of a segment with these `rows`.
fn entry(number: u64, rows: &[Row]) -> Option<Entry> {
    let summaries = || rows.iter().map(|row| &row.record.summary);
    let seqs = || rows.iter().flat_map(|row| &row.seqs).copied();
    let at = || summaries().map(|summary| summary.started_at.as_microsecond());
    Some(Entry {
        number,
        first_run: rows.first()?.record.summary.id.0.into_bytes(),
        last_run: rows.last()?.record.summary.id.0.into_bytes(),
        runs: u64::try_from(rows.len()).ok()?,
        first_seq: seqs().min()?,
        last_seq: seqs().max()?,
        first_at: at().min()?,
        last_at: at().max()?,
        sections: summaries().filter_map(|summary| summary.section.clone()).collect(),
        commands: summaries().map(|summary| summary.command.clone()).collect(),
        users: summaries().map(|summary| summary.user.clone()).collect(),
        statuses: rows.iter().map(|row| row.record.status_code()).collect(),
        changes: summaries().any(|summary| !summary.read_only),
    })
}
