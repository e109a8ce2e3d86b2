//! The closed set of facts that can be recorded of a run, and the envelope around each.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A JSON object whose meaning belongs to whoever wrote it: a step's parameters, intent or outcome.
pub type Detail = serde_json::Map<String, serde_json::Value>;

/// The identity of a run: a UUID version 7, so that ids order by the time runs began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub Uuid);

impl RunId {
    /// The eight characters that people see: the *last* eight, since the first eight of a UUID version 7 are a clock
    /// that moves once in 65 seconds.
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text.get(24..).unwrap_or(&text).to_owned()
    }

    /// Whether `part` (hexadecimal digits, hyphens ignored, any case) occurs in this id.
    pub fn matches(&self, part: &str) -> bool {
        let part: String = part.chars().filter(|c| *c != '-').flat_map(char::to_lowercase).collect();
        !part.is_empty() && self.0.simple().to_string().contains(&part)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(RunId)
    }
}

/// A blake3 hash: of an event's encoded bytes in the chain of a run, or of an attachment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first event of a run has for the hash of the event before it.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hash was not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a hash: 64 hexadecimal digits are needed")]
pub struct BadHash(String);

impl FromStr for Hash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(|hash| Hash(*hash.as_bytes())).map_err(|_| BadHash(text.to_owned()))
    }
}

/// Who acted: the operating system's user, the host's name and the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Login name of the effective user.
    pub user: String,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: u32,
}

/// A process that a later one can recognise: a pid alone is used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id; also the id of its process group.
    pub pid: u32,
    /// Clock ticks after boot, field 22 of `/proc/<pid>/stat` (proc(5)).
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// Something that went wrong, in the words that the user sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code it leads to when nothing worse comes: 1 failed, 6 what was asked for does not exist.
    pub code: u8,
    /// What could not be done, and to what.
    pub message: String,
    /// Why, as far as it is known.
    pub cause: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Whether trying again may help; not stored.
    #[serde(skip)]
    pub transient: bool,
    /// The shortest wait that the other side asked for, in milliseconds; not stored.
    #[serde(skip)]
    pub retry_after_ms: Option<u64>,
    /// Whether this is no failure, but the step's answer to being asked to stop; not stored.
    #[serde(skip)]
    pub stopped: bool,
}

impl Failure {
    /// A permanent failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure {
            code: 1,
            message: message.into(),
            cause: None,
            hint: None,
            transient: false,
            retry_after_ms: None,
            stopped: false,
        }
    }

    /// What a step returns when it stopped at a safe point because it was asked to.
    pub fn stopped() -> Failure {
        Failure { stopped: true, ..Failure::new("stopped on request") }
    }

    /// Adds why.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Failure {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Failure {
        self.code = code;
        self
    }

    /// Says that trying again may help.
    #[must_use]
    pub fn transient(mut self, transient: bool) -> Failure {
        self.transient = transient;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.cause.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// What becomes of a run whose step fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Everything that was done is undone.
    Rollback,
    /// Everything stays as it is, to be continued once the cause is mended.
    Keep,
}

/// What a step does to the world, as far as undoing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it looks, computes, or does what may be done any number of times within what other steps undo.
    None,
    /// Something that its undo takes back.
    Undoable,
    /// Something that nobody can take back.
    Final,
}

/// One step of a plan, with everything it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// Its name within the plan, as people see it.
    pub name: String,
    /// Which code runs it.
    pub kind: String,
    /// Which version of that code's understanding of `parameters`, intents and outcomes.
    pub version: u16,
    /// Its parameters.
    pub parameters: Detail,
    /// What it does to the world.
    pub effect: Effect,
    /// Indexes of the steps whose undo must wait for this one's: they are left alone while this one is not undone.
    pub rests_on: Vec<u16>,
    /// Indexes of the steps to be undone and done again with this one when it is found half done.
    pub redo_with: Vec<u16>,
}

