//! What is done to a name in pgbouncer while it leads where it led.

use std::time::Duration;

use journal::event::{Detail, Effect};

use super::Plan;
use crate::step::{Settings, pause as step};

/// The clients of the name `settings.database` are held back; what does not come to rest within `limit` is let go.
pub fn pause(settings: Settings, limit: Duration) -> Plan {
    let given = step::Given { limit_seconds: limit.as_secs() };
    Plan::new(settings).then("pause", step::KIND, &given, Effect::Undoable)
}

/// The clients of the name `settings.database` go on.
pub fn resume(settings: Settings) -> Plan {
    Plan::new(settings).then("resume", "resume", &Detail::new(), Effect::Final)
}
