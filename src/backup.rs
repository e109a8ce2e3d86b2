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
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    const EU: &str = "a_very_long_customer_database_name_for_the_european_region";

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn names(listing: &Listing) -> Vec<&str> {
        listing.files.iter().map(|file| file.name.as_str()).collect()
    }

    fn file<'a>(listing: &'a Listing, name: &str) -> &'a ListedFile {
        listing.files.iter().find(|file| file.name == name).unwrap_or_else(|| panic!("{name} is not listed"))
    }

    struct Sample {
        server: &'static str,
        body: &'static [u8],
        content_type: &'static str,
        url: &'static str,
        /// Whether the server lists files whose names begin with a dot.
        hidden: bool,
        /// What the page says of `shop.2026-11-20.dump`, whose 1536 bytes were written at 03:12:45.
        shop: Option<(u64, bool, Time)>,
    }

    macro_rules! sample {
        ($server:literal, $file:literal, $type:literal, $url:literal, $hidden:literal, $shop:expr) => {
            Sample {
                server: $server,
                body: include_bytes!(concat!("../tests/data/listings/", $file)),
                content_type: $type,
                url: concat!("http://backups.example", $url),
                hidden: $hidden,
                shop: $shop,
            }
        };
    }

    /// The same folder as eight set-ups of five servers list it.
    fn samples() -> Vec<Sample> {
        let minute = jiff::civil::time(3, 12, 0, 0);
        let second = jiff::civil::time(3, 12, 45, 0);
        let html = "text/html;charset=UTF-8";
        let mut samples = vec![
            sample!(
                "apache",
                "apache_debian.html",
                "",
                "/debian/backups/",
                true,
                Some((1536, false, minute))
            ),
            sample!("apache", "apache_plain.html", "", "/plain/backups/", true, None),
            sample!("apache", "apache_pre.html", "", "/pre/backups/", true, Some((1536, false, minute))),
            sample!("apache", "apache_table.html", "", "/table/backups/", true, Some((1536, false, minute))),
            sample!(
                "nginx",
                "nginx_html.html",
                "text/html",
                "/html/backups/",
                false,
                Some((1536, true, minute))
            ),
            sample!(
                "nginx",
                "nginx_json.json",
                "application/json",
                "/json/",
                false,
                Some((1536, true, second))
            ),
            sample!(
                "lighttpd",
                "lighttpd.html",
                "text/html",
                "/backups/",
                false,
                Some((1536, false, second))
            ),
            sample!("caddy", "caddy.html", "text/html", "/backups/", true, Some((1536, true, second))),
            sample!("python", "python_http_server.html", "text/html", "/backups/", true, None),
        ];
        for sample in &mut samples {
            if sample.content_type.is_empty() {
                sample.content_type = html;
            }
        }
        samples
    }

    #[test]
    fn every_server_gives_the_same_files() {
        for sample in samples() {
            let listing = parse(sample.body, Some(sample.content_type), &url(sample.url)).unwrap();
            let mut expected = vec![
                "100%#1?x;y+z.2026-11-21.dump",
                "a b&c.2026-11-21.dump",
                "a_very_long_customer_database_name_for_the_american_region.2026-11-21.dump",
                "a_very_long_customer_database_name_for_the_european_region.2026-11-21.dump",
                "café.2026-11-21.dump",
                "colon:name.2026-11-21.dump",
                "huge.2026-11-21.dump",
                "old.2019-01-02.dump",
                "quote\"'<b>.2026-11-21.dump",
                "shop-eu.2026-11-21.dump",
                "shop.2026-11-20.dump",
                "shop.2026-11-21.dump",
                "shop.2026-11-21.dump.sha256",
                "shop.2026-11-22.dump.part",
                "shop.eu.2026-11-21.dump",
                "shop_eu.2026-11-21.dump",
                "zero.2026-11-21.dump",
            ];
            if sample.hidden {
                expected.insert(0, ".hidden.dump");
            }
            assert_eq!(names(&listing), expected, "{} {}", sample.server, sample.url);
            assert_eq!(listing.next, None);
        }
    }

    #[test]
    fn sizes_and_times_are_taken_as_the_page_has_them() {
        for sample in samples() {
            let listing = parse(sample.body, Some(sample.content_type), &url(sample.url)).unwrap();
            let shop = file(&listing, "shop.2026-11-20.dump");
            let told = shop.size_hint.zip(shop.modified).map(|(size, at)| (size, shop.exact, at.time()));
            assert_eq!(told, sample.shop, "{} {}", sample.server, sample.url);
            assert!(shop.modified.is_none_or(|at| at.date() == date(2026, 11, 20)));
            let zero = file(&listing, "zero.2026-11-21.dump");
            assert_eq!(zero.size_hint, sample.shop.map(|_| 0), "{} {}", sample.server, sample.url);
        }
    }

    #[test]
    fn a_url_leads_back_to_its_name() {
        for sample in samples() {
            let listing = parse(sample.body, Some(sample.content_type), &url(sample.url)).unwrap();
            for listed in &listing.files {
                assert_eq!(file_name(&listed.url).as_ref(), Some(&listed.name));
                assert_eq!(
                    listed.url.path().matches('/').count(),
                    url(sample.url).path().matches('/').count()
                );
                assert_eq!((listed.url.query(), listed.url.fragment()), (None, None));
            }
        }
    }

    const S3: &[u8] =
        include_bytes!("../tests/data/listings/s3_moto_list-type_2_prefix_nightly__delimiter__.xml");

    #[test]
    fn an_object_store_lists_what_is_below_its_prefix() {
        let page = url("http://s3.example/pgbackups?list-type=2&prefix=nightly/&delimiter=/");
        let listing = parse(S3, Some("application/xml"), &page).unwrap();
        assert_eq!(
            names(&listing),
            [
                "a b&c.2026-11-21.dump",
                "café.2026-11-21.dump",
                "plus+name.2026-11-21.dump",
                "quote\"'<b>.2026-11-21.dump",
                "shop.2026-11-20.dump",
                "shop.2026-11-21.dump",
                "shop_eu.2026-11-21.dump",
                "zero.2026-11-21.dump",
            ]
        );
        let plus = file(&listing, "plus+name.2026-11-21.dump");
        assert_eq!(plus.url.as_str(), "http://s3.example/pgbackups/nightly/plus%2Bname.2026-11-21.dump");
        assert_eq!((plus.size_hint, plus.exact), (Some(11), true));
        assert_eq!(plus.modified, Some(date(2026, 11, 22).at(7, 11, 20, 0)));
    }

    #[test]
    fn a_truncated_bucket_names_its_next_page() {
        let body = b"<?xml version=\"1.0\"?>\n<ListBucketResult><IsTruncated>true</IsTruncated><Prefix/>\
            <NextContinuationToken>1/a+b=&amp;c</NextContinuationToken>\
            <Contents><Key>shop.2026-11-20.dump</Key></Contents></ListBucketResult>";
        let page = url("https://me:secret@b.s3.example/?list-type=2&continuation-token=old&prefix=");
        let mut listing = parse(body, None, &page).unwrap();
        let next = "https://me:secret@b.s3.example/?list-type=2&prefix=&continuation-token=1%2Fa%2Bb%3D%26c";
        assert_eq!(listing.next.as_ref().map(Url::as_str), Some(next));
        assert_eq!(listing.files[0].url.as_str(), "https://me:secret@b.s3.example/shop.2026-11-20.dump");

        let last = "<ListBucketResult><EncodingType>url</EncodingType><Prefix></Prefix>\
            <Contents><Key>shop.2026-11-20.dump</Key><Size>7</Size></Contents>\
            <Contents><Key>a+b%2Bc.2026-11-20.dump</Key></Contents></ListBucketResult>";
        listing.append(parse(last.as_bytes(), None, &page).unwrap());
        assert_eq!(names(&listing), ["a b+c.2026-11-20.dump", "shop.2026-11-20.dump"]);
        assert_eq!(listing.files[1].size_hint, None);
        assert_eq!(listing.next, None);
    }

    #[test]
    fn an_object_stores_own_encoding_is_undone_once() {
        let body = "<ListBucketResult><EncodingType>url</EncodingType><Prefix>my%2Fnight+ly%2Fsh</Prefix>\
            <Contents><Key>my%2Fnight+ly%2Fshop%2525.2026-11-20.dump</Key></Contents>\
            <Contents><Key>my%2Fnight+ly%2Fsub%2Fshop</Key></Contents>\
            <Contents><Key>my%2Fnight+ly%2F</Key></Contents></ListBucketResult>";
        let listing = parse(body.as_bytes(), None, &url("http://s3.example/bucket")).unwrap();
        assert_eq!(names(&listing), ["shop%25.2026-11-20.dump"]);
        let path = "/bucket/my/night%20ly/shop%2525.2026-11-20.dump";
        assert_eq!(listing.files[0].url.path(), path);
    }

    fn refused(body: &str, content_type: Option<&str>, page: &str) -> String {
        parse(body.as_bytes(), content_type, &url(page)).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_listing_is_refused_with_its_name() {
        let page = "http://me:secret@backups.example/shop/";
        assert_eq!(
            refused("PGDMP", Some("application/octet-stream"), page),
            "http://backups.example/shop/ is not a listing of a folder (application/octet-stream)"
        );
        assert_eq!(
            refused("hello", None, page),
            "http://backups.example/shop/ is not a listing of a folder (of no declared type)"
        );
        assert_eq!(
            refused("{\"error\": 1}", None, page),
            "the listing http://backups.example/shop/ cannot be read as JSON"
        );
        assert_eq!(
            refused("<ListBucketResult><Contents>", None, page),
            "the listing http://backups.example/shop/ cannot be read as XML"
        );
        assert_eq!(
            refused("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", None, page),
            "the listing http://backups.example/shop/ is cut off and names no next page"
        );
        assert_eq!(
            refused("<Error><Code>NoSuchBucket</Code><Message>It is gone.</Message></Error>", None, page),
            "the object store refused to list http://backups.example/shop/: NoSuchBucket: It is gone"
        );
    }

    #[test]
    fn only_an_error_body_is_a_storage_error() {
        let body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><RequestId>1</RequestId></Error>";
        assert_eq!(StorageError::parse(body).map(|error| error.to_string()).as_deref(), Some("AccessDenied"));
        assert_eq!(StorageError::parse(b"<html><Error></html>"), None);
        assert_eq!(StorageError::parse(S3), None);
    }

    #[test]
    fn links_that_lead_elsewhere_are_no_files() {
        let body = "<a name=top>top</a><a href='../x'>up</a><a href=/other/y>other</a><a href='sub/z'>below</a>\
            <a href='http://elsewhere.example/b/w'>host</a><a href='https://h.example/b/w'>scheme</a>\
            <a href='mailto:me@h.example'>mail</a><a href='javascript:v()'>script</a><a href='?C=N'>sort</a>\
            <a href='#x'>here</a><a href='%2e%2e'>dots</a><a href='a%2Fb'>slash</a><a href='a%00b'>nul</a>\
            <a href='.'>dot</a><!-- <a href=comment>c</a> --><script>'<a href=script>s</a>'</script>\
            <a href=' ok1 '>1</a><A HREF=/b/ok2>2</A><a href='//h.example/b/ok3#x'>3<a href='./ok4'>4</a>\
            <a href=ok1>again</a><a href='http://h.example:80/b/ok5' href=second>5</a>\
            <a href='ok%366?versionId=1'>6</a>";
        let listing = parse(body.as_bytes(), Some("text/html"), &url("http://h.example/b/?x=1")).unwrap();
        assert_eq!(names(&listing), ["ok1", "ok2", "ok3", "ok4", "ok5", "ok66"]);
        assert_eq!(file(&listing, "ok66").url.as_str(), "http://h.example/b/ok%366?versionId=1");
        assert_eq!(file(&listing, "ok3").url.as_str(), "http://h.example/b/ok3");
    }

    #[test]
    fn names_that_are_not_utf8_are_read_as_latin1() {
        let body = b"<a href=\"caf\xe9.txt\">raw</a> <a href=\"th%e9\">encoded</a>";
        let listing = parse(body, Some("text/html; charset=ISO-8859-1"), &url("http://h/")).unwrap();
        assert_eq!(names(&listing), ["café.txt", "thé"]);
        assert_eq!(listing.files[1].url.as_str(), "http://h/th%e9");
    }

    #[test]
    fn caddys_json_is_read_and_an_empty_folder_is_empty() {
        let page = url("http://me:secret@h/b/");
        let body = r#"[{"name":"sub/","size":4096,"url":"./sub/","mod_time":"2026-11-22T07:08:44Z","is_dir":true},
            {"name":"a\u0020b","size":7,"url":"./a%20b","mod_time":"2026-11-21T05:15:00.25Z","is_dir":false},
            {"name":"..","size":-1}]"#;
        let listing = parse(body.as_bytes(), Some("application/json; charset=utf-8"), &page).unwrap();
        assert_eq!(names(&listing), ["a b"]);
        assert_eq!(listing.files[0].url.as_str(), "http://me:secret@h/b/a%20b");
        assert_eq!(listing.files[0].size_hint, Some(7));
        for empty in ["null\n", "[]", "\u{feff}[ ]"] {
            assert_eq!(parse(empty.as_bytes(), Some("application/json"), &page).unwrap(), Listing::default());
        }
        assert_eq!(parse(b"", Some("text/html"), &page).unwrap(), Listing::default());
    }

    #[test]
    fn sizes_are_powers_of_1024_and_never_overflow() {
        let cases = [
            ("5000", Some((5000, true))),
            ("4.9K", Some((5017, false))),
            ("1.5T", Some((1_649_267_441_664, false))),
            ("1536G", Some((1_649_267_441_664, false))),
            ("12MiB", Some((12 << 20, false))),
            ("10B", Some((10, false))),
            ("99999999999E", Some((u64::MAX, false))),
            ("99999999999999999999", None),
            ("1.2.3K", None),
            ("-", None),
            ("5Q", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(size(word), expected, "{word}");
        }
    }

    fn nginx() -> Listing {
        let body = include_bytes!("../tests/data/listings/nginx_html.html");
        parse(body, Some("text/html"), &url("http://backups.example/html/backups/")).unwrap()
    }

    #[test]
    fn dumps_are_those_of_exactly_this_database() {
        let dumps = |dbname: &str| -> Vec<String> {
            dumps(&nginx(), dbname).into_iter().map(|backup| backup.name).collect()
        };
        assert_eq!(dumps("shop"), ["shop.2026-11-20.dump", "shop.2026-11-21.dump"]);
        assert_eq!(dumps("shop_eu"), ["shop_eu.2026-11-21.dump"]);
        assert_eq!(dumps("shop.eu"), ["shop.eu.2026-11-21.dump"]);
        assert_eq!(dumps(EU), [format!("{EU}.2026-11-21.dump")]);
        assert_eq!(dumps("100%#1?x;y+z"), ["100%#1?x;y+z.2026-11-21.dump"]);
        assert_eq!(dumps("eu"), [""; 0]);
        assert_eq!(dumps(""), [""; 0]);
    }

    #[test]
    fn only_a_whole_and_real_date_counts() {
        assert_eq!(dump_date("shop", "shop.2026-11-21.dump"), Some(date(2026, 11, 21)));
        for name in [
            "shop.2026-02-30.dump",
            "shop.2026-2-3.dump",
            "shop.20261121.dump",
            "shop.+026-11-21.dump",
            "shop.2026-11-21T00.dump",
            "shop.2026-11-21.dump.part",
            "shop.2026-11-21",
            "shop.dump",
            "xshop.2026-11-21.dump",
        ] {
            assert_eq!(dump_date("shop", name), None, "{name}");
        }
    }

    #[test]
    fn a_sum_beside_a_dump_is_found() {
        let dumps = dumps(&nginx(), "shop");
        assert_eq!(dumps[0].sha256, None);
        let sum = dumps[1].sha256.as_ref().unwrap();
        assert_eq!(sum.as_str(), "http://backups.example/html/backups/shop.2026-11-21.dump.sha256");
    }

    #[test]
    fn the_dump_of_the_date_is_chosen_and_no_other() {
        let dumps = dumps(&nginx(), "shop");
        let chosen =
            |wanted| choose(&dumps, wanted).map(|backup| backup.date).map_err(|none| none.to_string());
        assert_eq!(chosen(DateChoice::Latest), Ok(date(2026, 11, 21)));
        assert_eq!(chosen(DateChoice::Oldest), Ok(date(2026, 11, 20)));
        assert_eq!(chosen(DateChoice::Exact(date(2026, 11, 20))), Ok(date(2026, 11, 20)));
        assert_eq!(
            chosen(DateChoice::Exact(date(2026, 11, 23))),
            Err("no backup of 2026-11-23: the nearest of 2 is 2026-11-21".into())
        );
        assert_eq!(
            choose(&[], DateChoice::Latest).unwrap_err().to_string(),
            "no backup: the listing has none of this database"
        );
        let gap = [dumps[0].clone(), Backup { date: date(2026, 11, 25), ..dumps[1].clone() }];
        let none = choose(&gap, DateChoice::Exact(date(2026, 11, 22))).unwrap_err();
        assert_eq!(
            none.to_string(),
            "no backup of 2026-11-22: the nearest of 2 are 2026-11-20 and 2026-11-25"
        );
        assert_eq!(none.hint(), "choose one that is there: 2026-11-20, or latest");
    }

    #[test]
    fn a_sum_is_read_in_each_form() {
        let name = "shop.2026-11-21.dump";
        let hex = "00ff".repeat(16);
        let sum = [[0x00, 0xff]; 16].concat();
        for text in [
            format!("{hex}\n"),
            format!("  {}\r\n", hex.to_uppercase()),
            format!("{hex}  {name}\n"),
            format!("{hex} *{name}\n"),
            format!("{hex}  /srv/backups/{name}\n"),
            format!("SHA256 ({name}) = {hex}\n"),
            format!("SHA256(./{name})= {hex}\n"),
            format!("# sums\n{}  other\n{hex}  {name}\n", "11".repeat(32)),
        ] {
            assert_eq!(parse_sha256(text.as_bytes(), name).unwrap(), *sum, "{text}");
        }
        for text in [
            String::new(),
            format!("{hex}  other.dump\n"),
            format!("SHA256 (other.dump) = {hex}\n"),
            format!("{hex}\n{hex}\n"),
            format!("{}  {name}\n", &hex[1..]),
            format!("é{}  {name}\n", &hex[2..]),
            "<html>not found</html>".into(),
        ] {
            assert_eq!(parse_sha256(text.as_bytes(), name), Err(NoSum { name: name.into() }), "{text}");
        }
    }

    #[test]
    fn a_shown_url_has_no_password() {
        let shown = |text| without_password(&url(text));
        assert_eq!(shown("https://me:secret@h.example:8443/a?b#c"), "https://h.example:8443/a?b#c");
        assert_eq!(shown("http://me@h.example/"), "http://h.example/");
        assert_eq!(shown("http://:secret@h.example/"), "http://h.example/");
        assert_eq!(shown("http://h.example/a@b"), "http://h.example/a@b");
    }

    #[test]
    fn a_page_of_too_many_files_is_refused() {
        let page = url("http://h/b/");
        for body in [
            "<a href=1><a href=2><a href=3>",
            r#"[{"name":"1"},{"name":"2"},{"name":"3"}]"#,
            "<ListBucketResult><Contents><Key>1</Key></Contents><Contents><Key>2</Key></Contents>\
                <Contents><Key>3</Key></Contents></ListBucketResult>",
        ] {
            assert_eq!(parse_within(3, body.as_bytes(), None, &page).unwrap().files.len(), 3);
            let refused = parse_within(2, body.as_bytes(), None, &page).unwrap_err();
            assert_eq!(refused.to_string(), "the listing http://h/b/ names more than 2 files");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&body, Some("text/html"), &url("http://h/b/"));
            let _ = parse_sha256(&body, "b");
        }

        #[test]
        fn damaged_pages_are_read_or_refused(sample in 0_usize..9, at in any::<usize>(), byte in any::<u8>()) {
            let sample = &samples()[sample];
            let mut body = sample.body.to_vec();
            let at = at % body.len();
            body[at] = byte;
            let _ = parse(&body, Some(sample.content_type), &url(sample.url));
            body.truncate(at);
            let _ = parse(&body, Some(sample.content_type), &url(sample.url));
        }

        #[test]
        fn any_name_in_json_gives_a_url_that_leads_back(name in "[^/\0]{1,20}") {
            let body = serde_json::to_vec(&serde_json::json!([{ "name": name }])).unwrap();
            let listing = parse(&body, Some("application/json"), &url("http://h/b/")).unwrap();
            for listed in &listing.files {
                prop_assert_eq!(&listed.name, &name);
                prop_assert_eq!(file_name(&listed.url), Some(name.clone()));
                prop_assert!(listed.url.path().starts_with("/b/"));
            }
            prop_assert!(listing.files.len() == 1 || name == "." || name == "..");
        }
    }
}
