//! pgbouncer.ini as text: what pgbouncer reads in it, and the three edits that staging needs.
//!
//! Bytes in, bytes out. A file is read by the rules of pgbouncer's own parser (`cfparser.c` of libusual for the lines,
//! `loader.c` for the connection strings), from 1.18 to 1.25: what it would refuse is refused here, with the line and
//! a hint. The edits `add`, `remove` and `repoint` change the bytes they must and keep every other one: comments,
//! order, blank lines, line ends, spacing, options nobody here knows.
//!
//! The rules, since they are not those of other ini files: a comment is a whole line that starts with `;` or `#`; a
//! value ends at the end of its line and nowhere else; names are made of `A-Za-z0-9_.*-` (1.25 also reads `'any name'`);
//! what follows the `]` of a section header is read as a line of its own; the last line of an alias counts.
//!
//! Two things are left to pgbouncer. The options of `[pgbouncer]` differ from version to version, so neither their names
//! nor, `pool_mode` apart, their values are judged. And `%include` is not followed: what comes after it is taken to be in the
//! section that was open before it, as it is unless the included file opens another.
//!
//! - `reader` finds the lines, `layout` the sections and entries, `connection` takes connection strings apart;
//! - `edit` says where an edit lands, `error` what can be wrong and what to change.

mod connection;
mod edit;
mod error;
mod layout;
mod reader;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use sha2::{Digest, Sha256};

use self::connection::{DATABASE_KEYWORDS, atoi, needs_quotes, quoted};
use self::edit::{check_alias, check_value, unusable_value};
use self::layout::Layout;

pub use self::error::{BouncerError, Problem};

/// The text of a pgbouncer.ini that pgbouncer can read, and what it says.
#[derive(Clone)]
pub struct PgbouncerIni {
    bytes: Vec<u8>,
    base_sha256: String,
    layout: Layout,
}

/// One line of `[databases]`: a name that clients connect to, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    alias: String,
    keywords: Vec<Keyword>,
    line: usize,
    /// An `%include` stands between the header and this line, so the line may be in any section.
    behind_include: bool,
    /// Where the name starts, and where the value does and ends.
    start: usize,
    value: Range<usize>,
}

/// Where an entry leads: the values of its keywords, `None` where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// `dbname`.
    pub dbname: Option<String>,
    /// `host`.
    pub host: Option<String>,
    /// `port`.
    pub port: Option<u16>,
}

impl Destination {
    /// All three.
    pub fn new(dbname: &str, host: &str, port: u16) -> Destination {
        Destination { dbname: Some(dbname.to_owned()), host: Some(host.to_owned()), port: Some(port) }
    }

    fn keywords<'d>(&'d self, port: Option<&'d str>) -> [(&'static str, Option<&'d str>); 3] {
        [("dbname", self.dbname.as_deref()), ("host", self.host.as_deref()), ("port", port)]
    }
}

/// One `key=value` of a connection string.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyword {
    name: String,
    value: Vec<u8>,
    /// The value as written, its quotes included.
    written: Range<usize>,
    quoted: bool,
}

/// When pgbouncer gives a server connection back to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client leaves.
    Session,
    /// After each transaction.
    Transaction,
    /// After each statement.
    Statement,
}

