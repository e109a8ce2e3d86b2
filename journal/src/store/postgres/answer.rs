//! What the server answers, row by row: text that is turned back into what was stored.

use jiff::Timestamp;

use super::super::{Numbered, Stored};
use super::link::Row;
use crate::event::RunId;
use crate::query::Summary;
use crate::run::Status;
use crate::step::Progress;

/// The statuses, which are stored as the words that people see.
pub(super) const STATUSES: [Status; 8] = [
    Status::Running,
    Status::Succeeded,
    Status::Failed,
    Status::Stopped,
    Status::RollingBack,
    Status::RolledBack,
    Status::Stuck,
    Status::Abandoned,
];

/// What was stored of the progress of `run`; nothing when it is not understood.
pub(super) fn progress(run: RunId, text: &str) -> Option<Progress> {
    let shown: serde_json::Value = serde_json::from_str(text).ok()?;
    let text = |name: &str| shown.get(name)?.as_str().map(str::to_owned);
    Some(Progress {
        run,
        step: text("step")?,
        done: shown.get("done")?.as_u64()?,
        total: shown.get("total").and_then(serde_json::Value::as_u64),
        unit: text("unit")?.into(),
        // Older versions tell none.
        detail: shown.get("detail").and_then(serde_json::Value::as_object).cloned().unwrap_or_default(),
    })
}

/// The event in a row of [`statement::events_of`].
pub(super) fn stored(row: &Row) -> Option<(RunId, Stored)> {
    let [Some(run), Some(seq), Some(bytes)] = row.as_slice() else { return None };
    Some((run.parse().ok()?, Stored { seq: seq.parse().ok()?, bytes: from_hex(bytes)? }))
}

/// The event in a row of [`statement::page`].
pub(super) fn numbered(row: &Row) -> Option<Numbered> {
    let [Some(seq), Some(run), Some(n), Some(bytes)] = row.as_slice() else { return None };
    Some(Numbered {
        seq: seq.parse().ok()?,
        run: run.parse().ok()?,
        n: n.parse().ok()?,
        bytes: from_hex(bytes)?,
    })
}

/// The event in a row of [`statement::beginnings`].
pub(super) fn beginning(row: &Row) -> Option<(RunId, Vec<u8>)> {
    let [Some(run), Some(bytes)] = row.as_slice() else { return None };
    Some((run.parse().ok()?, from_hex(bytes)?))
}

/// The summary in a row of [`statement::runs`].
pub(super) fn summary(row: &Row) -> Option<Summary> {
    let [id, started_at, status, command, section, user, read_only] = row.as_slice() else { return None };
    let micros = started_at.as_ref()?.split('.').next()?.parse().ok()?;
    Some(Summary {
        id: id.as_ref()?.parse().ok()?,
        started_at: Timestamp::from_microsecond(micros).ok()?,
        status: STATUSES.into_iter().find(|known| Some(known.as_str()) == status.as_deref()),
        command: command.clone()?,
        section: section.clone(),
        user: user.clone()?,
        read_only: boolean(read_only.as_deref())?,
    })
}

pub(super) fn boolean(text: Option<&str>) -> Option<bool> {
    match text? {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}

/// The bytes behind an even number of hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    bytes.filter(|_| rest.is_empty())
}
