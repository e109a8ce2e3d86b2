//! A folder of backups as an HTTP server lists it: the page is parsed, the dumps of one database are picked out,
//! one of them is chosen for a date, and the sum that lies beside it is read.
//!
//! Pure: bytes in, values out. Nothing here asks the network or the clock; `world::web` brings the bytes.
//!
//! - `html`, `json`, `xml` and `bucket` each read one kind of page, `hints` the sizes and times in them;
//! - `gathered` decides which links are files, `sum` reads sums, `error` says what can be wrong.

mod bucket;
mod error;
mod gathered;
mod hints;
mod html;
mod json;
mod sum;
mod xml;

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime};
use percent_encoding::percent_decode_str;
use url::{Position, Url};

use crate::database::DumpName;

use self::bucket::{read_bucket, refusal};
use self::gathered::Gathered;
use self::html::read_html;
use self::json::read_json;
use self::xml::read_xml_list;

pub use self::error::{ListingError, NoBackup, NoSum, StorageError};
pub use self::hints::http_date;
pub use self::sum::parse_sha256;

/// How many files one listing may name. With the limit on a page's length this bounds the memory a page can cost.
const MAX_FILES: usize = 1_000_000;

/// The contents of a dump that is a folder (`pg_dump -Fd`).
const TOC: &str = "toc.dat";

/// What the name of a sum ends in, after the whole name of the file it speaks of.
const SHA256: &str = ".sha256";

/// The files of one folder, sorted by name, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The files; links that lead elsewhere are left out.
    pub files: Vec<ListedFile>,
    /// The folders in it, by their names, and where each lists what is in it.
    pub folders: BTreeMap<String, Url>,
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
    /// Whether size and time are what the server itself knows, in bytes and in UTC, as JSON and object stores tell it.
    /// Pages for people round sizes, up or down, and tell times in a zone that they do not name.
    pub exact: bool,
    /// When it was last changed: UTC if `exact`, else as the page writes it.
    pub modified: Option<DateTime>,
}

/// A dump of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The dump's file name, as [`DumpName`] has it; that of a folder ends in `/`.
    pub name: String,
    /// The day in its name.
    pub date: Date,
    /// Where the dump is; of a folder, where its contents are.
    pub url: Url,
    /// Its size in bytes as the listing has it.
    pub size_hint: Option<u64>,
    /// Whether size and time are the server's own, see [`ListedFile::exact`].
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

/// Reads a page that lists a folder.
///
/// `final_url` is where the page was found after redirects: links are resolved against it, and what lies exactly one
/// segment below its folder is a file. Understood are the HTML pages of the usual servers (any page whose links are
/// the files), the JSON of nginx and caddy, nginx's XML, and what S3 and its relatives answer, ListObjects as well as
/// ListObjectsV2. Which of them it is shows in the body, since servers are careless about the type. Text is UTF-8, or Latin-1 when it is not valid UTF-8, whatever
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
        Shape::XmlList => read_xml_list(&text, &mut files)?,
        Shape::StorageError => return Err(refusal(&text, final_url)),
        Shape::Unknown => {
            let found = content_type.unwrap_or("of no declared type").to_owned();
            return Err(ListingError::NotAListing { url: without_password(final_url), found });
        }
    }
    let (files, folders) = files.finish()?;
    Ok(Listing { files, folders, next })
}

impl Listing {
    /// Adds the page that `next` led to; a name that is already there stays as it is.
    pub fn append(&mut self, page: Self) {
        self.files.extend(page.files);
        self.folders.extend(page.folders);
        sort_and_dedup(&mut self.files);
        self.next = page.next;
    }
}

/// The dumps of one database, oldest first: the files whose names are a [`DumpName`] of it, and nothing more or less. Of
/// several of one day the preferred one comes first.
#[must_use]
pub fn dumps(listing: &Listing, dbname: &str) -> Vec<Backup> {
    let sums: BTreeMap<&str, &Url> =
        listing.files.iter().filter_map(|file| Some((file.name.strip_suffix(SHA256)?, &file.url))).collect();
    let mut found: Vec<Backup> = listing
        .files
        .iter()
        .filter_map(|file| {
            Some(Backup {
                date: DumpName::date_of(dbname, &file.name)?,
                name: file.name.clone(),
                url: file.url.clone(),
                size_hint: file.size_hint,
                exact: file.exact,
                modified: file.modified,
                sha256: sums.get(file.name.as_str()).map(|url| (*url).clone()),
            })
        })
        .collect();
    let preference =
        |name: &str| DumpName::parse(name).map_or(DumpName::FOLDER_PREFERENCE, |name| name.preference());
    found.extend(listing.folders.iter().filter_map(|(name, url)| {
        Some(Backup {
            date: DumpName::date_of_folder(dbname, name)?,
            name: format!("{name}/"),
            url: url.join(TOC).ok()?,
            size_hint: None,
            exact: false,
            modified: None,
            sha256: None,
        })
    }));
    found.sort_by_cached_key(|backup| (backup.date, preference(&backup.name)));
    found
}

