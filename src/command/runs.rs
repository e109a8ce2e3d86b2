//! `continue` and `rollback`: what works on a run that is there already. Also finds runs by what people type.

use std::sync::Arc;

use clap::Args;
use journal::codec::{self, CodecError};
use journal::event::{Envelope, Event, RunId};
use journal::query::{Query, Shown, Summary};
use journal::run::{Run, Status, StepRecord};
use journal::store::{Known, Store, Stored};

use super::{App, secrets, signals, stopped};
use crate::error::{Error, ExitCode};
use crate::report;
use crate::step::Secrets;
use crate::world::terminal;

/// `continue`.
#[derive(Debug, Args)]
pub struct Continue {
    /// A part of the run's id, or a section of the configuration [default: the one interrupted run there is]
    #[arg(id = "open_run", value_name = "RUN")]
    run: Option<String>,
    /// All interrupted and stopped runs, one after the other, oldest first
    #[arg(long, conflicts_with = "open_run")]
    all: bool,
}

/// `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// A part of the run's id
    run: String,
    /// Even if later runs have worked on the same target since
    #[arg(long)]
    force: bool,
}

impl Continue {
    /// Goes on with the run.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        if self.all {
            return super::continue_all::run(app).await;
        }
        let section = self.run.as_deref().filter(|typed| app.has_section(typed));
        let store = app.store(section)?;
        let id = match (&self.run, section) {
            (_, Some(section)) => open_run(&*store, Some(section)).await?,
            (Some(part), None) => find(&*store, part).await?,
            (None, None) => open_run(&*store, None).await?,
        };
        carry_on(app, store, id).await
    }
}

/// Goes on with this run.
pub(super) async fn carry_on(app: &App, store: Arc<dyn Store>, id: RunId) -> Result<ExitCode, Error> {
    let run = read(&*store, id).await?;
    if app.global.dry_run {
        report::remaining(&run, false, app.style);
        return Ok(ExitCode::DONE);
    }
    let engine = app.engine(store, secrets_of(app, &run))?;
    app.run_engine(&engine, async || engine.carry_on(id).await).await
}

impl Rollback {
    /// Undoes what the run did.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let store = app.store(None)?;
        let id = find(&*store, &self.run).await?;
        let run = read(&*store, id).await?;
        if app.global.dry_run {
            return Ok(would_undo(app, &run));
        }
        let finished = run.status == Status::Succeeded;
        if finished {
            if !self.force {
                none_since(&*store, &run).await?;
            }
            agree(app, &run, "Undo the finished", &what_follows(&run)).await?;
        }
        undo(app, store, &run, "asked for by rollback", finished).await
    }
}

/// Tells what undoing a run would do.
pub(super) fn would_undo(app: &App, run: &Run) -> ExitCode {
    report::remaining(run, true, app.style);
    ExitCode::DONE
}

/// Undoes what a run did, and `even_if_succeeded` when that is meant; `reason` goes into the journal.
pub(super) async fn undo(
    app: &App,
    store: Arc<dyn Store>,
    run: &Run,
    reason: &str,
    even_if_succeeded: bool,
) -> Result<ExitCode, Error> {
    let engine = app.engine(store, secrets_of(app, run))?;
    let ask = async || engine.roll_back(run.id, reason, even_if_succeeded).await;
    let run = app.run_to_its_end(&engine, ask).await?;
    // A run that had failed before stays failed; that it is undone is what was asked for.
    if run.status == Status::Failed {
        report::undone(&run, app.style);
        return Ok(ExitCode::DONE);
    }
    report::ended(&run, app.style);
    Ok(ExitCode::of(&run))
}

/// The run of which `part` is a part of the id.
pub async fn find(store: &dyn Store, part: &str) -> Result<RunId, Error> {
    match store.find(part).await?.as_slice() {
        [id] => Ok(*id),
        ids => Err(not_one(part, ids)),
    }
}

/// The same, with what there is of the run.
pub async fn look_up(store: &dyn Store, part: &str) -> Result<(RunId, Known), Error> {
    store.look_up(part).await?.map_err(|ids| not_one(part, &ids))
}

fn not_one(part: &str, ids: &[RunId]) -> Error {
    if ids.is_empty() {
        return Error::new(ExitCode::MISSING, format!("there is no run '{part}'"))
            .hint("history lists the runs there are");
    }
    let some = ids.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Error::new(ExitCode::USAGE, format!("'{part}' is a part of {} ids", ids.len()))
        .because(some)
        .hint("type more of it")
}

/// How many runs are read in one go.
pub const AT_ONCE: usize = 200;

/// A run as its events tell.
pub async fn read(store: &dyn Store, id: RunId) -> Result<Run, Error> {
    understood(id, &store.read(id).await?)
}

