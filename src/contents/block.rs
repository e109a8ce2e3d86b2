//! A block of data in an archive, looked at as it comes: its frame must lead exactly to its end.
//!
//! A block is its kind, the dump id of its entry, and chunks that end with one of length zero; the block of large
//! objects has an oid before the chunks of each, and ends with oid zero (`_StartData`, `_StartLOs` and
//! `_CustomWriteFunc` in pg_backup_custom.c). What the chunks hold is compressed and left alone. A pg_restore that
//! meets zeros where a chunk's length should be takes them for the end, and is content.

use super::archive::INTEGER_SIZE;

const DATA: u8 = 1;
const LARGE_OBJECTS: u8 = 3;

/// A sign and a magnitude.
const INTEGER: usize = 1 + INTEGER_SIZE;

/// How a block begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHead {
    /// Whose it is.
    pub dump_id: i32,
}

impl BlockHead {
    /// How many bytes it takes: the kind, and the dump id.
    pub const LENGTH: usize = 1 + INTEGER;

    /// Reads it, when it is one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, id) = bytes.get(..Self::LENGTH)?.split_first()?;
        let dump_id = i32::try_from(integer(id)).ok()?;
        matches!(*kind, DATA | LARGE_OBJECTS).then_some(Self { dump_id })
    }
}

/// A sign, and a magnitude with the least byte first.
fn integer(bytes: &[u8]) -> i64 {
    let (sign, magnitude) = bytes.split_first().unwrap_or((&0, &[]));
    let magnitude = magnitude.iter().rev().fold(0, |value, byte| (value << 8) | i64::from(*byte));
    if *sign == 0 { magnitude } else { -magnitude }
}

/// The frame of a block that is made here, to be written around what it holds.
#[derive(Debug, Clone, Copy)]
pub struct BlockFrame;

impl BlockFrame {
    /// The end of chunks, or of large objects: a length, or an OID, of zero.
    pub const END: [u8; INTEGER] = [0; INTEGER];

    /// The beginning of a block of rows.
    #[must_use]
    pub fn rows(dump_id: i32) -> Vec<u8> {
        Self::of(DATA, dump_id)
    }

    /// The beginning of a block of large objects.
    #[must_use]
    pub fn large_objects(dump_id: i32) -> Vec<u8> {
        Self::of(LARGE_OBJECTS, dump_id)
    }

    /// What stands before the chunks of a large object. OIDs of 2^31 and more are written as numbers below zero, as
    /// `WriteInt` in pg_backup_archiver.c has them.
    #[must_use]
    pub fn oid(oid: u32) -> Vec<u8> {
        Self::signed(i64::from(oid.cast_signed()))
    }

    /// What stands before a chunk of so many bytes.
    #[must_use]
    pub fn chunk(length: usize) -> Vec<u8> {
        Self::signed(i64::try_from(length).unwrap_or(i64::MAX))
    }

    fn of(kind: u8, dump_id: i32) -> Vec<u8> {
        [&[kind][..], &Self::signed(i64::from(dump_id))].concat()
    }

    fn signed(value: i64) -> Vec<u8> {
        let magnitude = value.unsigned_abs().to_le_bytes();
        std::iter::once(u8::from(value < 0)).chain(magnitude.into_iter().take(INTEGER_SIZE)).collect()
    }
}

/// What is wrong with a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It is not the block it should be.
    #[error("a block of kind {kind} for entry {found} is where that of entry {wanted} should be")]
    Foreign {
        /// Its kind.
        kind: u8,
        /// Whose it is.
        found: i64,
        /// Whose it should be.
        wanted: i32,
    },
    /// A length is below zero.
    #[error("the block of entry {of} has a chunk of {length} bytes")]
    Length {
        /// Whose block.
        of: i32,
        /// The length.
        length: i64,
    },
    /// It ends, and should not yet.
    #[error("the block of entry {of} ends after {at} bytes, not after {length}")]
    EndsEarly {
        /// Whose block.
        of: i32,
        /// Where it ends.
        at: u64,
        /// Where it should.
        length: u64,
    },
    /// It should have ended.
    #[error("the block of entry {of} does not end after {length} bytes")]
    EndsLate {
        /// Whose block.
        of: i32,
        /// Where it should end.
        length: u64,
    },
}

/// What comes next in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Kind,
    Id,
    Oid,
    Length,
    Chunk(u64),
    Nothing,
}

/// A block on its way.
#[derive(Debug, Clone)]
pub struct Block {
    of: i32,
    length: Option<u64>,
    seen: u64,
    next: Next,
    kind: u8,
    integer: Vec<u8>,
}

impl Block {
    /// The block of an entry, with its length in bytes where that is known.
    #[must_use]
    pub fn of(dump_id: i32, length: Option<u64>) -> Self {
        Self { of: dump_id, length, seen: 0, next: Next::Kind, kind: 0, integer: Vec::with_capacity(INTEGER) }
    }

