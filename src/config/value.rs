//! From the text of an option to its value, kind by kind. What is wrong with a text is said as a predicate that goes
//! on from it; where it stood is added by the caller.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use serde::{Serialize, Serializer};
use url::Url;

/// What is wrong with a text, and how to mend it where that is more than what the option allows.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    pub(super) fn new(problem: impl Into<String>) -> Problem {
        Problem { problem: problem.into(), hint: None }
    }

    fn with_hint(problem: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { problem: problem.into(), hint: Some(hint.into()) }
    }
}

/// A URL that may hold a user, a password or a signed query. They are used, and never shown: `Display`, `Debug` and
/// `Serialize` blot them out.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// The URL itself, to connect with.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.0.username().is_empty() && self.0.password().is_none() { "" } else { "***@" };
        let host = self.0.host_str().unwrap_or_default();
        write!(f, "{}://{user}{host}", self.0.scheme())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        let query = if self.0.query().is_some() { "?***" } else { "" };
        write!(f, "{}{query}", self.0.path())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the journal is kept: a folder, or a `postgres://` URL whose password is used and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct JournalLocation(String);

impl JournalLocation {
    /// The location in full, to open it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JournalLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_secrets(&self.0))
    }
}

impl fmt::Debug for JournalLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalLocation({self})")
    }
}

impl Serialize for JournalLocation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a process that died held is not free before its lease has ended.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 3600);

/// A journal on a server of PostgreSQL's.
#[derive(Clone, PartialEq, Eq)]
pub struct JournalServer {
    /// Its URL, in full.
    pub url: String,
    /// How long a run is owned at a time: `lease=30s` among the URL's options.
    pub lease: Option<Duration>,
}

impl JournalServer {
    /// From the URL as it is written; what is wrong with it goes on from it.
    pub fn parse(text: &str) -> Result<JournalServer, String> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err("is neither a folder nor a postgres:// URL".to_owned());
        }
        let Some((place, options)) = text.split_once('?') else {
            return Ok(JournalServer { url: text.to_owned(), lease: None });
        };
        let (leases, others): (Vec<&str>, Vec<&str>) =
            options.split('&').partition(|option| option.starts_with("lease="));
        let lease = leases.last().and_then(|option| option.strip_prefix("lease="));
        let length = |text: &str| {
            let length = duration(text).ok().filter(|length| !length.is_zero() && *length <= LONGEST_LEASE);
            length.ok_or_else(|| "has a lease that is no length of time from 1s to 24h".to_owned())
        };
        let query = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
        Ok(JournalServer { url: format!("{place}{query}"), lease: lease.map(length).transpose()? })
    }
}

impl fmt::Debug for JournalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalServer({}, {:?})", without_secrets(&self.url), self.lease)
    }
}

/// A text in which a URL may stand, without its secrets.
pub(super) fn shown(text: &str) -> String {
    if text.contains("://") { without_secrets(text) } else { text.to_owned() }
}

/// A text that may be a URL, without user, password and query. It need not be a correct one, so what goes is
/// everything up to the last `@`, and everything from the first `?` on.
pub fn without_secrets(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let rest = match rest.rsplit_once('@') {
        Some((_, rest)) => format!("***@{rest}"),
        None => rest.to_owned(),
    };
    match rest.split_once('?') {
        Some((rest, _)) => format!("{scheme}{rest}?***"),
        None => format!("{scheme}{rest}"),
    }
}

/// Python's `getboolean`.
pub(super) fn boolean(text: &str) -> Result<bool, Problem> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(Problem::new("is neither true nor false")),
    }
}

/// A whole number from 0.
pub(super) fn count(text: &str) -> Result<usize, Problem> {
    text.parse().map_err(|_| Problem::new("is not a whole number from 0"))
}

/// A whole number from 1 to 65535: a port, or a number of workers.
pub(super) fn from_one(text: &str) -> Result<u16, Problem> {
    match text.parse() {
        Ok(0) | Err(_) => Err(Problem::new("is not a whole number from 1 to 65535")),
        Ok(number) => Ok(number),
    }
}

/// `0%` to `100%`.
pub(super) fn percentage(text: &str) -> Result<u8, Problem> {
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
    number.filter(|number| *number <= 100).ok_or_else(|| Problem::new("is not a percentage from 0% to 100%"))
}

/// `30s`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    let wrong = || Problem::new("is not a length of time");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds_each: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds_each).map(Duration::from_secs).ok_or_else(wrong)
}

/// `15`, `9.6`: digits with single dots between them.
pub(super) fn version(text: &str) -> Result<String, Problem> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if text.split('.').all(digits) {
        return Ok(text.to_owned());
    }
    Err(Problem::new("is not a version"))
}

/// A name that PostgreSQL takes whole: neither empty nor longer than `limit` bytes, no control characters.
pub(super) fn name(text: &str, limit: usize) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::new("is empty"));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::new("holds a control character"));
    }
    if text.len() > limit {
        return Err(Problem::new(format!("is {} bytes long", text.len())));
    }
    Ok(text.to_owned())
}

/// A host as ssh and PostgreSQL's programs take it as an argument.
pub(super) fn host(text: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::new("is empty"));
    }
    if text.starts_with('-') {
        return Err(Problem::new("begins with `-`, as an option of ssh would"));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Problem::new("holds white space or a control character"));
    }
    Ok(text.to_owned())
}

