//! The only file that speaks HTTP: lists folders of backups, asks what a file is, and reads it, whole or in part.
//!
//! Every read of a dump is held against the [`Meta`] that was seen first, so that bytes of two different files never
//! meet; nothing is retried here, but every error says whether trying again can help. Proxies are taken from the
//! usual environment variables. It knows nothing of steps, runs or what a dump contains.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::sync::watch;
use url::Url;

use crate::backup::{self, NoSum, StorageError, without_password};

/// The longest page that is read as a listing, in bytes.
const LISTING_LIMIT: u64 = 64 << 20;

/// The longest file of sums that is read, in bytes.
const SUM_LIMIT: u64 = 1 << 20;

/// How much of an error's body is read in search of an object store's reason, in bytes.
const REASON_LIMIT: u64 = 64 << 10;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;

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
}

impl Default for WebOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            user_agent: concat!("pg_staging/", env!("CARGO_PKG_VERSION")).to_owned(),
            ca_file: None,
        }
    }
}

/// A client for HTTP and HTTPS; clones share their connections.
#[derive(Debug, Clone)]
pub struct Web {
    client: Client,
    read_timeout: Duration,
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

/// Why a redirect was not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectRefusal {
    /// It leads to something that is not HTTP.
    #[error("it leads away from HTTP")]
    Scheme,
    /// It leads from HTTPS to HTTP.
    #[error("it leads from https to http")]
    Downgrade,
    /// There were more than ten of them.
    #[error("it is the eleventh in a row")]
    TooMany,
}

/// What keeps a TLS connection from coming about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// Nobody who is trusted vouches for the server.
    Issuer,
    /// The certificate itself: out of date, or for another name.
    Certificate,
    /// The talk: no common version, or no TLS at all.
    Protocol,
}

/// What the client's redirect policy hands through reqwest, whose own error does not tell where it led.
#[derive(Debug, thiserror::Error)]
#[error("the redirect to {to} is refused")]
struct RefusedRedirect {
    to: String,
    reason: RedirectRefusal,
}

