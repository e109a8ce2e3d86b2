//! The replication file: which tables of a target are fed by another section, and are therefore restored without
//! rows. It has the syntax of the configuration file.

use std::collections::BTreeMap;
use std::path::Path;

use super::Config;
use super::error::ConfigError;

/// A replication file, read and checked.
#[derive(Debug, Clone)]
pub struct Replication {
    feeds: Vec<Feed>,
}

/// What one section of the file says: these tables of the subscriber come from the provider.
#[derive(Debug, Clone)]
struct Feed {
    provider: String,
    subscriber: String,
    tables: Vec<String>,
}

impl Replication {
    /// Reads the file's bytes; `path` is for messages. A section without `subscriber` feeds nobody; the file's other
    /// options, `host` among them, say nothing about rows and are not looked at.
    ///
    /// Fails on what [`Config::parse`] fails on, and on a table that is not written `schema.table`, since it would
    /// match none.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Replication, ConfigError> {
        let file = Config::parse(path, bytes)?;
        let feeds = file.sections().map(|section| Feed::read(&file, section));
        Ok(Replication { feeds: feeds.filter_map(Result::transpose).collect::<Result<_, _>>()? })
    }

    /// The tables, as `schema.table`, that are restored without rows into the target of that section, each with the
    /// section that feeds it: the `provider`, or, where none is named, the replication file's own section. A table
    /// that several feed is credited to the first in the file.
    pub fn nodata_for(&self, section: &str) -> BTreeMap<String, String> {
        let mut tables = BTreeMap::new();
        for feed in self.feeds.iter().filter(|feed| feed.subscriber == section) {
            for table in &feed.tables {
                tables.entry(table.clone()).or_insert_with(|| feed.provider.clone());
            }
        }
        tables
    }
}

impl Feed {
    fn read(file: &Config, section: &str) -> Result<Option<Feed>, ConfigError> {
        let Some(subscriber) = file.lookup(section, "subscriber")?.filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let provider = file.lookup(section, "provider")?.filter(|name| !name.is_empty());
        let provides = file.lookup(section, "provides")?.unwrap_or_default();
        let tables = provides.split_whitespace().map(|table| qualified(file, section, table));
        Ok(Some(Feed {
            provider: provider.unwrap_or_else(|| section.to_owned()),
            subscriber,
            tables: tables.collect::<Result<_, _>>()?,
        }))
    }
}

fn qualified(file: &Config, section: &str, table: &str) -> Result<String, ConfigError> {
    let parts = table.split_once('.').is_some_and(|(schema, name)| !schema.is_empty() && !name.is_empty());
    if parts && !table.contains(',') {
        return Ok(table.to_owned());
    }
    Err(ConfigError::InvalidValue {
        place: file.place(section, "provides"),
        value: table.to_owned(),
        problem: "is not a table's name with its schema".to_owned(),
        hint: "write schema.table, several with spaces or line ends between them".to_owned(),
    })
}
