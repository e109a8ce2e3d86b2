//! A folder of backups as an HTTP server lists it: the page is parsed, the dumps of one database are picked out,
//! one of them is chosen for a date, and the sum that lies beside it is read.
//!
//! Pure: bytes in, values out. Nothing here asks the network or the clock; `world::web` brings the bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use url::{Position, Url};

/// How many files one listing may name. With the limit on a page's length this bounds the memory a page can cost.
const MAX_FILES: usize = 1_000_000;

/// How much of the text after a link is searched for a date and a size, in bytes.
const MAX_TAIL: usize = 256;

/// What a dump's name ends in.
const DUMP: &str = ".dump";

/// What the name of a sum ends in, after the whole name of the file it speaks of.
const SHA256: &str = ".sha256";

/// The bytes of a file's name that are written with a percent sign in a URL: all but RFC 3986's unreserved ones.
/// Some object stores read a bare `+` as a space, so it is among them.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The files of one folder, sorted by name, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The files; folders and links that lead elsewhere are left out.
    pub files: Vec<ListedFile>,
    /// The page that goes on from here, when the server lists the folder in several.
    pub next: Option<Url>,
}

/// One file of a listing. Size and time are what the page says, which is a hint: the truth comes from a HEAD request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// The file's name, decoded once: one path segment, never empty, `.`, `..` or with a `/` or NUL in it.
    pub name: String,
    /// Where the file is, with the credentials of the listing's own URL.
    pub url: Url,
    /// Its size in bytes, when the page says one.
    pub size_hint: Option<u64>,
    /// Whether `size_hint` counts single bytes; otherwise the server rounded it, up or down.
    pub exact: bool,
    /// When it was last changed, as the page writes it: UTC where the page names a zone, the server's own time otherwise.
    pub modified: Option<DateTime>,
}

/// A dump of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The dump's file name, `<dbname>.YYYY-MM-DD.dump`.
    pub name: String,
    /// The day in its name.
    pub date: Date,
    /// Where the dump is.
    pub url: Url,
    /// Its size in bytes as the listing has it.
    pub size_hint: Option<u64>,
    /// Whether `size_hint` counts single bytes.
    pub exact: bool,
    /// When it was last changed, see [`ListedFile::modified`].
    pub modified: Option<DateTime>,
    /// Where its SHA-256 sum is, when the listing has a `<name>.sha256`.
    pub sha256: Option<Url>,
}

/// Which dump is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateChoice {
    /// The one of this day and no other.
    Exact(Date),
    /// The one of the latest day.
    Latest,
    /// The one of the oldest day.
    Oldest,
}

/// Why a page cannot be used as a listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The body is neither HTML, JSON nor an object store's XML.
    #[error("{url} is not a listing of a folder ({found})")]
    NotAListing {
        /// The page, without its password.
        url: String,
        /// What the server said it is.
        found: String,
    },
    /// JSON, but not a list of files.
    #[error("the listing {url} cannot be read as JSON")]
    Json {
        /// The page, without its password.
        url: String,
        /// What the parser met.
        source: serde_json::Error,
    },
    /// An object store's XML that breaks off or lacks what it must have.
    #[error("the listing {url} cannot be read as XML")]
    Xml {
        /// The page, without its password.
        url: String,
        /// What the parser met.
        source: quick_xml::DeError,
    },
    /// The object store answered with an error of its own.
    #[error("the object store refused to list {url}: {error}")]
    Storage {
        /// The page, without its password.
        url: String,
        /// Its words.
        error: StorageError,
    },
    /// The page is cut off and does not say how to go on.
    #[error("the listing {url} is cut off and names no next page")]
    Incomplete {
        /// The page, without its password.
        url: String,
    },
    /// More files than a listing may have.
    #[error("the listing {url} names more than {limit} files")]
    TooMany {
        /// The page, without its password.
        url: String,
        /// How many a listing may name.
        limit: usize,
    },
}

