//! Which copies a purge drops and which it keeps: decided when the plan is made, and looked at again before the first
//! one goes.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent};
use serde::{Deserialize, Serialize};

use super::create_database::oid_of;
use super::{Repeatable, Settings, server, write};

/// The step.
pub struct Choose {
    /// Where.
    pub settings: Settings,
    /// What was chosen.
    pub choice: Choice,
}

/// Its parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What goes, oldest first.
    pub drop: Vec<Dropped>,
    /// What stays, oldest first.
    pub keep: Vec<Kept>,
    /// How many more are to go that this run has no room for.
    #[serde(default)]
    pub later: usize,
}

/// A copy that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Its name.
    pub copy: String,
    /// Its OID: one of that name that somebody makes later is another.
    pub oid: u32,
}

/// A copy that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name.
    pub copy: String,
    /// Why.
    pub why: String,
}

#[async_trait]
impl Repeatable for Choose {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        Ok(Intent::Do(write(&self.choice)))
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let server = server(at, &self.settings).await?;
        let session = server.connect(&self.settings.maintdb, "pg_staging").await?;
        for Dropped { copy, oid } in &self.choice.drop {
            let changed = |how: String| Failure::new(how).hint("look at it, then purge again");
            if oid_of(&session, copy).await? != Some(*oid) {
                return Err(changed(format!("{copy} is not the one that was to be dropped any more")));
            }
            let of_copy = Settings { database: copy.clone(), ..self.settings.clone() };
            if let Some(alias) = of_copy.who_points_at_the_copy(at).await?.first() {
                return Err(changed(format!("{copy} is in use: {alias} points at it")));
            }
        }
        Ok(intent.clone())
    }
}
