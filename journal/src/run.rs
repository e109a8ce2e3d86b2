//! Where a run stands: the one pure function from (where it stood, what happened) to where it stands, and from there
//! to what comes next. Nothing here looks at the world, and nothing but events changes a [`Run`].

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::event::{
    Actor, Detail, Effect, Envelope, Event, Failure, OnFailure, PlannedStep, Process, RollbackCause, RunId,
    RunStarted, StopCause, Verdict,
};

/// Where a run stands, as far as its events tell. Whether the process of a running one is alive they cannot tell:
/// see [`crate::query::Shown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Going forward.
    Running,
    /// Every step is done.
    Succeeded,
    /// A step failed, and everything is undone.
    Failed,
    /// Stopped where it was, to be continued or rolled back.
    Stopped,
    /// Going backward.
    RollingBack,
    /// Undone on request.
    RolledBack,
    /// An operator must look.
    Stuck,
    /// Closed by an operator.
    Abandoned,
}

impl Status {
    /// The word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Stopped => "stopped",
            Status::RollingBack => "rolling_back",
            Status::RolledBack => "rolled_back",
            Status::Stuck => "stuck",
            Status::Abandoned => "abandoned",
        }
    }

    /// Whether a process is, or was when it died, at work on the run.
    pub fn is_moving(self) -> bool {
        matches!(self, Status::Running | Status::RollingBack)
    }

    /// Whether nothing remains to be done by continuing: succeeded, failed, rolled back or abandoned.
    pub fn is_finished(self) -> bool {
        matches!(self, Status::Succeeded | Status::Failed | Status::RolledBack | Status::Abandoned)
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// Announced; no outcome yet.
    Running,
    /// Took effect.
    Succeeded,
    /// Had nothing to do.
    Skipped,
    /// Its last attempt failed.
    Failed,
    /// Its undo is announced; no outcome yet.
    Undoing,
    /// What it did is absent.
    Undone,
    /// Its undo failed.
    UndoFailed,
    /// Nobody can tell.
    Unknown,
}

impl StepStatus {
    /// The word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            StepStatus::Pending => "pending",
            StepStatus::Running => "running",
            StepStatus::Succeeded => "succeeded",
            StepStatus::Skipped => "skipped",
            StepStatus::Failed => "failed",
            StepStatus::Undoing => "undoing",
            StepStatus::Undone => "undone",
            StepStatus::UndoFailed => "undo_failed",
            StepStatus::Unknown => "unknown",
        }
    }
}

/// A program that a step started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The process.
    pub process: Process,
    /// Its name.
    pub program: String,
    /// How it ended, when that was seen.
    pub ending: Option<String>,
}

/// Where one step of a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// What the plan says.
    pub planned: PlannedStep,
    /// Where it stands.
    pub status: StepStatus,
    /// Attempts at doing it.
    pub attempts: u32,
    /// Attempts at undoing it.
    pub undo_attempts: u32,
    /// What it last announced to do.
    pub intent: Option<Detail>,
    /// What came of it.
    pub outcome: Option<Detail>,
    /// Its parts that are done, in order of their names.
    pub parts: BTreeMap<String, Detail>,
    /// The programs it started, in order.
    pub children: Vec<Child>,
    /// What failed last.
    pub error: Option<Failure>,
    /// Why it had nothing to do.
    pub skipped: Option<String>,
    /// Whether it is being undone in order to be done again.
    pub reset: bool,
    /// When it was first announced.
    pub started_at: Option<Timestamp>,
    /// When it got the status it has, unless it is at work.
    pub finished_at: Option<Timestamp>,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its first fact: command, settings and plan.
    pub started: RunStarted,
    /// When it began.
    pub started_at: Timestamp,
    /// Who began it.
    pub actor: Actor,
    /// Where it stands.
    pub status: Status,
    /// Why it goes, or went, backward.
    pub rollback: Option<RollbackCause>,
    /// Where its steps stand, in order of the plan.
    pub steps: Vec<StepRecord>,
    /// What went wrong, when something did.
    pub error: Option<Failure>,
    /// The signal that stopped it, while it is stopped by one.
    pub signal: Option<u8>,
    /// When it got the status it has, unless it is moving.
    pub finished_at: Option<Timestamp>,
    /// When its last event was recorded.
    pub last_at: Timestamp,
    /// The number that its next event will have.
    pub next_n: u64,
    /// The epoch of its last event.
    pub epoch: u64,
    /// The process that owns it, or did last.
    pub process: Process,
}

