//! The contents of a dump, wherever it is, read no further than they reach.

use std::fmt;
use std::io::BufReader;
use std::path::Path;

use url::Url;

use super::Trouble;
use super::disk;
use super::source::Source;
use super::unpack::Unpacked;
use super::web::{Meta, Start, Web, WebError};
use crate::backup::without_password;
use crate::contents::{Contents, ContentsError, Extent, Found, Packing};

/// By its first so many bytes one can tell what a file is.
const TELLING: u64 = 512;

/// The head of an archive on the backup server: all of it up to the first block of data.
#[derive(Debug, Clone)]
pub struct RemoteHead {
    /// What the archive holds.
    pub contents: Contents,
    /// The bytes that the contents were read from, and no more.
    pub bytes: Vec<u8>,
    /// Which version of which file; later reads of its blocks are held against it.
    pub meta: Meta,
}

/// Why the contents of a dump cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The server.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] Trouble),
    /// What is there is no dump that can be used.
    #[error("{name} is not a dump that can be restored")]
    Unfit {
        /// The file's path, or its URL as it may be shown.
        name: String,
        /// What it is instead, or what is wrong with it.
        source: ContentsError,
    },
    /// What is there is not what it should be.
    #[error("{name} is damaged")]
    Damaged {
        /// The file's path, or its URL as it may be shown.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl ArchiveError {
    /// Says what is wrong with this file.
    pub fn damaged(name: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self::Damaged { name: name.into(), cause: cause.to_string() }
    }
}

/// What kind of dump a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// pg_dump -Fc.
    Archive,
    /// pg_dump -Ft, or a folder by pg_dump -Fd in a tar file.
    Tar(Packing),
    /// pg_dump -Fd.
    Folder,
    /// pg_dump -Fp.
    Sql(Packing),
}

/// Looks what kind of dump a file is, by its beginning, and if it is compressed, by the beginning of what is in it.
///
/// # Errors
/// When it is none, with what it is instead; as reading has them.
pub async fn form_of(source: &Source) -> Result<Form, ArchiveError> {
    let unfit = |found| {
        let source_error = ContentsError::NotAnArchive { found };
        ArchiveError::Unfit { name: source.name(), source: source_error }
    };
    if let Source::File { path, .. } = source
        && path.is_dir()
    {
        return Ok(Form::Folder);
    }
    match Found::by_first_bytes(&beginning(source, Packing::Plain).await?) {
        // The magic bytes are those of every archive; the rest of its head tells whether it is one.
        Found::DirectoryToc => Ok(Form::Archive),
        Found::Tar => Ok(Form::Tar(Packing::Plain)),
        Found::PlainSql => Ok(Form::Sql(Packing::Plain)),
        found => {
            let packing = Packing::of(found).ok_or_else(|| unfit(found))?;
            match Found::by_first_bytes(&beginning(source, packing).await?) {
                Found::Tar => Ok(Form::Tar(packing)),
                Found::PlainSql => Ok(Form::Sql(packing)),
                _ => Err(unfit(found)),
            }
        }
    }
}

/// What a file begins with, uncompressed.
async fn beginning(source: &Source, packing: Packing) -> Result<Vec<u8>, ArchiveError> {
    let mut reading = Unpacked::new(source.name(), source.whole(0), packing);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < TELLING
        && let Some(chunk) = reading.chunk().await?
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(usize::try_from(TELLING).unwrap_or(usize::MAX));
    Ok(bytes)
}

/// Reads the head of the archive at `url`, with a few requests for parts of it, or as a stream that is left where the
/// contents end. It must be the file that is `known`, when one is. Keeps in memory what the contents take, and as much
/// again while they are read.
///
/// # Errors
/// As [`ArchiveError`] has them; when the file is replaced meanwhile, [`WebError::Changed`].
pub async fn remote(web: &Web, url: &Url, known: Option<&Meta>) -> Result<RemoteHead, ArchiveError> {
    let mut extent = Extent::default();
    // What is wrong with the bytes is found again, and told, when they are read below.
    let more = |bytes: &[u8]| matches!(extent.of(bytes), Ok(None));
    let Start { meta, mut bytes } = web.start_of(url, known, more).await?;
    let unfit = |source| ArchiveError::Unfit { name: without_password(url), source };
    let contents = Contents::read(bytes.as_slice()).map_err(unfit)?;
    if let Some(length) = meta.length {
        contents.check_extent(length).map_err(unfit)?;
    }
    bytes.truncate(usize::try_from(contents.length()).unwrap_or(usize::MAX));
    Ok(RemoteHead { contents, bytes, meta })
}

/// Reads the contents of an archive on this machine.
///
/// # Errors
/// As [`ArchiveError`] has them.
pub fn local(path: &Path) -> Result<Contents, ArchiveError> {
    let unfit = |source| ArchiveError::Unfit { name: path.display().to_string(), source };
    let file = disk::open(path)?;
    let found = file.metadata().map_err(|error| disk::refused("look at", path, &error))?;
    if found.is_dir() {
        return Err(unfit(ContentsError::NotAnArchive { found: Found::Folder }));
    }
    let contents = Contents::read(BufReader::new(file)).map_err(unfit)?;
    if found.is_file() {
        contents.check_extent(found.len()).map_err(unfit)?;
    }
    Ok(contents)
}
