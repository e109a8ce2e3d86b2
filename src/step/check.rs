//! Looks whether the copy is what it should be, while nobody can see it yet.

mod assertions;
mod found;
mod rows;

use std::path::PathBuf;

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent};
use serde::{Deserialize, Serialize};

use self::found::{Named, found};
use super::catalog::{Expected, Selected};
use super::create_database::{Mark, require_ours};
use super::{Repeatable, Settings, application_name, outcome, server, write};
use crate::world::postgres::{Session, identifier, literal};

/// The step.
pub struct Check {
    /// Where.
    pub settings: Settings,
    /// What the user wants to be so.
    pub given: Given,
}

/// Its parameters; plans of older versions have none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Given {
    /// The folder whose `*.sql` files must find nothing, in order of their names; none when `sql_path` is not set.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// `max_row_drop`, in percent.
    #[serde(default)]
    pub max_row_drop: Option<u8>,
}

/// What it found right.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Found {
    tables: u64,
    indexes: u64,
    constraints: u64,
    /// Files that found nothing.
    #[serde(default)]
    files: u64,
    /// The attachment with the rows of each table, where they were counted.
    #[serde(default)]
    rows: Option<String>,
}

const INVALID_INDEXES: &str = include_str!("check/indexes.sql");
const OPEN_CONSTRAINTS: &str = include_str!("check/constraints.sql");
const TABLES: &str = include_str!("check/tables.sql");
const SEQUENCES: &str = include_str!("check/sequences.sql");

#[async_trait]
impl Repeatable for Check {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        Ok(Intent::Do(write(&serde_json::json!({ "database": self.settings.database }))))
    }

    async fn act(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        let expected = expected(at).await?;
        let session =
            server(at, &self.settings).await?.connect(&self.settings.database, &application_name(at)).await?;
        require_ours(&session, &self.settings.database, at.run()).await?;

        let (_, tables) = counted(&session, TABLES, &expected).await?;
        let missing = expected.tables.iter().filter(|table| !tables.contains(table));
        self.none("tables are missing", missing.map(dotted))?;

        let (indexes, invalid) = counted(&session, INVALID_INDEXES, &expected).await?;
        self.none("indexes are not valid", invalid.iter().map(dotted))?;

        let (constraints, open) = counted(&session, OPEN_CONSTRAINTS, &expected).await?;
        let as_produced = |constraint: &&_| expected.unknown || expected.not_valid.contains(constraint);
        let open = open.iter().filter(|constraint| !as_produced(constraint));
        self.none("constraints are not validated", open.map(dotted))?;

        session.execute(SEQUENCES).await?;
        let ahead = "SELECT 0, schema, what FROM pg_temp.columns_ahead() ORDER BY 2, 3";
        let (_, ahead) = counted(&session, ahead, &expected).await?;
        self.none("sequences are behind their columns", ahead.iter().map(dotted))?;

        let rows = self.rows(at, &session, &expected).await?;
        let files = assertions::hold(at, &self.settings, self.given.folder.as_deref()).await?;

        // From here on the copy speaks for itself: its mark needs no note of how far the run is.
        let database = identifier(&self.settings.database);
        let mark = literal(&Mark::text(at.run()));
        session.execute(&format!("COMMENT ON DATABASE {database} IS {mark}")).await?;
        let tables = expected.tables.len() as u64;
        Ok(write(&Found { tables, indexes, constraints, files, rows }))
    }
}

impl Check {
    /// Counts the rows where that is wanted, and compares them with those of the last copy. Gives the attachment with them.
    async fn rows(
        &self,
        at: &Context<'_>,
        session: &Session,
        expected: &Expected,
    ) -> Result<Option<String>, Failure> {
        let Some(most) = self.given.max_row_drop else { return Ok(None) };
        let now = rows::count(session, expected).await?;
        let shrunk = rows::shrunk(&now, &rows::counted_before(at).await?, most, expected);
        if shrunk.is_empty() {
            return Ok(Some(super::attach(at, &now).await?));
        }
        let what = format!("tables lost more than {most}% of their rows since the last restore");
        Err(self.wrong(&what, shrunk.into_iter()).hint(
            "the alias was not touched; if that is as it should be, restore once with a higher max_row_drop",
        ))
    }

    fn none(&self, what: &str, found: impl Iterator<Item = String>) -> Result<(), Failure> {
        let mut found = found.peekable();
        if found.peek().is_none() {
            return Ok(());
        }
        Err(self
            .wrong(what, found)
            .hint("the alias was not touched; look at what post SQL and the dump do to them"))
    }

    fn wrong(&self, what: &str, found: impl Iterator<Item = String>) -> Failure {
        Failure::new(format!("{} is not what it should be: {what}", self.settings.database))
            .because(super::shortened(found).join(", "))
    }
}

/// What the catalog step says the copy must have.
async fn expected(at: &Context<'_>) -> Result<Expected, Failure> {
    let selected: Selected = outcome(at, "catalog").await?;
    super::attached(at, &selected.expected, "what is expected of the copy").await
}

fn dotted((schema, name): &Named) -> String {
    format!("{schema}.{name}")
}

/// How many there are in all, as each row says, and those that are named.
async fn counted(session: &Session, sql: &str, expected: &Expected) -> Result<(u64, Vec<Named>), Failure> {
    let rows = found(session, sql, expected).await?;
    let all = rows.first().map_or(0, |(number, _)| *number);
    Ok((all, rows.into_iter().filter_map(|(_, named)| named).collect()))
}
