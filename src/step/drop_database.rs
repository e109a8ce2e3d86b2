//! DROP DATABASE: the one step that nobody can take back.
//!
//! A name is not enough for it: between preflight and now, or between a crash and `continue`, somebody may have made
//! another copy of that name, or pointed an alias at this one. The database that goes is the one with the OID that
//! preflight saw.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::create_database::{drop_database, oid_of};
use super::{Settings, application_name, end_leftovers, outcome, preflight, read, server, write};
use crate::world::postgres::Session;

/// The step.
pub struct DropDatabase {
    /// Which database, and where.
    pub settings: Settings,
    /// How.
    pub given: Given,
}

/// Its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// Whether it goes even if an alias points at it.
    pub even_if_active: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    database: String,
    oid: u32,
}

impl DropDatabase {
    async fn session(&self, at: &Context<'_>) -> Result<Session, Failure> {
        let server = server(at, &self.settings).await?;
        Ok(server.connect(&self.settings.maintdb, &application_name(at)).await?)
    }

    /// The copy must be the one that preflight saw, and nobody may have begun to use it since.
    async fn look(&self, at: &Context<'_>, session: &Session) -> Result<Plan, Failure> {
        let database = self.settings.database.clone();
        let seen = outcome::<preflight::Outcome>(at, "preflight").await?.copy;
        let Some(oid) = oid_of(session, &database).await?.filter(|oid| Some(*oid) == seen) else {
            return Err(Failure::new(format!("database {database} is not the one that was to be dropped"))
                .because("another of that name was made meanwhile, or it is gone already")
                .hint("look at it, and start again if it is to go all the same"));
        };
        match self.settings.who_points_at_the_copy(at).await?.filter(|_| !self.given.even_if_active) {
            Some(alias) => Err(Failure::new(format!("{database} is in use: {alias} points at it"))
                .hint(format!("point {alias} at another copy, or drop it with --force"))),
            None => Ok(Plan { database, oid }),
        }
    }
}

#[async_trait]
impl Step for DropDatabase {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let session = self.session(at).await?;
        Ok(Intent::Do(write(&self.look(at, &session).await?)))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let plan: Plan = read(intent)?;
        // The server goes on with DROP DATABASE when nobody waits for it any more.
        end_leftovers(at, &server(at, &self.settings).await?, &self.settings.maintdb).await?;
        let there = oid_of(&self.session(at).await?, &plan.database).await? == Some(plan.oid);
        Ok(if there { Observed::Absent } else { Observed::Done(intent.clone()) })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let session = self.session(at).await?;
        let plan = self.look(at, &session).await?;
        drop_database(&session, &plan.database).await?;
        Ok(intent.clone())
    }

    /// Asked for only when the database was seen to be there still.
    async fn undo(&self, _: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        Ok(Detail::new())
    }
}
