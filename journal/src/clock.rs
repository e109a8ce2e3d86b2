//! The only place that asks the time, waits, or mints an id, so that tests can decide all three.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

/// Time and identity as inputs.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;
    /// A new UUID version 7: ids order by the time of their making.
    fn mint(&self) -> Uuid;
    /// Resolves after `wait`.
    async fn sleep(&self, wait: Duration);
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// A reading of the clock that never goes back, to put a limit to a wait. It means nothing to another process.
    #[expect(clippy::disallowed_methods, reason = "this is the door to the time")]
    pub(crate) fn monotonic(self) -> Instant {
        Instant::now()
    }

    /// How long ago the machine was started, the times included when it slept or was suspended: what is promised to
    /// others, such as a lease, runs out meanwhile.
    pub fn uptime(self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(now).unwrap_or_default()
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door to the time")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door to new ids")]
    fn mint(&self) -> Uuid {
        Uuid::now_v7()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door to waiting")]
    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}
