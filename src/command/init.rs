//! `init`: roles and tablespaces of production on the target's server.

use clap::Args;

use super::upkeep::not_configured;
use super::{App, Typed};
use crate::backup;
use crate::error::{Error, ExitCode};
use crate::plan;

/// `init`.
///
/// Applies what pg_dumpall -g has written, as psql would: roles with their passwords, memberships and settings, then
/// tablespaces. Those that exist already are told and are no error, so init can be run again. Everything about roles is
/// one transaction: any other error, and none of it took effect. PostgreSQL is reached on postgres_port; pgbouncer need
/// not be set up yet. Passwords are neither shown nor recorded, and nothing of the file is written to a disk here.
#[derive(Debug, Args)]
pub struct Init {
    /// Section of the configuration
    dbname: String,
}

impl Init {
    /// Makes roles and tablespaces.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let url = target.dumpall_url();
        let url = url.ok_or_else(|| not_configured(&target, "dumpall_url", "/path/of/globals.sql"))?;
        let plan = plan::init(app.place(&target), backup::to_store(&url));
        app.carry_out(&target, Typed::new("init", &[Some(&self.dbname)]), plan).await
    }
}