    /// Looks at the next bytes, and says how many of them are the block's: fewer than there are only at its end. None
    /// of them may be passed on before this went well.
    ///
    /// # Errors
    /// When it cannot be the block of this entry, whole.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, BlockError> {
        let mut at = 0;
        while self.next != Next::Nothing {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(first) = rest.first() else { break };
            let taken = match self.next {
                Next::Chunk(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left.saturating_sub(taken as u64);
                    self.next = if left == 0 { Next::Length } else { Next::Chunk(left) };
                    taken
                }
                Next::Kind => {
                    self.kind = *first;
                    self.next = Next::Id;
                    1
                }
                _ => {
                    let taken = (INTEGER - self.integer.len()).min(rest.len());
                    self.integer.extend_from_slice(rest.get(..taken).unwrap_or_default());
                    taken
                }
            };
            at += taken;
            self.seen = self.seen.saturating_add(taken as u64);
            if self.integer.len() == INTEGER {
                let value = integer(&self.integer);
                self.integer.clear();
                self.next = self.after(value)?;
            }
            self.hold_against_length()?;
        }
        Ok(at)
    }

    /// Whether all of it has come.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.next == Next::Nothing
    }

    fn after(&self, value: i64) -> Result<Next, BlockError> {
        let of = self.of;
        match (self.next, value) {
            (Next::Id, found) => match self.kind {
                DATA if found == i64::from(of) => Ok(Next::Length),
                LARGE_OBJECTS if found == i64::from(of) => Ok(Next::Oid),
                kind => Err(BlockError::Foreign { kind, found, wanted: of }),
            },
            (Next::Oid, 0) => Ok(Next::Nothing),
            (Next::Oid, _) => Ok(Next::Length),
            // The chunks of one large object end, and another may come.
            (Next::Length, 0) if self.kind == LARGE_OBJECTS => Ok(Next::Oid),
            (Next::Length, 0) => Ok(Next::Nothing),
            (_, length) => {
                u64::try_from(length).map(Next::Chunk).map_err(|_| BlockError::Length { of, length })
            }
        }
    }

    fn hold_against_length(&self) -> Result<(), BlockError> {
        let Some(length) = self.length else { return Ok(()) };
        let (of, at) = (self.of, self.seen);
        match self.next {
            Next::Nothing if at != length => Err(BlockError::EndsEarly { of, at, length }),
            Next::Nothing => Ok(()),
            _ if at >= length => Err(BlockError::EndsLate { of, length }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: u8) -> [u8; 5] {
        [0, value, 0, 0, 0]
    }

    /// Rows of entry 7, in two chunks.
    fn rows() -> Vec<u8> {
        [&[DATA][..], &number(7), &number(3), b"abc", &number(2), b"de", &number(0)].concat()
    }

    /// Two large objects of entry 7, the second of them empty.
    fn large_objects() -> Vec<u8> {
        let first = [&number(16)[..], &number(2), b"xy", &number(0)].concat();
        let second = [&number(17)[..], &number(0)].concat();
        [&[LARGE_OBJECTS][..], &number(7), &first, &second, &number(0)].concat()
    }

    /// How many of the bytes are the block's, when they come in pieces of that size.
    fn taken(bytes: &[u8], length: Option<u64>, piece: usize) -> Result<(u64, bool), BlockError> {
        let mut block = Block::of(7, length);
        let mut taken = 0;
        for piece in bytes.chunks(piece) {
            taken += block.take(piece)? as u64;
        }
        Ok((taken, block.is_whole()))
    }

    #[test]
    fn a_block_ends_where_its_frame_says_however_it_comes() {
        for whole in [rows(), large_objects()] {
            let length = whole.len() as u64;
            let more = [whole.as_slice(), b"what follows"].concat();
            for piece in 1..=more.len() {
                assert_eq!(taken(&more, None, piece), Ok((length, true)), "{piece}");
                assert_eq!(taken(&more, Some(length), piece), Ok((length, true)), "{piece}");
                assert_eq!(
                    taken(&whole[..whole.len() - 1], Some(length), piece),
                    Ok((length - 1, false)),
                    "{piece}"
                );
            }
        }
    }

    #[test]
    fn a_block_that_does_not_end_where_the_next_one_begins_is_refused_before_its_end_is_given_on() {
        let whole = rows();
        let length = whole.len() as u64;
        let zeros = [&whole[..14], &[0; 64][..]].concat();
        assert_eq!(taken(&zeros, Some(length), 64), Err(BlockError::EndsEarly { of: 7, at: 19, length }));
        assert_eq!(
            taken(&whole, Some(length - 1), 64),
            Err(BlockError::EndsEarly { of: 7, at: length, length: length - 1 })
        );
        assert_eq!(
            taken(&whole, Some(length - 5), 1),
            Err(BlockError::EndsLate { of: 7, length: length - 5 })
        );
        let mut below_zero = whole.clone();
        below_zero[6] = 1;
        assert_eq!(taken(&below_zero, None, 64), Err(BlockError::Length { of: 7, length: -3 }));
        for (at, byte, kind, found) in [(0, 9, 9, 7), (2, 8, DATA, 8)] {
            let mut foreign = whole.clone();
            foreign[at] = byte;
            assert_eq!(taken(&foreign, None, 64), Err(BlockError::Foreign { kind, found, wanted: 7 }));
        }
    }

    #[test]
    fn what_is_framed_here_is_a_block() {
        let rows_here = [
            BlockFrame::rows(7),
            BlockFrame::chunk(3),
            b"abc".to_vec(),
            BlockFrame::chunk(2),
            b"de".to_vec(),
            BlockFrame::END.to_vec(),
        ];
        assert_eq!(rows_here.concat(), rows());
        let end = || BlockFrame::END.to_vec();
        let first = [BlockFrame::oid(16), BlockFrame::chunk(2), b"xy".to_vec(), end()];
        let objects_here =
            [BlockFrame::large_objects(7), first.concat(), BlockFrame::oid(17), end(), end()].concat();
        assert_eq!(objects_here, large_objects());
        assert_eq!(BlockFrame::oid(u32::MAX), [1, 1, 0, 0, 0]);
    }

    #[test]
    fn the_beginning_of_a_block_tells_whose_it_is() {
        assert_eq!(BlockHead::read(&rows()), Some(BlockHead { dump_id: 7 }));
        assert_eq!(BlockHead::read(&rows()[1..]), None);
        assert_eq!(BlockHead::read(&rows()[..5]), None);
    }
}
