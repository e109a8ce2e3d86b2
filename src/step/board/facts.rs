//! What there is to know of the parts of a restore before they are made.

use std::collections::HashSet;

use crate::contents::{Contents, ObjectType, PartKind, RestorePart, Rows};
use crate::progress::Amount;

/// What there is to know of a part.
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) kind: PartKind,
    /// Bytes of its own rows that are to be loaded.
    pub(super) rows: u64,
    /// Bytes of rows that it has to do with, where that is known.
    pub(super) weight: Option<u64>,
    /// Tables whose rows it loads: how many are there, and of how many that are not.
    pub(super) tables: Amount,
    /// The same of the indexes that it builds.
    pub(super) indexes: Amount,
    /// Whether it waits for rows from the server.
    pub(super) fetches: bool,
}

impl Facts {
    /// Of a part in which the entries with these dump ids are done.
    pub(super) fn of(part: &RestorePart, contents: &Contents, done: &HashSet<i32>, stream: bool) -> Facts {
        let count = |is: fn(PartKind, &ObjectType) -> bool| {
            let entries = part.entries.iter().filter_map(|at| contents.entries().get(*at));
            let (there, left): (Vec<_>, Vec<_>) = entries
                .filter(|entry| is(part.kind, &entry.desc))
                .partition(|entry| done.contains(&entry.dump_id));
            Amount { done: there.len() as u64, total: Some(left.len() as u64) }
        };
        let rows = part.rows.iter().filter(|rows| !done.contains(&rows.dump_id));
        Facts {
            name: part.name.clone(),
            kind: part.kind,
            rows: rows.map(Rows::length).sum(),
            weight: (!stream).then_some(part.weight),
            tables: count(is_table),
            indexes: count(is_index),
            fetches: !part.rows.is_empty(),
        }
    }

    /// Of a step of this name that makes all of it at once.
    pub(super) fn of_all(step: &str) -> Facts {
        Facts {
            name: step.to_owned(),
            kind: PartKind::AfterRows,
            rows: 0,
            weight: None,
            tables: Amount::default(),
            indexes: Amount::default(),
            fetches: false,
        }
    }

    /// With how many bytes of rows it has to do, besides loading them; nothing where that is not known.
    pub(super) fn work(&self) -> Option<u64> {
        match self.kind {
            PartKind::AfterRows => self.weight,
            PartKind::Refresh => None,
            // Definitions, sequences and privileges are soon made.
            _ => Some(0),
        }
    }
}

/// What is recorded of a kind of part, for the runs to come.
pub(in crate::step) fn kind_word(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Definitions => "definitions",
        PartKind::Rows => "rows",
        PartKind::AfterRows => "after_rows",
        PartKind::Privileges => "privileges",
        PartKind::Refresh => "refresh",
        PartKind::Finish => "finish",
    }
}

fn is_table(kind: PartKind, entry: &ObjectType) -> bool {
    kind == PartKind::Rows && *entry == ObjectType::TableData
}

/// An index, or a constraint that has one.
fn is_index(kind: PartKind, entry: &ObjectType) -> bool {
    kind == PartKind::AfterRows && matches!(entry, ObjectType::Index | ObjectType::Constraint)
}