impl ListingError {
    /// What to change so that it works, where that can be known.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotAListing { .. } | Self::Json { .. } | Self::Xml { .. } => {
                "open the URL in a browser: backup_host and backup_base_url must lead to the page that lists the dumps"
            }
            Self::Storage { .. } => {
                "check the bucket's name in backup_base_url, and that it may be listed from here"
            }
            Self::Incomplete { .. } => "add list-type=2 to the query of backup_base_url",
            Self::TooMany { .. } => "keep the dumps in a folder of their own and point backup_base_url at it",
        }
    }
}

/// What an object store says in the XML body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StorageError {
    /// The machine's word, `NoSuchBucket`.
    pub code: String,
    /// The sentence for people, possibly empty.
    #[serde(default)]
    pub message: String,
}

impl StorageError {
    /// Reads an `<Error>` body; `None` when the body is anything else.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let text = decode(without_mark(body));
        if root(&text) != "Error" {
            return None;
        }
        quick_xml::de::from_str(&text).ok()
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.code)?;
        match self.message.trim().trim_end_matches('.') {
            "" => Ok(()),
            message => write!(out, ": {message}"),
        }
    }
}

/// No dump is there for the date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoBackup {
    /// What was asked for.
    pub wanted: DateChoice,
    /// The nearest day before, when there is one.
    pub earlier: Option<Date>,
    /// The nearest day after, when there is one.
    pub later: Option<Date>,
    /// How many dumps of the database there are.
    pub count: usize,
}

impl NoBackup {
    /// What to type or look at next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self.earlier.or(self.later) {
            Some(date) => format!("choose one that is there: {date}, or latest"),
            None => String::from(
                "check backup_base_url and dbname: a dump is listed there as <dbname>.YYYY-MM-DD.dump",
            ),
        }
    }
}

impl fmt::Display for NoBackup {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            DateChoice::Exact(date) => write!(out, "no backup of {date}")?,
            DateChoice::Latest | DateChoice::Oldest => out.write_str("no backup")?,
        }
        match (self.earlier, self.later) {
            (None, None) => out.write_str(": the listing has none of this database"),
            (Some(near), None) | (None, Some(near)) => {
                write!(out, ": the nearest of {} is {near}", self.count)
            }
            (Some(earlier), Some(later)) => {
                write!(out, ": the nearest of {} are {earlier} and {later}", self.count)
            }
        }
    }
}

impl std::error::Error for NoBackup {}

/// A file of sums has none for the file in question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no SHA-256 sum for {name} in it")]
pub struct NoSum {
    /// The file whose sum was looked for.
    pub name: String,
}

/// Reads a page that lists a folder.
///
/// `final_url` is where the page was found after redirects: links are resolved against it, and what lies exactly one
/// segment below its folder is a file. Understood are the HTML pages of the usual servers (any page whose links are
/// the files), the JSON of nginx and caddy, and the answer of S3's ListObjectsV2. Which of them it is shows in the
/// body, since servers are careless about the type. Text is UTF-8, or Latin-1 when it is not valid UTF-8, whatever
/// charset is declared: servers declare Latin-1 over names that are UTF-8, and links are ASCII in both.
///
/// # Errors
/// When the page is no listing, is damaged, is the store's refusal, or names more than a million files.
pub fn parse(body: &[u8], content_type: Option<&str>, final_url: &Url) -> Result<Listing, ListingError> {
    parse_within(MAX_FILES, body, content_type, final_url)
}

