//! The JSON lists of nginx and caddy.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::gathered::Gathered;
use super::hints::{Hints, http_date, in_utc, utc};

pub(super) fn read_json(text: &str, files: &mut Gathered<'_>) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_any(JsonPage { files })?;
    json.end()
}

/// One entry of nginx's (`autoindex_format json`) or caddy's list. nginx tells a `type` and an HTTP date in `mtime`,
/// caddy `is_dir` and an RFC 3339 time in `mod_time`.
#[derive(Deserialize)]
struct JsonEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default, rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    is_dir: bool,
    #[serde(default)]
    size: Option<serde_json::Number>,
    #[serde(default, borrow)]
    mtime: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    mod_time: Option<Cow<'a, str>>,
}

impl JsonEntry<'_> {
    fn is_file(&self) -> bool {
        !self.is_dir && self.kind.as_deref().is_none_or(|kind| kind == "file")
    }

    fn hints(&self) -> Hints {
        let http = |text: &Cow<'_, str>| http_date(text).map(in_utc);
        Hints {
            size: self.size.as_ref().and_then(serde_json::Number::as_u64),
            exact: true,
            modified: self.mtime.as_ref().and_then(http).or_else(|| self.mod_time.as_deref().and_then(utc)),
        }
    }
}

/// Takes the entries one at a time, so that a long list is never held twice.
struct JsonPage<'a, 'b> {
    files: &'a mut Gathered<'b>,
}

impl<'de> Visitor<'de> for JsonPage<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of files")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let folder = self.files.folder;
        while let Some(entry) = entries.next_element::<JsonEntry<'de>>()? {
            if entry.is_file() {
                self.files.add_named(folder, &entry.name, entry.hints());
            }
            if self.files.too_many {
                while entries.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(())
    }
}
