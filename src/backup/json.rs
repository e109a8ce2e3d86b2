//! The JSON lists of nginx and caddy.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use super::gathered::Gathered;
use super::hints::{Hints, http_date, in_utc, utc};

pub(super) fn read_json(text: &str, files: &mut Gathered<'_>) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_any(JsonPage { files })?;
    json.end()
}

/// One entry of a list. nginx tells a `type` and an HTTP date in `mtime`, its relatives seconds since 1970; caddy tells
/// `is_dir`, an RFC 3339 time in `mod_time`, and a link beside the name.
#[derive(Deserialize)]
struct JsonEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default, rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "truth")]
    is_dir: bool,
    #[serde(default)]
    size: Option<Value>,
    #[serde(default)]
    mtime: Option<Value>,
    #[serde(default)]
    mod_time: Option<Value>,
}

impl JsonEntry<'_> {
    fn is_folder(&self) -> bool {
        self.is_dir || self.kind.as_deref() == Some("directory")
    }

    fn is_file(&self) -> bool {
        !self.is_dir && self.kind.as_deref().is_none_or(|kind| kind == "file")
    }

    fn hints(&self) -> Hints {
        let size = match &self.size {
            Some(Value::String(digits)) => digits.parse().ok(),
            Some(number) => number.as_u64(),
            None => None,
        };
        let modified = self.mtime.as_ref().or(self.mod_time.as_ref()).and_then(moment);
        Hints { size, exact: true, modified }
    }
}

/// Some write 0 and 1 for false and true.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Bool(truth) => truth,
        Value::Number(number) => number.as_u64() != Some(0),
        _ => false,
    })
}

fn moment(value: &Value) -> Option<DateTime> {
    match value {
        Value::String(text) => http_date(text).map(in_utc).or_else(|| utc(text)),
        Value::Number(seconds) => Timestamp::from_second(seconds.as_i64()?).ok().map(in_utc),
        _ => None,
    }
}

/// Takes the entries one at a time, so that a long list is never held twice.
struct JsonPage<'a, 'b> {
    files: &'a mut Gathered<'b>,
}

impl JsonPage<'_, '_> {
    /// A name is no link, so that percent signs in it are its own; but one that begins like a path is.
    fn add(&mut self, entry: &JsonEntry<'_>) {
        let is_link = ["./", "/", "http://", "https://"].iter().any(|start| entry.name.starts_with(start));
        match is_link.then(|| self.files.file_behind(&entry.name)).flatten() {
            Some((name, url)) => self.files.add(name, url, entry.hints()),
            None => self.files.add_here(&entry.name, entry.hints()),
        }
    }
}

impl<'de> Visitor<'de> for JsonPage<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of files")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<JsonEntry<'de>>()? {
            if entry.is_file() {
                self.add(&entry);
            } else if entry.is_folder() {
                self.files.add_folder_here(&entry.name);
            }
            if self.files.too_many {
                while entries.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(())
    }
}
