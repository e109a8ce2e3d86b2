//! The main job: a new copy from a backup, proven before anybody sees it.

use std::path::PathBuf;
use std::time::Duration;

use journal::event::{Detail, Effect};

use super::{Plan, millis};
use crate::step::preflight::{Database, Wanted};
use crate::step::{Settings, bouncer, catalog, check, load as load_step, parts, settle, sql, write};

/// What the configuration wants of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// The attachment that holds the filter's rules.
    pub rules: String,
    /// Whether these rules may leave something out.
    pub filtered: bool,
    /// `sql_path/<section>`.
    pub sql: Option<PathBuf>,
    /// `restore_jobs`.
    pub jobs: u16,
    /// `pg_restore_st`.
    pub single_transaction: bool,
    /// `stall_after`.
    pub stall_after: Duration,
    /// `search_path`.
    pub search_path: Vec<String>,
    /// `max_row_drop`, in percent.
    pub max_row_drop: Option<u8>,
    /// `restore_vacuum`.
    pub vacuum: bool,
    /// `auto_switch`.
    pub switch: bool,
    /// Not `remove_dump`.
    pub keep_dump: bool,
    /// What the dump seems to be, when that is no archive.
    pub seems: Option<load_step::Seems>,
    /// `fast`, where nothing else that is wanted needs the dump as a file.
    pub fast: bool,
}

/// Fetches the backup at a URL without user and password, and makes a copy of it.
pub fn restore(settings: Settings, wishes: Wishes, backup: String, listed_at: String) -> Plan {
    let wanted = Wanted {
        backup: Some(backup),
        listed_at: Some(listed_at),
        database: Database::Absent,
        bouncer: true,
        programs: true,
        by_parts: wishes.fast,
        filtered: wishes.filtered,
        ..Wanted::default()
    };
    let keep = wishes.keep_dump;
    let begun = Plan::new(settings).preflight(&wanted).create_database(false).bouncer_add();
    let begun =
        if wishes.fast { begun.then("contents", "contents", &seeming(&wishes), Effect::None) } else { begun };
    let begun = begun.fetch(keep, wishes.fast, wishes.stall_after);
    from_catalog_on(begun, wishes, None)
}

/// Makes a copy of a dump that is on this machine.
pub fn load(settings: Settings, wishes: Wishes, dump: PathBuf) -> Plan {
    let wanted = Wanted {
        dump: Some(dump.clone()),
        database: Database::AbsentOrEmpty,
        bouncer: true,
        programs: true,
        filtered: wishes.filtered,
        ..Wanted::default()
    };
    let begun = Plan::new(settings).preflight(&wanted).create_database(true).bouncer_add();
    from_catalog_on(begun, Wishes { fast: false, ..wishes }, Some(dump))
}

/// What is told of the dump before it was looked at.
fn seeming(wishes: &Wishes) -> Detail {
    wishes.seems.map(|seems| write(&serde_json::json!({ "seems": seems }))).unwrap_or_default()
}

fn from_catalog_on(begun: Plan, wishes: Wishes, dump: Option<PathBuf>) -> Plan {
    let Wishes {
        rules,
        sql,
        jobs,
        single_transaction,
        max_row_drop,
        search_path,
        vacuum,
        switch,
        fast,
        seems,
        stall_after,
        ..
    } = wishes;
    let (restore, given) = if fast {
        let stall_after_ms = millis(stall_after);
        ("parts", write(&parts::Given { jobs, single_transaction, seems, stall_after_ms }))
    } else {
        ("load", write(&load_step::Given { jobs, single_transaction, seems }))
    };
    let folder = |when: &str| sql.as_ref().map(|folder| folder.join(when));
    let files = |when: &str| sql::Given { folder: folder(when) };
    let check = check::Given { folder: folder("check"), max_row_drop };
    begun
        .then("catalog", "catalog", &catalog::Given { dump, rules }, Effect::None)
        .then("pre_sql", "sql", &files("pre"), Effect::None)
        .redone_with(&["create_database"])
        .then("restore", restore, &given, Effect::None)
        .redone_with(&["create_database", "pre_sql"])
        .then("search_path", "search_path", &settle::Schemas { schemas: search_path }, Effect::None)
        .then("vacuum", "vacuum", &settle::Wanted { wanted: vacuum, anyones: false }, Effect::None)
        .then("post_sql", "sql", &files("post"), Effect::None)
        .redone_with(&["create_database", "pre_sql", "restore", "search_path", "vacuum"])
        .then("check", "check", &check, Effect::None)
        .of_version(2)
        .then("switch", "switch", &bouncer::Given { wanted: switch }, Effect::Undoable)
        .resting_on(&["create_database", "bouncer_add"])
        .cleanup()
}
