//! What follows the head of a small archive: the blocks of its rows as they come, each from its place in the dump.

use std::fmt;

use bytes::Bytes;
use journal::event::Failure;

use super::super::contents::Blocks;
use super::Attempt;
use crate::contents::{Block, Rows};
use crate::step::board::Slot;
use crate::world::process::Input;
use crate::world::source::{Reading, Source};

/// Blocks with fewer bytes between them come with one request, and what is between them is read past.
const NEAR: u64 = 128 << 10;

/// A stretch of the dump, and where in it one is.
struct Stretch<'a> {
    reading: Reading<'a>,
    at: u64,
    /// What has come and was not looked at.
    rest: Bytes,
}

/// Why no more is fed.
pub(super) enum Fault {
    /// pg_restore reads no more; why, it says itself.
    Closed,
    /// What should come does not.
    Failed(Failure),
}

impl<T: Into<Failure>> From<T> for Fault {
    fn from(failure: T) -> Self {
        Fault::Failed(failure.into())
    }
}

impl Attempt<'_> {
    /// Feeds one pg_restore with these rows. The end of each block is written only when all of the block was there.
    pub(super) async fn feed(&self, input: &mut Input, slot: &Slot<'_>, rows: &[&Rows]) -> Result<(), Fault> {
        match &self.head.blocks {
            Blocks::Archive { source, .. } => self.feed_blocks(input, slot, source, rows).await,
            Blocks::Files(pieces) => self.feed_files(input, slot, pieces, rows).await,
        }
    }

    async fn feed_blocks(
        &self,
        input: &mut Input,
        slot: &Slot<'_>,
        source: &Source,
        rows: &[&Rows],
    ) -> Result<(), Fault> {
        for near in stretches(rows) {
            let (Some(first), Some(last)) = (near.first(), near.last()) else { continue };
            let ((start, _), (_, end)) = (bounds(first), bounds(last));
            let reading = source.part(start, end);
            let mut stretch = Stretch { reading, at: start, rest: Bytes::new() };
            for rows in near {
                let (start, end) = bounds(rows);
                while stretch.at < start {
                    let past = start - stretch.at;
                    self.take(&mut stretch, slot, past).await?;
                }
                let mut block = Block::of(rows.dump_id, Some(end - start));
                while !block.is_whole() {
                    let left = end.saturating_sub(stretch.at);
                    let bytes = self.take(&mut stretch, slot, left).await?;
                    block.take(&bytes).map_err(|error| self.damaged(&error))?;
                    give(input, &bytes).await?;
                }
            }
        }
        Ok(())
    }

    /// The next bytes, no more than so many.
    async fn take(&self, stretch: &mut Stretch<'_>, slot: &Slot<'_>, most: u64) -> Result<Bytes, Fault> {
        if stretch.rest.is_empty() {
            let came = slot.awaited(stretch.reading.chunk()).await.map_err(Failure::from)?;
            stretch.rest = came.ok_or_else(|| self.damaged(&"it ends before its rows do"))?;
            slot.came(stretch.rest.len() as u64);
        }
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(stretch.rest.len());
        let bytes = stretch.rest.split_to(length);
        stretch.at = stretch.at.saturating_add(bytes.len() as u64);
        Ok(bytes)
    }

    pub(super) fn damaged(&self, cause: &impl fmt::Display) -> Failure {
        Failure::new(format!("{} is damaged", self.head.name))
            .because(cause)
            .hint("have the backup made or copied again")
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

/// Writes all of this.
pub(super) async fn give(input: &mut Input, bytes: &[u8]) -> Result<(), Fault> {
    match input.write(bytes).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Fault::Closed),
        Err(error) => Err(Fault::Failed(Failure::new("cannot write to pg_restore").because(error))),
    }
}
