//! Runs without steps, which have only a beginning and an end: those that change nothing, or nothing but the journal.

use super::{Engine, EngineError, RecordError, Recorder};
use crate::event::{Event, Failure, RunId, RunStarted};
use crate::run::Run;

/// A run without steps, between its two events.
pub struct Question {
    recorder: Recorder,
}

impl Engine {
    /// Records that something is asked, or done to the journal. `started` has no plan and no target: a plan would not be
    /// run.
    ///
    /// The run is not brought to where it is queried: whoever queries next does that, and a question stays quick.
    pub async fn question(&self, started: RunStarted) -> Result<Question, EngineError> {
        let started = RunStarted { plan: Vec::new(), target: None, ..started };
        let id = RunId(self.clock.mint());
        let log = self.store.claim(&self.claim(id, &started)).await?;
        Ok(Question { recorder: Recorder::begin(self, log, id, started).await? })
    }
}

impl Question {
    /// Records how it ended, and gives the whole run.
    pub async fn answered(mut self, how: Result<(), Failure>) -> Result<Run, RecordError> {
        let event = how.map_or_else(|error| Event::RunFailed { error }, |()| Event::RunSucceeded);
        self.recorder.record(event).await?;
        Ok(self.recorder.run().clone())
    }
}
