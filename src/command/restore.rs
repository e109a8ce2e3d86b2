//! `restore`, `load` and `fetch`: what begins with a backup.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, value_parser};
use jiff::civil::Date;
use journal::store::Store;

use super::newer::Candidate;
use super::{App, Typed, absolute, backups, each, leftovers, purge};
use crate::backup::{self, DateChoice};
use crate::config::{Replication, Target, Verify};
use crate::contents::{Packing, Rules, TOC};
use crate::database::{DateWord, DumpName};
use crate::error::{Error, ExitCode};
use crate::plan::{self, Wishes};
use crate::report;
use crate::step::load::Seems;
use crate::world::archive::{self, Form};
use crate::world::disk;
use crate::world::source::Source;

/// `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// Section of the configuration
    #[arg(required = true)]
    dbname: Option<String>,
    /// YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active [default: today, or what default_date says]; or
    /// more sections
    #[arg(id = "backup", value_name = "DATE")]
    date: Vec<String>,
    /// All sections of the configuration
    #[arg(long, conflicts_with = "dbname")]
    all: bool,
    /// The date, for several sections
    #[arg(long = "date", id = "of_all", value_name = "DATE")]
    of_all: Option<String>,
    /// How many sections are restored at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..))]
    jobs: u16,
    /// Do nothing, and end well, when what the alias points at was made of that backup, or of a later date
    #[arg(long)]
    if_newer: bool,
}

/// One restore of those that were asked for.
struct One<'a> {
    section: &'a str,
    date: Option<&'a str>,
    if_newer: bool,
}

/// `load`.
#[derive(Debug, Args)]
pub struct Load {
    /// Section of the configuration
    dbname: String,
    /// A dump made by pg_dump: a file of any of its formats, plain SQL and tar also compressed, or a folder
    filename: PathBuf,
    /// The copy's date, when the file's name does not tell
    #[arg(long)]
    date: Option<String>,
}

/// `fetch`.
#[derive(Debug, Args)]
pub struct Fetch {
    /// Section of the configuration
    dbname: String,
    /// YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active [default: today]
    #[arg(id = "backup", value_name = "DATE")]
    date: Option<String>,
}

impl Restore {
    /// Makes the copies.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let (sections, date) = self.asked_for(app)?;
        let if_newer = self.if_newer;
        if let ([section], false) = (sections.as_slice(), self.all) {
            return One { section, date, if_newer }.run(app).await;
        }
        each::run(app, &sections, usize::from(self.jobs), async |app, section| {
            One { section, date, if_newer }.run(app).await
        })
        .await
    }

    /// The sections, each once, and the date. The second of two words is a date where it can be one; of more words, each
    /// is a section.
    fn asked_for(&self, app: &App) -> Result<(Vec<String>, Option<&str>), Error> {
        if self.all {
            let sections = app.config()?.sections().map(str::to_owned).collect();
            return Ok((sections, self.of_all.as_deref()));
        }
        let mut date = self.of_all.as_deref();
        let is_date = |word: &str| word.parse::<DateWord>().is_ok();
        let mut words: Vec<String> = self.dbname.iter().cloned().collect();
        match self.date.as_slice() {
            [second] if date.is_none() && (is_date(second) || !app.has_section(second)) => {
                date = Some(second);
            }
            more => words.extend(more.iter().cloned()),
        }
        if let [_, _, ..] = words.as_slice()
            && let Some(other) = words.iter().find(|word| !app.has_section(word))
        {
            let code = if is_date(other) { ExitCode::USAGE } else { ExitCode::MISSING };
            return Err(Error::new(code, format!("there is no section {other}"))
                .hint("a date for several sections is given with --date; databases lists the sections"));
        }
        let mut seen = BTreeSet::new();
        words.retain(|section| seen.insert(section.clone()));
        Ok((words, date))
    }
}

