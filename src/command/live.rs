//! `inspect --live`: what users of an alias get now, and how it came there. pgbouncer tells where the alias leads, the
//! copy's mark which run made it, and the journal the rest; what none of them knows is said to be unknown.

use jiff::Timestamp;
use journal::event::{Actor, Event, RunId, Verdict};
use journal::query::{Query, Shown};
use journal::run::Run;
use journal::store::{Store, StoreError};

use super::runs::{self, Unreadable};
use super::{App, Typed};
use crate::config::Target;
use crate::error::{Error, ExitCode};
use crate::report::{self, AliasNow, Maker, Origin, Switched};
use crate::step::create_database::{Mark, comment_of};
use crate::step::preflight::{Backup, Outcome, Wanted};
use crate::step::{Settings, bouncer, read};
use crate::world::bouncer::Shown as Alias;

/// Looks, and tells.
pub(super) async fn show(app: &App, section: &str) -> Result<ExitCode, Error> {
    let target = app.target(section)?;
    let store = app.store(Some(section))?;
    let typed = Typed::new("inspect", &[Some("--live"), Some(section)]);
    let live = app.ask(Some(section), typed, look(app, &*store, &target)).await?;
    report::alias(&live, app.style);
    app.tell_notices(&*store);
    Ok(ExitCode::DONE)
}

async fn look(app: &App, store: &dyn Store, target: &Target) -> Result<AliasNow, Error> {
    let settings = app.place(target);
    let alias = settings.console().database(&target.dbname).await?.ok_or_else(|| {
        Error::new(
            ExitCode::MISSING,
            format!("pgbouncer on {} has no database {}", target.host, target.dbname),
        )
        .hint(format!("pg_staging switch {} <date> points it at a copy", target.section))
    })?;
    let mut notes = Vec::new();
    let comment = comment(&settings, &alias, &mut notes).await;
    let marked = comment.as_deref().and_then(Mark::run_of);
    let made_by = match marked {
        Some(run) => maker(store, run, &alias.database, &mut notes).await?,
        None => None,
    };
    if let (Some(_), None) = (&comment, marked) {
        notes.push(format!("{} has no mark of pg_staging: it was made by other means", alias.database));
    }
    let switched = match last_switch(store, target).await? {
        Some(last) if last.to.as_deref() == Some(alias.database.as_str()) => Some(last.by),
        Some(Leads { to, by }) => {
            notes.push(format!(
                "the last change of {} in the journal, by run {} at {:.0}, left it at {}: it was pointed at {} by other means",
                alias.name,
                by.run.short(),
                by.at,
                to.as_deref().unwrap_or("nothing"),
                alias.database
            ));
            None
        }
        None => {
            notes.push(format!("no run in the journal has pointed {} anywhere", alias.name));
            None
        }
    };
    let Alias { name, host, port, database, paused, disabled, .. } = alias;
    Ok(AliasNow { alias: name, host, port, database, paused, disabled, marked, made_by, switched, notes })
}

/// The comment of the database that the alias leads to: asked there, by way of the alias itself, and where that does not
/// go, on the section's own server.
async fn comment(settings: &Settings, alias: &Alias, notes: &mut Vec<String>) -> Option<String> {
    let mut ways = Vec::new();
    if !alias.paused && !alias.disabled {
        ways.push((settings.through_pgbouncer(), alias.name.as_str()));
    }
    if alias.port == settings.postgres_port.to_string() {
        ways.push((settings.direct(), settings.maintdb.as_str()));
    }
    let mut why = "pgbouncer lets nobody in".to_owned();
    for (server, database) in ways {
        let asked = async {
            let session = server.connect(database, "pg_staging").await.map_err(Error::from)?;
            comment_of(&session, &alias.database).await.map_err(Error::from)
        };
        match asked.await {
            Ok(Some(comment)) => return Some(comment),
            Ok(None) => why = format!("there is no such database on {}", server.place()),
            Err(error) => why = error.to_string(),
        }
    }
    notes.push(format!("the mark of {} cannot be read: {why}", alias.database));
    None
}

