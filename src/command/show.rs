//! `show`: a setting of PostgreSQL, as it is in one copy.

use clap::Args;

use super::{App, Typed};
use crate::database::DateWord;
use crate::error::{Error, ExitCode};
use crate::report::{Cell, Column, Listing};
use crate::world::postgres::literal;

/// `show`.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub struct Show {
    /// Section of the configuration
    dbname: String,
    /// YYYYMMDD, YYYY-MM-DD, today, yesterday, latest, oldest or active [default: active]
    date: Option<String>,
    /// Name of the setting, such as work_mem
    setting: String,
}

impl Show {
    /// Shows what SHOW would, to a session of `dbuser` in the copy.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let typed = Typed::new("show", &[Some(&self.dbname), self.date.as_deref(), Some(&self.setting)]);
        let (database, value) = app
            .ask(Some(&self.dbname), typed, async {
                let settings = app.copy(&target, self.date.as_deref(), DateWord::Active).await?;
                let server = app.server_with_copy(&target, &settings).await?;
                let session = server.connect(&settings.database, "pg_staging").await?;
                // NULL where there is no such setting; otherwise what SHOW shows (PostgreSQL, 9.27.1).
                let sql = format!("SELECT current_setting({}, true)", literal(&self.setting));
                let value = session.value(&sql).await?.ok_or_else(|| {
                    Error::new(
                        ExitCode::MISSING,
                        format!("PostgreSQL on {} has no setting '{}'", target.host, self.setting),
                    )
                    .hint(format!("pg_staging psql {} -- -c '\\dconfig *' lists them", self.dbname))
                })?;
                Ok((settings.database, value))
            })
            .await?;
        let columns = vec![
            Column::new("database", "DATABASE"),
            Column::new("setting", "SETTING"),
            Column::new("value", "VALUE"),
        ];
        let rows = vec![vec![Cell::Text(database), Cell::Text(self.setting), Cell::Text(value.clone())]];
        Listing { command: "show", columns, rows }.print_as(&value, app.style);
        Ok(ExitCode::DONE)
    }
}
