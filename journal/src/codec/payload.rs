//! The registry of event types, and the frozen struct of each type and version.
//!
//! A line of the registry is never changed or removed, and a number never used again. Enums are stored as numbers,
//! JSON objects as their text.

use bincode::Options as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CodecError, Header, MAX_EVENT};
use crate::event::{
    Detail, Effect, Event, Failure, OnFailure, PlannedStep, Process, RollbackCause, RunStarted, StopCause,
    Verdict,
};

/// An encoded payload and its place in the registry.
pub(super) struct Encoded {
    pub(super) type_id: u16,
    pub(super) type_version: u16,
    pub(super) skippable: bool,
    pub(super) bytes: Vec<u8>,
}

/// The registry: (type id, version, kind, whether readers that do not know it may pass over it). Append only.
pub const REGISTRY: [(u16, u16, &str, bool); 23] = [
    (1, 1, "run_started", false),
    (2, 1, "run_continued", false),
    (3, 1, "step_started", false),
    (4, 1, "step_succeeded", false),
    (5, 1, "step_skipped", false),
    (6, 1, "step_failed", false),
    (7, 1, "step_unknown", false),
    (8, 1, "steps_reset", false),
    (9, 1, "step_resolved", false),
    (10, 1, "part_done", false),
    (11, 1, "child_started", false),
    (12, 1, "child_ended", false),
    (13, 1, "undo_started", false),
    (14, 1, "undo_succeeded", false),
    (15, 1, "undo_failed", false),
    (16, 1, "rollback_started", false),
    (17, 1, "run_succeeded", false),
    (18, 1, "run_failed", false),
    (19, 1, "run_stopped", false),
    (20, 1, "run_rolled_back", false),
    (21, 1, "run_stuck", false),
    (22, 1, "run_abandoned", false),
    (23, 1, "journal_rebuilt", false),
];

