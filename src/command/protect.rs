//! `protect` and `unprotect`: whether `drop` and `purge` leave a copy alone.

use clap::Args;
use jiff::civil::Date;

use super::{App, Typed, runs};
use crate::config::Target;
use crate::database::DateWord;
use crate::error::{Error, ExitCode};
use crate::plan;
use crate::step::Settings;
use crate::step::protection::Protection;

/// How long a reason may be, in bytes.
const REASON: usize = 500;

/// `protect`.
#[derive(Debug, Args)]
pub struct Protect {
    /// Section of the configuration
    dbname: String,
    /// YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active
    date: String,
    /// The last day on which it holds, as YYYYMMDD or YYYY-MM-DD [default: until unprotect]
    #[arg(long, value_name = "DAY")]
    until: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// `unprotect`.
#[derive(Debug, Args)]
pub struct Unprotect {
    /// Section of the configuration
    dbname: String,
    /// YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active
    date: String,
}

impl Protect {
    /// Protects the copy.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let until = self.until.as_deref().map(|text| last_day(app, text)).transpose()?;
        let protection = Protection { until, reason: reason(&self.reason)? };
        let target = app.target(&self.dbname)?;
        let settings = app.copy(&target, Some(&self.date), DateWord::Active).await?;
        nobody_makes_it(app, &target, &settings).await?;
        let until = self.until.as_deref();
        let command = Typed::new(
            "protect",
            &[
                Some(&self.dbname),
                Some(&self.date),
                until.map(|_| "--until"),
                until,
                Some("--reason"),
                Some(&self.reason),
            ],
        );
        app.carry_out(&target, command, plan::protect(settings, Some(protection))).await
    }
}

impl Unprotect {
    /// Takes its protection away.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let settings = app.copy(&target, Some(&self.date), DateWord::Active).await?;
        let command = Typed::new("unprotect", &[Some(&self.dbname), Some(&self.date)]);
        app.carry_out(&target, command, plan::protect(settings, None)).await
    }
}

/// A day that is not over.
fn last_day(app: &App, text: &str) -> Result<Date, Error> {
    match text.parse()? {
        DateWord::Exact(day) if day >= app.today() => Ok(day),
        DateWord::Today => Ok(app.today()),
        DateWord::Exact(day) => Err(Error::new(ExitCode::USAGE, format!("{day} is over"))
            .hint("give a day to come, or none to protect it until unprotect")),
        word => Err(Error::new(ExitCode::USAGE, format!("{word} is no day to come"))
            .hint("give it as YYYYMMDD or YYYY-MM-DD")),
    }
}

/// It is stored in a comment, between brackets, among others.
fn reason(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= REASON && !text.contains(char::is_control);
    if fits && !text.contains("[pg_staging") {
        return Ok(text.to_owned());
    }
    Err(Error::new(ExitCode::USAGE, "that is not a reason that can be kept")
        .hint(format!("say it in one line of at most {REASON} bytes, and without \"[pg_staging\"")))
}

/// The run that makes a copy writes its mark anew, and what is noted behind it would go.
async fn nobody_makes_it(app: &App, target: &Target, settings: &Settings) -> Result<(), Error> {
    let Some(store) = app.store_if_there(Some(&target.section))? else { return Ok(()) };
    let open = runs::open_on(&*store, &settings.target()).await?.into_iter().map(|open| open.run);
    let mut at_it = open.filter(|run| run.started.database.as_ref() == Some(&settings.database));
    at_it.next().map_or(Ok(()), |run| {
        let (id, command) = (run.id.short(), run.started.command_line());
        Err(Error::new(
            ExitCode::FAILED,
            format!("run {id} ({command}) is not finished with {}", settings.database),
        )
        .hint(format!("pg_staging continue {id}, or pg_staging rollback {id}")))
    })
}
