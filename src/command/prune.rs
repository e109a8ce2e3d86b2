//! `journal prune`: which runs may go, and what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use journal::clock::{Clock as _, SystemClock};
use journal::codec;
use journal::event::{Event, RunId, RunStarted};
use journal::query::{Query, Shown, Summary};
use journal::store::{Pruned, Upkeep};

use super::{App, Typed, filter, runs};
use crate::error::{Error, ExitCode};
use crate::report::{self, Cell, Column, Listing};
use crate::step::{Settings, read};

/// `journal prune`.
#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Only runs that began longer ago than this: 90d, 12w, 36h
    #[arg(long, value_name = "AGE", required_unless_present = "keep_last")]
    older_than: Option<Age>,
    /// Not the newest runs of each section, as many as this; runs that changed nothing are not counted, and not kept
    #[arg(long, value_name = "NUMBER")]
    keep_last: Option<usize>,
}

/// How long ago something was, and as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Age {
    duration: SignedDuration,
    typed: String,
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Age, String> {
        let known = filter::age(text).map(|duration| Age { duration, typed: text.to_owned() });
        known.ok_or_else(|| "an age is a number and s, m, h, d or w, like 90d".to_owned())
    }
}

/// A run that is old enough to go.
struct Candidate {
    summary: Summary,
    /// Why it stays all the same.
    kept: Option<String>,
}

impl Prune {
    /// Takes the runs out of the journal, if that is meant.
    pub(super) async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let Some(store) = app.kept_store_if_there()? else {
            report::done("there is no journal, and so nothing to prune", app.style);
            return Ok(ExitCode::DONE);
        };
        let candidates = self.candidates(app, &*store).await?;
        app.tell_notices(&*store);
        let going: BTreeSet<RunId> =
            candidates.iter().filter(|one| one.kept.is_none()).map(|one| one.summary.id).collect();
        if app.global.dry_run {
            listing(&candidates).print(app.style);
            report::aside(&format!("would prune {}{}", count(going.len()), stay(&candidates)), app.style);
            return Ok(ExitCode::DONE);
        }
        if !going.is_empty() {
            let question =
                format!("Take {} out of the journal for good{}?", count(going.len()), stay(&candidates));
            runs::confirm(app, &question).await?;
        }
        let pruned = app.recorded_change(self.typed(), async { Ok(store.prune(going).await?) }).await?;
        app.tell_notices(&*store);
        let Pruned { runs, attachments } = pruned;
        let message =
            format!("pruned {} and {attachments} attachments{}", count(runs.len()), stay(&candidates));
        report::done(&message, app.style);
        Ok(ExitCode::DONE)
    }

    fn typed(&self) -> Typed {
        let older_than = self.older_than.as_ref().map(|age| format!("--older-than={}", age.typed));
        let keep_last = self.keep_last.map(|number| format!("--keep-last={number}"));
        Typed::new("journal", &[Some("prune"), older_than.as_deref(), keep_last.as_deref()])
    }

    /// The finished runs that are old enough, newest first.
    async fn candidates(&self, app: &App, store: &dyn Upkeep) -> Result<Vec<Candidate>, Error> {
        let all = store.runs(&Query { read_only: true, ..Query::default() }).await?;
        let old = self.old_ones(all, SystemClock.now());
        let mut copies = Copies { app, asked: BTreeMap::new() };
        let mut candidates = Vec::new();
        for summaries in old.chunks(runs::AT_ONCE) {
            let ids: Vec<RunId> = summaries.iter().map(|summary| summary.id).collect();
            for (summary, stored) in summaries.iter().zip(store.read_all(&ids).await?) {
                let first = stored.first().and_then(|stored| codec::decode(&stored.bytes).ok());
                let kept = match first.map(|envelope| envelope.event) {
                    Some(Event::RunStarted(started)) => copies.keep(&started).await,
                    _ => Some("its beginning cannot be read".to_owned()),
                };
                candidates.push(Candidate { summary: summary.clone(), kept });
            }
        }
        Ok(candidates)
    }

    fn old_ones(&self, newest_first: Vec<Summary>, now: Timestamp) -> Vec<Summary> {
        // Nothing is older than the beginning of time.
        let since = self.older_than.as_ref();
        let since = since.map(|age| now.checked_sub(age.duration).unwrap_or(Timestamp::MIN));
        let mut counted: BTreeMap<Option<String>, usize> = BTreeMap::new();
        let mut is_old = |summary: &Summary| {
            let recent = since.is_some_and(|since| summary.started_at >= since);
            if summary.read_only {
                return !recent;
            }
            let place = counted.entry(summary.section.clone()).or_default();
            *place += 1;
            !recent && self.keep_last.is_none_or(|number| *place > number)
        };
        let finished = |summary: &Summary| summary.status.is_some_and(|status| status.is_finished());
        newest_first.into_iter().filter(|summary| is_old(summary) && finished(summary)).collect()
    }
}

