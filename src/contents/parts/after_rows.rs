//! What follows rows: indexes, constraints, triggers, rules and the like.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::needs::{self, Needs};
use super::super::{Entry, ObjectType, describe, qualified_name};
use super::{Division, LARGE, Lock, MOST_TABLES, Part, PartKind, Place};

impl Division<'_> {
    pub(super) fn after_rows(&mut self, entries: &[Place]) {
        let levels = self.levels(entries);
        let mut groups: BTreeMap<Key, Vec<Place>> = BTreeMap::new();
        let mut key_of: HashMap<Place, Key> = HashMap::new();
        for at in entries {
            let Some(entry) = self.entries.get(*at) else { continue };
            let owner = || entry.dependencies.iter().find_map(|id| key_of.get(self.by_id.get(id)?));
            let level = levels.get(at).copied().unwrap_or_default();
            let key = match owner().filter(|_| needs::is_about(&entry.desc)) {
                Some(key) => *key,
                None => self.key(*at, entry, level),
            };
            key_of.insert(*at, key);
            groups.entry(key).or_default().push(*at);
        }
        for (key, entries) in groups {
            let most = if key.alone.is_some() { usize::MAX } else { MOST_TABLES };
            for (number, chunk) in entries.chunks(most.min(entries.len().max(1))).enumerate() {
                self.after_rows_part(key, number, chunk);
            }
        }
    }

    fn after_rows_part(&mut self, key: Key, number: usize, chunk: &[Place]) {
        let alone = key.alone.and_then(|at| self.entries.get(at)).map(describe);
        let name = alone.unwrap_or_else(|| {
            let what = if key.index { "indexes" } else { "constraints, triggers and rules" };
            match key.beside.and_then(|part| self.parts.get(part)) {
                Some(part) => format!("{what} of {}, {}", part.name, number + 1),
                None => format!("{what} {}.{}", key.level + 1, number + 1),
            }
        });
        let mut needs: BTreeSet<usize> = self.last_definitions().into_iter().collect();
        let mut locks: BTreeMap<Place, bool> = BTreeMap::new();
        for at in chunk {
            let Some(entry) = self.entries.get(*at) else { continue };
            let tables = self.tables(entry);
            needs.extend(self.before(*at).filter_map(|at| self.part_of.get(&at)));
            needs.extend(self.rows_of(&tables).iter().filter_map(|at| self.part_of.get(at)));
            let locked = if is_check_of_domain(entry, &tables) { self.all_tables() } else { tables };
            for table in locked {
                *locks.entry(table).or_default() |= !shares_its_table(entry);
            }
        }
        if key.late {
            let rows = |(_, part): &(usize, &Part)| part.kind == PartKind::Rows;
            needs.extend(self.parts.iter().enumerate().filter(rows).map(|(index, _)| index));
        }
        let weight =
            chunk.iter().filter_map(|at| self.entries.get(*at)).map(|entry| self.bytes_of(entry)).sum();
        let index = self.push(name, PartKind::AfterRows, chunk.to_vec(), Vec::new());
        if let Some(part) = self.parts.get_mut(index) {
            // Entries of one chunk may be about one another.
            part.needs = needs.into_iter().filter(|need| *need < index).collect();
            part.locks = locks.into_iter().map(|(table, alone)| Lock { table, alone }).collect();
            part.weight = weight;
        }
    }

    /// What shares a part with an entry.
    fn key(&self, at: Place, entry: &Entry, level: usize) -> Key {
        let index = matches!(entry.desc, ObjectType::Index | ObjectType::Constraint);
        let costly = index || matches!(entry.desc, ObjectType::FkConstraint | ObjectType::CheckConstraint);
        let alone = (costly && (self.extents.is_empty() || self.bytes_of(entry) >= LARGE)).then_some(at);
        let tables = self.tables(entry);
        let beside = || self.rows_of(&tables).iter().find_map(|rows| self.part_of.get(rows)).copied();
        // It is not told which tables have columns of a domain, and rows that it would refuse may be there already.
        let late = is_check_of_domain(entry, &tables) || self.needs.looks_into_tables(at, entry);
        Key { level, late, index, beside: if index { beside() } else { None }, alone }
    }

    /// How many bytes of rows an entry that follows them has to look at.
    fn bytes_of(&self, entry: &Entry) -> u64 {
        let rows = self.rows_of(&self.tables(entry));
        let ids = rows.iter().filter_map(|at| self.entries.get(*at)).map(|rows| rows.dump_id);
        ids.filter_map(|id| self.extents.get(&id)).map(|bytes| bytes.end - bytes.start).sum()
    }

    /// How many others an entry has before it, one after the other, since the rows.
    fn levels(&self, entries: &[Place]) -> HashMap<Place, usize> {
        let mut levels: HashMap<Place, usize> = HashMap::new();
        for at in entries {
            let before = self.before(*at).filter_map(|before| levels.get(&before)).max();
            let level = before.map_or(0, |level| level + 1);
            levels.insert(*at, level);
        }
        levels
    }

    /// The entries that pg_dump, or we, want before this one.
    fn before(&self, at: Place) -> impl Iterator<Item = Place> {
        let ids = self.entries.get(at).map(|entry| entry.dependencies.as_slice()).unwrap_or_default();
        let told = ids.iter().filter_map(|id| self.by_id.get(id).copied());
        told.chain(self.needs.entries_needed(at).map(|(at, _)| at))
    }

    /// The tables that an entry is about, with all their partitions, and the views, which are locked just like them.
    fn tables(&self, entry: &Entry) -> BTreeSet<Place> {
        let is_table = |at: &Place| {
            let is = |entry: &Entry| {
                matches!(
                    entry.desc,
                    ObjectType::Table
                        | ObjectType::ForeignTable
                        | ObjectType::MaterializedView
                        | ObjectType::View
                )
            };
            self.entries.get(*at).is_some_and(is)
        };
        let named: Vec<Place> = entry
            .dependencies
            .iter()
            .filter_map(|id| self.by_id.get(id).copied())
            .filter(is_table)
            .chain(self.ends_of_key(entry))
            .collect();
        let with_others = |table| {
            if goes_on_to_heirs(entry) { self.needs.descendants(table) } else { self.needs.family(table) }
        };
        named.into_iter().flat_map(with_others).collect()
    }

    fn all_tables(&self) -> BTreeSet<Place> {
        let is_table = |(_, entry): &(Place, &Entry)| {
            matches!(entry.desc, ObjectType::Table | ObjectType::MaterializedView)
        };
        self.entries.iter().enumerate().filter(is_table).map(|(at, _)| at).collect()
    }

    fn ends_of_key(&self, entry: &Entry) -> Vec<Place> {
        if entry.desc != ObjectType::FkConstraint {
            return Vec::new();
        }
        let key = Needs::foreign_key(entry);
        key.iter().flat_map(|key| [&key.from, &key.to]).filter_map(|name| self.needs.relation(name)).collect()
    }

    /// The entries whose rows get into these tables.
    fn rows_of(&self, tables: &BTreeSet<Place>) -> BTreeSet<Place> {
        let names = tables.iter().filter_map(|at| self.entries.get(*at)).map(qualified_name);
        let by_the_root = tables.iter().filter_map(|at| self.filled_by.get(at)).flatten().copied();
        names.filter_map(|name| self.needs.rows(&name)).chain(by_the_root).collect()
    }
}

/// Whether it is a check that was put off, and not of a table.
fn is_check_of_domain(entry: &Entry, tables: &BTreeSet<Place>) -> bool {
    entry.desc == ObjectType::CheckConstraint && tables.is_empty()
}

/// Whether it concerns what inherits from its table as well.
fn goes_on_to_heirs(entry: &Entry) -> bool {
    let of_columns = || entry.defn.as_deref().is_some_and(|defn| defn.contains(" NOT NULL"));
    match entry.desc {
        ObjectType::CheckConstraint => true,
        ObjectType::Constraint => of_columns(),
        _ => false,
    }
}

/// Indexes of one table can be built side by side, but not made that by which it is clustered or replicated.
fn shares_its_table(entry: &Entry) -> bool {
    entry.desc == ObjectType::Index
        && entry.defn.as_deref().is_none_or(|defn| !defn.contains("\nALTER TABLE "))
}

/// What entries after the rows share when they share a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    level: usize,
    /// Whether it comes after all rows, whosever they are.
    late: bool,
    index: bool,
    /// The part that loads the rows.
    beside: Option<usize>,
    /// The entry, when it is worth a part of its own.
    alone: Option<Place>,
}
