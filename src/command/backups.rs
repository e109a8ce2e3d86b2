//! `backups`: the dumps that there are, on the backup server or here. Also finds the one that a command means.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use journal::event::Failure;
use url::Url;

use super::{App, Typed, access};
use crate::backup::{self, Backup, DateChoice};
use crate::config::Target;
use crate::database::{DateWord, DumpName};
use crate::error::{Error, ExitCode};
use crate::report::{Cell, Column, Listing};
use crate::world::disk;
use crate::world::web::{Meta, Web};

/// `backups`.
#[derive(Debug, Args)]
pub struct Backups {
    /// Section of the configuration
    dbname: String,
    /// `remote` for those that the backup server lists, `local` for those in tmpdir; or the one of a date: YYYYMMDD,
    /// YYYY-MM-DD, today, yesterday, latest, oldest or active [default: remote]
    #[arg(id = "backup", value_name = "WHICH")]
    which: Option<String>,
}

/// Which dumps are asked for.
enum Which {
    Remote,
    Local,
    One(DateWord),
}

/// A dump as it is listed.
struct Line {
    date: Date,
    name: String,
    bytes: Option<u64>,
    modified: Option<Timestamp>,
    /// As a page has it, which does not name its zone.
    about: Option<String>,
    exact: bool,
    sum: bool,
}

/// Where the dump of a day is.
pub struct Found {
    /// The day.
    pub date: Date,
    /// Its URL, without user and password.
    pub url: Url,
}

impl Backups {
    /// Lists them.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let which = match self.which.as_deref() {
            None | Some("remote") => Which::Remote,
            Some("local") => Which::Local,
            Some(typed) => Which::One(typed.parse()?),
        };
        let typed = Typed::new("backups", &[Some(&self.dbname), self.which.as_deref()]);
        let lines = app.ask(Some(&target.section), typed, lines(app, &target, &which)).await?;
        if lines.is_empty() {
            let where_to_look = match which {
                Which::Local => format!("{} has no dump of {}", target.tmpdir.display(), target.dbname),
                _ => backup::those_there_are(&[], &target.dbname),
            };
            app.style.warn(&where_to_look);
        }
        listing(lines).print(app.style);
        Ok(ExitCode::DONE)
    }
}

/// The folder that lists the dumps of a target, as it may be stored.
pub fn folder(target: &Target) -> String {
    backup::to_store(&access(target).folder())
}

/// A client for the backup server. Tells when others can read what lets us in.
pub fn web(app: &App, target: &Target) -> Result<Web, Error> {
    let access = access(target);
    if let Some(path) = access.loose_token_file() {
        app.style.warn(&format!("others can read the token in {0}: chmod 600 {0}", path.display()));
    }
    access.web().map_err(|error| Failure::from(error).into())
}

/// The dump that a word means: for `latest` and `oldest` among those that are listed, for a day by its name.
pub async fn find(app: &App, web: &Web, target: &Target, word: DateWord) -> Result<Found, Error> {
    match choice(app, target, word).await? {
        DateChoice::Exact(date) => Ok(Found { date, url: by_name(target, date)? }),
        choice => {
            let dumps = listed(web, target).await?;
            let chosen = choose(&dumps, target, choice)?;
            Ok(Found { date: chosen.date, url: chosen.url.clone() })
        }
    }
}

/// What a word means among dumps: `latest` and `oldest` are theirs, another word is a day.
async fn choice(app: &App, target: &Target, word: DateWord) -> Result<DateChoice, Error> {
    Ok(match word {
        DateWord::Latest => DateChoice::Latest,
        DateWord::Oldest => DateChoice::Oldest,
        word => DateChoice::Exact(app.date_of_copy(target, word).await?),
    })
}

/// The dumps that the server lists, oldest first.
pub async fn listed(web: &Web, target: &Target) -> Result<Vec<Backup>, Error> {
    let dumps = web.dumps(&access(target).folder(), &target.dbname).await;
    dumps.map_err(|error| Failure::from(error).into())
}

/// The days whose dumps the server lists.
pub async fn dates(target: &Target) -> Result<Vec<Date>, Error> {
    let web = access(target).web().map_err(Failure::from)?;
    Ok(listed(&web, target).await?.iter().map(|dump| dump.date).collect())
}

/// One of the dumps, or which there are instead.
pub fn choose<'a>(dumps: &'a [Backup], target: &Target, choice: DateChoice) -> Result<&'a Backup, Error> {
    backup::choose(dumps, &target.dbname, choice)
        .map_err(|none| Error::new(ExitCode::MISSING, none.to_string()).hint(none.hint()))
}

