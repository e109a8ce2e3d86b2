//! What a look at a whole journal found.

use std::path::PathBuf;

use super::Head;
use crate::codec::{self, CodecError, Header};
use crate::event::{Hash, RunId};

/// What a journal holds, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How far it has come.
    pub head: Head,
    /// Runs that are there.
    pub runs: u64,
    /// Events that are there.
    pub events: u64,
    /// Attachments that are there.
    pub attachments: u64,
    /// Runs that were pruned.
    pub pruned: u64,
    /// Runs of which a rebuild found that events are lost.
    pub lost: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which kind of thing.
    pub flaw: Flaw,
    /// In which run, when it is in one.
    pub run: Option<RunId>,
    /// In which file or folder.
    pub path: PathBuf,
    /// What it is.
    pub what: String,
}

/// The kinds of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Bytes are not those that were written.
    Changed,
    /// An event is missing between others.
    Removed,
    /// Events are not in their order.
    Reordered,
    /// The last events are missing.
    Truncated,
    /// A run is missing.
    RunRemoved,
    /// An attachment is not what it was.
    AttachmentChanged,
    /// An attachment is missing.
    AttachmentMissing,
    /// Run file and database are not the same.
    Differ,
    /// The ledger is not what was written.
    Ledger,
    /// The journal does not go on from the head that was named.
    NotContinued,
}

impl Flaw {
    /// Its name, as people see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Flaw::Changed => "changed bytes",
            Flaw::Removed => "removed event",
            Flaw::Reordered => "reordered events",
            Flaw::Truncated => "truncated run",
            Flaw::RunRemoved => "removed run",
            Flaw::AttachmentChanged => "changed attachment",
            Flaw::AttachmentMissing => "missing attachment",
            Flaw::Differ => "run file and database differ",
            Flaw::Ledger => "damaged ledger",
            Flaw::NotContinued => "not a continuation",
        }
    }
}

/// What is wrong with `events`, which should be those of `run` from its first on, each of which names the one before
/// it: the first thing, and in words.
pub fn flaw(events: &[Vec<u8>], run: RunId) -> Option<(Flaw, String)> {
    first_flaw(events, run).map(|(_, flaw, what)| (flaw, what))
}

/// The same, with the place of the event where it is.
pub(super) fn first_flaw(events: &[Vec<u8>], run: RunId) -> Option<(usize, Flaw, String)> {
    let headers: Vec<_> = events.iter().map(|event| codec::header(event)).collect();
    let mut before = Hash::ZERO;
    for (n, (event, header)) in events.iter().zip(&headers).enumerate() {
        let found = match header {
            // What a newer version wrote is believed.
            Err(CodecError::Newer(_)) => None,
            Err(error) => Some((Flaw::Changed, format!("event {n}: {error}"))),
            Ok(header) => misplaced(header, n, run, before, headers.get(n + 1..).unwrap_or_default()),
        };
        if let Some((flaw, what)) = found {
            return Some((n, flaw, what));
        }
        before = Hash::of(event);
    }
    None
}

fn misplaced(
    header: &Header,
    place: usize,
    run: RunId,
    before: Hash,
    later: &[Result<Header, CodecError>],
) -> Option<(Flaw, String)> {
    let expected = u64::try_from(place).unwrap_or(u64::MAX);
    if header.run != run {
        return Some((Flaw::Changed, format!("event {expected} is one of run {}", header.run)));
    }
    if header.n != expected {
        let comes_later = later.iter().flatten().any(|later| later.n == expected);
        return Some(match (comes_later, header.n < expected) {
            (true, _) => (Flaw::Reordered, format!("event {} comes before event {expected}", header.n)),
            (false, false) => (Flaw::Removed, format!("event {expected} is not there, {} is", header.n)),
            (false, true) => (Flaw::Reordered, format!("event {} is there again", header.n)),
        });
    }
    (header.prev != before).then(|| match expected.checked_sub(1) {
        None => (Flaw::Changed, "event 0 names one before it".to_owned()),
        Some(last) => (Flaw::Changed, format!("event {last} is not the one that event {expected} names")),
    })
}
