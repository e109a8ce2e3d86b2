//! DROP DATABASE: the one step that nobody can take back.
//!
//! A name is not enough for it: between preflight and now, or between a crash and `continue`, somebody may have made
//! another copy of that name, or pointed an alias at this one. The database that goes is the one with the OID that
//! preflight saw, or that the plan names.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::create_database::{comment_of, drop_database, oid_of};
use super::protection::Protection;
use super::{Settings, end_leftovers, maintenance, outcome, preflight, read, server, write};
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
    /// Whether it goes even if an alias points at it, or it is protected.
    pub even_if_active: bool,
    /// Its OID, where the plan was made from a list of what is there.
    #[serde(default)]
    pub oid: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    database: String,
    oid: u32,
    /// The entries of pgbouncer.ini that lead to it, and lead nowhere when it is gone.
    #[serde(default)]
    still_points_there: Vec<String>,
}

impl DropDatabase {
    /// The copy must be the one that preflight saw, and nobody may have begun to use it since.
    async fn look(&self, at: &Context<'_>, session: &Session) -> Result<Option<Plan>, Failure> {
        let database = self.settings.database.clone();
        let seen = self.seen(at).await?;
        let oid = match (oid_of(session, &database).await?, seen) {
            (None, None) => return Ok(None),
            (Some(found), Some(seen)) if found == seen => found,
            _ => {
                return Err(Failure::new(format!(
                    "database {database} is not the one that was to be dropped"
                ))
                .because("another of that name was made meanwhile, or it is gone already")
                .hint("look at it, and start again if it is to go all the same"));
            }
        };
        if !self.given.even_if_active {
            let comment = comment_of(session, &database).await?.unwrap_or_default();
            Protection::must_not_hold(&comment, &self.settings)?;
        }
        let still_points_there = self.settings.who_points_at_the_copy(at).await?;
        match still_points_there.first().filter(|_| !self.given.even_if_active) {
            Some(alias) => Err(self.settings.is_in_use(alias)),
            None => {
                Ok(Some(Plan { database, oid, still_points_there: super::shortened(still_points_there) }))
            }
        }
    }

    /// The OID of the database that is to go; none where only its entry was left.
    async fn seen(&self, at: &Context<'_>) -> Result<Option<u32>, Failure> {
        match self.given.oid {
            None => Ok(outcome::<preflight::Outcome>(at, "preflight").await?.copy),
            given => Ok(given),
        }
    }
}

#[async_trait]
impl Step for DropDatabase {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let session = maintenance(at, &self.settings).await?;
        Ok(match self.look(at, &session).await? {
            Some(plan) => Intent::Do(write(&plan)),
            None => Intent::Skip(format!("there is no database {}", self.settings.database)),
        })
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let plan: Plan = read(intent)?;
        // The server goes on with DROP DATABASE when nobody waits for it any more.
        end_leftovers(at, &server(at, &self.settings).await?, &self.settings.maintdb).await?;
        let there = oid_of(&maintenance(at, &self.settings).await?, &plan.database).await? == Some(plan.oid);
        Ok(if there { Observed::Absent } else { Observed::Done(intent.clone()) })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let session = maintenance(at, &self.settings).await?;
        if let Some(plan) = self.look(at, &session).await? {
            drop_database(&session, &plan.database).await?;
        }
        Ok(intent.clone())
    }

    /// Asked for only when the database was seen to be there still.
    async fn undo(&self, _: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        Ok(Detail::new())
    }
}
