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

        let (_, tables) = counted(&session, TABLES, &expected).await?;
        let missing = expected.tables.iter().filter(|table| !tables.contains(table));
        self.none("tables are missing", missing.map(dotted))?;

        let (indexes, invalid) = counted(&session, INVALID_INDEXES, &expected).await?;
        self.none("indexes are not valid", invalid.iter().map(dotted))?;

        let (constraints, open) = counted(&session, OPEN_CONSTRAINTS, &expected).await?;
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

/// Rows of (how many there are in all, schema, name); the last two are NULL when none is to be named. Names come in the
/// dump's encoding, byte by byte, so that they compare with those in the dump whatever encoding that and the copy have.
async fn counted(
    session: &Session,
    sql: &str,
    expected: &Expected,
) -> Result<(u64, Vec<(String, String)>), Failure> {
    let encoding = literal(expected.encoding.as_deref().unwrap_or("UTF8"));
    let encoding =
        format!("CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE {encoding} END");
    let bytes = |name: &str| format!("encode(convert_to({name}, {encoding}), 'hex')");
    let sql = format!(
        "SELECT count, {}, {} FROM (\n{sql}\n) AS found (count, schema, name)",
        bytes("schema"),
        bytes("name")
    );
    let mut all = 0;
    let mut named = Vec::new();
    for row in session.rows(&sql).await? {
        let mut fields = row.into_iter();
        let (count, schema, name) =
            (fields.next().flatten(), fields.next().flatten(), fields.next().flatten());
        all = count.and_then(|count| count.parse().ok()).unwrap_or(all);
        let text = |hex: String| text_of(&hex, expected.byte_by_byte);
        named.extend(schema.map(text).zip(name.map(text)));
    }
    Ok((all, named))
}

/// A name as it was read in the dump: as UTF-8, or byte by byte, as ISO 8859-1.
fn text_of(hex: &str, byte_by_byte: bool) -> String {
    let digits = hex.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok());
    let digits: Vec<u8> = digits.collect();
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if byte_by_byte {
        bytes.into_iter().map(char::from).collect()
    } else {
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
