//! Looks on while a step brings rows here or loads them, and shows how far it is. It is no part of the work: it waits for nobody, asks the
//! server on a session of its own in another database than the workers', no oftener than every second, and what goes wrong
//! with that is told once.

use std::convert::Infallible;
use std::time::Duration;

use journal::clock::{Clock as _, SystemClock};
use journal::event::{Envelope, Event, Failure};
use journal::run::{Run, StepRecord};
use journal::step::Context;
use serde::Deserialize;

use super::board::Board;
use super::{backends, read, write};
use crate::progress::{Learnt, Past};
use crate::world::postgres::{Server, Session};

/// Between two showings.
const SHOWN_EVERY: Duration = Duration::from_millis(500);
/// Between two questions to the server, and before the first one: what is loaded sooner needs none.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// Before the server is asked again that did not answer.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long an answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// What is recorded of a part, as far as later runs learn from it.
#[derive(Deserialize)]
struct Recorded {
    kind: String,
    bytes: u64,
    weight: u64,
    ms: u64,
}

/// Who looks on.
pub(super) struct Lookout<'a, 'c> {
    /// The step.
    pub(super) at: &'a Context<'c>,
    /// Where it is counted.
    pub(super) board: &'a Board,
    /// The sessions that it has, when it has some.
    pub(super) sessions: Option<Sessions<'a>>,
}

/// Sessions on a server.
#[derive(Clone, Copy)]
pub(super) struct Sessions<'a> {
    /// Where they are.
    pub(super) server: &'a Server,
    /// Another database there.
    pub(super) maintdb: &'a str,
    /// What they are called.
    pub(super) application_name: &'a str,
}

impl Lookout<'_, '_> {
    /// Does `work`, and looks on meanwhile.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.look_on() => match never {},
        }
    }

    /// Goes on as long as it is waited for.
    async fn look_on(&self) -> Infallible {
        tokio::select! {
            never = self.show() => never,
            never = self.ask() => never,
            never = self.learn() => never,
        }
    }

    async fn show(&self) -> Infallible {
        loop {
            SystemClock.sleep(SHOWN_EVERY).await;
            let done = self.board.done();
            self.at.show(done.done, done.total, self.board.unit(), write(&self.board.now()));
        }
    }

    async fn ask(&self) -> Infallible {
        let Some(sessions) = self.sessions else { return std::future::pending().await };
        let mut session = None;
        let mut told = false;
        loop {
            SystemClock.sleep(ASKED_EVERY).await;
            let asked = tokio::time::timeout(ANSWERED_WITHIN, self.ask_server(sessions, &mut session)).await;
            let trouble = match asked {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure.to_string(),
                Err(_) => format!("no answer within {} s", ANSWERED_WITHIN.as_secs()),
            };
            session = None;
            self.board.see(Default::default());
            if !std::mem::replace(&mut told, true) {
                self.at
                    .warn(&format!("how far indexes are, and who waits for whom, is not known: {trouble}"));
            }
            SystemClock.sleep(ASKED_AGAIN_AFTER).await;
        }
    }

    async fn ask_server(
        &self,
        Sessions { server, maintdb, application_name }: Sessions<'_>,
        session: &mut Option<Session>,
    ) -> Result<(), Failure> {
        let session = match session {
            Some(session) => session,
            // Where pgbouncer stands between, this one takes no place in the pool of the copy.
            none => none.insert(server.connect(maintdb, application_name).await?),
        };
        self.board.see(backends::ask(session, application_name).await?);
        Ok(())
    }

    async fn learn(&self) -> Infallible {
        SystemClock.sleep(ASKED_EVERY).await;
        match self.at.precedent().await {
            Ok(events) if events.is_empty() => {}
            Ok(events) => self.board.learn(learnt(&events, &self.at.snapshot().await, self.at.step())),
            Err(failure) => {
                self.at.warn(&format!("how long the last restore took is not known: {failure}"));
            }
        }
        std::future::pending().await
    }
}

/// What the events of an earlier run teach about the step of this name in `run`.
fn learnt(events: &[Envelope], run: &Run, step: &str) -> Learnt {
    let Ok(before) = Run::fold(events) else { return Learnt::default() };
    // What was fetched before it was interrupted says nothing of how fast the rest came.
    let resumed = events.iter().rposition(|envelope| matches!(envelope.event, Event::RunContinued { .. }));
    let parts = events.iter().enumerate().filter_map(|(at, envelope)| {
        let Event::PartDone { step: index, part, detail } = &envelope.event else { return None };
        let is_ours = before.steps.get(usize::from(*index)).is_some_and(|found| found.planned.name == step);
        let Recorded { kind, bytes, weight, ms } = read(detail).ok().filter(|_| is_ours)?;
        let fetched = if resumed.is_some_and(|resumed| at < resumed) { 0 } else { bytes };
        let ended_ms = u64::try_from(envelope.at.as_millisecond()).unwrap_or_default();
        Some(Past { name: part.clone(), fetched, bytes: weight, builds: kind == "after_rows", ended_ms, ms })
    });
    let mut parts: Vec<Past> = parts.collect();
    if parts.is_empty() {
        parts.extend(before.step(step).and_then(|(_, found)| whole(found)));
    }
    let after = run.step(step).map_or(0, |(index, _)| index + 1);
    let took = |name: &str| before.step(name).and_then(|(_, step)| took(step));
    let following = run.steps.iter().skip(after).filter_map(|step| took(&step.planned.name)).sum();
    Learnt::from_parts(&parts, Some(following))
}

/// A step that was done as a whole, as if it were its only part.
fn whole(step: &StepRecord) -> Option<Past> {
    let bytes = || step.outcome.as_ref()?.get("bytes")?.as_u64();
    Some(Past {
        name: step.planned.name.clone(),
        fetched: bytes().unwrap_or_default(),
        bytes: 0,
        builds: false,
        ended_ms: u64::try_from(step.finished_at?.as_millisecond()).unwrap_or_default(),
        ms: took(step)?,
    })
}

fn took(step: &StepRecord) -> Option<u64> {
    let took = step.finished_at?.duration_since(step.started_at?);
    u64::try_from(took.as_millis()).ok()
}
