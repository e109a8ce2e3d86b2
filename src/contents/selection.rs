//! What the filter decided, and what the rest of the program asks about it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::sql::{self, Token};
use super::{Contents, Entry, ObjectType, QualifiedName, qualified_name};

/// The entries of a dump, divided into what is restored and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Dump ids of what is restored, in the archive's order.
    pub kept: Vec<i32>,
    /// What is not, and why, in the archive's order.
    pub dropped: Vec<Dropped>,
    /// Rules that do nothing, which are probably misspelt.
    pub warnings: Vec<Warning>,
}

/// An entry that is not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The entry.
    pub dump_id: i32,
    /// Why.
    pub reason: Reason,
}

/// Why an entry is not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// It belongs to the database as a whole, which is made before the restore and under another name.
    DatabaseLevel,
    /// It is a subscription: it would draw on production, and a database that has one cannot be dropped.
    Subscription,
    /// Its schema is not among those that are restored.
    Schema {
        /// That schema.
        schema: String,
    },
    /// It needs another entry that is not restored.
    DependsOn {
        /// The other entry, kind and name.
        entry: String,
    },
    /// Its definition names something that is not restored.
    Uses {
        /// What it names.
        name: QualifiedName,
    },
    /// The function its trigger calls is not restored.
    TriggerFunction {
        /// That function, with its arguments.
        function: String,
    },
    /// Restoring it would run a function whose body uses something that is not restored.
    Runs {
        /// The function.
        function: String,
        /// What its body uses.
        name: QualifiedName,
    },
    /// A foreign key whose referenced rows are missing, while those that refer to them are there.
    ForeignKeyWithoutRows {
        /// The referenced table.
        table: QualifiedName,
        /// The table whose rows are missing: the same, or a partition of it.
        rows_of: QualifiedName,
    },
    /// A foreign key to a table that is not in the dump at all.
    ForeignKeyToNothing {
        /// The referenced table.
        table: QualifiedName,
    },
    /// Rows of a table in a schema that is restored without rows.
    RowsOfSchema {
        /// The table the rule applies to: this one, or one it is a partition of.
        table: QualifiedName,
    },
    /// Rows of a table that a pattern matches.
    RowsMatch {
        /// The pattern.
        pattern: String,
        /// The table it matches: this one, or one it is a partition of.
        table: QualifiedName,
    },
    /// Rows of a table that is named.
    RowsNamed {
        /// The table that is named: this one, or one it is a partition of.
        table: QualifiedName,
        /// Why it is.
        why: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DatabaseLevel => write!(f, "it belongs to the dumped database, not to its contents"),
            Self::Subscription => write!(f, "a staging database must not subscribe to production"),
            Self::Schema { schema } => write!(f, "schema {schema} is not among the schemas to restore"),
            Self::DependsOn { entry } => write!(f, "it depends on {entry}, which is not restored"),
            Self::Uses { name } => write!(f, "its definition uses {name}, which is not restored"),
            Self::TriggerFunction { function } => write!(f, "its function {function} is not restored"),
            Self::Runs { function, name } => {
                write!(f, "it would run {function}, whose body uses {name}, which is not restored")
            }
            Self::ForeignKeyWithoutRows { table, rows_of } if table == rows_of => {
                write!(f, "foreign key to {table}, which is restored without rows")
            }
            Self::ForeignKeyWithoutRows { table, rows_of } => {
                write!(f, "foreign key to {table}, which is restored without the rows of {rows_of}")
            }
            Self::ForeignKeyToNothing { table } => {
                write!(f, "foreign key to {table}, which is not in the dump")
            }
            Self::RowsOfSchema { table } => {
                write!(f, "rows not wanted: {table} is in schema {}, restored without rows", table.schema)
            }
            Self::RowsMatch { pattern, table } => write!(f, "rows not wanted: {pattern} matches {table}"),
            Self::RowsNamed { table, why } => write!(f, "rows not wanted: {table} is {why}"),
        }
    }
}

impl Reason {
    /// The option that says so, where one does.
    #[must_use]
    pub fn option(&self) -> Option<&'static str> {
        match self {
            Self::Schema { .. } => Some("schemas"),
            Self::RowsOfSchema { .. } => Some("schemas_nodata"),
            Self::RowsMatch { .. } => Some("tablename_nodata_regexp"),
            Self::RowsNamed { .. } => Some("replication"),
            _ => None,
        }
    }
}

