//! A dump that comes in one piece, because the server serves no parts or the dump does not tell where its rows are.
//!
//! Blocks come in the file's order, and the next one's beginning is what proves the end of the one before. Small blocks are
//! gathered in memory and loaded together while the stream goes on; a large one is loaded while it comes, and the stream
//! waits for it, as it does before rows that must find others in their tables. What is not wanted, or is done already, is
//! read past.

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use journal::event::Failure;
use tokio::sync::mpsc;

use super::super::contents::Blocks;
use super::feed::{Fault, give};
use super::{Attempt, rows_left};
use crate::contents::{Block, BlockHead, LARGE, MOST_TABLES, PartKind, TOGETHER};
use crate::step::board::Slot;
use crate::world::process::Input;
use crate::world::source::Reading;

/// What has come of the stream.
pub(super) enum Came {
    /// Blocks that are to be loaded together.
    Small(Vec<Whole>),
    /// A part whose rows were loaded as they came.
    Loaded {
        /// Which.
        part: usize,
        /// The length of its block.
        bytes: u64,
    },
}

/// A block in memory.
pub(super) struct Whole {
    /// The part that it is all the rows of.
    pub(super) part: usize,
    /// All of it.
    pub(super) bytes: Bytes,
}

/// The stream, and what of it was not looked at.
struct Source<'a> {
    attempt: &'a Attempt<'a>,
    reading: Reading<'a>,
    slot: Slot<'a>,
    rest: BytesMut,
    /// Every block that may come.
    known: HashSet<i32>,
}

impl Source<'_> {
    /// Makes sure that so many bytes are there, unless the stream ends before.
    async fn fill(&mut self, count: usize) -> Result<(), Failure> {
        while self.rest.len() < count {
            let Some(chunk) = self.slot.awaited(self.reading.chunk()).await? else { return Ok(()) };
            self.slot.came(chunk.len() as u64);
            self.rest.extend_from_slice(&chunk);
        }
        Ok(())
    }

    /// Whose block comes next; `None` at the end of the file.
    async fn next(&mut self) -> Result<Option<i32>, Failure> {
        self.fill(BlockHead::LENGTH).await?;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let head = BlockHead::read(&self.rest).filter(|head| self.known.contains(&head.dump_id));
        let head = head.ok_or_else(|| self.attempt.damaged(&"no block begins where one ends"))?;
        Ok(Some(head.dump_id))
    }

    /// More of a block.
    async fn more(&mut self, block: &mut Block) -> Result<Bytes, Failure> {
        self.fill(1).await?;
        if self.rest.is_empty() {
            return Err(self.attempt.damaged(&"it ends within a block of rows"));
        }
        let length = block.take(&self.rest).map_err(|error| self.attempt.damaged(&error))?;
        Ok(self.rest.split_to(length).freeze())
    }
}

