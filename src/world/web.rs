//! The only room that speaks HTTP: lists folders of backups, asks what a file is, and reads it, whole or in part.
//!
//! Every read of a dump is held against the [`Meta`] that was seen first, so that bytes of two different files never
//! meet; nothing is retried here, but every error says whether trying again can help. Proxies are taken from the
//! usual environment variables. It knows nothing of steps, runs or what a dump contains.
//!
//! - `listing` reads a folder page by page, `start` the beginning of a file as far as it is wanted, `steady` a part of
//!   it that goes on after every break;
//! - `part` asks for a part and checks that the answer is it, `body` brings the bytes, `answer` reads the headers;
//! - `login` and `netrc` get us in, and nobody else to know how;
//! - `tls` and `redirect` say whom to trust and follow, `cause` what reqwest's errors mean, `error` what can go wrong.

mod answer;
mod body;
mod cause;
mod error;
mod listing;
mod login;
mod netrc;
mod part;
mod redirect;
mod start;
mod steady;
mod tls;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use tokio::sync::watch;
use url::Url;

use crate::backup::{self, without_password};

use self::answer::{content_range, meta, number, refuse_encoding, succeeded, text_of, with_credentials_of};
use self::body::unless_stopped;
use self::cause::root_cause;
use self::error::short;
use self::part::{Opened, Part};
use self::redirect::policy;
use self::tls::tls;

pub use self::error::{CaFileError, RedirectRefusal, TlsFault, WebError};
pub use self::login::{Access, Login};
pub use self::start::Start;
pub use self::steady::Steady;

/// The longest page that is read as a listing, in bytes.
const LISTING_LIMIT: u64 = 64 << 20;

/// The longest file of sums that is read, in bytes.
const SUM_LIMIT: u64 = 1 << 20;

/// What a listing may come in, in the order in which its sizes can be trusted.
const LISTING_TYPES: &str = "application/json, text/html;q=0.9, application/xml;q=0.8";

/// How to speak HTTP.
#[derive(Debug, Clone)]
pub struct WebOptions {
    /// How long a connection may take to come about, TLS included.
    pub connect_timeout: Duration,
    /// How long a server may stay silent, before its answer or within it.
    pub read_timeout: Duration,
    /// What to call ourselves in the server's log.
    pub user_agent: String,
    /// Certificates (PEM) of authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What to show to one server.
    pub login: Option<Login>,
}

impl Default for WebOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            user_agent: concat!("pg_staging/", env!("CARGO_PKG_VERSION")).to_owned(),
            ca_file: None,
            login: None,
        }
    }
}

/// A client for HTTP and HTTPS; clones share their connections.
#[derive(Debug, Clone)]
pub struct Web {
    client: Client,
    read_timeout: Duration,
    login: Option<Login>,
}

/// A page as [`backup::parse`] takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it was found after redirects, with the credentials it was asked for with if the host is still the same.
    pub final_url: Url,
    /// What the server says it is.
    pub content_type: Option<String>,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// What a server tells about a file; later reads are held against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Where the file was found after redirects, see [`Page::final_url`].
    pub url: Url,
    /// Its length in bytes; `None` when the server does not say.
    pub length: Option<u64>,
    /// What changes when the file does.
    pub validator: Option<Validator>,
    /// When it was last changed.
    pub last_modified: Option<Timestamp>,
    /// Whether the server says that it serves parts of the file.
    pub accept_ranges: bool,
}

/// What identifies one version of a file (RFC 9110, section 8.8), as the server wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validator {
    /// A strong entity tag with its quotes; weak ones do not promise the same bytes.
    Etag(String),
    /// The time of the last change, when there is no strong tag.
    LastModified(String),
}

/// How a download ended well: the sink has the whole rest of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Where in the file the first byte received stands: what was asked for, or 0 after a restart.
    pub from: u64,
    /// How many bytes were given to the sink since then.
    pub bytes: u64,
    /// Whether the server began again at the file's start.
    pub restarted: bool,
}

/// Where a download goes.
pub trait Sink: Send {
    /// Takes the next bytes, all of them; they are not kept elsewhere.
    ///
    /// # Errors
    /// Whatever keeps the bytes from being taken; the download ends with it.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()>;

