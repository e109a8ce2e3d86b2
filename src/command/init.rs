//! `init`: roles and tablespaces of production on the target's server.

use clap::Args;

use super::upkeep::not_configured;
use super::{App, Typed};
use crate::backup;
use crate::error::{Error, ExitCode};
use crate::plan;

/// `init`.
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
