//! `continue --all`: every run that waits for it, as after a reboot.

use std::sync::Arc;

use journal::query::{Query, Summary};
use journal::run::Status;
use journal::step::Stop;
use journal::store::Store;

use super::{App, runs};
use crate::error::{Error, ExitCode};
use crate::report;

/// Goes on with all interrupted and stopped runs, oldest first. One that cannot be finished does not keep the others
/// from it; the exit code is that of the first which was not.
pub(super) async fn run(app: &App) -> Result<ExitCode, Error> {
    let store = app.store(None)?;
    let waiting = waiting(app, &*store).await?;
    if waiting.is_empty() {
        report::done("no run waits to be continued", app.style);
        return Ok(ExitCode::DONE);
    }
    let stop = app.stop()?;
    let mut first_bad = None;
    for summary in &waiting {
        if let Stop::Soon(signal) | Stop::Now(signal) = *stop.borrow() {
            return Ok(ExitCode(128 + signal));
        }
        let code = one(app, &store, summary).await;
        if code != ExitCode::DONE {
            first_bad = first_bad.or(Some(code));
        }
    }
    Ok(first_bad.unwrap_or(ExitCode::DONE))
}

/// Those that wait, oldest first. Of what cannot be read nobody can say whether it does.
async fn waiting(app: &App, store: &dyn Store) -> Result<Vec<Summary>, Error> {
    let mut waiting = Vec::new();
    for summary in store.runs(&Query::default()).await? {
        match summary.status {
            Some(Status::Stopped) => waiting.push(summary),
            Some(status) if status.is_moving() && !store.is_held(summary.id).await? => waiting.push(summary),
            None => app.style.warn(&format!(
                "run {0} cannot be read by this version, and is left alone: pg_staging inspect {0}",
                summary.id.short()
            )),
            Some(_) => {}
        }
    }
    waiting.reverse();
    Ok(waiting)
}

async fn one(app: &App, store: &Arc<dyn Store>, summary: &Summary) -> ExitCode {
    match runs::carry_on(app, Arc::clone(store), summary.id).await {
        Ok(code) => code,
        Err(error) => {
            let section = summary.section.as_deref().unwrap_or_default();
            let name = format!("{} {section} (run {})", summary.command, summary.id.short());
            let message = format!("{name} was not continued: {}", error.message);
            report::error(&Error { message, ..error.clone() }, app.style);
            error.code
        }
    }
}
