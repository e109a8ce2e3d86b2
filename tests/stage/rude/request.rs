//! Requests: reading one from a connection, and what is remembered of it.

use std::io::{self, BufRead, Read};

/// Longer heads are refused; no client of ours comes near.
const LONGEST_HEAD: u64 = 64 * 1024;

/// One request, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, decoded, without a query.
    pub path: String,
    /// The query as it was sent, empty when there is none.
    pub query: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status of the answer; 0 before it began.
    pub status: u16,
    /// The bytes of the body sent so far.
    pub sent: u64,
}

impl Request {
    /// The value of a header; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the next request; nothing when the client has closed the connection.
pub(super) fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = reader.take(LONGEST_HEAD);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(bad("request line")) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: decode(path).ok_or_else(|| bad("path"))?,
        query: query.to_owned(),
        headers: Vec::new(),
        status: 0,
        sent: 0,
    };
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(bad("end of the head"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("header"))?;
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    // Nobody sends us a body; one that comes all the same is read past.
    if let Some(length) = request.header("content-length").and_then(|length| length.parse().ok()) {
        io::copy(&mut reader.take(length), &mut io::sink())?;
    }
    Ok(Some(request))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a request without a proper {what}"))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_to_its_end_and_the_next_one_after_it() {
        let two = "GET /a%20b?x HTTP/1.1\r\nRange: bytes=0-\r\n\r\nHEAD /c HTTP/1.1\r\n\r\n";
        let mut reader = io::BufReader::new(two.as_bytes());
        let first = read(&mut reader).unwrap().unwrap();
        assert_eq!((first.method.as_str(), first.path.as_str()), ("GET", "/a b"));
        assert_eq!(first.header("range"), Some("bytes=0-"));
        assert_eq!(read(&mut reader).unwrap().unwrap().path, "/c");
        assert_eq!(read(&mut reader).unwrap(), None);
    }
}
