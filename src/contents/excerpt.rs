//! Small archives that are excerpts of a large one: some of its entries, and commands of ours between them.
//!
//! Entries are copied byte for byte, whatever encoding their text is in; only where their data lies is unset, since it
//! comes right behind the head, in the order of the entries (`_PrintTocData` in pg_backup_custom.c then looks for it
//! block by block). What is ours is written in ASCII. The grammar is that of `WriteToc` in pg_backup_archiver.c.

use super::archive::{INTEGER_SIZE, Layout};
use super::error::ContentsError;

/// Sections, as `teSection` of pg_backup.h numbers them.
const SECTION_NONE: i32 = 1;

/// Where an entry's data is, as pg_backup_archiver.h numbers it: somewhere behind, or nowhere.
const OFFSET_NOT_SET: u8 = 1;
const OFFSET_NO_DATA: u8 = 3;

/// The head of an archive as it came, from which the heads of excerpts are made.
#[derive(Debug, Clone)]
pub struct Original {
    bytes: Vec<u8>,
    layout: Layout,
}

/// One entry of an excerpt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The entry at this place in the original, without data.
    Entry(usize),
    /// The same, its rows to follow behind the head.
    Rows {
        /// Its place in the original.
        at: usize,
        /// Whether the rows may be written frozen: into a table that was emptied in the same transaction.
        freeze: bool,
    },
    /// Empties the table whose rows are those of the entry at this place.
    Truncate(usize),
    /// Runs this, in ASCII.
    Sql(String),
}

impl Original {
    /// Takes the bytes up to the first block of data.
    ///
    /// # Errors
    /// As [`Contents::read`](super::Contents::read) has them.
    pub fn new(bytes: Vec<u8>) -> Result<Self, ContentsError> {
        let layout = Layout::of(&bytes)?;
        Ok(Self { bytes, layout })
    }

    /// The bytes as they came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The head of an excerpt.
    #[must_use]
    pub fn excerpt(&self, pieces: &[Piece]) -> Vec<u8> {
        let Layout { count_at, bounds, .. } = &self.layout;
        let mut head = self.bytes.get(..*count_at).unwrap_or_default().to_vec();
        integer(&mut head, pieces.len());
        // Ids of ours come behind those of the original.
        let mut id = bounds.len().saturating_add(self.largest_id());
        for piece in pieces {
            match piece {
                Piece::Entry(at) => head.extend_from_slice(self.entry(*at)),
                Piece::Rows { at, freeze } => self.rows(&mut head, *at, *freeze),
                Piece::Truncate(at) => {
                    id += 1;
                    let fields = Fields::of(self.entry(*at));
                    let schema = fields.and_then(|fields| fields.text(Fields::SCHEMA)).unwrap_or_default();
                    let table = fields.and_then(|fields| fields.text(Fields::TAG)).unwrap_or_default();
                    let mut sql = b"TRUNCATE TABLE ONLY ".to_vec();
                    quoted(&mut sql, schema);
                    sql.push(b'.');
                    quoted(&mut sql, table);
                    sql.push(b';');
                    self.command(&mut head, id, &sql);
                }
                Piece::Sql(sql) => {
                    id += 1;
                    self.command(&mut head, id, sql.as_bytes());
                }
            }
        }
        head
    }

    fn entry(&self, at: usize) -> &[u8] {
        let bounds = &self.layout.bounds;
        match (bounds.get(at), bounds.get(at.saturating_add(1))) {
            (Some(start), Some(end)) => self.bytes.get(*start..*end).unwrap_or_default(),
            _ => &[],
        }
    }

