//! Warnings of the rooms below, which know nobody to tell. Each is told once, however often it is met.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::Style;

/// Tells them as lines on standard error.
pub(super) struct Warnings {
    style: Style,
    told: Mutex<BTreeSet<String>>,
}

impl Warnings {
    pub(super) fn new(style: Style) -> Warnings {
        Warnings { style, told: Mutex::default() }
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let is_new = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(message.0.clone());
        if is_new {
            self.style.warn(&message.0);
        }
    }
}

/// The text of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
