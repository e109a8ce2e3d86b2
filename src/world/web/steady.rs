//! Bytes of a file, read on after every break: where the connection is lost, what is missing is asked for again.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use url::Url;

use super::error::{changed, short};
use super::part::{Opened, Part};
use super::{Meta, Web, WebError};
use crate::backup::without_password;
use crate::world::pause;

/// How often in a row a request may bring nothing.
const FRUITLESS: u32 = 6;
/// The first wait after one that brought nothing; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait that a server may ask for here. A longer one is for who began the reading.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A part of a file on its way.
#[derive(Debug)]
pub struct Steady<'a> {
    web: &'a Web,
    url: &'a Url,
    meta: &'a Meta,
    at: u64,
    end: Option<u64>,
    whole: bool,
    response: Option<Response>,
    /// What came with the last bytes that were read past.
    rest: Option<Bytes>,
    fruitless: u32,
}

impl Web {
    /// Begins to read the bytes from `first` up to `end`, which is not included. The server must serve parts.
    pub fn read_part<'a>(&'a self, url: &'a Url, meta: &'a Meta, first: u64, end: u64) -> Steady<'a> {
        Steady { whole: false, end: Some(end), ..self.read_whole(url, meta, first) }
    }

    /// Begins to read from `first` to the file's end. From a server that does not serve parts the file comes from its
    /// start, and what is before is read past.
    pub fn read_whole<'a>(&'a self, url: &'a Url, meta: &'a Meta, first: u64) -> Steady<'a> {
        Steady {
            web: self,
            url,
            meta,
            at: first,
            end: meta.length,
            whole: true,
            response: None,
            rest: None,
            fruitless: 0,
        }
    }
}

impl Steady<'_> {
    /// The next bytes, or `None` at the end of the part.
    ///
    /// # Errors
    /// As [`WebError`] has them: permanent ones at once, transient ones after several requests in a row that brought
    /// nothing.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, WebError> {
        loop {
            if self.end == Some(self.at) {
                return Ok(None);
            }
            match self.attempt().await {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.fruitless = 0;
                    return Ok(Some(chunk));
                }
                // An end that was not announced is the end.
                Ok(None) if self.end.is_none() => return Ok(None),
                Ok(None) => {
                    let end = self.end.unwrap_or_default();
                    self.wait_after(short(self.url, self.at, end)).await?;
                }
                Err(error) => self.wait_after(error).await?,
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<Bytes>, WebError> {
        if self.response.is_none() {
            self.open().await?;
        }
        let Some(response) = &mut self.response else { return Ok(None) };
        let chunk = match self.rest.take() {
            Some(rest) => Some(rest),
            None => response
                .chunk()
                .await
                .map_err(|error| self.web.broken(&error, self.url, self.at, self.end))?,
        };
        let Some(chunk) = chunk else { return Ok(None) };
        self.at = self.at.saturating_add(chunk.len() as u64);
        match self.end {
            Some(end) if self.at > end => Err(changed(self.url, &format!("more than {end} bytes came"))),
            _ => Ok(Some(chunk)),
        }
    }

    async fn open(&mut self) -> Result<(), WebError> {
        let last = self.end.filter(|_| !self.whole).map(|end| end.saturating_sub(1));
        let part = Part { first: self.at, last };
        let Opened::Body { response, start, .. } = self.web.open(self.url, self.meta, part).await? else {
            return Ok(());
        };
        if start != self.at && !self.whole {
            return Err(WebError::NoRanges { url: without_password(self.url) });
        }
        let mut past = self.at.saturating_sub(start);
        let mut response = response;
        while past > 0 {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| self.web.broken(&error, self.url, start, self.end))?;
            let Some(mut chunk) = chunk else { return Err(short(self.url, self.at - past, self.at)) };
            let skipped = usize::try_from(past).unwrap_or(usize::MAX).min(chunk.len());
            past -= skipped as u64;
            let rest = chunk.split_off(skipped);
            self.rest = (!rest.is_empty()).then_some(rest);
        }
        self.response = Some(response);
        Ok(())
    }

    /// Waits a little before the next request, when there should be one.
    async fn wait_after(&mut self, error: WebError) -> Result<(), WebError> {
        (self.response, self.rest) = (None, None);
        self.fruitless += 1;
        let asked = error.retry_after().unwrap_or_default();
        if !error.is_transient() || self.fruitless > FRUITLESS || asked > LONGEST_WAIT {
            return Err(error);
        }
        // What has just brought bytes is asked again at once.
        let wait = FIRST_WAIT.saturating_mul(1 << self.fruitless.saturating_sub(1)) / 2;
        tracing::debug!("{error}; going on at byte {}", self.at);
        if self.fruitless > 1 || !asked.is_zero() {
            pause(wait.max(asked)).await;
        }
        Ok(())
    }
}
