//! What is wrong with the bytes that a run's events are kept in, by name.

use super::super::verified::Flaw;
use super::wal;
use crate::codec::{self, CodecError, Header};
use crate::event::{Hash, RunId};

/// What the bytes of a run file hold, as far as it is right.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// The events before the first flaw.
    pub(super) events: Vec<Vec<u8>>,
    /// The first flaw, and what it is.
    pub(super) flaw: Option<(Flaw, String)>,
    /// Whether bytes of an unfinished append come last.
    pub(super) torn: bool,
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
    let mut examined = chain(events, run);
    if examined.flaw.is_none() {
        match torn {
            Some(Some(why)) => examined.flaw = Some((Flaw::Changed, format!("at byte {at}: {why}"))),
            Some(None) => examined.torn = true,
            None => {}
        }
    }
    examined
}

/// Looks at `events`, which should be those of `run` from its first on, each of which names the one before it.
pub(super) fn chain(events: Vec<Vec<u8>>, run: RunId) -> Examined {
    let headers: Vec<_> = events.iter().map(|event| codec::header(event)).collect();
    let mut before = Hash::ZERO;
    for (n, (event, header)) in events.iter().zip(&headers).enumerate() {
        let flaw = match header {
            // What a newer version wrote is believed.
            Err(CodecError::Newer(_)) => None,
            Err(error) => Some((Flaw::Changed, format!("event {n}: {error}"))),
            Ok(header) => misplaced(header, n, run, before, headers.get(n + 1..).unwrap_or_default()),
        };
        if flaw.is_some() {
            let events = events.get(..n).unwrap_or_default().to_vec();
            return Examined { events, flaw, torn: false };
        }
        before = Hash::of(event);
    }
    Examined { events, flaw: None, torn: false }
}

fn misplaced(
    header: &Header,
    place: usize,
    run: RunId,
    before: Hash,
    later: &[Result<Header, CodecError>],
) -> Option<(Flaw, String)> {
    let expected = u64::try_from(place).unwrap_or(u64::MAX);
    if header.run != run {
        return Some((Flaw::Changed, format!("event {expected} is one of run {}", header.run)));
    }
    if header.n != expected {
        let comes_later = later.iter().flatten().any(|later| later.n == expected);
        return Some(match (comes_later, header.n < expected) {
            (true, _) => (Flaw::Reordered, format!("event {} comes before event {expected}", header.n)),
            (false, false) => (Flaw::Removed, format!("event {expected} is not there, {} is", header.n)),
            (false, true) => (Flaw::Reordered, format!("event {} is there again", header.n)),
        });
    }
    (header.prev != before).then(|| match expected.checked_sub(1) {
        None => (Flaw::Changed, "event 0 names one before it".to_owned()),
        Some(last) => (Flaw::Changed, format!("event {last} is not the one that event {expected} names")),
    })
}
