//! Plans: the steps of each workflow, in order, as a value. `-n` prints it, the journal stores it, the engine walks it.
//!
//! A plan holds every parameter that its steps need, so that a run can be continued when the configuration has changed
//! since, and by a machine that has none.

mod dump;
mod pooling;
mod restore;
mod service;
mod upkeep;

use std::time::Duration;

use journal::event::{Detail, Effect, PlannedStep};
use serde::Serialize;

pub use self::dump::dump;
pub use self::pooling::{pause, resume};
pub use self::restore::{Wishes, load, restore};
pub use self::service::{restart, start, stop};
pub use self::upkeep::{Sql, init, protect, purge, search_path, sql, vacuum};
use crate::step::preflight::{Database, Wanted};
use crate::step::{COPY, Settings, bouncer, create_database, drop_database, fetch, write};

/// What a run will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where everything is.
    pub settings: Settings,
    /// The steps, in order.
    pub steps: Vec<PlannedStep>,
}

impl Plan {
    /// What no two runs may work on at the same time: the alias, at the pgbouncer that has it.
    pub fn target(&self) -> String {
        self.settings.target()
    }

    /// The copy that the run works on, where it is one.
    pub fn database(&self) -> Option<&str> {
        Some(self.settings.database.as_str()).filter(|database| !database.is_empty())
    }

    fn new(settings: Settings) -> Plan {
        Plan { settings, steps: Vec::new() }
    }

    fn then(mut self, name: &str, kind: &str, parameters: &impl Serialize, effect: Effect) -> Plan {
        self.steps.push(PlannedStep {
            name: name.to_owned(),
            kind: kind.to_owned(),
            version: 1,
            parameters: write(parameters),
            effect,
            rests_on: Vec::new(),
            redo_with: Vec::new(),
        });
        self
    }

    /// The last step is of a later version of its kind.
    fn of_version(mut self, version: u16) -> Plan {
        if let Some(last) = self.steps.last_mut() {
            last.version = version;
        }
        self
    }

    /// The last step's undo comes before that of these, or not at all.
    fn resting_on(mut self, names: &[&str]) -> Plan {
        let indexes = self.indexes(names);
        if let Some(last) = self.steps.last_mut() {
            last.rests_on = indexes;
        }
        self
    }

    /// The last step, found half done, is done again together with these.
    fn redone_with(mut self, names: &[&str]) -> Plan {
        let indexes = self.indexes(names);
        if let Some(last) = self.steps.last_mut() {
            last.redo_with = indexes;
        }
        self
    }

    fn indexes(&self, names: &[&str]) -> Vec<u16> {
        let place = |name: &&str| self.steps.iter().position(|step| step.name == *name);
        names.iter().filter_map(place).filter_map(|index| u16::try_from(index).ok()).collect()
    }

    fn preflight(self, wanted: &Wanted) -> Plan {
        self.then("preflight", "preflight", wanted, Effect::None)
    }

    fn create_database(self, may_adopt: bool) -> Plan {
        let given = create_database::Given { may_adopt };
        self.then("create_database", "create_database", &given, Effect::Undoable)
    }

    fn bouncer_add(self) -> Plan {
        self.then("bouncer_add", "bouncer_add", &Detail::new(), Effect::Undoable)
    }

    fn switch(self, wanted: bool) -> Plan {
        self.then("switch", "switch", &bouncer::Given { wanted }, Effect::Undoable)
    }

    fn fetch(self, keep: bool, by_parts: bool, stall_after: Duration) -> Plan {
        let given = fetch::Given { keep, by_parts, stall_after_ms: millis(stall_after) };
        self.then("fetch", "fetch", &given, Effect::Undoable)
    }

    fn alias_remove(self) -> Plan {
        let alias = bouncer::Removed { alias: true, unless_in_use: false };
        self.then("alias_remove", "bouncer_remove", &alias, Effect::Undoable)
    }

    fn bouncer_remove(self, even_if_active: bool) -> Plan {
        let entry = bouncer::Removed { alias: false, unless_in_use: !even_if_active };
        self.then("bouncer_remove", "bouncer_remove", &entry, Effect::Undoable)
    }

    fn drop_database(self, even_if_active: bool, oid: Option<u32>) -> Plan {
        let given = drop_database::Given { even_if_active, oid };
        self.then("drop_database", "drop_database", &given, Effect::Final)
    }

    /// The last step works on this copy, and is named after it.
    fn on(mut self, copy: &str) -> Plan {
        if let Some(last) = self.steps.last_mut() {
            last.name = format!("{} {copy}", last.name);
            last.parameters.insert(COPY.to_owned(), copy.into());
        }
        self
    }

    fn cleanup(self) -> Plan {
        self.then("cleanup", "cleanup", &Detail::new(), Effect::None)
    }
}

/// Only the dump is brought here.
pub fn only_fetch(settings: Settings, backup: String, listed_at: String, stall_after: Duration) -> Plan {
    let wanted = Wanted { backup: Some(backup), listed_at: Some(listed_at), ..Wanted::default() };
    Plan::new(settings).preflight(&wanted).fetch(true, false, stall_after).cleanup()
}

/// Only the empty copy is made, and its entry in pgbouncer.
pub fn createdb(settings: Settings) -> Plan {
    let wanted = Wanted { database: Database::Absent, bouncer: true, ..Wanted::default() };
    Plan::new(settings).preflight(&wanted).create_database(false).bouncer_add().cleanup()
}

/// Only the alias is pointed at a copy.
pub fn switch(settings: Settings) -> Plan {
    let wanted =
        Wanted { database: Database::Present, bouncer: true, may_be_active: true, ..Wanted::default() };
    Plan::new(settings).preflight(&wanted).switch(true).cleanup()
}

/// A copy is taken away: nobody new is let in, its entry goes, then the database. With `force` the alias that leads to it
/// goes first: left there, it would let people see the next copy of that name before it is proven.
pub fn drop(settings: Settings, force: bool) -> Plan {
    let wanted = Wanted {
        database: Database::PresentOrListed,
        bouncer: true,
        may_be_active: force,
        ..Wanted::default()
    };
    let begun = Plan::new(settings).preflight(&wanted);
    let begun = if force { begun.alias_remove() } else { begun };
    begun.bouncer_remove(force).drop_database(force, None).cleanup()
}

/// A length of time as plans have it.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