/// What can go wrong. URLs are held as they may be shown, without user and password.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The file of authorities cannot be used.
    #[error("cannot read certificates from {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CaFileError,
    },
    /// The HTTP client or a request cannot be made.
    #[error("cannot prepare the request: {cause}")]
    Client {
        /// What is wrong.
        cause: String,
    },
    /// The URL is none that can be fetched.
    #[error("{url} is not an http or https URL")]
    Scheme {
        /// The URL.
        url: String,
    },
    /// The host's name has no address.
    #[error("cannot find the host of {url}: {cause}")]
    Host {
        /// The URL.
        url: String,
        /// The resolver's words.
        cause: String,
        /// Whether the resolver itself could not be asked.
        temporary: bool,
    },
    /// No connection came about.
    #[error("cannot connect to {url}: {cause}")]
    Connect {
        /// The URL.
        url: String,
        /// Refused, unreachable, no answer in time.
        cause: String,
    },
    /// The server could not prove who it is, or speaks no TLS that we do.
    #[error("no secure connection to {url}: {cause}")]
    Tls {
        /// The URL.
        url: String,
        /// What TLS stumbled on.
        cause: String,
        /// Of what kind that is.
        fault: TlsFault,
    },
    /// The connection broke before the answer was whole.
    #[error("the connection broke while reading {url}: {cause}")]
    Interrupted {
        /// The URL.
        url: String,
        /// How it broke.
        cause: String,
    },
    /// The server fell silent.
    #[error("no byte of {url} came within {} s", limit.as_secs_f64())]
    Stalled {
        /// The URL.
        url: String,
        /// How long was waited.
        limit: Duration,
    },
    /// There is no such file.
    #[error("{url} does not exist{}", in_parentheses(reason.as_ref()))]
    NotFound {
        /// The URL.
        url: String,
        /// What an object store says about it.
        reason: Option<StorageError>,
    },
    /// Any other answer that is not success.
    #[error("{url} was answered with {code} {reason}")]
    Status {
        /// The URL.
        url: String,
        /// The status code.
        code: u16,
        /// What the code means, or what an object store says.
        reason: String,
        /// How long the server asks to wait before the next try.
        retry_after: Option<Duration>,
    },
    /// A redirect that is not followed.
    #[error("the redirect from {url} to {to} is not followed: {reason}")]
    Redirect {
        /// The URL that was asked for.
        url: String,
        /// Where the redirect leads.
        to: String,
        /// Why not.
        reason: RedirectRefusal,
    },
    /// The file is not the one that was seen before.
    #[error("{url} has changed since it was first seen: {detail}")]
    Changed {
        /// The URL.
        url: String,
        /// What shows it.
        detail: String,
    },
    /// The answer ended early.
    #[error("only {got} of {expected} bytes of {url} came")]
    Short {
        /// The URL.
        url: String,
        /// The bytes that came, of those asked for.
        got: u64,
        /// The bytes that were announced.
        expected: u64,
    },
    /// The server answers a request for a part with the whole file.
    #[error("the server does not serve parts of {url}")]
    NoRanges {
        /// The URL.
        url: String,
    },
    /// The server sent a part that was not asked for.
    #[error("bytes {asked} of {url} were asked for, and the server sent {answered}")]
    Range {
        /// The URL.
        url: String,
        /// The range asked for, `FIRST-LAST`.
        asked: String,
        /// The answer's Content-Range.
        answered: String,
    },
    /// The server compresses the file on its way.
    #[error("{url} comes encoded as {encoding}")]
    Encoded {
        /// The URL.
        url: String,
        /// The encoding's name.
        encoding: String,
    },
    /// The body is longer than may be kept in memory.
    #[error("{url} is longer than {limit} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// The most that is read.
        limit: u64,
    },
    /// A file of sums without the sum it is there for.
    #[error("cannot use the sums in {url}")]
    Sum {
        /// The URL.
        url: String,
        /// What is missing.
        source: NoSum,
    },
    /// The bytes came but could not be kept.
    #[error("cannot keep what came of {url}")]
    Sink {
        /// The URL.
        url: String,
        /// What the sink said.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("stopped while reading {url}")]
    Stopped {
        /// The URL.
        url: String,
    },
}

/// What is wrong with a file of certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// It cannot be read, or not as PEM.
    #[error(transparent)]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// It holds a certificate that cannot be an authority's.
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    Empty,
}

impl WebError {
    /// Whether the same request may succeed a little later: the network, the server or its load was to blame, not
    /// what was asked for.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Interrupted { .. } | Self::Stalled { .. } | Self::Short { .. } => {
                true
            }
            Self::Host { temporary, .. } => *temporary,
            // 501 and 505 are 5xx too, but say that the server will never do this.
            Self::Status { code, .. } => matches!(code, 408 | 429 | 500..=599) && !matches!(code, 501 | 505),
            Self::CaFile { .. }
            | Self::Client { .. }
            | Self::Scheme { .. }
            | Self::Tls { .. }
            | Self::NotFound { .. }
            | Self::Redirect { .. }
            | Self::Changed { .. }
            | Self::NoRanges { .. }
            | Self::Range { .. }
            | Self::Encoded { .. }
            | Self::TooLarge { .. }
            | Self::Sum { .. }
            | Self::Sink { .. }
            | Self::Stopped { .. } => false,
        }
    }

    /// How long the server asked to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What to change or type next, where that can be known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::CaFile { .. } => "name a readable file of certificates in PEM form",
            Self::Scheme { .. } => {
                "write backup_host as a host, host:port, or a URL with http:// or https://"
            }
            Self::Host { .. } => "check the name in backup_host",
            Self::Connect { .. } | Self::Stalled { .. } => {
                "check backup_host, and that its web server is up and can be reached from here"
            }
            Self::Tls { fault: TlsFault::Issuer, .. } => {
                "add the authority that signed the server's certificate to the ones this host trusts \
                 (SSL_CERT_FILE names another bundle)"
            }
            Self::Tls { fault: TlsFault::Certificate, .. } => {
                "check that backup_host is the name in the server's certificate, its dates and this host's clock; \
                 a self-signed one must not be marked as an authority (CA:FALSE)"
            }
            Self::Tls { fault: TlsFault::Protocol, .. } => {
                "check that the server speaks https at this port; for plain HTTP write http:// in backup_host"
            }
            Self::NotFound { .. } => "see what is there: pg_staging backups",
            Self::Status { code: 401 | 403 | 407, .. } => {
                "give user and password in the URL of backup_host, or let the server allow this host"
            }
            Self::Redirect { .. } => "put the address where the backups really are into backup_host",
            Self::Changed { .. } => "the file was replaced on the server: begin again with a new run",
            Self::NoRanges { .. } | Self::Range { .. } => {
                "set fast = False, or let the web server serve byte ranges"
            }
            Self::Encoded { .. } => "turn compression off for dumps on the web server",
            Self::TooLarge { .. } => "check that backup_base_url is the page that lists the dumps",
            Self::Sum { .. } => "write the file anew on the server: sha256sum DUMP > DUMP.sha256",
            Self::Client { .. }
            | Self::Interrupted { .. }
            | Self::Status { .. }
            | Self::Short { .. }
            | Self::Sink { .. }
            | Self::Stopped { .. } => return None,
        })
    }
}

