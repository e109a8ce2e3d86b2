//! `purge`: takes away what is neither among the newest copies nor in use.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use jiff::Span;
use jiff::civil::Date;
use journal::run::Run;
use journal::store::Store;

use super::{App, Typed, runs};
use crate::config::Target;
use crate::database::{DatedName, to_purge};
use crate::error::{Error, ExitCode};
use crate::plan::{self, Plan};
use crate::report;
use crate::step::choose::{Choice, Dropped, Kept};
use crate::step::create_database::run_that_made;
use crate::step::protection::Protection;

/// `purge`.
#[derive(Debug, Args)]
pub struct Purge {
    /// Section of the configuration
    dbname: String,
}

/// How many copies go in one run: its plan is one event of the journal, which has an end. More take more runs.
const MOST: usize = 10;

/// What there is to know of a copy.
struct Copy {
    name: String,
    oid: u32,
    comment: String,
}

impl Purge {
    /// Takes them away.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        take_away(app, &target).await
    }
}

/// Purges a target.
pub(super) async fn take_away(app: &App, target: &Target) -> Result<ExitCode, Error> {
    let command = Typed::new("purge", &[Some(&target.section)]);
    if app.global.dry_run {
        let store = app.store_if_there(Some(&target.section))?;
        let plan = planned(app, target, store.as_deref()).await?.0;
        report::plan(&plan, &command.name, app.style);
        return Ok(ExitCode::DONE);
    }
    let store: Arc<dyn Store> = app.store(Some(&target.section))?;
    loop {
        let later = Cell::new(0);
        let make = async || {
            let (plan, more) = planned(app, target, Some(&*store)).await?;
            later.set(more);
            Ok(plan)
        };
        let code = app.carry_out_made(Arc::clone(&store), target, command.clone(), make).await?;
        if code != ExitCode::DONE || later.get() == 0 {
            return Ok(code);
        }
    }
}

/// The plan for the copies that are there now, and how many are left for the next one.
async fn planned(app: &App, target: &Target, store: Option<&dyn Store>) -> Result<(Plan, usize), Error> {
    let choice = choose(app, target, store).await?;
    Ok((plan::purge(app.place(target), &choice), choice.later))
}

async fn choose(app: &App, target: &Target, store: Option<&dyn Store>) -> Result<Choice, Error> {
    let copies = copies(app, target).await?;
    let mut in_use = used_by_aliases(app, target, &copies).await?;
    let open = match store {
        Some(store) => runs::open_on(store, &app.place(target).target()).await?,
        None => Vec::new(),
    };
    for (date, copy) in &copies {
        let made_by = run_that_made(&copy.comment);
        let is_at_it = |run: &&Run| {
            run.started.database.as_ref() == Some(&copy.name) || made_by.is_some_and(|id| id == run.id)
        };
        if let Some(run) = open.iter().map(|open| &open.run).find(is_at_it) {
            let why = format!("run {} ({}) is not finished with it", run.id.short(), run.started.command);
            in_use.entry(*date).or_insert(why);
        }
        if let Some(protection) = Protection::of(&copy.comment) {
            in_use.entry(*date).or_insert_with(|| protection.to_string());
        }
    }
    let existing: Vec<Date> = copies.keys().copied().collect();
    let busy: Vec<Date> = in_use.keys().copied().collect();
    let oldest_kept = young_since(app.today(), target.keep_days);
    let mut doomed = to_purge(&existing, &busy, target.keep_bases);
    doomed.retain(|date| *date < oldest_kept);
    let newest = || format!("one of the newest {}", target.keep_bases);
    let keep = copies.iter().filter(|(date, _)| !doomed.contains(date)).map(|(date, copy)| Kept {
        copy: copy.name.clone(),
        why: match in_use.get(date) {
            Some(why) => why.clone(),
            None if *date >= oldest_kept => format!("of the last {} days", target.keep_days),
            None => newest(),
        },
    });
    let gone = doomed.iter().filter_map(|date| copies.get(date));
    let gone = gone.map(|copy| Dropped { copy: copy.name.clone(), oid: copy.oid });
    Ok(Choice {
        drop: gone.take(MOST).collect(),
        keep: keep.collect(),
        later: doomed.len().saturating_sub(MOST),
    })
}

/// The first day whose copies stay whatever their number; none does where `days` is 0.
fn young_since(today: Date, days: usize) -> Date {
    let Some(before) = days.checked_sub(1) else { return Date::MAX };
    let before = i64::try_from(before).ok().and_then(|days| Span::new().try_days(days).ok());
    // Back to where the calendar begins.
    before.map_or(Date::MIN, |before| today.saturating_sub(before))
}

/// All copies, by date.
async fn copies(app: &App, target: &Target) -> Result<BTreeMap<Date, Copy>, Error> {
    let session = app.maintenance(target).await?;
    let sql = "SELECT datname, oid, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database";
    let copy = |row: Vec<Option<String>>| {
        let mut fields = row.into_iter().flatten();
        let (name, oid, comment) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
        Some((DatedName::date_of(&target.dbname, &name)?, Copy { name, oid, comment }))
    };
    Ok(session.rows(sql).await?.into_iter().filter_map(copy).collect())
}

/// Why copies are in use that pgbouncer leads to under another name than their own.
async fn used_by_aliases(
    app: &App,
    target: &Target,
    copies: &BTreeMap<Date, Copy>,
) -> Result<BTreeMap<Date, String>, Error> {
    let port = target.postgres_port.to_string();
    let shown = app.place(target).console().databases().await?;
    let aliases = shown.iter().filter(|alias| alias.name != alias.database && alias.port == port);
    let used = aliases.filter_map(|alias| {
        let (date, _) = copies.iter().find(|(_, copy)| copy.name == alias.database)?;
        Some((*date, format!("{} points at it", alias.name)))
    });
    Ok(used.collect())
}
