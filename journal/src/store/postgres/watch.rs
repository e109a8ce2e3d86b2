//! Looks on while a run's owner appends to it. To be told by the server would take a session of one's own, so it is asked,
//! a few times a second.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::super::{Seen, StoreError, Watch};
use super::Inner;
use crate::clock::{Clock as _, SystemClock};
use crate::event::RunId;
use crate::step::Progress;

/// Between two questions.
const TICK: Duration = Duration::from_millis(250);

/// A run that is looked at.
pub(super) struct PostgresWatch {
    inner: Arc<Inner>,
    run: RunId,
    /// How many events were given.
    seen: u64,
    /// What else was given last.
    last: Option<(bool, Option<Progress>)>,
}

impl PostgresWatch {
    pub(super) fn new(inner: Arc<Inner>, run: RunId) -> PostgresWatch {
        PostgresWatch { inner, run, seen: 0, last: None }
    }

    /// What is new, if anything is.
    async fn look(&mut self) -> Result<Option<Seen>, StoreError> {
        let (run, seen) = (self.run, self.seen);
        let look = move |inner: Arc<Inner>| async move {
            // In this order, so that of an owner who is gone everything is read.
            let owner = inner.owner(run).await?;
            Ok((owner, inner.events_from(run, seen).await?))
        };
        let (now, events) = self.inner.ask(look).await?;
        if events.is_empty() && self.last.as_ref() == Some(&now) {
            return Ok(None);
        }
        self.seen += u64::try_from(events.len()).unwrap_or(u64::MAX);
        self.last = Some(now.clone());
        let (held, progress) = now;
        Ok(Some(Seen { events, progress, held }))
    }
}

#[async_trait]
impl Watch for PostgresWatch {
    async fn next(&mut self) -> Result<Seen, StoreError> {
        loop {
            if let Some(seen) = self.look().await? {
                return Ok(seen);
            }
            SystemClock.sleep(TICK).await;
        }
    }
}
