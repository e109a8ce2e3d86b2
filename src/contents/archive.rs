//! The bytes of an archive's head, walked field by field before `libpgdump` is given them.
//!
//! `libpgdump` allocates what a length or a count in the file asks for, up to gigabytes for a file of a hundred
//! bytes, and takes text to be UTF-8. So the head is first read here, growing only as bytes really arrive, and only
//! a head that is whole, of known version and of bounded size goes on. The grammar is that of `ReadHead` and
//! `ReadToc` in PostgreSQL's pg_backup_archiver.c.

use std::io::{self, Read};
use std::ops::Range;

use super::ArchiveVersion;
use super::error::{ContentsError, Found};

const OLDEST: ArchiveVersion = ArchiveVersion::new(1, 12, 0);
const NEWEST: ArchiveVersion = ArchiveVersion::new(1, 16, 0);
/// Formats, as `ArchiveFormat` of pg_backup.h numbers them.
pub(super) const CUSTOM_FORMAT: u8 = 1;
const TAR_FORMAT: u8 = 3;
const DIRECTORY_FORMAT: u8 = 5;

/// The most that contents may take: those of 10,000 tables take 23 MB.
const LIMIT: u64 = 512 * 1024 * 1024;
/// How much is read at once at most, so that a length is believed only as far as bytes follow it.
const CHUNK: usize = 64 * 1024;
/// pg_dump writes its `sizeof(int)`, which is 4 on every platform PostgreSQL runs on.
pub(super) const INTEGER_SIZE: usize = 4;
const WIDEST_OFFSET: u8 = 8;
/// By its first so many bytes one can tell what a file is.
const TELLING: usize = 512;

/// A complete head: everything up to the first data block.
#[derive(Debug)]
pub(super) struct Head {
    bytes: Vec<u8>,
    strings: Vec<Range<usize>>,
    foreign_text: bool,
}

impl Head {
    /// Reads exactly the head, or says why there is none.
    pub(super) fn read(reader: &mut impl Read) -> Result<Self, ContentsError> {
        let mut walk = Walk::new(reader, Shape::default());
        walk.header()?;
        let count = walk.preamble()?;
        for _ in 0..count {
            walk.entry()?;
        }
        let Walk { bytes, strings, .. } = walk;
        let foreign_text = strings
            .iter()
            .any(|range| bytes.get(range.clone()).is_some_and(|text| str::from_utf8(text).is_err()));
        Ok(Self { bytes, strings, foreign_text })
    }

    /// How many bytes were read.
    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether some string is not UTF-8.
    pub(super) fn has_foreign_text(&self) -> bool {
        self.foreign_text
    }

    /// The head with all strings in UTF-8. If one is not, all are taken for ISO 8859-1: one byte, one character,
    /// so that a name is the same wherever it occurs.
    pub(super) fn into_utf8(self) -> Vec<u8> {
        if !self.foreign_text {
            return self.bytes;
        }
        let mut utf8 = Vec::with_capacity(self.bytes.len() + self.bytes.len() / 8);
        let mut copied = 0;
        for range in &self.strings {
            let length_at = range.start.saturating_sub(INTEGER_SIZE);
            utf8.extend_from_slice(self.bytes.get(copied..length_at).unwrap_or_default());
            let text: String =
                self.bytes.get(range.clone()).unwrap_or_default().iter().copied().map(char::from).collect();
            utf8.extend(text.len().to_le_bytes().iter().take(INTEGER_SIZE));
            utf8.extend_from_slice(text.as_bytes());
            copied = range.end;
        }
        utf8.extend_from_slice(self.bytes.get(copied..).unwrap_or_default());
        utf8
    }
}

/// How far the contents of an archive reach, found out while its start is still coming.
#[derive(Debug, Default)]
pub struct Extent {
    shape: Shape,
    /// How many entries are still to be walked, once the number of all is known.
    left: Option<i64>,
    /// Where the next of them begins.
    at: usize,
}

