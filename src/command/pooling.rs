//! `pause` and `resume`: pgbouncer's own commands, on the alias or on a copy's name.

use std::time::Duration;

use clap::Args;

use super::{App, Typed};
use crate::cli;
use crate::config::Target;
use crate::database::DateWord;
use crate::error::{Error, ExitCode};
use crate::plan::{self, Plan};
use crate::step::Settings;

/// `pause`.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    name: Name,
    /// How long clients may take to give their server connections back: 30s, 5m, 1h
    #[arg(long, default_value = "10s", value_name = "LIMIT", value_parser = limit)]
    limit: Duration,
}

/// `resume`.
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    name: Name,
}

/// Which of the names in pgbouncer.
#[derive(Debug, Args)]
struct Name {
    /// Section of the configuration
    dbname: String,
    /// A copy's date: YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active [default: the alias itself]
    date: Option<String>,
}

impl Name {
    async fn carry_out(
        self,
        app: &App,
        command: &str,
        plan: impl FnOnce(Settings) -> Plan,
    ) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let settings = self.settings(app, &target).await?;
        let command = Typed::new(command, &[Some(&self.dbname), self.date.as_deref()]);
        app.carry_out(&target, command, plan(settings)).await
    }

    /// The run works on the name, whatever that leads to.
    async fn settings(&self, app: &App, target: &Target) -> Result<Settings, Error> {
        if self.date.is_some() {
            return app.copy(target, self.date.as_deref(), DateWord::Active).await;
        }
        Ok(Settings { database: target.dbname.clone(), ..app.place(target) })
    }
}

impl Pause {
    /// Holds the clients back.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let limit = self.limit;
        self.name.carry_out(app, "pause", |settings| plan::pause(settings, limit)).await
    }
}

impl Resume {
    /// Lets the clients go on.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.name.carry_out(app, "resume", plan::resume).await
    }
}

/// A limit that is not over before it begins.
pub(super) fn limit(text: &str) -> Result<Duration, String> {
    match cli::duration(text)? {
        Duration::ZERO => Err("at least one second is needed".to_owned()),
        limit => Ok(limit),
    }
}
