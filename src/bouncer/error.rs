//! Why a pgbouncer.ini cannot be read or edited, and what to change about it.

use thiserror::Error;

use super::connection::{DATABASE_KEYWORDS, PEER_KEYWORDS, USER_KEYWORDS};

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