fn parse_within(
    limit: usize,
    body: &[u8],
    content_type: Option<&str>,
    final_url: &Url,
) -> Result<Listing, ListingError> {
    let text = decode(without_mark(body));
    let mut files = Gathered::new(final_url, limit);
    let mut next = None;
    match shape(&text, content_type) {
        Shape::Html => read_html(&text, &mut files),
        Shape::Json => read_json(&text, &mut files)
            .map_err(|source| ListingError::Json { url: without_password(final_url), source })?,
        Shape::Bucket => next = read_bucket(&text, &mut files)?,
        Shape::StorageError => return Err(refusal(&text, final_url)),
        Shape::Unknown => {
            let found = content_type.unwrap_or("of no declared type").to_owned();
            return Err(ListingError::NotAListing { url: without_password(final_url), found });
        }
    }
    Ok(Listing { files: files.finish()?, next })
}

impl Listing {
    /// Adds the page that `next` led to; a name that is already there stays as it is.
    pub fn append(&mut self, page: Self) {
        self.files.extend(page.files);
        sort_and_dedup(&mut self.files);
        self.next = page.next;
    }
}

/// The dumps of one database, oldest first: the files named `<dbname>.YYYY-MM-DD.dump` and nothing more or less.
#[must_use]
pub fn dumps(listing: &Listing, dbname: &str) -> Vec<Backup> {
    let sums: BTreeMap<&str, &Url> =
        listing.files.iter().filter_map(|file| Some((file.name.strip_suffix(SHA256)?, &file.url))).collect();
    let mut found: Vec<Backup> = listing
        .files
        .iter()
        .filter_map(|file| {
            Some(Backup {
                date: dump_date(dbname, &file.name)?,
                name: file.name.clone(),
                url: file.url.clone(),
                size_hint: file.size_hint,
                exact: file.exact,
                modified: file.modified,
                sha256: sums.get(file.name.as_str()).map(|url| (*url).clone()),
            })
        })
        .collect();
    found.sort_by_key(|backup| backup.date);
    found
}

/// The dump that is wanted among those that [`dumps`] found.
///
/// # Errors
/// When there is none, with the nearest days that have one.
pub fn choose(backups: &[Backup], wanted: DateChoice) -> Result<&Backup, NoBackup> {
    let chosen = match wanted {
        DateChoice::Exact(date) => backups.iter().find(|backup| backup.date == date),
        DateChoice::Latest => backups.iter().max_by_key(|backup| backup.date),
        DateChoice::Oldest => backups.iter().min_by_key(|backup| backup.date),
    };
    chosen.ok_or_else(|| {
        let dates = || backups.iter().map(|backup| backup.date);
        let (earlier, later) = match wanted {
            DateChoice::Exact(date) => {
                (dates().filter(|day| *day < date).max(), dates().filter(|day| *day > date).min())
            }
            DateChoice::Latest | DateChoice::Oldest => (None, None),
        };
        NoBackup { wanted, earlier, later, count: backups.len() }
    })
}

/// The sum of `name` in a file of sums, in any of the forms that `sha256sum`, `sha256sum --tag` and BSD's `sha256`
/// write, or a bare sum alone in the file. Names are compared without their folders.
///
/// # Errors
/// When no line has a sum for that name.
pub fn parse_sha256(text: &[u8], name: &str) -> Result<[u8; 32], NoSum> {
    let text = decode(without_mark(text));
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let alone = lines.clone().count() == 1;
    lines.find_map(|line| sum_line(line, name, alone)).ok_or_else(|| NoSum { name: name.to_owned() })
}

/// The URL as a message may show it: without the user and password that may stand in it.
#[must_use]
pub fn without_password(url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return url.to_string();
    }
    // A URL that has a user has a host, so that what follows the host is all of the rest.
    format!("{}{}", &url[..Position::BeforeUsername], &url[Position::BeforeHost..])
}

/// The last segment of the URL's path, decoded; `None` when it is empty or no file's name.
#[must_use]
pub fn file_name(url: &Url) -> Option<String> {
    let (_, segment) = url.path().rsplit_once('/')?;
    let name = decode_segment(segment);
    is_file_name(&name).then_some(name)
}

