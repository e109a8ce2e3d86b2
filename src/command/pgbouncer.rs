//! `pgbouncer`: the lines of SHOW DATABASES that belong to a target.

use clap::Args;
use jiff::civil::Date;

use super::databases::Which;
use super::{App, Typed};
use crate::database::DatedName;
use crate::error::{Error, ExitCode};
use crate::report::{Cell, Column, Listing};
use crate::world::bouncer::Shown;

/// `pgbouncer`.
#[derive(Debug, Args)]
pub struct Pgbouncer {
    /// Section of the configuration
    dbname: String,
    /// Only the entry of one of the copies
    #[arg(value_enum)]
    which: Option<Which>,
}

impl Pgbouncer {
    /// Lists the alias, then the copies, newest first.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let target = app.target(&self.dbname)?;
        let settings = app.place(&target);
        let typed = Typed::new("pgbouncer", &[Some(&self.dbname), self.which.map(Which::word)]);
        let entries = app
            .ask(Some(&self.dbname), typed, async {
                let all = settings.console().databases().await?;
                let (alias, mut copies) = entries(all, &target.dbname);
                match self.which {
                    Some(which) => {
                        let missing = || {
                            let place = settings.through_pgbouncer().place();
                            let what =
                                format!("pgbouncer on {place} has no entry of a copy of {}", target.dbname);
                            Error::new(ExitCode::MISSING, what)
                                .hint(format!("pg_staging databases {} lists the copies", self.dbname))
                        };
                        Ok(vec![
                            which
                                .of(copies, |(date, _)| *date)
                                .map(|(_, entry)| entry)
                                .ok_or_else(missing)?,
                        ])
                    }
                    None => {
                        copies.sort_by_key(|(date, _)| std::cmp::Reverse(*date));
                        Ok(alias
                            .into_iter()
                            .chain(copies.into_iter().map(|(_, entry)| entry))
                            .collect::<Vec<_>>())
                    }
                }
            })
            .await?;
        let columns = vec![
            Column::new("name", "NAME"),
            Column::new("host", "HOST"),
            Column::new("port", "PORT"),
            Column::new("database", "DATABASE"),
            Column::new("pool_mode", "POOL MODE"),
            Column::new("connections", "CONNECTIONS"),
            Column::hidden("max_connections"),
            Column::hidden("pool_size"),
            Column::new("paused", "PAUSED"),
            Column::new("disabled", "DISABLED"),
        ];
        let rows = entries.into_iter().map(row).collect();
        Listing { command: "pgbouncer", columns, rows }.print(app.style);
        Ok(ExitCode::DONE)
    }
}

/// The entry of the alias, and those of the copies.
fn entries(all: Vec<Shown>, dbname: &str) -> (Option<Shown>, Vec<(Date, Shown)>) {
    let mut alias = None;
    let mut copies = Vec::new();
    for entry in all {
        match DatedName::date_of(dbname, &entry.name) {
            Some(date) => copies.push((date, entry)),
            None if entry.name == dbname => alias = Some(entry),
            None => {}
        }
    }
    (alias, copies)
}

fn row(entry: Shown) -> Vec<Cell> {
    let number = |text: &str| Cell::maybe(text.parse().ok(), Cell::Count);
    vec![
        Cell::Text(entry.name),
        Cell::maybe(Some(entry.host).filter(|host| !host.is_empty()), Cell::Text),
        number(&entry.port),
        Cell::Text(entry.database),
        Cell::maybe(entry.pool_mode, Cell::Text),
        Cell::maybe(entry.connections, Cell::Count),
        Cell::maybe(entry.max_connections, Cell::Count),
        Cell::maybe(entry.pool_size, Cell::Count),
        Cell::Flag(entry.paused),
        Cell::Flag(entry.disabled),
    ]
}