impl Extent {
    /// The length of the contents in bytes, or `None` while `start` does not have all of them. `start` is that of the
    /// same archive at every call, and longer each time; what was walked once is not walked again.
    ///
    /// # Errors
    /// When these are no contents that [`Contents::read`](super::Contents::read) would take.
    pub fn of(&mut self, start: &[u8]) -> Result<Option<u64>, ContentsError> {
        match self.walk(start) {
            Ok(()) => Ok(Some(self.at as u64)),
            Err(ContentsError::Truncated { .. }) => Ok(None),
            // What it is instead takes some bytes to tell.
            Err(ContentsError::NotAnArchive { .. }) if start.len() < TELLING => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn walk(&mut self, start: &[u8]) -> Result<(), ContentsError> {
        let mut left = match self.left {
            Some(left) => left,
            None => {
                let mut rest = start;
                let mut walk = Walk::new(&mut rest, Shape::default());
                walk.header()?;
                let count = walk.preamble()?;
                (self.shape, self.at, self.left) = (walk.shape, walk.bytes.len(), Some(count));
                count
            }
        };
        while left > 0 {
            let mut rest = start.get(self.at..).unwrap_or_default();
            let mut walk = Walk::new(&mut rest, self.shape);
            walk.entry()?;
            self.at += walk.bytes.len();
            left -= 1;
            self.left = Some(left);
            if self.at as u64 > LIMIT {
                return Err(ContentsError::TooLarge { limit: LIMIT });
            }
        }
        Ok(())
    }
}

/// What the header says that the rest is read by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) version: ArchiveVersion,
    pub(super) offset_size: usize,
    /// Whether each entry names the file that has its data: contents of a folder or a tar file, where data has no place
    /// behind them.
    pub(super) names_files: bool,
}

impl Shape {
    /// Whether entries name a table access method.
    pub(super) fn has_access_method(self) -> bool {
        self.version >= ArchiveVersion::new(1, 14, 0)
    }

    /// Whether entries tell the kind of relation.
    pub(super) fn has_relation_kind(self) -> bool {
        self.version >= ArchiveVersion::new(1, 16, 0)
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self { version: OLDEST, offset_size: 8, names_files: false }
    }
}

/// Where things are in the bytes of a head.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// By what its fields are read and written.
    pub(super) shape: Shape,
    /// Where the number of entries stands; the header and the rest of the preamble are before it.
    pub(super) count_at: usize,
    /// Where each entry begins, in the archive's order, and where the last one ends.
    pub(super) bounds: Vec<usize>,
}

impl Layout {
    /// Walks a whole head.
    pub(super) fn of(head: &[u8]) -> Result<Self, ContentsError> {
        let mut rest = head;
        let mut walk = Walk::new(&mut rest, Shape::default());
        walk.header()?;
        let count = walk.preamble()?;
        let (shape, mut at) = (walk.shape, walk.bytes.len());
        let mut layout = Self { shape, count_at: at - (1 + INTEGER_SIZE), bounds: vec![at] };
        for _ in 0..count {
            let mut rest = head.get(at..).unwrap_or_default();
            let mut walk = Walk::new(&mut rest, shape);
            walk.entry()?;
            at += walk.bytes.len();
            layout.bounds.push(at);
        }
        Ok(layout)
    }
}

pub(super) struct Walk<'a, R> {
    reader: &'a mut R,
    pub(super) bytes: Vec<u8>,
    strings: Vec<Range<usize>>,
    pub(super) shape: Shape,
}

impl<'a, R: Read> Walk<'a, R> {
    pub(super) fn new(reader: &'a mut R, shape: Shape) -> Self {
        Self { reader, bytes: Vec::new(), strings: Vec::new(), shape }
    }

    pub(super) fn header(&mut self) -> Result<(), ContentsError> {
        self.magic()?;
        self.shape.version = ArchiveVersion::new(self.byte()?, self.byte()?, self.byte()?);
        if self.shape.version > NEWEST {
            return Err(ContentsError::NewerVersion { version: self.shape.version, newest: NEWEST });
        }
        if self.shape.version < OLDEST {
            return Err(ContentsError::Unsupported {
                what: format!("archive version {} is older than {OLDEST}", self.shape.version),
            });
        }
        let int_size = self.byte()?;
        if usize::from(int_size) != INTEGER_SIZE {
            return Err(ContentsError::Unsupported { what: format!("integers of {int_size} bytes") });
        }
        let offset_size = self.byte()?;
        if !(1..=WIDEST_OFFSET).contains(&offset_size) {
            return Err(ContentsError::Unsupported { what: format!("offsets of {offset_size} bytes") });
        }
        self.shape.offset_size = usize::from(offset_size);
        match (self.byte()?, self.shape.names_files) {
            (CUSTOM_FORMAT, false) | (TAR_FORMAT | DIRECTORY_FORMAT, true) => {}
            (TAR_FORMAT | DIRECTORY_FORMAT, false) => {
                return Err(ContentsError::NotAnArchive { found: Found::DirectoryToc });
            }
            (other, _) => {
                return Err(ContentsError::Unsupported { what: format!("archive format {other}") });
            }
        }
        if self.shape.version >= ArchiveVersion::new(1, 15, 0) {
            self.byte()?;
        } else {
            self.integer()?;
        }
        Ok(())
    }

