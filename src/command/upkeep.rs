//! `presql`, `postsql`, `vacuumdb` and `search_path`: the upkeep of one copy, the active one unless a date is given.

use clap::Args;

use super::{App, Typed};
use crate::config::Target;
use crate::database::DateWord;
use crate::error::{Error, ExitCode};
use crate::plan::{self, Plan, Sql};
use crate::step::Settings;
use crate::world::disk;

/// `presql`.
#[derive(Debug, Args)]
pub struct Presql {
    #[command(flatten)]
    copy: Copy,
}

/// `postsql`.
#[derive(Debug, Args)]
pub struct Postsql {
    #[command(flatten)]
    copy: Copy,
}

/// `vacuumdb`.
#[derive(Debug, Args)]
pub struct Vacuumdb {
    #[command(flatten)]
    copy: Copy,
}

/// `search_path`.
#[derive(Debug, Args)]
pub struct SearchPath {
    #[command(flatten)]
    copy: Copy,
}

/// Which copy, with no word for the active one.
#[derive(Debug, Args)]
struct Copy {
    /// Section of the configuration
    dbname: String,
    /// YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active [default: active]
    date: Option<String>,
}

impl Copy {
    async fn carry_out<T>(
        self,
        app: &App,
        name: &str,
        configured: impl FnOnce(&Target) -> Result<T, Error>,
        plan: impl FnOnce(Settings, T) -> Plan,
    ) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let configured = configured(&target)?;
        let settings = app.copy(&target, self.date.as_deref(), DateWord::Active).await?;
        let command = Typed::new(name, &[Some(&self.dbname), self.date.as_deref()]);
        app.carry_out(&target, command, plan(settings, configured)).await
    }
}

/// The section lacks an option that the command is for.
pub(super) fn not_configured(target: &Target, option: &str, example: &str) -> Error {
    let section = &target.section;
    Error::new(ExitCode::USAGE, format!("{option} is not configured for [{section}]"))
        .hint(format!("add `{option} = {example}` to [{section}] or [DEFAULT]"))
}

fn files(target: &Target, name: &'static str, when: &str) -> Result<Sql, Error> {
    let path = target.sql_path.as_ref();
    let path = path.ok_or_else(|| not_configured(target, "sql_path", "/etc/pg_staging/sql"))?;
    let folder = super::absolute(&path.join(&target.section).join(when))?;
    let files = disk::files_with_suffix(&folder, ".sql")?;
    let name_of = |file: &std::path::PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str().map(str::to_owned));
        name.ok_or_else(|| {
            Error::new(ExitCode::USAGE, format!("the name of {} is not UTF-8", file.display()))
                .hint("rename it")
        })
    };
    Ok(Sql { name, files: files.iter().map(name_of).collect::<Result<_, Error>>()?, folder })
}

impl Presql {
    /// Sources the files.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.copy.carry_out(app, "presql", |target| files(target, "pre_sql", "pre"), plan::sql).await
    }
}

impl Postsql {
    /// Sources the files.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.copy.carry_out(app, "postsql", |target| files(target, "post_sql", "post"), plan::sql).await
    }
}

impl Vacuumdb {
    /// VACUUM ANALYZE.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.copy.carry_out(app, "vacuumdb", |_| Ok(()), |settings, ()| plan::vacuum(settings)).await
    }
}

impl SearchPath {
    /// Sets it.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let schemas = |target: &Target| match target.search_path.as_slice() {
            [] => Err(not_configured(target, "search_path", "public, …")),
            schemas => Ok(schemas.to_vec()),
        };
        self.copy.carry_out(app, "search_path", schemas, plan::search_path).await
    }
}
