//! Sealed segments: finished runs, many in a file, that is written once and never changed.
//!
//! | in the file | what |
//! |---|---|
//! | bodies | the events of each run, framed as in its run file |
//! | rows | for each run, in the order of ids: where its body is, its summary, its numbers in the store |
//! | ids | 16 bytes each, in order |
//! | 8, 8, 8 | where rows and ids begin, and how many there are |
//! | 32 + 8 | blake3 of rows, ids and those numbers; `PGSJSEAL` |

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bincode::Options as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::verified::{self, Flaw};
use super::super::{StoreError, Stored};
use super::examine;
use super::folder::failed;
use super::record::{Record, bincode};
use super::wal;
use crate::codec;
use crate::event::{Hash, RunId};

const MAGIC: [u8; 8] = *b"PGSJSEAL";
const FOOTER: usize = 64;

/// What a segment says of one of its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) record: Record,
    /// The numbers in the store of its events.
    pub(super) seqs: Vec<u64>,
    offset: u64,
    length: u64,
}

/// As stored; a change is a new magic.
#[derive(Serialize, Deserialize)]
struct RowV1 {
    offset: u64,
    length: u64,
    record: Vec<u8>,
    /// Where numbers begin that follow on each other: the event's number in the run, and in the store.
    seqs: Vec<(u64, u64)>,
}

/// A run to be sealed.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(super) record: Record,
    pub(super) events: Vec<Stored>,
}

/// The bytes of a segment that holds `runs`, which are in the order of their ids.
pub(super) fn encode(runs: &[Sealing]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rows = Vec::new();
    for Sealing { record, events } in runs {
        let offset = length(&bytes);
        events.iter().for_each(|event| bytes.extend(wal::frame(&event.bytes)));
        rows.push(RowV1 {
            offset,
            length: length(&bytes) - offset,
            record: record.encode(),
            seqs: pieces(events.iter().map(|event| event.seq)),
        });
    }
    let rows_at = length(&bytes);
    // Writing numbers and strings into memory does not fail.
    bytes.extend(bincode().serialize(&rows).unwrap_or_default());
    let ids_at = length(&bytes);
    runs.iter().for_each(|run| bytes.extend(run.record.summary.id.0.as_bytes()));
    let count = u64::try_from(runs.len()).unwrap_or(u64::MAX);
    [rows_at, ids_at, count].iter().for_each(|number| bytes.extend(number.to_be_bytes()));
    let start = usize::try_from(rows_at).unwrap_or(usize::MAX);
    let hash = Hash::of(bytes.get(start..).unwrap_or_default());
    bytes.extend(hash.0);
    bytes.extend(MAGIC);
    bytes
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn pieces(seqs: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    for (n, seq) in (0..).zip(seqs) {
        let follows = pieces.last().is_some_and(|(from, first)| first + (n - from) == seq);
        if !follows {
            pieces.push((n, seq));
        }
    }
    pieces
}

fn numbers(pieces: &[(u64, u64)], count: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    for (at, (from, first)) in pieces.iter().enumerate() {
        let end = pieces.get(at + 1).map_or(count, |(next, _)| *next);
        seqs.extend(*first..first.saturating_add(end.saturating_sub(*from)));
    }
    seqs
}

/// What can be read of runs in a segment that is not what was written: the events of each, as far as they are whole.
pub(super) fn salvage(bytes: &[u8]) -> BTreeMap<RunId, Vec<Vec<u8>>> {
    let mut runs: BTreeMap<RunId, Vec<Vec<u8>>> = BTreeMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let found = wal::whole_frame(rest)
            .and_then(|(event, after)| Some((codec::header(event).ok()?, event, after)));
        match found {
            Some((header, event, after)) => {
                runs.entry(header.run).or_default().push(event.to_vec());
                rest = after;
            }
            None => rest = rest.get(1..).unwrap_or_default(),
        }
    }
    for (run, events) in &mut runs {
        if let Some((n, ..)) = verified::first_flaw(events, *run) {
            events.truncate(n);
        }
    }
    runs.retain(|_, events| !events.is_empty());
    runs
}

/// A segment to read from.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    size: u64,
    rows_at: u64,
    ids_at: u64,
    count: u64,
    hash: Hash,
}

