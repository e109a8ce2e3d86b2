//! Removes what was needed on the way: the run's own folder, with the dump and the list in it.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};

use super::{Settings, write};
use crate::world::disk;

/// The step.
pub struct Cleanup {
    /// Where.
    pub settings: Settings,
}

#[async_trait]
impl Step for Cleanup {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        Ok(Intent::Do(write(&serde_json::json!({ "folder": self.settings.workspace(at.run()) }))))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let there = disk::exists(&self.settings.workspace(at.run()));
        Ok(if there { Observed::Absent } else { Observed::Done(intent.clone()) })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        disk::remove_folder(&self.settings.workspace(at.run()))?;
        Ok(intent.clone())
    }

    /// What was needed on the way is not needed on the way back; what remained of it goes.
    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.act(at, intent).await
    }
}
