//! The one loop that starts, continues and undoes runs: fold the events, decide, announce, act, record, tell.
//!
//! There is no recovery path. A run that was interrupted is folded like any other, and what comes next in it is
//! decided by [`Run::next`]; that its next step was announced before only means that the world is looked at first.

mod question;
mod record;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

pub use self::question::Question;
pub use self::record::{RecordError, Recorder};
use crate::clock::Clock;
use crate::codec::{self, CodecError};
use crate::event::{
    Actor, Detail, Effect, Envelope, Event, Failure, PlannedStep, Process, RollbackCause, RunId, RunStarted,
    StopCause, Verdict,
};
use crate::run::{FoldError, Next, Run, Status, StepStatus};
use crate::step::{Context, Intent, Listener, Observed, Step, StepKinds, Stop};
use crate::store::{Claim, Lease, Store, StoreError};

/// Everything that the loop needs from outside.
pub struct Engine {
    /// Where events go.
    pub store: Arc<dyn Store>,
    /// The code of the steps.
    pub kinds: Arc<dyn StepKinds>,
    /// Time and ids.
    pub clock: Arc<dyn Clock>,
    /// Who hears of events.
    pub listener: Arc<dyn Listener>,
    /// Changes when the run is to stop.
    pub stop: watch::Receiver<Stop>,
    /// Who acts.
    pub actor: Actor,
    /// This process.
    pub process: Process,
    /// This program's version.
    pub version: String,
}

/// Why a run was not begun, or could not be brought to an end that its journal tells of.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store refused: busy, damaged, full. Nothing was done after that.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event could not be written or read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The run's events do not make a run.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The run is in no state for what was asked.
    #[error("run {} is {}: {why}", id.short(), status)]
    Impossible {
        /// Which run.
        id: RunId,
        /// Where it stands.
        status: Status,
        /// Why it cannot be done.
        why: String,
    },
    /// This program has no code for a step that remains.
    #[error("run {} was begun by version {written_by}, and its step '{step}' (kind {kind}, version {version}) is not known to this one", id.short())]
    UnknownKind {
        /// Which run.
        id: RunId,
        /// The step's name.
        step: String,
        /// Its kind.
        kind: String,
        /// The kind's version.
        version: u16,
        /// The version of the program that made the plan.
        written_by: String,
    },
    /// The parameters of a step cannot be used.
    #[error("{0}")]
    Step(Failure),
    /// The journal could not be written while the run was under way; nothing was done after that.
    #[error("run {} was left as it is: the journal cannot be written", id.short())]
    Lost {
        /// Which run.
        id: RunId,
        /// Why.
        #[source]
        source: RecordError,
    },
}

impl From<RecordError> for EngineError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Store(error) => error.into(),
            RecordError::Codec(error) => error.into(),
            RecordError::Fold(error) => error.into(),
            // Only a run that is under way has earlier events.
            RecordError::Earlier(why) => EngineError::Step(Failure::new(why)),
        }
    }
}

/// The shortest and the longest wait before a step is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

impl Engine {
    /// Begins a run and brings it to its end.
    pub async fn start(&self, started: RunStarted) -> Result<Run, EngineError> {
        let id = RunId(self.clock.mint());
        let claim = self.claim(id, &started);
        let steps = self.steps(id, &started.version, &started.plan, &started.settings)?;
        let log = self.store.claim(&claim).await?;
        let recorder = Recorder::begin(self, log, id, started).await?;
        self.drive(recorder, steps).await
    }

    /// Goes on with a run that was interrupted or stopped, in the direction it had.
    pub async fn carry_on(&self, id: RunId) -> Result<Run, EngineError> {
        let allowed = |run: &Run| match run.status {
            status if status.is_finished() => Err("there is nothing to continue".to_owned()),
            _ => Ok(()),
        };
        let (recorder, steps) = self.take_over(id, allowed).await?;
        self.drive(recorder, steps).await
    }

