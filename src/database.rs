//! Dated names: how a copy of a database and a file of its dump are called, and which of several dates is meant.
//!
//! Pure: the day's date, the dates there are and the active one are always given.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;

/// How long PostgreSQL lets a name be, in bytes (NAMEDATALEN, less its final NUL).
const NAME_BYTES: usize = 63;

/// The name of a dated copy, `shop_20261121`: the database's undated name and the date of its backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatedName {
    base: String,
    date: Date,
}

impl DatedName {
    /// Makes the name. Fails where the base is empty, holds a NUL, or is so long that PostgreSQL would cut the name,
    /// and where the year does not have four digits.
    pub fn new(base: &str, date: Date) -> Result<DatedName, NameError> {
        if base.is_empty() || base.contains('\0') {
            return Err(NameError::NotAName { base: base.to_owned() });
        }
        if date.year() < 0 {
            return Err(NameError::Year { date });
        }
        let name = DatedName { base: base.to_owned(), date };
        let bytes = name.to_string().len();
        if bytes > NAME_BYTES {
            return Err(NameError::TooLong { name: name.to_string(), bytes });
        }
        Ok(name)
    }

    /// Takes a name apart: everything before the last `_` is the base, and what follows must be a date that exists.
    /// `None` for every other name.
    pub fn parse(name: &str) -> Option<DatedName> {
        let (base, date) = name.rsplit_once('_')?;
        DatedName::new(base, compact_date(date)?).ok()
    }

    /// The date of `name`, if it is a copy of exactly `base`: `shop_eu_20261121` is one of `shop_eu`, not of `shop`.
    pub fn date_of(base: &str, name: &str) -> Option<Date> {
        DatedName::parse(name).filter(|dated| dated.base == base).map(|dated| dated.date)
    }

    /// The undated name.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The date of the backup.
    pub fn date(&self) -> Date {
        self.date
    }
}

impl fmt::Display for DatedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = (self.date.year(), self.date.month(), self.date.day());
        write!(f, "{}_{year:04}{month:02}{day:02}", self.base)
    }
}

/// What the name of a dump's file may end in; of several of one day the first is preferred, and plain SQL, of which nothing
/// can be left out, comes last.
pub const DUMP_ENDINGS: [&str; 8] =
    [".dump", ".tar", ".tar.zst", ".tar.gz", ".tgz", ".sql", ".sql.zst", ".sql.gz"];

/// What the name of a dump that is a folder may end in, if in anything.
const FOLDER_ENDINGS: [&str; 2] = [".dump", ".dir"];

/// The name of a dump's file, `shop.2026-11-21.dump`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DumpName {
    dbname: String,
    date: Date,
    /// Its place in [`DUMP_ENDINGS`].
    ending: usize,
}

impl DumpName {
    /// Makes the name of a `.dump`. Fails where `dbname` is empty or holds what no file name can, a NUL or a `/`, and where
    /// the year does not have four digits.
    pub fn new(dbname: &str, date: Date) -> Result<DumpName, NameError> {
        if dbname.is_empty() || dbname.contains(['\0', '/']) {
            return Err(NameError::NotAName { base: dbname.to_owned() });
        }
        if date.year() < 0 {
            return Err(NameError::Year { date });
        }
        Ok(DumpName { dbname: dbname.to_owned(), date, ending: 0 })
    }

    /// Takes a file's name apart; `None` for every other name, `….dump.part` and `….dump.sha256` among them.
    pub fn parse(file_name: &str) -> Option<DumpName> {
        DUMP_ENDINGS.iter().enumerate().find_map(|(ending, suffix)| {
            let (dbname, date) = file_name.strip_suffix(suffix)?.rsplit_once('.')?;
            Some(DumpName { ending, ..DumpName::new(dbname, dashed_date(date)?).ok()? })
        })
    }

    /// The date of `file_name`, if it is a dump of exactly `dbname`.
    pub fn date_of(dbname: &str, file_name: &str) -> Option<Date> {
        DumpName::parse(file_name).filter(|dump| dump.dbname == dbname).map(|dump| dump.date)
    }

    /// Which number a folder has where several dumps of one day are told apart by [`DumpName::preference`].
    pub const FOLDER_PREFERENCE: usize = 1;

    /// The date of a folder of that name, if it is a dump of exactly `dbname`: as a `.dump`'s, or with another ending or none.
    pub fn date_of_folder(dbname: &str, name: &str) -> Option<Date> {
        let bare = FOLDER_ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
        DumpName::date_of(dbname, &format!("{bare}.dump"))
    }

    /// The database's undated name.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The date of the backup.
    pub fn date(&self) -> Date {
        self.date
    }

    /// Which of several dumps of one day is preferred: the one with the smallest number.
    pub fn preference(&self) -> usize {
        self.ending
    }

    /// Whether the name says that it is plain SQL, compressed or not.
    pub fn is_sql(&self) -> bool {
        DUMP_ENDINGS.get(self.ending).is_some_and(|ending| ending.starts_with(".sql"))
    }
}

impl fmt::Display for DumpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = (self.date.year(), self.date.month(), self.date.day());
        let ending = DUMP_ENDINGS.get(self.ending).copied().unwrap_or_default();
        write!(f, "{}.{year:04}-{month:02}-{day:02}{ending}", self.dbname)
    }
}

