//! Which entries are restored under given rules.
//!
//! With `schemas` in the rules, what is in another schema is dropped, and so is whatever cannot be created without
//! it. Then rows that are not wanted, and then foreign keys that would miss them. Database-level entries and
//! subscriptions are dropped always. Extensions in `public` stay even when `public` is not listed, since every
//! new database has that schema, and most of what is kept would otherwise go with them.

use std::collections::{HashSet, VecDeque};

use super::needs::{self, At, ForeignKey, Needs};
use super::runs;
use super::selection::is_not_valid;
use super::sql::Reference;
use super::{Contents, Dropped, Entry, ObjectType, QualifiedName, Reason, Rules, Selection, Warning};
use super::{describe, is_partitioned, qualified_name};

/// Decides about every entry.
#[must_use]
pub fn filter(contents: &Contents, rules: &Rules) -> Selection {
    let entries = contents.entries();
    let needs = Needs::of(entries, !rules.schemas.is_empty());
    let mut filter = Filter { entries, rules, needs, reasons: vec![None; entries.len()] };
    filter.drop_by_schema();
    filter.drop_dependents();
    filter.drop_what_would_run_into_nothing();
    filter.drop_dependents();
    filter.drop_rows();
    filter.drop_foreign_keys();
    filter.drop_dependents();
    filter.selection()
}

struct Filter<'a> {
    entries: &'a [Entry],
    rules: &'a Rules,
    needs: Needs<'a>,
    reasons: Vec<Option<Reason>>,
}

