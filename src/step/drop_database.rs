//! DROP DATABASE: the one step that nobody can take back.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};

use super::create_database::{comment_of, drop_database};
use super::{Settings, server, write};
use crate::world::postgres::Session;

/// The step.
pub struct DropDatabase {
    /// Which database, and where.
    pub settings: Settings,
}

impl DropDatabase {
    async fn session(&self, at: &Context<'_>) -> Result<Session, Failure> {
        Ok(server(at, &self.settings).await?.connect(&self.settings.maintdb, "pg_staging").await?)
    }

    fn gone(&self) -> Detail {
        write(&serde_json::json!({ "database": self.settings.database }))
    }
}

#[async_trait]
impl Step for DropDatabase {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        Ok(Intent::Do(self.gone()))
    }

    async fn observe(&self, at: &Context<'_>, _: &Detail) -> Result<Observed, Failure> {
        let found = comment_of(&self.session(at).await?, &self.settings.database).await?;
        Ok(if found.is_none() { Observed::Done(self.gone()) } else { Observed::Absent })
    }

    async fn act(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        drop_database(&self.session(at).await?, &self.settings.database).await?;
        Ok(self.gone())
    }

    /// Asked for only when the database was seen to be there still.
    async fn undo(&self, _: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        Ok(Detail::new())
    }
}
