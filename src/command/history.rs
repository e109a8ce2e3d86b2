//! `history`: which runs there are. It reads, and never holds up a command at work.

use clap::Args;
use journal::clock::{Clock as _, SystemClock};
use journal::query::{Shown, Summary};
use journal::run::Run;
use journal::step::Progress;
use journal::store::{Known, Store};

use super::App;
use super::filter::Filter;
use super::runs::{self, Pages, Unreadable};
use crate::error::{Error, ExitCode};
use crate::report::{self, Line};

/// `history`.
#[derive(Debug, Args)]
pub struct History {
    #[command(flatten)]
    filter: Filter,
    /// No more runs than this
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

impl History {
    /// Lists the runs.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let query = self.filter.query(app, Some(self.limit))?;
        let store = app.store(self.filter.dbname.as_deref())?;
        let mut lines = Vec::new();
        let mut pages = Pages::of(&*store, query);
        while let Some(page) = pages.next().await? {
            for (summary, known) in page {
                lines.push(line(app, &*store, summary, &known).await?);
            }
        }
        report::history(&lines, SystemClock.now(), app.style);
        app.tell_notices(&*store);
        Ok(ExitCode::DONE)
    }
}

async fn line(
    app: &App,
    store: &dyn Store,
    summary: Summary,
    Known { events, held }: &Known,
) -> Result<Line, Error> {
    let run = match runs::fold(events) {
        Ok(run) => Some(run),
        Err(Unreadable::Newer { .. }) => None,
        Err(Unreadable::Broken(why)) => {
            app.style.warn(&format!("run {} cannot be read: {why}", summary.id.short()));
            None
        }
    };
    let shown = Shown::of(run.as_ref().map(|run| run.status), *held);
    let progress = match &run {
        Some(run) => progress(store, run, *held).await?,
        None => None,
    };
    Ok(Line { summary, run, shown, progress })
}

/// How far the step of a run at work is, when its owner shows that.
pub(super) async fn progress(store: &dyn Store, run: &Run, held: bool) -> Result<Option<Progress>, Error> {
    if !held || !run.status.is_moving() {
        return Ok(None);
    }
    let shown = store.progress(run.id).await?;
    Ok(shown.filter(|shown| run.current().is_some_and(|step| step.planned.name == shown.step)))
}

impl App {
    /// Tells what the store had to mend.
    pub(super) fn tell_notices(&self, store: &dyn Store) {
        for notice in store.take_notices() {
            self.style.warn(&notice);
        }
    }
}