fn in_parentheses(reason: Option<&StorageError>) -> String {
    reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
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
            .redirect(Policy::custom(|attempt| match refusal(&attempt) {
                None => attempt.follow(),
                Some(reason) => {
                    let to = without_password(attempt.url());
                    attempt.error(RefusedRedirect { to, reason })
                }
            }))
            .referer(false)
            .http1_only()
            .build()
            .map_err(|error| WebError::Client { cause: root_cause(&error) })?;
        Ok(Self { client, read_timeout: options.read_timeout })
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
        // when a redirect leads to another host, port or scheme.
        Ok(self.client.request(method, url.clone()).header(header::ACCEPT_ENCODING, "identity"))
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

    /// Asks for a part of the file that `meta` describes, and makes sure that the answer is of that file.
    async fn open(&self, url: &Url, meta: &Meta, part: Part) -> Result<Opened, WebError> {
        let mut request = self.request(Method::GET, url)?;
        if !part.is_whole() {
            request = request.header(header::RANGE, format!("bytes={part}"));
            if let Some(validator) = &meta.validator {
                request = request.header(header::IF_RANGE, validator.as_str());
            }
        }
        let response = self.send(request, url).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if !part.is_whole() => opened_part(response, url, meta, part),
            StatusCode::OK => opened_whole(response, url, meta),
            StatusCode::RANGE_NOT_SATISFIABLE => opened_behind_the_end(&response, url, meta, part),
            StatusCode::PRECONDITION_FAILED => Err(changed(url, "the server says so (412)")),
            _ => {
                let answer = succeeded(response, url).await?;
                Err(WebError::Status {
                    url: without_password(url),
                    code: answer.status().as_u16(),
                    reason: reason_phrase(answer.status()),
                    retry_after: None,
                })
            }
        }
    }

    /// Streams an answer into the sink and gives its length, which is the announced one if there is one.
    async fn pour(
        &self,
        mut response: Response,
        url: &Url,
        length: Option<u64>,
        sink: &mut dyn Sink,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<u64, WebError> {
        let mut got: u64 = 0;
        loop {
            let chunk = unless_stopped(url, stop, response.chunk()).await?;
            let Some(chunk) = chunk.map_err(|error| self.broken(&error, url, got, length))? else {
                break;
            };
            let now = got.saturating_add(chunk.len() as u64);
            if let Some(length) = length.filter(|length| now > *length) {
                return Err(changed(url, &format!("more than {length} bytes came")));
            }
            sink.write(&chunk).map_err(|source| WebError::Sink { url: without_password(url), source })?;
            got = now;
        }
        match length {
            Some(expected) if got < expected => Err(short(url, got, expected)),
            _ => Ok(got),
        }
    }

    /// An answer's whole body in memory.
    async fn collect(&self, mut response: Response, url: &Url, limit: u64) -> Result<Vec<u8>, WebError> {
        let too_large = || WebError::TooLarge { url: without_password(url), limit };
        let length = number(response.headers(), &header::CONTENT_LENGTH);
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        loop {
            let got = body.len() as u64;
            let chunk = response.chunk().await.map_err(|error| self.broken(&error, url, got, length))?;
            let Some(chunk) = chunk else { return Ok(body) };
            if got.saturating_add(chunk.len() as u64) > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// Why there was no answer.
    fn unanswered(&self, error: &reqwest::Error, url: &Url) -> WebError {
        let url = without_password(url);
        if let Some(refused) = find::<RefusedRedirect>(error) {
            return WebError::Redirect { url, to: refused.to.clone(), reason: refused.reason };
        }
        if let Some(tls) = find::<rustls::Error>(error) {
            return WebError::Tls { url, cause: tls.to_string(), fault: tls_fault(tls) };
        }
        if error.is_builder() {
            return WebError::Client { cause: root_cause(error) };
        }
        if error.is_timeout() && !error.is_connect() {
            return WebError::Stalled { url, limit: self.read_timeout };
        }
        let cause = root_cause(error);
        if error.is_dns() {
            // EAI_AGAIN in the words of glibc and of musl: the resolver cannot be asked now.
            let temporary = cause.contains("Temporary failure") || cause.contains("Try again");
            return WebError::Host { url, cause, temporary };
        }
        if error.is_connect() {
            return WebError::Connect { url, cause };
        }
        // Reset, closed before the answer, a connection that the server gave up: all worth a new connection.
        WebError::Interrupted { url, cause }
    }

    /// Why an answer's body broke off after `got` bytes.
    fn broken(&self, error: &reqwest::Error, url: &Url, got: u64, length: Option<u64>) -> WebError {
        if error.is_timeout() {
            return WebError::Stalled { url: without_password(url), limit: self.read_timeout };
        }
        match length {
            Some(expected) if got < expected => short(url, got, expected),
            _ => WebError::Interrupted { url: without_password(url), cause: root_cause(error) },
        }
    }
}

/// TLS as rustls with ring does it. A host without any trusted authority can still speak plain HTTP, so that an
/// empty store is no error before a server has to be proven.
fn tls(options: &WebOptions) -> Result<ClientConfig, WebError> {
    let mut roots = RootCertStore::empty();
    // Bundles hold the odd certificate that cannot be used; what it would have vouched for fails with its own error.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &options.ca_file {
        add_authorities(&mut roots, path)
            .map_err(|source| WebError::CaFile { path: path.clone(), source })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| WebError::Client { cause: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Not h2: there all downloads from a host share one connection and its window, so that a few whose sinks wait
    // (for pg_restore) starve the others until they count as stalled.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn add_authorities(roots: &mut RootCertStore, path: &std::path::Path) -> Result<(), CaFileError> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    if roots.len() == before { Err(CaFileError::Empty) } else { Ok(()) }
}

fn refusal(attempt: &Attempt<'_>) -> Option<RedirectRefusal> {
    let from_https = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
    match attempt.url().scheme() {
        "https" | "http" if attempt.previous().len() > MAX_REDIRECTS => Some(RedirectRefusal::TooMany),
        "http" if from_https => Some(RedirectRefusal::Downgrade),
        "https" | "http" => None,
        _ => Some(RedirectRefusal::Scheme),
    }
}

fn tls_fault(error: &rustls::Error) -> TlsFault {
    match error {
        // A bad signature means that the authority of that name is another one than the one that signed.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => TlsFault::Issuer,
        rustls::Error::InvalidCertificate(_) => TlsFault::Certificate,
        _ => TlsFault::Protocol,
    }
}

/// What part of a file is asked for; written as a Range header has it.
#[derive(Clone, Copy)]
struct Part {
    first: u64,
    last: Option<u64>,
}

impl Part {
    fn is_whole(self) -> bool {
        self.first == 0 && self.last.is_none()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-", self.first)?;
        self.last.map_or(Ok(()), |last| write!(out, "{last}"))
    }
}

/// An answer that is of the right file.
enum Opened {
    /// Bytes are coming, from `start` on, `length` of them if that is known.
    Body { response: Response, start: u64, length: Option<u64> },
    /// There are none from there on: the file ends where the part begins.
    Complete,
}

/// 206: the bytes asked for, or fewer of them.
fn opened_part(response: Response, url: &Url, meta: &Meta, part: Part) -> Result<Opened, WebError> {
    check_same(&response, url, meta)?;
    let unfit = || WebError::Range {
        url: without_password(url),
        asked: part.to_string(),
        answered: text_of(response.headers(), &header::CONTENT_RANGE).unwrap_or("no range").to_owned(),
    };
    let told = content_range(response.headers()).ok_or_else(unfit)?;
    let (first, last) = told.bytes.ok_or_else(unfit)?;
    if first != part.first || last < first || part.last.is_some_and(|asked| last > asked) {
        return Err(unfit());
    }
    if let (Some(total), Some(known)) = (told.total, meta.length)
        && total != known
    {
        return Err(changed(url, &format!("it had {known} bytes and now has {total}")));
    }
    // A server may send less than it was asked for. What is missing then counts as cut off, so that it is fetched.
    let end = told.total.or(meta.length).map_or(last, |total| total.saturating_sub(1));
    let end = part.last.map_or(end, |asked| asked.min(end)).max(last);
    Ok(Opened::Body { response, start: first, length: Some((end - first).saturating_add(1)) })
}

/// 200: the file from its start.
fn opened_whole(response: Response, url: &Url, meta: &Meta) -> Result<Opened, WebError> {
    check_same(&response, url, meta)?;
    let length = number(response.headers(), &header::CONTENT_LENGTH);
    if let (Some(length), Some(known)) = (length, meta.length)
        && length != known
    {
        return Err(changed(url, &format!("it had {known} bytes and now has {length}")));
    }
    Ok(Opened::Body { response, start: 0, length: length.or(meta.length) })
}

/// 416: nothing at or after the first byte asked for, which is right if the file ends there.
fn opened_behind_the_end(
    response: &Response,
    url: &Url,
    meta: &Meta,
    part: Part,
) -> Result<Opened, WebError> {
    check_same(response, url, meta)?;
    let length = content_range(response.headers()).and_then(|range| range.total).or(meta.length);
    match length {
        Some(length) if length == part.first && meta.length.is_none_or(|known| known == length) => {
            Ok(Opened::Complete)
        }
        Some(length) => {
            Err(changed(url, &format!("it now ends at byte {length}, before byte {}", part.first)))
        }
        None => Err(changed(url, &format!("it now ends before byte {}", part.first))),
    }
}

/// Refuses an answer that tells of another version of the file, or is encoded.
fn check_same(response: &Response, url: &Url, meta: &Meta) -> Result<(), WebError> {
    refuse_encoding(response, url)?;
    let Some(validator) = &meta.validator else {
        return Ok(());
    };
    match text_of(response.headers(), &validator.header()) {
        Some(now) if now != validator.as_str() => Err(changed(
            url,
            &format!("its {} was {} and now is {now}", validator.header(), validator.as_str()),
        )),
        _ => Ok(()),
    }
}

impl Validator {
    /// The validator of an answer: its strong tag, else its time of change.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let strong = text_of(headers, &header::ETAG).filter(|tag| tag.starts_with('"'));
        let modified =
            || text_of(headers, &header::LAST_MODIFIED).map(|at| Self::LastModified(at.to_owned()));
        strong.map(|tag| Self::Etag(tag.to_owned())).or_else(modified)
    }

    /// As it stands in its header, and in If-Range.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Etag(text) | Self::LastModified(text) => text,
        }
    }

    fn header(&self) -> HeaderName {
        match self {
            Self::Etag(_) => header::ETAG,
            Self::LastModified(_) => header::LAST_MODIFIED,
        }
    }
}