/// The runs that a query asks for, newest first, some at a time.
pub struct Pages<'a> {
    store: &'a dyn Store,
    query: Query,
    left: usize,
}

impl<'a> Pages<'a> {
    /// Of what `query` asks for, up to its limit.
    pub fn of(store: &'a dyn Store, query: Query) -> Pages<'a> {
        let left = query.limit.unwrap_or(usize::MAX);
        Pages { store, query, left }
    }

    /// The next ones, while there are any.
    pub async fn next(&mut self) -> Result<Option<Vec<(Summary, Known)>>, Error> {
        let most = self.left.min(AT_ONCE);
        if most == 0 {
            return Ok(None);
        }
        self.query.limit = Some(most);
        let found = self.store.look(&self.query).await?;
        self.query.before = found.last().map(|(summary, _)| summary.id);
        self.left = if found.len() < most { 0 } else { self.left - most };
        Ok(Some(found))
    }
}

/// The run that stored events tell of, which must be one that this version understands.
pub fn understood(id: RunId, stored: &[Stored]) -> Result<Run, Error> {
    fold(stored).map_err(|why| match why {
        Unreadable::Newer { by, why } => cannot_read(id, by.as_deref(), &why),
        Unreadable::Broken(why) => {
            Error::new(ExitCode::STUCK, format!("run {} cannot be read", id.short())).because(why)
        }
    })
}

/// Why events do not make a run that this version understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// A newer version wrote some of them.
    Newer {
        /// Which, when it says so in an event that can be read.
        by: Option<String>,
        /// What cannot be read.
        why: String,
    },
    /// They are not what was written.
    Broken(String),
}

/// The run that stored events tell of.
pub fn fold(stored: &[Stored]) -> Result<Run, Unreadable> {
    let mut events: Vec<Envelope> = Vec::new();
    let mut newer = None;
    for (n, stored) in stored.iter().enumerate() {
        match codec::decode(&stored.bytes) {
            Ok(envelope) => events.push(envelope),
            // What comes after it may still tell who wrote it.
            Err(CodecError::Newer(what)) => {
                newer = newer.or(Some(format!("event {n}: {}", what.trim_start_matches("event "))));
            }
            Err(error) => return Err(Unreadable::Broken(format!("event {n}: {error}"))),
        }
    }
    if let Some(why) = newer {
        let by = events.iter().rev().find_map(|envelope| match &envelope.event {
            Event::RunStarted(started) => Some(started.version.clone()),
            Event::RunContinued { version, .. } => Some(version.clone()),
            _ => None,
        });
        return Err(Unreadable::Newer { by, why });
    }
    Run::fold(&events).map_err(|error| Unreadable::Broken(error.to_string()))
}

/// The error where an event that has to be understood is not; `by` is the version of whoever wrote it, where that is
/// known.
pub fn cannot_read(id: RunId, by: Option<&str>, why: &str) -> Error {
    let short = id.short();
    // What this version began may have been gone on with by one that does not tell.
    let other = by.filter(|version| *version != env!("CARGO_PKG_VERSION"));
    let writer = other.map_or_else(|| "a newer version".to_owned(), |version| format!("version {version}"));
    let known = env!("CARGO_PKG_VERSION");
    Error::new(
        ExitCode::USAGE,
        format!(
            "run {short} was written by {writer} of pg_staging, and cannot be read by this one ({known})"
        ),
    )
    .because(why)
    .hint(format!("use that version; pg_staging inspect {short} tells what can be told by this one"))
}

/// The newest runs that changed something, or of them those that are not finished: the id that people type, and what
/// it stands for.
pub async fn newest(app: &App, limit: usize, open: bool) -> Result<Vec<(String, String)>, Error> {
    let store = app.store(None)?;
    let query = Query { limit: (!open).then_some(limit), ..Query::default() };
    let wanted = |summary: &Summary| !open || summary.status.is_some_and(|status| !status.is_finished());
    let summaries: Vec<Summary> =
        store.runs(&query).await?.into_iter().filter(wanted).take(limit.min(AT_ONCE)).collect();
    let ids: Vec<RunId> = summaries.iter().map(|summary| summary.id).collect();
    let named = ids.iter().zip(store.known(&ids).await?).map(|(id, known)| {
        let run = understood(*id, &known.events)?;
        let (id, shown) = (id.short(), Shown::of(Some(run.status), known.held));
        Ok((id.clone(), format!("{id}  {} ({})", run.started.command_line(), shown.as_str())))
    });
    named.collect()
}

/// A run that can still be continued.
pub struct Open {
    /// The run.
    pub run: Run,
    /// Whether a process is at work on it.
    pub held: bool,
}

