//! Rows that are in files: they are put into blocks as they come, uncompressed.

use std::collections::HashMap;

use super::Attempt;
use super::feed::{Fault, give};
use crate::contents::Packing;
use crate::contents::{BlockFrame, Rows};
use crate::step::board::Slot;
use crate::world::files::{Pieces, Stored};
use crate::world::process::Input;

/// How rows that COPY takes end, blank lines after it aside (`dumpTableData_copy` in pg_dump.c).
const END_OF_COPY: &[u8] = b"\\.";

impl Attempt<'_> {
    /// Feeds one pg_restore with rows from files. The end of each block is written only when its files were whole.
    pub(super) async fn feed_files(
        &self,
        input: &mut Input,
        slot: &Slot<'_>,
        pieces: &HashMap<i32, Pieces>,
        rows: &[&Rows],
    ) -> Result<(), Fault> {
        // As they are in the head of their archive.
        let mut rows: Vec<&Rows> = rows.to_vec();
        rows.sort_by_key(|rows| rows.entry);
        for rows in rows {
            let pieces = pieces
                .get(&rows.dump_id)
                .ok_or_else(|| self.damaged(&format!("entry {} has no file", rows.dump_id)))?;
            match pieces {
                Pieces::Rows(file, packing, copies) => {
                    give(input, &BlockFrame::rows(rows.dump_id)).await?;
                    let end = self.feed_file(input, slot, file, *packing).await?;
                    if *copies && !end.is_end_of_copy() {
                        return Err(self.damaged(&format!("{} ends within its rows", file.name())).into());
                    }
                }
                Pieces::LargeObjects(files) => {
                    give(input, &BlockFrame::large_objects(rows.dump_id)).await?;
                    for (oid, file, packing) in files {
                        give(input, &BlockFrame::oid(*oid)).await?;
                        self.feed_file(input, slot, file, *packing).await?;
                        give(input, &BlockFrame::END).await?;
                    }
                }
            }
            give(input, &BlockFrame::END).await?;
        }
        Ok(())
    }

    /// Feeds all of a file, but for the end of its block.
    async fn feed_file(
        &self,
        input: &mut Input,
        slot: &Slot<'_>,
        file: &Stored,
        packing: Packing,
    ) -> Result<Tail, Fault> {
        let mut reading = file.read(packing);
        let mut tail = Tail::default();
        let mut told = 0;
        while let Some(chunk) = slot.awaited(reading.chunk()).await? {
            slot.came(reading.came() - told);
            told = reading.came();
            if !chunk.is_empty() {
                tail.see(&chunk);
                give(input, &BlockFrame::chunk(chunk.len())).await?;
                give(input, &chunk).await?;
            }
        }
        slot.came(reading.came() - told);
        Ok(tail)
    }
}

/// The last that came of a file.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    const LENGTH: usize = 16;

    fn see(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(chunk.get(chunk.len().saturating_sub(Self::LENGTH)..).unwrap_or_default());
        self.0.drain(..self.0.len().saturating_sub(Self::LENGTH));
    }

    /// Whether a line by itself says that rows end here.
    fn is_end_of_copy(&self) -> bool {
        let end = self.0.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
        let before = self.0.get(..end).and_then(|text| text.strip_suffix(END_OF_COPY));
        end < self.0.len() && before.is_some_and(|before| before.last().is_none_or(|byte| *byte == b'\n'))
    }
}

#[cfg(test)]
mod tests {
    use super::Tail;

    #[test]
    fn rows_end_with_a_line_that_says_so_however_they_come() {
        let ends = |text: &str, piece: usize| {
            let mut tail = Tail::default();
            text.as_bytes().chunks(piece).for_each(|chunk| tail.see(chunk));
            tail.is_end_of_copy()
        };
        for piece in [1, 3, 100] {
            for text in ["\\.\n\n\n", "1\tone\n2\t\\N\n\\.\n\n\n", "a long line of a table's rows\n\\.\n"] {
                assert!(ends(text, piece), "{text:?}");
            }
            for text in ["", "\n\n", "1\tone\n", "1\tone\n2\ttw", "1\tone\n\\.", "1\t\\.\n\n", "x\\.\n"] {
                assert!(!ends(text, piece), "{text:?}");
            }
        }
    }
}