/// Which copies there are, asked once for each place. Where a copy is, `inspect --live` is to go on telling where it came
/// from.
struct Copies<'a> {
    app: &'a App,
    asked: BTreeMap<(String, u16), Result<BTreeSet<String>, String>>,
}

impl Copies<'_> {
    /// Why the run that began like this has to stay, if it has to.
    async fn keep(&mut self, started: &RunStarted) -> Option<String> {
        let database = started.database.as_ref()?;
        let cannot_tell = |why: &str| Some(format!("cannot tell whether {database} is still there: {why}"));
        let settings = match self.settings(started) {
            Ok(settings) => settings,
            Err(error) => return cannot_tell(&error.to_string()),
        };
        match self.at(&settings).await {
            Ok(there) if there.contains(database) => Some(format!("{database} is still there")),
            Ok(_) => None,
            Err(why) => cannot_tell(why),
        }
    }

    /// Where the section's copies are, or were when the run began and the configuration has that section no more.
    fn settings(&self, started: &RunStarted) -> Result<Settings, Error> {
        match started.section.as_deref().filter(|section| self.app.has_section(section)) {
            Some(section) => Ok(self.app.place(&self.app.target(section)?)),
            None => Ok(read(&started.settings)?),
        }
    }

    async fn at(&mut self, settings: &Settings) -> &Result<BTreeSet<String>, String> {
        let place = (settings.host.clone(), settings.postgres_port);
        let there = match self.asked.remove(&place) {
            Some(there) => there,
            None => names(settings).await.map_err(|error| error.to_string()),
        };
        self.asked.entry(place).or_insert(there)
    }
}

async fn names(settings: &Settings) -> Result<BTreeSet<String>, Error> {
    let (_, session) = settings.reach_postgres().await?;
    let names = session.rows("SELECT datname FROM pg_database").await?;
    Ok(names.into_iter().flatten().flatten().collect())
}

fn listing(candidates: &[Candidate]) -> Listing {
    let row = |Candidate { summary, kept }: &Candidate| {
        vec![
            Cell::Run(summary.id),
            Cell::Time(summary.started_at),
            Cell::Text(summary.user.clone()),
            Cell::Text(summary.command.clone()),
            Cell::maybe(summary.section.clone(), Cell::Text),
            Cell::Text(Shown::of(summary.status, false).as_str().to_owned()),
            Cell::maybe(kept.clone(), Cell::Text),
        ]
    };
    Listing {
        command: "journal",
        columns: vec![
            Column::new("run", "RUN"),
            Column::new("started_at", "STARTED"),
            Column::new("user", "WHO"),
            Column::new("command", "COMMAND"),
            Column::new("section", "SECTION"),
            Column::new("status", "STATUS"),
            Column::new("kept", "KEPT, SINCE"),
        ],
        rows: candidates.iter().map(row).collect(),
    }
}

fn count(runs: usize) -> String {
    if runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") }
}

/// How many stay that are old enough to go, and why the first of them does.
fn stay(candidates: &[Candidate]) -> String {
    let mut kept = candidates.iter().filter_map(|candidate| candidate.kept.as_deref());
    match (kept.next(), kept.count()) {
        (None, _) => String::new(),
        (Some(why), 0) => format!("; 1 as old stays, since {why}"),
        (Some(why), more) => format!("; {} as old stay, one since {why}", more + 1),
    }
}