/// The day in `<dbname>.YYYY-MM-DD.dump`; `None` for any other name.
fn dump_date(dbname: &str, file_name: &str) -> Option<Date> {
    let date = file_name.strip_prefix(dbname)?.strip_prefix('.')?.strip_suffix(DUMP)?;
    iso_date(date)
}

/// A day written as `YYYY-MM-DD`, in exactly these ten characters.
fn iso_date(text: &str) -> Option<Date> {
    let shaped = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if shaped { text.parse().ok() } else { None }
}

/// What a body turns out to be.
enum Shape {
    Html,
    Json,
    Bucket,
    StorageError,
    Unknown,
}

fn shape(text: &str, content_type: Option<&str>) -> Shape {
    let start = text.trim_start();
    // Go writes an empty list as null; caddy did so for an empty folder.
    if start.starts_with(['[', '{']) || start.trim_end() == "null" {
        return Shape::Json;
    }
    match root(text) {
        "ListBucketResult" => return Shape::Bucket,
        "Error" => return Shape::StorageError,
        _ => {}
    }
    let essence =
        content_type.map(|value| value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some("text/html" | "application/xhtml+xml") => Shape::Html,
        None if start.starts_with('<') => Shape::Html,
        _ => Shape::Unknown,
    }
}

/// The name of the first element, after an XML declaration if there is one; empty when the text starts otherwise.
fn root(text: &str) -> &str {
    let mut rest = text.trim_start();
    if rest.starts_with("<?xml") {
        rest = rest.split_once("?>").map_or("", |(_, rest)| rest.trim_start());
    }
    let name = rest.strip_prefix('<').unwrap_or("");
    name.split(|c: char| c.is_whitespace() || c == '>' || c == '/').next().unwrap_or("")
}

fn refusal(text: &str, url: &Url) -> ListingError {
    let url = without_password(url);
    match quick_xml::de::from_str(text) {
        Ok(error) => ListingError::Storage { url, error },
        Err(source) => ListingError::Xml { url, source },
    }
}

/// The text of a body: UTF-8, or Latin-1, which any bytes are.
fn decode(body: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(latin1(body)),
    }
}

/// A body without UTF-8's byte order mark.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// A path segment with its percent signs resolved, once.
fn decode_segment(segment: &str) -> String {
    let bytes: Cow<'_, [u8]> = percent_decode_str(segment).into();
    decode(&bytes).into_owned()
}

fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// Size and time as a page has them.
#[derive(Debug, Default, Clone, Copy)]
struct Hints {
    size: Option<u64>,
    exact: bool,
    modified: Option<DateTime>,
}

/// The files of a page while it is being read.
struct Gathered<'a> {
    page: &'a Url,
    /// The page's path up to and with its last slash.
    folder: &'a str,
    files: Vec<ListedFile>,
    limit: usize,
    too_many: bool,
}

impl<'a> Gathered<'a> {
    fn new(page: &'a Url, limit: usize) -> Self {
        let path = page.path();
        let folder = path.rfind('/').and_then(|slash| path.get(..=slash)).unwrap_or("/");
        Self { page, folder, files: Vec::new(), limit, too_many: false }
    }

    /// A link as it stands in the page, when it leads to a file of this folder.
    fn file_behind(&self, href: &str) -> Option<(String, Url)> {
        let link = self.page.join(href).ok()?;
        if link.origin() != self.page.origin() {
            return None;
        }
        let (folder, _) = link.path().rsplit_once('/')?;
        let is_here = self.folder.strip_suffix('/').is_some_and(|here| {
            folder == here || (here.contains('%') && percent_decode_str(folder).eq(percent_decode_str(here)))
        });
        if !is_here {
            return None;
        }
        let name = file_name(&link)?;
        let mut url = self.page.clone();
        url.set_path(link.path());
        url.set_query(link.query());
        url.set_fragment(None);
        Some((name, url))
    }

