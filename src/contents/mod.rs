//! A dump's contents: read from the head of a custom-format archive (`pg_dump -Fc`), filtered by [`Rules`],
//! explained entry by entry, and written as a list for `pg_restore -L`.
//!
//! Everything here is data in, data out; the one thing touched is the `Read` that [`Contents::read`] is given.
//!
//! - `archive` bounds and reads the bytes, `error` says what else they may have been;
//! - `sql` splits definitions into tokens, `needs` knows what each entry needs in order to be restored;
//! - `globals` is the other kind of dump, of what all databases of a server share: `pg_dumpall -g`;
//! - `runs` knows which functions run while an entry is restored;
//! - `rules` are what is wanted, `filter` decides, `selection` answers questions about the outcome, `list` prints it;
//! - `reader` says which versions of pg_restore can load it;
//! - `script` looks at a dump in plain SQL on its way to psql;
//! - `toc` makes the contents of a folder or a tar file into those of an archive, `tar` finds the files in a tar file, `packing` says how they are
//!   compressed;
//! - `triggers` are followed to their functions;
//! - `parts` divides what is kept for a restore piece by piece, `schedule` says which comes next, `excerpt` makes the small archive of a piece, and `block`
//!   looks at its rows as they come.

mod archive;
mod block;
mod error;
mod excerpt;
mod filter;
mod globals;
mod list;
mod needs;
mod packing;
mod parts;
mod reader;
mod rules;
mod runs;
mod schedule;
mod script;
mod selection;
mod sql;
mod tar;
mod toc;
mod triggers;

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use serde::{Deserialize, Serialize};

pub use self::archive::Extent;
pub use self::block::{Block, BlockError, BlockFrame, BlockHead};
pub use self::error::{ContentsError, Found};
pub use self::excerpt::{Original, Piece};
pub use self::filter::filter;
pub use self::globals::{Global, Globals, GlobalsError, Part};
pub use self::packing::Packing;
pub use self::parts::{
    LARGE, Lock, MOST_TABLES, Part as RestorePart, PartKind, Place, Rows, TOGETHER, parts, preamble,
};
pub use self::reader::{Readers, major, psql_restricts};
pub use self::rules::Rules;
pub use self::schedule::Schedule;
pub use self::script::{Script, ScriptError};
pub use self::selection::{Dropped, Reason, Selection, Warning};
pub use self::tar::{TAR_BLOCK, TarError, TarMember, TarNext, TarWalk};
pub use self::toc::{FolderToc, TOC};
pub use self::triggers::{TriggerFunction, trigger_functions};
pub use libpgdump::format::ArchiveMetadata;
pub use libpgdump::{ArchiveVersion, CompressionAlgorithm, Entry, ObjectType, OffsetState, Section};

/// The fewest bytes a data block has: its kind, its dump id, and the zero length that ends it (pg_dump's
/// `_StartData` and `_EndData` in pg_backup_custom.c), with integers of four bytes.
const SMALLEST_BLOCK: u64 = 1 + 5 + 5;

/// The table of contents of an archive, and what its header says.
#[derive(Debug, Clone)]
pub struct Contents {
    metadata: ArchiveMetadata,
    length: u64,
    foreign_text: bool,
}

