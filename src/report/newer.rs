//! `restore --if-newer` that has nothing to do.

use jiff::civil::Date;
use journal::event::RunId;
use serde_json::json;

use super::{Style, out};

/// Why there is nothing to restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotNewer {
    /// The section.
    pub section: String,
    /// What points at the copy, where a restore would point it elsewhere.
    pub alias: Option<String>,
    /// The copy that is there.
    pub copy: String,
    /// The date of the backup that would have been taken.
    pub backup: Date,
    /// The run that made the copy of that very backup; `None` where the copy is of a later date.
    pub run: Option<RunId>,
    /// Whether the server has another file now than the one that the copy was made of.
    pub changed: bool,
}

impl NotNewer {
    fn message(&self) -> String {
        let NotNewer { section, alias, copy, backup, run, .. } = self;
        let there = match alias {
            Some(alias) => format!("{alias} points at {copy}"),
            None => format!("{copy} is there"),
        };
        let why = match run {
            Some(run) => format!("made of the backup of {backup} (run {})", run.short()),
            None => format!("newer than the backup of {backup}"),
        };
        format!("restore {section}: nothing to do, {there}, {why}")
    }
}

/// Tells it.
pub(super) fn print(found: &NotNewer, style: Style) {
    let NotNewer { section, copy, backup, run, changed, .. } = found;
    let message = found.message();
    if *changed {
        style.warn(&format!(
            "the backup of {backup} has changed since {copy} was made of it; to take it as it is now, switch to another copy, \
             drop {copy}, and restore without --if-newer"
        ));
    }
    if style.json {
        let told = json!({
            "section": section,
            "database": copy,
            "backup_date": backup.to_string(),
            "run": run.map(|run| run.to_string()),
            "backup_changed": changed,
        });
        out(&json!({ "schema": 1, "done": message, "not_newer": told }).to_string());
    } else if !style.quiet {
        out(&message);
    }
}
