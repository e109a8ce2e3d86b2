//! What is told of the journal itself.

use std::path::Path;

use journal::store::verified::{Damage, Verified};
use serde_json::{Value, json};

use super::{Style, out};

/// Where the journal is.
pub fn journal_path(path: &Path, style: Style) {
    if style.json {
        out(&json!({ "schema": 1, "journal": { "path": path.display().to_string() } }).to_string());
    } else {
        out(&path.display().to_string());
    }
}

/// What a look at the whole journal found.
pub fn verified(found: &Verified, place: &str, style: Style) {
    if style.json {
        out(&json(found, place).to_string());
        return;
    }
    for damage in &found.damage {
        out(&line(damage));
    }
    let Verified { runs, events, attachments, pruned, lost, head, .. } = found;
    out(&format!("{place}: runs {runs}, events {events}, attachments {attachments}"));
    if *pruned > 0 {
        out(&format!("runs that were pruned: {pruned}"));
    }
    if *lost > 0 {
        out(&format!("runs with lost events, as a rebuild noted: {lost}"));
    }
    out(&format!("head {head}"));
}

fn line(damage: &Damage) -> String {
    let run = damage.run.map(|run| format!(" of run {run}")).unwrap_or_default();
    format!("{}{run}: {} ({})", damage.flaw.as_str(), damage.what, damage.path.display())
}

fn json(found: &Verified, place: &str) -> Value {
    let damage = |damage: &Damage| {
        json!({
            "kind": damage.flaw.as_str(),
            "run": damage.run.map(|run| run.to_string()),
            "path": damage.path.display().to_string(),
            "what": damage.what,
        })
    };
    json!({ "schema": 1, "journal": {
        "path": place,
        "head": found.head.to_string(),
        "runs": found.runs,
        "events": found.events,
        "attachments": found.attachments,
        "pruned": found.pruned,
        "lost": found.lost,
        "damage": found.damage.iter().map(damage).collect::<Vec<_>>(),
    } })
}
