//! The ownership of one run: its appends, the task that renews its lease, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::{Claim, Lease, Log, StoreError, memory};
use super::link::{Link, Rows};
use super::{Inner, answer, statement};
use crate::clock::{Clock as _, SystemClock};
use crate::codec::{self, CodecError};
use crate::event::{Hash, RunId};
use crate::query::Summary;
use crate::run::Run;
use crate::step::Progress;

/// How long giving back what was owned may hold up whoever is done with it; after that it ends by itself.
const FAREWELL: Duration = Duration::from_secs(3);

/// Between two times that progress is shown.
const PACE: Duration = Duration::from_millis(500);

/// The right to append to one run, for as long as its lease is renewed.
pub(super) struct PostgresLog {
    inner: Arc<Inner>,
    owned: Owned,
    /// How many events there are, and the hash of the last of them.
    next: u64,
    head: Hash,
    told: Told,
    lease: Lease,
    board: watch::Sender<Option<String>>,
    /// Renew the lease, and show what is on the board.
    tasks: [JoinHandle<()>; 2],
}

/// What is owned, and since how many owners.
#[derive(Debug, Clone, Copy)]
struct Owned {
    run: RunId,
    epoch: u64,
}

impl PostgresLog {
    /// Takes the run and its target, or says who has them.
    pub(super) async fn claim(
        inner: Arc<Inner>,
        run: RunId,
        claim: Claim,
    ) -> Result<PostgresLog, StoreError> {
        let link = &inner.link;
        let said = statement::claim(run, &claim, SystemClock.mint(), inner.lease);
        let asked = SystemClock.uptime();
        let end = asked.saturating_add(inner.lease);
        let answer = link.rows_until(&said, end).await?;
        let (epoch, next, head) = claimed(link, answer)?;
        let (until, renewed) = watch::channel(end);
        let owned = Owned { run, epoch };
        let (board, shown) = watch::channel(None);
        let tasks = [
            tokio::spawn(renew(Arc::clone(&inner), owned, until)),
            tokio::spawn(show(Arc::clone(&inner), owned, shown)),
        ];
        let (told, lease) = (Told::default(), Lease::until(renewed));
        let mut log = PostgresLog { inner, owned, next, head, told, lease, board, tasks };
        if next > 0 {
            for bytes in log.inner.events_from(run, 0).await? {
                log.told.take(&bytes);
            }
        }
        Ok(log)
    }

    fn fenced(&self) -> StoreError {
        StoreError::Fenced(self.owned.run)
    }
}

/// The answer to a claim: epoch, number of events, hash of the last.
fn claimed(link: &Link, answer: Rows) -> Result<(u64, u64, Hash), StoreError> {
    let row = answer.into_iter().next().unwrap_or_default();
    match row.as_slice() {
        [_, _, _, Some(busy), holder] => {
            let holder = holder.as_deref().and_then(|holder| serde_json::from_str(holder).ok());
            Err(StoreError::Busy { what: busy.clone(), holder })
        }
        [Some(epoch), Some(events), Some(head), None, _] => {
            let number = |text: &str| text.parse::<u64>().ok();
            let parts = (number(epoch), number(events), head.parse::<Hash>().ok());
            let (Some(epoch), Some(events), Some(head)) = parts else {
                return Err(link.not_understood("a claim"));
            };
            Ok((epoch, events, head))
        }
        _ => Err(link.not_understood("a claim")),
    }
}

/// Renews the lease, three times in its length, and moves `until` on; ends when the ownership does.
async fn renew(inner: Arc<Inner>, owned: Owned, until: watch::Sender<Duration>) {
    let said = statement::renew(owned.run, owned.epoch, inner.lease);
    loop {
        SystemClock.sleep(inner.lease / 3).await;
        let asked = SystemClock.uptime();
        let end = *until.borrow();
        let still = match inner.link.rows_until(&said, end).await {
            Ok(rows) => first(&rows).and_then(|text| answer::boolean(Some(text))) == Some(true),
            // What cannot be mended may still be mended by somebody else before the end.
            Err(_) if SystemClock.uptime() < end => continue,
            Err(_) => false,
        };
        if !still {
            until.send_replace(SystemClock.uptime());
            return;
        }
        until.send_replace(asked.saturating_add(inner.lease));
    }
}

