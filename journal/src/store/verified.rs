//! What a look at a whole journal found.

use std::path::PathBuf;

use super::Head;
use crate::event::RunId;

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