impl PgbouncerIni {
    /// Reads the bytes of a pgbouncer.ini; fails where pgbouncer would refuse them.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, BouncerError> {
        let bytes = bytes.into();
        let layout = Layout::read(&bytes)?;
        Ok(Self { base_sha256: sha256_hex(&bytes), bytes, layout })
    }

    /// The file as it is now.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The SHA-256 of the file as it is now, in 64 lower-case hexadecimal digits.
    pub fn sha256_hex(&self) -> String {
        sha256_hex(&self.bytes)
    }

    /// The SHA-256 of the file as it was given to `parse`, whatever was edited since.
    pub fn base_sha256_hex(&self) -> &str {
        &self.base_sha256
    }

    /// The entries of `[databases]` in the order of the file, without the fallback `*`.
    pub fn entries(&self) -> &[Entry] {
        &self.layout.databases
    }

    /// The entry that counts for this name: the last one.
    pub fn entry(&self, alias: &str) -> Option<&Entry> {
        self.entries().iter().rfind(|entry| entry.alias == alias)
    }

    /// The names that have more than one entry, each with its lines. Only the last line of each has an effect.
    pub fn duplicates(&self) -> Vec<(&str, Vec<usize>)> {
        let mut found: Vec<(&str, Vec<usize>)> = Vec::new();
        for entry in self.entries() {
            match found.iter_mut().find(|(alias, _)| *alias == entry.alias) {
                Some((_, lines)) => lines.push(entry.line),
                None => found.push((&entry.alias, vec![entry.line])),
            }
        }
        found.retain(|(_, lines)| lines.len() > 1);
        found
    }

    /// The entry `*`, which answers for every name that has none of its own. pgbouncer reads its connection
    /// string only when a client asks, so its keywords end where the string can no longer be read.
    pub fn fallback(&self) -> Option<&Entry> {
        self.layout.fallback.as_ref()
    }

    /// Whether there is an entry `*`.
    pub fn has_fallback(&self) -> bool {
        self.layout.fallback.is_some()
    }

    /// The files that `%include` names, in order. They are not read.
    pub fn includes(&self) -> &[String] {
        &self.layout.includes
    }

    /// The value of an option of `[pgbouncer]`, if the file sets it. A second `[pgbouncer]` header sets every
    /// option back to its default, so only what follows the last one counts.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.layout.settings.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The pool mode that clients of this name get: that of the user whom the entry forces, else that of the entry (or the
    /// fallback), else that of `[pgbouncer]`. `None` if there is neither entry nor fallback. A client's own user may
    /// have a pool mode in `[users]`, and that comes before all but the first.
    pub fn pool_mode(&self, alias: &str) -> Option<PoolMode> {
        let entry = self.entry(alias).or(self.fallback())?;
        let forced = entry.get("user").and_then(|user| self.layout.users.iter().rfind(|u| u.alias == user));
        let named = |entry: &Entry| entry.get("pool_mode").and_then(|mode| PoolMode::named(&mode));
        let global = || self.setting("pool_mode").and_then(PoolMode::named);
        forced.and_then(named).or_else(|| named(entry)).or_else(global).or(Some(PoolMode::Session))
    }

    /// Adds an entry after the last one of `[databases]`, before the comments and blank lines that lead to the
    /// next section (and before the first `%include`, behind which nobody knows which section is open).
    pub fn add(&mut self, alias: &str, keywords: &[(&str, &str)]) -> Result<(), BouncerError> {
        check_alias(alias)?;
        if let Some(entry) = self.entry(alias) {
            return Err(BouncerError::EntryExists { alias: alias.to_owned(), line: entry.line });
        }
        let mut line = format!("{alias} =");
        for (keyword, value) in keywords {
            if !DATABASE_KEYWORDS.contains(keyword) {
                return Err(BouncerError::UnknownKeyword { keyword: (*keyword).to_owned() });
            }
            check_value(alias, keyword, value)?;
            let value = if needs_quotes(value) { quoted(value) } else { (*value).to_owned() };
            line.push_str(&format!(" {keyword}={value}"));
        }
        let (at, text) = self.insertion(&line)?;
        self.edit(vec![(at..at, text)])
    }

    /// Takes the entry out, each of its lines if it has several, and nothing else.
    pub fn remove(&mut self, alias: &str) -> Result<(), BouncerError> {
        let lines = self.lines_of(alias)?.into_iter().map(|entry| self.extent(entry));
        let edits = lines.map(|range| (range, Vec::new())).collect();
        self.edit(edits)
    }

    /// Adds an entry that leads there; see [`add`](Self::add).
    pub fn add_to(&mut self, alias: &str, to: &Destination) -> Result<(), BouncerError> {
        let port = to.port.map(|port| port.to_string());
        let keywords = to.keywords(port.as_deref());
        let given: Vec<(&str, &str)> =
            keywords.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
        self.add(alias, &given)
    }

    /// Points the entry, each of its lines if it has several, there: the values of `dbname`, `host` and `port` change
    /// in place, those that are missing are added at the end of the line, and those that `to` has not are taken out.
    pub fn repoint(&mut self, alias: &str, to: &Destination) -> Result<(), BouncerError> {
        if to.port == Some(0) {
            return Err(unusable_value(alias, "port", "there is no port 0"));
        }
        let port = to.port.map(|port| port.to_string());
        let keywords = to.keywords(port.as_deref());
        for (keyword, value) in keywords.iter().filter_map(|(name, value)| Some((*name, (*value)?))) {
            check_value(alias, keyword, value)?;
        }
        let entries = self.lines_of(alias)?;
        let edits = entries.into_iter().flat_map(|entry| self.repointed(entry, &keywords)).collect();
        self.edit(edits)
    }

    /// The file as `staging-client.sh` takes it: one header line that says what it is based on, where it belongs
    /// and who may ask pgbouncer to reload, and then the file as it is now. `conf` is an absolute path.
    pub fn upload(&self, conf: &str, admin_user: &str) -> Result<Vec<u8>, BouncerError> {
        let plain = |text: &str, more: &[u8]| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.@+-".contains(&byte) || more.contains(&byte))
        };
        let whole = |part: &str| !matches!(part, "" | "." | "..");
        match conf.strip_prefix('/') {
            Some(parts) if plain(conf, b"/") && parts.split('/').all(whole) => {}
            _ => {
                return Err(BouncerError::UnusablePath { path: conf.to_owned() });
            }
        }
        if !plain(admin_user, b"") || admin_user.starts_with('-') || !(1..=63).contains(&admin_user.len()) {
            return Err(BouncerError::UnusableUser { user: admin_user.to_owned() });
        }
        let base = self.base_sha256_hex();
        let mut upload = format!("; pg_staging 1 base={base} conf={conf} user={admin_user}\n").into_bytes();
        upload.extend_from_slice(&self.bytes);
        Ok(upload)
    }
}

