//! What can go wrong with a request, whether trying again can help, and what to change about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::backup::{ListingError, NoSum, StorageError, without_password};

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
    /// There is no token in the file for it.
    #[error("cannot use the token in {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The file that `NETRC` names cannot be read.
    #[error("cannot read {}", path.display())]
    Netrc {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
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
    /// A page that should list a folder and does not.
    #[error(transparent)]
    Listing(#[from] ListingError),
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
            | Self::Token { .. }
            | Self::Netrc { .. }
            | Self::Listing(_)
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
            Self::Token { .. } => {
                "let backup_token_file name a file that you can read and that holds the token, and nothing else"
            }
            Self::Netrc { .. } => "let NETRC name a file that you can read, or unset it",
            Self::Listing(error) => error.hint(),
            Self::Scheme { .. } => {
                "write backup_host as a host, host:port, or a URL with http:// or https://"
            }
            Self::Host { .. } => "check the name in backup_host",
            Self::Connect { .. } | Self::Stalled { .. } => {
                "check backup_host, and that its web server is up and can be reached from here"
            }
            Self::Tls { fault: TlsFault::Issuer, .. } => {
                "let ca_file name the certificate of the authority that signed the server's, or add it to the ones this \
                 host trusts"
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
                "give user and password in the URL of backup_host or in ~/.netrc, or a token in backup_token_file"
            }
            Self::Status { code: 500.., .. } => {
                "look at the backup server's log; start again when it is well"
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

pub(super) fn changed(url: &Url, detail: &str) -> WebError {
    WebError::Changed { url: without_password(url), detail: detail.to_owned() }
}

pub(super) fn short(url: &Url, got: u64, expected: u64) -> WebError {
    WebError::Short { url: without_password(url), got, expected }
}