    /// Undoes what a run did, whether it was interrupted or stopped, and `even_if_succeeded` when that is meant.
    pub async fn roll_back(
        &self,
        id: RunId,
        reason: &str,
        even_if_succeeded: bool,
    ) -> Result<Run, EngineError> {
        let allowed = |run: &Run| match run.status {
            Status::Succeeded if !even_if_succeeded => Err("it has finished meanwhile".to_owned()),
            _ => may_be_undone(run),
        };
        let (recorder, steps) = self.take_over(id, allowed).await?;
        let driven = Driven::new(self, recorder, steps);
        driven.settle_final_step().await?;
        let run = driven.run().await;
        may_be_undone(&run).map_err(|why| EngineError::Impossible { id, status: run.status, why })?;
        let cause = RollbackCause::Request;
        driven.record(Event::RollbackStarted { cause, reason: reason.to_owned() }).await?;
        driven.drive().await
    }

    /// Records an operator's word on a step whose outcome nobody can observe, or whose undo keeps failing.
    pub async fn resolve(
        &self,
        id: RunId,
        step: &str,
        verdict: Verdict,
        reason: &str,
    ) -> Result<Run, EngineError> {
        let mut recorder = self
            .own(id, |run| {
                let open = |status| {
                    matches!(
                        status,
                        StepStatus::Unknown
                            | StepStatus::UndoFailed
                            | StepStatus::Failed
                            | StepStatus::Running
                    )
                };
                match run.step(step) {
                    None => Err(format!("it has no step '{step}'")),
                    Some((_, record)) if !open(record.status) => {
                        Err(format!("its step '{step}' is {}", record.status))
                    }
                    Some(_) if run.status.is_finished() => Err("it is finished".to_owned()),
                    Some(_) => Ok(()),
                }
            })
            .await?;
        let index =
            recorder.run().step(step).and_then(|(index, _)| u16::try_from(index).ok()).unwrap_or_default();
        recorder.record(Event::StepResolved { step: index, verdict, reason: reason.to_owned() }).await?;
        self.close(recorder).await
    }

    /// Closes a run that will be neither continued nor undone.
    pub async fn abandon(&self, id: RunId, reason: &str) -> Result<Run, EngineError> {
        let mut recorder = self
            .own(id, |run| if run.status.is_finished() { Err("it is finished".to_owned()) } else { Ok(()) })
            .await?;
        recorder.record(Event::RunAbandoned { reason: reason.to_owned() }).await?;
        self.close(recorder).await
    }

    fn claim(&self, id: RunId, started: &RunStarted) -> Claim {
        Claim {
            run: id.to_string(),
            target: started.target.clone(),
            actor: self.actor.clone(),
            since: self.clock.now(),
            command: started.command_line(),
        }
    }

    /// Becomes the owner of a run, if `allowed` says so both before and after nobody else can change it.
    async fn own(
        &self,
        id: RunId,
        allowed: impl Fn(&Run) -> Result<(), String>,
    ) -> Result<Recorder, EngineError> {
        let check =
            |run: &Run| allowed(run).map_err(|why| EngineError::Impossible { id, status: run.status, why });
        let seen = Run::fold(&decode_all(&self.store.load(id).await?)?)?;
        check(&seen)?;
        let log = self.store.claim(&self.claim(id, &seen.started)).await?;
        let recorder = Recorder::resume(self, log, &self.store.load(id).await?)?;
        check(recorder.run())?;
        Ok(recorder)
    }

    async fn take_over(
        &self,
        id: RunId,
        allowed: impl Fn(&Run) -> Result<(), String>,
    ) -> Result<(Recorder, Vec<Box<dyn Step>>), EngineError> {
        let mut recorder = self.own(id, allowed).await?;
        let started = &recorder.run().started;
        let steps = self.steps(id, &started.version, &started.plan, &started.settings)?;
        let version = self.version.clone();
        recorder.record(Event::RunContinued { version, process: self.process.clone() }).await?;
        Ok((recorder, steps))
    }