    /// Anything without the magic bytes is looked at a little longer, to name it.
    fn magic(&mut self) -> Result<(), ContentsError> {
        const MAGIC: &[u8] = b"PGDMP";
        let mut first = Vec::new();
        self.reader.take(MAGIC.len() as u64).read_to_end(&mut first)?;
        if first != MAGIC {
            if !first.is_empty() && MAGIC.starts_with(&first) {
                return Err(ContentsError::Truncated { length: first.len() as u64 });
            }
            self.reader.take((TELLING - MAGIC.len()) as u64).read_to_end(&mut first)?;
            return Err(ContentsError::NotAnArchive { found: Found::by_first_bytes(&first) });
        }
        self.bytes.extend(first);
        Ok(())
    }

    /// What stands between header and entries: when and where the dump was made. Gives the number of entries.
    pub(super) fn preamble(&mut self) -> Result<i64, ContentsError> {
        const TIMESTAMP_FIELDS: usize = 7;
        for _ in 0..TIMESTAMP_FIELDS {
            self.integer()?;
        }
        // Database, server version, pg_dump version.
        self.strings(3)?;
        let count = self.integer()?;
        if count < 0 {
            return Err(ContentsError::Damaged { what: format!("{count} entries") });
        }
        Ok(count)
    }

    fn entry(&mut self) -> Result<(), ContentsError> {
        self.fields()?;
        if self.shape.names_files {
            self.string()?;
        } else {
            self.take(1 + self.shape.offset_size)?;
        }
        Ok(())
    }

    /// An entry up to where it says where its data is.
    pub(super) fn fields(&mut self) -> Result<(), ContentsError> {
        // Dump id, and whether the entry has data.
        self.integer()?;
        self.integer()?;
        // The catalog's oid, the object's oid, tag, kind.
        self.strings(4)?;
        // Section.
        self.integer()?;
        // Definition, drop statement, copy statement, schema, tablespace.
        self.strings(5)?;
        if self.shape.has_access_method() {
            // Table access method.
            self.strings(1)?;
        }
        if self.shape.has_relation_kind() {
            // Kind of relation.
            self.integer()?;
        }
        // Owner, WITH OIDS.
        self.strings(2)?;
        while let Some(dependency) = self.string()? {
            if dependency.is_empty() {
                return Err(ContentsError::Damaged { what: "a dependency without an id".to_owned() });
            }
        }
        Ok(())
    }

    fn strings(&mut self, count: usize) -> Result<(), ContentsError> {
        for _ in 0..count {
            self.string()?;
        }
        Ok(())
    }

    /// A length and that many bytes. A negative length is a null.
    pub(super) fn string(&mut self) -> Result<Option<Range<usize>>, ContentsError> {
        let Ok(length) = usize::try_from(self.integer()?) else {
            return Ok(None);
        };
        let range = self.take(length)?;
        if length > 0 {
            self.strings.push(range.clone());
        }
        Ok(Some(range))
    }

    /// A sign byte and the magnitude, least byte first.
    fn integer(&mut self) -> Result<i64, ContentsError> {
        let range = self.take(1 + INTEGER_SIZE)?;
        let field = self.bytes.get(range).unwrap_or_default();
        let (sign, magnitude) = field.split_first().unwrap_or((&0, &[]));
        let magnitude = magnitude.iter().rev().fold(0i64, |value, byte| (value << 8) | i64::from(*byte));
        // libpgdump keeps 32 bits, sign included; so must we, to agree with it about what is a null.
        let value = if *sign == 0 { magnitude } else { -magnitude };
        #[expect(clippy::cast_possible_truncation, reason = "the truncation is what is wanted")]
        Ok(i64::from(value as i32))
    }

    fn byte(&mut self) -> Result<u8, ContentsError> {
        let range = self.take(1)?;
        Ok(self.bytes.get(range).and_then(|bytes| bytes.first().copied()).unwrap_or_default())
    }

    fn take(&mut self, count: usize) -> Result<Range<usize>, ContentsError> {
        let start = self.bytes.len();
        if (start as u64).saturating_add(count as u64) > LIMIT {
            return Err(ContentsError::TooLarge { limit: LIMIT });
        }
        let end = start + count;
        while self.bytes.len() < end {
            let from = self.bytes.len();
            self.bytes.resize(end.min(from + CHUNK), 0);
            let Some(buffer) = self.bytes.get_mut(from..) else {
                break;
            };
            let filled = fill(self.reader, buffer)?;
            if filled < buffer.len() {
                return Err(ContentsError::Truncated { length: (from + filled) as u64 });
            }
        }
        Ok(start..end)
    }
}

/// Like `read_exact`, but telling how far it came when the end came first.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