/// The runs on a target that can still be continued, oldest first.
pub async fn open_on(store: &dyn Store, target: &str) -> Result<Vec<Open>, Error> {
    let mut open = Vec::new();
    for status in ["running", "rolling_back", "interrupted", "stopped", "stuck"] {
        let query = Query { status: Some(status.to_owned()), ..Query::default() };
        let mut pages = Pages::of(store, query);
        while let Some(page) = pages.next().await? {
            for (summary, Known { events, held }) in page {
                let run = understood(summary.id, &events)?;
                if run.started.target.as_deref() == Some(target) {
                    open.push(Open { run, held });
                }
            }
        }
    }
    open.sort_by_key(|open| open.run.id);
    Ok(open)
}

/// The one run, of a section or at all, that waits to be continued.
async fn open_run(store: &dyn Store, section: Option<&str>) -> Result<RunId, Error> {
    let query = Query { section: section.map(str::to_owned), ..Query::default() };
    let mut open = Vec::new();
    for summary in store.runs(&query).await? {
        let Some(status) = summary.status else { continue };
        let waits = matches!(status, Status::Stopped | Status::Stuck)
            || (status.is_moving() && !store.is_held(summary.id).await?);
        if waits {
            open.push(summary);
        }
    }
    let of = section.map(|section| format!(" of {section}")).unwrap_or_default();
    match open.as_slice() {
        [one] => Ok(one.id),
        [] => Err(Error::new(ExitCode::MISSING, format!("no run{of} waits to be continued"))
            .hint("history lists the runs there are")),
        many => {
            let named = |summary: &Summary| {
                let shown = Shown::of(summary.status, false).as_str();
                format!(
                    "{} ({} {}, {shown})",
                    summary.id.short(),
                    summary.command,
                    summary.section.as_deref().unwrap_or_default()
                )
            };
            Err(Error::new(ExitCode::USAGE, format!("{} runs{of} wait to be continued", many.len()))
                .because(many.iter().map(named).collect::<Vec<_>>().join(", "))
                .hint("name one: pg_staging continue <run>"))
        }
    }
}

/// Taking an older copy away under a newer state of the target is hardly meant.
async fn none_since(store: &dyn Store, run: &Run) -> Result<(), Error> {
    let query =
        Query { section: run.started.section.clone(), since: Some(run.started_at), ..Query::default() };
    let later = store.runs(&query).await?.into_iter().find(|summary| {
        summary.id != run.id && !matches!(summary.status, Some(Status::Failed | Status::RolledBack))
    });
    match later {
        None => Ok(()),
        Some(later) => Err(Error::new(
            ExitCode::FAILED,
            format!(
                "run {} is not the last one on its target: {} {} came after it",
                run.id.short(),
                later.command,
                later.id.short()
            ),
        )
        .hint("roll that one back first, or add --force")),
    }
}

/// What undoing a run leads to, the last first.
fn what_follows(run: &Run) -> String {
    let follows = |step: &StepRecord| match step.planned.kind.as_str() {
        "switch" => Some("the alias goes back"),
        "create_database" => Some("the copy goes"),
        "start_service" => Some("the service is stopped"),
        "stop_service" => Some("the service is started"),
        "publish" => Some("the dump goes"),
        "pause" => Some("clients go on"),
        _ => None,
    };
    let undone = run.steps.iter().rev().filter(|step| step.needs_undo());
    let all: Vec<&str> = undone.filter_map(follows).collect();
    if all.is_empty() { "what it did is undone".to_owned() } else { all.join(", and ") }
}

/// What cannot be gone back on is done only when somebody means it: `verb` the run, and what that leads to.
pub async fn agree(app: &App, run: &Run, verb: &str, then: &str) -> Result<(), Error> {
    let name = run.started.command_line();
    confirm(app, &format!("{verb} {name} (run {})? Then {then}.", run.id.short())).await
}

/// Goes on only when somebody agrees, on the command line or on the terminal.
pub async fn confirm(app: &App, question: &str) -> Result<(), Error> {
    if app.global.yes {
        return Ok(());
    }
    let refused = |why: &str| {
        Err(Error::new(ExitCode::USAGE, format!("{why}: {question}")).hint("add --yes if this is meant"))
    };
    if !terminal::is_attended() {
        return refused("there is nobody to ask");
    }
    report::text::ask(&format!("{question} [y/N] "));
    let answer = tokio::select! {
        biased;
        answer = terminal::answer() => answer?,
        signal = signals::wait(app.signals()?.stop_at_once(), |_| true) => return Err(stopped(signal)),
    };
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => refused("nothing was done"),
    }
}

/// What the journal must not hold comes from the configuration as it is now; a run that needs none does without.
fn secrets_of(app: &App, run: &Run) -> Secrets {
    let section = run.started.section.as_deref().filter(|section| app.has_section(section));
    section.and_then(|section| app.target(section).ok()).map(|target| secrets(&target)).unwrap_or_default()
}
