//! What a pgbouncer.ini says, section by section, and where; what pgbouncer refuses in a section is refused here.

use super::connection::{self, DATABASE_KEYWORDS, PEER_KEYWORDS, USER_KEYWORDS};
use super::reader::{Pair, Reader, Token, line_number, slice, text};
use super::{BouncerError, Entry, Keyword, PoolMode, Problem};

/// `MAX_DBNAME` of pgbouncer counts the closing NUL.
pub(super) const LONGEST_ALIAS: usize = 63;

/// What the bytes say, and where.
#[derive(Clone, Default)]
pub(super) struct Layout {
    pub(super) databases: Vec<Entry>,
    pub(super) fallback: Option<Entry>,
    pub(super) users: Vec<Entry>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) includes: Vec<String>,
    /// The headers `[databases]`.
    pub(super) sections: Vec<DatabasesSection>,
}

/// One header `[databases]`, and where an entry may be added below it.
#[derive(Clone)]
pub(super) struct DatabasesSection {
    pub(super) line: usize,
    /// The end of the last entry, or of the header.
    pub(super) anchor: usize,
    /// Where the next header or `%include` starts, after which nothing is added.
    pub(super) followed_at: Option<usize>,
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
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BouncerError> {
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
        let connection = || connection::keywords(value, pair.value.start);
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
                connection::check_keywords("users", USER_KEYWORDS, &key, &read)?;
                self.users.push(entry(read));
            }
            Some(Section::Peers) => {
                check_peer_id(&key)?;
                let read = connection().map_err(|broken| broken.of(&key))?;
                connection::check_keywords("peers", PEER_KEYWORDS, &key, &read)?;
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
    connection::check_keywords("databases", DATABASE_KEYWORDS, &name, keywords)?;
    if alias.len() > LONGEST_ALIAS {
        return Err(Problem::LongAlias { alias: name });
    }
    Ok(())
}

fn check_peer_id(peer: &str) -> Result<(), Problem> {
    match peer.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(Problem::BadPeer { peer: peer.to_owned(), reason: "is not a number from 1 to 65535" }),
    }
}
