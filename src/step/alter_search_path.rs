//! ALTER DATABASE … SET search_path for a copy that is in use, and back to what was set before.
//!
//! Values go in and come out as the server stores them, so that what was there is put back to the letter.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::create_database::{oid_of, require_seen};
use super::settle::Schemas;
use super::{Settings, announced, maintenance, maintenance_alone, read, write};
use crate::world::postgres::{Session, identifier, literal};

/// The step.
pub struct AlterSearchPath {
    /// Which copy, and where.
    pub settings: Settings,
    /// To what.
    pub given: Schemas,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    database: String,
    oid: u32,
    /// What was set, as the server stores it.
    before: Option<String>,
    after: String,
}

impl AlterSearchPath {
    /// The schemas as the server stores them: quoted only where they must be.
    async fn wanted(&self, session: &Session) -> Result<String, Failure> {
        let names = self.given.schemas.iter().map(|schema| literal(schema)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT string_agg(quote_ident(name), ', ' ORDER BY place) FROM unnest(ARRAY[{names}]::text[]) \
             WITH ORDINALITY AS schema (name, place)"
        );
        Ok(session.value(&sql).await?.unwrap_or_default())
    }
}

#[async_trait]
impl Step for AlterSearchPath {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let session = maintenance(at, &self.settings).await?;
        let database = self.settings.database.clone();
        let oid = require_seen(at, &session, &database).await?;
        let after = self.wanted(&session).await?;
        let now = search_path_of(&session, &database).await?;
        // A second attempt may find what the first has set; what was there before that is what undo needs.
        let before = match announced(at).await {
            Some(earlier) => read::<Change>(&earlier)?.before,
            None if now.as_ref() == Some(&after) => {
                return Ok(Intent::Skip(format!("search_path of {database} is {after} already")));
            }
            None => now,
        };
        Ok(Intent::Do(write(&Change { database, oid, before, after })))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let change: Change = read(intent)?;
        let session = maintenance_alone(at, &self.settings).await?;
        require_seen(at, &session, &change.database).await?;
        let now = search_path_of(&session, &change.database).await?;
        Ok(if now == Some(change.after) { Observed::Done(intent.clone()) } else { Observed::Absent })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let change: Change = read(intent)?;
        let session = maintenance(at, &self.settings).await?;
        require_seen(at, &session, &change.database).await?;
        session.execute(&set(&change.database, Some(&change.after))).await?;
        Ok(intent.clone())
    }

    /// Back to what was set before; what somebody else has set since stays.
    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let change: Change = read(intent)?;
        let session = maintenance_alone(at, &self.settings).await?;
        let is_there = oid_of(&session, &change.database).await? == Some(change.oid);
        let ours = is_there && search_path_of(&session, &change.database).await? == Some(change.after);
        if ours {
            session.execute(&set(&change.database, change.before.as_deref())).await?;
        }
        Ok(write(
            &serde_json::json!({ "database": change.database, "back_to": change.before, "changed": ours }),
        ))
    }
}

/// What is set for a database, whoever connects to it, as `pg_db_role_setting` has it; `None` when nothing is.
async fn search_path_of(session: &Session, database: &str) -> Result<Option<String>, Failure> {
    const PREFIX: &str = "'search_path='";
    let sql = format!(
        "SELECT substr(entry, length({PREFIX}) + 1) FROM pg_db_role_setting, unnest(setconfig) AS entry \
         WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = {}) \
         AND left(entry, length({PREFIX})) = {PREFIX}",
        literal(database)
    );
    Ok(session.value(&sql).await?)
}

/// SQL that sets it to a value as the server stores it, or back to nothing. It is to be sent as one query: the session's
/// own search_path, from which the database's is taken, ends with it.
fn set(database: &str, value: Option<&str>) -> String {
    let database = identifier(database);
    match value {
        None => format!("ALTER DATABASE {database} RESET search_path"),
        Some(value) => format!(
            "SELECT set_config('search_path', {}, true); ALTER DATABASE {database} SET search_path FROM CURRENT",
            literal(value)
        ),
    }
}
