//! `follow`: looks on while another process carries a run out. The run's own file is read as it grows, and the database
//! is not opened, so that nothing is held up.

use std::sync::Arc;

use clap::Args;
use journal::codec;
use journal::event::{Hash, RunId};
use journal::query::{Query, Shown};
use journal::run::Run;
use journal::step::{Listener, Progress};
use journal::store::{Seen, Store};

use super::{App, runs};
use crate::error::{Error, ExitCode};
use crate::report;

/// `follow`.
#[derive(Debug, Args)]
pub struct Follow {
    /// A part of the run's id [default: the newest run at work]
    run: Option<String>,
}

impl Follow {
    /// Shows the run as it shows itself, and ends as it does. ^C ends the looking on, and not the run.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let store = app.store(None)?;
        let id = match &self.run {
            Some(part) => runs::find(&*store, part).await?,
            None => newest_at_work(&*store).await?,
        };
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| {
                    Error::new(ExitCode::FAILED, "cannot listen to signals").because(error)
                })?;
                let message = format!("run {} is not followed any more; it goes on", id.short());
                Err(Error::new(ExitCode(130), message))
            }
            ended = follow(app, &*store, id) => ended,
        }
    }
}

async fn newest_at_work(store: &dyn Store) -> Result<RunId, Error> {
    let mut newest = None;
    for word in ["running", "rolling_back"] {
        let query = Query { status: Some(word.to_owned()), limit: Some(1), ..Query::default() };
        newest = newest.max(store.runs(&query).await?.first().map(|summary| summary.id));
    }
    newest.ok_or_else(|| {
        Error::new(ExitCode::MISSING, "no run is at work").hint("history lists the runs there are")
    })
}

async fn follow(app: &App, store: &dyn Store, id: RunId) -> Result<ExitCode, Error> {
    let mut watch = store.watch(id).await?;
    let mut told = Told { listener: report::listener(app.style), run: None };
    loop {
        let seen = watch.next().await?;
        told.tell(id, &seen)?;
        if !seen.held {
            app.tell_notices(store);
            return told.ended(app, id);
        }
    }
}

/// What was told of the run so far.
struct Told {
    listener: Arc<dyn Listener>,
    run: Option<Run>,
}

impl Told {
    fn tell(&mut self, id: RunId, seen: &Seen) -> Result<(), Error> {
        for bytes in &seen.events {
            let envelope =
                codec::decode(bytes).map_err(|error| runs::cannot_read(id, None, &error.to_string()))?;
            let run = match self.run.take() {
                None => Run::begin(&envelope),
                Some(mut run) => run.apply(&envelope).map(|()| run),
            };
            let run = run.map_err(|error| Error::new(ExitCode::STUCK, error.to_string()))?;
            self.listener.recorded(&run, &envelope, Hash::of(bytes));
            self.run = Some(run);
        }
        if let (Some(run), Some(progress)) = (&self.run, &seen.progress) {
            self.progressed(run, progress);
        }
        Ok(())
    }

    fn progressed(&self, run: &Run, progress: &Progress) {
        if run.current().is_some_and(|step| step.planned.name == progress.step) {
            self.listener.progressed(progress);
        }
    }

    /// Nobody is at work on the run any more.
    fn ended(self, app: &App, id: RunId) -> Result<ExitCode, Error> {
        let run = self.run.ok_or_else(|| Error::from(journal::store::StoreError::NoSuchRun(id)))?;
        match Shown::of(Some(run.status), false) {
            Shown::Interrupted => {
                report::interrupted(&run, app.style);
                Ok(ExitCode::STOPPED)
            }
            _ => {
                report::ended(&run, app.style);
                Ok(ExitCode::of(&run))
            }
        }
    }
}