/// Why a dated name cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The undated name is empty, or holds a character that no such name can.
    #[error("`{}` cannot be the name of a database", base.escape_debug())]
    NotAName {
        /// The undated name.
        base: String,
    },
    /// PostgreSQL would cut the name.
    #[error("{name} is {bytes} bytes long, and PostgreSQL keeps {NAME_BYTES}")]
    TooLong {
        /// The dated name.
        name: String,
        /// Its length.
        bytes: usize,
    },
    /// The year is not one that four digits can write.
    #[error("{date} lies before the year 0")]
    Year {
        /// The date.
        date: Date,
    },
}

impl NameError {
    /// What to change.
    pub fn hint(&self) -> &'static str {
        match self {
            NameError::NotAName { .. } => "check `dbname` in the configuration",
            NameError::TooLong { .. } => "choose a `dbname` of at most 54 bytes",
            NameError::Year { .. } => "give a date as YYYYMMDD or YYYY-MM-DD",
        }
    }
}

/// A date as a user says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateWord {
    /// That date, whether anything bears it or not.
    Exact(Date),
    /// The day on which the command is given, local time.
    Today,
    /// The day before.
    Yesterday,
    /// The newest there is.
    Latest,
    /// The oldest there is.
    Oldest,
    /// The one that the alias points at.
    Active,
}

impl DateWord {
    /// The date that is meant. `available` holds the dates there are, in any order, and `active` the one that the
    /// alias points at. Only [`DateWord::Latest`], [`DateWord::Oldest`] and [`DateWord::Active`] look at them.
    pub fn resolve(self, today: Date, available: &[Date], active: Option<Date>) -> Result<Date, DateError> {
        match self {
            DateWord::Exact(date) => Ok(date),
            DateWord::Today => Ok(today),
            DateWord::Yesterday => today.yesterday().map_err(|_| DateError::OutOfRange),
            DateWord::Latest => {
                available.iter().max().copied().ok_or(DateError::NoneAvailable { word: self })
            }
            DateWord::Oldest => {
                available.iter().min().copied().ok_or(DateError::NoneAvailable { word: self })
            }
            DateWord::Active => active.ok_or(DateError::NoneActive),
        }
    }
}

impl FromStr for DateWord {
    type Err = DateError;

    /// Takes `YYYYMMDD`, `YYYY-MM-DD` or a word, in any case.
    fn from_str(text: &str) -> Result<DateWord, DateError> {
        match text.to_ascii_lowercase().as_str() {
            "today" => return Ok(DateWord::Today),
            "yesterday" => return Ok(DateWord::Yesterday),
            "latest" => return Ok(DateWord::Latest),
            "oldest" => return Ok(DateWord::Oldest),
            "active" => return Ok(DateWord::Active),
            _ => {}
        }
        if let Some(date) = compact_date(text).or_else(|| dashed_date(text)) {
            return Ok(DateWord::Exact(date));
        }
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        if digits == 8 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            return Err(DateError::NoSuchDay { text: text.to_owned() });
        }
        Err(DateError::NotADate { text: text.to_owned() })
    }
}

impl fmt::Display for DateWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DateWord::Exact(date) => write!(f, "{date}"),
            DateWord::Today => write!(f, "today"),
            DateWord::Yesterday => write!(f, "yesterday"),
            DateWord::Latest => write!(f, "latest"),
            DateWord::Oldest => write!(f, "oldest"),
            DateWord::Active => write!(f, "active"),
        }
    }
}

/// Why a date is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DateError {
    /// The text is neither a date nor one of the words.
    #[error("`{}` is not a date", text.escape_debug())]
    NotADate {
        /// The text.
        text: String,
    },
    /// The text is written as a date, and no calendar has that day.
    #[error("`{text}` is not a day of the calendar")]
    NoSuchDay {
        /// The text.
        text: String,
    },
    /// There is nothing to choose from.
    #[error("there is nothing to take the {word} of")]
    NoneAvailable {
        /// The word that was to choose.
        word: DateWord,
    },
    /// The alias points at no dated copy.
    #[error("no copy is active")]
    NoneActive,
    /// The calendar ends there.
    #[error("the date lies outside of the calendar")]
    OutOfRange,
}

impl DateError {
    /// What to type instead.
    pub fn hint(&self) -> &'static str {
        match self {
            DateError::NotADate { .. } | DateError::NoSuchDay { .. } | DateError::OutOfRange => {
                "give YYYYMMDD, YYYY-MM-DD, or one of today, yesterday, latest, oldest, active"
            }
            DateError::NoneAvailable { .. } => {
                "`backups <dbname>` lists what can be restored, `databases <dbname>` what was"
            }
            DateError::NoneActive => {
                "`switch <dbname> <date>` makes a copy active; `databases <dbname>` lists them"
            }
        }
    }
}

/// The dates of the copies to drop so that the newest `keep` remain, oldest first: a purge that is cut short has then
/// dropped the least useful ones. Copies in use are never among them, even where that leaves more than `keep`.
pub fn to_purge(existing: &[Date], in_use: &[Date], keep: usize) -> Vec<Date> {
    let existing: BTreeSet<Date> = existing.iter().copied().collect();
    let surplus = existing.len().saturating_sub(keep);
    existing.into_iter().take(surplus).filter(|date| !in_use.contains(date)).collect()
}

/// `YYYYMMDD`.
fn compact_date(text: &str) -> Option<Date> {
    let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return None;
    }
    let (year, rest) = text.split_at_checked(4)?;
    let (month, day) = rest.split_at_checked(2)?;
    Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
}

/// `YYYY-MM-DD`.
pub(super) fn dashed_date(text: &str) -> Option<Date> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return None;
    }
    compact_date(&format!("{year}{month}{day}"))
}

#[cfg(test)]
mod tests;