/// A schema and a name in it, both as the catalog has them, without quotes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualifiedName {
    /// The schema's name.
    pub schema: String,
    /// The object's name.
    pub name: String,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl Contents {
    /// Reads the contents from the start of a custom-format archive, and not a byte more than they have.
    /// Fields are read one by one, so a file or socket wants a `BufReader` around it.
    ///
    /// # Errors
    /// Tells apart what is no archive, an archive that ends too early, one newer than we know, and a damaged one.
    pub fn read(mut reader: impl Read) -> Result<Self, ContentsError> {
        let head = archive::Head::read(&mut reader)?;
        let length = head.length();
        let foreign_text = head.has_foreign_text();
        let bytes = head.into_utf8();
        let metadata = libpgdump::format::custom::read_metadata(&mut bytes.as_slice())
            .map_err(|error| ContentsError::Damaged { what: error.to_string() })?;
        let contents = Self { metadata, length, foreign_text };
        contents.check_ids()?;
        Ok(contents)
    }

    /// pg_restore finds entries by their id, so an id must be positive and its entry's alone.
    fn check_ids(&self) -> Result<(), ContentsError> {
        let mut seen = HashSet::new();
        for entry in self.entries() {
            if entry.dump_id <= 0 || !seen.insert(entry.dump_id) {
                return Err(ContentsError::Damaged {
                    what: format!("entry id {} is used twice or out of range", entry.dump_id),
                });
            }
        }
        Ok(())
    }

    /// All entries, in the archive's order, which is one that pg_restore can follow.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.metadata.entries
    }

    /// Header and entries as `libpgdump` has them, to write archives that are parts of this one. With
    /// [foreign text](Self::has_foreign_text) they are fit for reading only, since their encoding is not the
    /// archive's.
    #[must_use]
    pub fn metadata(&self) -> &ArchiveMetadata {
        &self.metadata
    }

    /// How many bytes the contents take: the first data block starts here.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether some text in the archive is not UTF-8. Its names and definitions are then read byte by byte as
    /// ISO 8859-1, which is exact for databases in LATIN1 and unambiguous for others.
    #[must_use]
    pub fn has_foreign_text(&self) -> bool {
        self.foreign_text
    }

    /// The bytes that some text of the contents has in the archive.
    #[must_use]
    pub fn bytes_of(&self, text: &str) -> Vec<u8> {
        if self.foreign_text {
            // One byte was one character: there are no others.
            text.chars().filter_map(|character| u8::try_from(character).ok()).collect()
        } else {
            text.as_bytes().to_vec()
        }
    }

    /// The version of the archive format, which decides which pg_restore can read it.
    #[must_use]
    pub fn archive_version(&self) -> ArchiveVersion {
        self.metadata.header.version
    }

    /// How data blocks are compressed.
    #[must_use]
    pub fn compression(&self) -> CompressionAlgorithm {
        self.metadata.header.compression
    }

    /// The version of the server that was dumped, as it called itself.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.metadata.server_version
    }

    /// The version of the pg_dump that wrote the archive.
    #[must_use]
    pub fn dump_version(&self) -> &str {
        &self.metadata.dump_version
    }

    /// The name of the database that was dumped.
    #[must_use]
    pub fn dbname(&self) -> &str {
        &self.metadata.dbname
    }

    /// The encoding of everything in the archive, as PostgreSQL spells it.
    #[must_use]
    pub fn encoding(&self) -> Option<String> {
        let entry = self.entries().iter().find(|entry| entry.desc == ObjectType::Encoding)?;
        sql::tokens(entry.defn.as_deref()?).into_iter().find_map(|token| match token {
            sql::Token::Literal(encoding) => Some(encoding),
            _ => None,
        })
    }

    /// When the dump was started, in the local time of the host that ran pg_dump. `None` if it is no date.
    #[must_use]
    pub fn created(&self) -> Option<jiff::civil::DateTime> {
        // The archive holds a struct tm: months count from 0, years from 1900.
        let time = &self.metadata.timestamp;
        jiff::civil::DateTime::new(
            i16::try_from(time.year.checked_add(1900)?).ok()?,
            i8::try_from(time.month.checked_add(1)?).ok()?,
            i8::try_from(time.day).ok()?,
            i8::try_from(time.hour).ok()?,
            i8::try_from(time.minute).ok()?,
            // A leap second is the one legal 60.
            i8::try_from(time.second.min(59)).ok()?,
            0,
        )
        .ok()
    }

    /// Entries that own a block of data in the archive, in the archive's order. Their `offset` counts only when
    /// their `data_state` is [`OffsetState::Set`].
    pub fn data_entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries().iter().filter(|entry| has_block(entry))
    }

    /// Whether every block's place is known. It is not when pg_dump wrote into a pipe.
    #[must_use]
    pub fn offsets_known(&self) -> bool {
        self.data_entries().all(|entry| entry.data_state == OffsetState::Set)
    }

    /// Holds the blocks' places against the size of the whole file, in bytes.
    ///
    /// # Errors
    /// [`ContentsError::Cut`] when a block would start at or after the end of the file, [`ContentsError::Damaged`]
    /// when one would start inside the contents.
    pub fn check_extent(&self, file_length: u64) -> Result<(), ContentsError> {
        if file_length < self.length {
            return Err(ContentsError::Truncated { length: file_length });
        }
        for entry in self.data_entries().filter(|entry| entry.data_state == OffsetState::Set) {
            if entry.offset < self.length {
                return Err(ContentsError::Damaged {
                    what: format!("the data of {} would lie inside the contents", describe(entry)),
                });
            }
            if entry.offset.saturating_add(SMALLEST_BLOCK) > file_length {
                return Err(ContentsError::Cut {
                    entry: describe(entry),
                    offset: entry.offset,
                    length: file_length,
                });
            }
        }
        Ok(())
    }
}

/// The schema an entry lives in, if it lives in one.
#[must_use]
pub fn schema(entry: &Entry) -> Option<&str> {
    entry.namespace.as_deref().filter(|schema| !schema.is_empty())
}

/// The entry's name: what pg_dump calls its tag. Functions carry their arguments, constraints and triggers are
/// preceded by their table's name.
#[must_use]
pub fn name(entry: &Entry) -> &str {
    entry.tag.as_deref().unwrap_or_default()
}

/// What an entry is called in messages: kind, schema and name on one line.
#[must_use]
pub fn describe(entry: &Entry) -> String {
    match schema(entry) {
        Some(schema) => format!("{} {}.{}", entry.desc, list::one_line(schema), list::one_line(name(entry))),
        None => format!("{} {}", entry.desc, list::one_line(name(entry))),
    }
}

/// Whether an entry owns a block of data.
fn has_block(entry: &Entry) -> bool {
    entry.had_dumper && entry.data_state != OffsetState::NoData
}

/// Whether a table has its rows in partitions only.
fn is_partitioned(entry: &Entry) -> bool {
    let tokens = sql::tokens(entry.defn.as_deref().unwrap_or_default());
    sql::after(&tokens, &["partition", "by"]).is_some()
}

/// Schema and name of an entry, for the kinds whose tag is a plain name.
fn qualified_name(entry: &Entry) -> QualifiedName {
    QualifiedName { schema: schema(entry).unwrap_or_default().to_owned(), name: name(entry).to_owned() }
}
