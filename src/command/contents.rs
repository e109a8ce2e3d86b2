//! `catalog`, `triggers` and `nodata`: what the table of contents of a dump tells, held against the configuration. Of a
//! dump on the backup server nothing else is fetched.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::civil::Date;
use journal::event::Failure;

use super::restore::rules;
use super::{App, Typed, backups};
use crate::backup;
use crate::config::Target;
use crate::contents::{
    Contents, ContentsError, Entry, Found, Rules, Section, Selection, TOC, filter, trigger_functions,
};
use crate::database::{DateWord, DumpName};
use crate::error::{Error, ExitCode};
use crate::report::{Cell, Column, Listing};
use crate::world::archive::{self, ArchiveError};
use crate::world::web::{Web, WebError};
use crate::world::{disk, files};

/// `catalog`.
#[derive(Debug, Args)]
pub struct Catalog {
    #[command(flatten)]
    dump: Dump,
}

/// `triggers`.
#[derive(Debug, Args)]
pub struct Triggers {
    #[command(flatten)]
    dump: Dump,
}

/// `nodata`.
#[derive(Debug, Args)]
pub struct Nodata {
    #[command(flatten)]
    dump: Dump,
}

/// Which dump.
#[derive(Debug, Args)]
struct Dump {
    /// Section of the configuration
    dbname: String,
    /// A dump on this machine, or a backup by its name or date: YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or
    /// active [default: today's backup, or what default_date says]
    dumpfile: Option<PathBuf>,
}

/// The contents of a dump, and what of them is restored.
struct Chosen {
    contents: Contents,
    selection: Selection,
}

impl Dump {
    fn typed(&self, command: &str) -> Typed {
        let dumpfile = self.dumpfile.as_ref().map(|path| path.to_string_lossy());
        Typed::new(command, &[Some(&self.dbname), dumpfile.as_deref()])
    }

    /// Reads the contents, decides by the rules what is restored, and warns of rules that do nothing.
    async fn choose(&self, app: &App, target: &Target, rules: &Rules) -> Result<Chosen, Error> {
        let contents = self.contents(app, target).await?;
        let selection = filter(&contents, rules);
        selection.warnings.iter().for_each(|warning| app.style.warn(&warning.to_string()));
        Ok(Chosen { contents, selection })
    }

    async fn contents(&self, app: &App, target: &Target) -> Result<Contents, Error> {
        match &self.dumpfile {
            None => of_backup(app, target, target.default_date.into()).await,
            Some(path) if disk::exists(path) => Ok(of_file(path).await.map_err(Failure::from)?),
            Some(path) => match word(target, path) {
                Some(word) => of_backup(app, target, word).await,
                None => Err(Error::new(ExitCode::MISSING, format!("there is no file {}", path.display()))
                    .hint("name a dump made by pg_dump -Fc, or the date of a backup")),
            },
        }
    }
}

/// The day of a backup that is named, or a word for it.
fn word(target: &Target, typed: &Path) -> Option<DateWord> {
    let typed = typed.to_str()?;
    DumpName::date_of(&target.dbname, typed).map(DateWord::Exact).or_else(|| typed.parse().ok())
}

/// The contents of a dump on this machine. Of plain SQL and what is compressed there are none.
async fn of_file(path: &Path) -> Result<Contents, ArchiveError> {
    match archive::local(path) {
        Err(ArchiveError::Unfit { source: ContentsError::NotAnArchive { found }, .. })
            if found == Found::Tar || (found == Found::Folder && disk::exists(&path.join(TOC))) =>
        {
            Ok(files::local(path).await?.contents)
        }
        contents => contents,
    }
}

/// The contents of what is at a URL.
async fn at_url(web: &Web, url: &url::Url) -> Result<Contents, ArchiveError> {
    match archive::remote(web, url, None).await {
        Ok(head) => Ok(head.contents),
        Err(ArchiveError::Unfit { source: ContentsError::NotAnArchive { found }, .. }) => {
            Ok(files::remote(web, url, &web.head(url).await?, found).await?.contents)
        }
        Err(error) => Err(error),
    }
}

/// The contents of a backup on the server. One that is not in the folder itself may be listed elsewhere.
async fn of_backup(app: &App, target: &Target, word: DateWord) -> Result<Contents, Error> {
    let web = backups::web(app, target)?;
    let found = backups::find(app, &web, target, word).await?;
    match at_url(&web, &found.url).await {
        Ok(contents) => Ok(contents),
        Err(ArchiveError::Web(WebError::NotFound { .. } | WebError::Status { code: 403, .. })) => {
            let url = listed(&web, target, found.date).await?;
            Ok(at_url(&web, &url).await.map_err(Failure::from)?)
        }
        Err(error) => Err(Failure::from(error).into()),
    }
}

/// Where the listing has the dump of a day.
async fn listed(web: &Web, target: &Target, date: Date) -> Result<url::Url, Error> {
    let dumps = backups::listed(web, target).await?;
    backups::choose(&dumps, target, backup::DateChoice::Exact(date)).map(|dump| dump.url.clone())
}

