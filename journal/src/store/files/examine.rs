//! What is wrong with the bytes that a run's events are kept in, by name.

use super::super::verified::{self, Flaw};
use super::wal;
use crate::event::RunId;

/// What the bytes of a run file hold, as far as it is right.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// The events before the first flaw.
    pub(super) events: Vec<Vec<u8>>,
    /// The first flaw, and what it is.
    pub(super) flaw: Option<(Flaw, String)>,
    /// Whether one more event follows that has its length and not its content.
    pub(super) whole_length: bool,
}

/// Looks at the `bytes` of the file of `run`.
pub(super) fn file(bytes: &[u8], run: RunId) -> Examined {
    let mut events = Vec::new();
    let mut rest = bytes;
    let mut at = 0_u64;
    let mut torn = None;
    while !rest.is_empty() {
        let Some((event, after)) = wal::whole_frame(rest) else {
            torn = Some(wal::not_torn(rest));
            break;
        };
        at += wal::frame_length(event);
        events.push(event.to_vec());
        rest = after;
    }
    if let Some((n, flaw, what)) = verified::first_flaw(&events, run) {
        events.truncate(n);
        return Examined { events, flaw: Some((flaw, what)), whole_length: false };
    }
    let whole_length = torn.is_some() && wal::has_its_length(rest);
    let flaw = torn.flatten().map(|why| (Flaw::Changed, format!("at byte {at}: {why}")));
    Examined { events, flaw, whole_length }
}
