//! A dump of a copy.

use std::path::PathBuf;

use journal::event::Effect;

use super::Plan;
use crate::step::preflight::{Database, Wanted};
use crate::step::{Settings, dump as step};

/// The copy is dumped into `file`; where the dump may `replace` an older one, its name is what cannot be taken back.
pub fn dump(settings: Settings, file: PathBuf, replace: bool) -> Plan {
    let wanted =
        Wanted { database: Database::Present, programs: true, may_be_active: true, ..Wanted::default() };
    let given = step::Given { file, replace };
    let naming = if replace { Effect::Final } else { Effect::Undoable };
    Plan::new(settings)
        .preflight(&wanted)
        .then("dump", "dump", &given, Effect::Undoable)
        .then("publish", "publish", &given, naming)
}