#[derive(Serialize, Deserialize)]
struct FailureV1 {
    code: u8,
    message: String,
    cause: Option<String>,
    hint: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ProcessV1 {
    pid: u32,
    start_time: u64,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct PlannedStepV1 {
    name: String,
    kind: String,
    version: u16,
    parameters: String,
    effect: u8,
    rests_on: Vec<u16>,
    redo_with: Vec<u16>,
}

#[derive(Serialize, Deserialize)]
struct RunStartedV1 {
    version: String,
    command: String,
    arguments: Vec<String>,
    section: Option<String>,
    database: Option<String>,
    target: Option<String>,
    read_only: bool,
    on_failure: u8,
    retry_limit_ms: u64,
    settings: String,
    plan: Vec<PlannedStepV1>,
    process: ProcessV1,
}

#[derive(Serialize, Deserialize)]
struct RunContinuedV1 {
    version: String,
    process: ProcessV1,
}

/// StepStarted, StepSucceeded (number: observed) and UndoSucceeded have the shape of a step, a number and an object.
#[derive(Serialize, Deserialize)]
struct StepDetailV1 {
    step: u16,
    number: u32,
    detail: String,
}

/// StepSkipped, and StepResolved (number: verdict).
#[derive(Serialize, Deserialize)]
struct StepReasonV1 {
    step: u16,
    number: u8,
    reason: String,
}

/// StepFailed, UndoFailed, and StepUnknown (attempt 0).
#[derive(Serialize, Deserialize)]
struct StepFailureV1 {
    step: u16,
    attempt: u32,
    error: FailureV1,
    retry_in_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct StepsResetV1 {
    steps: Vec<u16>,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct PartDoneV1 {
    step: u16,
    part: String,
    detail: String,
}

#[derive(Serialize, Deserialize)]
struct ChildStartedV1 {
    step: u16,
    process: ProcessV1,
    program: String,
}

#[derive(Serialize, Deserialize)]
struct ChildEndedV1 {
    step: u16,
    pid: u32,
    ending: String,
}

#[derive(Serialize, Deserialize)]
struct UndoStartedV1 {
    step: u16,
    attempt: u32,
}

#[derive(Serialize, Deserialize)]
struct RollbackStartedV1 {
    cause: u8,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct EmptyV1 {}

/// RunFailed and RunStuck.
#[derive(Serialize, Deserialize)]
struct RunFailureV1 {
    error: FailureV1,
}

#[derive(Serialize, Deserialize)]
struct RunStoppedV1 {
    signal: Option<u8>,
    error: Option<FailureV1>,
}

#[derive(Serialize, Deserialize)]
struct RunAbandonedV1 {
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct JournalRebuiltV1 {
    set_aside: String,
    reason: String,
    runs: u64,
    events: u64,
}

fn bincode() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(MAX_EVENT as u64)
        .reject_trailing_bytes()
}

/// The payload of `event` and where it stands in the registry.
pub(super) fn encode(event: &Event) -> Result<Encoded, CodecError> {
    let kind = event.kind();
    let Some(&(type_id, type_version, _, skippable)) = REGISTRY.iter().rev().find(|line| line.2 == kind)
    else {
        return Err(CodecError::Newer(format!(
            "an event of kind '{kind}' cannot be written by this version"
        )));
    };
    let bytes = match event {
        Event::RunStarted(started) => put(kind, &run_started(started)),
        Event::RunContinued { version, process } => {
            put(kind, &RunContinuedV1 { version: version.clone(), process: put_process(process) })
        }
        Event::StepStarted { step, attempt, intent } => put_detail(kind, *step, *attempt, intent),
        Event::StepSucceeded { step, outcome, observed } => {
            put_detail(kind, *step, u32::from(*observed), outcome)
        }
        Event::UndoSucceeded { step, outcome } => put_detail(kind, *step, 0, outcome),
        Event::StepSkipped { step, reason } => {
            put(kind, &StepReasonV1 { step: *step, number: 0, reason: reason.clone() })
        }
        Event::StepResolved { step, verdict, reason } => {
            put(kind, &StepReasonV1 { step: *step, number: put_verdict(*verdict), reason: reason.clone() })
        }
        Event::StepFailed { step, attempt, error, retry_in_ms }
        | Event::UndoFailed { step, attempt, error, retry_in_ms } => put(
            kind,
            &StepFailureV1 {
                step: *step,
                attempt: *attempt,
                error: put_failure(error),
                retry_in_ms: *retry_in_ms,
            },
        ),
        Event::StepUnknown { step, error } => put(
            kind,
            &StepFailureV1 { step: *step, attempt: 0, error: put_failure(error), retry_in_ms: None },
        ),
        Event::StepsReset { steps, reason } => {
            put(kind, &StepsResetV1 { steps: steps.clone(), reason: reason.clone() })
        }
        Event::PartDone { step, part, detail } => {
            put(kind, &PartDoneV1 { step: *step, part: part.clone(), detail: text(detail) })
        }
        Event::ChildStarted { step, process, program } => put(
            kind,
            &ChildStartedV1 { step: *step, process: put_process(process), program: program.clone() },
        ),
        Event::ChildEnded { step, pid, ending } => {
            put(kind, &ChildEndedV1 { step: *step, pid: *pid, ending: ending.clone() })
        }
        Event::UndoStarted { step, attempt } => put(kind, &UndoStartedV1 { step: *step, attempt: *attempt }),
        Event::RollbackStarted { cause, reason } => put(
            kind,
            &RollbackStartedV1 { cause: u8::from(*cause == RollbackCause::Request), reason: reason.clone() },
        ),
        Event::RunSucceeded | Event::RunRolledBack | Event::Skippable { .. } => put(kind, &EmptyV1 {}),
        Event::RunFailed { error } | Event::RunStuck { error } => {
            put(kind, &RunFailureV1 { error: put_failure(error) })
        }
        Event::RunStopped { cause, error } => put(
            kind,
            &RunStoppedV1 {
                signal: match cause {
                    StopCause::Failure => None,
                    StopCause::Signal(signal) => Some(*signal),
                },
                error: error.as_ref().map(put_failure),
            },
        ),
        Event::RunAbandoned { reason } => put(kind, &RunAbandonedV1 { reason: reason.clone() }),
        Event::JournalRebuilt { set_aside, reason, runs, events } => put(
            kind,
            &JournalRebuiltV1 {
                set_aside: set_aside.clone(),
                reason: reason.clone(),
                runs: *runs,
                events: *events,
            },
        ),
    }?;
    Ok(Encoded { type_id, type_version, skippable, bytes })
}

/// The event whose payload is `bytes`.
pub(super) fn decode(header: &Header, bytes: &[u8]) -> Result<Event, CodecError> {
    let known = REGISTRY.iter().find(|line| line.0 == header.type_id && line.1 == header.type_version);
    let Some((_, _, kind, _)) = known else {
        if header.skippable {
            return Ok(Event::Skippable { type_id: header.type_id, type_version: header.type_version });
        }
        return Err(CodecError::Newer(format!(
            "event type {}, version {}",
            header.type_id, header.type_version
        )));
    };
    let event = match *kind {
        "run_started" => Event::RunStarted(Box::new(get_run_started(get(bytes)?)?)),
        "run_continued" => {
            let RunContinuedV1 { version, process } = get(bytes)?;
            Event::RunContinued { version, process: get_process(process) }
        }
        "step_started" => {
            let StepDetailV1 { step, number, detail } = get(bytes)?;
            Event::StepStarted { step, attempt: number, intent: object(&detail)? }
        }
        "step_succeeded" => {
            let StepDetailV1 { step, number, detail } = get(bytes)?;
            Event::StepSucceeded { step, outcome: object(&detail)?, observed: number == 1 }
        }
        "step_skipped" => {
            let StepReasonV1 { step, reason, .. } = get(bytes)?;
            Event::StepSkipped { step, reason }
        }
        "step_failed" => {
            let StepFailureV1 { step, attempt, error, retry_in_ms } = get(bytes)?;
            Event::StepFailed { step, attempt, error: get_failure(error), retry_in_ms }
        }
        "step_unknown" => {
            let StepFailureV1 { step, error, .. } = get(bytes)?;
            Event::StepUnknown { step, error: get_failure(error) }
        }
        "steps_reset" => {
            let StepsResetV1 { steps, reason } = get(bytes)?;
            Event::StepsReset { steps, reason }
        }
        "step_resolved" => {
            let StepReasonV1 { step, number, reason } = get(bytes)?;
            Event::StepResolved { step, verdict: get_verdict(number)?, reason }
        }
        "part_done" => {
            let PartDoneV1 { step, part, detail } = get(bytes)?;
            Event::PartDone { step, part, detail: object(&detail)? }
        }
        "child_started" => {
            let ChildStartedV1 { step, process, program } = get(bytes)?;
            Event::ChildStarted { step, process: get_process(process), program }
        }
        "child_ended" => {
            let ChildEndedV1 { step, pid, ending } = get(bytes)?;
            Event::ChildEnded { step, pid, ending }
        }
        "undo_started" => {
            let UndoStartedV1 { step, attempt } = get(bytes)?;
            Event::UndoStarted { step, attempt }
        }
        "undo_succeeded" => {
            let StepDetailV1 { step, detail, .. } = get(bytes)?;
            Event::UndoSucceeded { step, outcome: object(&detail)? }
        }
        "undo_failed" => {
            let StepFailureV1 { step, attempt, error, retry_in_ms } = get(bytes)?;
            Event::UndoFailed { step, attempt, error: get_failure(error), retry_in_ms }
        }
        "rollback_started" => {
            let RollbackStartedV1 { cause, reason } = get(bytes)?;
            let cause = if cause == 1 { RollbackCause::Request } else { RollbackCause::Failure };
            Event::RollbackStarted { cause, reason }
        }
        "run_succeeded" => get::<EmptyV1>(bytes).map(|_| Event::RunSucceeded)?,
        "run_failed" => Event::RunFailed { error: get_failure(get::<RunFailureV1>(bytes)?.error) },
        "run_stopped" => {
            let RunStoppedV1 { signal, error } = get(bytes)?;
            let cause = signal.map_or(StopCause::Failure, StopCause::Signal);
            Event::RunStopped { cause, error: error.map(get_failure) }
        }
        "run_rolled_back" => get::<EmptyV1>(bytes).map(|_| Event::RunRolledBack)?,
        "run_stuck" => Event::RunStuck { error: get_failure(get::<RunFailureV1>(bytes)?.error) },
        "run_abandoned" => Event::RunAbandoned { reason: get::<RunAbandonedV1>(bytes)?.reason },
        "journal_rebuilt" => {
            let JournalRebuiltV1 { set_aside, reason, runs, events } = get(bytes)?;
            Event::JournalRebuilt { set_aside, reason, runs, events }
        }
        other => return Err(CodecError::Newer(format!("event kind '{other}'"))),
    };
    Ok(event)
}

fn put<T: Serialize>(kind: &'static str, payload: &T) -> Result<Vec<u8>, CodecError> {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    bincode().serialize(payload).map_err(|_| CodecError::TooLarge {
        kind,
        size: bincode::serialized_size(payload).map_or(usize::MAX, size),
    })
}

fn get<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    bincode().deserialize(bytes).map_err(|error| CodecError::Damaged(error.to_string()))
}

fn put_detail(kind: &'static str, step: u16, number: u32, detail: &Detail) -> Result<Vec<u8>, CodecError> {
    put(kind, &StepDetailV1 { step, number, detail: text(detail) })
}

fn text(detail: &Detail) -> String {
    serde_json::Value::Object(detail.clone()).to_string()
}

fn object(text: &str) -> Result<Detail, CodecError> {
    serde_json::from_str(text).map_err(|error| CodecError::Damaged(error.to_string()))
}

fn put_failure(failure: &Failure) -> FailureV1 {
    let Failure { code, message, cause, hint, .. } = failure.clone();
    FailureV1 { code, message, cause, hint }
}

fn get_failure(failure: FailureV1) -> Failure {
    let FailureV1 { code, message, cause, hint } = failure;
    Failure { code, cause, hint, ..Failure::new(message) }
}

fn put_process(process: &Process) -> ProcessV1 {
    let Process { pid, start_time, boot_id } = process.clone();
    ProcessV1 { pid, start_time, boot_id }
}

fn get_process(process: ProcessV1) -> Process {
    let ProcessV1 { pid, start_time, boot_id } = process;
    Process { pid, start_time, boot_id }
}

fn put_verdict(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Applied => 0,
        Verdict::Absent => 1,
        Verdict::Undone => 2,
    }
}

fn get_verdict(number: u8) -> Result<Verdict, CodecError> {
    match number {
        0 => Ok(Verdict::Applied),
        1 => Ok(Verdict::Absent),
        2 => Ok(Verdict::Undone),
        other => Err(CodecError::Damaged(format!("{other} is no verdict"))),
    }
}

fn run_started(started: &RunStarted) -> RunStartedV1 {
    let RunStarted {
        version,
        command,
        arguments,
        section,
        database,
        target,
        read_only,
        on_failure,
        retry_limit_ms,
        settings,
        plan,
        process,
    } = started.clone();
    RunStartedV1 {
        version,
        command,
        arguments,
        section,
        database,
        target,
        read_only,
        on_failure: u8::from(on_failure == OnFailure::Keep),
        retry_limit_ms,
        settings: text(&settings),
        plan: plan.into_iter().map(put_planned).collect(),
        process: put_process(&process),
    }
}

fn get_run_started(stored: RunStartedV1) -> Result<RunStarted, CodecError> {
    let RunStartedV1 {
        version,
        command,
        arguments,
        section,
        database,
        target,
        read_only,
        on_failure,
        retry_limit_ms,
        settings,
        plan,
        process,
    } = stored;
    Ok(RunStarted {
        version,
        command,
        arguments,
        section,
        database,
        target,
        read_only,
        on_failure: if on_failure == 1 { OnFailure::Keep } else { OnFailure::Rollback },
        retry_limit_ms,
        settings: object(&settings)?,
        plan: plan.into_iter().map(get_planned).collect::<Result<_, _>>()?,
        process: get_process(process),
    })
}

fn put_planned(step: PlannedStep) -> PlannedStepV1 {
    let PlannedStep { name, kind, version, parameters, effect, rests_on, redo_with } = step;
    let effect = match effect {
        Effect::None => 0,
        Effect::Undoable => 1,
        Effect::Final => 2,
    };
    PlannedStepV1 { name, kind, version, parameters: text(&parameters), effect, rests_on, redo_with }
}

fn get_planned(stored: PlannedStepV1) -> Result<PlannedStep, CodecError> {
    let PlannedStepV1 { name, kind, version, parameters, effect, rests_on, redo_with } = stored;
    let effect = match effect {
        0 => Effect::None,
        1 => Effect::Undoable,
        2 => Effect::Final,
        other => return Err(CodecError::Damaged(format!("{other} is no effect of a step"))),
    };
    Ok(PlannedStep { name, kind, version, parameters: object(&parameters)?, effect, rests_on, redo_with })
}