/// Shows what is on the board, at a human pace. What does not get through is not missed.
async fn show(inner: Arc<Inner>, owned: Owned, mut board: watch::Receiver<Option<String>>) {
    while board.changed().await.is_ok() {
        let Some(text) = board.borrow_and_update().clone() else { continue };
        let said = statement::show(owned.run, owned.epoch, &text);
        let _ = inner.link.rows_until(&said, SystemClock.uptime() + PACE).await;
        SystemClock.sleep(PACE).await;
    }
}

fn first(rows: &Rows) -> Option<&str> {
    rows.first()?.first()?.as_deref()
}

#[async_trait]
impl Log for PostgresLog {
    async fn append(&mut self, n: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.lease.end().filter(|_| !self.lease.is_lost()).ok_or_else(|| self.fenced())?;
        if n != self.next {
            return Err(self.fenced());
        }
        let Owned { run, epoch } = self.owned;
        let mut told = self.told.clone();
        let summary = told.take(bytes).ok_or_else(|| self.inner.link.not_understood("the first event"))?;
        let said = statement::append(run, epoch, n, self.head, bytes, &summary);
        let answer =
            self.inner.ask(move |inner| async move { inner.link.rows_until(&said, end).await }).await;
        match answer.as_ref().map(|rows| first(rows).and_then(|text| answer::boolean(Some(text)))) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => return Err(self.fenced()),
            Ok(None) => return Err(self.inner.link.not_understood("an append")),
            // Who waited in vain for the whole of its lease has lost it.
            Err(_) if self.lease.is_lost() => return Err(self.fenced()),
            Err(_) => return answer.map(|_| ()),
        }
        self.next = n + 1;
        self.head = Hash::of(bytes);
        self.told = told;
        Ok(())
    }

    async fn publish(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn show(&mut self, progress: &Progress) {
        self.board.send_replace(Some(statement::progress_text(progress)));
    }

    fn lease(&self) -> Lease {
        self.lease.clone()
    }
}

impl Drop for PostgresLog {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let Owned { run, epoch } = self.owned;
        if self.lease.is_lost() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.inner.keeper.run_within(FAREWELL, async move {
            let end = SystemClock.uptime() + FAREWELL;
            // What is not given back ends by itself.
            let _ = inner.link.rows_until(&statement::release(run, epoch), end).await;
        });
    }
}

/// What the events of a run come to, one after the other.
#[derive(Debug, Clone, Default)]
struct Told {
    run: Option<Run>,
    /// What can be told of the run, which this version may be able to read or not.
    summary: Option<Summary>,
}

impl Told {
    /// The run with one more event; `None` when nothing at all can be told of it.
    fn take(&mut self, bytes: &[u8]) -> Option<Summary> {
        let before = self.run.take();
        let fold = |event| match before {
            Some(mut run) => run.apply(&event).map(|()| run),
            None => Run::begin(&event),
        };
        let begins = self.summary.is_none();
        let decoded: Result<_, CodecError> = codec::decode(bytes);
        self.run = decoded.ok().filter(|event| (event.n == 0) == begins).and_then(|event| fold(event).ok());
        self.summary = match (&self.run, self.summary.take()) {
            (Some(run), _) => Some(Summary::of(run)),
            (None, Some(summary)) => Some(Summary { status: None, ..summary }),
            (None, None) => {
                let run = codec::header(bytes).map_or(RunId(Uuid::nil()), |header| header.run);
                Some(memory::unreadable_beginning(run, bytes))
            }
        };
        self.summary.clone()
    }
}
