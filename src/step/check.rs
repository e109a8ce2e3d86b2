//! Looks whether the copy is what it should be, while nobody can see it yet.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent};
use serde::{Deserialize, Serialize};

use super::catalog::{Expected, Selected};
use super::create_database::{Mark, require_ours};
use super::{Repeatable, Settings, outcome, server, write};
use crate::world::postgres::{Session, identifier, literal};

/// The step.
pub struct Check {
    /// Where.
    pub settings: Settings,
}

/// What it found right.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Found {
    tables: u64,
    indexes: u64,
    constraints: u64,
}

const INVALID_INDEXES: &str = include_str!("check_indexes.sql");
const OPEN_CONSTRAINTS: &str = include_str!("check_constraints.sql");
const TABLES: &str = include_str!("check_tables.sql");

#[async_trait]
impl Repeatable for Check {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        Ok(Intent::Do(write(&serde_json::json!({ "database": self.settings.database }))))
    }

    async fn act(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        let expected = expected(at).await?;
        let session =
            server(at, &self.settings).await?.connect(&self.settings.database, "pg_staging").await?;
        require_ours(&session, &self.settings.database, at.run()).await?;

        let (_, tables) = counted(&session, TABLES).await?;
        let missing = expected.tables.iter().filter(|table| !tables.contains(table));
        self.none("tables are missing", missing.map(dotted))?;

        let (indexes, invalid) = counted(&session, INVALID_INDEXES).await?;
        self.none("indexes are not valid", invalid.iter().map(dotted))?;

        let (constraints, open) = counted(&session, OPEN_CONSTRAINTS).await?;
        let open = open.iter().filter(|constraint| !expected.not_valid.contains(constraint));
        self.none("constraints are not validated", open.map(dotted))?;

        // From here on the copy speaks for itself: its mark needs no note of how far the run is.
        let database = identifier(&self.settings.database);
        let mark = literal(&Mark::text(at.run()));
        session.execute(&format!("COMMENT ON DATABASE {database} IS {mark}")).await?;
        Ok(write(&Found { tables: expected.tables.len() as u64, indexes, constraints }))
    }
}

impl Check {
    fn none(&self, what: &str, found: impl Iterator<Item = String>) -> Result<(), Failure> {
        let found = super::shortened(found);
        if found.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("{} is not what it should be: {what}", self.settings.database))
            .because(found.join(", "))
            .hint("the alias was not touched; look at what post SQL and the dump do to them"))
    }
}

/// What the catalog step says the copy must have.
async fn expected(at: &Context<'_>) -> Result<Expected, Failure> {
    let selected: Selected = outcome(at, "catalog").await?;
    super::attached(at, &selected.expected, "what is expected of the copy").await
}

fn dotted((schema, name): &(String, String)) -> String {
    format!("{schema}.{name}")
}

/// Rows of (how many there are in all, schema, name); the last two are NULL when none is to be named.
async fn counted(session: &Session, sql: &str) -> Result<(u64, Vec<(String, String)>), Failure> {
    let mut all = 0;
    let mut named = Vec::new();
    for row in session.rows(sql).await? {
        let mut fields = row.into_iter();
        let (count, schema, name) =
            (fields.next().flatten(), fields.next().flatten(), fields.next().flatten());
        all = count.and_then(|count| count.parse().ok()).unwrap_or(all);
        named.extend(schema.zip(name));
    }
    Ok((all, named))
}
