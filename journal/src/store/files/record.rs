//! What the database keeps of each run: its summary, and how much of its file has been brought in.

use bincode::Options as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::{Stored, memory};
use super::wal;
use crate::codec;
use crate::event::RunId;
use crate::query::{Shown, Summary};
use crate::run::{Run, Status};

/// What is kept of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// To find and list it by.
    pub(super) summary: Summary,
    /// How many events are in the database.
    pub(super) count: u64,
    /// Where those end in the run's file.
    pub(super) length: u64,
}

/// As stored; a change is a new format of the database, which is then made anew.
#[derive(Serialize, Deserialize)]
struct RecordV1 {
    count: u64,
    length: u64,
    started_at: i64,
    status: u8,
    command: String,
    section: Option<String>,
    user: String,
    read_only: bool,
}

/// The statuses and what they are in keys.
const CODES: [(u8, Status); 8] = [
    (1, Status::Running),
    (2, Status::Succeeded),
    (3, Status::Failed),
    (4, Status::Stopped),
    (5, Status::RollingBack),
    (6, Status::RolledBack),
    (7, Status::Stuck),
    (8, Status::Abandoned),
];
const UNREADABLE: u8 = 255;
/// The statuses, as they are in keys, of runs that are over.
pub(super) const FINISHED: [u8; 4] = [2, 3, 6, 8];

impl Record {
    /// What to keep of `run`, whose first events these are; `None` when there are none.
    pub(super) fn of(run: RunId, events: &[Vec<u8>]) -> Option<Record> {
        let first = events.first()?;
        let decoded: Result<Vec<_>, _> = events.iter().map(|event| codec::decode(event)).collect();
        let folded = decoded.ok().and_then(|events| Run::fold(&events).ok());
        let unreadable = || {
            let first = Stored { seq: 0, bytes: first.clone() };
            memory::unreadable(run, &[first])
        };
        Some(Record {
            summary: folded.map(|run| Summary::of(&run)).or_else(unreadable)?,
            count: u64::try_from(events.len()).ok()?,
            length: events.iter().map(|event| wal::frame_length(event)).sum(),
        })
    }

    /// As it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Summary { started_at, command, section, user, read_only, .. } = self.summary.clone();
        let stored = RecordV1 {
            count: self.count,
            length: self.length,
            started_at: started_at.as_microsecond(),
            status: self.status_code(),
            command,
            section,
            user,
            read_only,
        };
        // Writing numbers and strings into memory does not fail.
        bincode().serialize(&stored).unwrap_or_default()
    }

    /// From what was stored, or why not.
    pub(super) fn decode(run: RunId, bytes: &[u8]) -> Result<Record, String> {
        let stored: RecordV1 = bincode().deserialize(bytes).map_err(|error| error.to_string())?;
        let started_at = Timestamp::from_microsecond(stored.started_at).map_err(|error| error.to_string())?;
        let status = CODES.iter().find(|(code, _)| *code == stored.status);
        if status.is_none() && stored.status != UNREADABLE {
            return Err(format!("{} is no status", stored.status));
        }
        Ok(Record {
            summary: Summary {
                id: run,
                started_at,
                status: status.map(|(_, status)| *status),
                command: stored.command,
                section: stored.section,
                user: stored.user,
                read_only: stored.read_only,
            },
            count: stored.count,
            length: stored.length,
        })
    }

    /// The run's status as it is in keys.
    pub(super) fn status_code(&self) -> u8 {
        let code = CODES.iter().find(|(_, status)| Some(*status) == self.summary.status);
        code.map_or(UNREADABLE, |(code, _)| *code)
    }
}

/// The statuses, as they are in keys, of runs that may be shown with `word`.
pub(super) fn codes_shown_as(word: &str) -> Vec<u8> {
    let may_be = |status: Option<Status>| {
        [true, false].into_iter().any(|held| Shown::of(status, held).as_str() == word)
    };
    let known = CODES.iter().filter(|(_, status)| may_be(Some(*status))).map(|(code, _)| *code);
    known.chain(may_be(None).then_some(UNREADABLE)).collect()
}

/// How numbers and strings are laid out in here.
pub(super) fn bincode() -> impl bincode::Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_big_endian().reject_trailing_bytes()
}