/// The first fact of every run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStarted {
    /// Version of the program that made the plan.
    pub version: String,
    /// The command, as typed: `restore`.
    pub command: String,
    /// Its arguments, as typed.
    pub arguments: Vec<String>,
    /// The section of the configuration it works on.
    pub section: Option<String>,
    /// The database it makes, changes or reads.
    pub database: Option<String>,
    /// What no two runs may work on at the same time.
    pub target: Option<String>,
    /// Whether it changes nothing in the world.
    pub read_only: bool,
    /// What becomes of it when a step fails.
    pub on_failure: OnFailure,
    /// How long a step that fails for a passing reason is tried again, in milliseconds of waiting.
    pub retry_limit_ms: u64,
    /// What the steps share: hosts, ports, names, paths. No secrets.
    pub settings: Detail,
    /// The steps, in order.
    pub plan: Vec<PlannedStep>,
    /// The process that runs it.
    pub process: Process,
}

impl RunStarted {
    /// The command as it was typed, for people.
    pub fn command_line(&self) -> String {
        [std::slice::from_ref(&self.command), &self.arguments].concat().join(" ")
    }
}

/// Why a run goes backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollbackCause {
    /// A step failed for good.
    Failure,
    /// Somebody asked for it.
    Request,
}

/// Why a run stopped where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// A step failed, and what was done is kept.
    Failure,
    /// This signal arrived: 2 for SIGINT, 15 for SIGTERM.
    Signal(u8),
}

/// An operator's word on a step that nobody can observe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect.
    Applied,
    /// It did not.
    Absent,
    /// It did, and has been taken back by hand.
    Undone,
}

/// A fact. `step` is the index of the step in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The run began with this plan.
    RunStarted(Box<RunStarted>),
    /// Another process took the run over and goes on with it.
    RunContinued {
        /// Version of the program that continues.
        version: String,
        /// The process.
        process: Process,
    },
    /// A step announced what it is about to do: the intent, enough to observe and to undo it.
    StepStarted {
        /// Index in the plan.
        step: u16,
        /// Counts from 1.
        attempt: u32,
        /// What it is about to do.
        intent: Detail,
    },
    /// A step took effect.
    StepSucceeded {
        /// Index in the plan.
        step: u16,
        /// What came of it.
        outcome: Detail,
        /// Whether it was found done rather than done now.
        observed: bool,
    },
    /// A step had nothing to do.
    StepSkipped {
        /// Index in the plan.
        step: u16,
        /// Why.
        reason: String,
    },
    /// An attempt at a step failed.
    StepFailed {
        /// Index in the plan.
        step: u16,
        /// Which attempt; counts from 1.
        attempt: u32,
        /// How.
        error: Failure,
        /// When it will be tried again, if it will, in milliseconds.
        retry_in_ms: Option<u64>,
    },
    /// Nobody can tell whether a step took effect.
    StepUnknown {
        /// Index in the plan.
        step: u16,
        /// What to look at.
        error: Failure,
    },
    /// Steps were found half done and are undone, to be done again.
    StepsReset {
        /// Indexes in the plan.
        steps: Vec<u16>,
        /// Why.
        reason: String,
    },
    /// An operator said what became of a step.
    StepResolved {
        /// Index in the plan.
        step: u16,
        /// What became of it.
        verdict: Verdict,
        /// How the operator knows.
        reason: String,
    },
    /// A part of a step's work is done and durable.
    PartDone {
        /// Index in the plan.
        step: u16,
        /// The part's name within the step.
        part: String,
        /// What came of it.
        detail: Detail,
    },
    /// A program was started for a step.
    ChildStarted {
        /// Index in the plan.
        step: u16,
        /// The process.
        process: Process,
        /// Its name.
        program: String,
    },
    /// That program ended.
    ChildEnded {
        /// Index in the plan.
        step: u16,
        /// Its process id.
        pid: u32,
        /// How: `exit status: 1`, `signal: 9`.
        ending: String,
    },
    /// The undo of a step is about to happen.
    UndoStarted {
        /// Index in the plan.
        step: u16,
        /// Counts from 1.
        attempt: u32,
    },
    /// A step is undone: what it did is absent.
    UndoSucceeded {
        /// Index in the plan.
        step: u16,
        /// What was taken back, or found absent.
        outcome: Detail,
    },
    /// An attempt to undo a step failed.
    UndoFailed {
        /// Index in the plan.
        step: u16,
        /// Which attempt; counts from 1.
        attempt: u32,
        /// How.
        error: Failure,
        /// When it will be tried again, if it will, in milliseconds.
        retry_in_ms: Option<u64>,
    },
    /// From here on the run goes backward.
    RollbackStarted {
        /// Why.
        cause: RollbackCause,
        /// In words.
        reason: String,
    },
    /// Every step is done.
    RunSucceeded,
    /// The run failed, and everything it did is undone.
    RunFailed {
        /// What failed.
        error: Failure,
    },
    /// The run stopped where it was.
    RunStopped {
        /// Why.
        cause: StopCause,
        /// What failed, when something did.
        error: Option<Failure>,
    },
    /// Everything that the run did was undone on request.
    RunRolledBack,
    /// The run cannot go on by itself: an operator must look.
    RunStuck {
        /// At what.
        error: Failure,
    },
    /// An operator closed the run; it will be neither continued nor undone.
    RunAbandoned {
        /// Why.
        reason: String,
    },
    /// The queryable database was damaged and was made anew from the run files.
    JournalRebuilt {
        /// Where the damaged one was put.
        set_aside: String,
        /// What was wrong with it.
        reason: String,
        /// Runs found in the run files.
        runs: u64,
        /// Events found in the run files.
        events: u64,
    },
    /// A fact of a kind that a newer version records and says readers may pass over.
    Skippable {
        /// Its type in the registry.
        type_id: u16,
        /// Its version.
        type_version: u16,
    },
}

