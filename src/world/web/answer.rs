//! What an answer's status and headers tell: success or which error, and what the file is.

use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};
use url::Url;

use super::{Meta, Validator, WebError};
use crate::backup::{self, StorageError, without_password};

/// How much of an error's body is read in search of an object store's reason, in bytes.
const REASON_LIMIT: u64 = 64 << 10;

/// The answer if its status is success, else the error it stands for.
pub(super) async fn succeeded(response: Response, url: &Url) -> Result<Response, WebError> {
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

pub(super) fn reason_phrase(status: StatusCode) -> String {
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

pub(super) fn refuse_encoding(response: &Response, url: &Url) -> Result<(), WebError> {
    match text_of(response.headers(), &header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            Err(WebError::Encoded { url: without_password(url), encoding: encoding.to_owned() })
        }
        _ => Ok(()),
    }
}

pub(super) fn meta(response: &Response, url: &Url, length: Option<u64>) -> Meta {
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

    pub(super) fn header(&self) -> HeaderName {
        match self {
            Self::Etag(_) => header::ETAG,
            Self::LastModified(_) => header::LAST_MODIFIED,
        }
    }
}

/// A Content-Range header: `bytes FIRST-LAST/TOTAL`, where either side of the slash may be a star.
pub(super) struct ContentRange {
    pub(super) bytes: Option<(u64, u64)>,
    pub(super) total: Option<u64>,
}

pub(super) fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
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

pub(super) fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(HeaderValue::to_str)?.ok()
}

pub(super) fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    text_of(headers, name)?.trim().parse().ok()
}

/// `found`, with the user and password of `asked` when both are on one server.
pub(super) fn with_credentials_of(found: &Url, asked: &Url) -> Url {
    if found.origin() != asked.origin() {
        return found.clone();
    }
    let mut url = asked.clone();
    url.set_path(found.path());
    url.set_query(found.query());
    url.set_fragment(found.fragment());
    url
}
