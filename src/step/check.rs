//! Looks whether the copy is what it should be, while nobody can see it yet.

use async_trait::async_trait;
use journal::event::{Detail, Failure, Hash};
use journal::step::{Context, Intent};
use serde::{Deserialize, Serialize};

use super::catalog::{Selected, contents_of};
use super::create_database::Mark;
use super::{Repeatable, Settings, outcome, server, write};
use crate::contents::Selection;
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
        let selected: Selected = outcome(at, "catalog").await?;
        let contents = contents_of(&selected.dump)?;
        let hash: Hash = selected.selection.parse().map_err(|error| Failure::new(format!("{error}")))?;
        let selection: Selection = serde_json::from_slice(&at.attachment(hash).await?)
            .map_err(|error| Failure::new("the selection of entries cannot be read").because(error))?;
        let session =
            server(at, &self.settings).await?.connect(&self.settings.database, "pg_staging").await?;

        let tables = names(&session, TABLES).await?;
        let wanted = selection.kept_tables(&contents);
        let missing: Vec<String> = wanted
            .iter()
            .filter(|table| !tables.contains(&pair(&table.schema, &table.name)))
            .map(ToString::to_string)
            .collect();
        self.none("tables are missing", &missing)?;

        let (indexes, invalid) = counted(&session, INVALID_INDEXES).await?;
        self.none("indexes are not valid", &invalid)?;

        let (constraints, open) = counted(&session, OPEN_CONSTRAINTS).await?;
        let allowed: Vec<String> = selection
            .not_valid_constraints(&contents)
            .iter()
            .map(|entry| entry.tag.clone().unwrap_or_default())
            .collect();
        let open: Vec<String> = open
            .into_iter()
            .filter(|name| {
                !allowed.iter().any(|tag| tag.ends_with(name.rsplit('\u{1f}').next().unwrap_or(name)))
            })
            .map(|name| name.replace('\u{1f}', "."))
            .collect();
        self.none("constraints are not validated", &open)?;

        // From here on the copy speaks for itself: its mark needs no note of how far the run is.
        let database = identifier(&self.settings.database);
        let mark = literal(&Mark::text(at.run()));
        session.execute(&format!("COMMENT ON DATABASE {database} IS {mark}")).await?;
        Ok(write(&Found { tables: wanted.len() as u64, indexes, constraints }))
    }
}

impl Check {
    fn none(&self, what: &str, found: &[String]) -> Result<(), Failure> {
        if found.is_empty() {
            return Ok(());
        }
        let shown = found.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        let more = if found.len() > 10 { format!(" and {} more", found.len() - 10) } else { String::new() };
        Err(Failure::new(format!("{} is not what it should be: {what}", self.settings.database))
            .because(format!("{shown}{more}"))
            .hint("the alias was not touched; look at what post SQL and the dump do to them"))
    }
}

fn pair(schema: &str, name: &str) -> String {
    format!("{schema}\u{1f}{name}")
}

async fn names(session: &Session, sql: &str) -> Result<Vec<String>, Failure> {
    Ok(session.rows(sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// Rows of (how many there are in all, name of one that is wrong); the name is NULL when none is.
async fn counted(session: &Session, sql: &str) -> Result<(u64, Vec<String>), Failure> {
    let rows = session.rows(sql).await?;
    let all =
        rows.first().and_then(|row| row.first().cloned().flatten()).and_then(|count| count.parse().ok());
    Ok((
        all.unwrap_or_default(),
        rows.into_iter().filter_map(|row| row.into_iter().nth(1).flatten()).collect(),
    ))
}