/// A path on this machine; a `~` in front becomes `home`.
pub(super) fn local_path(text: &str, home: Option<&Path>) -> Result<PathBuf, Problem> {
    if text.is_empty() {
        return Err(Problem::new("is empty"));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::new("holds a control character"));
    }
    let Some(below) = text.strip_prefix('~') else {
        return Ok(PathBuf::from(text));
    };
    if !below.is_empty() && !below.starts_with('/') {
        return Err(Problem::with_hint(
            "begins with the home of another user",
            "write the path out; only ~ and ~/… are replaced",
        ));
    }
    let home = home.ok_or_else(|| {
        Problem::with_hint(
            "begins with `~`, and the home directory is not known",
            "set HOME, or write the path out",
        )
    })?;
    Ok(home.join(below.trim_start_matches('/')))
}

/// A path on the target host.
pub(super) fn remote_path(text: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::new("is empty"));
    }
    if text.starts_with('-') {
        return Err(Problem::with_hint("begins with `-`, as an option would", "write ./ in front of it"));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::new("holds a control character"));
    }
    Ok(text.to_owned())
}

/// A folder, with `~` replaced, or a URL of PostgreSQL's.
pub(super) fn journal(text: &str, home: Option<&Path>) -> Result<JournalLocation, Problem> {
    match text.split_once("://") {
        Some(_) => JournalServer::parse(text).map(|_| JournalLocation(text.to_owned())).map_err(Problem::new),
        None => {
            let path = local_path(text, home)?;
            let path =
                path.to_str().ok_or_else(|| Problem::new("lies in a home directory that is not UTF-8"))?;
            Ok(JournalLocation(path.to_owned()))
        }
    }
}

/// Items separated by commas or line ends, trimmed; empty ones are dropped.
pub(super) fn list(text: &str) -> Vec<String> {
    let items = text.split([',', '\n']).map(str::trim);
    items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Names in a list.
pub(super) fn names(text: &str) -> Result<Vec<String>, Problem> {
    let checked = |item: String| match name(&item, 63) {
        Ok(item) => Ok(item),
        Err(Problem { problem, .. }) => Err(Problem::new(format!("has an item `{item}` that {problem}"))),
    };
    list(text).into_iter().map(checked).collect()
}

/// Regular expressions in a list, compiled.
pub(super) fn expressions(text: &str) -> Result<Vec<Regex>, Problem> {
    list(text).iter().map(|item| expression(item)).collect()
}

fn expression(item: &str) -> Result<Regex, Problem> {
    Regex::new(item).map_err(|error| {
        let said = error.to_string();
        // The last line of the crate's message is the reason; what precedes it draws a picture over several lines.
        let reason = said.lines().last().unwrap_or(&said).trim_start_matches("error: ");
        let problem = format!("has an expression `{item}` that does not compile: {reason}");
        if item.contains('{') != item.contains('}') {
            Problem::with_hint(problem, "a comma ends an expression: write {2,3} as alternatives, xx|xxx")
        } else {
            Problem::with_hint(
                problem,
                "the syntax is that of docs.rs/regex: no look-around, no back-references",
            )
        }
    })
}

/// Words as a shell would split them, without expanding anything.
pub(super) fn words(text: &str) -> Result<Vec<String>, Problem> {
    if text.contains('\0') {
        return Err(Problem::new("holds a NUL character"));
    }
    shlex::split(text)
        .ok_or_else(|| Problem::with_hint("ends inside a quotation", "close the quotation mark"))
}

/// The URL of the server that serves the backups.
pub(super) fn backup_host(text: &str) -> Result<Url, Problem> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Problem::new("holds white space or a control character"));
    }
    let url = match text.contains("://") {
        true => full_url(text)?,
        false => full_url(&format!("http://{text}"))?,
    };
    if url.query().is_some() {
        return Err(Problem::with_hint("has a query", "move the query to a full URL in backup_base_url"));
    }
    Ok(url)
}

/// A full URL, or a path joined to the server's URL. With `directory`, the path ends in a slash.
///
/// A path is taken literally, but for `%` and two hexadecimal digits, which stay as they are; the query of a full URL
/// is kept.
pub(super) fn below_host(host: &Url, text: &str, directory: bool) -> Result<SecretUrl, Problem> {
    if text.chars().any(char::is_control) {
        return Err(Problem::new("holds a control character"));
    }
    let mut url = if text.contains("://") {
        full_url(text)?
    } else {
        let base = host.path().trim_end_matches('/');
        let mut url = host.clone();
        url.set_path(&format!("{base}/{}", encode_path(text.trim_start_matches('/'))));
        url
    };
    if directory && !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(SecretUrl(url))
}

/// Encodes what a URL would take for something else than a character of the path.
fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        match c {
            '?' => encoded.push_str("%3F"),
            '#' => encoded.push_str("%23"),
            '\\' => encoded.push_str("%5C"),
            '%' if rest.clone().take(2).filter(char::is_ascii_hexdigit).count() < 2 => {
                encoded.push_str("%25");
            }
            // The rest is encoded by the URL itself.
            c => encoded.push(c),
        }
    }
    encoded
}

fn full_url(text: &str) -> Result<Url, Problem> {
    let mut url = Url::parse(text).map_err(|error| match error {
        url::ParseError::InvalidPort => Problem::new("has a port that is not a number from 1 to 65535"),
        url::ParseError::InvalidIpv6Address => Problem::new("has an IPv6 address that is none"),
        url::ParseError::EmptyHost => Problem::new("has no host"),
        other => Problem::new(format!("is not a URL: {other}")),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Problem::new(format!("has the scheme {}", url.scheme())));
    }
    if url.port() == Some(0) {
        return Err(Problem::new("has a port that is not a number from 1 to 65535"));
    }
    // A fragment never reaches the server.
    url.set_fragment(None);
    Ok(url)
}
