//! What each entry needs in order to be restored without an error.
//!
//! pg_dump's dependencies say most of it, but they are made for sorting, so some say too much and some are
//! missing. What was found in the archives of pg_dump 15, and its source (pg_dump.c, common.c):
//!
//! - a partition depends on its parent, its indexes on the parent's, and foreign keys on the `INDEX ATTACH` of
//!   every leaf: all three can be restored without;
//! - `USER MAPPING` depends on nothing, though it needs its server;
//! - privileges of an extension's members depend on an id that the archive does not have;
//! - a view that needs a primary key (`GROUP BY id`) is split in a dummy view and a rule `_RETURN`, a base type in
//!   a shell and the type: either half is useless alone;
//! - an operator does not depend on its commutator, yet creates it when it is absent;
//! - an exclusion constraint does not depend on the operator classes of its index, which often are btree_gist's.
//!
//! Qualified names in definitions fill what gaps remain, such as those of archives before 9.2.

use std::collections::{HashMap, HashSet};

use super::sql::{self, Reference, Token};
use super::{Entry, ObjectType, QualifiedName, qualified_name};

/// Entries are known by their place in the archive.
pub(super) type At = usize;

/// Every entry's needs, and who is whose partition.
pub(super) struct Needs<'a> {
    entries: &'a [Entry],
    by_id: HashMap<i32, At>,
    definitions: HashMap<QualifiedName, Vec<At>>,
    relations: HashMap<QualifiedName, At>,
    rows: HashMap<QualifiedName, At>,
    parents: HashMap<At, At>,
    attaches: HashMap<At, At>,
    children: HashMap<At, Vec<At>>,
    inherits_from: HashMap<At, Vec<At>>,
    heirs: HashMap<At, Vec<At>>,
    entry_needs: Vec<Vec<At>>,
    needed_by: Vec<Vec<At>>,
    references: Vec<Vec<Reference>>,
}

/// A foreign key's two ends.
#[derive(Debug)]
pub(super) struct ForeignKey {
    pub(super) from: QualifiedName,
    pub(super) to: QualifiedName,
}

impl<'a> Needs<'a> {
    /// Works out all needs. Definitions are searched for names only when `by_name` asks for it: with every schema
    /// restored there is nothing to be found.
    pub(super) fn of(entries: &'a [Entry], by_name: bool) -> Self {
        let mut needs = Self {
            entries,
            by_id: entries.iter().enumerate().map(|(at, entry)| (entry.dump_id, at)).collect(),
            definitions: HashMap::new(),
            relations: HashMap::new(),
            rows: HashMap::new(),
            parents: HashMap::new(),
            attaches: HashMap::new(),
            children: HashMap::new(),
            inherits_from: HashMap::new(),
            heirs: HashMap::new(),
            entry_needs: Vec::new(),
            needed_by: vec![Vec::new(); entries.len()],
            references: Vec::new(),
        };
        needs.index_names();
        needs.index_partitions();
        needs.index_inheritance();
        needs.entry_needs = entries.iter().enumerate().map(|(at, entry)| needs.needs_of(at, entry)).collect();
        needs.add_other_halves();
        for (at, needed) in needs.entry_needs.iter().enumerate() {
            for needed in needed {
                if let Some(needed_by) = needs.needed_by.get_mut(*needed) {
                    needed_by.push(at);
                }
            }
        }
        if by_name {
            needs.references = entries.iter().map(references_of).collect();
        }
        needs
    }

    /// The entries without which this one cannot be restored.
    pub(super) fn entries_needed(&self, at: At) -> impl Iterator<Item = (At, &'a Entry)> {
        let needed = self.entry_needs.get(at).map(Vec::as_slice).unwrap_or_default();
        needed.iter().filter_map(|at| self.entries.get(*at).map(|entry| (*at, entry)))
    }

    /// The entries that cannot be restored without this one.
    pub(super) fn needed_by(&self, at: At) -> &[At] {
        self.needed_by.get(at).map(Vec::as_slice).unwrap_or_default()
    }

    /// The qualified names in an entry's definition.
    pub(super) fn references(&self, at: At) -> &[Reference] {
        self.references.get(at).map(Vec::as_slice).unwrap_or_default()
    }

