//! What reqwest's errors mean: the cause is looked for in the layers that they wrap around it.

use std::error::Error as StdError;
use std::io;

use url::Url;

use super::error::short;
use super::redirect::RefusedRedirect;
use super::tls::tls_fault;
use super::{Web, WebError};
use crate::backup::without_password;

impl Web {
    /// Why there was no answer.
    pub(super) fn unanswered(&self, error: &reqwest::Error, url: &Url) -> WebError {
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
    pub(super) fn broken(
        &self,
        error: &reqwest::Error,
        url: &Url,
        got: u64,
        length: Option<u64>,
    ) -> WebError {
        if error.is_timeout() {
            return WebError::Stalled { url: without_password(url), limit: self.read_timeout };
        }
        match length {
            Some(expected) if got < expected => short(url, got, expected),
            _ => WebError::Interrupted { url: without_password(url), cause: root_cause(error) },
        }
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
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut root: &dyn StdError = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}
