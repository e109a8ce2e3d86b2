//! Where in the file an edit lands, and the bytes it writes there.

use std::ops::Range;

use super::connection::{needs_quotes, quoted};
use super::layout::{LONGEST_ALIAS, Layout};
use super::reader::{is_blank, is_name, is_space, line_end, line_start, slice};
use super::{BouncerError, Entry, Keyword, PgbouncerIni};

impl PgbouncerIni {
    pub(super) fn lines_of(&self, alias: &str) -> Result<Vec<&Entry>, BouncerError> {
        check_alias(alias)?;
        let lines: Vec<&Entry> = self.entries().iter().filter(|entry| entry.alias == alias).collect();
        if lines.is_empty() {
            return Err(BouncerError::NoEntry { alias: alias.to_owned() });
        }
        if let Some(entry) = lines.iter().find(|entry| entry.behind_include) {
            return Err(BouncerError::BehindInclude { alias: alias.to_owned(), line: entry.line });
        }
        Ok(lines)
    }

    /// Where a new entry goes, and its text with the line end that its neighbour has.
    pub(super) fn insertion(&self, line: &str) -> Result<(usize, Vec<u8>), BouncerError> {
        let section = self.layout.sections.last().ok_or(BouncerError::NoDatabasesSection)?;
        let end = line_end(&self.bytes, section.anchor);
        if section.followed_at.is_some_and(|next| next < end) {
            return Err(BouncerError::CrowdedHeader { line: section.line });
        }
        let before = slice(&self.bytes, 0..end);
        if end < self.bytes.len() {
            let eol = if before.ends_with(b"\r") { "\r\n" } else { "\n" };
            return Ok((end + 1, format!("{line}{eol}").into_bytes()));
        }
        let crlf = before.ends_with(b"\r") || before.windows(2).any(|pair| pair == b"\r\n");
        let eol = if crlf { "\r\n" } else { "\n" };
        Ok((end, format!("{eol}{line}").into_bytes()))
    }

    /// What goes with an entry: its line with the line end, or, if a header is on the same line, only its text.
    /// The last line of a file that ends without a line end takes the one before it along.
    pub(super) fn extent(&self, entry: &Entry) -> Range<usize> {
        let start = line_start(&self.bytes, entry.start);
        if !slice(&self.bytes, start..entry.start).iter().copied().all(is_space) {
            return entry.start..entry.value.end;
        }
        let end = line_end(&self.bytes, entry.value.end);
        if end < self.bytes.len() {
            return start..end + 1;
        }
        let before = slice(&self.bytes, 0..start);
        let eol = if before.ends_with(b"\r\n") { 2 } else { usize::from(before.ends_with(b"\n")) };
        start - eol..end
    }

    pub(super) fn repointed(
        &self,
        entry: &Entry,
        target: &[(&str, Option<&str>); 3],
    ) -> Vec<(Range<usize>, Vec<u8>)> {
        let mut edits = Vec::new();
        let mut missing = String::new();
        for (name, value) in target {
            match (entry.keywords.iter().rfind(|keyword| keyword.name == *name), value) {
                (Some(keyword), Some(value)) if keyword.value == value.as_bytes() => {}
                (Some(keyword), Some(value)) => {
                    edits.push((keyword.written.clone(), self.rewritten(keyword, value).into_bytes()));
                }
                (Some(_), None) => {
                    let all = entry.keywords.iter().filter(|keyword| keyword.name == *name);
                    edits.extend(all.map(|keyword| (self.with_its_space(entry, keyword), Vec::new())));
                }
                (None, Some(value)) => {
                    let value = if needs_quotes(value) { quoted(value) } else { (*value).to_owned() };
                    missing.push_str(&format!(" {name}={value}"));
                }
                (None, None) => {}
            }
        }
        if !missing.is_empty() {
            let end = entry.value.end;
            let spaced = slice(&self.bytes, 0..end).last().copied().is_some_and(is_blank);
            let text = if spaced { missing.trim_start() } else { &missing };
            edits.push((end..end, text.as_bytes().to_vec()));
        }
        edits.sort_by_key(|(range, _)| range.start);
        edits
    }

