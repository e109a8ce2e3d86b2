//! What is wanted of a dump.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// Which schemas are restored, and which tables without their rows. Names are as in the catalog, unquoted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rules {
    /// Only these schemas are restored; all are when it is empty.
    pub schemas: Vec<String>,
    /// Tables in these schemas are restored without rows.
    pub schemas_nodata: Vec<String>,
    /// Tables whose `schema.table` one of these matches anywhere are restored without rows.
    #[serde(with = "patterns")]
    pub tables_nodata: Vec<Regex>,
    /// Tables, as `schema.table`, that are restored without rows, and why.
    pub tables_nodata_named: BTreeMap<String, String>,
}

impl Rules {
    /// Whether nothing is left out by them, whatever the dump.
    #[must_use]
    pub fn keep_everything(&self) -> bool {
        *self == Rules::default()
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.schemas == other.schemas
            && self.schemas_nodata == other.schemas_nodata
            && self.tables_nodata.iter().map(Regex::as_str).eq(other.tables_nodata.iter().map(Regex::as_str))
            && self.tables_nodata_named == other.tables_nodata_named
    }
}

impl Eq for Rules {}

/// Patterns as they were written.
mod patterns {
    use regex::Regex;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(patterns: &[Regex], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(patterns.iter().map(Regex::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Regex>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|pattern| Regex::new(pattern).map_err(D::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_json() {
        let rules = Rules {
            schemas: vec!["shop".to_owned()],
            schemas_nodata: vec!["a\"b".to_owned()],
            tables_nodata: vec![Regex::new(r"^shop\.log_\d+$").unwrap()],
            tables_nodata_named: [("shop.item".to_owned(), "subscribed from shop.prod".to_owned())].into(),
        };
        let json = serde_json::to_string(&rules).unwrap();
        assert_eq!(
            json,
            r#"{"schemas":["shop"],"schemas_nodata":["a\"b"],"tables_nodata":["^shop\\.log_\\d+$"],"tables_nodata_named":{"shop.item":"subscribed from shop.prod"}}"#
        );
        assert_eq!(serde_json::from_str::<Rules>(&json).unwrap(), rules);
        assert!(serde_json::from_str::<Rules>(&json.replace("^shop", "(shop")).is_err());
    }
}
