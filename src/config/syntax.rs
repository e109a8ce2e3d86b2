//! The file syntax of Python's `ConfigParser`, and the substitution of `%(name)s`.
//!
//! A file is read in three moves: the logical lines are found by Python's rules of indentation and comments, they are
//! written in a canonical form in which `rust-ini` has nothing left to interpret, and `rust-ini` reads that form.
//! The rules are those of `configparser` in Python 3.11 (`RawConfigParser._read`, `BasicInterpolation`), with
//! `strict=False`, and two of Python 2 on which old files rely: a line whose first word is `rem` is a comment, and
//! a comment that is indented as a continuation line belongs to the value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption};

use super::error::ConfigError;
use super::value::shown;

/// The section that gives defaults to every other one. Its name is case-sensitive.
pub const DEFAULT_SECTION: &str = "DEFAULT";

/// How deep `%(name)s` may lead from value to value: Python's `MAX_INTERPOLATION_DEPTH`.
const MAX_DEPTH: usize = 10;
/// How many names one value may lead to altogether. Python has no limit, and a file of twenty lines can keep it busy
/// for years.
const MAX_SUBSTITUTIONS: usize = 10_000;
/// How long a value may become by substitution, in bytes.
const MAX_EXPANDED: usize = 1 << 20;

/// A file as it was read: values are raw, with their `%(name)s` in place.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// Where it was read from, for messages.
    pub(super) path: PathBuf,
    /// The names of its sections in file order, `DEFAULT` left out; one that occurs twice is one section.
    pub(super) order: Vec<String>,
    /// The options of every section, `DEFAULT` among them.
    sections: BTreeMap<String, Entries>,
}

/// The options of one section, by name in lower case.
pub(super) type Entries = BTreeMap<String, Entry>;

/// One option as it stands in a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The raw value; continuation lines are joined by `\n`.
    pub(super) value: String,
    /// The line of the option's name, from 1.
    pub(super) line: usize,
}

impl Document {
    /// Reads a file's bytes; `path` is for messages only.
    ///
    /// Fails on bytes that are not UTF-8, an option before the first section, and lines that are neither a section
    /// nor an option.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Document, ConfigError> {
        let items = logical_lines(path, &decode_text(path, bytes)?)?;
        let options = ParseOption {
            enabled_quote: false,
            enabled_escape: false,
            enabled_indented_mutiline_value: false,
            enabled_preserve_key_leading_whitespace: false,
        };
        let read = Ini::load_from_str_opt(&canonical(&items), options).map_err(|e| {
            // One canonical line per item, so the reader's line leads back to the line of the file.
            let line = e.line.checked_sub(1).and_then(|i| items.get(i)).map_or(0, Item::line);
            ConfigError::Parsing { file: path.to_owned(), lines: vec![(line, e.msg.into_owned())] }
        })?;
        Document::from_canonical(path, &read)
    }

    fn from_canonical(path: &Path, read: &Ini) -> Result<Document, ConfigError> {
        let broken =
            |text: &str| ConfigError::Parsing { file: path.to_owned(), lines: vec![(0, text.to_owned())] };
        let mut document = Document { path: path.to_owned(), order: Vec::new(), sections: BTreeMap::new() };
        for (header, properties) in read.iter() {
            let Some(header) = header else { continue };
            let (_, name) = unnumbered(header).ok_or_else(|| broken(header))?;
            let entries = document.entries_mut(name);
            for (key, value) in properties.iter() {
                let (line, option) = unnumbered(key).ok_or_else(|| broken(key))?;
                let value = decode(value).ok_or_else(|| broken(value))?;
                entries.insert(option, Entry { value, line });
            }
        }
        Ok(document)
    }

    /// The options of a section, which is made where it does not exist yet.
    fn entries_mut(&mut self, name: String) -> &mut Entries {
        if name != DEFAULT_SECTION && !self.sections.contains_key(&name) {
            self.order.push(name.clone());
        }
        self.sections.entry(name).or_default()
    }

    /// The options of the section of exactly that name; `DEFAULT` is one, if the file has it.
    pub(super) fn entries(&self, section: &str) -> Option<&Entries> {
        self.sections.get(section)
    }

    /// One option of one section, without recourse to `DEFAULT`; `option` is in lower case.
    pub(super) fn entry(&self, section: &str, option: &str) -> Option<&Entry> {
        self.sections.get(section)?.get(option)
    }
}

/// An option's name as it is compared: Python's `optionxform`.
pub(super) fn option_name(text: &str) -> String {
    text.to_lowercase()
}

