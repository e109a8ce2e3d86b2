//! `history` and `inspect`: what there is to know about runs. They read, and never hold up a command at work.

use clap::{Args, ValueEnum};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use journal::clock::{Clock as _, SystemClock};
use journal::codec;
use journal::event::{Envelope, Hash};
use journal::query::{Query, Shown};
use journal::run::Run;
use journal::store::{Store, Stored};

use super::{App, runs};
use crate::error::{Error, ExitCode};
use crate::report::{self, Line, Told};

/// `history`.
#[derive(Debug, Args)]
pub struct History {
    /// Only of this section of the configuration
    dbname: Option<String>,
    /// Only runs with this status
    #[arg(long, value_enum)]
    status: Option<StatusWord>,
    /// Only of this command
    #[arg(long)]
    command: Option<String>,
    /// Only begun at this time or later: a date, today, yesterday, -2h, or RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only begun before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Only of this user
    #[arg(long)]
    actor: Option<String>,
    /// No more runs than this
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Also runs that change nothing
    #[arg(long)]
    all: bool,
}

/// `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A part of the run's id
    run: String,
    /// Also every event
    #[arg(long)]
    events: bool,
}

/// The words for where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum StatusWord {
    Running,
    Succeeded,
    Failed,
    Interrupted,
    Stopped,
    RollingBack,
    RolledBack,
    Stuck,
    Abandoned,
    Unreadable,
}

impl History {
    /// Lists the runs.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let store = app.store(self.dbname.as_deref())?;
        let query = Query {
            section: self.dbname,
            status: self
                .status
                .and_then(|word| word.to_possible_value())
                .map(|word| word.get_name().to_owned()),
            command: self.command,
            user: self.actor,
            since: self.since.as_deref().map(|text| moment(text, app)).transpose()?,
            until: self.until.as_deref().map(|text| moment(text, app)).transpose()?,
            read_only: self.all,
            limit: Some(self.limit),
        };
        let mut lines = Vec::new();
        for summary in store.runs(&query).await? {
            let held = store.is_held(summary.id).await?;
            let run = runs::read(&*store, summary.id).await.ok();
            // Between the two readings the run may have ended: then it is not held, and not interrupted either.
            let shown = Shown::of(run.as_ref().map(|run| run.status), held);
            lines.push(Line { summary, run, shown });
        }
        report::history(&lines, SystemClock.now(), app.style);
        app.tell_notices(&*store);
        Ok(ExitCode::DONE)
    }
}

impl Inspect {
    /// Shows the run.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let store = app.store(None)?;
        let id = runs::find(&*store, &self.run).await?;
        let held = store.is_held(id).await?;
        let stored = store.read(id).await?;
        let events = told(&stored)?;
        let envelopes: Vec<Envelope> = events.iter().map(|told| told.envelope.clone()).collect();
        let run = Run::fold(&envelopes).map_err(|error| Error::new(ExitCode::STUCK, error.to_string()))?;
        let shown = Shown::of(Some(run.status), held);
        let outputs = outputs(&*store, &run).await?;
        report::inspect(&run, shown, &events, &outputs, self.events, SystemClock.now(), app.style);
        app.tell_notices(&*store);
        Ok(ExitCode::DONE)
    }
}

/// The stored events, decoded, with their numbers and hashes.
fn told(stored: &[Stored]) -> Result<Vec<Told>, Error> {
    let tell = |stored: &Stored| {
        Ok(Told { seq: stored.seq, hash: Hash::of(&stored.bytes), envelope: codec::decode(&stored.bytes)? })
    };
    stored.iter().map(tell).collect()
}

/// The last lines of what programs said, by the name of their step.
async fn outputs(store: &dyn Store, run: &Run) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for step in &run.steps {
        let part = step.parts.get("output").or(step.outcome.as_ref());
        let hash = part.and_then(|detail| detail.get("output")).and_then(|value| value.as_str());
        if let Some(hash) = hash.and_then(|hash| hash.parse::<Hash>().ok()) {
            let text = String::from_utf8_lossy(&store.attachment(hash).await?).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let last =
                lines.iter().skip(lines.len().saturating_sub(20)).copied().collect::<Vec<_>>().join("\n");
            found.push((step.planned.name.clone(), last));
        }
    }
    Ok(found)
}

/// A moment as people type it.
fn moment(text: &str, app: &App) -> Result<Timestamp, Error> {
    let start_of =
        |date: Date| date.to_zoned_datetime(TimeZone::system()).map(|zoned| zoned.timestamp()).ok();
    let bad = || {
        Error::new(ExitCode::USAGE, format!("'{text}' is not a time"))
            .hint("type a date (2026-11-21), today, yesterday, an age (-2h, -30m, -7d), or RFC 3339")
    };
    let found = match text {
        "today" => start_of(app.today()),
        "yesterday" => app.today().yesterday().ok().and_then(start_of),
        _ => age(text)
            .and_then(|age| SystemClock.now().checked_sub(age).ok())
            .or_else(|| text.parse::<Timestamp>().ok())
            .or_else(|| text.parse::<Date>().ok().and_then(start_of))
            .or_else(|| Date::strptime("%Y%m%d", text).ok().and_then(start_of)),
    };
    found.ok_or_else(bad)
}

fn age(text: &str) -> Option<SignedDuration> {
    let text = text.strip_prefix('-')?;
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let number: i64 = number.parse().ok()?;
    let hours = match unit {
        "s" => return Some(SignedDuration::from_secs(number)),
        "m" => return Some(SignedDuration::from_mins(number)),
        "h" => number,
        "d" => number.checked_mul(24)?,
        "w" => number.checked_mul(24 * 7)?,
        _ => return None,
    };
    Some(SignedDuration::from_hours(hours))
}

impl App {
    /// Tells what the store had to mend.
    fn tell_notices(&self, store: &dyn Store) {
        for notice in store.take_notices() {
            self.style.warn(&notice);
        }
    }
}
