//! Why a page is no listing, no dump is chosen or no sum is found, and what to change about it.

use std::fmt;

use jiff::civil::Date;
use serde::Deserialize;

use super::{DateChoice, decode, root, without_mark};

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
    /// The page leads to one that was read already, or there are too many of them.
    #[error("the listing goes on without end at {url}")]
    Endless {
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
            Self::Endless { .. } => "check the query in backup_base_url, and the server's answer to it",
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
    /// Which there are, in words.
    pub there_are: String,
}

impl NoBackup {
    /// What can be asked for instead.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.there_are
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
