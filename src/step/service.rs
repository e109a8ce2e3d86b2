//! Services of the target host: started, and stopped.
//!
//! The host's own manager of services does it (see staging-client.sh), and says whether a service runs. That it was
//! started counts when the service answers, and that it was stopped when it does not answer any more: a manager that was
//! asked for another service than the one that is meant would say otherwise.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use journal::clock::{Clock as _, SystemClock};
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::{Settings, announced, asked_to_stop, read, write};
use crate::world::Trouble;
pub use crate::world::service::Service;

/// Between two looks at a service that is starting or stopping.
const PACE: Duration = Duration::from_millis(200);

/// Starts a service.
pub struct Start {
    /// Where.
    pub settings: Settings,
    /// Which.
    pub given: Given,
}

/// Stops a service.
pub struct Stop {
    /// Where.
    pub settings: Settings,
    /// Which.
    pub given: Given,
}

/// Parameters of both.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// The service.
    pub service: Service,
    /// For how many seconds it is waited for to answer, or to be silent.
    pub limit_seconds: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    service: Service,
    host: String,
    /// Whether it ran before, so that there is nothing to go back to.
    #[serde(default)]
    ran: bool,
}

/// What is waited for.
#[derive(Clone, Copy)]
enum Until {
    Answers,
    IsSilent,
}

impl Settings {
    /// Whether the service lets us in: pgbouncer's console, or PostgreSQL by its own port or else by way of pgbouncer.
    pub async fn answers(&self, service: Service) -> Result<(), Trouble> {
        let own_port = self.own_port_answers(service).await;
        if own_port.is_ok() || service == Service::Pgbouncer {
            return own_port;
        }
        self.through_pgbouncer().answers(&self.maintdb).await.or(own_port)
    }

    /// Whether the service answers without another one in between.
    async fn own_port_answers(&self, service: Service) -> Result<(), Trouble> {
        match service {
            Service::Pgbouncer => self.console().databases().await.map(drop),
            Service::Postgresql => self.direct().answers(&self.maintdb).await,
        }
    }

    async fn runs(&self, at: &Context<'_>, service: Service) -> Result<bool, Failure> {
        Ok(self.far(at.run()).runs(service).await?)
    }

    /// One look; what is not yet so may come.
    async fn look(&self, at: &Context<'_>, service: Service, until: Until) -> Result<(), Failure> {
        let host = &self.host;
        match until {
            Until::Answers => Ok(self.answers(service).await?),
            Until::IsSilent if self.own_port_answers(service).await.is_ok() => {
                Err(Failure::new(format!("{service} on {host} still answers")).transient(true))
            }
            Until::IsSilent if self.runs(at, service).await? => {
                Err(Failure::new(format!("{service} on {host} still runs")).transient(true))
            }
            Until::IsSilent => Ok(()),
        }
    }

    async fn wait(&self, at: &Context<'_>, given: &Given, until: Until) -> Result<(), Failure> {
        let seen = Mutex::new(None);
        let waiting = async {
            loop {
                match self.look(at, given.service, until).await {
                    Err(failure) if failure.transient => {
                        *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(failure);
                        SystemClock.sleep(PACE).await;
                    }
                    came => return came,
                }
            }
        };
        let limit = Duration::from_secs(given.limit_seconds);
        let came = tokio::select! {
            came = tokio::time::timeout(limit, waiting) => came,
            () = asked_to_stop(at) => return Err(Failure::stopped()),
        };
        let seen = seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        came.unwrap_or_else(|_| Err(self.late(given, until, seen)))
    }

    fn late(&self, given: &Given, until: Until, seen: Option<Failure>) -> Failure {
        let Given { service, limit_seconds } = given;
        let what = match until {
            Until::Answers => "was started, and does not answer",
            Until::IsSilent => "was stopped, and does not end",
        };
        let failure = Failure::new(format!("{service} on {} {what} within {limit_seconds} s", self.host));
        let failure = failure.hint(format!(
            "look at its log there, or wait for longer with --limit; if another service is meant, \
             name it in /etc/pg_staging/client.conf there: {service}_service=NAME"
        ));
        match seen {
            Some(seen) => failure.because(seen),
            None => failure,
        }
    }

    async fn start(&self, at: &Context<'_>, given: &Given) -> Result<(), Failure> {
        self.far(at.run()).start(given.service).await?;
        self.wait(at, given, Until::Answers).await
    }

    async fn stop(&self, at: &Context<'_>, given: &Given) -> Result<(), Failure> {
        self.far(at.run()).stop(given.service).await?;
        self.wait(at, given, Until::IsSilent).await
    }
}

#[async_trait]
impl Step for Start {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let (service, host) = (self.given.service, self.settings.host.clone());
        let ran = self.settings.runs(at, service).await?;
        if ran && self.settings.answers(service).await.is_ok() {
            return Ok(Intent::Skip(format!("{service} runs on {host} already")));
        }
        // A second attempt may find what the first one started.
        let earlier = announced(at).await;
        let ran = earlier.map(|intent| read::<Plan>(&intent)).transpose()?.map_or(ran, |plan| plan.ran);
        Ok(Intent::Do(write(&Plan { service, host, ran })))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let service = self.given.service;
        let there = self.settings.runs(at, service).await? && self.settings.answers(service).await.is_ok();
        Ok(if there { Observed::Done(intent.clone()) } else { Observed::Absent })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.settings.start(at, &self.given).await?;
        Ok(intent.clone())
    }

    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let Plan { service, ran, .. } = read(intent)?;
        let stopped = !ran && self.settings.runs(at, service).await?;
        if stopped {
            self.settings.stop(at, &self.given).await?;
        }
        Ok(write(&serde_json::json!({ "service": service, "stopped": stopped })))
    }
}

#[async_trait]
impl Step for Stop {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let (service, host) = (self.given.service, self.settings.host.clone());
        if self.settings.runs(at, service).await? {
            return Ok(Intent::Do(write(&Plan { service, host, ran: true })));
        }
        if self.settings.own_port_answers(service).await.is_ok() {
            return Err(Failure::new(format!(
                "{service} on {host} answers, and {host} says that it does not run"
            ))
            .hint(format!(
                "name the service that is meant in /etc/pg_staging/client.conf there: {service}_service=NAME"
            )));
        }
        Ok(Intent::Skip(format!("{service} on {host} is stopped already")))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let there = self.settings.runs(at, self.given.service).await?;
        Ok(if there { Observed::Absent } else { Observed::Done(intent.clone()) })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.settings.stop(at, &self.given).await?;
        Ok(intent.clone())
    }

    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let Plan { service, .. } = read(intent)?;
        let answered = self.settings.runs(at, service).await? && self.settings.answers(service).await.is_ok();
        if !answered {
            self.settings.start(at, &self.given).await?;
        }
        Ok(write(&serde_json::json!({ "service": service, "started": !answered })))
    }
}
