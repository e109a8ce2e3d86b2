//! Which functions run while an entry is restored, and whether they look into tables.
//!
//! Rows are held against checks, domains and the bounds of partitions, and generated columns are computed; indexes are
//! built of expressions. PostgreSQL takes it that such functions look at nothing but their arguments, and pg_dump knows of
//! no other dependency; people write others all the same, and a restore in the archive's order bears them. What is found
//! here is kept in that order.

use std::collections::HashSet;

use super::needs::{At, Needs, is_relation};
use super::selection::is_not_valid;
use super::sql::{self, Reference, Token};
use super::{Entry, ObjectType, QualifiedName, qualified_name};

impl Needs<'_> {
    /// The entries through which restoring this one may run functions.
    pub(super) fn run_by(&self, at: At, entry: &Entry) -> Vec<At> {
        let needed = |at| self.entries_needed(at);
        match entry.desc {
            ObjectType::Index | ObjectType::Constraint => needed(at).map(|(at, _)| at).collect(),
            ObjectType::CheckConstraint if !is_not_valid(entry) => needed(at).map(|(at, _)| at).collect(),
            ObjectType::MaterializedViewData => needed(at)
                .filter(|(_, view)| view.desc == ObjectType::MaterializedView)
                .flat_map(|(view, _)| needed(view).map(|(at, _)| at))
                .collect(),
            ObjectType::TableData => self.run_by_rows(&qualified_name(entry)),
            _ => Vec::new(),
        }
    }

    fn run_by_rows(&self, table: &QualifiedName) -> Vec<At> {
        const OF_ITS_OWN: &[&[&str]] = &[&["check"], &["generated", "always", "as"]];
        const OF_ITS_PARENTS: &[&[&str]] =
            &[&["partition", "by", "list"], &["partition", "by", "range"], &["partition", "by", "hash"]];
        let lineage = self.lineage(table);
        let relations = lineage.iter().filter_map(|name| self.relation(name));
        let mut run = Vec::new();
        for (generation, at) in relations.enumerate() {
            let evaluated = if generation == 0 { OF_ITS_OWN } else { OF_ITS_PARENTS };
            for entry in self.types_of(at).into_iter().filter_map(|at| self.entry(at)) {
                run.extend(self.evaluated_in(entry, evaluated));
            }
        }
        run
    }

    /// A table, those it inherits from, and the types and domains that its columns are of.
    fn types_of(&self, table: At) -> Vec<At> {
        let mut found = self.ancestors(table);
        let mut seen: HashSet<At> = found.iter().copied().collect();
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            let is_type = |entry: &Entry| matches!(entry.desc, ObjectType::Domain | ObjectType::Type);
            let types = self.entries_needed(at).filter(|(_, needed)| is_type(needed));
            found.extend(types.map(|(at, _)| at).filter(|at| seen.insert(*at)));
            next += 1;
        }
        found
    }

    /// What is named in the parentheses behind any of these sequences of keywords.
    fn evaluated_in(&self, entry: &Entry, keywords: &[&[&str]]) -> Vec<At> {
        // Looked for as pg_dump writes it, so that not every definition has to be split into tokens.
        let defn = entry.defn.as_deref().unwrap_or_default();
        let is_there = |keywords: &&[&str]| {
            keywords.first().is_some_and(|first| defn.contains(&first.to_ascii_uppercase()))
        };
        let tokens = if keywords.iter().any(is_there) { sql::tokens(defn) } else { Vec::new() };
        keywords
            .iter()
            .flat_map(|keywords| sql::in_parentheses(&tokens, keywords))
            .flat_map(sql::references)
            .flat_map(|reference| self.definitions(&reference.schema, &reference.name))
            .copied()
            .collect()
    }

    /// Whether restoring an entry runs functions that look into tables, or that hide what they do.
    pub(super) fn looks_into_tables(&self, at: At, entry: &Entry) -> bool {
        let mut queue = self.run_by(at, entry);
        let mut seen = HashSet::new();
        while let Some(at) = queue.pop() {
            let Some(entry) = self.entry(at).filter(|entry| may_run(&entry.desc) && seen.insert(at)) else {
                continue;
            };
            if matches!(entry.desc, ObjectType::View | ObjectType::Rule) || hides_what_it_does(entry) {
                return true;
            }
            let is_function = matches!(entry.desc, ObjectType::Function | ObjectType::Procedure);
            let named = body_references(entry).into_iter().flat_map(|name| {
                let rows = QualifiedName { schema: name.schema.clone(), name: name.name.clone() };
                let of_an_extension = self.rows(&rows);
                self.definitions(&name.schema, &name.name)
                    .iter()
                    .copied()
                    .chain(of_an_extension)
                    .collect::<Vec<At>>()
            });
            for needed in self.entries_needed(at).map(|(at, _)| at).chain(named) {
                if is_function && self.entry(needed).is_some_and(holds_rows) {
                    return true;
                }
                queue.push(needed);
            }
        }
        false
    }
}

fn holds_rows(entry: &Entry) -> bool {
    is_relation(&entry.desc) && entry.desc != ObjectType::Sequence || entry.desc == ObjectType::TableData
}

/// Kinds through which one function leads to another when something is evaluated.
pub(super) fn may_run(desc: &ObjectType) -> bool {
    matches!(
        desc,
        ObjectType::Function
            | ObjectType::Procedure
            | ObjectType::Aggregate
            | ObjectType::Operator
            | ObjectType::OperatorClass
            | ObjectType::OperatorFamily
            | ObjectType::View
            | ObjectType::Rule
    )
}

/// The qualified names in the body of a function.
pub(super) fn body_references(entry: &Entry) -> Vec<Reference> {
    bodies(entry).iter().flat_map(|tokens| sql::references(tokens)).collect()
}

/// Whether the names of what a function uses are not all to be seen in it: they are found by a search_path of its own, or
/// it puts its statements together itself.
fn hides_what_it_does(entry: &Entry) -> bool {
    let queries = ["from", "into", "update", "perform", "execute"];
    let mentions = |tokens: &Vec<Token>, words: &[&str]| {
        tokens.iter().any(|token| words.iter().any(|word| token.is_word(word)))
    };
    let own_path = || {
        let tokens = sql::tokens(entry.defn.as_deref().unwrap_or_default());
        sql::after(&tokens, &["set", "search_path"]).is_some()
    };
    let bodies = bodies(entry);
    bodies.iter().any(|body| mentions(body, &["execute"]))
        || (bodies.iter().any(|body| mentions(body, &queries)) && own_path())
}

/// The tokens of what stands between quotes in the definition of a function.
fn bodies(entry: &Entry) -> Vec<Vec<Token>> {
    if !matches!(entry.desc, ObjectType::Function | ObjectType::Procedure) {
        return Vec::new();
    }
    sql::tokens(entry.defn.as_deref().unwrap_or_default())
        .iter()
        .filter_map(|token| match token {
            Token::Body(body) | Token::Literal(body) => Some(sql::tokens(body)),
            _ => None,
        })
        .collect()
}
