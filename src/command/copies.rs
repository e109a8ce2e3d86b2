//! `createdb`, `switch` and `drop`: what works on one copy.

use clap::Args;

use super::{App, Typed};
use crate::database::DateWord;
use crate::error::{Error, ExitCode};
use crate::plan::{self, Plan};
use crate::step::Settings;

/// `createdb`.
#[derive(Debug, Args)]
pub struct Createdb {
    #[command(flatten)]
    copy: Copy,
}

/// `switch`.
#[derive(Debug, Args)]
pub struct Switch {
    #[command(flatten)]
    copy: Copy,
}

/// `drop`.
#[derive(Debug, Args)]
pub struct Drop {
    #[command(flatten)]
    copy: Copy,
    /// Even if the alias points at it, whose entry then goes too
    #[arg(long)]
    force: bool,
}

/// Which copy, with no word for today's.
#[derive(Debug, Args)]
struct Copy {
    /// Section of the configuration
    dbname: String,
    /// YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active [default: today]
    date: Option<String>,
}

impl Copy {
    async fn carry_out(
        self,
        app: &App,
        name: &str,
        plan: impl FnOnce(Settings) -> Plan,
    ) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let settings = app.copy(&target, self.date.as_deref(), DateWord::Today).await?;
        let command = Typed::new(name, &[Some(&self.dbname), self.date.as_deref()]);
        app.carry_out(&target, command, plan(settings)).await
    }
}

impl Createdb {
    /// Makes the empty copy.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.copy.carry_out(app, "createdb", plan::createdb).await
    }
}

impl Switch {
    /// Points the alias at the copy.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.copy.carry_out(app, "switch", plan::switch).await
    }
}

impl Drop {
    /// Takes the copy away.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let force = self.force;
        self.copy.carry_out(app, "drop", |settings| plan::drop(settings, force)).await
    }
}