/// The dump that is wanted among those that [`dumps`] found.
///
/// # Errors
/// When there is none, with the nearest days that have one, and those there are.
pub fn choose<'a>(backups: &'a [Backup], dbname: &str, wanted: DateChoice) -> Result<&'a Backup, NoBackup> {
    let chosen = match wanted {
        DateChoice::Exact(date) => backups.iter().find(|backup| backup.date == date),
        // Of several that are the latest, the first.
        DateChoice::Latest => backups.iter().rev().max_by_key(|backup| backup.date),
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
        NoBackup { wanted, earlier, later, count: backups.len(), there_are: those_there_are(backups, dbname) }
    })
}

/// Parameters of a query that say what is listed, in which order or form. What any other holds may be a key.
const HARMLESS: [&str; 17] = [
    "C",
    "F",
    "O",
    "P",
    "V",
    "continuation-token",
    "delimiter",
    "dir",
    "encoding-type",
    "fetch-owner",
    "format",
    "list-type",
    "marker",
    "max-keys",
    "prefix",
    "start-after",
    "versionId",
];

/// The URL as a message may show it: without the user and password that may stand in it, and without what may be keys in
/// its query.
#[must_use]
pub fn without_password(url: &Url) -> String {
    let mut shown = url.clone();
    if let Some(query) = url.query().filter(|query| !query.is_empty()) {
        shown.set_query(Some(&query.split('&').map(blotted).collect::<Vec<_>>().join("&")));
    }
    if url.username().is_empty() && url.password().is_none() {
        return shown.to_string();
    }
    // A URL that has a user has a host, so that what follows the host is all of the rest.
    format!("{}{}", &shown[..Position::BeforeUsername], &shown[Position::BeforeHost..])
}

/// A parameter without its value, unless that is harmless.
fn blotted(pair: &str) -> String {
    let key = pair.split_once('=').map_or(pair, |(key, _)| key);
    match pair.split_once('=') {
        _ if HARMLESS.contains(&key) => pair.to_owned(),
        Some(_) => format!("{key}=***"),
        None => "***".to_owned(),
    }
}

/// The URL as it may be stored: as it may be shown, if that still leads to the file, and otherwise without its query.
#[must_use]
pub fn to_store(url: &Url) -> String {
    let mut stored = url.clone();
    stored.set_fragment(None);
    if stored.query().is_some_and(|query| query.split('&').any(|pair| blotted(pair) != pair)) {
        stored.set_query(None);
    }
    without_password(&stored)
}

/// Which dumps there are, for people who asked for one that there is not.
#[must_use]
pub fn those_there_are(dumps: &[Backup], dbname: &str) -> String {
    const SHOWN: usize = 10;
    let mut dates: Vec<Date> = dumps.iter().map(|dump| dump.date).collect();
    dates.sort_unstable_by(|a, b| b.cmp(a));
    let newest: Vec<String> = dates.iter().take(SHOWN).map(ToString::to_string).collect();
    match newest.as_slice() {
        [] => format!("the server lists no dump of {dbname} at all: check backup_base_url and dbname"),
        newest => format!("the newest of {} backups: {}", dates.len(), newest.join(", ")),
    }
}

/// Whether a file may be a dump of the database, or what lies beside one.
#[must_use]
pub fn belongs_to(dbname: &str, file_name: &str) -> bool {
    file_name.strip_prefix(dbname).is_some_and(|rest| rest.starts_with('.'))
}

/// The last segment of the URL's path, decoded; `None` when it is empty or no file's name.
#[must_use]
pub fn file_name(url: &Url) -> Option<String> {
    let (_, segment) = url.path().rsplit_once('/')?;
    let name = decode_segment(segment);
    is_file_name(&name).then_some(name)
}

/// What a body turns out to be.
enum Shape {
    Html,
    Json,
    Bucket,
    XmlList,
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
        "list" => return Shape::XmlList,
        "Error" => return Shape::StorageError,
        name if ["html", "head", "body"].iter().any(|html| name.eq_ignore_ascii_case(html)) => {
            return Shape::Html;
        }
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

/// The name of the first element, after declarations and comments; empty when the text starts otherwise.
fn root(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        let end = match rest {
            _ if rest.starts_with("<!--") => "-->",
            _ if rest.starts_with("<?") => "?>",
            _ if rest.starts_with("<!") => ">",
            _ => break,
        };
        rest = rest.split_once(end).map_or("", |(_, rest)| rest.trim_start());
    }
    let name = rest.strip_prefix('<').unwrap_or("");
    name.split(|c: char| c.is_whitespace() || c == '>' || c == '/').next().unwrap_or("")
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

/// By name; of files of one name the first stays, and learns from the others what it does not know.
fn sort_and_dedup(files: &mut Vec<ListedFile>) {
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.dedup_by(|later, earlier| {
        let same = later.name == earlier.name;
        if same && earlier.size_hint.is_none() {
            (earlier.size_hint, earlier.exact) = (later.size_hint, later.exact);
            earlier.modified = later.modified.or(earlier.modified);
        }
        same
    });
}

#[cfg(test)]
mod tests;