/// Where the dump of a day is when it is in the folder itself.
fn by_name(target: &Target, date: Date) -> Result<Url, Error> {
    let mut url = access(target).folder();
    let name = DumpName::new(&target.dbname, date)?.to_string();
    let shown = backup::without_password(&url);
    let not_a_folder = || Error::new(ExitCode::USAGE, format!("{shown} cannot hold dumps"));
    url.set_query(None);
    url.path_segments_mut().map_err(|()| not_a_folder())?.pop_if_empty().push(&name);
    Ok(url)
}

async fn lines(app: &App, target: &Target, which: &Which) -> Result<Vec<Line>, Error> {
    let word = match which {
        Which::Local => return local(target),
        Which::Remote => None,
        Which::One(word) => Some(*word),
    };
    let web = web(app, target)?;
    let mut dumps = listed(&web, target).await?;
    if let Some(word) = word {
        let choice = choice(app, target, word).await?;
        dumps = vec![choose(&dumps, target, choice)?.clone()];
    }
    dumps.reverse();
    told(app, &web, dumps).await
}

/// Asks the server for what its listing does not tell exactly. What it does not say then is as the listing has it.
async fn told(app: &App, web: &Web, dumps: Vec<Backup>) -> Result<Vec<Line>, Error> {
    let unsure = dumps.iter().filter(|dump| !dump.exact).map(|dump| dump.url.clone()).collect();
    let mut heads = web.heads(unsure).await.into_iter();
    let mut silent = None;
    let lines = dumps.into_iter().map(|dump| {
        let head = if dump.exact { None } else { heads.next() };
        let meta = match head {
            Some(Ok(meta)) => Some(meta),
            Some(Err(error)) => {
                silent = Some(error);
                None
            }
            None => None,
        };
        Line::of(dump, meta)
    });
    let lines = lines.collect();
    if let Some(error) = silent {
        app.style.warn(&format!("some sizes and times are as the listing has them, rounded: {error}"));
    }
    Ok(lines)
}

impl Line {
    fn of(dump: Backup, meta: Option<Meta>) -> Line {
        let of_page = dump.modified.filter(|_| dump.exact);
        let instant =
            of_page.and_then(|at| at.to_zoned_datetime(TimeZone::UTC).ok()).map(|at| at.timestamp());
        // Of a folder only the contents were looked at.
        let meta = meta.filter(|_| !dump.name.ends_with('/'));
        let length = meta.as_ref().and_then(|meta| meta.length);
        Line {
            date: dump.date,
            name: dump.name,
            bytes: length.or(dump.size_hint),
            modified: meta.and_then(|meta| meta.last_modified).or(instant),
            about: dump.modified.map(|at| at.strftime("%Y-%m-%d %H:%M").to_string()),
            exact: length.is_some() || dump.exact,
            sum: dump.sha256.is_some(),
        }
    }

    fn cells(self) -> Vec<Cell> {
        let about = self.about.map_or(Cell::Nothing, Cell::Text);
        vec![
            Cell::Date(self.date),
            Cell::Text(self.name),
            Cell::maybe(self.bytes, Cell::Bytes),
            Cell::Flag(self.exact),
            self.modified.map_or(about, Cell::Time),
            Cell::Flag(self.sum),
        ]
    }
}

/// The dumps in tmpdir, newest first.
fn local(target: &Target) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for path in disk::files_with_suffix(&target.tmpdir, "")? {
        let Some((name, date)) = dump_of(target, &path) else { continue };
        let Some((_, length)) = disk::file_at(&path)? else { continue };
        let sum = disk::exists(&disk::with_suffix(&path, ".sha256"));
        let modified = Timestamp::from_second(disk::modified(&path)?).ok();
        lines.push(Line { date, name, bytes: Some(length), modified, about: None, exact: true, sum });
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.date));
    Ok(lines)
}

fn dump_of(target: &Target, path: &Path) -> Option<(String, Date)> {
    let name = PathBuf::from(path.file_name()?).into_os_string().into_string().ok()?;
    let date = DumpName::date_of(&target.dbname, &name)?;
    Some((name, date))
}

fn listing(lines: Vec<Line>) -> Listing {
    Listing {
        command: "backups",
        columns: vec![
            Column::new("date", "DATE"),
            Column::new("name", "NAME"),
            Column::new("bytes", "SIZE"),
            Column::hidden("exact"),
            Column::new("modified", "MODIFIED"),
            Column::hidden("sha256"),
        ],
        rows: lines.into_iter().map(Line::cells).collect(),
    }
}