    /// The file of this name in the folder that `path` is, whose segments are already encoded.
    fn add_named(&mut self, path: &str, name: &str, hints: Hints) {
        if !is_file_name(name) {
            return;
        }
        let mut url = self.page.clone();
        url.set_path(&format!("{path}{}", utf8_percent_encode(name, SEGMENT)));
        url.set_query(None);
        url.set_fragment(None);
        self.add(name.to_owned(), url, hints);
    }

    fn add(&mut self, name: String, url: Url, hints: Hints) {
        if self.files.len() >= self.limit {
            self.too_many = true;
            return;
        }
        self.files.push(ListedFile {
            name,
            url,
            size_hint: hints.size,
            exact: hints.size.is_some() && hints.exact,
            modified: hints.modified,
        });
    }

    fn finish(mut self) -> Result<Vec<ListedFile>, ListingError> {
        if self.too_many {
            return Err(ListingError::TooMany { url: without_password(self.page), limit: self.limit });
        }
        sort_and_dedup(&mut self.files);
        Ok(self.files)
    }
}

/// By name; of files of one name the first stays.
fn sort_and_dedup(files: &mut Vec<ListedFile>) {
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.dedup_by(|later, earlier| later.name == earlier.name);
}

/// Every `a[href]` of an HTML page; what follows it up to the next link may tell its time and size.
fn read_html(text: &str, files: &mut Gathered<'_>) {
    let mut page =
        HtmlPage { files, element: Element::Other, attribute: Attribute::Other, href: None, row: None };
    let mut emitter: CallbackEmitter<_> = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| {
        page.see(&event);
        None::<Infallible>
    });
    // Scripts and style sheets are text, whatever tags they seem to contain.
    emitter.naively_switch_states(true);
    // The callback yields no tokens, so this only drives the tokenizer to the end.
    Tokenizer::new_with_emitter(text, emitter).for_each(drop);
    page.end_row();
}

enum Element {
    Link,
    Time,
    Other,
}

enum Attribute {
    Href,
    /// caddy's table cells carry what they are sorted by.
    DataOrder,
    Datetime,
    Other,
}

struct Row {
    name: String,
    url: Url,
    in_link: bool,
    tail: String,
    hints: Hints,
}

struct HtmlPage<'a, 'b> {
    files: &'a mut Gathered<'b>,
    element: Element,
    attribute: Attribute,
    href: Option<String>,
    row: Option<Row>,
}

impl HtmlPage<'_, '_> {
    fn see(&mut self, event: &CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.element = match *name {
                    b"a" => Element::Link,
                    b"time" => Element::Time,
                    _ => Element::Other,
                };
                self.href = None;
            }
            CallbackEvent::AttributeName { name } => {
                self.attribute = match (*name, &self.element) {
                    (b"href", Element::Link) => Attribute::Href,
                    (b"data-order", _) => Attribute::DataOrder,
                    (b"datetime", Element::Time) => Attribute::Datetime,
                    _ => Attribute::Other,
                };
            }
            CallbackEvent::AttributeValue { value } => self.value(&decode(value)),
            CallbackEvent::CloseStartTag { .. } => self.begin_row(),
            CallbackEvent::EndTag { name: b"a" } => {
                if let Some(row) = &mut self.row {
                    row.in_link = false;
                }
            }
            CallbackEvent::String { value } => self.text(&decode(value)),
            CallbackEvent::EndTag { .. }
            | CallbackEvent::Comment { .. }
            | CallbackEvent::Doctype { .. }
            | CallbackEvent::Error(_) => {}
        }
    }

    fn value(&mut self, value: &str) {
        match (&self.attribute, &mut self.row) {
            (Attribute::Href, _) => self.href = self.href.take().or_else(|| Some(value.to_owned())),
            (Attribute::DataOrder, Some(row)) => {
                row.hints.size = row.hints.size.or(value.parse().ok());
                row.hints.exact = true;
            }
            (Attribute::Datetime, Some(row)) => row.hints.modified = row.hints.modified.or(utc(value)),
            _ => {}
        }
    }

    fn begin_row(&mut self) {
        let Some(href) = self.href.take() else { return };
        self.end_row();
        self.row = self.files.file_behind(&href).map(|(name, url)| Row {
            name,
            url,
            in_link: true,
            tail: String::new(),
            hints: Hints::default(),
        });
    }

    /// A link's own text is no source for anything: Apache and nginx cut long names short.
    fn text(&mut self, text: &str) {
        if let Some(row) = self.row.as_mut().filter(|row| !row.in_link && row.tail.len() < MAX_TAIL) {
            row.tail.extend(text.chars().take(MAX_TAIL));
            row.tail.push(' ');
        }
    }

    fn end_row(&mut self) {
        if let Some(row) = self.row.take() {
            let told = tail_hints(&row.tail);
            let hints = Hints {
                modified: row.hints.modified.or(told.modified),
                ..if row.hints.size.is_some() { row.hints } else { told }
            };
            self.files.add(row.name, row.url, hints);
        }
    }
}

