//! What `history` and `audit` can be narrowed down by, and the times that people type.

use clap::{Args, ValueEnum};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use journal::clock::{Clock as _, SystemClock};
use journal::query::Query;

use super::App;
use crate::error::{Error, ExitCode};

/// The filters.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only of this section of the configuration
    pub(super) dbname: Option<String>,
    /// Only of runs with this status
    #[arg(long, value_enum)]
    status: Option<StatusWord>,
    /// Only of this command
    #[arg(long)]
    command: Option<String>,
    /// Only from this time on: a date, today, yesterday, -2h, or RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Only of this user
    #[arg(long)]
    actor: Option<String>,
    /// Also of runs that change nothing
    #[arg(long)]
    all: bool,
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

impl Filter {
    /// As the store is asked.
    pub(super) fn query(&self, app: &App, limit: Option<usize>) -> Result<Query, Error> {
        let word = self.status.and_then(|word| word.to_possible_value());
        Ok(Query {
            before: None,
            section: self.dbname.clone(),
            status: word.map(|word| word.get_name().to_owned()),
            command: self.command.clone(),
            user: self.actor.clone(),
            since: self.since.as_deref().map(|text| moment(text, app)).transpose()?,
            until: self.until.as_deref().map(|text| moment(text, app)).transpose()?,
            read_only: self.all,
            limit,
        })
    }
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
        _ => text
            .strip_prefix('-')
            .and_then(age)
            .and_then(|age| SystemClock.now().checked_sub(age).ok())
            .or_else(|| text.parse::<Timestamp>().ok())
            .or_else(|| text.parse::<Date>().ok().and_then(start_of))
            .or_else(|| Date::strptime("%Y%m%d", text).ok().and_then(start_of)),
    };
    found.ok_or_else(bad)
}

/// A number and its unit: `2h`, `90d`.
pub(super) fn age(text: &str) -> Option<SignedDuration> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let number = i64::from(number.parse::<u32>().ok()?);
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
