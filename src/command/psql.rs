//! `psql`: the terminal is handed over to psql, on a copy.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use clap::Args;

use super::{App, Typed, stopped};
use crate::config::Target;
use crate::database::DateWord;
use crate::error::{Error, ExitCode};
use crate::report;
use crate::world::process::Program;

/// `psql`.
#[derive(Debug, Args)]
pub struct Psql {
    /// Section of the configuration
    dbname: String,
    /// YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active [default: active]
    date: Option<String>,
    /// Arguments for psql, behind `--`
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

impl Psql {
    /// Runs psql.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        if app.global.dry_run {
            let program = self.program(app, &target).await?;
            report::done(&format!("would run {}", program.line()), app.style);
            return Ok(ExitCode::DONE);
        }
        let typed = Typed::new("psql", &[Some(&self.dbname), self.date.as_deref()]);
        app.recorded(Some(&self.dbname), typed, async {
            let program = app.until_stopped(self.program(app, &target)).await?;
            match app.hand_over(&program).await? {
                (_, Some(signal)) => Err(stopped(signal)),
                (status, None) => ended(status),
            }
        })
        .await?;
        Ok(ExitCode::DONE)
    }

    /// psql on the copy, which must be there.
    async fn program(&self, app: &App, target: &Target) -> Result<Program, Error> {
        let settings = app.copy(target, self.date.as_deref(), DateWord::Active).await?;
        app.server_with_copy(target, &settings).await?;
        let place = settings.through_pgbouncer().conninfo(&settings.database, None);
        Ok(Program::new(settings.psql()).arg(format!("--dbname={place}")).args(&self.arguments))
    }
}

/// What psql's status means: psql(1), Exit Status.
fn ended(status: ExitStatus) -> Result<(), Error> {
    let why = match status.code() {
        Some(0) => return Ok(()),
        Some(1) => Some("a fatal error of its own"),
        Some(2) => Some("the connection could not be made, or went bad"),
        Some(3) => Some("an error in a script, with ON_ERROR_STOP set"),
        _ => None,
    };
    // What a user ends with ^C is as if we had been ended.
    let code = match status.signal() {
        Some(signal @ (2 | 15)) => ExitCode(128 + u8::try_from(signal).unwrap_or_default()),
        _ => ExitCode::FAILED,
    };
    let error = Error::new(code, format!("psql ended with {status}"));
    Err(match why {
        Some(why) => error.because(why),
        None => error,
    })
}