fn meta(response: &Response, url: &Url, length: Option<u64>) -> Meta {
    let headers = response.headers();
    Meta {
        url: with_credentials_of(response.url(), url),
        length,
        validator: Validator::of(headers),
        last_modified: text_of(headers, &header::LAST_MODIFIED).and_then(backup::http_date),
        accept_ranges: text_of(headers, &header::ACCEPT_RANGES)
            .is_some_and(|units| units.split(',').any(|unit| unit.trim().eq_ignore_ascii_case("bytes"))),
    }
}

/// A Content-Range header: `bytes FIRST-LAST/TOTAL`, where either side of the slash may be a star.
struct ContentRange {
    bytes: Option<(u64, u64)>,
    total: Option<u64>,
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (bytes, total) =
        text_of(headers, &header::CONTENT_RANGE)?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let bytes = match bytes.trim() {
        "*" => None,
        bytes => {
            let (first, last) = bytes.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        }
    };
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some(ContentRange { bytes, total })
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(HeaderValue::to_str)?.ok()
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    text_of(headers, name)?.trim().parse().ok()
}

fn refuse_encoding(response: &Response, url: &Url) -> Result<(), WebError> {
    match text_of(response.headers(), &header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            Err(WebError::Encoded { url: without_password(url), encoding: encoding.to_owned() })
        }
        _ => Ok(()),
    }
}

