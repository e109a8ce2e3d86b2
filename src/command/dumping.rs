//! `dump` and `redump`: the active copy as a file that `load` reads.

use std::path::PathBuf;

use clap::Args;

use super::{App, Typed, absolute};
use crate::config::Target;
use crate::database::{DateWord, DumpName};
use crate::error::{Error, ExitCode};
use crate::plan;

/// `dump`.
#[derive(Debug, Args)]
pub struct Dump {
    #[command(flatten)]
    what: What,
}

/// `redump`.
#[derive(Debug, Args)]
pub struct Redump {
    #[command(flatten)]
    what: What,
}

/// What is dumped, and whereto.
#[derive(Debug, Args)]
struct What {
    /// Section of the configuration
    dbname: String,
    /// The file [default: in tmpdir, named after the database and this day as backups are]
    filename: Option<PathBuf>,
}

impl What {
    async fn carry_out(self, app: &App, command: &str, replace: bool) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let file = self.file(app, &target)?;
        let settings = app.copy(&target, None, DateWord::Active).await?;
        let typed = self.filename.as_ref().map(|name| name.to_string_lossy());
        let command = Typed::new(command, &[Some(&self.dbname), typed.as_deref()]);
        app.carry_out(&target, command, plan::dump(settings, file, replace)).await
    }

    fn file(&self, app: &App, target: &Target) -> Result<PathBuf, Error> {
        let Some(name) = &self.filename else {
            return Ok(target.tmpdir.join(DumpName::new(&target.dbname, app.today())?.to_string()));
        };
        // The journal holds names as text.
        if name.to_str().is_none() {
            let message = format!("the name {} is not UTF-8", name.display());
            return Err(Error::new(ExitCode::USAGE, message).hint("name another file"));
        }
        absolute(name)
    }
}

impl Dump {
    /// Dumps the active copy into a new file.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.what.carry_out(app, "dump", false).await
    }
}

impl Redump {
    /// Dumps the active copy in place of an older dump.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        self.what.carry_out(app, "redump", true).await
    }
}
