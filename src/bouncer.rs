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

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use sha2::{Digest, Sha256};
use thiserror::Error;

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

/// Why a pgbouncer.ini cannot be read, or an edit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BouncerError {
    /// pgbouncer would refuse the file because of this line (the first is 1).
    #[error("line {line}: {problem}")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: Problem,
    },
    /// No `[pgbouncer]`, which pgbouncer does not start without.
    #[error("there is no section [pgbouncer]")]
    NoMainSection,
    /// Nowhere to add an entry.
    #[error("there is no section [databases]")]
    NoDatabasesSection,
    /// `[databases]` and another header or `%include` are on one line, so that there is no place for an entry.
    #[error("line {line}: [databases] shares its line with what follows it")]
    CrowdedHeader {
        /// The line of the header.
        line: usize,
    },
    /// A name that pgbouncer cannot read, or that has a meaning of its own.
    #[error("`{alias}` cannot be the name of a pgbouncer entry: {reason}")]
    UnusableAlias {
        /// The name.
        alias: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A keyword that no pgbouncer knows.
    #[error("`{keyword}` is not a connection keyword of pgbouncer")]
    UnknownKeyword {
        /// The keyword.
        keyword: String,
    },
    /// A value that a connection string cannot hold, however it is quoted. The value itself may be secret.
    #[error("the value of `{keyword}` for entry `{alias}` cannot be written: {reason}")]
    UnusableValue {
        /// The entry.
        alias: String,
        /// The keyword.
        keyword: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry of this name is there already.
    #[error("entry `{alias}` exists already, in line {line}")]
    EntryExists {
        /// The name.
        alias: String,
        /// Where it is.
        line: usize,
    },
    /// No entry of this name.
    #[error("there is no entry `{alias}` in [databases]")]
    NoEntry {
        /// The name.
        alias: String,
    },
    /// The entry comes after an `%include` that may have opened another section.
    #[error("entry `{alias}` in line {line} comes after an %include, so it may not be in [databases]")]
    BehindInclude {
        /// The name.
        alias: String,
        /// Where it is.
        line: usize,
    },
    /// The header of an upload cannot name this file.
    #[error("`{path}` cannot be given to staging-client.sh as the path of pgbouncer.ini")]
    UnusablePath {
        /// The path.
        path: String,
    },
    /// The header of an upload cannot name this user.
    #[error("`{user}` cannot be given to staging-client.sh as pgbouncer's admin user")]
    UnusableUser {
        /// The user.
        user: String,
    },
}

/// What pgbouncer refuses in a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// pgbouncer takes a NUL for the end of the file and would not see the rest.
    #[error("there is a NUL byte, and pgbouncer ignores all that comes after it")]
    Nul,
    /// A UTF-8 byte order mark, which is no name to pgbouncer.
    #[error("the file starts with a byte order mark, which pgbouncer does not read")]
    ByteOrderMark,
    /// `[` without `]`.
    #[error("the section header does not end in `]`")]
    OpenHeader,
    /// A section that pgbouncer does not have.
    #[error("there is no section [{name}] in pgbouncer")]
    UnknownSection {
        /// Its name.
        name: String,
    },
    /// An option before the first section.
    #[error("`{key}` comes before any section")]
    OutsideSection {
        /// The option.
        key: String,
    },
    /// A character that no name holds.
    #[error("a name cannot start or go on with `{found}`")]
    NotAName {
        /// The character.
        found: String,
    },
    /// A name that no `=` follows.
    #[error("`{key}` is not followed by `=`")]
    NoValue {
        /// The name.
        key: String,
    },
    /// `''`, or a quote that is never closed.
    #[error("the quoted name is empty or not closed")]
    BadQuotedName,
    /// `%include` and nothing.
    #[error("%include names no file")]
    EmptyInclude,
    /// `pgbouncer`, which is the admin console.
    #[error("`pgbouncer` is reserved for the admin console")]
    ReservedAlias,
    /// More than 63 bytes.
    #[error("the database name `{alias}` is longer than 63 bytes")]
    LongAlias {
        /// The name.
        alias: String,
    },
    /// A connection string that does not fall into `key=value`.
    #[error("the connection string of `{entry}` breaks off: {reason}")]
    BadConnection {
        /// The name before the `=`.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A keyword that this section does not have.
    #[error("`{keyword}` of `{entry}` is not a keyword that pgbouncer knows in [{section}]")]
    UnknownKeyword {
        /// The section.
        section: &'static str,
        /// The name before the `=`.
        entry: String,
        /// The keyword.
        keyword: String,
    },
    /// A value that pgbouncer checks while it reads.
    #[error("`{value}` is not a value for `{keyword}`")]
    BadValue {
        /// The keyword or option.
        keyword: &'static str,
        /// Its value.
        value: String,
    },
    /// An entry of `[peers]` that is not a number from 1 to 65535, or has no host.
    #[error("peer `{peer}` {reason}")]
    BadPeer {
        /// The name before the `=`.
        peer: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The connection keywords of `[databases]`, as `parse_database` knows them from 1.18 to 1.25 and after.
const DATABASE_KEYWORDS: &[&str] = &[
    "dbname",
    "host",
    "port",
    "user",
    "password",
    "auth_user",
    "auth_dbname",
    "auth_query",
    "client_encoding",
    "datestyle",
    "timezone",
    "pool_size",
    "min_pool_size",
    "reserve_pool",
    "reserve_pool_size",
    "max_db_connections",
    "max_db_client_connections",
    "server_lifetime",
    "query_wait_timeout",
    "load_balance_hosts",
    "pool_mode",
    "connect_query",
    "application_name",
];

/// The keywords of `[users]`, as `parse_user` knows them.
const USER_KEYWORDS: &[&str] = &[
    "pool_mode",
    "pool_size",
    "reserve_pool_size",
    "max_user_connections",
    "max_user_client_connections",
    "query_timeout",
    "query_wait_timeout",
    "idle_transaction_timeout",
    "transaction_timeout",
    "client_idle_timeout",
];

/// The keywords of `[peers]`, as `parse_peer` knows them.
const PEER_KEYWORDS: &[&str] = &["host", "port", "pool_size"];

/// `MAX_DBNAME` of pgbouncer counts the closing NUL.
const LONGEST_ALIAS: usize = 63;

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

    fn lines_of(&self, alias: &str) -> Result<Vec<&Entry>, BouncerError> {
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
    fn insertion(&self, line: &str) -> Result<(usize, Vec<u8>), BouncerError> {
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
    fn extent(&self, entry: &Entry) -> Range<usize> {
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

    fn repointed(&self, entry: &Entry, target: &[(&str, Option<&str>); 3]) -> Vec<(Range<usize>, Vec<u8>)> {
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
    fn edit(&mut self, edits: Vec<(Range<usize>, Vec<u8>)>) -> Result<(), BouncerError> {
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

impl BouncerError {
    /// What to change so that it goes away.
    pub fn hint(&self) -> String {
        match self {
            Self::Line { problem, .. } => problem.hint(),
            Self::NoMainSection => {
                "add a line `[pgbouncer]` with at least listen_port and auth_type below".to_owned()
            }
            Self::NoDatabasesSection => "add a line `[databases]` before `[pgbouncer]`".to_owned(),
            Self::CrowdedHeader { .. } => "put `[databases]` on a line of its own".to_owned(),
            Self::UnusableAlias { .. } => "use only letters, digits, `_`, `.` and `-`, 63 at most".to_owned(),
            Self::UnknownKeyword { .. } => format!("pgbouncer knows {}", DATABASE_KEYWORDS.join(", ")),
            Self::UnusableValue { .. } => "give it on one line, and not empty".to_owned(),
            Self::EntryExists { alias, .. } => format!("repoint `{alias}`, or remove it first"),
            Self::NoEntry { alias } => {
                format!("add a line `{alias} = dbname=… host=… port=…` to [databases]")
            }
            Self::BehindInclude { line, .. } => format!("move line {line} above the %include"),
            Self::UnusablePath { .. } => {
                "set pgbouncer_conf to an absolute path of letters, digits and `_./@+-`, without `..`"
                    .to_owned()
            }
            Self::UnusableUser { .. } => {
                "name a user of letters, digits and `_.@+-` in admin_users".to_owned()
            }
        }
    }
}

impl Problem {
    /// What to change so that pgbouncer reads the line.
    pub fn hint(&self) -> String {
        match self {
            Self::Nul => "remove the NUL byte".to_owned(),
            Self::ByteOrderMark => "save the file as UTF-8 without byte order mark".to_owned(),
            Self::OpenHeader => "close it with `]` on the same line".to_owned(),
            Self::UnknownSection { .. } => {
                "pgbouncer knows [pgbouncer], [databases], [users] and [peers], in lower case and without spaces".to_owned()
            }
            Self::OutsideSection { .. } => "put a section header such as `[pgbouncer]` before it".to_owned(),
            Self::NotAName { .. } => {
                "names are made of letters, digits and `_.*-`; a comment starts with `;` or `#`".to_owned()
            }
            Self::NoValue { key } => format!("write `{key} = …`, or put `;` before it"),
            Self::BadQuotedName => "close the name with `'`".to_owned(),
            Self::EmptyInclude => "write `%include FILE`".to_owned(),
            Self::ReservedAlias => "give the entry another name".to_owned(),
            Self::LongAlias { .. } => "give the entry a shorter name".to_owned(),
            Self::BadConnection { .. } => {
                "write key=value pairs, separated by spaces, values with spaces in single quotes, no comments".to_owned()
            }
            Self::UnknownKeyword { section, .. } => {
                let known = match *section {
                    "users" => USER_KEYWORDS,
                    "peers" => PEER_KEYWORDS,
                    _ => DATABASE_KEYWORDS,
                };
                format!("pgbouncer knows {}", known.join(", "))
            }
            Self::BadValue { keyword: "port", .. } => "write a number from 1 to 65535".to_owned(),
            Self::BadValue { keyword: "load_balance_hosts", .. } => "write disable or round-robin".to_owned(),
            Self::BadValue { .. } => "write session, transaction or statement".to_owned(),
            Self::BadPeer { .. } => "write `NUMBER = host=… port=…`, the number from 1 to 65535".to_owned(),
        }
    }
}

/// What the bytes say, and where.
#[derive(Clone, Default)]
struct Layout {
    databases: Vec<Entry>,
    fallback: Option<Entry>,
    users: Vec<Entry>,
    settings: Vec<(String, String)>,
    includes: Vec<String>,
    /// The headers `[databases]`.
    sections: Vec<DatabasesSection>,
}

/// One header `[databases]`, and where an entry may be added below it.
#[derive(Clone)]
struct DatabasesSection {
    line: usize,
    /// The end of the last entry, or of the header.
    anchor: usize,
    /// Where the next header or `%include` starts, after which nothing is added.
    followed_at: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Main,
    Databases,
    Users,
    Peers,
    /// An included file may have opened any.
    Unknown,
}

impl Layout {
    fn read(bytes: &[u8]) -> Result<Self, BouncerError> {
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            return Err(BouncerError::Line { line: line_number(bytes, at), problem: Problem::Nul });
        }
        let mut layout = Self::default();
        let mut section = None;
        let mut main_seen = false;
        let mut reader = Reader::new(bytes);
        while let Some(token) = reader.next()? {
            let line = reader.line_of(token.start());
            let in_line = |problem| BouncerError::Line { line, problem };
            match token {
                Token::Header { name, start, end } => {
                    let opened = layout.open(name, line, start, end).map_err(in_line)?;
                    main_seen |= opened == Section::Main;
                    section = Some(opened);
                }
                Token::Include { file, start } => {
                    layout.close_databases(start);
                    layout.includes.push(text(slice(bytes, file)));
                    section = section.or(Some(Section::Unknown));
                }
                Token::Pair(pair) => layout.take(bytes, section, &pair, line).map_err(in_line)?,
            }
        }
        if !main_seen && layout.includes.is_empty() {
            return Err(BouncerError::NoMainSection);
        }
        Ok(layout)
    }

    fn open(&mut self, name: &[u8], line: usize, start: usize, end: usize) -> Result<Section, Problem> {
        self.close_databases(start);
        match name {
            b"pgbouncer" => {
                self.settings.clear();
                Ok(Section::Main)
            }
            b"databases" => {
                self.sections.push(DatabasesSection { line, anchor: end, followed_at: None });
                Ok(Section::Databases)
            }
            b"users" => Ok(Section::Users),
            b"peers" => Ok(Section::Peers),
            _ => Err(Problem::UnknownSection { name: text(name) }),
        }
    }

    fn close_databases(&mut self, at: usize) {
        if let Some(section) = self.sections.last_mut() {
            section.followed_at.get_or_insert(at);
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        section: Option<Section>,
        pair: &Pair,
        line: usize,
    ) -> Result<(), Problem> {
        let key = text(slice(bytes, pair.key.clone()));
        let value = slice(bytes, pair.value.clone());
        let behind_include = self.sections.last().is_some_and(|open| open.followed_at.is_some());
        let entry = |keywords| Entry {
            alias: key.clone(),
            keywords,
            line,
            behind_include,
            start: pair.start,
            value: pair.value.clone(),
        };
        let connection = || keywords(value, pair.value.start);
        match section {
            None => return Err(Problem::OutsideSection { key }),
            Some(Section::Unknown) => {}
            Some(Section::Main) => self.take_setting(key, text(value))?,
            Some(Section::Databases) => {
                if let Some(open) = self.sections.last_mut().filter(|open| open.followed_at.is_none()) {
                    open.anchor = pair.value.end;
                }
                if key == "*" {
                    self.fallback = Some(entry(connection().unwrap_or_else(|broken| broken.before)));
                } else {
                    let read = connection().map_err(|broken| broken.of(&key))?;
                    check_database(slice(bytes, pair.key.clone()), &read)?;
                    self.databases.push(entry(read));
                }
            }
            Some(Section::Users) => {
                let read = connection().map_err(|broken| broken.of(&key))?;
                check_keywords("users", USER_KEYWORDS, &key, &read)?;
                self.users.push(entry(read));
            }
            Some(Section::Peers) => {
                check_peer_id(&key)?;
                let read = connection().map_err(|broken| broken.of(&key))?;
                check_keywords("peers", PEER_KEYWORDS, &key, &read)?;
                if !read.iter().any(|keyword| keyword.name == "host") {
                    return Err(Problem::BadPeer { peer: key, reason: "has no host" });
                }
            }
        }
        Ok(())
    }

    fn take_setting(&mut self, key: String, value: String) -> Result<(), Problem> {
        if key.is_empty() {
            return Err(Problem::NotAName { found: "=".to_owned() });
        }
        if key == "pool_mode" && PoolMode::named(&value).is_none() {
            return Err(Problem::BadValue { keyword: "pool_mode", value });
        }
        self.settings.push((key, value));
        Ok(())
    }
}

/// The checks of `parse_database`.
fn check_database(alias: &[u8], keywords: &[Keyword]) -> Result<(), Problem> {
    let name = text(alias);
    if alias == b"pgbouncer" {
        return Err(Problem::ReservedAlias);
    }
    check_keywords("databases", DATABASE_KEYWORDS, &name, keywords)?;
    if alias.len() > LONGEST_ALIAS {
        return Err(Problem::LongAlias { alias: name });
    }
    Ok(())
}

fn check_keywords(
    section: &'static str,
    known: &[&str],
    entry: &str,
    keywords: &[Keyword],
) -> Result<(), Problem> {
    for keyword in keywords {
        if !known.contains(&keyword.name.as_str()) {
            let (entry, keyword) = (entry.to_owned(), keyword.name.clone());
            return Err(Problem::UnknownKeyword { section, entry, keyword });
        }
        let value = keyword.value();
        let bad = match keyword.name.as_str() {
            "port" => (atoi(&keyword.value) == 0).then_some("port"),
            "pool_mode" => PoolMode::named(&value).is_none().then_some("pool_mode"),
            "load_balance_hosts" => {
                let known = ["disable", "round-robin"].iter().any(|way| way.eq_ignore_ascii_case(&value));
                (!known).then_some("load_balance_hosts")
            }
            _ => None,
        };
        if let Some(keyword) = bad {
            return Err(Problem::BadValue { keyword, value: value.into_owned() });
        }
    }
    Ok(())
}

fn check_peer_id(peer: &str) -> Result<(), Problem> {
    match peer.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(Problem::BadPeer { peer: peer.to_owned(), reason: "is not a number from 1 to 65535" }),
    }
}

/// What the parser of libusual finds in a file, with offsets into it.
enum Token<'a> {
    Header { name: &'a [u8], start: usize, end: usize },
    Include { file: Range<usize>, start: usize },
    Pair(Pair),
}

/// `key = value`; the value reaches to the end of the line, without the white space there.
struct Pair {
    start: usize,
    key: Range<usize>,
    value: Range<usize>,
}

impl Token<'_> {
    fn start(&self) -> usize {
        match self {
            Token::Header { start, .. } | Token::Include { start, .. } => *start,
            Token::Pair(pair) => pair.start,
        }
    }
}

/// Follows `parse_ini_file_internal` of libusual byte by byte.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The line of a place that was asked for before, so that counting goes on from there.
    counted: (usize, usize),
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, counted: (0, 1) }
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, BouncerError> {
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

    fn line_of(&mut self, at: usize) -> usize {
        let (from, line) = self.counted;
        let line = line + newlines(slice(self.bytes, from..at));
        self.counted = (at, line);
        line
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }
}

/// Where a connection string stopped making sense, and what came before.
struct BrokenConnection {
    before: Vec<Keyword>,
    reason: &'static str,
}

impl BrokenConnection {
    fn of(self, entry: &str) -> Problem {
        Problem::BadConnection { entry: entry.to_owned(), reason: self.reason }
    }
}

/// Follows `cstr_get_pair` of pgbouncer's `loader.c`: only a space separates, and the byte after a closing quote is
/// skipped whatever it is. `offset` is the place of the string in the file.
fn keywords(connection: &[u8], offset: usize) -> Result<Vec<Keyword>, BrokenConnection> {
    let mut reader = Reader::new(connection);
    let mut found = Vec::new();
    loop {
        reader.skip(|byte| byte == b' ');
        if reader.peek().is_none() {
            return Ok(found);
        }
        match keyword(&mut reader, offset) {
            Ok(keyword) => found.push(keyword),
            Err(reason) => {
                return Err(BrokenConnection { before: found, reason });
            }
        }
    }
}

fn keyword(reader: &mut Reader<'_>, offset: usize) -> Result<Keyword, &'static str> {
    let start = reader.at;
    reader.skip(|byte| byte != b'=' && byte != b' ');
    let name = slice(reader.bytes, start..reader.at);
    reader.skip(|byte| byte == b' ');
    if name.is_empty() {
        return Err("a key is missing before `=`");
    }
    if reader.peek() != Some(b'=') {
        return Err("a key has no `=` and value");
    }
    reader.at += 1;
    reader.skip(|byte| byte == b' ');
    let (value, written, quoted) = keyword_value(reader)?;
    if value.is_empty() {
        return Err("a key has an empty value");
    }
    let written = written.start + offset..written.end + offset;
    Ok(Keyword { name: text(name), value, written, quoted })
}

fn keyword_value(reader: &mut Reader<'_>) -> Result<(Vec<u8>, Range<usize>, bool), &'static str> {
    let start = reader.at;
    if reader.peek() != Some(b'\'') {
        reader.skip(|byte| byte != b' ');
        return Ok((slice(reader.bytes, start..reader.at).to_vec(), start..reader.at, false));
    }
    let mut value = Vec::new();
    loop {
        reader.at += 1;
        match (reader.peek(), reader.bytes.get(reader.at + 1)) {
            (None, _) => return Err("a quote is not closed"),
            (Some(b'\''), Some(b'\'')) => {
                reader.at += 1;
                value.push(b'\'');
            }
            (Some(b'\''), _) => break,
            (Some(byte), _) => value.push(byte),
        }
    }
    let end = reader.at + 1;
    reader.at = end + 1;
    Ok((value, start..end, true))
}

fn check_alias(alias: &str) -> Result<(), BouncerError> {
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

fn check_value(alias: &str, keyword: &str, value: &str) -> Result<(), BouncerError> {
    match value {
        "" => Err(unusable_value(alias, keyword, "it is empty")),
        _ if value.contains('\n') => Err(unusable_value(alias, keyword, "it holds a line end")),
        _ if value.contains('\0') => Err(unusable_value(alias, keyword, "it holds a NUL byte")),
        _ => Ok(()),
    }
}

fn unusable_value(alias: &str, keyword: &str, reason: &'static str) -> BouncerError {
    BouncerError::UnusableValue { alias: alias.to_owned(), keyword: keyword.to_owned(), reason }
}

/// A value without quotes ends at the first space, and loses white space at the end of the line.
fn needs_quotes(value: &str) -> bool {
    value.starts_with('\'') || value.bytes().any(is_space)
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// C's `atoi`, which pgbouncer reads numbers with: what it finds at the start, 0 if there is nothing.
fn atoi(text: &[u8]) -> i64 {
    let mut bytes = text.iter().copied().skip_while(|byte| is_space(*byte)).peekable();
    let negative = bytes.next_if(|byte| matches!(byte, b'+' | b'-')) == Some(b'-');
    let digits = bytes.take_while(u8::is_ascii_digit);
    let number =
        digits.fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    if negative { -number } else { number }
}

/// `isspace` in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// `isblank` in the C locale.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-*".contains(&byte)
}

fn line_start(bytes: &[u8], at: usize) -> usize {
    slice(bytes, 0..at).iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

/// The place of the line's `\n`, or the end of the file.
fn line_end(bytes: &[u8], at: usize) -> usize {
    let rest = slice(bytes, at..bytes.len());
    rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |newline| at + newline)
}

fn line_number(bytes: &[u8], at: usize) -> usize {
    1 + newlines(slice(bytes, 0..at))
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// A part of the bytes; nothing where the range is not in them.
fn slice(bytes: &[u8], range: Range<usize>) -> &[u8] {
    bytes.get(range).unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
