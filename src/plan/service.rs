//! Services of the target host.

use std::time::Duration;

use journal::event::Effect;

use super::Plan;
use crate::step::Settings;
use crate::step::service::{Given, Service};

/// A service is started, and must answer within `limit`.
pub fn start(settings: Settings, service: Service, limit: Duration) -> Plan {
    Plan::new(settings).start(service, limit)
}

/// A service is stopped, and must be silent within `limit`.
pub fn stop(settings: Settings, service: Service, limit: Duration) -> Plan {
    Plan::new(settings).stop(service, limit)
}

/// A service is stopped and started again, so that a run that is cut short in between is continued by starting it.
pub fn restart(settings: Settings, service: Service, limit: Duration) -> Plan {
    Plan::new(settings).stop(service, limit).start(service, limit)
}

impl Plan {
    fn start(self, service: Service, limit: Duration) -> Plan {
        let given = Given { service, limit_seconds: limit.as_secs() };
        self.then("start", "start_service", &given, Effect::Undoable)
    }

    fn stop(self, service: Service, limit: Duration) -> Plan {
        let given = Given { service, limit_seconds: limit.as_secs() };
        self.then("stop", "stop_service", &given, Effect::Undoable)
    }
}