    /// All of a `key=value`, with the blanks before it, or after it where it comes first.
    fn with_its_space(&self, entry: &Entry, keyword: &Keyword) -> Range<usize> {
        let blanks = |bytes: &[u8]| bytes.iter().rev().take_while(|byte| is_blank(**byte)).count();
        let before = slice(&self.bytes, entry.value.start..keyword.written.start);
        // Between the name and the value stands `=`, which may have blanks around it.
        let named = before.len() - before.iter().rev().position(|byte| *byte == b'=').unwrap_or_default();
        let unspaced = named.saturating_sub(1) - blanks(slice(before, 0..named.saturating_sub(1)));
        let start = entry.value.start + unspaced.saturating_sub(keyword.name.len());
        let spaces = blanks(slice(&self.bytes, entry.value.start..start));
        if spaces > 0 {
            return start - spaces..keyword.written.end;
        }
        let after = slice(&self.bytes, keyword.written.end..entry.value.end);
        let trailing = after.iter().take_while(|byte| is_blank(**byte)).count();
        start..keyword.written.end + trailing
    }

    /// A new value in the dress of the old one: who quotes without need goes on doing so. A quote also stays when
    /// something other than a space follows it, because pgbouncer skips whatever byte comes after a closing quote.
    fn rewritten(&self, old: &Keyword, value: &str) -> String {
        let next = self.bytes.get(old.written.end).copied();
        let glued = next.is_some_and(|byte| !matches!(byte, b' ' | b'\r' | b'\n'));
        let needless = old.quoted && std::str::from_utf8(&old.value).is_ok_and(|value| !needs_quotes(value));
        if needs_quotes(value) || needless || (old.quoted && glued) {
            quoted(value)
        } else {
            value.to_owned()
        }
    }

    /// Makes all of these edits, sorted by place, or none: a result that pgbouncer could not read is refused.
    pub(super) fn edit(&mut self, edits: Vec<(Range<usize>, Vec<u8>)>) -> Result<(), BouncerError> {
        let mut edited = Vec::with_capacity(self.bytes.len() + 128);
        let mut at = 0;
        for (range, text) in edits {
            edited.extend_from_slice(slice(&self.bytes, at..range.start));
            edited.extend_from_slice(&text);
            at = range.end;
        }
        edited.extend_from_slice(slice(&self.bytes, at..self.bytes.len()));
        self.layout = Layout::read(&edited)?;
        self.bytes = edited;
        Ok(())
    }
}

pub(super) fn check_alias(alias: &str) -> Result<(), BouncerError> {
    let reason = match alias {
        "" => "it is empty",
        "*" => "it is the fallback for every other name",
        "pgbouncer" => "it is the admin console",
        _ if !alias.bytes().all(is_name) => "pgbouncer reads only letters, digits and `_.*-` in a name",
        _ if alias.len() > LONGEST_ALIAS => "it is longer than 63 bytes",
        _ => return Ok(()),
    };
    Err(BouncerError::UnusableAlias { alias: alias.to_owned(), reason })
}

pub(super) fn check_value(alias: &str, keyword: &str, value: &str) -> Result<(), BouncerError> {
    match value {
        "" => Err(unusable_value(alias, keyword, "it is empty")),
        _ if value.contains('\n') => Err(unusable_value(alias, keyword, "it holds a line end")),
        _ if value.contains('\0') => Err(unusable_value(alias, keyword, "it holds a NUL byte")),
        _ => Ok(()),
    }
}

pub(super) fn unusable_value(alias: &str, keyword: &str, reason: &'static str) -> BouncerError {
    BouncerError::UnusableValue { alias: alias.to_owned(), keyword: keyword.to_owned(), reason }
}