impl Catalog {
    /// Prints the list.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dump.dbname)?;
        let asked = async { self.dump.choose(app, &target, &rules(&target)?).await };
        let chosen = app.ask(Some(&target.section), self.dump.typed("catalog"), asked).await?;
        chosen.catalog().print_as(&chosen.selection.list(&chosen.contents), app.style);
        Ok(ExitCode::DONE)
    }
}

impl Triggers {
    /// Lists the functions.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dump.dbname)?;
        let asked = async { self.dump.choose(app, &target, &rules(&target)?).await };
        let chosen = app.ask(Some(&target.section), self.dump.typed("triggers"), asked).await?;
        chosen.triggers().print(app.style);
        Ok(ExitCode::DONE)
    }
}

impl Nodata {
    /// Lists the tables.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dump.dbname)?;
        let rows = app.ask(Some(&target.section), self.dump.typed("nodata"), self.rows(app, &target)).await?;
        let columns = vec![
            Column::hidden("schema"),
            Column::hidden("name"),
            Column::new("table", "TABLE"),
            Column::new("option", "OPTION"),
            Column::new("reason", "REASON"),
        ];
        Listing { command: "nodata", columns, rows }.print(app.style);
        Ok(ExitCode::DONE)
    }

    async fn rows(&self, app: &App, target: &Target) -> Result<Vec<Vec<Cell>>, Error> {
        let rules = rules(target)?;
        match self.dump.choose(app, target, &rules).await {
            Ok(chosen) => Ok(chosen.nodata()),
            Err(error) => {
                if self.dump.dumpfile.is_some() || rules.tables_nodata_named.is_empty() {
                    return Err(error);
                }
                app.style.warn(&format!("only the tables that {} names: {error}", replication(target)));
                Ok(named(&rules))
            }
        }
    }
}

fn replication(target: &Target) -> String {
    target.replication.as_deref().map(|path| path.display().to_string()).unwrap_or_default()
}

/// The tables that the replication file names, whether a dump has them or not.
fn named(rules: &Rules) -> Vec<Vec<Cell>> {
    let cells = |(table, why): (&String, &String)| {
        let (schema, name) = table.split_once('.').unwrap_or(("", table));
        vec![
            Cell::Text(schema.to_owned()),
            Cell::Text(name.to_owned()),
            Cell::Text(table.clone()),
            Cell::Text("replication".to_owned()),
            Cell::Text(format!("rows not wanted: {table} is {why}")),
        ]
    };
    rules.tables_nodata_named.iter().map(cells).collect()
}

impl Chosen {
    fn catalog(&self) -> Listing {
        let reasons = self.selection.reasons();
        let text = |text: &str| match text {
            "" => Cell::Nothing,
            text => Cell::Text(text.to_owned()),
        };
        let row = |entry: &Entry| {
            let reason = reasons.get(&entry.dump_id);
            vec![
                Cell::Count(u64::from(entry.dump_id.unsigned_abs())),
                text(section(&entry.section)),
                text(entry.desc.as_str()),
                text(entry.namespace.as_deref().unwrap_or_default()),
                text(entry.tag.as_deref().unwrap_or_default()),
                text(entry.owner.as_deref().unwrap_or_default()),
                Cell::Flag(reason.is_none()),
                Cell::maybe(reason, |reason| Cell::Text(reason.to_string())),
                Cell::maybe(reason.and_then(|reason| reason.option()), |option| {
                    Cell::Text(option.to_owned())
                }),
            ]
        };
        let keys = ["dump_id", "section", "kind", "schema", "name", "owner", "kept", "reason", "option"];
        Listing {
            command: "catalog",
            columns: keys.into_iter().map(Column::hidden).collect(),
            rows: self.contents.entries().iter().map(row).collect(),
        }
    }

    fn triggers(&self) -> Listing {
        let reasons = self.selection.reasons();
        let rows = trigger_functions(&self.contents).into_iter().map(|used| {
            let reason = reasons.get(&used.dump_id);
            vec![
                Cell::Text(used.function.to_string()),
                Cell::maybe(used.table, |table| Cell::Text(table.to_string())),
                Cell::Text(used.trigger),
                Cell::Flag(reason.is_none()),
                Cell::maybe(reason, |reason| Cell::Text(reason.to_string())),
            ]
        });
        Listing {
            command: "triggers",
            columns: vec![
                Column::new("function", "FUNCTION"),
                Column::new("table", "TABLE"),
                Column::new("trigger", "TRIGGER"),
                Column::new("kept", "RESTORED"),
                Column::new("reason", "REASON"),
            ],
            rows: rows.collect(),
        }
    }

    fn nodata(&self) -> Vec<Vec<Cell>> {
        let tables = self.selection.without_rows(&self.contents).into_iter();
        let cells = tables.map(|(table, reason)| {
            vec![
                Cell::Text(table.schema.clone()),
                Cell::Text(table.name.clone()),
                Cell::Text(table.to_string()),
                Cell::maybe(reason.option(), |option| Cell::Text(option.to_owned())),
                Cell::Text(reason.to_string()),
            ]
        });
        cells.collect()
    }
}

/// A section as pg_dump's `--section` names it.
fn section(section: &Section) -> &'static str {
    match section {
        Section::PreData => "pre-data",
        Section::Data => "data",
        Section::PostData => "post-data",
        Section::None => "none",
    }
}
