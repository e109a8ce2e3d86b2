//! `start`, `stop`, `restart` and `status`: the services of a target host.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{App, Typed, pooling};
use crate::error::{Error, ExitCode};
use crate::plan::{self, Plan};
use crate::report::{Cell, Column, Listing};
use crate::step::Settings;
use crate::step::service::Service;

/// `start`.
#[derive(Debug, Args)]
pub struct Start {
    #[command(flatten)]
    change: Change,
}

/// `stop`.
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    change: Change,
}

/// `restart`.
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    change: Change,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    which: Which,
}

/// Which service, and where.
#[derive(Debug, Args)]
struct Which {
    /// The service
    #[arg(value_enum)]
    service: Word,
    /// Section of the configuration, which names the host
    dbname: String,
}

/// What is changed, and how long it may take.
#[derive(Debug, Args)]
struct Change {
    #[command(flatten)]
    which: Which,
    /// How long it may take until the service answers, or does not any more: 30s, 5m, 1h
    #[arg(long, default_value = "60s", value_name = "LIMIT", value_parser = pooling::limit)]
    limit: Duration,
}

/// A service, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Word {
    /// The pgbouncer that pgbouncer_port leads to
    Pgbouncer,
    /// The PostgreSQL that postgres_port leads to
    Postgresql,
}

impl Which {
    fn service(&self) -> Service {
        match self.service {
            Word::Pgbouncer => Service::Pgbouncer,
            Word::Postgresql => Service::Postgresql,
        }
    }

    fn typed(&self, command: &str) -> Typed {
        Typed::new(command, &[Some(&self.service().to_string()), Some(&self.dbname)])
    }
}

impl Change {
    async fn carry_out(
        self,
        app: &App,
        command: &str,
        plan: impl FnOnce(Settings, Service, Duration) -> Plan,
    ) -> Result<ExitCode, Error> {
        let Change { which, limit } = self;
        let target = app.target(&which.dbname)?;
        let plan = plan(app.place(&target), which.service(), limit);
        app.carry_out(&target, which.typed(command), plan).await
    }
}

impl Start {
    /// Starts the service.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.change.carry_out(app, "start", plan::start).await
    }
}

impl Stop {
    /// Stops the service.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.change.carry_out(app, "stop", plan::stop).await
    }
}

impl Restart {
    /// Stops the service and starts it again.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.change.carry_out(app, "restart", plan::restart).await
    }
}

impl Status {
    /// Says whether the service runs.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let settings = app.place(&app.target(&self.which.dbname)?);
        let service = self.which.service();
        let look = async {
            let runs = settings.far_by_way_of(settings.tmpdir.clone()).runs(service).await?;
            Ok((runs, settings.answers(service).await))
        };
        let (runs, answers) = app.ask(Some(&self.which.dbname), self.which.typed("status"), look).await?;
        let state = if runs { "running" } else { "stopped" };
        let listing = Listing {
            command: "status",
            columns: vec![
                Column::new("service", "SERVICE"),
                Column::new("host", "HOST"),
                Column::new("state", "STATE"),
                Column::new("answers", "ANSWERS"),
            ],
            rows: vec![vec![
                Cell::Text(service.to_string()),
                Cell::Text(settings.host.clone()),
                Cell::Text(state.to_owned()),
                Cell::Flag(answers.is_ok()),
            ]],
        };
        listing.print(app.style);
        if let (true, Err(trouble)) = (runs, answers) {
            app.style.warn(&format!("{service} on {} runs and does not answer: {trouble}", settings.host));
        }
        Ok(if runs { ExitCode::DONE } else { ExitCode::FAILED })
    }
}