impl Segment {
    /// Opens it by its end.
    pub(super) fn open(path: &Path) -> Result<Segment, StoreError> {
        let file = File::open(path).map_err(failed("open", path))?;
        let size = file.metadata().map_err(failed("look at", path))?.len();
        let mut segment = Segment {
            path: path.to_path_buf(),
            file,
            size,
            rows_at: 0,
            ids_at: 0,
            count: 0,
            hash: Hash::ZERO,
        };
        let footer = u64::try_from(FOOTER).unwrap_or(u64::MAX);
        let start = size.checked_sub(footer).ok_or_else(|| segment.damaged("it is cut off"))?;
        let bytes = segment.bytes(start, footer)?;
        let (numbers, rest) =
            bytes.split_first_chunk::<24>().ok_or_else(|| segment.damaged("it is cut off"))?;
        let (hash, magic) = rest.split_first_chunk::<32>().ok_or_else(|| segment.damaged("it is cut off"))?;
        if *magic != MAGIC {
            return Err(segment.damaged("it does not end in PGSJSEAL"));
        }
        let mut numbers =
            numbers.chunks_exact(8).map(|number| number.try_into().map_or(u64::MAX, u64::from_be_bytes));
        let mut next = || numbers.next().unwrap_or(u64::MAX);
        (segment.rows_at, segment.ids_at, segment.count) = (next(), next(), next());
        segment.hash = Hash(*hash);
        let fits = segment.rows_at <= segment.ids_at
            && segment.count.checked_mul(16).and_then(|ids| segment.ids_at.checked_add(ids)) == Some(start);
        if fits { Ok(segment) } else { Err(segment.damaged("its end does not fit its beginning")) }
    }

    /// The ids of its runs, in order.
    pub(super) fn ids(&self) -> Result<Vec<RunId>, StoreError> {
        let bytes = self.bytes(self.ids_at, self.count * 16)?;
        let id = |bytes: &[u8]| bytes.try_into().ok().map(|bytes| RunId(Uuid::from_bytes(bytes)));
        Ok(bytes.chunks_exact(16).filter_map(id).collect())
    }

    /// What it says of its runs, in the order of their ids.
    pub(super) fn rows(&self) -> Result<Vec<Row>, StoreError> {
        let whole = self.size - self.rows_at - 40;
        let bytes = self.bytes(self.rows_at, whole)?;
        if Hash::of(&bytes) != self.hash {
            return Err(self.damaged("its rows are not what was written"));
        }
        let rows = usize::try_from(self.ids_at - self.rows_at).unwrap_or(usize::MAX);
        let stored = bytes.get(..rows).unwrap_or_default();
        let stored: Vec<RowV1> =
            bincode().deserialize(stored).map_err(|error| self.damaged(&error.to_string()))?;
        let ids = self.ids()?;
        let row = |(id, row): (RunId, RowV1)| {
            let record = Record::decode(id, &row.record).map_err(|why| self.damaged(&why))?;
            let seqs = numbers(&row.seqs, record.count);
            Ok(Row { seqs, record, offset: row.offset, length: row.length })
        };
        ids.into_iter().zip(stored).map(row).collect()
    }

    /// The events of the run that `row` is of, framed.
    pub(super) fn body(&self, row: &Row) -> Result<Vec<u8>, StoreError> {
        self.bytes(row.offset, row.length)
    }

    /// The events of the run that `row` is of.
    pub(super) fn events(&self, row: &Row) -> Result<Vec<Stored>, StoreError> {
        let run = row.record.summary.id;
        let examined = examine::file(&self.body(row)?, run);
        if examined.events.len() != row.seqs.len() {
            let (_, what) = examined.flaw.unwrap_or((Flaw::Truncated, String::new()));
            return Err(self.damaged(&format!("run {run}: {what}")));
        }
        let events = examined.events.into_iter().zip(&row.seqs);
        Ok(events.map(|(bytes, seq)| Stored { seq: *seq, bytes }).collect())
    }

    fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        if at.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(self.damaged("it is cut off"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, at).map_err(failed("read", &self.path))?;
        Ok(bytes)
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.to_owned() }
    }
}