/// What comes next in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Announce and do this step.
    Do(usize),
    /// This step was announced before, and what became of it is not recorded: look.
    Observe(usize),
    /// Undo this step.
    Undo(usize),
    /// Everything is done: record this.
    Finish(Event),
    /// The run is at an end, or waits for an operator.
    Rest,
}

/// Events that do not make a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The first event is not `run_started`, or there is none.
    #[error("run {run} does not begin with 'run_started'")]
    NoBeginning {
        /// Which run; the nil UUID when there was no event at all.
        run: RunId,
    },
    /// An event has not the number it should have.
    #[error("run {run} has event {found} where {expected} should be")]
    Gap {
        /// Which run.
        run: RunId,
        /// The number it should have.
        expected: u64,
        /// The number it has.
        found: u64,
    },
    /// An event says something that cannot follow on what came before.
    #[error("event {n} of run {run} ({kind}) cannot follow: {why}")]
    Illegal {
        /// Which run.
        run: RunId,
        /// The event's number.
        n: u64,
        /// The event's kind.
        kind: &'static str,
        /// Why it cannot.
        why: String,
    },
}

impl Run {
    /// The run that `events` tell of, in order from the first.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Envelope>) -> Result<Run, FoldError> {
        let mut events = events.into_iter();
        let first = events.next().ok_or(FoldError::NoBeginning { run: RunId(uuid::Uuid::nil()) })?;
        let mut run = Run::begin(first)?;
        for envelope in events {
            run.apply(envelope)?;
        }
        Ok(run)
    }

    /// The run that has only its first event.
    pub fn begin(first: &Envelope) -> Result<Run, FoldError> {
        let Event::RunStarted(started) = &first.event else {
            return Err(FoldError::NoBeginning { run: first.run });
        };
        if first.n != 0 {
            return Err(FoldError::Gap { run: first.run, expected: 0, found: first.n });
        }
        Ok(Run {
            id: first.run,
            started: (**started).clone(),
            started_at: first.at,
            actor: first.actor.clone(),
            status: Status::Running,
            rollback: None,
            steps: started.plan.iter().cloned().map(StepRecord::pending).collect(),
            error: None,
            signal: None,
            finished_at: None,
            last_at: first.at,
            next_n: 1,
            epoch: first.epoch,
            process: started.process.clone(),
        })
    }

    /// Moves on by one event; on an error nothing has changed.
    pub fn apply(&mut self, envelope: &Envelope) -> Result<(), FoldError> {
        if envelope.n != self.next_n {
            return Err(FoldError::Gap { run: self.id, expected: self.next_n, found: envelope.n });
        }
        if envelope.epoch < self.epoch {
            return Err(self.illegal(envelope, "its author no longer owned the run"));
        }
        match envelope.event.step() {
            Some(index) => self.apply_to_step(envelope, usize::from(index))?,
            None => self.apply_to_run(envelope)?,
        }
        self.next_n += 1;
        self.epoch = envelope.epoch;
        self.last_at = envelope.at;
        Ok(())
    }

    fn apply_to_run(&mut self, envelope: &Envelope) -> Result<(), FoldError> {
        let finished = Some(envelope.at);
        let end = |run: &mut Run, status: Status, error: Option<&Failure>| {
            run.status = status;
            run.finished_at = finished;
            if let Some(error) = error {
                run.error = Some(error.clone());
            }
        };
        match &envelope.event {
            Event::RunStarted(_) => return Err(self.illegal(envelope, "the run has begun already")),
            Event::RunContinued { process, .. } => {
                if self.status.is_finished() && self.status != Status::Succeeded {
                    return Err(self.illegal(envelope, "the run is finished"));
                }
                self.process = process.clone();
                self.signal = None;
                if self.status == Status::Succeeded {
                    // Only a rollback can follow; until it does, the run is still what it was.
                    return Ok(());
                }
                self.finished_at = None;
                if self.rollback.is_some() {
                    self.status = Status::RollingBack;
                } else {
                    self.status = Status::Running;
                    self.error = None;
                }
                for step in &mut self.steps {
                    step.look_again();
                }
            }
            Event::StepsReset { steps, .. } => {
                for index in steps {
                    let step = self.steps.get_mut(usize::from(*index));
                    if let Some(step) = step.filter(|step| step.needs_undo()) {
                        step.reset = true;
                    }
                }
            }
            Event::RollbackStarted { cause, .. } => {
                self.status = Status::RollingBack;
                // A failure that is already being undone stays a failure when somebody asks for the same.
                self.rollback = Some(self.rollback.unwrap_or(*cause));
                if *cause == RollbackCause::Failure {
                    self.error = self.latest_error();
                }
                self.finished_at = None;
                self.signal = None;
                for step in &mut self.steps {
                    step.reset = false;
                    step.look_again();
                }
            }
            Event::RunSucceeded => {
                self.error = None;
                end(self, Status::Succeeded, None);
            }
            Event::RunFailed { error } => end(self, Status::Failed, Some(error)),
            Event::RunStopped { cause, error } => {
                if let StopCause::Signal(signal) = cause {
                    self.signal = Some(*signal);
                }
                end(self, Status::Stopped, error.as_ref());
            }
            Event::RunRolledBack => end(self, Status::RolledBack, None),
            Event::RunStuck { error } => end(self, Status::Stuck, Some(error)),
            Event::RunAbandoned { .. } => end(self, Status::Abandoned, None),
            _ => {}
        }
        Ok(())
    }

    fn apply_to_step(&mut self, envelope: &Envelope, index: usize) -> Result<(), FoldError> {
        let illegal = self.illegal(envelope, &format!("the plan has no step {index}"));
        let Some(step) = self.steps.get_mut(index) else {
            return Err(illegal);
        };
        let at = envelope.at;
        match &envelope.event {
            Event::StepStarted { attempt, intent, .. } => {
                step.status = StepStatus::Running;
                step.attempts = *attempt;
                step.intent = Some(intent.clone());
                step.started_at = step.started_at.or(Some(at));
                step.finished_at = None;
            }
            Event::StepSucceeded { outcome, .. } => {
                step.error = None;
                step.outcome = Some(outcome.clone());
                step.end(StepStatus::Succeeded, at);
            }
            Event::StepSkipped { reason, .. } => {
                step.skipped = Some(reason.clone());
                step.end(StepStatus::Skipped, at);
            }
            Event::StepFailed { attempt, error, .. } => {
                step.attempts = *attempt;
                step.started_at = step.started_at.or(Some(at));
                step.error = Some(error.clone());
                step.end(StepStatus::Failed, at);
            }
            Event::StepUnknown { error, .. } => {
                step.error = Some(error.clone());
                step.end(StepStatus::Unknown, at);
            }
            Event::StepResolved { verdict, .. } => step.resolve(*verdict, at),
            Event::PartDone { part, detail, .. } => {
                step.parts.insert(part.clone(), detail.clone());
            }
            Event::ChildStarted { process, program, .. } => {
                let child = Child { process: process.clone(), program: program.clone(), ending: None };
                step.children.push(child);
            }
            Event::ChildEnded { pid, ending, .. } => {
                let child = step.children.iter_mut().rev().find(|child| child.process.pid == *pid);
                if let Some(child) = child {
                    child.ending = Some(ending.clone());
                }
            }
            Event::UndoStarted { attempt, .. } => {
                step.status = StepStatus::Undoing;
                step.undo_attempts = *attempt;
                step.finished_at = None;
            }
            Event::UndoSucceeded { .. } => step.undone(at),
            Event::UndoFailed { error, .. } => {
                step.error = Some(error.clone());
                step.end(StepStatus::UndoFailed, at);
            }
            _ => {}
        }
        Ok(())
    }

    fn illegal(&self, envelope: &Envelope, why: &str) -> FoldError {
        FoldError::Illegal { run: self.id, n: envelope.n, kind: envelope.event.kind(), why: why.to_owned() }
    }

    /// What comes next. Pure: asked twice, it says the same.
    pub fn next(&self) -> Next {
        match self.status {
            Status::Running => self.next_forward(),
            Status::RollingBack => self.next_backward(),
            _ => Next::Rest,
        }
    }

    fn next_forward(&self) -> Next {
        if let Some((index, step)) = self.steps.iter().enumerate().rev().find(|(_, step)| step.reset) {
            if step.status != StepStatus::UndoFailed {
                return Next::Undo(index);
            }
            return Next::Finish(self.stuck());
        }
        for (index, step) in self.steps.iter().enumerate() {
            match step.status {
                StepStatus::Succeeded | StepStatus::Skipped => {}
                StepStatus::Unknown | StepStatus::UndoFailed => return Next::Finish(self.stuck()),
                _ if step.intent.is_some() => return Next::Observe(index),
                _ => return Next::Do(index),
            }
        }
        Next::Finish(Event::RunSucceeded)
    }

    fn next_backward(&self) -> Next {
        let held = self.held();
        let undo = (0..self.steps.len()).rev().find(|index| {
            self.steps.get(*index).is_some_and(StepRecord::needs_undo) && !held.contains(index)
        });
        if let Some(index) = undo {
            return Next::Undo(index);
        }
        if self.steps.iter().any(|step| step.status == StepStatus::UndoFailed) {
            return Next::Finish(self.stuck());
        }
        match self.rollback {
            Some(RollbackCause::Failure) => {
                let error = self.error.clone().unwrap_or_else(|| Failure::new("the run failed"));
                Next::Finish(Event::RunFailed { error })
            }
            _ => Next::Finish(Event::RunRolledBack),
        }
    }

    /// The steps whose undo must wait for one that cannot be undone now.
    fn held(&self) -> Vec<usize> {
        let mut held: Vec<usize> = Vec::new();
        for (index, step) in self.steps.iter().enumerate().rev() {
            if step.status == StepStatus::UndoFailed || held.contains(&index) {
                held.extend(step.planned.rests_on.iter().map(|below| usize::from(*below)));
            }
        }
        held
    }

    /// What the step that failed last failed of.
    fn latest_error(&self) -> Option<Failure> {
        let failed = self.steps.iter().filter(|step| step.status == StepStatus::Failed);
        failed.max_by_key(|step| step.finished_at).and_then(|step| step.error.clone())
    }

    fn stuck(&self) -> Event {
        let names = |status: StepStatus| -> Vec<&str> {
            let steps = self.steps.iter().filter(|step| step.status == status);
            steps.map(|step| step.planned.name.as_str()).collect()
        };
        let unknown = names(StepStatus::Unknown);
        let left = names(StepStatus::UndoFailed);
        let message = if unknown.is_empty() {
            format!("could not undo: {}", left.join(", "))
        } else {
            format!("cannot tell what became of: {}", unknown.join(", "))
        };
        let mut error = Failure::new(message).code(4);
        let looked_at = self
            .steps
            .iter()
            .find(|step| matches!(step.status, StepStatus::Unknown | StepStatus::UndoFailed));
        if let Some(cause) = looked_at.and_then(|step| step.error.as_ref()) {
            error.cause = Some(cause.to_string());
            error.hint.clone_from(&cause.hint);
        }
        Event::RunStuck { error }
    }

    /// What follows on the failure for good of the step at `index`: backward, or a stop. Where all effects are done
    /// and only what has none remains, as when files cannot be cleaned up, nothing is thrown away for it.
    pub fn after_failure(&self, index: usize, error: &Failure) -> Event {
        let only_rest = self.steps.iter().skip(index).all(|step| step.planned.effect == Effect::None);
        let touched = self.steps.iter().any(|step| {
            step.planned.effect != Effect::None && step.intent.is_some() && step.status != StepStatus::Undone
        });
        let keep = touched && (only_rest || self.started.on_failure == OnFailure::Keep);
        if keep || self.cannot_be_undone().is_some() {
            return Event::RunStopped { cause: StopCause::Failure, error: Some(error.clone()) };
        }
        Event::RollbackStarted { cause: RollbackCause::Failure, reason: error.message.clone() }
    }

    /// The step that took effect and that nobody can take back, when there is one.
    pub fn cannot_be_undone(&self) -> Option<&StepRecord> {
        let mut steps = self.steps.iter();
        steps.find(|step| step.planned.effect == Effect::Final && step.status == StepStatus::Succeeded)
    }

    /// The step that the run is at, when it is at one.
    pub fn current(&self) -> Option<&StepRecord> {
        let at_work = |step: &&StepRecord| {
            matches!(step.status, StepStatus::Running | StepStatus::Undoing) || step.reset
        };
        self.steps.iter().find(at_work).or_else(|| {
            self.steps.iter().find(|step| !matches!(step.status, StepStatus::Succeeded | StepStatus::Skipped))
        })
    }

    /// Steps that need nothing more going forward.
    pub fn steps_done(&self) -> usize {
        let done = |step: &&StepRecord| matches!(step.status, StepStatus::Succeeded | StepStatus::Skipped);
        self.steps.iter().filter(done).count()
    }

    /// The step named `name`, with its index.
    pub fn step(&self, name: &str) -> Option<(usize, &StepRecord)> {
        self.steps.iter().enumerate().find(|(_, step)| step.planned.name == name)
    }
}

