//! `inspect`: all there is to know of one run, or of what an alias leads to. It reads, and never holds up a command at
//! work.

use clap::Args;
use journal::clock::{Clock as _, SystemClock};
use journal::event::{Hash, RunId};
use journal::query::Shown;
use journal::run::Run;
use journal::store::{Known, Store, StoreError, Stored};

use super::runs::{self, Unreadable};
use super::{App, history, live};
use crate::error::{Error, ExitCode};
use crate::report::{self, Entry, Inspected, Unread};

/// `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A part of the run's id
    #[arg(required_unless_present = "live")]
    run: Option<String>,
    /// Also every event
    #[arg(long)]
    events: bool,
    /// Instead of a run: which copy and which backup are behind the alias of this section now, by whom and since when
    #[arg(long, value_name = "DBNAME", conflicts_with_all = ["run", "events"])]
    live: Option<String>,
}

impl Inspect {
    /// Shows the run, or what the alias leads to.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        if let Some(section) = self.live {
            return live::show(app, &section).await;
        }
        let store = app.store(None)?;
        let (id, known) = runs::look_up(&*store, &self.run.unwrap_or_default()).await?;
        match runs::fold(&known.events) {
            Ok(run) => show(app, &*store, &run, &known, self.events).await?,
            Err(why) => show_unread(app, id, &known.events, why),
        }
        app.tell_notices(&*store);
        Ok(ExitCode::DONE)
    }
}

async fn show(
    app: &App,
    store: &dyn Store,
    run: &Run,
    Known { events, held }: &Known,
    all_events: bool,
) -> Result<(), Error> {
    let events = entries(run.id, events, Some(run));
    let inspected = Inspected {
        run,
        shown: Shown::of(Some(run.status), *held),
        progress: history::progress(store, run, *held).await?,
        outputs: outputs(app, store, run).await?,
        events: &events,
    };
    report::inspect(&inspected, all_events, SystemClock.now(), app.style);
    Ok(())
}

/// What the envelopes alone tell.
fn show_unread(app: &App, id: RunId, stored: &[Stored], why: Unreadable) {
    let events = entries(id, stored, None);
    let (written_by, why) = match why {
        Unreadable::Newer { by, why } => (by, why),
        Unreadable::Broken(why) => (None, why),
    };
    report::inspect_unread(&Unread { id, written_by, why, events: &events }, app.style);
}

fn entries(id: RunId, stored: &[Stored], run: Option<&Run>) -> Vec<Entry> {
    let steps = run.map(|run| run.started.plan.as_slice()).unwrap_or_default();
    (0..).zip(stored).map(|(n, stored)| Entry::of(stored.seq, id, n, &stored.bytes, steps)).collect()
}

/// The last lines of what programs said, by the name of their step.
async fn outputs(app: &App, store: &dyn Store, run: &Run) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for step in &run.steps {
        let part = step.parts.get("output").or(step.outcome.as_ref());
        let hash = part.and_then(|detail| detail.get("output")).and_then(|value| value.as_str());
        let Some(hash) = hash.and_then(|hash| hash.parse::<Hash>().ok()) else { continue };
        let name = &step.planned.name;
        let bytes = match store.attachment(hash).await {
            Ok(bytes) => bytes,
            // The rest of the run is worth being seen.
            Err(error @ (StoreError::NoSuchAttachment(_) | StoreError::Damaged { .. })) => {
                app.style.warn(&format!("what {name} said cannot be shown: {error}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(20)).copied().collect::<Vec<_>>().join("\n");
        found.push((name.clone(), last));
    }
    Ok(found)
}