impl Filter<'_> {
    fn is_dropped(&self, at: At) -> bool {
        self.reasons.get(at).is_some_and(Option::is_some)
    }

    fn drop(&mut self, at: At, reason: Reason) {
        if let Some(slot) = self.reasons.get_mut(at).filter(|slot| slot.is_none()) {
            *slot = Some(reason);
        }
    }

    /// Drops every entry, not dropped already, for which a reason is found. Tells whether there was one.
    fn drop_each(&mut self, reason: impl Fn(&Self, At, &Entry) -> Option<Reason>) -> bool {
        let mut found = false;
        for (at, entry) in self.entries.iter().enumerate() {
            if !self.is_dropped(at)
                && let Some(reason) = reason(self, at, entry)
            {
                self.drop(at, reason);
                found = true;
            }
        }
        found
    }

    fn drop_by_schema(&mut self) {
        self.drop_each(|this, _, entry| this.by_itself(entry));
    }

    fn by_itself(&self, entry: &Entry) -> Option<Reason> {
        let schema = super::schema(entry);
        let about_database =
            needs::is_about(&entry.desc) && schema.is_none() && super::name(entry).starts_with("DATABASE ");
        let unwanted = |schema: &str| Reason::Schema { schema: schema.to_owned() };
        match &entry.desc {
            ObjectType::Database | ObjectType::DatabaseProperties => Some(Reason::DatabaseLevel),
            _ if about_database => Some(Reason::DatabaseLevel),
            ObjectType::Subscription | ObjectType::SubscriptionTable => Some(Reason::Subscription),
            ObjectType::Schema => Some(super::name(entry)).filter(|name| !self.keeps(name)).map(unwanted),
            ObjectType::Extension => needs::extension_schema(entry)
                .filter(|schema| !self.keeps(schema) && schema != needs::PUBLIC)
                .map(|schema| unwanted(&schema)),
            // Privileges and comment of a schema public that is otherwise as initdb made it, and so has no entry.
            desc if needs::is_about(desc)
                && super::name(entry) == "SCHEMA public"
                && !self.keeps(needs::PUBLIC) =>
            {
                Some(unwanted(needs::PUBLIC))
            }
            _ => schema.filter(|schema| !self.keeps(schema)).map(unwanted),
        }
    }

    /// Whether objects in a schema are wanted. Privileges on system objects may be in any dump.
    fn keeps(&self, schema: &str) -> bool {
        self.rules.schemas.is_empty()
            || schema == "pg_catalog"
            || schema == "information_schema"
            || self.rules.schemas.iter().any(|wanted| wanted == schema)
    }

    /// Drops what needs something dropped, and what needs that in turn.
    fn drop_dependents(&mut self) {
        loop {
            self.drop_needy();
            if !self.drop_each(|this, at, _| this.by_name(at)) {
                return;
            }
        }
    }

    fn drop_needy(&mut self) {
        let mut queue: VecDeque<At> = (0..self.entries.len()).filter(|at| self.is_dropped(*at)).collect();
        while let Some(dropped) = queue.pop_front() {
            for needy in self.needs.needed_by(dropped).to_vec() {
                if !self.is_dropped(needy)
                    && let Some(reason) = self.by_need(needy)
                {
                    self.drop(needy, reason);
                    queue.push_back(needy);
                }
            }
        }
    }

    fn by_need(&self, at: At) -> Option<Reason> {
        let missing = || self.needs.entries_needed(at).filter(|(needed, _)| self.is_dropped(*needed));
        let is_trigger = self
            .entries
            .get(at)
            .is_some_and(|entry| matches!(entry.desc, ObjectType::Trigger | ObjectType::EventTrigger));
        if is_trigger && let Some((_, function)) = missing().find(|(_, e)| e.desc == ObjectType::Function) {
            return Some(Reason::TriggerFunction { function: qualified_name(function).to_string() });
        }
        // A table tells more than its key, and anything more than its schema.
        let (_, telling) = missing().min_by_key(|(_, needed)| match &needed.desc {
            desc if needs::is_relation(desc) => 0,
            ObjectType::Schema => 2,
            _ => 1,
        })?;
        Some(Reason::DependsOn { entry: describe(telling) })
    }

    fn by_name(&self, at: At) -> Option<Reason> {
        let reference = self.needs.references(at).iter().find(|reference| self.is_gone(reference))?;
        Some(Reason::Uses { name: named(reference) })
    }

    /// Whether nothing that is restored bears this name. A name that the dump does not define is an extension's,
    /// or a column of something that happens to be called like a schema; only where it cannot be the latter does
    /// it count.
    fn is_gone(&self, reference: &Reference) -> bool {
        match self.needs.definitions(&reference.schema, &reference.name) {
            [] => reference.certain && !self.keeps(&reference.schema) && reference.schema != needs::PUBLIC,
            definitions => definitions.iter().all(|at| self.is_dropped(*at)),
        }
    }

    /// Function bodies are not looked at when functions are created, but when they run: to fill a materialized
    /// view, to build an index, to check rows.
    fn drop_what_would_run_into_nothing(&mut self) {
        if !self.rules.schemas.is_empty() {
            self.drop_each(|this, at, entry| this.by_run(this.needs.run_by(at, entry)));
        }
    }

    /// Follows what may run, and looks into the bodies of functions.
    fn by_run(&self, mut queue: Vec<At>) -> Option<Reason> {
        let mut seen = HashSet::new();
        while let Some(at) = queue.pop() {
            let Some(entry) = self.entries.get(at).filter(|entry| runs::may_run(&entry.desc)) else {
                continue;
            };
            if !seen.insert(at) {
                continue;
            }
            queue.extend(self.needs.entries_needed(at).map(|(at, _)| at));
            for reference in runs::body_references(entry) {
                if self.is_gone(&reference) {
                    let function = describe(entry);
                    return Some(Reason::Runs { function, name: named(&reference) });
                }
                queue.extend(self.needs.definitions(&reference.schema, &reference.name));
            }
        }
        None
    }

    fn drop_rows(&mut self) {
        self.drop_each(|this, _, entry| {
            (entry.desc == ObjectType::TableData).then(|| this.by_rows(&qualified_name(entry))).flatten()
        });
    }

    /// A rule for a partitioned table holds for all its partitions.
    fn by_rows(&self, table: &QualifiedName) -> Option<Reason> {
        self.needs.lineage(table).into_iter().find_map(|table| {
            let full = table.to_string();
            if self.rules.schemas_nodata.contains(&table.schema) {
                return Some(Reason::RowsOfSchema { table });
            }
            if let Some(why) = self.rules.tables_nodata_named.get(&full) {
                return Some(Reason::RowsNamed { table, why: why.clone() });
            }
            let pattern = self.rules.tables_nodata.iter().find(|pattern| pattern.is_match(&full))?;
            Some(Reason::RowsMatch { pattern: pattern.as_str().to_owned(), table })
        })
    }

    fn drop_foreign_keys(&mut self) {
        self.drop_each(|this, _, entry| {
            if entry.desc != ObjectType::FkConstraint {
                return None;
            }
            this.by_missing_rows(&Needs::foreign_key(entry)?, is_not_valid(entry))
        });
    }

    fn by_missing_rows(&self, key: &ForeignKey, not_valid: bool) -> Option<Reason> {
        let Some(to) = self.needs.relation(&key.to) else {
            return Some(Reason::ForeignKeyToNothing { table: key.to.clone() });
        };
        let from = self.needs.relation(&key.from)?;
        let refers = self.needs.family(from).into_iter().any(|member| self.has_rows(member) == Some(true));
        if not_valid || !refers {
            return None;
        }
        let empty = self.needs.family(to).into_iter().find(|member| self.has_rows(*member) == Some(false))?;
        let rows_of = self.entries.get(empty).map(qualified_name)?;
        Some(Reason::ForeignKeyWithoutRows { table: key.to.clone(), rows_of })
    }

    /// Whether a table will have its rows. `None` for a partitioned one, which has none of its own.
    fn has_rows(&self, table: At) -> Option<bool> {
        let entry = self.entries.get(table)?;
        match self.needs.rows(&qualified_name(entry)) {
            Some(rows) => Some(!self.is_dropped(rows)),
            None if is_partitioned(entry) => None,
            None => Some(false),
        }
    }

    fn selection(self) -> Selection {
        let warnings = self.warnings();
        let mut selection = Selection { kept: Vec::new(), dropped: Vec::new(), warnings };
        for (entry, reason) in self.entries.iter().zip(self.reasons) {
            match reason {
                None => selection.kept.push(entry.dump_id),
                Some(reason) => selection.dropped.push(Dropped { dump_id: entry.dump_id, reason }),
            }
        }
        selection
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut schemas = HashSet::from([needs::PUBLIC.to_owned()]);
        let mut tables = HashSet::new();
        for entry in self.entries {
            schemas.extend(super::schema(entry).map(str::to_owned));
            schemas.extend(needs::extension_schema(entry));
            match entry.desc {
                ObjectType::Schema => schemas.extend([super::name(entry).to_owned()]),
                ObjectType::Table | ObjectType::TableData => {
                    tables.extend([qualified_name(entry).to_string()]);
                }
                _ => {}
            }
        }
        let unknown = |wanted: &&String| !schemas.contains(*wanted);
        let rules = self.rules;
        let mut warnings: Vec<Warning> = Vec::new();
        warnings.extend(
            rules
                .schemas
                .iter()
                .filter(unknown)
                .map(|schema| Warning::NoSuchSchema { schema: schema.clone() }),
        );
        warnings.extend(
            rules
                .schemas_nodata
                .iter()
                .filter(unknown)
                .map(|schema| Warning::NoSuchSchemaWithoutRows { schema: schema.clone() }),
        );
        warnings.extend(
            rules
                .tables_nodata
                .iter()
                .filter(|pattern| !tables.iter().any(|table| pattern.is_match(table)))
                .map(|pattern| Warning::PatternMatchesNothing { pattern: pattern.as_str().to_owned() }),
        );
        warnings.extend(
            rules
                .tables_nodata_named
                .iter()
                .filter(|(table, _)| !tables.contains(*table))
                .map(|(table, why)| Warning::NoSuchTable { table: table.clone(), why: why.clone() }),
        );
        warnings
    }
}

fn named(reference: &Reference) -> QualifiedName {
    QualifiedName { schema: reference.schema.clone(), name: reference.name.clone() }
}
