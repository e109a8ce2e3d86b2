//! Answers: what a proper server gives (RFC 9110), bent by what is planned for the path.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    net::TcpStream,
    path::{Component, Path, PathBuf},
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

use super::{Conduct, Request, Shared};

/// How much is written at a time; a stall or a close falls on the byte all the same.
const PIECE: usize = 16 * 1024;
/// How often a slow answer sends something.
const TICK: Duration = Duration::from_millis(20);

/// What becomes of the connection after an answer.
pub(super) enum Afterwards {
    /// The next request may come.
    KeepAlive,
    /// It closes.
    Close,
}

/// The content behind a path.
struct Content {
    source: Source,
    length: u64,
    kind: &'static str,
    tag: String,
    modified: Option<String>,
}

enum Source {
    File(File),
    Bytes(io::Cursor<Vec<u8>>),
}

/// Status line and headers of an answer.
struct Head {
    status: u16,
    headers: Vec<(&'static str, String)>,
    /// Where in the file the body begins.
    first: u64,
}

/// Answers one request and remembers it.
pub(super) fn answer(request: Request, connection: &TcpStream, shared: &Shared) -> io::Result<Afterwards> {
    let (conducts, number) = {
        let mut state = shared.state();
        let mut conducts = Vec::new();
        for place in [format!("{}?{}", request.path, request.query), request.path.clone()] {
            let plans = state.plans.get_mut(&place);
            conducts.extend(plans.into_iter().flatten().filter_map(|planned| planned.meet(&request)));
        }
        state.requests.push(request.clone());
        (conducts, state.forgotten + state.requests.len() - 1)
    };
    Answer { request, conducts, connection, shared, number }.give()
}

struct Answer<'a> {
    request: Request,
    conducts: Vec<Conduct>,
    connection: &'a TcpStream,
    shared: &'a Shared,
    /// Of the request, counted from the start of the server.
    number: usize,
}