/// The date, the time and the size that follow a link's end, in this order in every server's page.
fn tail_hints(tail: &str) -> Hints {
    let mut words = tail.split_whitespace();
    while let Some(word) = words.next() {
        let Some(date) = day(word) else { continue };
        let Some(time) = words.next().and_then(time_of_day) else {
            continue;
        };
        let (size, exact) = words.next().and_then(size).unzip();
        return Hints { size, exact: exact.unwrap_or(false), modified: Some(date.to_datetime(time)) };
    }
    Hints::default()
}

/// Apache's `2026-11-21`, nginx's `21-Nov-2026`, lighttpd's `2026-Nov-21`.
fn day(word: &str) -> Option<Date> {
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    iso_date(word)
        .or_else(|| ["%d-%b-%Y", "%Y-%b-%d"].iter().find_map(|format| Date::strptime(format, word).ok()))
}

fn time_of_day(word: &str) -> Option<Time> {
    ["%H:%M", "%H:%M:%S"].iter().find_map(|format| Time::strptime(format, word).ok())
}

/// A size and whether it is exact: `5000`, `4.9K`, `12M`. Units are powers of 1024.
fn size(word: &str) -> Option<(u64, bool)> {
    let unit_at = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at_checked(unit_at)?;
    if unit.is_empty() {
        return Some((number.parse().ok()?, true));
    }
    let power = match unit.trim_end_matches('B').trim_end_matches('i') {
        "" => 0,
        "K" | "k" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // A cast from float to integer saturates, so that no number on a page can overflow.
    Some(((number * 1024_f64.powi(power)) as u64, false))
}

/// An instant in RFC 3339's form, as the day and time it is in UTC.
fn utc(text: &str) -> Option<DateTime> {
    text.trim().parse().ok().map(in_utc)
}

fn in_utc(instant: Timestamp) -> DateTime {
    TimeZone::UTC.to_datetime(instant)
}

/// One entry of nginx's (`autoindex_format json`) or caddy's list. nginx tells a `type` and an HTTP date in `mtime`,
/// caddy `is_dir` and an RFC 3339 time in `mod_time`.
#[derive(Deserialize)]
struct JsonEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default, rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    is_dir: bool,
    #[serde(default)]
    size: Option<serde_json::Number>,
    #[serde(default, borrow)]
    mtime: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    mod_time: Option<Cow<'a, str>>,
}

impl JsonEntry<'_> {
    fn is_file(&self) -> bool {
        !self.is_dir && self.kind.as_deref().is_none_or(|kind| kind == "file")
    }

    fn hints(&self) -> Hints {
        let http = |text: &Cow<'_, str>| http_date(text).map(in_utc);
        Hints {
            size: self.size.as_ref().and_then(serde_json::Number::as_u64),
            exact: true,
            modified: self.mtime.as_ref().and_then(http).or_else(|| self.mod_time.as_deref().and_then(utc)),
        }
    }
}

