//! JSON: stable, with a `schema` number on top; fields are only ever added.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use journal::event::{Actor, Detail, Envelope, Event, Failure, Hash, StopCause};
use journal::query::Shown;
use journal::run::{Run, StepRecord};
use journal::step::{Listener, Progress};
use serde_json::{Value, json};

use super::entry::{Entry, verdict_word};
use super::progress::Told;
use super::tables::Line;
use super::{Inspected, Style, Unread, out};
use crate::error::Error;
use crate::plan::Plan;

/// RFC 3339, UTC, milliseconds.
pub fn time(at: Timestamp) -> String {
    format!("{}", at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
}

fn times(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| time(at).into())
}

pub(super) fn actor(actor: &Actor) -> Value {
    json!({ "user": actor.user, "host": actor.host, "pid": actor.pid })
}

fn failure(failure: &Failure) -> Value {
    json!({ "code": failure.code, "message": failure.message, "cause": failure.cause, "hint": failure.hint })
}

fn failures(found: Option<&Failure>) -> Value {
    found.map_or(Value::Null, failure)
}

/// An error without a run.
pub fn error(error: &Error) -> Value {
    json!({ "code": error.code.0, "message": error.message, "cause": error.cause, "hint": error.hint })
}

fn millis(from: Timestamp, to: Timestamp) -> i64 {
    i64::try_from(to.duration_since(from).as_millis()).unwrap_or(i64::MAX).max(0)
}

/// A run that is not at work, or whose progress is not asked for.
pub(super) fn run_at_rest(found: &Run, shown: Shown) -> Value {
    run(found, shown, None, found.last_at)
}

/// A run: R of the documentation.
pub fn run(run: &Run, shown: Shown, progress: Option<&Progress>, now: Timestamp) -> Value {
    let until = match (run.finished_at, shown) {
        (Some(finished), _) => finished,
        (None, Shown::Interrupted) => run.last_at,
        (None, _) => now,
    };
    json!({
        "id": run.id.to_string(),
        "command": run.started.command,
        "arguments": run.started.arguments,
        "section": run.started.section,
        "database": run.started.database,
        "status": shown.as_str(),
        "actor": actor(&run.actor),
        "version": run.started.version,
        "started_at": time(run.started_at),
        "finished_at": times(run.finished_at),
        "duration_ms": millis(run.started_at, until),
        "steps_done": run.steps_done(),
        "steps_total": run.steps.len(),
        "step": current(run),
        "progress": progress.map(super::progress::value),
        "error": failures(run.error.as_ref()),
    })
}

/// The step that an unfinished run is at.
fn current(run: &Run) -> Option<&str> {
    let step = if run.status.is_finished() { None } else { run.current() };
    step.map(|step| step.planned.name.as_str())
}

/// A step: S of the documentation.
fn step(step: &StepRecord) -> Value {
    let mut detail = Detail::new();
    let mut add = |name: &str, value: Value| detail.insert(name.to_owned(), value);
    if let Some(intent) = &step.intent {
        add("intent", Value::Object(intent.clone()));
    }
    if let Some(outcome) = &step.outcome {
        add("outcome", Value::Object(outcome.clone()));
    }
    if let Some(reason) = &step.skipped {
        add("skipped", reason.clone().into());
    }
    if !step.parts.is_empty() {
        add(
            "parts",
            step.parts
                .iter()
                .map(|(name, part)| (name.clone(), Value::Object(part.clone())))
                .collect::<Detail>()
                .into(),
        );
    }
    let duration = step.started_at.zip(step.finished_at).map(|(from, to)| millis(from, to));
    json!({
        "name": step.planned.name,
        "status": step.status.as_str(),
        "attempts": step.attempts,
        "started_at": times(step.started_at),
        "finished_at": times(step.finished_at),
        "duration_ms": duration,
        "detail": detail,
        "error": failures(step.error.as_ref()),
    })
}

fn steps(run: &Run) -> Vec<Value> {
    run.steps.iter().map(step).collect()
}

/// An event: E of the documentation. `seq` is null for an event that has no number in the whole journal yet.
pub fn event(seq: Option<u64>, envelope: &Envelope, hash: Hash, name: Option<&str>) -> Value {
    json!({
        "seq": seq,
        "run": envelope.run.to_string(),
        "n": envelope.n,
        "at": time(envelope.at),
        "kind": envelope.event.kind(),
        "step": name,
        "actor": actor(&envelope.actor),
        "detail": detail(&envelope.event),
        "hash": hash.to_string(),
    })
}

