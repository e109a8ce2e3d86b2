//! How long an ownership lasts. A kernel lock lasts as long as its holder; one on a server far away has to be renewed,
//! and ends when it is not.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::SystemClock;

/// The ownership of a run, as far as its owner can tell without asking.
#[derive(Debug, Clone)]
pub struct Lease {
    /// As [`SystemClock::uptime`] counts.
    until: Option<watch::Receiver<Duration>>,
}

impl Lease {
    /// One that lasts as long as its owner.
    pub fn unlimited() -> Lease {
        Lease { until: None }
    }

    /// One that lasts until the [`SystemClock::uptime`] that `until` holds, which renewals move on.
    pub(super) fn until(until: watch::Receiver<Duration>) -> Lease {
        Lease { until: Some(until) }
    }

    /// The [`SystemClock::uptime`] at which it ends if it is not renewed.
    pub(super) fn end(&self) -> Option<Duration> {
        self.until.as_ref().map(|until| *until.borrow())
    }

    /// Whether it has ended. Somebody else may be the owner from then on.
    pub fn is_lost(&self) -> bool {
        self.end().is_some_and(|end| end <= SystemClock.uptime())
    }

    /// Resolves when it has ended. The clock is looked at whenever this is polled: an owner that was stopped finds out
    /// before it does anything else.
    pub async fn lost(&self) {
        let Some(until) = &self.until else { return pending().await };
        let mut until = until.clone();
        let mut told = pin!(until.wait_for(|end| *end <= SystemClock.uptime()));
        poll_fn(|cx| match told.as_mut().poll(cx) {
            Poll::Pending if !self.is_lost() => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }
}
