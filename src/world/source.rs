//! A file that is read where it is: on the backup server, or on this machine.

use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use url::Url;

use super::Trouble;
use super::archive::ArchiveError;
use super::disk;
use super::web::{Meta, Steady, Web};
use crate::backup::without_password;

/// How much of a file on this machine is read at once, in bytes.
const AT_ONCE: usize = 256 << 10;

/// Where a file is.
#[derive(Debug, Clone)]
pub enum Source {
    /// On the backup server.
    Web(Box<Remote>),
    /// On this machine.
    File {
        /// Where.
        path: PathBuf,
        /// How long it is, in bytes.
        length: u64,
    },
}

/// A file on the backup server.
#[derive(Debug, Clone)]
pub struct Remote {
    web: Web,
    url: Url,
    meta: Meta,
}

impl Source {
    /// A file on the backup server, in the version that `meta` tells of.
    #[must_use]
    pub fn remote(web: Web, url: Url, meta: Meta) -> Source {
        Source::Web(Box::new(Remote { web, url, meta }))
    }

    /// A file on this machine, as long as it is now.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn local(path: PathBuf) -> Result<Source, Trouble> {
        let found = disk::open(&path)?.metadata().map_err(|error| disk::refused("look at", &path, &error))?;
        Ok(Source::File { path, length: found.len() })
    }

    /// What it is called, as it may be shown.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Source::Web(remote) => without_password(&remote.url),
            Source::File { path, .. } => path.display().to_string(),
        }
    }

    /// Its length in bytes, when that is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Source::Web(remote) => remote.meta.length,
            Source::File { length, .. } => Some(*length),
        }
    }

    /// Begins to read the bytes from `first` up to `end`, which is not included. A server must serve parts.
    #[must_use]
    pub fn part(&self, first: u64, end: u64) -> Reading<'_> {
        Reading(match self {
            Source::Web(remote) => {
                let Remote { web, url, meta } = remote.as_ref();
                From::Web(web.read_part(url, meta, first, end))
            }
            Source::File { path, .. } => {
                From::File(Local { path, file: None, at: first, end, buffer: BytesMut::new() })
            }
        })
    }

    /// Begins to read from `first` to the file's end, from whatever server.
    #[must_use]
    pub fn whole(&self, first: u64) -> Reading<'_> {
        match self {
            Source::Web(remote) => {
                let Remote { web, url, meta } = remote.as_ref();
                Reading(From::Web(web.read_whole(url, meta, first)))
            }
            Source::File { length, .. } => self.part(first, *length),
        }
    }
}

/// A file, or a part of it, on its way.
#[derive(Debug)]
pub struct Reading<'a>(From<'a>);

#[derive(Debug)]
enum From<'a> {
    Web(Steady<'a>),
    File(Local<'a>),
}

#[derive(Debug)]
struct Local<'a> {
    path: &'a PathBuf,
    file: Option<File>,
    at: u64,
    end: u64,
    buffer: BytesMut,
}

impl Reading<'_> {
    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// As the web or the disk has them.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        match &mut self.0 {
            From::Web(steady) => Ok(steady.chunk().await?),
            From::File(local) => local.chunk().await,
        }
    }
}

impl Local<'_> {
    async fn chunk(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        let left = self.end.saturating_sub(self.at);
        if left == 0 {
            return Ok(None);
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(AT_ONCE);
        let path = self.path;
        let failed = |error: std::io::Error| disk::refused("read", path, &error);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut file = File::open(path).await.map_err(failed)?;
                file.seek(std::io::SeekFrom::Start(self.at)).await.map_err(failed)?;
                self.file.insert(file)
            }
        };
        self.buffer.reserve(length);
        let read = file.take(length as u64).read_buf(&mut self.buffer).await.map_err(failed)?;
        if read == 0 {
            let cause = format!("it ends after {} bytes, and had {}", self.at, self.end);
            return Err(ArchiveError::damaged(path.display().to_string(), cause));
        }
        self.at = self.at.saturating_add(read as u64);
        Ok(Some(self.buffer.split().freeze()))
    }
}
