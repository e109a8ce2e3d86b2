//! Contents of a dump that is a folder of files (`pg_dump -Fd`), or the same in a tar file (`-Ft`, or a folder packed by
//! tar): its `toc.dat`, made into the head of a custom-format archive with the same entries.
//!
//! The two differ in what stands behind each entry: here the name of the file that has its data (`_WriteExtraToc` in
//! pg_backup_directory.c and pg_backup_tar.c), there the place of its block. Everything that works on an archive then
//! works on such a dump, if the files come as blocks, one behind the other in the order of the entries, and uncompressed.

use super::archive::{CUSTOM_FORMAT, INTEGER_SIZE, Shape, Walk};
use super::error::ContentsError;
use super::{ArchiveVersion, OffsetState};

/// The name of the file that holds the contents.
pub const TOC: &str = "toc.dat";

/// Where the header tells the format: behind the magic bytes, three for the version, and two sizes.
const FORMAT_AT: usize = 5 + 3 + 2;

/// A `toc.dat`, taken apart.
#[derive(Debug, Clone)]
pub struct FolderToc {
    /// What stands before the entries, as a custom-format archive has it.
    preamble: Vec<u8>,
    entries: Vec<FolderEntry>,
    offset_size: usize,
}

/// One entry of it.
#[derive(Debug, Clone)]
struct FolderEntry {
    /// Up to where its data is told.
    fields: Vec<u8>,
    dump_id: i32,
    /// The file that has its data, if it has any.
    file: Option<String>,
}

impl FolderToc {
    /// Reads a whole `toc.dat`.
    ///
    /// # Errors
    /// As [`Contents::read`](super::Contents::read) has them, and when the file goes on behind its contents.
    pub fn read(bytes: &[u8]) -> Result<Self, ContentsError> {
        let mut rest = bytes;
        let mut walk = Walk::new(&mut rest, Shape { names_files: true, ..Shape::default() });
        walk.header()?;
        let compression = walk.bytes.len();
        let shape = walk.shape;
        let count = walk.preamble()?;
        let mut preamble = std::mem::take(&mut walk.bytes);
        uncompressed(&mut preamble, compression, shape.version);
        let mut entries = Vec::new();
        for _ in 0..count {
            let mut walk = Walk::new(&mut rest, shape);
            walk.fields()?;
            let length = walk.bytes.len();
            let file = walk.string()?.and_then(|range| walk.bytes.get(range)).unwrap_or_default();
            let file = String::from_utf8_lossy(file).into_owned();
            let mut fields = std::mem::take(&mut walk.bytes);
            fields.truncate(length);
            let dump_id = dump_id(&fields);
            entries.push(FolderEntry { fields, dump_id, file: Some(file).filter(|file| !file.is_empty()) });
        }
        if !rest.is_empty() {
            return Err(ContentsError::Damaged { what: format!("{TOC} goes on behind its entries") });
        }
        Ok(Self { preamble, entries, offset_size: shape.offset_size })
    }

    /// Entries with data: their dump ids, and the name of the file that has it.
    pub fn files(&self) -> impl Iterator<Item = (i32, &str)> {
        self.entries.iter().filter_map(|entry| Some((entry.dump_id, entry.file.as_deref()?)))
    }

    /// The head of an archive with these entries. The block of each follows that of the one before, and is as long as
    /// `length` says of its dump id, in bytes. Gives also where the last one ends.
    pub fn head(&self, length: impl Fn(i32) -> u64) -> (Vec<u8>, u64) {
        let place = 1 + self.offset_size;
        let all: usize = self.entries.iter().map(|entry| entry.fields.len() + place).sum();
        let mut at = (self.preamble.len() + all) as u64;
        let mut head = Vec::with_capacity(self.preamble.len() + all);
        head.extend_from_slice(&self.preamble);
        for entry in &self.entries {
            head.extend_from_slice(&entry.fields);
            let has_data = entry.file.is_some();
            let (state, offset) = if has_data { (OffsetState::Set, at) } else { (OffsetState::NoData, 0) };
            head.push(state as u8);
            head.extend(offset.to_le_bytes().iter().take(self.offset_size));
            if has_data {
                at = at.saturating_add(length(entry.dump_id));
            }
        }
        (head, at)
    }
}

/// Says in a preamble that it is a custom-format archive's, whose blocks are not compressed. How they are stands at
/// `at`: since archive version 1.15 in a byte, before as an integer that is the level.
fn uncompressed(preamble: &mut [u8], at: usize, version: ArchiveVersion) {
    let width = if version >= ArchiveVersion::new(1, 15, 0) { 1 } else { 1 + INTEGER_SIZE };
    if let Some(format) = preamble.get_mut(FORMAT_AT) {
        *format = CUSTOM_FORMAT;
    }
    let field = at.checked_sub(width).and_then(|start| preamble.get_mut(start..at));
    field.unwrap_or_default().fill(0);
}

/// A sign, and a magnitude with the least byte first.
fn dump_id(fields: &[u8]) -> i32 {
    let (sign, magnitude) = fields.get(..=INTEGER_SIZE).and_then(<[u8]>::split_first).unwrap_or((&0, &[]));
    let magnitude = magnitude.iter().rev().fold(0_i64, |value, byte| (value << 8) | i64::from(*byte));
    i32::try_from(if *sign == 0 { magnitude } else { -magnitude }).unwrap_or_default()
}
