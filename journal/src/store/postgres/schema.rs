//! Whether the journal's tables are there, and of a version that we know; they are made where they are missing and we
//! may make them.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::link::{Rows, Trouble, ask};

/// The tables and functions, as one can run it in psql.
pub(super) const SCHEMA: &str = include_str!("schema.sql");

/// The version that [`SCHEMA`] makes, and the only one that this program knows.
const VERSION: u32 = 1;

/// Makes sure of the tables.
pub(super) async fn ensure(client: &Client) -> Result<(), Trouble> {
    match version(client).await {
        Err(trouble) if is_missing(&trouble) => {}
        found => return check(found?),
    }
    match ask(client, SCHEMA).await {
        Ok(_) => {}
        // Somebody else makes them at this moment; what they come to is seen below.
        Err(trouble) if was_made_meanwhile(&trouble) => {}
        Err(trouble) if trouble.is(&[SqlState::INSUFFICIENT_PRIVILEGE]) => {
            return Err(Trouble::lasting(
                format!("the tables of the journal are not there, and cannot be made: {}", trouble.what),
                "have an administrator run journal/src/store/postgres/schema.sql and the GRANTs of docs/journal.md"
                    .to_owned(),
            ));
        }
        Err(trouble) => return Err(trouble),
    }
    check(version(client).await?)
}

async fn version(client: &Client) -> Result<Rows, Trouble> {
    ask(client, "SELECT version FROM staging_journal.journal").await.map_err(|trouble| {
        if !trouble.is(&[SqlState::INSUFFICIENT_PRIVILEGE]) {
            return trouble;
        }
        Trouble::lasting(
            format!("this role may not read the journal: {}", trouble.what),
            "give it what docs/journal.md lists under \"Sharing a journal\"".to_owned(),
        )
    })
}

fn is_missing(trouble: &Trouble) -> bool {
    trouble.is(&[SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME])
}

/// What two that make the same things at the same time are told.
fn was_made_meanwhile(trouble: &Trouble) -> bool {
    trouble.is(&[
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_SCHEMA,
        SqlState::DUPLICATE_OBJECT,
        SqlState::DUPLICATE_FUNCTION,
        SqlState::INTERNAL_ERROR,
    ])
}

fn check(version: Rows) -> Result<(), Trouble> {
    let found = version.into_iter().flatten().flatten().next();
    match found.as_deref().map(str::parse::<u32>) {
        Some(Ok(VERSION)) => Ok(()),
        Some(Ok(version)) => Err(Trouble::lasting(
            format!("its tables are of version {version}, and this program knows version {VERSION}"),
            "use the version of pg_staging that the others use".to_owned(),
        )),
        _ => Err(Trouble::lasting(
            "its tables have no version".to_owned(),
            "run journal/src/store/postgres/schema.sql again".to_owned(),
        )),
    }
}
