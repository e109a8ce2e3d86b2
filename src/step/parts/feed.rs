//! What a pg_restore is given to read: the head of its small archive, and the blocks of rows as they come.

use std::io;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use journal::event::Failure;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;

use super::Attempt;
use crate::contents::{Block, Rows};
use crate::world::web::Steady;

/// Blocks with fewer bytes between them come with one request, and what is between them is read past.
const NEAR: u64 = 128 << 10;

/// How much comes between two tellings of how far the restore is, in bytes.
const TOLD_EVERY: u64 = 256 << 10;

/// A stretch of the dump, and where in it one is.
struct Stretch<'a> {
    reading: Steady<'a>,
    at: u64,
    /// What has come and was not looked at.
    rest: Bytes,
}

/// Why no more is fed.
enum Ended {
    /// pg_restore reads no more; why, it says itself.
    Closed,
    /// What should come does not.
    Failed(Failure),
}

impl<T: Into<Failure>> From<T> for Ended {
    fn from(failure: T) -> Self {
        Ended::Failed(failure.into())
    }
}

impl Attempt<'_> {
    /// Feeds one pg_restore. The end of each block is written only when all of the block was there.
    pub(super) async fn feed(
        &self,
        mut input: ChildStdin,
        head: Vec<u8>,
        rows: &[&Rows],
    ) -> Result<(), Failure> {
        match self.pour(&mut input, head, rows).await {
            Ok(()) | Err(Ended::Closed) => Ok(()),
            Err(Ended::Failed(failure)) => Err(failure),
        }
    }

    async fn pour(&self, input: &mut ChildStdin, head: Vec<u8>, rows: &[&Rows]) -> Result<(), Ended> {
        write(input, &head).await?;
        drop(head);
        for near in stretches(rows) {
            let (Some(first), Some(last)) = (near.first(), near.last()) else { continue };
            let ((start, _), (_, end)) = (bounds(first), bounds(last));
            let reading = self.web.read_part(&self.url, &self.meta, start, end);
            let mut stretch = Stretch { reading, at: start, rest: Bytes::new() };
            for rows in near {
                let (start, end) = bounds(rows);
                while stretch.at < start {
                    let past = start - stretch.at;
                    self.take(&mut stretch, past).await?;
                }
                let mut block = Block::of(rows.dump_id, Some(end - start));
                while !block.is_whole() {
                    let left = end.saturating_sub(stretch.at);
                    let bytes = self.take(&mut stretch, left).await?;
                    block.take(&bytes).map_err(|error| {
                        Failure::new(format!("{} is damaged", self.url_to_show()))
                            .because(error)
                            .hint("have the backup made or copied again")
                    })?;
                    write(input, &bytes).await?;
                }
            }
        }
        Ok(())
    }

    /// The next bytes, no more than so many.
    async fn take(&self, stretch: &mut Stretch<'_>, most: u64) -> Result<Bytes, Ended> {
        if stretch.rest.is_empty() {
            let came = stretch.reading.chunk().await.map_err(Failure::from)?;
            stretch.rest = came.ok_or_else(|| {
                Failure::new(format!("{} ends before its rows do", self.url_to_show()))
                    .hint("the file was replaced on the server: begin again with a new run")
            })?;
            self.tell(stretch.rest.len() as u64);
        }
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(stretch.rest.len());
        let bytes = stretch.rest.split_to(length);
        stretch.at = stretch.at.saturating_add(bytes.len() as u64);
        Ok(bytes)
    }

    fn tell(&self, more: u64) {
        let before = self.came.fetch_add(more, Ordering::Relaxed);
        let now = before.saturating_add(more);
        if now / TOLD_EVERY > before / TOLD_EVERY || now >= self.total {
            self.at.progress(now.min(self.total), Some(self.total), "bytes");
        }
    }

    fn url_to_show(&self) -> String {
        crate::backup::without_password(&self.url)
    }
}

fn bounds(rows: &Rows) -> (u64, u64) {
    rows.bytes.as_ref().map_or((0, 0), |bytes| (bytes.start, bytes.end))
}

/// Rows that lie near each other in the dump, together.
fn stretches<'r>(rows: &[&'r Rows]) -> Vec<Vec<&'r Rows>> {
    let mut rows: Vec<&Rows> = rows.to_vec();
    rows.sort_by_key(|rows| bounds(rows).0);
    let mut stretches: Vec<Vec<&Rows>> = Vec::new();
    for rows in rows {
        let end = stretches.last().and_then(|last| last.last()).map(|last| bounds(last).1);
        match stretches.last_mut() {
            Some(last) if end.is_some_and(|end| bounds(rows).0.saturating_sub(end) < NEAR) => last.push(rows),
            _ => stretches.push(vec![rows]),
        }
    }
    stretches
}

async fn write(input: &mut ChildStdin, bytes: &[u8]) -> Result<(), Ended> {
    input.write_all(bytes).await.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ended::Closed,
        _ => Ended::Failed(Failure::new("cannot write to pg_restore").because(error)),
    })
}
