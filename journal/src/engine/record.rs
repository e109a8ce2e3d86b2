//! The pen: makes an envelope around each fact, has it stored, moves the fold on, tells the listeners.

use std::sync::Arc;

use super::{Engine, EngineError, decode_all};
use crate::clock::Clock;
use crate::codec::{self, CodecError};
use crate::event::{Actor, Envelope, Event, Failure, Hash, RunId, RunStarted};
use crate::query::Query;
use crate::run::{FoldError, Run, Status};
use crate::step::{Listener, Progress};
use crate::store::{Lease, Log, Store, StoreError};

/// Why a fact was not recorded. Nothing may be done to the world after that.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The fact cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The fact cannot follow on what came before.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// An earlier fact was not recorded, and nobody knows what of it is durable.
    #[error("an earlier event could not be recorded: {0}")]
    Earlier(String),
}

impl RecordError {
    /// As the failure of the step that wanted to record something.
    pub fn into_failure(self) -> Failure {
        Failure::new("the journal cannot be written").because(self.chain())
    }

    /// The error with all its causes.
    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut inner = std::error::Error::source(self);
        while let Some(error) = inner {
            text = format!("{text}: {error}");
            inner = error.source();
        }
        text
    }
}

/// Records the facts of one run, as its only owner.
pub struct Recorder {
    log: Box<dyn Log>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    listener: Arc<dyn Listener>,
    actor: Actor,
    run: Run,
    epoch: u64,
    head: Hash,
    /// Why nothing more may be recorded.
    broken: Option<String>,
}

/// The longest message, cause and hint that are stored, in bytes; a child's whole output is an attachment.
const LONGEST: (usize, usize, usize) = (1_500, 3_000, 1_000);

impl Recorder {
    /// The pen of a new run, whose first event is `first`.
    pub(super) async fn begin(
        engine: &Engine,
        mut log: Box<dyn Log>,
        id: RunId,
        first: RunStarted,
    ) -> Result<Self, RecordError> {
        let envelope = Envelope {
            run: id,
            n: 0,
            id: engine.clock.mint(),
            at: engine.clock.now(),
            epoch: 1,
            actor: engine.actor.clone(),
            prev: Hash::ZERO,
            event: Event::RunStarted(Box::new(first)),
        };
        let bytes = codec::encode(&envelope)?;
        log.append(0, &bytes).await?;
        let recorder = Recorder::with(engine, log, Run::begin(&envelope)?, 1, Hash::of(&bytes));
        recorder.listener.recorded(&recorder.run, &envelope, recorder.head);
        Ok(recorder)
    }

    /// The pen of an existing run, from its `stored` events, as a new owner.
    pub(super) fn resume(
        engine: &Engine,
        log: Box<dyn Log>,
        stored: &[Vec<u8>],
    ) -> Result<Self, EngineError> {
        let run = Run::fold(&decode_all(stored)?)?;
        let head = stored.last().map_or(Hash::ZERO, |bytes| Hash::of(bytes));
        let epoch = run.epoch + 1;
        Ok(Recorder::with(engine, log, run, epoch, head))
    }

    fn with(engine: &Engine, log: Box<dyn Log>, run: Run, epoch: u64, head: Hash) -> Recorder {
        Recorder {
            log,
            store: Arc::clone(&engine.store),
            clock: Arc::clone(&engine.clock),
            listener: Arc::clone(&engine.listener),
            actor: engine.actor.clone(),
            run,
            epoch,
            head,
            broken: None,
        }
    }

    /// Where the run stands.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// How long the run is ours, as far as can be told without asking.
    pub(super) fn lease(&self) -> Lease {
        self.log.lease()
    }

    /// Records `event`: durable, folded and told when this returns without an error. After an error of the store
    /// nothing more is recorded, since what is durable is not known.
    pub async fn record(&mut self, event: Event) -> Result<(), RecordError> {
        if let Some(why) = &self.broken {
            return Err(RecordError::Earlier(why.clone()));
        }
        let envelope = Envelope {
            run: self.run.id,
            n: self.run.next_n,
            id: self.clock.mint(),
            at: self.clock.now(),
            epoch: self.epoch,
            actor: self.actor.clone(),
            prev: self.head,
            event: clipped(event),
        };
        let bytes = codec::encode(&envelope)?;
        // Should the wait for the disk be cut short, what is durable is not known either.
        self.broken = Some("it was cut short".to_owned());
        let appended = self.append(&envelope, &bytes).await;
        self.broken = appended.as_ref().err().map(RecordError::chain);
        appended?;
        self.head = Hash::of(&bytes);
        self.listener.recorded(&self.run, &envelope, self.head);
        Ok(())
    }

    async fn append(&mut self, envelope: &Envelope, bytes: &[u8]) -> Result<(), RecordError> {
        self.log.append(envelope.n, bytes).await?;
        Ok(self.run.apply(envelope)?)
    }

    pub(super) async fn publish(&mut self) -> Result<(), StoreError> {
        self.log.publish().await
    }

    /// Shows others how far a step is.
    pub(crate) fn show(&mut self, progress: &Progress) {
        self.log.show(progress);
    }

    /// What [`Context::precedent`](crate::step::Context::precedent) gives, once it is waited for.
    pub(crate) fn precedent(&self) -> impl Future<Output = Result<Vec<Envelope>, Failure>> + use<> {
        let store = Arc::clone(&self.store);
        let query = Query {
            section: self.run.started.section.clone(),
            command: Some(self.run.started.command.clone()),
            status: Some(Status::Succeeded.as_str().to_owned()),
            limit: Some(1),
            ..Query::default()
        };
        async move {
            let failed = |error| Failure::new("the journal cannot be read").because(error);
            let last = store.look(&query).await.map_err(failed)?.into_iter().next();
            let events = last.map(|(_, known)| known.events).unwrap_or_default();
            Ok(events.iter().filter_map(|stored| codec::decode(&stored.bytes).ok()).collect())
        }
    }

    pub(crate) async fn attach(&self, bytes: &[u8]) -> Result<Hash, Failure> {
        self.store.attach(bytes).await.map_err(|error| RecordError::from(error).into_failure())
    }

    pub(crate) async fn attachment(&self, hash: Hash) -> Result<Vec<u8>, Failure> {
        let failed = |error| Failure::new("the journal cannot be read").because(error);
        self.store.attachment(hash).await.map_err(failed)
    }
}

/// `event` with its free texts cut to what an event has room for.
fn clipped(mut event: Event) -> Event {
    let error = match &mut event {
        Event::StepFailed { error, .. }
        | Event::StepUnknown { error, .. }
        | Event::UndoFailed { error, .. }
        | Event::RunFailed { error }
        | Event::RunStuck { error } => Some(error),
        Event::RunStopped { error, .. } => error.as_mut(),
        Event::StepSkipped { reason, .. }
        | Event::StepsReset { reason, .. }
        | Event::StepResolved { reason, .. }
        | Event::RollbackStarted { reason, .. }
        | Event::RunAbandoned { reason } => {
            clip(reason, LONGEST.1);
            None
        }
        _ => None,
    };
    if let Some(error) = error {
        clip(&mut error.message, LONGEST.0);
        error.cause.iter_mut().for_each(|cause| clip(cause, LONGEST.1));
        error.hint.iter_mut().for_each(|hint| clip(hint, LONGEST.2));
    }
    event
}

fn clip(text: &mut String, longest: usize) {
    if text.len() > longest {
        let mut end = longest;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}