/// A rule that has nothing to act upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Warning {
    /// A schema to restore that the dump does not have.
    NoSuchSchema {
        /// Its name.
        schema: String,
    },
    /// A schema to restore without rows that the dump does not have.
    NoSuchSchemaWithoutRows {
        /// Its name.
        schema: String,
    },
    /// A pattern that matches no table.
    PatternMatchesNothing {
        /// The pattern.
        pattern: String,
    },
    /// A named table that the dump does not have.
    NoSuchTable {
        /// The table, as `schema.table`.
        table: String,
        /// Why it was to be without rows.
        why: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchSchema { schema } => write!(f, "the dump has no schema {schema} to restore"),
            Self::NoSuchSchemaWithoutRows { schema } => {
                write!(f, "the dump has no schema {schema} to restore without rows")
            }
            Self::PatternMatchesNothing { pattern } => write!(f, "no table of the dump matches {pattern}"),
            Self::NoSuchTable { table, why } => write!(f, "the dump has no table {table}, {why}"),
        }
    }
}

impl Selection {
    /// The kept entries, in the archive's order.
    pub fn kept_entries<'a>(&self, contents: &'a Contents) -> impl Iterator<Item = &'a Entry> {
        let kept: HashSet<i32> = self.kept.iter().copied().collect();
        contents.entries().iter().filter(move |entry| kept.contains(&entry.dump_id))
    }

    /// Why entries are not restored, by dump id.
    #[must_use]
    pub fn reasons(&self) -> HashMap<i32, &Reason> {
        self.dropped.iter().map(|dropped| (dropped.dump_id, &dropped.reason)).collect()
    }

    /// The tables that are restored, partitioned ones and partitions included, foreign ones not.
    #[must_use]
    pub fn kept_tables(&self, contents: &Contents) -> Vec<QualifiedName> {
        self.kept_entries(contents)
            .filter(|entry| entry.desc == ObjectType::Table)
            .map(qualified_name)
            .collect()
    }

    /// Restored tables whose rows are in the dump, but are not restored, in the archive's order, and why they are not.
    #[must_use]
    pub fn without_rows(&self, contents: &Contents) -> Vec<(QualifiedName, &Reason)> {
        let reasons = self.reasons();
        let mut without: HashMap<QualifiedName, &Reason> = contents
            .entries()
            .iter()
            .filter(|entry| entry.desc == ObjectType::TableData)
            .filter_map(|entry| Some((qualified_name(entry), *reasons.get(&entry.dump_id)?)))
            .collect();
        let tables = self.kept_tables(contents).into_iter();
        tables.filter_map(|table| without.remove_entry(&table)).collect()
    }

    /// The tables of [`Selection::without_rows`].
    #[must_use]
    pub fn tables_without_rows(&self, contents: &Contents) -> Vec<QualifiedName> {
        self.without_rows(contents).into_iter().map(|(table, _)| table).collect()
    }

    /// Restored constraints that production, too, has as `NOT VALID`.
    #[must_use]
    pub fn not_valid_constraints<'a>(&self, contents: &'a Contents) -> Vec<&'a Entry> {
        self.kept_entries(contents)
            .filter(|entry| {
                // Of those that are neither, PostgreSQL 18 has NOT NULL.
                matches!(
                    entry.desc,
                    ObjectType::FkConstraint | ObjectType::CheckConstraint | ObjectType::Constraint
                )
            })
            .filter(|entry| is_not_valid(entry))
            .collect()
    }

    /// The roles that restoring what is kept needs: owners, and those that privileges, policies and user mappings
    /// name.
    #[must_use]
    pub fn roles(&self, contents: &Contents) -> BTreeSet<String> {
        let mut roles = BTreeSet::new();
        for entry in self.kept_entries(contents) {
            roles.extend(entry.owner.clone().filter(|owner| !owner.is_empty()));
            let tokens = sql::tokens(entry.defn.as_deref().unwrap_or_default());
            match entry.desc {
                ObjectType::Acl | ObjectType::DefaultAcl => roles.extend(roles_of_privileges(&tokens)),
                ObjectType::Policy => roles.extend(roles_of_policy(&tokens)),
                ObjectType::UserMapping => roles.extend(role_after(&tokens, &["mapping", "for"])),
                _ => {}
            }
        }
        // The latter three are keywords where roles are named.
        roles.retain(|role| {
            !["public", "current_user", "session_user", "current_role"].contains(&role.as_str())
        });
        roles
    }

    /// The tablespaces that kept entries ask for.
    #[must_use]
    pub fn tablespaces(&self, contents: &Contents) -> BTreeSet<String> {
        self.kept_entries(contents)
            .filter_map(|entry| entry.tablespace.clone())
            .filter(|tablespace| !tablespace.is_empty())
            .collect()
    }

    /// The extensions that are created.
    #[must_use]
    pub fn extensions(&self, contents: &Contents) -> BTreeSet<String> {
        self.kept_entries(contents)
            .filter(|entry| entry.desc == ObjectType::Extension)
            .map(|entry| super::name(entry).to_owned())
            .collect()
    }
}