/// The answer if its status is success, else the error it stands for.
async fn succeeded(response: Response, url: &Url) -> Result<Response, WebError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers());
    let said = storage_error(response).await;
    let url = without_password(url);
    Err(match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => WebError::NotFound { url, reason: said },
        _ => WebError::Status {
            url,
            code: status.as_u16(),
            reason: said.map_or_else(|| reason_phrase(status), |said| said.to_string()),
            retry_after,
        },
    })
}

fn reason_phrase(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("(a status without a name)").to_owned()
}

/// The reason that an object store gives in XML. The status is the error; a body that cannot be had adds nothing.
async fn storage_error(mut response: Response) -> Option<StorageError> {
    text_of(response.headers(), &header::CONTENT_TYPE).filter(|kind| kind.contains("xml"))?;
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > REASON_LIMIT {
            return None;
        }
    }
    StorageError::parse(&body)
}

/// Retry-After in seconds, or as a date, which is held against the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    if let Some(seconds) = number(headers, &header::RETRY_AFTER) {
        return Some(Duration::from_secs(seconds));
    }
    let then = text_of(headers, &header::RETRY_AFTER).and_then(backup::http_date)?;
    let now = text_of(headers, &header::DATE).and_then(backup::http_date)?;
    Some(Duration::try_from(then.duration_since(now)).unwrap_or_default())
}