    fn steps(
        &self,
        id: RunId,
        written_by: &str,
        plan: &[PlannedStep],
        settings: &Detail,
    ) -> Result<Vec<Box<dyn Step>>, EngineError> {
        let step = |planned: &PlannedStep| {
            self.kinds.step(planned, settings).map_err(EngineError::Step)?.ok_or_else(|| {
                EngineError::UnknownKind {
                    id,
                    step: planned.name.clone(),
                    kind: planned.kind.clone(),
                    version: planned.version,
                    written_by: written_by.to_owned(),
                }
            })
        };
        plan.iter().map(step).collect()
    }

    async fn drive(&self, recorder: Recorder, steps: Vec<Box<dyn Step>>) -> Result<Run, EngineError> {
        Driven::new(self, recorder, steps).drive().await
    }

    async fn close(&self, recorder: Recorder) -> Result<Run, EngineError> {
        let driven = Driven::new(self, recorder, Vec::new());
        self.publish(&driven.recorder).await;
        Ok(driven.run().await)
    }

    /// What is durable in the run's own log is safe; that it cannot be queried yet is worth telling, no more.
    async fn publish(&self, recorder: &Mutex<Recorder>) {
        if let Err(error) = recorder.lock().await.publish().await {
            self.listener.warned(&format!("the journal cannot be queried for this run yet: {error}"));
        }
        for notice in self.store.take_notices() {
            self.listener.warned(&notice);
        }
    }

    fn stop_signal(&self) -> Option<u8> {
        match *self.stop.borrow() {
            Stop::No => None,
            Stop::Soon(signal) | Stop::Now(signal) => Some(signal),
        }
    }
}

/// The events in `stored`, decoded.
pub fn decode_all(stored: &[Vec<u8>]) -> Result<Vec<Envelope>, CodecError> {
    stored.iter().map(|bytes| codec::decode(bytes)).collect()
}

/// Whether what a run did can be taken back, or why not.
fn may_be_undone(run: &Run) -> Result<(), String> {
    if let Some(step) = run.cannot_be_undone() {
        return Err(format!("its step '{}' took effect and cannot be taken back", step.planned.name));
    }
    match run.status {
        Status::Failed | Status::RolledBack => Err("what it did is undone already".to_owned()),
        Status::Abandoned => Err("it was closed by an operator".to_owned()),
        _ if run.started.read_only => Err("it changed nothing".to_owned()),
        _ => Ok(()),
    }
}

/// A run under way.
struct Driven<'e> {
    engine: &'e Engine,
    id: RunId,
    lease: Lease,
    recorder: Mutex<Recorder>,
    steps: Vec<Box<dyn Step>>,
    /// How long each step has been waited for, to be tried again.
    waited: Mutex<HashMap<usize, Duration>>,
}

/// What came of something that may be cut short: by a request to stop at once, or because the run is not ours any more.
enum Came<T> {
    Out(T),
    Cut(u8),
    Lost,
}

