//! pgbouncer's PAUSE and RESUME of one name.
//!
//! Who is paused is noticed: their queries wait. So a pause that does not come to rest is undone, and it never outlasts
//! a command that was stopped, whatever the configuration says about runs that fail (see [`must_not_wait`]).

use std::time::Duration;

use async_trait::async_trait;
use journal::event::{Detail, Failure, PlannedStep};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::{Settings, announced, asked_to_stop, read, shortened, write};
use crate::world::bouncer::{Holder, Shown};

/// The kind of [`Pause`].
pub const KIND: &str = "pause";

/// Holds back the clients of a name, and waits until no server connection is in use any more.
pub struct Pause {
    /// Which name, and where.
    pub settings: Settings,
    /// How long to wait.
    pub given: Given,
}

/// Parameters of [`Pause`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// For how many seconds pgbouncer is waited for.
    pub limit_seconds: u64,
}

/// Lets the clients of a name go on.
pub struct Resume {
    /// Which name, and where.
    pub settings: Settings,
}

/// What both announce.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    name: String,
}

/// Whether a run of this plan must not be left half done: while it is, clients wait.
pub fn must_not_wait(plan: &[PlannedStep]) -> bool {
    plan.iter().any(|step| step.kind == KIND)
}

impl Settings {
    /// What pgbouncer says of the name that the run works on, which it must know.
    async fn shown(&self) -> Result<Shown, Failure> {
        let name = &self.database;
        self.console().database(name).await?.ok_or_else(|| {
            let place = self.through_pgbouncer().place();
            Failure::new(format!("pgbouncer on {place} has no database {name}"))
                .code(6)
                .hint(format!("pg_staging pgbouncer {} lists those it has", self.section))
        })
    }

    /// RESUME of a name that is paused; fine when it is not. Says whether it was.
    async fn resume(&self, name: &str) -> Result<bool, Failure> {
        let is_paused = async || -> Result<bool, Failure> {
            Ok(self.console().database(name).await?.is_some_and(|shown| shown.paused))
        };
        if !is_paused().await? {
            return Ok(false);
        }
        match self.console().resume(name).await {
            // Somebody else may have been quicker.
            Err(trouble) if is_paused().await? => Err(trouble.into()),
            _ => Ok(true),
        }
    }
}

impl Pause {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.given.limit_seconds)
    }

    async fn who_stays(&self, name: &str) -> Failure {
        let limit = self.given.limit_seconds;
        let failure = Failure::new(format!("clients of {name} keep their server connections for longer than {limit} s"))
            .hint("have them end their transactions, or in session pooling disconnect, or wait for longer with --limit");
        match self.settings.console().holders(name).await {
            Ok(holders) if holders.is_empty() => failure,
            Ok(holders) => failure.because(shortened(holders.iter().map(words)).join("\n")),
            Err(trouble) => failure.because(trouble),
        }
    }
}

fn words(holder: &Holder) -> String {
    let Holder { user, address, seconds } = holder;
    let since = seconds.map(|seconds| format!(", connected for {seconds} s")).unwrap_or_default();
    format!("{user} from {address}{since}")
}

#[async_trait]
impl Step for Pause {
    /// A pause that was there before is somebody else's, and stays.
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let Shown { name, paused, .. } = self.settings.shown().await?;
        if paused && announced(at).await.is_none() {
            return Ok(Intent::Skip(format!("{name} is paused already")));
        }
        Ok(Intent::Do(write(&Plan { name })))
    }

    /// Only pgbouncer's answer to PAUSE tells that no server connection is in use, and it may be asked again.
    async fn observe(&self, _: &Context<'_>, _: &Detail) -> Result<Observed, Failure> {
        Ok(Observed::Absent)
    }

    /// What fails here is not tried again, since clients would wait for as long.
    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let Plan { name } = read(intent)?;
        let console = self.settings.console();
        let paused = tokio::select! {
            paused = console.pause(&name, self.limit()) => paused,
            () = asked_to_stop(at) => return Err(Failure::stopped()),
        };
        match paused.map_err(|trouble| Failure::from(trouble).transient(false))? {
            true => Ok(intent.clone()),
            false => Err(self.who_stays(&name).await),
        }
    }

    async fn undo(&self, _: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let Plan { name } = read(intent)?;
        let resumed = self.settings.resume(&name).await?;
        Ok(write(&serde_json::json!({ "name": name, "resumed": resumed })))
    }
}

#[async_trait]
impl Step for Resume {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        let Shown { name, paused, .. } = self.settings.shown().await?;
        if !paused {
            return Ok(Intent::Skip(format!("{name} is not paused")));
        }
        Ok(Intent::Do(write(&Plan { name })))
    }

    async fn observe(&self, _: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let paused = self.settings.shown().await?.paused;
        Ok(if paused { Observed::Absent } else { Observed::Done(intent.clone()) })
    }

    async fn act(&self, _: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let Plan { name } = read(intent)?;
        self.settings.resume(&name).await?;
        Ok(intent.clone())
    }

    /// Asked for only when it was seen not to have taken effect.
    async fn undo(&self, _: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        Ok(Detail::new())
    }
}
