//! The only room that touches anything: PostgreSQL, pgbouncer, the far host, the web, disks and programs.
//!
//! It knows nothing of runs, steps, plans or reports. What goes wrong here is a [`Trouble`]: what could not be done,
//! why, what to do about it, and whether trying again may help.

pub mod archive;
pub mod bouncer;
pub mod clients;
pub mod disk;
pub mod far;
pub mod files;
pub mod libpq;
pub mod machine;
pub mod postgres;
pub mod process;
pub mod service;
pub mod source;
pub mod terminal;
pub mod unpack;
pub mod web;

use std::fmt;
use std::future::Future;
use std::time::Duration;

/// Something in the world that did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What could not be done, and to what.
    pub message: String,
    /// Why.
    pub cause: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether trying again may help.
    pub transient: bool,
}

impl Trouble {
    /// Permanent trouble.
    pub fn new(message: impl Into<String>) -> Trouble {
        Trouble { message: message.into(), cause: None, hint: None, transient: false }
    }

    /// Adds why.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Trouble {
        let cause = cause.to_string();
        self.cause = (!cause.trim().is_empty()).then(|| cause.trim().to_owned());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Trouble {
        self.hint = Some(hint.into());
        self
    }

    /// Says whether trying again may help.
    #[must_use]
    pub fn transient(mut self, transient: bool) -> Trouble {
        self.transient = transient;
        self
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.cause.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Trouble {}

/// What comes of `work`, unless that takes longer than a limit.
async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// Waits, where there is nothing that could be waited for.
#[expect(clippy::disallowed_methods, reason = "what is elsewhere and tells nothing has to be asked again")]
async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}