impl<'e> Driven<'e> {
    fn new(engine: &'e Engine, recorder: Recorder, steps: Vec<Box<dyn Step>>) -> Driven<'e> {
        let (id, lease) = (recorder.run().id, recorder.lease());
        Driven { engine, id, lease, recorder: Mutex::new(recorder), steps, waited: Mutex::default() }
    }

    async fn drive(self) -> Result<Run, EngineError> {
        self.engine.publish(&self.recorder).await;
        let ended = self.to_the_end().await;
        self.engine.publish(&self.recorder).await;
        ended?;
        Ok(self.run().await)
    }

    async fn to_the_end(&self) -> Result<(), EngineError> {
        loop {
            let next = self.recorder.lock().await.run().next();
            if let (Some(signal), Next::Do(_) | Next::Observe(_) | Next::Undo(_)) =
                (self.engine.stop_signal(), &next)
            {
                return self.stopped(signal).await;
            }
            match next {
                Next::Rest => return Ok(()),
                Next::Finish(event) => self.record(event).await?,
                Next::Do(index) => self.act(index).await?,
                Next::Observe(index) => self.observe(index).await?,
                Next::Undo(index) => self.undo(index).await?,
            }
        }
    }

    async fn act(&self, index: usize) -> Result<(), EngineError> {
        let (at, step) = (self.context(index).await?, self.step(index)?);
        let attempt = self.run().await.steps.get(index).map_or(0, |step| step.attempts) + 1;
        let intent = match self.unless_cut(step.intend(&at)).await {
            Came::Cut(signal) => return self.stopped(signal).await,
            Came::Lost => return Err(self.lost()),
            Came::Out(Err(failure)) => return self.failed(index, attempt, failure).await,
            Came::Out(Ok(Intent::Again { steps, reason })) => {
                let run = self.run().await;
                let named = steps.iter().filter_map(|name| run.step(name)).map(|(index, _)| number(index));
                return self.record(Event::StepsReset { steps: named.collect(), reason }).await;
            }
            Came::Out(Ok(Intent::Skip(reason))) => {
                return self.record(Event::StepSkipped { step: at.index, reason }).await;
            }
            Came::Out(Ok(Intent::Do(intent))) => intent,
        };
        self.record(Event::StepStarted { step: at.index, attempt, intent: intent.clone() }).await?;
        match self.unless_cut(step.act(&at, &intent)).await {
            Came::Cut(signal) => self.stopped(signal).await,
            Came::Lost => Err(self.lost()),
            Came::Out(Ok(outcome)) => {
                self.record(Event::StepSucceeded { step: at.index, outcome, observed: false }).await
            }
            Came::Out(Err(failure)) => self.failed(index, attempt, failure).await,
        }
    }

    async fn observe(&self, index: usize) -> Result<(), EngineError> {
        let (at, step) = (self.context(index).await?, self.step(index)?);
        let run = self.run().await;
        let Some(record) = run.steps.get(index) else {
            return Ok(());
        };
        let intent = record.intent.clone().unwrap_or_default();
        let failure = match self.unless_cut(step.observe(&at, &intent)).await {
            Came::Cut(signal) => return self.stopped(signal).await,
            Came::Lost => return Err(self.lost()),
            Came::Out(Ok(Observed::Absent)) => return self.act(index).await,
            Came::Out(Ok(Observed::Done(outcome))) => {
                return self.record(Event::StepSucceeded { step: at.index, outcome, observed: true }).await;
            }
            Came::Out(Ok(Observed::Partial(reason))) => {
                let steps = record.planned.redo_with.iter().copied().chain([at.index]).collect();
                return self.record(Event::StepsReset { steps, reason }).await;
            }
            Came::Out(Ok(Observed::Unknown(failure))) => failure,
            Came::Out(Err(failure)) if failure.stopped => return self.stopped_by_step(failure).await,
            Came::Out(Err(failure)) if failure.transient => {
                return self.cannot_look(index, record.attempts, failure).await;
            }
            Came::Out(Err(failure)) => failure,
        };
        self.record(Event::StepUnknown { step: at.index, error: failure }).await
    }

    async fn undo(&self, index: usize) -> Result<(), EngineError> {
        let (at, step) = (self.context(index).await?, self.step(index)?);
        let run = self.run().await;
        let Some(record) = run.steps.get(index) else {
            return Ok(());
        };
        let intent = record.intent.clone().unwrap_or_default();
        let mut attempt = record.undo_attempts;
        loop {
            attempt += 1;
            self.record(Event::UndoStarted { step: at.index, attempt }).await?;
            let failure = match self.unless_cut(step.undo(&at, &intent)).await {
                Came::Cut(signal) => return self.stopped(signal).await,
                Came::Lost => return Err(self.lost()),
                Came::Out(Ok(outcome)) => {
                    return self.record(Event::UndoSucceeded { step: at.index, outcome }).await;
                }
                Came::Out(Err(failure)) if failure.stopped => return self.stopped_by_step(failure).await,
                Came::Out(Err(failure)) => failure,
            };
            let wait = self.wait_for(index, &failure).await;
            let retry_in_ms = wait.map(millis);
            self.record(Event::UndoFailed { step: at.index, attempt, error: failure, retry_in_ms }).await?;
            match wait {
                None => return Ok(()),
                Some(wait) => {
                    if let Some(signal) = self.sleep(wait).await {
                        return self.stopped(signal).await;
                    }
                }
            }
        }
    }

    /// After a failed attempt: another one later, or what the run does on failure.
    async fn failed(&self, index: usize, attempt: u32, failure: Failure) -> Result<(), EngineError> {
        if failure.stopped {
            return self.stopped_by_step(failure).await;
        }
        let step = number(index);
        let wait = self.wait_for(index, &failure).await;
        let retry_in_ms = wait.map(millis);
        self.record(Event::StepFailed { step, attempt, error: failure.clone(), retry_in_ms }).await?;
        if let Some(wait) = wait {
            return match self.sleep(wait).await {
                Some(signal) => self.stopped(signal).await,
                None => Ok(()),
            };
        }
        let run = self.run().await;
        let record = run.steps.get(index);
        if record.is_some_and(|step| step.planned.effect == Effect::Final && step.intent.is_some()) {
            self.settle(index).await?;
            if self.run().await.steps.get(index).is_some_and(|step| step.status != StepStatus::Failed) {
                return Ok(());
            }
        }
        let event = self.run().await.after_failure(index, &failure);
        self.record(event).await
    }

    /// Records what became of an announced step that cannot be taken back, as far as that can be seen.
    async fn settle(&self, index: usize) -> Result<(), EngineError> {
        let (at, step) = (self.context(index).await?, self.step(index)?);
        let run = self.run().await;
        let intent = run.steps.get(index).and_then(|step| step.intent.clone()).unwrap_or_default();
        let event = match step.observe(&at, &intent).await {
            Ok(Observed::Absent) => return Ok(()),
            Ok(Observed::Done(outcome)) => Event::StepSucceeded { step: at.index, outcome, observed: true },
            Ok(Observed::Partial(reason)) => {
                Event::StepUnknown { step: at.index, error: Failure::new(reason).code(4) }
            }
            Ok(Observed::Unknown(error)) | Err(error) => Event::StepUnknown { step: at.index, error },
        };
        self.record(event).await
    }

    /// Before going backward: what cannot be taken back and was announced is looked at.
    async fn settle_final_step(&self) -> Result<(), EngineError> {
        let open = |step: &crate::run::StepRecord| {
            step.planned.effect == Effect::Final && step.needs_undo() && step.status != StepStatus::Succeeded
        };
        match self.run().await.steps.iter().position(open) {
            Some(index) => self.settle(index).await,
            None => Ok(()),
        }
    }

    /// The world cannot be looked at for now: wait, and in the end leave everything as it is.
    async fn cannot_look(&self, index: usize, attempt: u32, failure: Failure) -> Result<(), EngineError> {
        let wait = self.wait_for(index, &failure).await;
        let retry_in_ms = wait.map(millis);
        let error = failure.clone();
        self.record(Event::StepFailed { step: number(index), attempt, error, retry_in_ms }).await?;
        match wait {
            None => {
                let error = Some(failure);
                self.record(Event::RunStopped { cause: StopCause::Failure, error }).await
            }
            Some(wait) => match self.sleep(wait).await {
                Some(signal) => self.stopped(signal).await,
                None => Ok(()),
            },
        }
    }

    /// How long to wait before another attempt; `None` when there will be none. Waits grow by doubling, are moved by
    /// up to a quarter either way so that many controllers do not come back at once, and end at the run's limit.
    async fn wait_for(&self, index: usize, failure: &Failure) -> Option<Duration> {
        if !failure.transient {
            return None;
        }
        let limit = Duration::from_millis(self.run().await.started.retry_limit_ms);
        let mut all = self.waited.lock().await;
        let waited = all.entry(index).or_default();
        let doubled = (FIRST_WAIT + *waited).min(LONGEST_WAIT);
        let [.., random] = self.engine.clock.mint().into_bytes();
        let moved = doubled * (96 + u32::from(random) / 4) / 128;
        let wait = moved.max(Duration::from_millis(failure.retry_after_ms.unwrap_or_default()));
        if *waited + wait > limit {
            return None;
        }
        *waited += wait;
        Some(wait)
    }

    /// Waits, or returns the signal that cut the wait short.
    async fn sleep(&self, wait: Duration) -> Option<u8> {
        let mut stop = self.engine.stop.clone();
        tokio::select! {
            () = self.engine.clock.sleep(wait) => None,
            signal = stop_asked(&mut stop, false) => Some(signal),
        }
    }

    /// What came of `work`, unless the run is asked to stop at once before, or is lost. Whether it is lost is looked at
    /// before each time that work goes on.
    async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> Came<T> {
        let mut stop = self.engine.stop.clone();
        tokio::select! {
            biased;
            () = self.lease.lost() => Came::Lost,
            out = work => Came::Out(out),
            signal = stop_asked(&mut stop, true) => Came::Cut(signal),
        }
    }

    /// The error of a run that is not ours any more.
    fn lost(&self) -> EngineError {
        EngineError::Lost { id: self.id, source: StoreError::Fenced(self.id).into() }
    }

    async fn stopped(&self, signal: u8) -> Result<(), EngineError> {
        self.record(Event::RunStopped { cause: StopCause::Signal(signal), error: None }).await
    }

    async fn stopped_by_step(&self, failure: Failure) -> Result<(), EngineError> {
        match self.engine.stop_signal() {
            Some(signal) => self.stopped(signal).await,
            None => self.record(Event::RunStopped { cause: StopCause::Failure, error: Some(failure) }).await,
        }
    }

    async fn record(&self, event: Event) -> Result<(), EngineError> {
        let mut recorder = self.recorder.lock().await;
        let id = recorder.run().id;
        recorder.record(event).await.map_err(|source| EngineError::Lost { id, source })
    }

    async fn run(&self) -> Run {
        self.recorder.lock().await.run().clone()
    }

    fn step(&self, index: usize) -> Result<&dyn Step, EngineError> {
        self.steps
            .get(index)
            .map(|step| &**step)
            .ok_or_else(|| EngineError::Step(Failure::new(format!("the plan has no step {index}"))))
    }

    async fn context(&self, index: usize) -> Result<Context<'_>, EngineError> {
        let recorder = self.recorder.lock().await;
        let record = recorder.run().steps.get(index);
        let name = record.map(|step| step.planned.name.clone()).unwrap_or_default();
        Ok(Context {
            run: recorder.run().id,
            index: number(index),
            name,
            recorder: &self.recorder,
            listener: &*self.engine.listener,
            stop: self.engine.stop.clone(),
        })
    }
}

/// Resolves with the signal when a stop is asked for: at once, or (unless `now`) soon.
async fn stop_asked(stop: &mut watch::Receiver<Stop>, now: bool) -> u8 {
    let asked = |stop: &Stop| match stop {
        Stop::Now(signal) => Some(*signal),
        Stop::Soon(signal) if !now => Some(*signal),
        _ => None,
    };
    loop {
        if let Some(signal) = asked(&stop.borrow_and_update()) {
            return signal;
        }
        if stop.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn number(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}
