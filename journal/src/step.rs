//! What a step is: something that can announce what it will do, do it, be looked at, and be undone.

use std::borrow::Cow;

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};

use crate::engine::Recorder;
use crate::event::{Detail, Envelope, Event, Failure, Hash, PlannedStep, Process, RunId};
use crate::run::Run;

/// One step of a run. All four methods may be called again after a crash at any point within them.
#[async_trait]
pub trait Step: Send + Sync {
    /// Looks at the world and says what [`act`](Step::act) is going to do, with enough in it to observe and undo
    /// that. Changes nothing.
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure>;

    /// Looks whether what `intent` announced is there. Changes nothing, except that programs and connections which
    /// an earlier process left at work on it are ended first.
    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure>;

    /// Does what `intent` announced, and says what came of it.
    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure>;

    /// Makes sure that what `intent` announced is absent, whatever became of it; says what was taken back.
    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure>;
}

/// What a step announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// It will do this.
    Do(Detail),
    /// It has nothing to do, for this reason.
    Skip(String),
    /// What these earlier steps made is gone, and they have to be done again first.
    Again {
        /// Their names.
        steps: Vec<String>,
        /// What is gone.
        reason: String,
    },
}

/// What is there of what a step announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// Nothing, or as much as doing it again builds on: do it.
    Absent,
    /// All of it, with this outcome.
    Done(Detail),
    /// Some of it, in a way that has to be undone before it can be done again; in words.
    Partial(String),
    /// Nobody can tell; what to look at.
    Unknown(Failure),
}

/// Turns planned steps into steps.
pub trait StepKinds: Send + Sync {
    /// The code for `planned` in a run with these `settings`, or `None` when this program has none for its kind and
    /// version.
    fn step(&self, planned: &PlannedStep, settings: &Detail) -> Result<Option<Box<dyn Step>>, Failure>;
}

/// Whether the run has been asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It has not.
    No,
    /// At the next safe point, because of this signal.
    Soon(u8),
    /// At once, because of this signal.
    Now(u8),
}

/// A moving number that is worth showing and not worth recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which run.
    pub run: RunId,
    /// Name of the step.
    pub step: String,
    /// How much is done.
    pub done: u64,
    /// Of how much, when that is known.
    pub total: Option<u64>,
    /// What is counted: `bytes`, `entries`.
    pub unit: Cow<'static, str>,
    /// What the step tells besides, for those who know the step; empty where it tells nothing more.
    pub detail: Detail,
}

/// Hears of every event after it is durable, and of progress.
pub trait Listener: Send + Sync {
    /// `event` was recorded; `run` is where the run stands after it.
    fn recorded(&self, run: &Run, event: &Envelope, hash: Hash);
    /// Something moved.
    fn progressed(&self, progress: &Progress);
    /// Something happened that the run survives and people should know.
    fn warned(&self, warning: &str);
}

/// What a step sees of its run while it is at work.
pub struct Context<'a> {
    pub(crate) run: RunId,
    pub(crate) index: u16,
    pub(crate) name: String,
    pub(crate) recorder: &'a Mutex<Recorder>,
    pub(crate) listener: &'a dyn Listener,
    pub(crate) stop: watch::Receiver<Stop>,
}

impl Context<'_> {
    /// The run's id.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The step's name within the plan.
    pub fn step(&self) -> &str {
        &self.name
    }

    /// Where the run stands now.
    pub async fn snapshot(&self) -> Run {
        self.recorder.lock().await.run().clone()
    }

    /// The outcome of the step named `step`, when it has one.
    pub async fn outcome_of(&self, step: &str) -> Option<Detail> {
        let recorder = self.recorder.lock().await;
        recorder.run().step(step).and_then(|(_, step)| step.outcome.clone())
    }

    /// Records that a part of this step is done; what the part did must be durable before.
    pub async fn part_done(&self, part: &str, detail: Detail) -> Result<(), Failure> {
        self.record(Event::PartDone { step: self.index, part: part.to_owned(), detail }).await
    }

    /// Records that a program was started.
    pub async fn child_started(&self, process: Process, program: &str) -> Result<(), Failure> {
        self.record(Event::ChildStarted { step: self.index, process, program: program.to_owned() }).await
    }

    /// Records how a program ended.
    pub async fn child_ended(&self, pid: u32, ending: &str) -> Result<(), Failure> {
        self.record(Event::ChildEnded { step: self.index, pid, ending: ending.to_owned() }).await
    }

    /// Stores what is too large for an event; returns the name to put into one.
    pub async fn attach(&self, bytes: &[u8]) -> Result<Hash, Failure> {
        self.recorder.lock().await.attach(bytes).await
    }

    /// What was stored under this name.
    pub async fn attachment(&self, hash: Hash) -> Result<Vec<u8>, Failure> {
        self.recorder.lock().await.attachment(hash).await
    }

    /// What was recorded of the last run of the same command on the same section that succeeded, oldest first, as far as
    /// this version can read it; nothing when there was none.
    pub async fn precedent(&self) -> Result<Vec<Envelope>, Failure> {
        // Nothing is recorded, or shown, while the lock is held.
        let asked = self.recorder.lock().await.precedent();
        asked.await
    }

    /// Shows how far this step is.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: &'static str) {
        self.show(done, total, unit, Detail::new());
    }

    /// The same, with what else there is to tell of it.
    pub fn show(&self, done: u64, total: Option<u64>, unit: &'static str, detail: Detail) {
        let step = self.name.clone();
        let progress = Progress { run: self.run, step, done, total, unit: Cow::Borrowed(unit), detail };
        self.listener.progressed(&progress);
        // While an event is recorded there is something better to see.
        if let Ok(mut recorder) = self.recorder.try_lock() {
            recorder.show(&progress);
        }
    }

    /// Tells people of something that the run survives.
    pub fn warn(&self, warning: &str) {
        self.listener.warned(warning);
    }

    /// A receiver that changes when the run is asked to stop.
    pub fn stop(&self) -> watch::Receiver<Stop> {
        self.stop.clone()
    }

    async fn record(&self, event: Event) -> Result<(), Failure> {
        self.recorder.lock().await.record(event).await.map_err(|error| error.into_failure())
    }
}
