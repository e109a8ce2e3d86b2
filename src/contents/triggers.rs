//! Which function each trigger calls: what has to be followed before a schema is left out.

use super::sql::{self, Token};
use super::{Contents, Entry, ObjectType, QualifiedName};

/// A function and one trigger that calls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TriggerFunction {
    /// The function.
    pub function: QualifiedName,
    /// The table, view or foreign table of the trigger; an event trigger has none.
    pub table: Option<QualifiedName>,
    /// The trigger's name.
    pub trigger: String,
    /// The trigger's entry in the archive.
    pub dump_id: i32,
}

/// Every trigger of a dump with its function, sorted by function, table and trigger.
#[must_use]
pub fn trigger_functions(contents: &Contents) -> Vec<TriggerFunction> {
    let is_trigger = |entry: &&Entry| matches!(entry.desc, ObjectType::Trigger | ObjectType::EventTrigger);
    let triggers = contents.entries().iter().filter(is_trigger);
    let mut found: Vec<TriggerFunction> = triggers.filter_map(|entry| of(contents, entry)).collect();
    found.sort();
    found
}

/// `CREATE [CONSTRAINT | EVENT] TRIGGER name … ON table … EXECUTE FUNCTION function(…)`, with PROCEDURE up to PostgreSQL
/// 10. ON is reserved, so that no column in the list of an UPDATE can be taken for it.
fn of(contents: &Contents, entry: &Entry) -> Option<TriggerFunction> {
    let tokens = sql::tokens(entry.defn.as_deref()?);
    let own = super::schema(entry).unwrap_or_default();
    let name = sql::after(&tokens, &["trigger"])?;
    let trigger = tokens.get(name)?.as_name()?.to_owned();
    let table = match entry.desc {
        ObjectType::EventTrigger => None,
        _ => {
            let on = tokens.iter().skip(name + 1).position(|token| token.is_word("on"))?;
            let (schema, name) = sql::name_at(&tokens, name + on + 2, own)?;
            Some(QualifiedName { schema, name })
        }
    };
    let function = function(contents, &tokens, own)?;
    Some(TriggerFunction { function, table, trigger, dump_id: entry.dump_id })
}

/// Where a name has no schema, it is that of a function in the trigger's own schema (dumps made before search_path was
/// emptied, in 2018), or else one of PostgreSQL's.
fn function(contents: &Contents, tokens: &[Token], own: &str) -> Option<QualifiedName> {
    let called = |kind| sql::after(tokens, &["execute", kind]);
    let at = called("function").or_else(|| called("procedure"))?;
    let (schema, name) = sql::name_at(tokens, at, "")?;
    if !schema.is_empty() {
        return Some(QualifiedName { schema, name });
    }
    let is_it = |entry: &Entry| {
        let base = super::name(entry).split_once('(').map(|(base, _)| base.trim_matches('"'));
        entry.desc == ObjectType::Function && super::schema(entry) == Some(own) && base == Some(&name)
    };
    let in_own = contents.entries().iter().any(is_it);
    let schema = if in_own { own.to_owned() } else { "pg_catalog".to_owned() };
    Some(QualifiedName { schema, name })
}