impl StepRecord {
    fn pending(planned: PlannedStep) -> StepRecord {
        StepRecord {
            planned,
            status: StepStatus::Pending,
            attempts: 0,
            undo_attempts: 0,
            intent: None,
            outcome: None,
            parts: BTreeMap::new(),
            children: Vec::new(),
            error: None,
            skipped: None,
            reset: false,
            started_at: None,
            finished_at: None,
        }
    }

    /// Whether it may have left something behind that is not known to be absent.
    pub fn needs_undo(&self) -> bool {
        let by_status = matches!(
            self.status,
            StepStatus::Running
                | StepStatus::Succeeded
                | StepStatus::Failed
                | StepStatus::Undoing
                | StepStatus::Unknown
        );
        by_status && self.intent.is_some()
    }

    fn end(&mut self, status: StepStatus, at: Timestamp) {
        self.status = status;
        self.finished_at = Some(at);
    }

    fn undone(&mut self, at: Timestamp) {
        if self.reset {
            self.reset = false;
            self.intent = None;
            self.outcome = None;
            self.parts.clear();
            self.end(StepStatus::Pending, at);
        } else {
            self.end(StepStatus::Undone, at);
        }
    }

    /// What could not be told or undone before is looked at anew.
    fn look_again(&mut self) {
        if matches!(self.status, StepStatus::Unknown | StepStatus::UndoFailed) {
            self.status = StepStatus::Failed;
        }
    }

    fn resolve(&mut self, verdict: Verdict, at: Timestamp) {
        match verdict {
            Verdict::Applied => {
                self.outcome = self.outcome.take().or_else(|| self.intent.clone());
                self.end(StepStatus::Succeeded, at);
            }
            Verdict::Absent => {
                self.intent = None;
                self.reset = false;
                self.end(StepStatus::Pending, at);
            }
            Verdict::Undone => self.undone(at),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for StepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