impl One<'_> {
    async fn run(&self, app: &App) -> Result<ExitCode, Error> {
        let One { section, date, if_newer } = *self;
        let target = app.target(section)?;
        let default = target.default_date.into();
        let command = Typed::new("restore", &[Some(section), date, if_newer.then_some("--if-newer")]);
        let (date, backup) = wanted_backup(app, &target, date, default).await?;
        let settings = app.settings(&target, date)?;
        let settled = leftovers::settle(app, &target, &settings, &backup).await?;
        let candidate = Candidate::new(app, &target, &settings, date, &backup);
        let listed_at = backups::folder(&target);
        let seems = seems_by_name(&backup);
        let plan =
            |wishes| plan::restore(settings.clone(), Wishes { seems, ..wishes }, backup.clone(), listed_at);
        let code = match settled {
            Some(code) => code,
            None => match with_rules(app, &target, command, if_newer.then_some(&candidate), plan).await? {
                Some(code) => code,
                None => return Ok(ExitCode::DONE),
            },
        };
        let purge = target.purge_after_restore && target.auto_switch && !app.global.dry_run;
        if purge && code == ExitCode::DONE { purge::take_away(app, &target).await } else { Ok(code) }
    }
}

impl Load {
    /// Makes the copy.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let name = self.filename.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let date = match &self.date {
            Some(text) => app.date_of_copy(&target, text.parse()?).await?,
            None => DumpName::date_of(&target.dbname, &name).ok_or_else(|| {
                Error::new(
                    ExitCode::USAGE,
                    format!("the name of {} does not tell a date", self.filename.display()),
                )
                .hint(format!("name it {}.YYYY-MM-DD.dump, or add --date YYYYMMDD", target.dbname))
            })?,
        };
        let dump = absolute(&self.filename)?;
        let settings = app.settings(&target, date)?;
        let typed = self.filename.to_string_lossy().into_owned();
        let command = Typed::new("load", &[Some(&self.dbname), Some(&typed), self.date.as_deref()]);
        let seems = seems_by_content(&dump).await;
        let plan = |wishes| plan::load(settings, Wishes { seems, ..wishes }, dump);
        Ok(with_rules(app, &target, command, None, plan).await?.unwrap_or(ExitCode::DONE))
    }
}

impl Fetch {
    /// Brings the dump here.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let (date, backup) = wanted_backup(app, &target, self.date.as_deref(), DateWord::Today).await?;
        let settings = app.settings(&target, date)?;
        let listed_at = backups::folder(&target);
        let command = Typed::new("fetch", &[Some(&self.dbname), self.date.as_deref()]);
        app.carry_out(&target, command, plan::only_fetch(settings, backup, listed_at, target.stall_after))
            .await
    }
}

/// Stores the filter's rules where the plan can name them, and carries the plan out, unless the candidate is given and is
/// not newer than what there is: then there is no exit code.
async fn with_rules(
    app: &App,
    target: &Target,
    command: Typed,
    candidate: Option<&Candidate<'_>>,
    plan: impl FnOnce(Wishes) -> plan::Plan,
) -> Result<Option<ExitCode>, Error> {
    let section = Some(target.section.as_str());
    let rules = rules(target)?;
    let filtered = !rules.keep_everything();
    let rules = serde_json::to_vec(&rules)
        .map_err(|error| Error::new(ExitCode::USAGE, "the filter cannot be stored").because(error))?;
    if app.global.dry_run {
        if let (Some(candidate), Some(store)) = (candidate, app.store_if_there(section)?)
            && let Some(found) = candidate.not_newer(&*store).await?
        {
            report::not_newer(&found, app.style);
            return Ok(None);
        }
        let wishes = wishes(target, journal::event::Hash::of(&rules).to_string(), filtered);
        return app.carry_out(target, command, plan(wishes)).await.map(Some);
    }
    let store: Arc<dyn Store> = app.store(section)?;
    let hash = store.attach(&rules).await?;
    let plan = plan(wishes(target, hash.to_string(), filtered));
    let not_newer = Cell::new(None);
    // Whoever held the target may have restored that very backup.
    let make = async || {
        if let Some(candidate) = candidate
            && let Some(found) = candidate.not_newer(&*store).await?
        {
            not_newer.set(Some(found));
            return Err(Error::new(ExitCode::DONE, "nothing to do"));
        }
        Ok(plan.clone())
    };
    let ended = app.carry_out_made(Arc::clone(&store), target, command.clone(), make).await;
    let Some(found) = not_newer.take() else { return ended.map(Some) };
    app.ask(section, command, async { Ok(()) }).await?;
    report::not_newer(&found, app.style);
    Ok(None)
}

