//! How far a step is, in words and as JSON, and when it is time to say so.

use std::time::Duration;

use jiff::Timestamp;
use journal::clock::{Clock as _, SystemClock};
use journal::step::Progress;
use serde_json::{Value, json};

use crate::progress::{Amount, Restoring, Stall, Worker};

/// Between two tellings where nothing moves on a terminal.
const PACE: Duration = Duration::from_secs(10);

/// What was told last, so that it is told again at a human pace.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Option<Timestamp>,
    stalls: Vec<Stall>,
}

impl Told {
    /// Whether it is time to tell how far it is: every so often, and at once when something is held up, or is not any more.
    pub(super) fn is_due(&mut self, progress: &Progress) -> bool {
        let now = SystemClock.now();
        let stalls = restoring(progress).map(|found| found.stalls).unwrap_or_default();
        let all_in = |some: &[Stall], others: &[Stall]| {
            some.iter().all(|one| others.iter().any(|other| one.is(other)))
        };
        let changed = !all_in(&stalls, &self.stalls) || !all_in(&self.stalls, &stalls);
        self.stalls = stalls;
        let last = *self.last.get_or_insert(now);
        let due = changed || now.duration_since(last).unsigned_abs() >= PACE;
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// What a restore tells besides; nothing of other steps, nor of a version that tells it otherwise.
pub(super) fn restoring(progress: &Progress) -> Option<Restoring> {
    if progress.detail.is_empty() {
        return None;
    }
    serde_json::from_value(Value::Object(progress.detail.clone())).ok()
}

/// How far something is, in short: `3.50 MiB of 7.00 MiB, about 4 min left`.
pub(super) fn so_far(progress: &Progress) -> String {
    let left = restoring(progress).and_then(|found| found.time_left());
    let amount = Amount { done: progress.done, total: progress.total };
    [Some(of(amount, &progress.unit)), left].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The same with all there is to tell of it on one line.
pub(super) fn in_full(progress: &Progress) -> String {
    let Some(found) = restoring(progress) else { return so_far(progress) };
    let mut told = match progress.unit.as_ref() {
        "bytes" => vec![format!("{} fetched", of(found.fetched, "bytes"))],
        unit => vec![of(Amount { done: progress.done, total: progress.total }, unit)],
    };
    if found.loaded.total.is_some() {
        told.push(format!("{} loaded", amount(found.loaded.done, "bytes")));
    }
    for (counted, what) in [(found.tables, "tables"), (found.indexes, "indexes")] {
        if counted.total.is_some_and(|total| total > 0) {
            told.push(of(counted, what));
        }
    }
    told.extend(found.time_left());
    told.join(", ")
}

/// What a worker is at, and how far: its stall, when it is held up.
pub(super) fn at_work(worker: &Worker, stalls: &[Stall]) -> String {
    if let Some(stall) = stalls.iter().find(|stall| stall.part() == worker.part) {
        return stall.to_string();
    }
    let Worker { part, phase, done, total, unit } = worker;
    match (phase, total) {
        (Some(phase), Some(_)) => format!("{part}: {phase}, {} %", percent(worker)),
        (Some(phase), None) => format!("{part}: {phase}"),
        (None, None) if *done == 0 => part.clone(),
        (None, _) => format!("{part}: {}", of(Amount { done: *done, total: *total }, unit)),
    }
}

/// How much of what a worker is at is done, in hundredths.
pub(super) fn percent(worker: &Worker) -> u64 {
    let total = worker.total.unwrap_or_default();
    let hundredths = (u128::from(worker.done) * 100).checked_div(u128::from(total)).unwrap_or_default();
    u64::try_from(hundredths.min(100)).unwrap_or_default()
}

/// The step's numbers, and what it tells besides.
pub(super) fn value(progress: &Progress) -> Value {
    let mut told = json!({ "done": progress.done, "total": progress.total, "unit": progress.unit });
    if let Some(fields) = told.as_object_mut() {
        fields.extend(progress.detail.clone());
    }
    told
}

/// A line among those of events, of which it is none.
pub(super) fn line(progress: &Progress) -> Value {
    json!({
        "seq": null,
        "run": progress.run.to_string(),
        "n": null,
        "at": super::json::time(SystemClock.now()),
        "kind": "progress",
        "step": progress.step,
        "actor": null,
        "detail": value(progress),
        "hash": null,
    })
}

fn of(counted: Amount, unit: &str) -> String {
    let Amount { done, total } = counted;
    match total {
        Some(total) if unit == "bytes" => format!("{} of {}", amount(done, unit), amount(total, unit)),
        Some(total) => format!("{done} of {}", amount(total, unit)),
        None => amount(done, unit),
    }
}

/// An amount as people read it.
pub(super) fn amount(number: u64, unit: &str) -> String {
    if unit == "bytes" { indicatif::HumanBytes(number).to_string() } else { format!("{number} {unit}") }
}
