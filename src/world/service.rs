//! The services of a target host, which `staging-client.sh` starts, stops and looks at there.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Trouble;
use super::far::Far;

/// A service that can be started and stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// pgbouncer.
    Pgbouncer,
    /// PostgreSQL.
    Postgresql,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Pgbouncer => "pgbouncer",
            Service::Postgresql => "postgresql",
        })
    }
}

impl Far {
    /// Whether the service runs, as the host's own manager of services says.
    pub async fn runs(&self, service: Service) -> Result<bool, Trouble> {
        let said = self.manage("status", service).await?;
        let says = |state: &str| {
            let wanted = format!("pg_staging: {service} is {state}");
            said.lines().any(|line| line.trim_end() == wanted)
        };
        match (says("running"), says("stopped")) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            _ => Err(Trouble::new(format!(
                "staging-client.sh on {} does not say whether {service} runs",
                self.host
            ))
            .because(said)
            .hint("install the staging-client.sh that came with this version there")),
        }
    }

    /// Starts the service; fine when it runs already. It need not answer yet when this returns.
    pub async fn start(&self, service: Service) -> Result<(), Trouble> {
        self.manage("start", service).await.map(drop)
    }

    /// Stops the service; fine when it does not run.
    pub async fn stop(&self, service: Service) -> Result<(), Trouble> {
        self.manage("stop", service).await.map(drop)
    }

    /// What the script says on standard output.
    async fn manage(&self, action: &str, service: Service) -> Result<String, Trouble> {
        let program = self.script()?.args(["service", action]).arg(service.to_string());
        let ended = program.run().await?;
        let trouble = match ended.status.code() {
            Some(0) => return Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
            Some(1) => Trouble::new(format!("{service} on {}: {action} failed", self.host))
                .hint(format!("see why on that host, or run it by hand: {}", program.line())),
            Some(2) => Trouble::new(format!("staging-client.sh on {} refuses: service {action} {service}", self.host))
                .hint("mend what it names there; an older one has to be replaced by the one that came with this version"),
            _ => return Err(self.script_trouble(&program, &ended)),
        };
        Err(trouble.because(ended.errors()))
    }
}