/// What an event says, beside its kind and step.
pub(super) fn detail(event: &Event) -> Value {
    match event {
        Event::RunStarted(started) => json!({
            "version": started.version,
            "command": started.command,
            "arguments": started.arguments,
            "section": started.section,
            "database": started.database,
            "target": started.target,
            "settings": started.settings,
            "steps": started.plan.iter().map(|step| step.name.clone()).collect::<Vec<_>>(),
        }),
        Event::RunContinued { version, process } => json!({ "version": version, "pid": process.pid }),
        Event::StepStarted { attempt, intent, .. } => json!({ "attempt": attempt, "intent": intent }),
        Event::StepSucceeded { outcome, observed, .. } => json!({ "observed": observed, "outcome": outcome }),
        Event::UndoSucceeded { outcome, .. } => json!({ "outcome": outcome }),
        Event::StepSkipped { reason, .. } | Event::RunAbandoned { reason } => json!({ "reason": reason }),
        Event::StepFailed { attempt, error, retry_in_ms, .. }
        | Event::UndoFailed { attempt, error, retry_in_ms, .. } => {
            json!({ "attempt": attempt, "error": failure(error), "retry_in_ms": retry_in_ms })
        }
        Event::StepUnknown { error, .. } | Event::RunFailed { error } | Event::RunStuck { error } => {
            json!({ "error": failure(error) })
        }
        Event::StepsReset { steps, reason } => json!({ "steps": steps, "reason": reason }),
        Event::StepResolved { verdict, reason, .. } => {
            json!({ "as": verdict_word(*verdict), "reason": reason })
        }
        Event::PartDone { part, detail, .. } => json!({ "part": part, "detail": detail }),
        Event::ChildStarted { process, program, .. } => json!({ "pid": process.pid, "program": program }),
        Event::ChildEnded { pid, ending, .. } => json!({ "pid": pid, "ending": ending }),
        Event::UndoStarted { attempt, .. } => json!({ "attempt": attempt }),
        Event::RollbackStarted { reason, .. } => json!({ "reason": reason }),
        Event::RunStopped { cause, error } => {
            let signal = match cause {
                StopCause::Failure => Value::Null,
                StopCause::Signal(signal) => (*signal).into(),
            };
            json!({ "signal": signal, "error": failures(error.as_ref()) })
        }
        Event::JournalRebuilt { set_aside, reason, runs, events } => {
            json!({ "set_aside": set_aside, "reason": reason, "runs": runs, "events": events })
        }
        Event::Skippable { type_id, type_version } => json!({ "type": type_id, "version": type_version }),
        Event::RunSucceeded | Event::RunRolledBack => json!({}),
    }
}

/// `history --json`.
pub fn history(lines: &[Line], now: Timestamp) -> Value {
    let shown = |line: &Line| match &line.run {
        Some(found) => run(found, line.shown, line.progress.as_ref(), now),
        None => {
            let Line { summary, .. } = line;
            let user = json!({ "user": summary.user, "host": null, "pid": null });
            let section = summary.section.as_deref();
            unreadable(&summary.id.to_string(), section, &user, None, Some(&time(summary.started_at)))
        }
    };
    json!({ "schema": 1, "runs": lines.iter().map(shown).collect::<Vec<_>>() })
}

fn unreadable(
    id: &str,
    section: Option<&str>,
    actor: &Value,
    version: Option<&str>,
    started_at: Option<&str>,
) -> Value {
    json!({
        "id": id,
        "command": null,
        "arguments": [],
        "section": section,
        "database": null,
        "status": Shown::Unreadable.as_str(),
        "actor": actor,
        "version": version,
        "started_at": started_at,
        "finished_at": null,
        "duration_ms": null,
        "steps_done": null,
        "steps_total": null,
        "step": null,
        "progress": null,
        "error": null,
    })
}

/// `inspect --json`.
pub(super) fn inspect(inspected: &Inspected<'_>, now: Timestamp) -> Value {
    let Inspected { run: found, shown, progress, events, .. } = inspected;
    let events: Vec<Value> = events.iter().map(Entry::json).collect();
    json!({
        "schema": 1,
        "run": run(found, *shown, progress.as_ref(), now),
        "steps": steps(found),
        "events": events,
    })
}

/// `inspect --json` of a run that cannot be read.
pub(super) fn inspect_unread(unread: &Unread<'_>) -> Value {
    let first = unread.events.first();
    let who = first.and_then(Entry::actor).map_or(Value::Null, actor);
    let id = unread.id.to_string();
    let began = first.and_then(Entry::at);
    let run = unreadable(&id, None, &who, unread.written_by.as_deref(), began.as_deref());
    let events: Vec<Value> = unread.events.iter().map(Entry::json).collect();
    json!({ "schema": 1, "run": run, "steps": [], "events": events })
}

fn step_name(run: &Run, envelope: &Envelope) -> Option<String> {
    let index = usize::from(envelope.event.step()?);
    run.steps.get(index).map(|step| step.planned.name.clone())
}

/// The last line of a run's output.
pub fn ended(found: &Run, shown: Shown) -> Value {
    json!({ "schema": 1, "run": run_at_rest(found, shown), "steps": steps(found) })
}

/// `-n --json`.
pub fn plan(plan: &Plan, command: &str) -> Value {
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|step| {
            json!({
                "name": step.name,
                "kind": step.kind,
                "does": super::text::does(step, &plan.settings),
                "parameters": step.parameters,
            })
        })
        .collect();
    json!({
        "schema": 1,
        "plan": {
            "command": command,
            "section": plan.settings.section,
            "database": plan.database(),
            "steps": steps,
        },
    })
}

/// Prints each event as a line of JSON, and every so often how far the step is.
pub(super) struct Lines {
    style: Style,
    told: Mutex<Told>,
}

impl Lines {
    pub(super) fn new(style: Style) -> Lines {
        Lines { style, told: Mutex::default() }
    }
}

impl Listener for Lines {
    fn recorded(&self, run: &Run, envelope: &Envelope, hash: Hash) {
        out(&event(None, envelope, hash, step_name(run, envelope).as_deref()).to_string());
    }

    fn progressed(&self, progress: &Progress) {
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).is_due(progress) {
            out(&super::progress::line(progress).to_string());
        }
    }

    fn warned(&self, warning: &str) {
        self.style.warn(warning);
    }
}