impl fmt::Debug for PgbouncerIni {
    /// Leaves the text out, since it holds passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgbouncerIni")
            .field("bytes", &self.bytes.len())
            .field("base_sha256", &self.base_sha256)
            .field("entries", &self.layout.databases)
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// The name that clients connect to.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// The keywords of the connection string, in order.
    pub fn keywords(&self) -> &[Keyword] {
        &self.keywords
    }

    /// The line it is in, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The value of a keyword, if it is set; the last one counts. Bytes that are not UTF-8 are replaced.
    pub fn get(&self, keyword: &str) -> Option<Cow<'_, str>> {
        self.keywords.iter().rfind(|known| known.name == keyword).map(Keyword::value)
    }

    /// The database it leads to: `dbname`, or the alias itself.
    pub fn database(&self) -> Cow<'_, str> {
        self.get("dbname").unwrap_or(Cow::Borrowed(&self.alias))
    }

    /// The server it leads to; `None` is pgbouncer's default, a Unix socket.
    pub fn host(&self) -> Option<Cow<'_, str>> {
        self.get("host")
    }

    /// The port it leads to: 5432 unless set, `None` if what is set is no port.
    pub fn port(&self) -> Option<u16> {
        self.get("port").map_or(Some(5432), |port| u16::try_from(atoi(port.as_bytes())).ok())
    }
}

impl Keyword {
    /// Its name, one of pgbouncer's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value, without quotes. Bytes that are not UTF-8 are replaced.
    pub fn value(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }

    /// Its value, without quotes, to the byte.
    pub fn bytes(&self) -> &[u8] {
        &self.value
    }
}

impl fmt::Debug for Keyword {
    /// Does not show passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.name == "password" { Cow::Borrowed("…") } else { self.value() };
        write!(f, "{}={value:?}", self.name)
    }
}

impl PoolMode {
    /// Its name in pgbouncer.ini.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }

    /// pgbouncer compares without regard to case.
    fn named(name: &str) -> Option<Self> {
        [Self::Session, Self::Transaction, Self::Statement]
            .into_iter()
            .find(|mode| mode.as_str().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for PoolMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