fn wishes(target: &Target, rules: String, filtered: bool) -> Wishes {
    Wishes {
        rules,
        filtered,
        sql: target.sql_path.as_ref().map(|path| path.join(&target.section)),
        jobs: target.restore_jobs,
        single_transaction: target.pg_restore_st,
        stall_after: target.stall_after,
        search_path: target.search_path.clone(),
        max_row_drop: target.max_row_drop,
        vacuum: target.restore_vacuum,
        switch: target.auto_switch,
        keep_dump: !target.remove_dump,
        seems: None,
        fast: target.fast && target.verify == Verify::Blocks && target.remove_dump && !target.pg_restore_st,
    }
}

/// What of a dump is restored, as the configuration has it.
pub(super) fn rules(target: &Target) -> Result<Rules, Error> {
    let tables_nodata_named = match &target.replication {
        None => Default::default(),
        Some(path) => {
            let fed = Replication::parse(path, &disk::read(path)?)?.nodata_for(&target.section);
            fed.into_iter().map(|(table, provider)| (table, format!("fed by {provider}"))).collect()
        }
    };
    Ok(Rules {
        schemas: target.schemas.clone(),
        schemas_nodata: target.schemas_nodata.clone(),
        tables_nodata: target.tablename_nodata_regexp.clone(),
        tables_nodata_named,
    })
}

/// What a backup seems to be by the name that ends its URL; nothing when it seems to be an archive.
fn seems_by_name(url: &str) -> Option<Seems> {
    let name = url.rsplit('/').next()?;
    if name == TOC {
        return Some(Seems::Folder);
    }
    match DumpName::parse(name)? {
        dump if dump.is_sql() => Some(Seems::Sql),
        _ if name.ends_with(".tar") => Some(Seems::Tar),
        _ if name.ends_with(".dump") => None,
        _ => Some(Seems::PackedTar),
    }
}

/// What a dump on this machine seems to be. What is wrong with it is told by the run.
async fn seems_by_content(dump: &Path) -> Option<Seems> {
    match archive::form_of(&Source::local(dump.to_owned()).ok()?).await.ok()? {
        Form::Archive => None,
        Form::Tar(Packing::Plain) => Some(Seems::Tar),
        Form::Tar(_) => Some(Seems::PackedTar),
        Form::Folder => Some(Seems::Folder),
        Form::Sql(_) => Some(Seems::Sql),
    }
}

/// The date that a word means among the backups, and the URL of that day's, as it may be stored.
async fn wanted_backup(
    app: &App,
    target: &Target,
    typed: Option<&str>,
    default: DateWord,
) -> Result<(Date, String), Error> {
    let word = typed.map_or(Ok(default), str::parse)?;
    let web = backups::web(app, target)?;
    let found = backups::find(app, &web, target, word).await?;
    if app.global.dry_run {
        // A run looks for itself; here it is told what it would find, if the server tells.
        let dumps = backups::listed(&web, target).await.unwrap_or_default();
        if let Ok(dump) = backup::choose(&dumps, &target.dbname, DateChoice::Exact(found.date)) {
            return Ok((found.date, backup::to_store(&dump.url)));
        }
    }
    Ok((found.date, backup::to_store(&found.url)))
}
