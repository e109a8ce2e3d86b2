//! What can be wrong with bytes that should be an archive, and what they are instead.

use std::fmt;

use thiserror::Error;

use super::ArchiveVersion;

/// Why contents could not be read.
#[derive(Debug, Error)]
pub enum ContentsError {
    /// The bytes are something else.
    #[error("not a custom-format PostgreSQL archive but {found}")]
    NotAnArchive {
        /// What they look like.
        found: Found,
    },
    /// The file ends within its contents.
    #[error("the archive ends after {length} bytes, within its table of contents")]
    Truncated {
        /// How many bytes there were.
        length: u64,
    },
    /// The file ends before a block of data that its contents promise.
    #[error("the archive ends after {length} bytes, but the data of {entry} starts at byte {offset}")]
    Cut {
        /// The first entry found to have no data.
        entry: String,
        /// Where its data should start.
        offset: u64,
        /// The file's length.
        length: u64,
    },
    /// A newer pg_dump wrote it.
    #[error("archive version {version} is newer than {newest}, the newest that is known")]
    NewerVersion {
        /// The archive's version.
        version: ArchiveVersion,
        /// The newest version that can be read.
        newest: ArchiveVersion,
    },
    /// An archive of a kind that is not read.
    #[error("unsupported archive: {what}")]
    Unsupported {
        /// What about it.
        what: String,
    },
    /// The contents contradict themselves.
    #[error("damaged table of contents: {what}")]
    Damaged {
        /// The contradiction.
        what: String,
    },
    /// The contents go on and on.
    #[error("the table of contents is larger than {limit} bytes")]
    TooLarge {
        /// The most that is read.
        limit: u64,
    },
    /// Reading failed.
    #[error("cannot read the archive")]
    Io(#[from] std::io::Error),
}

impl ContentsError {
    /// What to do about it, when that can be known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotAnArchive { found } => return Some(found.hint().to_owned()),
            Self::Truncated { .. } | Self::Cut { .. } => {
                "fetch the dump again, and compare its size with the one on the backup server; \
                 if they agree, pg_dump itself was interrupted: take another day's backup"
            }
            Self::NewerVersion { .. } => "upgrade pg_staging, or dump with an older pg_dump",
            Self::Unsupported { .. } => "make the backup with pg_dump -Fc of PostgreSQL 9.0 or newer",
            Self::Damaged { .. } | Self::TooLarge { .. } => {
                "check the file with pg_restore -l, fetch it again, or take another day's backup"
            }
            Self::Io(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// What a file that is no custom-format archive looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing at all.
    Empty,
    /// A web page.
    Html,
    /// An XML document, such as an object store's error.
    Xml,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// LZ4 frames.
    Lz4,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
    /// A zip file.
    Zip,
    /// pg_dump's tar format, or any tar file.
    Tar,
    /// A folder: what pg_dump -Fd writes, or any other.
    Folder,
    /// The `toc.dat` of a directory-format dump, or of one in a tar file.
    DirectoryToc,
    /// A dump in plain SQL.
    PlainSql,
    /// What pg_dumpall writes.
    ClusterSql,
    /// None of the above.
    Unknown,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty file",
            Self::Html => "an HTML page",
            Self::Xml => "an XML document",
            Self::Gzip => "a gzip file",
            Self::Zstd => "a zstd file",
            Self::Lz4 => "an lz4 file",
            Self::Xz => "an xz file",
            Self::Bzip2 => "a bzip2 file",
            Self::Zip => "a zip file",
            Self::Tar => "a tar file",
            Self::Folder => "a folder, as pg_dump -Fd writes it",
            Self::DirectoryToc => "the toc.dat of a directory-format or tar-format dump",
            Self::PlainSql => "a plain SQL dump",
            Self::ClusterSql => "a plain SQL dump of a whole cluster",
            Self::Unknown => "data of an unknown kind",
        })
    }
}

impl Found {
    /// Names what a file is by its first bytes; the first 512 tell all that can be told.
    #[must_use]
    pub fn by_first_bytes(bytes: &[u8]) -> Self {
        const MAGIC: [(&[u8], Found); 7] = [
            (b"\x1f\x8b", Found::Gzip),
            (b"\x28\xb5\x2f\xfd", Found::Zstd),
            (b"\x04\x22\x4d\x18", Found::Lz4),
            (b"\xfd7zXZ\0", Found::Xz),
            (b"BZh", Found::Bzip2),
            (b"PK\x03\x04", Found::Zip),
            (b"PGDMP", Found::DirectoryToc),
        ];
        if bytes.is_empty() {
            return Self::Empty;
        }
        if let Some((_, found)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
            return *found;
        }
        if bytes.get(257..262) == Some(b"ustar") {
            return Self::Tar;
        }
        Self::by_text(bytes)
    }

    fn by_text(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        let text = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
        const SQL: [&str; 9] =
            ["--", "/*", "\\", "set ", "create ", "begin", "copy ", "insert ", "select pg_catalog."];
        if text.starts_with("<?xml") {
            Self::Xml
        } else if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<head") {
            Self::Html
        } else if text.contains("-- postgresql database cluster dump") {
            Self::ClusterSql
        } else if SQL.iter().any(|start| text.starts_with(start)) {
            Self::PlainSql
        } else {
            Self::Unknown
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Empty => "the backup is empty: take another day's, and look at the job that made it",
            Self::Html | Self::Xml => {
                "the server answered with a page instead of a dump: check backup_base_url, and open it in a browser"
            }
            Self::Gzip | Self::Zstd | Self::Lz4 | Self::Xz | Self::Bzip2 | Self::Zip => {
                "unpack it first; pg_dump -Fc compresses by itself"
            }
            Self::Tar | Self::Folder | Self::DirectoryToc => "make the backup with pg_dump -Fc",
            Self::PlainSql | Self::ClusterSql => "load it with psql, or make the backup with pg_dump -Fc",
            Self::Unknown => "make the backup with pg_dump -Fc, and check that the download is complete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_a_file_is() {
        let mut tar = b"toc.dat".to_vec();
        tar.resize(512, 0);
        tar.splice(257..262, *b"ustar");
        let cases: [(&[u8], Found); 12] = [
            (b"", Found::Empty),
            (b"\n <!DOCTYPE html><html>", Found::Html),
            (b"\xef\xbb\xbf<html>", Found::Html),
            (b"<?xml version='1.0'?><Error/>", Found::Xml),
            (b"\x1f\x8b\x08\x00", Found::Gzip),
            (b"BZh91AY", Found::Bzip2),
            (&tar, Found::Tar),
            (b"--\n-- PostgreSQL database dump\n--\n", Found::PlainSql),
            (b"\\restrict abc\n", Found::PlainSql),
            (b"--\n-- PostgreSQL database cluster dump\n--\n", Found::ClusterSql),
            (b"PGDM_", Found::Unknown),
            (b"\0\0\0\0", Found::Unknown),
        ];
        for (bytes, found) in cases {
            assert_eq!(Found::by_first_bytes(bytes), found, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