    fn largest_id(&self) -> usize {
        let ids = (0..self.layout.bounds.len()).filter_map(|at| self.entry(at).get(1..=INTEGER_SIZE));
        let value =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |value, byte| (value << 8) | usize::from(*byte));
        ids.map(value).max().unwrap_or_default()
    }

    fn rows(&self, head: &mut Vec<u8>, at: usize, freeze: bool) {
        let entry = self.entry(at);
        let data_at = entry.len().saturating_sub(1 + self.layout.shape.offset_size);
        let fields = entry.get(..data_at).unwrap_or_default();
        let copy = Fields::of(entry).filter(|_| freeze).and_then(|fields| fields.range(Fields::COPY));
        let frozen = copy.and_then(|range| {
            let statement = entry.get(range.clone())?.strip_suffix(b" FROM stdin;\n")?;
            Some((range, [statement, b" FROM stdin WITH (FREEZE);\n"].concat()))
        });
        match frozen {
            Some((range, statement)) => {
                head.extend_from_slice(fields.get(..range.start - INTEGER_SIZE - 1).unwrap_or_default());
                text(head, &statement);
                head.extend_from_slice(fields.get(range.end..).unwrap_or_default());
            }
            None => head.extend_from_slice(fields),
        }
        self.data_at(head, OFFSET_NOT_SET);
    }

    fn data_at(&self, head: &mut Vec<u8>, state: u8) {
        head.push(state);
        head.extend(std::iter::repeat_n(0, self.layout.shape.offset_size));
    }

    /// An entry that is a command and nothing else. pg_restore prints the definition of a kind that it does not know,
    /// and does nothing more about it.
    fn command(&self, head: &mut Vec<u8>, id: usize, sql: &[u8]) {
        integer(head, id);
        // It has no data.
        integer(head, 0);
        for field in [&b"0"[..], b"0", b"pg_staging", b"PG_STAGING"] {
            text(head, field);
        }
        integer(head, usize::try_from(SECTION_NONE).unwrap_or_default());
        text(head, sql);
        // Drop and copy statements, schema, tablespace.
        for _ in 0..4 {
            null(head);
        }
        if self.layout.shape.has_access_method() {
            null(head);
        }
        if self.layout.shape.has_relation_kind() {
            integer(head, 0);
        }
        // Owner, WITH OIDS, and no dependency.
        text(head, b"");
        text(head, b"false");
        null(head);
        self.data_at(head, OFFSET_NO_DATA);
    }
}

/// The strings of an entry, found again.
#[derive(Debug, Clone, Copy)]
struct Fields<'a> {
    entry: &'a [u8],
}

impl<'a> Fields<'a> {
    // Counted in fields that are strings.
    const TAG: usize = 2;
    const COPY: usize = 6;
    const SCHEMA: usize = 7;

    fn of(entry: &'a [u8]) -> Option<Self> {
        (!entry.is_empty()).then_some(Self { entry })
    }

    fn text(self, field: usize) -> Option<&'a [u8]> {
        self.entry.get(self.range(field)?)
    }

    /// Where the text of a field is; its sign and length are right before it.
    fn range(self, field: usize) -> Option<std::ops::Range<usize>> {
        const INTEGER: usize = 1 + INTEGER_SIZE;
        // Dump id, and whether there is data.
        let mut at = 2 * INTEGER;
        for count in 0..=field {
            // The section is an integer between the fourth string and the fifth.
            if count == 4 {
                at += INTEGER;
            }
            let sign = *self.entry.get(at)?;
            let magnitude = self.entry.get(at + 1..at + INTEGER)?;
            let length = magnitude.iter().rev().fold(0, |length, byte| (length << 8) | usize::from(*byte));
            let start = at + INTEGER;
            let end = if sign == 0 { start.checked_add(length)? } else { start };
            if count == field {
                return (sign == 0).then_some(start..end);
            }
            at = end;
        }
        None
    }
}

/// A sign byte and four bytes, the least first.
fn integer(head: &mut Vec<u8>, value: usize) {
    head.push(0);
    head.extend(value.to_le_bytes().iter().take(INTEGER_SIZE));
}

fn text(head: &mut Vec<u8>, text: &[u8]) {
    integer(head, text.len());
    head.extend_from_slice(text);
}

/// No string: a length of -1.
fn null(head: &mut Vec<u8>) {
    head.extend([1, 1, 0, 0, 0]);
}

/// An identifier. No encoding that a server may have uses the byte of `"` within a character.
fn quoted(sql: &mut Vec<u8>, name: &[u8]) {
    sql.push(b'"');
    for byte in name {
        if *byte == b'"' {
            sql.push(b'"');
        }
        sql.push(*byte);
    }
    sql.push(b'"');
}