/// An instant as HTTP headers have it, `Sun, 22 Nov 2026 07:08:44 GMT`.
#[must_use]
pub fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

fn read_json(text: &str, files: &mut Gathered<'_>) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_any(JsonPage { files })?;
    json.end()
}

/// Takes the entries one at a time, so that a long list is never held twice.
struct JsonPage<'a, 'b> {
    files: &'a mut Gathered<'b>,
}

impl<'de> Visitor<'de> for JsonPage<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of files")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let folder = self.files.folder;
        while let Some(entry) = entries.next_element::<JsonEntry<'de>>()? {
            if entry.is_file() {
                self.files.add_named(folder, &entry.name, entry.hints());
            }
            if self.files.too_many {
                while entries.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(())
    }
}

/// What S3's ListObjectsV2 answers.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bucket {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_continuation_token: Option<String>,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    last_modified: Option<String>,
}

/// The objects directly below the prefix's last slash. Keys count from the bucket, and the bucket's URL is that of
/// the page without its query. Gives the next page.
fn read_bucket(text: &str, files: &mut Gathered<'_>) -> Result<Option<Url>, ListingError> {
    let page = files.page;
    let bucket: Bucket = quick_xml::de::from_str(text)
        .map_err(|source| ListingError::Xml { url: without_password(page), source })?;
    let encoded = bucket.encoding_type.as_deref() == Some("url");
    let plain = |key: &str| {
        if encoded { decode_segment(&key.replace('+', " ")) } else { key.to_owned() }
    };

    let prefix = plain(&bucket.prefix);
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut path = String::from(page.path().trim_end_matches('/'));
    for segment in folder.split('/').filter(|_| !folder.is_empty()) {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    path.push('/');
    for object in &bucket.contents {
        let key = plain(&object.key);
        let Some(name) = key.strip_prefix(folder) else {
            continue;
        };
        let name = if folder.is_empty() { Some(name) } else { name.strip_prefix('/') };
        let modified = object.last_modified.as_deref().and_then(utc);
        if let Some(name) = name {
            files.add_named(&path, name, Hints { size: object.size, exact: true, modified });
        }
    }
    match (bucket.is_truncated, bucket.next_continuation_token) {
        (false, _) => Ok(None),
        (true, Some(token)) => Ok(Some(continued(page, &token))),
        (true, None) => Err(ListingError::Incomplete { url: without_password(page) }),
    }
}

/// The page's URL with this continuation token in place of the one it had.
fn continued(page: &Url, token: &str) -> Url {
    const KEY: &str = "continuation-token=";
    let mut query: String = page
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with(KEY))
        .flat_map(|pair| [pair, "&"])
        .collect();
    query.push_str(KEY);
    query.extend(utf8_percent_encode(token, SEGMENT));
    let mut next = page.clone();
    next.set_query(Some(&query));
    next
}

/// The sum in one line, if the line speaks of `name`; `alone` allows it to be without a name.
fn sum_line(line: &str, name: &str, alone: bool) -> Option<[u8; 32]> {
    let same = |told: &str| told.rsplit('/').next() == Some(name);
    if let Some(tagged) = line.strip_prefix("SHA256") {
        let (told, sum) = tagged.trim_start().strip_prefix('(')?.rsplit_once(')')?;
        let sum = sum.trim_start().strip_prefix('=')?.trim_start();
        return if same(told) { hex32(sum) } else { None };
    }
    match line.split_once(char::is_whitespace) {
        // After the sum comes a space and then a second one, or a star in binary mode.
        Some((sum, told)) => {
            let told = told.trim_start();
            if same(told) || told.strip_prefix('*').is_some_and(same) { hex32(sum) } else { None }
        }
        None if alone => hex32(line),
        None => None,
    }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut sum = [0; 32];
    for (at, byte) in sum.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests;