impl Event {
    /// The kind's name, as `audit` and `inspect` show it.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::RunStarted(_) => "run_started",
            Event::RunContinued { .. } => "run_continued",
            Event::StepStarted { .. } => "step_started",
            Event::StepSucceeded { .. } => "step_succeeded",
            Event::StepSkipped { .. } => "step_skipped",
            Event::StepFailed { .. } => "step_failed",
            Event::StepUnknown { .. } => "step_unknown",
            Event::StepsReset { .. } => "steps_reset",
            Event::StepResolved { .. } => "step_resolved",
            Event::PartDone { .. } => "part_done",
            Event::ChildStarted { .. } => "child_started",
            Event::ChildEnded { .. } => "child_ended",
            Event::UndoStarted { .. } => "undo_started",
            Event::UndoSucceeded { .. } => "undo_succeeded",
            Event::UndoFailed { .. } => "undo_failed",
            Event::RollbackStarted { .. } => "rollback_started",
            Event::RunSucceeded => "run_succeeded",
            Event::RunFailed { .. } => "run_failed",
            Event::RunStopped { .. } => "run_stopped",
            Event::RunRolledBack => "run_rolled_back",
            Event::RunStuck { .. } => "run_stuck",
            Event::RunAbandoned { .. } => "run_abandoned",
            Event::JournalRebuilt { .. } => "journal_rebuilt",
            Event::Skippable { .. } => "unknown",
        }
    }

    /// The index of the step that the fact is about.
    pub fn step(&self) -> Option<u16> {
        match self {
            Event::StepStarted { step, .. }
            | Event::StepSucceeded { step, .. }
            | Event::StepSkipped { step, .. }
            | Event::StepFailed { step, .. }
            | Event::StepUnknown { step, .. }
            | Event::StepResolved { step, .. }
            | Event::PartDone { step, .. }
            | Event::ChildStarted { step, .. }
            | Event::ChildEnded { step, .. }
            | Event::UndoStarted { step, .. }
            | Event::UndoSucceeded { step, .. }
            | Event::UndoFailed { step, .. } => Some(*step),
            _ => None,
        }
    }
}

/// A fact with its place, time and author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Which run.
    pub run: RunId,
    /// Number within the run, from 0.
    pub n: u64,
    /// The event's own id, a UUID version 7.
    pub id: Uuid,
    /// When it was recorded, to the microsecond.
    pub at: Timestamp,
    /// Counts the owners of the run; an append by an earlier owner is refused.
    pub epoch: u64,
    /// Who recorded it.
    pub actor: Actor,
    /// Hash of the encoded event before it in the run.
    pub prev: Hash,
    /// The fact.
    pub event: Event,
}