/// The run that made the copy, and what it was made from.
async fn maker(
    store: &dyn Store,
    id: RunId,
    database: &str,
    notes: &mut Vec<String>,
) -> Result<Option<Maker>, Error> {
    let stored = match store.read(id).await {
        Ok(stored) => stored,
        Err(StoreError::NoSuchRun(_)) => {
            notes.push(format!("{database} was made by run {id}, which this journal does not have"));
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    match runs::fold(&stored) {
        Ok(run) => {
            let shown = Shown::of(Some(run.status), store.is_held(id).await?);
            Ok(Some(Maker { origin: origin(&run)?, shown, run }))
        }
        Err(Unreadable::Newer { why, .. } | Unreadable::Broken(why)) => {
            notes.push(format!("{database} was made by run {}, which cannot be read: {why}", id.short()));
            Ok(None)
        }
    }
}

/// What a run made its copy from.
fn origin(run: &Run) -> Result<Origin, Error> {
    let Some((_, step)) = run.step("preflight") else { return Ok(Origin::Nothing) };
    let found = step.outcome.as_ref().map(read::<Outcome>).transpose()?;
    if let Some(backup) = found.and_then(|found| found.backup) {
        let Backup { url, bytes, etag, last_modified_text, sha256, .. } = backup;
        return Ok(Origin::Backup { url, bytes, validator: etag.or(last_modified_text), sha256 });
    }
    let wanted: Wanted = read(&step.planned.parameters)?;
    Ok(wanted.dump.map_or(Origin::Nothing, Origin::Dump))
}

/// Where a run left the alias.
struct Leads {
    to: Option<String>,
    by: Switched,
}

/// The last change of the section's alias that the journal knows. A run that began earlier may have been continued or
/// rolled back later, so all of them are looked at.
async fn last_switch(store: &dyn Store, target: &Target) -> Result<Option<Leads>, Error> {
    let query = Query { section: Some(target.section.clone()), ..Query::default() };
    let mut last: Option<Leads> = None;
    for summaries in store.runs(&query).await?.chunks(runs::AT_ONCE) {
        let ids: Vec<RunId> = summaries.iter().map(|summary| summary.id).collect();
        for stored in store.read_all(&ids).await? {
            let changes = changes(&stored, &target.dbname)?;
            last = changes.into_iter().chain(last).max_by_key(|leads| leads.by.at);
        }
    }
    Ok(last)
}

/// What a run did to the alias. One that this version cannot read counts as far as it can be read.
fn changes(stored: &[journal::store::Stored], alias: &str) -> Result<Vec<Leads>, Error> {
    let mut found = Vec::new();
    let mut run: Option<Run> = None;
    let mut announced: Option<(Timestamp, Actor)> = None;
    for envelope in stored.iter().map_while(|stored| journal::codec::decode(&stored.bytes).ok()) {
        run = match run.take() {
            None => Run::begin(&envelope).ok(),
            Some(mut run) => run.apply(&envelope).ok().map(|()| run),
        };
        let Some(now) = &run else { break };
        let step = envelope.event.step().and_then(|index| now.steps.get(usize::from(index)));
        let Some(step) = step.filter(|step| step.planned.kind == "switch") else { continue };
        let Some(intent) = &step.intent else { continue };
        let change = bouncer::pointed(intent)?;
        if change.name != alias {
            continue;
        }
        let this = (envelope.at, envelope.actor.clone());
        let (to, (at, by)) = match &envelope.event {
            Event::StepStarted { .. } => {
                announced = Some(this);
                continue;
            }
            Event::StepSucceeded { observed: false, .. } => (change.after, this),
            // It had taken effect before it was seen.
            Event::StepSucceeded { .. } | Event::StepResolved { verdict: Verdict::Applied, .. } => {
                (change.after, announced.clone().unwrap_or(this))
            }
            Event::UndoSucceeded { outcome, .. } if outcome.contains_key("back_to") => (change.before, this),
            _ => continue,
        };
        let arguments = now.started.arguments.clone();
        let by = Switched { run: now.id, command: now.started.command.clone(), arguments, at, actor: by };
        found.push(Leads { to, by });
    }
    Ok(found)
}