    /// Forgets all it has: the next bytes are the file's first.
    ///
    /// # Errors
    /// Whatever keeps it from beginning again; the download ends with it.
    fn restart(&mut self) -> io::Result<()>;
}

impl Web {
    /// Makes a client that trusts the system's authorities and those in `options.ca_file`. Connects to nothing.
    ///
    /// # Errors
    /// When the file of authorities cannot be used.
    pub fn new(options: &WebOptions) -> Result<Self, WebError> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls(options)?)
            .user_agent(&options.user_agent)
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .redirect(policy())
            .referer(false)
            .http1_only()
            .build()
            .map_err(|error| WebError::Client { cause: root_cause(&error) })?;
        Ok(Self { client, read_timeout: options.read_timeout, login: options.login.clone() })
    }

    /// Reads a page that lists a folder, up to 64 MiB of it.
    ///
    /// # Errors
    /// As [`WebError`] has them.
    pub async fn list(&self, url: &Url) -> Result<Page, WebError> {
        let request = self.request(Method::GET, url)?.header(header::ACCEPT, LISTING_TYPES);
        let response = succeeded(self.send(request, url).await?, url).await?;
        refuse_encoding(&response, url)?;
        let content_type = text_of(response.headers(), &header::CONTENT_TYPE).map(str::to_owned);
        let final_url = with_credentials_of(response.url(), url);
        let body = self.collect(response, url, LISTING_LIMIT).await?;
        Ok(Page { final_url, content_type, body })
    }

    /// Asks what a file is, by HEAD, or by a request for its first byte where HEAD is not allowed or tells no length.
    ///
    /// # Errors
    /// As [`WebError`] has them.
    pub async fn head(&self, url: &Url) -> Result<Meta, WebError> {
        let response = self.send(self.request(Method::HEAD, url)?, url).await?;
        // Signed URLs of object stores are signed for one method and answer others with 403.
        if matches!(response.status().as_u16(), 403 | 405 | 501) {
            return self.probe(url).await;
        }
        let response = succeeded(response, url).await?;
        refuse_encoding(&response, url)?;
        let length = number(response.headers(), &header::CONTENT_LENGTH);
        if length.is_none() {
            return self.probe(url).await;
        }
        Ok(meta(&response, url, length))
    }

    /// Reads a short file, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`WebError`] has them; a longer file is [`WebError::TooLarge`].
    pub async fn get_small(&self, url: &Url, limit: u64) -> Result<Vec<u8>, WebError> {
        let response = self.send(self.request(Method::GET, url)?, url).await?;
        let response = succeeded(response, url).await?;
        refuse_encoding(&response, url)?;
        self.collect(response, url, limit).await
    }

    /// Reads the bytes from `first` to `last`, both included, fewer where the file ends before. They are kept in
    /// memory. A server that only has the whole file is good for a part at its beginning.
    ///
    /// # Errors
    /// As [`WebError`] has them; a file that is not the one of `meta` is [`WebError::Changed`].
    pub async fn get_range(
        &self,
        url: &Url,
        meta: &Meta,
        first: u64,
        last: u64,
    ) -> Result<Vec<u8>, WebError> {
        let part = Part { first, last: Some(last) };
        let Opened::Body { mut response, start, length } = self.open(url, meta, part).await? else {
            return Ok(Vec::new());
        };
        if start != first {
            return Err(WebError::NoRanges { url: without_password(url) });
        }
        let asked = last.saturating_sub(first).saturating_add(1);
        let expected = length.map_or(asked, |length| length.min(asked));
        let mut body = Vec::new();
        while (body.len() as u64) < asked {
            let got = body.len() as u64;
            let chunk = response.chunk().await.map_err(|error| self.broken(&error, url, got, length))?;
            let Some(chunk) = chunk else { break };
            body.extend_from_slice(&chunk);
        }
        body.truncate(usize::try_from(asked).unwrap_or(usize::MAX));
        match body.len() as u64 {
            got if length.is_some() && got < expected => Err(short(url, got, expected)),
            _ => Ok(body),
        }
    }

    /// Streams the file from `from` to its end into `sink`, one chunk at a time. When the server can only begin at
    /// the start, the sink is restarted, as long as the file is the same.
    ///
    /// # Errors
    /// As [`WebError`] has them. After [`WebError::Short`], [`WebError::Stalled`], [`WebError::Interrupted`] and
    /// [`WebError::Stopped`] what the sink has is good, and the download may go on behind it.
    pub async fn download(
        &self,
        url: &Url,
        meta: &Meta,
        from: u64,
        sink: &mut dyn Sink,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Received, WebError> {
        if from > 0 && meta.length == Some(from) {
            // All there is has come already. A server without ranges would send it once more.
            return Ok(Received { from, bytes: 0, restarted: false });
        }
        let part = Part { first: from, last: None };
        let opened = unless_stopped(url, stop, self.open(url, meta, part)).await??;
        let Opened::Body { response, start, length } = opened else {
            return Ok(Received { from, bytes: 0, restarted: false });
        };
        let restarted = start != from;
        if restarted {
            sink.restart().map_err(|source| WebError::Sink { url: without_password(url), source })?;
        }
        let bytes = self.pour(response, url, length, sink, stop).await?;
        Ok(Received { from: start, bytes, restarted })
    }

    /// Streams the bytes from `first` to `last`, both included, into `sink`, which is never restarted. Gives their
    /// number, which is smaller than asked for only where the file ends before `last`.
    ///
    /// # Errors
    /// As [`Web::download`] has them, and [`WebError::NoRanges`] when the server only has the whole file.
    pub async fn download_range(
        &self,
        url: &Url,
        meta: &Meta,
        first: u64,
        last: u64,
        sink: &mut dyn Sink,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<u64, WebError> {
        let part = Part { first, last: Some(last) };
        match unless_stopped(url, stop, self.open(url, meta, part)).await?? {
            Opened::Complete => Ok(0),
            Opened::Body { response, length, .. } if response.status() == StatusCode::PARTIAL_CONTENT => {
                self.pour(response, url, length, sink, stop).await
            }
            Opened::Body { .. } => Err(WebError::NoRanges { url: without_password(url) }),
        }
    }

    /// The sum that the `.sha256` file at `url` has for the file it is named after; `None` when there is no such file.
    ///
    /// # Errors
    /// As [`WebError`] has them; a file without that sum is [`WebError::Sum`].
    pub async fn sha256_of(&self, url: &Url) -> Result<Option<[u8; 32]>, WebError> {
        let text = match self.get_small(url, SUM_LIMIT).await {
            Err(WebError::NotFound { .. }) => return Ok(None),
            text => text?,
        };
        let name = backup::file_name(url).unwrap_or_default();
        let name = name.strip_suffix(".sha256").unwrap_or(&name);
        backup::parse_sha256(&text, name)
            .map(Some)
            .map_err(|source| WebError::Sum { url: without_password(url), source })
    }

    fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, WebError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(WebError::Scheme { url: without_password(url) });
        }
        // reqwest moves a user and password from the URL into the Authorization header, which it takes off again
        // when a redirect leads to another host, port or scheme; ours as well.
        let request = self.client.request(method, url.clone()).header(header::ACCEPT_ENCODING, "identity");
        Ok(match &self.login {
            Some(login) => login.apply(request, url),
            None => request,
        })
    }

    async fn send(&self, request: RequestBuilder, url: &Url) -> Result<Response, WebError> {
        request.send().await.map_err(|error| self.unanswered(&error, url))
    }

    /// Asks for the first byte to learn what HEAD does not tell.
    async fn probe(&self, url: &Url) -> Result<Meta, WebError> {
        let request = self.request(Method::GET, url)?.header(header::RANGE, "bytes=0-0");
        let response = self.send(request, url).await?;
        let told = content_range(response.headers());
        // 416 comes for an empty file, which has no first byte.
        let ranges =
            matches!(response.status(), StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE);
        let (response, length) = if ranges {
            (response, told.and_then(|range| range.total))
        } else {
            let response = succeeded(response, url).await?;
            let length = number(response.headers(), &header::CONTENT_LENGTH);
            (response, length)
        };
        refuse_encoding(&response, url)?;
        let meta = meta(&response, url, length);
        Ok(Meta { accept_ranges: meta.accept_ranges || ranges, ..meta })
    }
}

#[cfg(test)]
mod tests;
