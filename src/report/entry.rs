//! One event as people and scripts see it, whether this version can read it or not.

use journal::codec::{self, Header};
use journal::event::{Actor, Envelope, Event, Hash, PlannedStep, RunId, Verdict};
use serde_json::{Value, json};

use super::json;

/// An event with its place in the journal.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Number in the whole journal.
    pub seq: u64,
    /// Its run.
    pub run: RunId,
    /// Number within the run.
    pub n: u64,
    /// Its hash.
    pub hash: Hash,
    /// The name of its step, when it is of one that is known.
    pub step: Option<String>,
    /// What it says.
    pub told: Reading,
}

/// How much of an event this version can read.
#[derive(Debug, Clone)]
pub enum Reading {
    /// All of it.
    Event(Box<Envelope>),
    /// Its envelope; a newer version knows the rest.
    Header(Box<Header>),
    /// Nothing.
    Nothing,
}

impl Entry {
    /// What the encoded event says; `steps` are those of its run's plan, as far as that is known.
    pub fn of(seq: u64, run: RunId, n: u64, bytes: &[u8], steps: &[PlannedStep]) -> Entry {
        let told = match codec::decode(bytes) {
            Ok(envelope) => Reading::Event(Box::new(envelope)),
            Err(_) => {
                codec::header(bytes).map_or(Reading::Nothing, |header| Reading::Header(Box::new(header)))
            }
        };
        let index = match &told {
            Reading::Event(envelope) => envelope.event.step(),
            _ => None,
        };
        let step = index.and_then(|index| steps.get(usize::from(index))).map(|step| step.name.clone());
        Entry { seq, run, n, hash: Hash::of(bytes), step, told }
    }

    /// The event's kind.
    pub(super) fn kind(&self) -> &'static str {
        match &self.told {
            Reading::Event(envelope) => envelope.event.kind(),
            _ => "unknown",
        }
    }

    /// When it was recorded, as scripts read it.
    pub(super) fn at(&self) -> Option<String> {
        let at = match &self.told {
            Reading::Event(envelope) => envelope.at,
            Reading::Header(header) => header.at,
            Reading::Nothing => return None,
        };
        Some(json::time(at))
    }

    /// Who recorded it.
    pub(super) fn actor(&self) -> Option<&Actor> {
        match &self.told {
            Reading::Event(envelope) => Some(&envelope.actor),
            Reading::Header(header) => Some(&header.actor),
            Reading::Nothing => None,
        }
    }

    /// What it says, beside its kind and step.
    pub(super) fn detail(&self) -> Value {
        match &self.told {
            Reading::Event(envelope) => json::detail(&envelope.event),
            Reading::Header(header) => json!({ "type": header.type_id, "version": header.type_version }),
            Reading::Nothing => json!({}),
        }
    }

    /// E of the documentation.
    pub(super) fn json(&self) -> Value {
        if let Reading::Event(envelope) = &self.told {
            return json::event(Some(self.seq), envelope, self.hash, self.step.as_deref());
        }
        json!({
            "seq": self.seq,
            "run": self.run.to_string(),
            "n": self.n,
            "at": self.at(),
            "kind": self.kind(),
            "step": self.step,
            "actor": self.actor().map(json::actor),
            "detail": self.detail(),
            "hash": self.hash.to_string(),
        })
    }

    /// What it says in a line.
    pub(super) fn words(&self) -> String {
        let Reading::Event(envelope) = &self.told else { return "written by a newer version".to_owned() };
        let said = match &envelope.event {
            Event::RunStarted(started) => started.command_line(),
            Event::RunContinued { version, process } => {
                format!("by process {}, version {version}", process.pid)
            }
            Event::StepSucceeded { outcome, observed, .. } => match (told(outcome), observed) {
                (Some(pointed), false) => pointed,
                (Some(pointed), true) => format!("{pointed} (was done already)"),
                (None, true) => "was done already".to_owned(),
                (None, false) => String::new(),
            },
            Event::StepStarted { attempt, .. } | Event::UndoStarted { attempt, .. } if *attempt > 1 => {
                format!("attempt {attempt}")
            }
            Event::UndoSucceeded { outcome, .. } => {
                let back = outcome.get("back_to").and_then(Value::as_str);
                back.map(|back| format!("back to {back}")).unwrap_or_default()
            }
            Event::StepSkipped { reason, .. }
            | Event::StepsReset { reason, .. }
            | Event::RollbackStarted { reason, .. }
            | Event::RunAbandoned { reason }
            | Event::JournalRebuilt { reason, .. } => reason.clone(),
            Event::StepFailed { error, .. }
            | Event::UndoFailed { error, .. }
            | Event::StepUnknown { error, .. }
            | Event::RunFailed { error }
            | Event::RunStuck { error }
            | Event::RunStopped { error: Some(error), .. } => error.to_string(),
            Event::StepResolved { verdict, reason, .. } => format!("{}: {reason}", verdict_word(*verdict)),
            Event::PartDone { part, .. } => part.clone(),
            Event::ChildStarted { program, process, .. } => format!("{program}, process {}", process.pid),
            Event::ChildEnded { pid, ending, .. } => format!("process {pid}: {ending}"),
            _ => String::new(),
        };
        said.lines().next().unwrap_or_default().to_owned()
    }
}

/// The word for an operator's verdict.
pub(super) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Applied => "applied",
        Verdict::Absent => "absent",
        Verdict::Undone => "undone",
    }
}

/// What an outcome tells of what people may not expect.
fn told(outcome: &journal::event::Detail) -> Option<String> {
    pointed(outcome).or_else(|| reader(outcome))
}

/// The pg_restore that is used, when it is not the configured one.
fn reader(outcome: &journal::event::Detail) -> Option<String> {
    let reader = outcome.get("reader")?;
    let text = |name: &str| reader.get(name)?.as_str();
    let (path, version, configured) = (text("path")?, text("version")?, text("instead_of")?);
    Some(format!("{path} ({version}) instead of {configured}"))
}

/// Where a name led before and leads after, when that is what an outcome tells.
fn pointed(outcome: &journal::event::Detail) -> Option<String> {
    let name = outcome.get("name")?.as_str()?;
    let database = |key: &str| Some(outcome.get(key)?.get("dbname")?.as_str()?.to_owned());
    outcome.get("before")?;
    let (before, after) = (database("before"), database("after"));
    let or_nothing = |database: Option<String>| database.unwrap_or_else(|| "nothing".to_owned());
    Some(format!("{name}: {} -> {}", or_nothing(before), or_nothing(after)))
}