/// Whether a constraint is added without looking at the rows that are there.
pub(super) fn is_not_valid(entry: &Entry) -> bool {
    let tokens = sql::tokens(entry.defn.as_deref().unwrap_or_default());
    sql::after(&tokens, &["not", "valid"]).is_some()
}

/// `GRANT … TO role [WITH GRANT OPTION]`, `REVOKE … FROM role`, `GRANTED BY role`, `FOR ROLE role`, and
/// `SET SESSION AUTHORIZATION role`: roles by the keywords before them, which no unquoted name can be taken for.
pub(super) fn roles_of_privileges(tokens: &[Token]) -> Vec<String> {
    let mut roles = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let pair = |first: &str, second: &str| {
            before.is_some_and(|token| token.is_word(first)) && token.is_word(second)
        };
        let names_follow = token.is_word("to")
            || token.is_word("from")
            || pair("for", "role")
            || pair("granted", "by")
            || pair("session", "authorization");
        if names_follow {
            roles.extend(list_of_names(tokens, at + 1));
        }
    }
    roles
}

fn roles_of_policy(tokens: &[Token]) -> Vec<String> {
    // TO is reserved, and comes before the expressions.
    tokens
        .iter()
        .position(|token| token.is_word("to"))
        .map_or_else(Vec::new, |at| list_of_names(tokens, at + 1))
}

fn role_after(tokens: &[Token], keywords: &[&str]) -> Option<String> {
    let at = sql::after(tokens, keywords)?;
    tokens.get(at)?.as_name().map(str::to_owned)
}

fn list_of_names(tokens: &[Token], mut at: usize) -> Vec<String> {
    let mut names = Vec::new();
    if tokens.get(at).is_some_and(|token| token.is_word("group")) {
        at += 1;
    }
    while let Some(name) = tokens.get(at).and_then(Token::as_name) {
        names.push(name.to_owned());
        if !tokens.get(at + 1).is_some_and(|token| token.is_symbol(",")) {
            break;
        }
        at += 2;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_found_in_privileges_and_policies() {
        let cases: &[(&str, &[&str])] = &[
            (
                "GRANT SELECT ON TABLE s.t TO a;\nGRANT ALL ON TABLE s.\"to\" TO \"B \"\"c\" WITH GRANT OPTION;",
                &["a", "B \"c"],
            ),
            (
                "REVOKE ALL(\"from\") ON TABLE s.t FROM PUBLIC;\nGRANT USAGE ON SCHEMA x TO GROUP g GRANTED BY h;",
                &["public", "g", "h"],
            ),
            (
                "SET SESSION AUTHORIZATION o;\nGRANT SELECT ON TABLE t TO a;\nRESET SESSION AUTHORIZATION;",
                &["o", "a"],
            ),
            ("ALTER DEFAULT PRIVILEGES FOR ROLE o IN SCHEMA s GRANT SELECT ON TABLES TO a;", &["o", "a"]),
            ("GRANT EXECUTE ON FUNCTION s.granted(by integer) TO a;", &["a"]),
        ];
        for (sql, roles) in cases {
            assert_eq!(roles_of_privileges(&sql::tokens(sql)), *roles, "{sql}");
        }
        let policy = sql::tokens("CREATE POLICY p ON s.t FOR SELECT TO a, \"B\" USING ((x = 'to c'::text));");
        assert_eq!(roles_of_policy(&policy), ["a", "B"]);
        let policy = sql::tokens("CREATE POLICY p ON s.t USING (true);");
        assert_eq!(roles_of_policy(&policy), [""; 0]);
    }
}