impl Attempt<'_> {
    /// Reads the dump from its first block to its last.
    pub(super) async fn stream(&self, tell: mpsc::Sender<Came>) -> Result<(), Failure> {
        let mut wanted: HashMap<i32, usize> = HashMap::new();
        for (index, part) in self.parts.iter().enumerate() {
            wanted.extend(rows_left([part], &self.done).map(|rows| (rows.dump_id, index)));
        }
        let Blocks::Archive { source, .. } = &self.head.blocks else {
            return Err(Failure::new(format!("{} is no archive that comes in one piece", self.head.name)));
        };
        let mut source = Source {
            attempt: self,
            reading: source.whole(self.head.contents.length()),
            slot: self.board.begin("all of the dump", Vec::new(), source.length()),
            rest: BytesMut::new(),
            known: self.head.contents.data_entries().map(|entry| entry.dump_id).collect(),
        };
        let mut group = Vec::new();
        while let Some(id) = source.next().await? {
            let Some(part) = wanted.remove(&id) else {
                let mut block = Block::of(id, None);
                while !block.is_whole() {
                    source.more(&mut block).await?;
                }
                continue;
            };
            if self.must_find_others(part) {
                if !group.is_empty() {
                    pass_on(&tell, Came::Small(std::mem::take(&mut group))).await?;
                }
                // Blocks come in the order of the contents; what is still to come would be waited for for ever.
                let coming: HashSet<usize> = wanted.values().copied().collect();
                if self.needs(part).iter().any(|need| coming.contains(need)) {
                    return Err(self.damaged(&"its rows are not in the order of its contents"));
                }
                self.wait_for_what_is_needed(part).await?;
            }
            let mut block = Block::of(id, None);
            let mut bytes = BytesMut::new();
            while !block.is_whole() && (bytes.len() as u64) < LARGE {
                bytes.extend_from_slice(&source.more(&mut block).await?);
            }
            if block.is_whole() {
                // What follows must be a block, or this was not the end of one.
                source.next().await?;
                group.push(Whole { part, bytes: bytes.freeze() });
                let gathered: u64 = group.iter().map(|whole: &Whole| whole.bytes.len() as u64).sum();
                if group.len() >= MOST_TABLES || gathered >= TOGETHER {
                    pass_on(&tell, Came::Small(std::mem::take(&mut group))).await?;
                }
            } else {
                let archive = self.archive(&[part]);
                let mut length = 0;
                self.restore(archive, 0, async |input: &mut Input, _: &Slot<'_>| {
                    length = large(&mut source, input, bytes, &mut block).await?;
                    Ok(())
                })
                .await?;
                pass_on(&tell, Came::Loaded { part, bytes: length }).await?;
            }
            if wanted.is_empty() {
                break;
            }
        }
        if !group.is_empty() {
            pass_on(&tell, Came::Small(group)).await?;
        }
        let missing =
            wanted.into_values().filter_map(|part| self.parts.get(part)).map(|part| part.name.clone());
        match super::shortened(missing) {
            none if none.is_empty() => Ok(()),
            missing => Err(self.damaged(&format!("it has no {}", missing.join(", ")))),
        }
    }

    /// Whether rows have to be in before those of a part are loaded.
    fn must_find_others(&self, part: usize) -> bool {
        self.needs(part)
            .iter()
            .filter_map(|need| self.parts.get(*need))
            .any(|need| need.kind == PartKind::Rows)
    }

    fn needs(&self, part: usize) -> &[usize] {
        self.parts.get(part).map(|part| part.needs.as_slice()).unwrap_or_default()
    }

    async fn wait_for_what_is_needed(&self, part: usize) -> Result<(), Failure> {
        let needs = self.needs(part);
        let mut over = self.over.subscribe();
        let waited = over.wait_for(|over| needs.iter().all(|need| over.contains(need))).await;
        waited.map(drop).map_err(|error| Failure::new(error.to_string()))
    }

    /// Loads blocks that are in memory; gives the errors that are harmless.
    pub(super) async fn load_small(&self, blocks: Vec<Whole>) -> Result<(Vec<usize>, Vec<String>), Failure> {
        // As they are in the head of their archive.
        let mut blocks = blocks;
        blocks.sort_by_key(|block| block.part);
        let parts: Vec<usize> = blocks.iter().map(|block| block.part).collect();
        let bytes = blocks.iter().map(|block| block.bytes.len() as u64).sum();
        let archive = self.archive(&parts);
        let feed = async |input: &mut Input, _: &Slot<'_>| {
            for block in &blocks {
                give(input, &block.bytes).await?;
            }
            Ok(())
        };
        let harmless = self.restore(archive, bytes, feed).await?;
        Ok((parts, harmless))
    }
}

/// Feeds a block of which the beginning is here and the rest is coming; gives its length. Its last byte is written only
/// when another block follows, or the end of the file.
async fn large(
    source: &mut Source<'_>,
    input: &mut Input,
    beginning: BytesMut,
    block: &mut Block,
) -> Result<u64, Fault> {
    let mut held = beginning.freeze();
    let mut length = held.len() as u64;
    while !block.is_whole() {
        give(input, &held).await?;
        held = source.more(block).await?;
        length = length.saturating_add(held.len() as u64);
    }
    source.next().await?;
    give(input, &held).await?;
    Ok(length)
}

async fn pass_on(tell: &mpsc::Sender<Came>, came: Came) -> Result<(), Failure> {
    tell.send(came).await.map_err(|error| Failure::new(error.to_string()))
}
