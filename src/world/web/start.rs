//! The start of a file, as far as somebody wants it: by ranges that grow where the server serves them, as a stream that
//! is hung up on where it does not.

use reqwest::{Response, StatusCode};
use url::Url;

use super::answer::{content_range, meta, number};
use super::error::{changed, short};
use super::part::{Opened, Part};
use super::{Meta, Web, WebError};

/// How much is asked for at first, in bytes. Each further request doubles what is there.
const FIRST: u64 = 64 << 10;

/// What came of a file's start, and which version of the file it is the start of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// What the server told of the file; later reads are held against it.
    pub meta: Meta,
    /// The bytes from the first on, at least as many as were wanted, unless the file ends before.
    pub bytes: Vec<u8>,
}

impl Web {
    /// Reads a file from its start for as long as `wanted`, which is given all that is there, says that more is wanted.
    /// Once it has said no it is not asked again. What came is kept in memory, at most twice what was wanted. It must be
    /// the file that is `known`, when one is.
    ///
    /// # Errors
    /// As [`WebError`] has them; when the file is replaced between two requests, [`WebError::Changed`].
    pub async fn start_of(
        &self,
        url: &Url,
        known: Option<&Meta>,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Start, WebError> {
        let unknown = || Meta {
            url: url.clone(),
            length: None,
            validator: None,
            last_modified: None,
            accept_ranges: false,
        };
        let mut start = Start { meta: known.cloned().unwrap_or_else(unknown), bytes: Vec::new() };
        loop {
            let here = start.bytes.len() as u64;
            let until = here.saturating_mul(2).max(FIRST);
            let part = Part { first: here, last: Some(until.saturating_sub(1)) };
            let Opened::Body { response, length, .. } = self.open(url, &start.meta, part).await? else {
                return Ok(start);
            };
            if here == 0 {
                start.meta = told_by(&response, url);
            }
            if response.status() != StatusCode::PARTIAL_CONTENT {
                self.take_from_stream(&mut start, response, url, &mut wanted).await?;
                return Ok(start);
            }
            self.take_part(&mut start, response, url, length).await?;
            let here = start.bytes.len() as u64;
            if !wanted(&start.bytes) || here < until || start.meta.length == Some(here) {
                return Ok(start);
            }
        }
    }

    async fn take_part(
        &self,
        start: &mut Start,
        mut response: Response,
        url: &Url,
        length: Option<u64>,
    ) -> Result<(), WebError> {
        let mut got: u64 = 0;
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.broken(&error, url, got, length))?
        {
            got = got.saturating_add(chunk.len() as u64);
            if let Some(length) = length.filter(|length| got > *length) {
                return Err(changed(url, &format!("more than {length} bytes came")));
            }
            start.bytes.extend_from_slice(&chunk);
        }
        match length {
            Some(expected) if got < expected => Err(short(url, got, expected)),
            _ => Ok(()),
        }
    }

    /// The whole file comes. What is here already comes once more, and has to be the same. Leaving drops the answer,
    /// and with it the connection.
    async fn take_from_stream(
        &self,
        start: &mut Start,
        mut response: Response,
        url: &Url,
        wanted: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), WebError> {
        let length = start.meta.length;
        let mut got: u64 = 0;
        loop {
            let chunk = response.chunk().await.map_err(|error| self.broken(&error, url, got, length))?;
            let Some(chunk) = chunk else {
                return match length {
                    Some(expected) if got < expected => Err(short(url, got, expected)),
                    _ => Ok(()),
                };
            };
            let from = usize::try_from(got).unwrap_or(usize::MAX);
            let known = start.bytes.get(from..).unwrap_or_default();
            let same = known.len().min(chunk.len());
            if known.get(..same) != chunk.get(..same) {
                return Err(changed(url, "its first bytes are others now"));
            }
            got = got.saturating_add(chunk.len() as u64);
            let fresh = chunk.get(same..).unwrap_or_default();
            start.bytes.extend_from_slice(fresh);
            if !fresh.is_empty() && !wanted(&start.bytes) {
                return Ok(());
            }
        }
    }
}

/// What the first answer tells of the file.
fn told_by(response: &Response, url: &Url) -> Meta {
    let ranges = response.status() == StatusCode::PARTIAL_CONTENT;
    let length = match content_range(response.headers()) {
        Some(range) if ranges => range.total,
        _ => number(response.headers(), &reqwest::header::CONTENT_LENGTH),
    };
    let meta = meta(response, url, length);
    Meta { accept_ranges: ranges, ..meta }
}