/// The text of a file: UTF-8, a byte order mark taken off, every kind of line end turned into `\n`.
fn decode_text(path: &Path, bytes: &[u8]) -> Result<String, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let before = bytes.get(..e.valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        ConfigError::NotUtf8 { file: path.to_owned(), line }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// A logical line: what one or several lines of the file say together.
#[derive(Debug)]
enum Item {
    Section { line: usize, name: String },
    Option { line: usize, name: String, value: String },
}

impl Item {
    fn line(&self) -> usize {
        match self {
            Item::Section { line, .. } | Item::Option { line, .. } => *line,
        }
    }
}

/// Finds the sections and options of a text. A line continues the option above if it is indented deeper than that
/// option's first line; blank lines inside a value are kept, those at its end are not.
fn logical_lines(path: &Path, text: &str) -> Result<Vec<Item>, ConfigError> {
    let mut items: Vec<Item> = Vec::new();
    let mut bad: Vec<(usize, String)> = Vec::new();
    let mut in_section = false;
    let mut level = 0;
    // Whether the last item is an option that lines can continue.
    let mut open = false;
    for (number, line) in (1..).zip(text.split('\n')) {
        let stripped = strip(line);
        let indent = line.chars().take_while(|c| is_space(*c)).count();
        let continued = match items.last_mut() {
            Some(Item::Option { value, .. }) if open => Some(value),
            _ => None,
        };
        if stripped.is_empty() {
            if let Some(value) = continued {
                value.push('\n');
            }
            continue;
        }
        if let (Some(value), true) = (continued, indent > level) {
            value.push('\n');
            value.push_str(stripped);
            continue;
        }
        if stripped.starts_with(['#', ';']) || is_remark(line) {
            continue;
        }
        level = indent;
        if let Some(name) = section_header(stripped) {
            items.push(Item::Section { line: number, name: name.to_owned() });
            (in_section, open) = (true, false);
        } else if !in_section {
            return Err(ConfigError::MissingSectionHeader {
                file: path.to_owned(),
                line: number,
                text: shown(stripped),
            });
        } else if let Some((name, value)) = option_line(stripped) {
            open = !name.is_empty();
            if name.is_empty() {
                bad.push((number, shown(stripped)));
            } else {
                items.push(Item::Option { line: number, name: option_name(name), value: value.to_owned() });
            }
        } else {
            bad.push((number, shown(stripped)));
        }
    }
    if !bad.is_empty() {
        return Err(ConfigError::Parsing { file: path.to_owned(), lines: bad });
    }
    for item in &mut items {
        if let Item::Option { value, .. } = item {
            value.truncate(value.trim_end_matches(is_space).len());
        }
    }
    Ok(items)
}

/// White space as Python's `str.isspace` has it: that of Unicode, and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Whether the line is a `rem` comment: that word alone at the line's beginning, in any case.
fn is_remark(line: &str) -> bool {
    line.split(is_space).next().is_some_and(|word| word.eq_ignore_ascii_case("rem"))
}

/// The name in `[name]`: it reaches to the last bracket of the line, and what follows that is ignored.
fn section_header(stripped: &str) -> Option<&str> {
    let (name, _) = stripped.strip_prefix('[')?.rsplit_once(']')?;
    (!name.is_empty()).then_some(name)
}

/// Name and value of `name = value` or `name: value`; the first of the two signs separates.
fn option_line(stripped: &str) -> Option<(&str, &str)> {
    let (name, value) = stripped.split_once(['=', ':'])?;
    Some((name.trim_end_matches(is_space), strip(value)))
}

/// Writes the items so that `rust-ini` reads each one verbatim: one line per item, names preceded by the number of the
/// line they come from, and every character that could mean something to the reader encoded.
fn canonical(items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(&match item {
            Item::Section { line, name } => format!("[{line}.{}]\n", encode(name)),
            Item::Option { line, name, value } => format!("{line}.{}={}\n", encode(name), encode(value)),
        });
    }
    text
}

/// The text with everything but letters, digits and harmless punctuation written as `~<hex>~`.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() || "-_.,/%()+*?@$".contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("~{:x}~", u32::from(c)));
        }
    }
    out
}

/// What [`encode`] was given; `None` where the text does not come from it.
fn decode(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    // Plain text and codes take turns, beginning with plain text.
    for (index, part) in text.split('~').enumerate() {
        if index % 2 == 0 {
            out.push_str(part);
        } else {
            out.push(char::from_u32(u32::from_str_radix(part, 16).ok()?)?);
        }
    }
    Some(out)
}

