//! The upkeep of copies that are there: SQL files, VACUUM, search_path, purging; and of the server: its roles.

use std::path::PathBuf;

use journal::event::{Detail, Effect};

use super::Plan;
use crate::step::choose::{Choice, Dropped};
use crate::step::preflight::{Database, Wanted};
use crate::step::protection::{self, Protection};
use crate::step::{Settings, apply_sql, settle};

/// SQL files that are sourced in a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    /// What the steps are called: `pre_sql` or `post_sql`.
    pub name: &'static str,
    /// The folder.
    pub folder: PathBuf,
    /// The files in it, in order.
    pub files: Vec<String>,
}

/// What a copy must be for its upkeep: there, and it may be in use.
fn in_use() -> Wanted {
    Wanted { database: Database::Present, may_be_active: true, ..Wanted::default() }
}

/// SQL files are sourced in a copy, a step each: what a file did stays, and the next may fail.
pub fn sql(settings: Settings, sql: Sql) -> Plan {
    let begun = Plan::new(settings).preflight(&Wanted { programs: true, ..in_use() });
    let Sql { name, folder, files } = sql;
    let given = |file| apply_sql::Given { folder: folder.clone(), file };
    if files.is_empty() {
        return begun.then(name, "apply_sql", &given(None), Effect::Final);
    }
    let sourced = files.into_iter().fold(begun, |plan, file| {
        let step = format!("{name} {file}");
        plan.then(&step, "apply_sql", &given(Some(file)), Effect::Final)
    });
    sourced.then("cleanup", "forget_sql", &Detail::new(), Effect::None)
}

/// VACUUM ANALYZE of a copy.
pub fn vacuum(settings: Settings) -> Plan {
    let wanted = settle::Wanted { wanted: true, anyones: true };
    Plan::new(settings).preflight(&in_use()).then("vacuum", "vacuum", &wanted, Effect::None)
}

/// The search_path of a copy.
pub fn search_path(settings: Settings, schemas: Vec<String>) -> Plan {
    let schemas = settle::Schemas { schemas };
    Plan::new(settings).preflight(&in_use()).then(
        "search_path",
        "alter_search_path",
        &schemas,
        Effect::Undoable,
    )
}

/// A copy is protected from being dropped, or with no protection it is not any more.
pub fn protect(settings: Settings, protection: Option<Protection>) -> Plan {
    let given = protection::Given { protection };
    Plan::new(settings).preflight(&in_use()).then("protect", "protect", &given, Effect::Undoable)
}

/// Copies are taken away one after the other, each as `drop` does it.
pub fn purge(settings: Settings, choice: &Choice) -> Plan {
    let wanted = Wanted { database: Database::Ignored, bouncer: true, ..Wanted::default() };
    let chosen = Plan::new(settings).preflight(&wanted).then("choose", "choose", choice, Effect::None);
    let gone = choice.drop.iter().fold(chosen, |plan, Dropped { copy, oid }| {
        let plan = plan.bouncer_remove(false).on(copy);
        plan.drop_database(false, Some(*oid)).on(copy)
    });
    gone.cleanup()
}

/// Roles and tablespaces are made as `pg_dumpall -g` has written them at a URL without user and password.
pub fn init(settings: Settings, globals: String) -> Plan {
    let wanted =
        Wanted { database: Database::Ignored, globals: Some(globals), directly: true, ..Wanted::default() };
    Plan::new(settings)
        .preflight(&wanted)
        .then("globals", "globals", &Detail::new(), Effect::None)
        .then("roles", "roles", &Detail::new(), Effect::Final)
        .then("tablespaces", "tablespaces", &Detail::new(), Effect::Final)
}