impl Answer<'_> {
    fn give(&self) -> io::Result<Afterwards> {
        for conduct in &self.conducts {
            match conduct {
                Conduct::Fail { status, retry_after } => {
                    let mut head = Head::new(*status);
                    head.headers.extend(retry_after.map(|seconds| ("Retry-After", seconds.to_string())));
                    return self.page(head, &format!("{status}\n"), "text/plain");
                }
                Conduct::Locked(key) if self.request.header("authorization") != Some(key) => {
                    return self.page(Head::new(401), "who are you?\n", "text/plain");
                }
                Conduct::Html(body) => return self.page(Head::new(200), body, "text/html"),
                Conduct::Page { kind, body } => return self.page(Head::new(200), body, kind),
                Conduct::Redirect(to) => return self.redirect(302, to),
                _ => {}
            }
        }
        if !matches!(self.request.method.as_str(), "GET" | "HEAD") {
            return self.page(Head::new(405), "only GET and HEAD\n", "text/plain");
        }
        if let Some(Conduct::Content { bytes, tag }) = self.planned(|c| matches!(c, Conduct::Content { .. }))
        {
            return self.content(Content::of_bytes(bytes.clone(), tag.clone()));
        }
        let Some(path) = self.file_path() else { return self.not_found() };
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && !self.request.path.ends_with('/') => {
                self.redirect(301, &format!("{}/", encode(&self.request.path)))
            }
            Ok(metadata) if metadata.is_dir() => self.page(Head::new(200), &listing(&path)?, "text/html"),
            Ok(metadata) => self.content(Content::of_file(&path, &metadata)?),
            Err(_) => self.not_found(),
        }
    }

    fn planned(&self, is_it: impl Fn(&Conduct) -> bool) -> Option<&Conduct> {
        self.conducts.iter().find(|conduct| is_it(conduct))
    }

    fn is_planned(&self, conduct: &Conduct) -> bool {
        self.conducts.contains(conduct)
    }

    /// The file behind the path, if the path stays below the root.
    fn file_path(&self) -> Option<PathBuf> {
        let below = Path::new(self.request.path.strip_prefix('/')?);
        let stays = below.components().all(|component| matches!(component, Component::Normal(_)));
        stays.then(|| self.shared.root.join(below))
    }

    fn not_found(&self) -> io::Result<Afterwards> {
        self.page(Head::new(404), "there is no such file\n", "text/plain")
    }

    fn redirect(&self, status: u16, to: &str) -> io::Result<Afterwards> {
        let mut head = Head::new(status);
        head.headers.push(("Location", to.to_owned()));
        self.page(head, "", "text/plain")
    }

    fn page(&self, mut head: Head, body: &str, kind: &'static str) -> io::Result<Afterwards> {
        if !kind.is_empty() {
            head.headers.push(("Content-Type", kind.to_owned()));
        }
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        self.send(head, &mut body.as_bytes(), length)
    }

    fn content(&self, mut content: Content) -> io::Result<Afterwards> {
        if self.is_planned(&Conduct::NewTag) {
            let mut state = self.shared.state();
            state.tags += 1;
            content.tag = format!("\"new-{}\"", state.tags);
        }
        let mut head = Head::new(200);
        head.headers.push(("Content-Type", content.kind.to_owned()));
        if !self.is_planned(&Conduct::NoValidator) {
            head.headers.push(("ETag", content.tag.clone()));
            head.headers.extend(content.modified.clone().map(|date| ("Last-Modified", date)));
        }
        if self.is_planned(&Conduct::IgnoreRange) {
            return self.send(head, &mut content.source, content.length);
        }
        head.headers.push(("Accept-Ranges", "bytes".to_owned()));
        match self.range(&content) {
            Asked::Whole => self.send(head, &mut content.source, content.length),
            Asked::Part { first, length } => {
                head.status = 206;
                let last = first + length - 1;
                head.first = first;
                head.headers.push(("Content-Range", format!("bytes {first}-{last}/{}", content.length)));
                content.source.seek(SeekFrom::Start(first))?;
                self.send(head, &mut content.source, length)
            }
            Asked::Beyond => {
                head.status = 416;
                head.headers.push(("Content-Range", format!("bytes */{}", content.length)));
                self.send(head, &mut io::empty(), 0)
            }
        }
    }

    /// What the headers Range and If-Range ask for. Several ranges are answered with the whole, as a server may.
    fn range(&self, content: &Content) -> Asked {
        let Some(range) = self.request.header("range").filter(|_| self.request.method == "GET") else {
            return Asked::Whole;
        };
        if let Some(validator) = self.request.header("if-range") {
            let is_present = validator == content.tag || content.modified.as_deref() == Some(validator);
            if !is_present && !self.is_planned(&Conduct::IgnoreIfRange) {
                return Asked::Whole;
            }
        }
        parse_range(range, content.length)
    }

    /// Sends head and body as the planned conducts have it.
    fn send(&self, mut head: Head, body: &mut dyn Read, length: u64) -> io::Result<Afterwards> {
        let claimed = self.conducts.iter().find_map(|conduct| match conduct {
            Conduct::ClaimLength(claimed) => Some(*claimed),
            _ => None,
        });
        let chunked = self.is_planned(&Conduct::Chunked);
        head.headers.push(match chunked {
            true => ("Transfer-Encoding", "chunked".to_owned()),
            false => ("Content-Length", claimed.unwrap_or(length).to_string()),
        });
        if claimed.is_some() {
            head.headers.push(("Connection", "close".to_owned()));
        }
        self.remember(|request| request.status = head.status);
        let mut connection = self.connection;
        connection.write_all(head.text().as_bytes())?;
        let says_close =
            self.request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let afterwards =
            if claimed.is_some() || says_close { Afterwards::Close } else { Afterwards::KeepAlive };
        if self.request.method == "HEAD" {
            return Ok(afterwards);
        }
        let first = head.first;
        if let Ended::Early = self.send_body(body, first, length, chunked)? {
            return Ok(Afterwards::Close);
        }
        if chunked {
            connection.write_all(b"0\r\n\r\n")?;
        }
        Ok(afterwards)
    }

    fn send_body(&self, body: &mut dyn Read, first: u64, length: u64, chunked: bool) -> io::Result<Ended> {
        let mut connection = self.connection;
        let (mut close_at, mut stall_at, mut pace) = (None, None, None);
        for conduct in &self.conducts {
            match conduct {
                Conduct::CloseAfter(bytes) => close_at = Some(*bytes),
                Conduct::StallAfter(bytes) => stall_at = Some(*bytes),
                // An answer that ends before is not held up.
                Conduct::StallAt(byte) => {
                    stall_at =
                        byte.checked_sub(first).filter(|at| *at < length).or((first >= *byte).then_some(0));
                }
                Conduct::Slow(bytes_per_second) => pace = Some(*bytes_per_second),
                _ => {}
            }
        }
        let begun = Instant::now();
        let mut piece = vec![0; PIECE];
        let mut sent = 0;
        loop {
            if close_at.is_some_and(|bytes| sent >= bytes) {
                return Ok(Ended::Early);
            }
            if stall_at.is_some_and(|bytes| sent >= bytes) {
                stall_at = None;
                connection.flush()?;
                self.shared.stall(&self.request.path);
            }
            if self.shared.is_closing() {
                return Ok(Ended::Early);
            }
            if sent >= length {
                return Ok(Ended::Whole);
            }
            let next_halt = [close_at, stall_at].into_iter().flatten().min().unwrap_or(length).min(length);
            let allowed = pace.map_or(next_halt, |pace| paced(pace, begun, sent).min(next_halt));
            let wanted = usize::try_from(allowed.saturating_sub(sent)).unwrap_or(PIECE).min(PIECE);
            if wanted == 0 {
                thread::sleep(TICK);
                continue;
            }
            let Some(room) = piece.get_mut(..wanted) else { return Ok(Ended::Early) };
            body.read_exact(room)?;
            self.shared.wait_for_link(u64::try_from(wanted).unwrap_or(0));
            if chunked {
                connection.write_all(format!("{wanted:x}\r\n").as_bytes())?;
            }
            connection.write_all(room)?;
            if chunked {
                connection.write_all(b"\r\n")?;
            }
            let written = u64::try_from(wanted).unwrap_or(0);
            sent += written;
            self.remember(|request| request.sent += written);
        }
    }

    fn remember(&self, change: impl FnOnce(&mut Request)) {
        let mut state = self.shared.state();
        let forgotten = state.forgotten;
        let place = self.number.checked_sub(forgotten);
        if let Some(request) = place.and_then(|place| state.requests.get_mut(place)) {
            change(request);
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

enum Ended {
    Whole,
    Early,
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part { first: u64, length: u64 },
    Beyond,
}

/// How many bytes may have been sent by now at that pace.
fn paced(bytes_per_second: u64, begun: Instant, sent: u64) -> u64 {
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    (bytes_per_second.saturating_mul(milliseconds) / 1000).max(sent)
}

/// Reads `bytes=<first>-<last>`, `bytes=<first>-` or `bytes=-<number>` of a content of that length.
fn parse_range(range: &str, length: u64) -> Asked {
    let parse = || {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        if first.is_empty() {
            let number: u64 = last.parse().ok()?;
            return Some((length.saturating_sub(number), length.checked_sub(1)));
        }
        let first: u64 = first.parse().ok()?;
        let end = length.checked_sub(1);
        match last {
            "" => Some((first, end)),
            last => {
                let last: u64 = last.parse().ok()?;
                (first <= last).then(|| (first, end.map(|end| end.min(last))))
            }
        }
    };
    match parse() {
        None => Asked::Whole,
        Some((first, Some(last))) if first <= last => Asked::Part { first, length: last - first + 1 },
        Some(_) => Asked::Beyond,
    }
}

impl Content {
    fn of_file(path: &Path, metadata: &fs::Metadata) -> io::Result<Content> {
        let modified = metadata.modified()?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some("html") => "text/html",
            Some("sha256" | "sql") => "text/plain",
            _ => "application/octet-stream",
        };
        Ok(Content {
            source: Source::File(File::open(path)?),
            length: metadata.len(),
            kind,
            tag: format!("\"{:x}-{:x}\"", since.as_micros(), metadata.len()),
            modified: Timestamp::try_from(modified).ok().and_then(http_date),
        })
    }

    fn of_bytes(bytes: Vec<u8>, tag: Option<String>) -> Content {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // Adler-like: two contents that a test plans have two tags.
        let sum = bytes.iter().fold(1_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        Content {
            source: Source::Bytes(io::Cursor::new(bytes)),
            length,
            kind: "application/octet-stream",
            tag: tag.unwrap_or_else(|| format!("\"{sum:x}-{length:x}\"")),
            modified: None,
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::File(file) => file.read(buffer),
            Source::Bytes(bytes) => bytes.read(buffer),
        }
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Source::File(file) => file.seek(to),
            Source::Bytes(bytes) => bytes.seek(to),
        }
    }
}

impl Head {
    fn new(status: u16) -> Head {
        Head { status, headers: Vec::new(), first: 0 }
    }

    fn text(&self) -> String {
        let reason = match self.status {
            200 => "OK",
            206 => "Partial Content",
            301 => "Moved Permanently",
            302 => "Found",
            404 => "Not Found",
            405 => "Method Not Allowed",
            416 => "Range Not Satisfiable",
            429 => "Too Many Requests",
            503 => "Service Unavailable",
            _ => "Planned",
        };
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("HTTP/1.1 {} {reason}\r\nServer: rude\r\n{headers}\r\n", self.status)
    }
}

fn http_date(time: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

/// A page with a link to every file and folder of a folder.
fn listing(folder: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let links: String = names
        .iter()
        .map(|name| format!("<li><a href=\"{}\">{}</a></li>\n", encode(name), escape(name)))
        .collect();
    Ok(format!(
        "<!DOCTYPE html>\n<title>Backups</title>\n<ul>\n<li><a href=\"../\">..</a></li>\n{links}</ul>\n"
    ))
}

/// The text as a path in a URL: what RFC 3986 calls unreserved stays, and so does `/`.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        let cases = [
            ("bytes=0-3", Asked::Part { first: 0, length: 4 }),
            ("bytes=4-", Asked::Part { first: 4, length: 6 }),
            ("bytes=4-99", Asked::Part { first: 4, length: 6 }),
            ("bytes=-3", Asked::Part { first: 7, length: 3 }),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=5-4", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("lines=1-2", Asked::Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
    }
}
