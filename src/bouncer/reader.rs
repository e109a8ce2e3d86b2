//! The lines of a pgbouncer.ini as the parser of libusual (`cfparser.c`) finds them, and the bytes it tells apart.

use std::ops::Range;

use super::{BouncerError, Problem};

/// What the parser of libusual finds in a file, with offsets into it.
pub(super) enum Token<'a> {
    Header { name: &'a [u8], start: usize, end: usize },
    Include { file: Range<usize>, start: usize },
    Pair(Pair),
}

/// `key = value`; the value reaches to the end of the line, without the white space there.
pub(super) struct Pair {
    pub(super) start: usize,
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

impl Token<'_> {
    pub(super) fn start(&self) -> usize {
        match self {
            Token::Header { start, .. } | Token::Include { start, .. } => *start,
            Token::Pair(pair) => pair.start,
        }
    }
}

/// Follows `parse_ini_file_internal` of libusual byte by byte.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// The line of a place that was asked for before, so that counting goes on from there.
    counted: (usize, usize),
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, counted: (0, 1) }
    }

    pub(super) fn next(&mut self) -> Result<Option<Token<'a>>, BouncerError> {
        loop {
            self.skip(is_space);
            let rest = slice(self.bytes, self.at..self.bytes.len());
            match rest.first() {
                None => return Ok(None),
                Some(b'#' | b';') => self.skip(|byte| byte != b'\n'),
                Some(b'[') => return self.header().map(Some),
                Some(b'%') if rest.starts_with(b"%include") && rest.get(8).copied().is_some_and(is_blank) => {
                    return self.include().map(Some);
                }
                Some(_) => return self.pair().map(|pair| Some(Token::Pair(pair))),
            }
        }
    }

    fn header(&mut self) -> Result<Token<'a>, BouncerError> {
        let start = self.at;
        self.at += 1;
        self.skip(|byte| byte != b']' && byte != b'\n');
        if self.peek() != Some(b']') {
            return Err(self.error(start, Problem::OpenHeader));
        }
        let name = slice(self.bytes, start + 1..self.at);
        self.at += 1;
        Ok(Token::Header { name, start, end: self.at })
    }

    fn include(&mut self) -> Result<Token<'a>, BouncerError> {
        let start = self.at;
        self.at += b"%include".len();
        self.skip(is_blank);
        let file = self.value();
        if file.is_empty() {
            return Err(self.error(start, Problem::EmptyInclude));
        }
        Ok(Token::Include { file, start })
    }

    fn pair(&mut self) -> Result<Pair, BouncerError> {
        let start = self.at;
        let key = if self.peek() == Some(b'\'') { self.quoted_name()? } else { self.plain_name() };
        self.skip(is_blank);
        if self.peek() != Some(b'=') {
            return Err(self.error(start, self.not_a_pair(start, key)));
        }
        self.at += 1;
        self.skip(is_blank);
        let value = self.value();
        Ok(Pair { start, key, value })
    }

    fn plain_name(&mut self) -> Range<usize> {
        let start = self.at;
        self.skip(is_name);
        start..self.at
    }

    /// pgbouncer reads these from 1.25 on.
    fn quoted_name(&mut self) -> Result<Range<usize>, BouncerError> {
        let start = self.at + 1;
        self.at = start;
        self.skip(|byte| byte != b'\'');
        if self.peek().is_none() || self.at == start {
            return Err(self.error(start, Problem::BadQuotedName));
        }
        self.at += 1;
        Ok(start..self.at - 1)
    }

    /// The rest of the line without the white space at its end.
    fn value(&mut self) -> Range<usize> {
        let start = self.at;
        self.skip(|byte| byte != b'\n');
        let value = slice(self.bytes, start..self.at);
        let trailing = value.iter().rev().take_while(|byte| is_space(**byte)).count();
        start..self.at - trailing
    }

    fn not_a_pair(&self, start: usize, key: Range<usize>) -> Problem {
        if start == 0 && self.bytes.starts_with("\u{feff}".as_bytes()) {
            return Problem::ByteOrderMark;
        }
        match self.peek() {
            None | Some(b'\r' | b'\n') => Problem::NoValue { key: text(slice(self.bytes, key)) },
            Some(_) if self.at > key.end => Problem::NoValue { key: text(slice(self.bytes, key)) },
            Some(_) => {
                let rest = slice(self.bytes, self.at..line_end(self.bytes, self.at));
                Problem::NotAName { found: text(rest).chars().take(1).collect() }
            }
        }
    }

    fn error(&self, at: usize, problem: Problem) -> BouncerError {
        BouncerError::Line { line: line_number(self.bytes, at), problem }
    }

    pub(super) fn line_of(&mut self, at: usize) -> usize {
        let (from, line) = self.counted;
        let line = line + newlines(slice(self.bytes, from..at));
        self.counted = (at, line);
        line
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }
}

/// `isspace` in the C locale.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// `isblank` in the C locale.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

pub(super) fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-*".contains(&byte)
}

pub(super) fn line_start(bytes: &[u8], at: usize) -> usize {
    slice(bytes, 0..at).iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

/// The place of the line's `\n`, or the end of the file.
pub(super) fn line_end(bytes: &[u8], at: usize) -> usize {
    let rest = slice(bytes, at..bytes.len());
    rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |newline| at + newline)
}

pub(super) fn line_number(bytes: &[u8], at: usize) -> usize {
    1 + newlines(slice(bytes, 0..at))
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// A part of the bytes; nothing where the range is not in them.
pub(super) fn slice(bytes: &[u8], range: Range<usize>) -> &[u8] {
    bytes.get(range).unwrap_or_default()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
