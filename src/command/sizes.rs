//! `dbsize` and `dbsizes`: how large copies are, as `pg_database_size` counts.

use clap::Args;
use regex::Regex;
use tokio::task::JoinSet;

use super::databases::{Existing, existing};
use super::{App, Typed};
use crate::database::DateWord;
use crate::error::{Error, ExitCode};
use crate::report::{Cell, Column, Listing, size};

/// `dbsize`.
#[derive(Debug, Args)]
pub struct Dbsize {
    /// Section of the configuration
    dbname: String,
    /// YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active [default: active]
    date: Option<String>,
}

/// `dbsizes`.
#[derive(Debug, Args)]
#[group(id = "sections", required = true, multiple = false)]
pub struct Dbsizes {
    /// Sections of the configuration
    dbname: Vec<String>,
    /// All sections
    #[arg(long)]
    all: bool,
    /// The sections whose name this regular expression finds something in
    #[arg(long = "match", value_name = "REGEX")]
    matching: Option<Regex>,
}

impl Dbsize {
    /// Shows the size of the copy.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let typed = Typed::new("dbsize", &[Some(&self.dbname), self.date.as_deref()]);
        let (copy, bytes) = app
            .ask(Some(&self.dbname), typed, async {
                let settings = app.copy(&target, self.date.as_deref(), DateWord::Active).await?;
                let found =
                    existing(&settings).await?.into_iter().find(|copy| copy.name == settings.database);
                let missing = || app.no_copy(&target, &settings.database);
                let copy = found.ok_or_else(missing)?;
                let bytes = copy.bytes.ok_or_else(missing)?;
                Ok((copy, bytes))
            })
            .await?;
        let columns =
            vec![Column::new("name", "NAME"), Column::new("date", "DATE"), Column::new("bytes", "SIZE")];
        let rows = vec![vec![Cell::Text(copy.name), Cell::Date(copy.date), Cell::Bytes(bytes)]];
        Listing { command: "dbsize", columns, rows }.print_as(&size(bytes), app.style);
        Ok(ExitCode::DONE)
    }
}

impl Dbsizes {
    /// Shows the sizes of all copies of the sections, and what they come to.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let sections = self.sections(app)?;
        let mut rows = Vec::new();
        let asked = app
            .ask(None, self.typed(), async {
                let (found, failed) = ask_all(app, &sections).await;
                rows = found;
                failed.map_or(Ok(()), Err)
            })
            .await;
        if asked.is_err() && rows.is_empty() {
            return asked.map(|()| ExitCode::DONE);
        }
        print(app, &rows);
        Ok(app.incomplete(asked))
    }

    fn typed(&self) -> Typed {
        let mut arguments = self.dbname.clone();
        arguments.extend(self.all.then(|| "--all".to_owned()));
        arguments.extend(self.matching.iter().map(|regex| format!("--match={regex}")));
        Typed { name: "dbsizes".to_owned(), arguments }
    }

    /// In the order of the file.
    fn sections(&self, app: &App) -> Result<Vec<String>, Error> {
        let config = app.config()?;
        for name in &self.dbname {
            if !app.has_section(name) {
                app.target(name)?;
            }
        }
        let wanted = |section: &&str| match &self.matching {
            Some(regex) => regex.is_match(section),
            None => self.all || self.dbname.iter().any(|name| name == section),
        };
        let sections: Vec<String> = config.sections().filter(wanted).map(str::to_owned).collect();
        if sections.is_empty() {
            let of =
                self.matching.as_ref().map(|regex| format!(" that '{regex}' matches")).unwrap_or_default();
            return Err(Error::new(
                ExitCode::MISSING,
                format!("{}: no section{of}", config.path().display()),
            )
            .hint("pg_staging databases lists the sections"));
        }
        Ok(sections)
    }
}

/// The copies of each section, and an error when some could not be asked for; each of those is told.
async fn ask_all(app: &App, sections: &[String]) -> (Vec<(String, Existing)>, Option<Error>) {
    let mut asked = JoinSet::new();
    for (at, section) in sections.iter().enumerate() {
        let settings = app.target(section).map(|target| app.place(&target));
        asked.spawn(async move { (at, async { existing(&settings?).await }.await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for (section, (_, answer)) in sections.iter().zip(answers) {
        match answer {
            Ok(copies) => found.extend(copies.into_iter().map(|copy| (section.clone(), copy))),
            Err(error) => failed.push((section, error)),
        }
    }
    let causes: Vec<String> = failed.iter().map(|(section, error)| format!("{section}: {error}")).collect();
    let error = (!failed.is_empty()).then(|| {
        let what = format!("{} of {} sections could not be asked", failed.len(), sections.len());
        let hint = failed.into_iter().find_map(|(_, error)| error.hint);
        Error { hint, ..Error::new(ExitCode::FAILED, what).because(causes.join("\n")) }
    });
    (found, error)
}

fn print(app: &App, found: &[(String, Existing)]) {
    let row = |(section, copy): &(String, Existing)| {
        vec![
            Cell::Text(section.clone()),
            Cell::Text(copy.name.clone()),
            Cell::Date(copy.date),
            Cell::maybe(copy.bytes, Cell::Bytes),
        ]
    };
    let mut rows: Vec<Vec<Cell>> = found.iter().map(row).collect();
    // Scripts add up what they like.
    if !app.style.json {
        let total = found.iter().filter_map(|(_, copy)| copy.bytes).fold(0, u64::saturating_add);
        rows.push(vec![Cell::Text("total".to_owned()), Cell::Nothing, Cell::Nothing, Cell::Bytes(total)]);
    }
    let columns = vec![
        Column::new("section", "SECTION"),
        Column::new("name", "NAME"),
        Column::new("date", "DATE"),
        Column::new("bytes", "SIZE"),
    ];
    Listing { command: "dbsizes", columns, rows }.print(app.style);
}
