//! A part of a file: how it is asked for, and whether the answer is that part of that file.

use std::fmt;

use reqwest::{Method, Response, StatusCode, header};
use url::Url;

use super::answer::{content_range, number, reason_phrase, refuse_encoding, succeeded, text_of};
use super::error::changed;
use super::{Meta, Web, WebError};
use crate::backup::without_password;

/// What part of a file is asked for; written as a Range header has it.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) last: Option<u64>,
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
pub(super) enum Opened {
    /// Bytes are coming, from `start` on, `length` of them if that is known.
    Body { response: Response, start: u64, length: Option<u64> },
    /// There are none from there on: the file ends where the part begins.
    Complete,
}

impl Web {
    /// Asks for a part of the file that `meta` describes, and makes sure that the answer is of that file.
    pub(super) async fn open(&self, url: &Url, meta: &Meta, part: Part) -> Result<Opened, WebError> {
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
