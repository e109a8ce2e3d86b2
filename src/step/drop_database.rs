//! DROP DATABASE: the one step that nobody can take back.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};

use super::create_database::{comment_of, drop_database};
use super::{Settings, application_name, end_leftovers, server, write};
use crate::world::postgres::Session;

/// The step.
pub struct DropDatabase {
    /// Which database, and where.
    pub settings: Settings,
}

impl DropDatabase {
    async fn session(&self, at: &Context<'_>) -> Result<Session, Failure> {
        let server = server(at, &self.settings).await?;
        Ok(server.connect(&self.settings.maintdb, &application_name(at)).await?)
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
        // The server goes on with DROP DATABASE when nobody waits for it any more.
        end_leftovers(at, &server(at, &self.settings).await?, &self.settings.maintdb).await?;
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