    /// The entries that define a name: several for overloaded functions, none for an extension's members.
    pub(super) fn definitions(&self, schema: &str, name: &str) -> &[At] {
        let name = QualifiedName { schema: schema.to_owned(), name: name.to_owned() };
        self.definitions.get(&name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The table, view or sequence of this name.
    pub(super) fn relation(&self, name: &QualifiedName) -> Option<At> {
        self.relations.get(name).copied()
    }

    /// The `TABLE DATA` entry of the table of this name.
    pub(super) fn rows(&self, name: &QualifiedName) -> Option<At> {
        self.rows.get(name).copied()
    }

    /// A table and, if it is a partition, what it is a partition of, upwards.
    pub(super) fn lineage(&self, name: &QualifiedName) -> Vec<QualifiedName> {
        let mut names = vec![name.clone()];
        let mut seen = HashSet::new();
        let mut next = self.relation(name);
        while let Some(at) = next.filter(|at| seen.insert(*at)) {
            next = self.parents.get(&at).copied();
            names.extend(next.and_then(|at| self.entries.get(at)).map(qualified_name));
        }
        names
    }

    /// A table and its partitions, those of its partitions included.
    pub(super) fn family(&self, table: At) -> Vec<At> {
        reached(table, |member| listed(&self.children, member).iter().copied())
    }

    /// A table with all that a change of it goes on to: its partitions, what inherits from it, and theirs.
    pub(super) fn descendants(&self, table: At) -> Vec<At> {
        let below =
            |member| listed(&self.children, member).iter().chain(listed(&self.heirs, member)).copied();
        reached(table, below)
    }

    /// A table with all that it inherits from.
    pub(super) fn ancestors(&self, table: At) -> Vec<At> {
        reached(table, |member| listed(&self.inherits_from, member).iter().copied())
    }

    /// An entry by its place.
    pub(super) fn entry(&self, at: At) -> Option<&'a Entry> {
        self.entries.get(at)
    }

    /// The table that the rows of a `TABLE DATA` entry are given to: their own, or a root of partitions, as
    /// `--load-via-partition-root` wants it, or pg_dump itself where the partition depends on how a server hashes.
    /// With `--inserts` a comment tells, since PostgreSQL 11.20, 12.15, 13.11, 14.8 and 15.3.
    pub(super) fn given_to(&self, entry: &Entry) -> Option<At> {
        let own = qualified_name(entry);
        let remark = || entry.defn.as_deref()?.strip_prefix("-- load via partition root ");
        let named = |text: &str, behind: &[&str]| {
            let tokens = sql::tokens(text);
            let at = if behind.is_empty() { 0 } else { sql::after(&tokens, behind)? };
            sql::name_at(&tokens, at, &own.schema)
        };
        let copy = || named(entry.copy_stmt.as_deref()?, &["copy"]);
        let root = remark().and_then(|rest| named(rest, &[])).or_else(copy);
        self.relation(&root.map_or_else(|| own.clone(), |(schema, name)| QualifiedName { schema, name }))
    }

    /// The two tables of a `FK CONSTRAINT` entry.
    pub(super) fn foreign_key(entry: &Entry) -> Option<ForeignKey> {
        let tokens = sql::tokens(entry.defn.as_deref()?);
        let own = super::schema(entry).unwrap_or_default();
        let name_after = |keywords: &[&str]| {
            let at = sql::after(&tokens, keywords)?;
            let (schema, name) = sql::name_at(&tokens, at, own)?;
            Some(QualifiedName { schema, name })
        };
        let from = name_after(&["alter", "table", "only"]).or_else(|| name_after(&["alter", "table"]))?;
        Some(ForeignKey { from, to: name_after(&["references"])? })
    }

    fn index_names(&mut self) {
        for (at, entry) in self.entries.iter().enumerate() {
            let own = qualified_name(entry);
            match &entry.desc {
                ObjectType::Function | ObjectType::Procedure | ObjectType::Aggregate => {
                    self.definitions.entry(routine_name(entry)).or_default().push(at);
                }
                ObjectType::TableData => {
                    self.rows.insert(own, at);
                }
                ObjectType::Constraint => {
                    // A key's index bears the constraint's name.
                    if let Some(name) = constraint_name(entry) {
                        self.definitions.entry(name).or_default().push(at);
                    }
                }
                desc if is_relation(desc) => {
                    self.relations.insert(own.clone(), at);
                    self.definitions.entry(own).or_default().push(at);
                }
                desc if defines_a_name(desc) => self.definitions.entry(own).or_default().push(at),
                _ => {}
            }
        }
    }

    fn index_partitions(&mut self) {
        for (at, entry) in self.entries.iter().enumerate() {
            let pair = match entry.desc {
                ObjectType::TableAttach => self.attached(entry, &["alter", "table"]),
                // pg_dump 10 and 11 wrote it into CREATE TABLE.
                ObjectType::Table => self.partition_of(at, entry),
                _ => None,
            };
            if let Some((parent, child)) = pair
                && parent != child
            {
                self.parents.insert(child, parent);
                self.children.entry(parent).or_default().push(child);
                if entry.desc == ObjectType::TableAttach {
                    self.attaches.insert(child, at);
                }
            }
        }
    }

    fn index_inheritance(&mut self) {
        for (at, entry) in self.entries.iter().enumerate() {
            let inherits = |defn: &&str| entry.desc == ObjectType::Table && defn.contains("INHERITS");
            let Some(defn) = entry.defn.as_deref().filter(inherits) else { continue };
            let tokens = sql::tokens(defn);
            let own = super::schema(entry).unwrap_or_default();
            for names in sql::in_parentheses(&tokens, &["inherits"]) {
                for name in names.split(|token| token.is_symbol(",")) {
                    let parent = sql::name_at(name, 0, own)
                        .and_then(|(schema, name)| self.relation(&QualifiedName { schema, name }));
                    if let Some(parent) = parent {
                        self.inherits_from.entry(at).or_default().push(parent);
                        self.heirs.entry(parent).or_default().push(at);
                    }
                }
            }
        }
    }

    /// Parent and child of an `ALTER … parent ATTACH PARTITION child`, whose keywords before the parent are given.
    fn attached(&self, entry: &Entry, start: &[&str]) -> Option<(At, At)> {
        let tokens = sql::tokens(entry.defn.as_deref()?);
        let own = super::schema(entry).unwrap_or_default();
        let mut parent = sql::after(&tokens, start)?;
        if tokens.get(parent).is_some_and(|token| token.is_word("only")) {
            parent += 1;
        }
        let child = sql::after(&tokens, &["attach", "partition"])?;
        let lookup = |at: usize| {
            let (schema, name) = sql::name_at(&tokens, at, own)?;
            self.definitions(&schema, &name).iter().copied().find(|at| self.is_table_or_index(*at))
        };
        Some((lookup(parent)?, lookup(child)?))
    }

    fn partition_of(&self, at: At, entry: &Entry) -> Option<(At, At)> {
        let defn = entry.defn.as_deref().filter(|defn| defn.contains("PARTITION OF"))?;
        let tokens = sql::tokens(defn);
        let parent = sql::after(&tokens, &["partition", "of"])?;
        let (schema, name) = sql::name_at(&tokens, parent, super::schema(entry).unwrap_or_default())?;
        Some((self.relation(&QualifiedName { schema, name })?, at))
    }

    fn is_table_or_index(&self, at: At) -> bool {
        self.entries.get(at).is_some_and(|entry| {
            is_key(&entry.desc) || matches!(entry.desc, ObjectType::Table | ObjectType::ForeignTable)
        })
    }

    fn needs_of(&self, at: At, entry: &Entry) -> Vec<At> {
        if entry.desc == ObjectType::IndexAttach
            && let Some((parent, child)) = self.attached(entry, &["alter", "index"])
        {
            return vec![parent, child];
        }
        let mut needs: Vec<At> = entry
            .dependencies
            .iter()
            .filter_map(|id| self.by_id.get(id).copied())
            .filter(|needed| self.is_hard(at, entry, *needed))
            .collect();
        match entry.desc {
            ObjectType::UserMapping => needs.extend(self.server_of(entry)),
            ObjectType::TableData => needs.extend(self.way_of_rows(entry)),
            ObjectType::Constraint => needs.extend(self.default_classes(entry)),
            ObjectType::Acl | ObjectType::Comment | ObjectType::SecurityLabel
                if needs.is_empty() && !entry.dependencies.is_empty() =>
            {
                needs.extend(self.extensions_of(entry));
            }
            _ => {}
        }
        let mut seen = HashSet::from([at]);
        needs.retain(|needed| seen.insert(*needed));
        needs
    }

    /// Whether a dependency of pg_dump's is a need, and not only an order.
    fn is_hard(&self, at: At, entry: &Entry, needed: At) -> bool {
        let Some(other) = self.entries.get(needed) else {
            return false;
        };
        match (&entry.desc, &other.desc) {
            // Every database has a schema public from the start.
            (desc, ObjectType::Schema) if super::name(other) == PUBLIC => is_about(desc),
            (_, ObjectType::TableData | ObjectType::TableAttach | ObjectType::IndexAttach) => false,
            (this, that) if is_key(this) && is_key(that) => false,
            (ObjectType::Table | ObjectType::ForeignTable, ObjectType::Table) => {
                !(self.attaches.contains_key(&at) && self.parents.get(&at) == Some(&needed))
            }
            _ => true,
        }
    }

    /// What may provide the operator classes of an exclusion constraint that names none. Scalars are compared with
    /// `=` and have no class for GiST but btree_gist's.
    fn default_classes(&self, entry: &Entry) -> Vec<At> {
        let tokens = sql::tokens(entry.defn.as_deref().unwrap_or_default());
        let Some(method) = sql::after(&tokens, &["exclude", "using"]).and_then(|at| tokens.get(at)) else {
            return Vec::new();
        };
        let compares = tokens.windows(2).any(|pair| {
            matches!(pair, [with, operator]
            if with.is_word("with") && (operator.is_symbol("=") || operator.is_symbol("<>")))
        });
        let provides = |other: &Entry| match other.desc {
            ObjectType::Extension => compares && method.is_word("gist") && super::name(other) == "btree_gist",
            ObjectType::OperatorClass => {
                let class = sql::tokens(other.defn.as_deref().unwrap_or_default());
                sql::after(&class, &["default", "for", "type"]).is_some()
                    && sql::after(&class, &["using"]).and_then(|at| class.get(at)) == Some(method)
            }
            _ => false,
        };
        self.entries.iter().enumerate().filter(|(_, other)| provides(other)).map(|(at, _)| at).collect()
    }

    fn server_of(&self, entry: &Entry) -> Option<At> {
        let tokens = sql::tokens(entry.defn.as_deref()?);
        let server = tokens.get(sql::after(&tokens, &["server"])?)?.as_name()?;
        self.entries.iter().position(|other| {
            matches!(other.desc, ObjectType::Server | ObjectType::ForeignServer)
                && super::name(other) == server
        })
    }

    /// Rows that are loaded through the root of the partitions (`--load-via-partition-root`) need the root and all
    /// that lies between.
    fn way_of_rows(&self, entry: &Entry) -> Vec<At> {
        let (Some(target), Some(mut at)) = (self.given_to(entry), self.relation(&qualified_name(entry)))
        else {
            return Vec::new();
        };
        let mut needs = Vec::new();
        let mut steps = self.entries.len();
        while at != target && steps > 0 {
            needs.extend(self.attaches.get(&at));
            let Some(parent) = self.parents.get(&at) else {
                break;
            };
            at = *parent;
            steps -= 1;
        }
        if !needs.is_empty() {
            needs.push(target);
        }
        needs
    }

    /// The extensions that may have the member which `member` is about. A member in a schema is one of an extension
    /// that is installed there. One in none, such as a foreign-data wrapper or a language, mostly bears its
    /// extension's name; otherwise it can be any extension's.
    fn extensions_of(&self, member: &Entry) -> Vec<At> {
        let all = || self.entries.iter().enumerate().filter(|(_, entry)| entry.desc == ObjectType::Extension);
        if let Some(schema) = super::schema(member) {
            let there = all().filter(|(_, entry)| extension_schema(entry).as_deref() == Some(schema));
            return there.map(|(at, _)| at).collect();
        }
        let tag = super::name(member);
        let namesake = all()
            .find(|(_, entry)| tag.strip_suffix(super::name(entry)).is_some_and(|kind| kind.ends_with(' ')));
        namesake.map_or_else(|| all().map(|(at, _)| at).collect(), |(at, _)| vec![at])
    }

    /// Dummy views need their rule, shell types their type.
    fn add_other_halves(&mut self) {
        for (at, entry) in self.entries.iter().enumerate() {
            let pair = match entry.desc {
                ObjectType::Rule => super::name(entry).strip_suffix(" _RETURN").and_then(|view| {
                    let view =
                        QualifiedName { schema: super::schema(entry)?.to_owned(), name: view.to_owned() };
                    Some((self.relation(&view)?, at))
                }),
                ObjectType::ShellType => {
                    let own = qualified_name(entry);
                    let definitions = self.definitions(&own.schema, &own.name);
                    let is_type =
                        |at: &&At| self.entries.get(**at).is_some_and(|e| e.desc == ObjectType::Type);
                    definitions.iter().find(is_type).map(|found| (at, *found))
                }
                _ => None,
            };
            if let Some((needy, needed)) = pair
                && let Some(needs) = self.entry_needs.get_mut(needy)
            {
                needs.push(needed);
            }
        }
    }
}

fn listed(lists: &HashMap<At, Vec<At>>, at: At) -> &[At] {
    lists.get(&at).map(Vec::as_slice).unwrap_or_default()
}

/// What can be reached from a table, itself first.
fn reached<N: Iterator<Item = At>>(from: At, next_to: impl Fn(At) -> N) -> Vec<At> {
    let mut found = vec![from];
    let mut seen = HashSet::from([from]);
    let mut next = 0;
    while let Some(member) = found.get(next).copied() {
        found.extend(next_to(member).filter(|at| seen.insert(*at)));
        next += 1;
    }
    found
}

/// The schema that initdb makes.
pub(super) const PUBLIC: &str = "public";

/// The schema an extension is installed in. `None` for every other entry.
pub(super) fn extension_schema(entry: &Entry) -> Option<String> {
    if entry.desc != ObjectType::Extension {
        return None;
    }
    let tokens = sql::tokens(entry.defn.as_deref()?);
    let at = sql::after(&tokens, &["with", "schema"])?;
    tokens.get(at)?.as_name().map(str::to_owned)
}

/// Whether an entry of this kind is about another entry, and exists only beside it.
pub(super) fn is_about(desc: &ObjectType) -> bool {
    matches!(desc, ObjectType::Acl | ObjectType::Comment | ObjectType::SecurityLabel)
}

fn is_key(desc: &ObjectType) -> bool {
    matches!(desc, ObjectType::Index | ObjectType::Constraint)
}

/// Whether entries of this kind are relations that have rows or make some: what a query can name in FROM.
pub(super) fn is_relation(desc: &ObjectType) -> bool {
    matches!(
        desc,
        ObjectType::Table
            | ObjectType::ForeignTable
            | ObjectType::View
            | ObjectType::MaterializedView
            | ObjectType::Sequence
    )
}

fn defines_a_name(desc: &ObjectType) -> bool {
    matches!(
        desc,
        ObjectType::Index
            | ObjectType::Type
            | ObjectType::ShellType
            | ObjectType::Domain
            | ObjectType::Operator
            | ObjectType::OperatorClass
            | ObjectType::OperatorFamily
            | ObjectType::Collation
            | ObjectType::Conversion
            | ObjectType::Statistics
            | ObjectType::TextSearchConfiguration
            | ObjectType::TextSearchDictionary
            | ObjectType::TextSearchParser
            | ObjectType::TextSearchTemplate
    )
}

/// A routine's tag has its arguments; the definition begins with its name.
fn routine_name(entry: &Entry) -> QualifiedName {
    let own = super::schema(entry).unwrap_or_default();
    let from_definition = || {
        let tokens = sql::tokens(entry.defn.as_deref()?);
        let is_kind =
            |token: &Token| ["function", "procedure", "aggregate"].iter().any(|kind| token.is_word(kind));
        let at = tokens.iter().position(is_kind)? + 1;
        sql::name_at(&tokens, at, own)
    };
    let from_tag = || (own.to_owned(), super::name(entry).split('(').next().unwrap_or_default().to_owned());
    let (schema, name) = from_definition().unwrap_or_else(from_tag);
    QualifiedName { schema, name }
}

fn constraint_name(entry: &Entry) -> Option<QualifiedName> {
    let tokens = sql::tokens(entry.defn.as_deref()?);
    let at = sql::after(&tokens, &["add", "constraint"])?;
    let name = tokens.get(at)?.as_name()?.to_owned();
    Some(QualifiedName { schema: super::schema(entry)?.to_owned(), name })
}

/// Names in what is about something else are that other thing's, which is a dependency already.
fn references_of(entry: &Entry) -> Vec<Reference> {
    if is_about(&entry.desc) {
        return Vec::new();
    }
    let mut references = sql::references(&sql::tokens(entry.defn.as_deref().unwrap_or_default()));
    let mut seen = HashSet::new();
    references.retain(|reference| seen.insert(reference.clone()));
    references
}