/// `found`, with the user and password of `asked` when both are on one server.
fn with_credentials_of(found: &Url, asked: &Url) -> Url {
    if found.origin() != asked.origin() {
        return found.clone();
    }
    let mut url = asked.clone();
    url.set_path(found.path());
    url.set_query(found.query());
    url.set_fragment(found.fragment());
    url
}

fn changed(url: &Url, detail: &str) -> WebError {
    WebError::Changed { url: without_password(url), detail: detail.to_owned() }
}

fn short(url: &Url, got: u64, expected: u64) -> WebError {
    WebError::Short { url: without_password(url), got, expected }
}

/// Waits for `work`, but no longer than until `stop` becomes true.
async fn unless_stopped<T>(
    url: &Url,
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Result<T, WebError> {
    let stopped = async {
        if stop.wait_for(|stop| *stop).await.is_err() {
            // Whoever could have stopped us is gone.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = stopped => Err(WebError::Stopped { url: without_password(url) }),
        done = work => Ok(done),
    }
}

/// The first error of this type in the chain of causes. An `io::Error` hides the one it wraps, so it is opened.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The innermost cause: the layers above it only say that they were there, and name the URL once more.
fn root_cause(error: &reqwest::Error) -> String {
    let mut root: &dyn StdError = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

#[cfg(test)]
mod tests;