/// Takes `<line>.<encoded name>` apart.
fn unnumbered(text: &str) -> Option<(usize, String)> {
    let (line, name) = text.split_once('.')?;
    Some((line.parse().ok()?, decode(name)?))
}

/// What can be wrong with the `%` of a value. `option` is the one whose value is at fault, which need not be the one
/// that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A `%` that is followed by neither `%` nor a complete `(name)s`; `text` begins there.
    Syntax { option: String, text: String },
    /// A name that no option has.
    Missing { option: String, name: String },
    /// A chain of names that is longer than ten, as every cycle is.
    Depth,
    /// More text or names than a configuration can need.
    Size,
}

/// Replaces every `%(name)s` of `value`, which is the raw value of `option`. `lookup` gives the raw value of a name in
/// lower case.
pub(super) fn interpolate<'a>(
    option: &str,
    value: &str,
    lookup: &dyn Fn(&str) -> Option<&'a str>,
) -> Result<String, Fault> {
    if !value.contains('%') {
        return Ok(value.to_owned());
    }
    let mut expansion = Expansion { lookup, out: String::new(), substitutions: 0 };
    expansion.expand(option, value, 1)?;
    Ok(expansion.out)
}

/// The text from the first malformed `%` on, if there is one: what Python's `ConfigParser.set` refuses.
pub(super) fn malformed_percent(value: &str) -> Option<&str> {
    names(value).find_map(Result::err)
}

/// The names that a raw value refers to, in lower case; malformed places are passed over.
pub(super) fn referenced(value: &str) -> impl Iterator<Item = String> {
    names(value).filter_map(Result::ok).map(option_name)
}

/// Every `%(name)s` of a value, up to the first malformed `%`, which ends the walk with the rest of the text.
fn names(value: &str) -> impl Iterator<Item = Result<&str, &str>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            match next_piece(rest)? {
                Ok((piece, after)) => {
                    rest = after;
                    if let Piece::Name(name) = piece {
                        return Some(Ok(name));
                    }
                }
                Err(bad) => {
                    rest = "";
                    return Some(Err(bad));
                }
            }
        }
    })
}

/// What a raw value is made of.
enum Piece<'v> {
    Text(&'v str),
    Name(&'v str),
}

/// Splits the first piece off; `None` at the end, `Err` with the text from a malformed `%` on.
fn next_piece(rest: &str) -> Option<Result<(Piece<'_>, &str), &str>> {
    if rest.is_empty() {
        return None;
    }
    let (plain, from) = rest.split_at(rest.find('%').unwrap_or(rest.len()));
    if !plain.is_empty() {
        return Some(Ok((Piece::Text(plain), from)));
    }
    if let Some(after) = from.strip_prefix("%%") {
        return Some(Ok((Piece::Text("%"), after)));
    }
    let name = from.strip_prefix("%(").and_then(|inner| inner.split_once(')'));
    match name.and_then(|(name, after)| Some((name, after.strip_prefix('s')?))) {
        Some((name, after)) if !name.is_empty() => Some(Ok((Piece::Name(name), after))),
        _ => Some(Err(from)),
    }
}

/// One value on its way to being expanded.
struct Expansion<'l, 'a> {
    lookup: &'l dyn Fn(&str) -> Option<&'a str>,
    out: String,
    substitutions: usize,
}

impl Expansion<'_, '_> {
    fn expand(&mut self, option: &str, value: &str, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::Depth);
        }
        let mut rest = value;
        while let Some(next) = next_piece(rest) {
            let (piece, after) =
                next.map_err(|bad| Fault::Syntax { option: option.to_owned(), text: bad.to_owned() })?;
            rest = after;
            match piece {
                Piece::Text(text) => self.push(text)?,
                Piece::Name(name) => self.substitute(option, &option_name(name), depth)?,
            }
        }
        Ok(())
    }

    fn substitute(&mut self, option: &str, name: &str, depth: usize) -> Result<(), Fault> {
        self.substitutions += 1;
        if self.substitutions > MAX_SUBSTITUTIONS {
            return Err(Fault::Size);
        }
        match (self.lookup)(name) {
            None => Err(Fault::Missing { option: option.to_owned(), name: name.to_owned() }),
            Some(value) if value.contains('%') => self.expand(name, value, depth + 1),
            Some(value) => self.push(value),
        }
    }

    fn push(&mut self, text: &str) -> Result<(), Fault> {
        if self.out.len() + text.len() > MAX_EXPANDED {
            return Err(Fault::Size);
        }
        self.out.push_str(text);
        Ok(())
    }
}
