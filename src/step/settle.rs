//! What settles a loaded copy, and may be done any number of times: its search_path, and VACUUM ANALYZE.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent};
use serde::{Deserialize, Serialize};

use super::create_database::{require_ours, require_seen};
use super::{Repeatable, Settings, application_name, server, write};
use crate::world::postgres::identifier;

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

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let server = server(at, &self.settings).await?;
        super::end_leftovers(at, &server, &self.settings.maintdb).await?;
        let maintenance = server.connect(&self.settings.maintdb, "pg_staging").await?;
        if self.given.anyones {
            require_seen(at, &maintenance, &self.settings.database).await?;
        } else {
            require_ours(&maintenance, &self.settings.database, at.run()).await?;
        }
        let session = server.connect(&self.settings.database, &application_name(at)).await?;
        session.execute("VACUUM (ANALYZE)").await?;
        Ok(intent.clone())
    }
}
