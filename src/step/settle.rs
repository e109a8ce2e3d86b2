//! What settles a loaded copy, and may be done any number of times: its search_path, and VACUUM ANALYZE.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent};
use serde::{Deserialize, Serialize};

use super::create_database::{require_ours, require_seen};
use super::{Repeatable, Settings, application_name, server, write};
use crate::world::postgres::{Refused, Session, identifier};

/// ALTER DATABASE … SET search_path.
pub struct SearchPath {
    /// Where.
    pub settings: Settings,
    /// To what.
    pub given: Schemas,
}

/// Parameters of [`SearchPath`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Schemas {
    /// The schemas, in order; none leaves the database as it is.
    pub schemas: Vec<String>,
}

#[async_trait]
impl Repeatable for SearchPath {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        if self.given.schemas.is_empty() {
            return Ok(Intent::Skip("search_path is not configured".to_owned()));
        }
        Ok(Intent::Do(write(&self.given)))
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let session = server(at, &self.settings).await?.connect(&self.settings.maintdb, "pg_staging").await?;
        require_ours(&session, &self.settings.database, at.run()).await?;
        let schemas =
            self.given.schemas.iter().map(|schema| identifier(schema)).collect::<Vec<_>>().join(", ");
        let database = identifier(&self.settings.database);
        session.execute(&format!("ALTER DATABASE {database} SET search_path TO {schemas}")).await?;
        Ok(intent.clone())
    }
}

/// VACUUM ANALYZE.
pub struct Vacuum {
    /// Where.
    pub settings: Settings,
    /// Whether at all.
    pub given: Wanted,
}

/// Parameters of [`Vacuum`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wanted {
    /// `restore_vacuum`.
    pub wanted: bool,
    /// Whether the copy may be one that another run has made.
    #[serde(default)]
    pub anyones: bool,
}

#[async_trait]
impl Repeatable for Vacuum {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        if !self.given.wanted {
            return Ok(Intent::Skip("restore_vacuum is off".to_owned()));
        }
        Ok(Intent::Do(write(&serde_json::json!({ "database": self.settings.database }))))
    }

    async fn act(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        let server = server(at, &self.settings).await?;
        super::end_leftovers(at, &server, &self.settings.maintdb).await?;
        let maintenance = server.connect(&self.settings.maintdb, "pg_staging").await?;
        if self.given.anyones {
            require_seen(at, &maintenance, &self.settings.database).await?;
        } else {
            require_ours(&maintenance, &self.settings.database, at.run()).await?;
        }
        let session = server.connect(&self.settings.database, &application_name(at)).await?;
        let not_analyzed = vacuum(&session).await?;
        Ok(write(&Vacuumed { database: self.settings.database.clone(), not_analyzed }))
    }
}

/// What came of [`Vacuum`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Vacuumed {
    database: String,
    /// Tables of which the server could not make statistics, since foreign tables are among their partitions or heirs; and
    /// why not.
    not_analyzed: Vec<String>,
}

const WITH_FOREIGN: &str = include_str!("vacuum_foreign.sql");

/// Gives what could not be analyzed. A foreign table may well be out of reach from here, as production is, and one
/// VACUUM (ANALYZE) of everything would then end at the first of them.
async fn vacuum(session: &Session) -> Result<Vec<String>, Failure> {
    let (mut foreign, mut others) = (Vec::new(), Vec::new());
    for row in session.rows(WITH_FOREIGN).await? {
        let mut fields = row.into_iter().map(Option::unwrap_or_default);
        let has_foreign = fields.next().as_deref() == Some("t");
        let tables = if has_foreign { &mut foreign } else { &mut others };
        tables.extend(fields.next());
    }
    if foreign.is_empty() {
        session.execute("VACUUM (ANALYZE)").await?;
        return Ok(Vec::new());
    }
    session.execute("VACUUM").await?;
    if !others.is_empty() {
        session.execute(&format!("ANALYZE {}", others.join(", "))).await?;
    }
    let mut refused = Vec::new();
    for table in foreign {
        if let Err(why) = session.attempt(&format!("ANALYZE {table}")).await {
            refused.push(told(&table, why)?);
        }
    }
    Ok(super::shortened(refused))
}

/// That a foreign server does not answer looks much as if ours did not.
fn told(table: &str, refused: Refused) -> Result<String, Failure> {
    let of_foreign = |code: &String| !refused.transient || code.starts_with("08");
    match refused.sqlstate.as_ref().filter(|code| of_foreign(code)) {
        Some(_) => Ok(format!("{table} ({})", refused.message)),
        None => Err(Failure {
            transient: refused.transient,
            ..Failure::new(format!("cannot analyze {table}")).because(refused.message)
        }),
    }
}
