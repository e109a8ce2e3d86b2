//! `databases`: the sections of the configuration, or the copies that one of them has.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use journal::event::RunId;

use super::{App, Typed};
use crate::database::DatedName;
use crate::error::{Error, ExitCode};
use crate::report::{Cell, Column, Listing};
use crate::step::Settings;
use crate::step::create_database::Mark;
use crate::step::protection::Protection;
use crate::world::postgres::literal;

/// `databases`.
#[derive(Debug, Args)]
pub struct Databases {
    /// Section whose copies are listed, newest first; without one, the sections are
    dbname: Option<String>,
    /// Only one of the copies
    #[arg(value_enum)]
    which: Option<Which>,
}

/// One end of a list of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// The one with the earliest date.
    Oldest,
    /// The one with the latest date.
    Latest,
}

/// A copy as PostgreSQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Name of the database.
    pub name: String,
    /// The date in it.
    pub date: Date,
    /// Bytes, as `pg_database_size` counts them; `None` for one that is being dropped.
    pub bytes: Option<u64>,
    /// The run that made it, by its mark.
    pub made_by: Option<RunId>,
    /// Why it must not go.
    pub protection: Option<Protection>,
}

impl Databases {
    /// Lists them.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        match &self.dbname {
            None => sections(app),
            Some(section) => self.copies(app, section).await,
        }
    }

    async fn copies(&self, app: &App, section: &str) -> Result<ExitCode, Error> {
        let target = app.target(section)?;
        let settings = app.place(&target);
        let typed = Typed::new("databases", &[Some(section), self.which.map(Which::word)]);
        let mut rows = Vec::new();
        let asked = app.ask(Some(section), typed, async {
            let found = existing(&settings).await?;
            let found = match self.which {
                Some(which) => vec![which.of(found, |copy| copy.date).ok_or_else(|| {
                    Error::new(
                        ExitCode::MISSING,
                        format!("there is no copy of {} on {}", target.dbname, target.host),
                    )
                    .hint(format!("pg_staging restore {section} makes one"))
                })?],
                None => found,
            };
            let active = settings.console().database(&target.dbname).await;
            let points_at =
                active.as_ref().ok().map(|alias| alias.as_ref().map(|alias| alias.database.as_str()));
            rows = found.iter().map(|copy| row(copy, points_at)).collect();
            // The copies are shown all the same.
            active.map(|_| ()).map_err(|trouble| {
                let what = format!("which copy {} points at could not be found out", target.dbname);
                let hint = trouble.hint.clone().unwrap_or_default();
                Error::new(ExitCode::FAILED, what).because(trouble).hint(hint)
            })
        });
        let asked = asked.await;
        if asked.is_err() && rows.is_empty() {
            return asked.map(|()| ExitCode::DONE);
        }
        let columns = vec![
            Column::new("name", "NAME"),
            Column::new("date", "DATE"),
            Column::new("bytes", "SIZE"),
            Column::new("active", "ACTIVE"),
            Column::new("run", "RUN"),
            Column::new("made_at", "MADE"),
            Column::new("protected", "PROTECTED"),
            Column::hidden("protected_until"),
        ];
        Listing { command: "databases", columns, rows }.print(app.style);
        Ok(app.incomplete(asked))
    }
}

impl Which {
    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Which::Oldest => "oldest",
            Which::Latest => "latest",
        }
    }

    /// That one of `all`, by its date.
    pub fn of<T>(self, all: Vec<T>, date: impl Fn(&T) -> Date) -> Option<T> {
        match self {
            Which::Oldest => all.into_iter().min_by_key(date),
            Which::Latest => all.into_iter().max_by_key(date),
        }
    }
}

/// `points_at` is the database that the alias leads to, if any, as far as that is known.
fn row(copy: &Existing, points_at: Option<Option<&str>>) -> Vec<Cell> {
    vec![
        Cell::Text(copy.name.clone()),
        Cell::Date(copy.date),
        Cell::maybe(copy.bytes, Cell::Bytes),
        Cell::maybe(points_at, |database| Cell::Flag(database == Some(copy.name.as_str()))),
        Cell::maybe(copy.made_by, Cell::Run),
        Cell::maybe(copy.made_by.and_then(began), Cell::Time),
        Cell::maybe(copy.protection.as_ref().map(|found| found.reason.clone()), Cell::Text),
        Cell::maybe(copy.protection.as_ref().and_then(|found| found.until), Cell::Date),
    ]
}

/// When a run began: its id is a UUID version 7.
fn began(run: RunId) -> Option<Timestamp> {
    let (seconds, nanoseconds) = run.0.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}

/// The sections in the order of the file; neither the network nor a server is asked. One that cannot be used is listed
/// as far as it can be read.
fn sections(app: &App) -> Result<ExitCode, Error> {
    let config = app.config()?;
    let read = |section: &str, option: &str| {
        let value = config.get(section, option).ok().filter(|value| !value.is_empty());
        Cell::maybe(value, Cell::Text)
    };
    let mut rows = Vec::new();
    for section in config.sections() {
        let fault = app.target(section).err();
        if let Some(fault) = &fault {
            app.style.warn(&fault.to_string());
        }
        rows.push(vec![
            Cell::Text(section.to_owned()),
            read(section, "dbname"),
            read(section, "host"),
            Cell::maybe(fault, |fault| Cell::Text(fault.to_string())),
        ]);
    }
    let columns = vec![
        Column::new("section", "SECTION"),
        Column::new("database", "DATABASE"),
        Column::new("host", "HOST"),
        Column::hidden("fault"),
    ];
    Listing { command: "databases", columns, rows }.print(app.style);
    Ok(ExitCode::DONE)
}

/// The copies of a target, newest first.
pub async fn existing(settings: &Settings) -> Result<Vec<Existing>, Error> {
    let (_, session) = settings.reach_postgres().await?;
    let prefix = format!("{}_", settings.dbname);
    let sql = format!(
        "SELECT datname, pg_database_size(oid), shobj_description(oid, 'pg_database') FROM pg_database WHERE left(datname, {}) = {}",
        prefix.chars().count(),
        literal(&prefix)
    );
    let copy = |row: Vec<Option<String>>| {
        let [name, bytes, comment] = <[Option<String>; 3]>::try_from(row).ok()?;
        let name = name?;
        let date = DatedName::date_of(&settings.dbname, &name)?;
        let bytes = bytes.and_then(|bytes| bytes.parse().ok());
        let comment = comment.unwrap_or_default();
        let (made_by, protection) = (Mark::run_of(&comment), Protection::of(&comment));
        Some(Existing { name, date, bytes, made_by, protection })
    };
    let mut found: Vec<Existing> = session.rows(&sql).await?.into_iter().filter_map(copy).collect();
    found.sort_by_key(|copy| std::cmp::Reverse(copy.date));
    Ok(found)
}
