//! What in the copy itself tells which entries are done: a table of dump ids in a schema of ours, there only as long as
//! the restore is.

use std::collections::HashSet;

use journal::event::Failure;

use crate::world::postgres::{Session, literal};

/// The schema. No dump can hold it by accident.
const SCHEMA: &str = "staging_restore_in_progress";

/// Makes the table, unless it is there, and reads it: dump ids.
pub(super) async fn read(session: &Session) -> Result<HashSet<i32>, Failure> {
    session.execute("SET client_min_messages = warning").await?;
    session.execute(&format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}")).await?;
    session
        .execute(&format!("CREATE TABLE IF NOT EXISTS {SCHEMA}.done (dump_id integer PRIMARY KEY)"))
        .await?;
    let rows = session.rows(&format!("SELECT dump_id FROM {SCHEMA}.done")).await?;
    Ok(rows.into_iter().flatten().flatten().filter_map(|id| id.parse().ok()).collect())
}

/// Notes that these entries are done. Everything is named in full: pg_restore runs it with an empty search_path.
pub(super) fn done(ids: &[i32]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    format!("INSERT INTO {SCHEMA}.done SELECT pg_catalog.unnest('{{{}}}'::pg_catalog.int4[]);", ids.join(","))
}

/// Takes the table and its schema away, and writes `mark` on the database that one is in.
pub(super) fn take_away(mark: &str) -> String {
    format!(
        "DROP TABLE {SCHEMA}.done;\nDROP SCHEMA {SCHEMA};\n\
         DO $do$ BEGIN EXECUTE pg_catalog.format('COMMENT ON DATABASE %I IS %L', pg_catalog.current_database(), {}); END $do$;",
        literal(mark)
    )
}
