//! `on_interrupted`: what a restore does first about runs on its target that nobody is at work on any more.

use std::sync::Arc;

use journal::query::Shown;
use journal::run::{Run, Status};
use journal::store::Store;

use super::newer::backup_of;
use super::{App, runs};
use crate::config::{OnInterrupted, Target};
use crate::error::{Error, ExitCode};
use crate::step::Settings;

/// Finishes, undoes or tells of what was interrupted, oldest first. There is an exit code when nothing is left for the
/// restore: what it would make of the backup at `url` is made, or something has to be done about an older run first.
pub(super) async fn settle(
    app: &App,
    target: &Target,
    settings: &Settings,
    url: &str,
) -> Result<Option<ExitCode>, Error> {
    let Some(store) = app.store_if_there(Some(&target.section))? else { return Ok(None) };
    let mut made = None;
    for run in interrupted(&*store, &settings.target()).await? {
        let code = match target.on_interrupted {
            OnInterrupted::Ask => {
                tell(app, &run);
                continue;
            }
            // A purge that has dropped something cannot be gone back on, and is continued.
            OnInterrupted::Rollback if run.cannot_be_undone().is_none() => {
                if app.global.dry_run {
                    runs::would_undo(app, &run)
                } else {
                    let reason = "on_interrupted = rollback, before another restore";
                    runs::undo(app, Arc::clone(&store), &run, reason, false).await?
                }
            }
            OnInterrupted::Rollback | OnInterrupted::Continue => {
                runs::carry_on(app, Arc::clone(&store), run.id).await?
            }
        };
        match code {
            ExitCode::DONE if is_made(&runs::read(&*store, run.id).await?, settings, url)? => {
                made = Some(code);
            }
            // What failed is undone as well, and in nobody's way.
            ExitCode::DONE | ExitCode::FAILED | ExitCode::MISSING => {}
            code => return Ok(Some(code)),
        }
    }
    Ok(made)
}

/// Those whose process is gone, and those that a signal stopped. What failed and was kept is kept for somebody to look at.
async fn interrupted(store: &dyn Store, target: &str) -> Result<Vec<Run>, Error> {
    let open = runs::open_on(store, target).await?.into_iter();
    let waits = |run: &Run| run.status.is_moving() || run.status == Status::Stopped && run.signal.is_some();
    Ok(open.filter(|open| !open.held && waits(&open.run)).map(|open| open.run).collect())
}

fn tell(app: &App, run: &Run) {
    let (id, command) = (run.id.short(), run.started.command_line());
    let shown = Shown::of(Some(run.status), false).as_str();
    app.style.warn(&format!(
        "run {id} ({command}) is {shown}: pg_staging continue {id}, or pg_staging rollback {id}; on_interrupted in the \
         configuration does either of them"
    ));
}

/// Whether a run has made what the restore would make.
fn is_made(run: &Run, settings: &Settings, url: &str) -> Result<bool, Error> {
    let same_copy = run.started.database.as_ref() == Some(&settings.database);
    let finished = run.status == Status::Succeeded && run.started.command == "restore";
    Ok(finished && same_copy && backup_of(run)?.is_some_and(|backup| backup.url == url))
}
