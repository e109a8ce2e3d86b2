//! What people and scripts see: tables, JSON, progress. It hears events, and decides nothing.
//!
//! Results go to standard output, all else to standard error. What cannot be printed because nobody reads any more is
//! not worth ending a restore for, so errors of printing are let go here, and only here.

mod alias;
mod bars;
mod entry;
pub mod json;
mod label;
mod ledger;
mod listing;
pub mod live;
mod newer;
mod progress;
mod tables;
pub mod text;
mod upkeep;
mod warnings;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use jiff::Timestamp;
use journal::event::{Envelope, Hash, RunId};
use journal::query::{Shown, Summary};
use journal::run::Run;
use journal::step::{Listener, Progress};
use journal::store::StoreError;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

pub use self::alias::{AliasNow, Maker, Origin, Switched};
pub use self::entry::{Entry, Reading};
pub use self::label::labelled;
pub use self::ledger::{AuditFormat, Ledger};
pub use self::listing::{Cell, Column, Listing, size};
pub use self::newer::NotNewer;
pub use self::tables::{Line, remaining};
pub use self::upkeep::{journal_path, verified};
use self::warnings::Warnings;
use crate::cli::{Color, Global};
use crate::error::{Error, ExitCode};
use crate::plan::Plan;

/// How things are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Results as JSON.
    pub json: bool,
    /// Errors only.
    pub quiet: bool,
    /// Every event.
    pub verbose: bool,
    /// The chain of causes.
    pub debug: bool,
    /// Colours on standard error.
    pub color: bool,
    /// Bars that move on standard error.
    pub bars: bool,
}

/// One run, with all there is to know of it.
#[derive(Debug, Clone)]
pub struct Inspected<'a> {
    /// The run.
    pub run: &'a Run,
    /// Where it stands.
    pub shown: Shown,
    /// How far its step is, when it is at work and shows that.
    pub progress: Option<Progress>,
    /// The last lines of what programs said, by the name of their step.
    pub outputs: Vec<(String, String)>,
    /// Its events.
    pub events: &'a [Entry],
}

/// A run that this version cannot read.
#[derive(Debug, Clone)]
pub struct Unread<'a> {
    /// Its id.
    pub id: RunId,
    /// The version that wrote it, when that can be told.
    pub written_by: Option<String>,
    /// What cannot be read.
    pub why: String,
    /// Its events.
    pub events: &'a [Entry],
}

impl Style {
    /// What the command line and the terminal say.
    pub fn new(global: &Global) -> Style {
        let terminal = std::io::stderr().is_terminal();
        let no_color = crate::world::machine::variable("NO_COLOR").is_some();
        Style {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            debug: global.debug,
            color: match global.color.unwrap_or(Color::Auto) {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => terminal && !no_color,
            },
            bars: terminal && !global.quiet && !global.json,
        }
    }

    /// A line that is no error and should be seen.
    pub fn warn(self, warning: &str) {
        if !self.quiet {
            err(&format!("{} {warning}", self.paint("33", "warning:")));
        }
    }

    /// `text` in a colour, by its SGR number.
    pub(crate) fn paint(self, color: &str, text: &str) -> String {
        if self.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What the rooms below tell goes to standard error for as long as what is given back lives: warnings, and with `-d` what
/// happens underneath, the programs that are run and how they end.
#[must_use]
pub fn log(style: Style) -> DefaultGuard {
    let ours = |level| Targets::new().with_target("pg_staging", level);
    let warnings = Warnings::new(style).with_filter(ours(tracing::Level::WARN));
    let lines = style.debug.then(|| {
        let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).without_time();
        let beside = filter_fn(|metadata| *metadata.level() > tracing::Level::WARN);
        lines.with_ansi(style.color).with_filter(ours(tracing::Level::DEBUG).and(beside))
    });
    tracing::subscriber::set_default(tracing_subscriber::registry().with(warnings).with(lines))
}

/// A line on standard output.
pub(crate) fn out(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", label::on_result(line));
}

/// Standard output, for what is no line of a report.
pub fn raw() -> impl std::io::Write + Send {
    std::io::stdout()
}

/// A line on standard error.
pub(crate) fn err(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", label::on(line));
}

/// Who hears of a run under way.
pub fn listener(style: Style) -> Arc<dyn Listener> {
    let listener: Arc<dyn Listener> =
        if style.json { Arc::new(json::Lines::new(style)) } else { Arc::new(live::Live::new(style)) };
    label::listener(listener)
}

/// Hears nothing.
pub struct Silent;

impl Listener for Silent {
    fn recorded(&self, _: &Run, _: &Envelope, _: Hash) {}
    fn progressed(&self, _: &Progress) {}
    fn warned(&self, _: &str) {}
}

/// A command ended without a run that tells.
pub fn error(error: &Error, style: Style) {
    if style.json {
        out(&serde_json::json!({ "schema": 1, "error": json::error(error) }).to_string());
    }
    text::error(error, style.color);
}

/// An error of a command whose results were shown all the same, as far as it has any.
pub fn incomplete(error: &Error, style: Style) {
    text::error(error, style.color);
}

/// A line beside the result.
pub fn aside(line: &str, style: Style) {
    if !style.quiet {
        err(line);
    }
}

/// A plan, for `-n`.
pub fn plan(plan: &Plan, command: &str, style: Style) {
    if style.json { out(&json::plan(plan, command).to_string()) } else { text::plan(plan, command) }
}

/// How a run ended.
pub fn ended(run: &Run, style: Style) {
    if style.json {
        out(&json::ended(run, Shown::of(Some(run.status), true)).to_string());
        return;
    }
    text::ended(run, style);
}

/// The process that was at work on a run is gone.
pub fn interrupted(run: &Run, style: Style) {
    if style.json {
        out(&json::ended(run, Shown::Interrupted).to_string());
        return;
    }
    text::interrupted(run, style);
}

/// A command that makes no run of its own has done what it was asked to.
pub fn done(message: &str, style: Style) {
    if style.json {
        out(&serde_json::json!({ "schema": 1, "done": message }).to_string());
    } else if !style.quiet {
        out(message);
    }
}

/// A restore of what is newer had nothing to do.
pub fn not_newer(found: &NotNewer, style: Style) {
    newer::print(found, style);
}

/// How what was asked for of several sections ended, each by itself.
pub fn each(ended: &[(String, ExitCode)], style: Style) {
    let told = |code: ExitCode| match code {
        ExitCode::DONE => "done".to_owned(),
        code => format!("exit code {}", code.0),
    };
    if style.json {
        let sections: Vec<serde_json::Value> = ended
            .iter()
            .map(|(section, code)| serde_json::json!({ "section": section, "code": code.0 }))
            .collect();
        out(&serde_json::json!({ "schema": 1, "sections": sections }).to_string());
        return;
    }
    let done = ended.iter().filter(|(_, code)| *code == ExitCode::DONE).count();
    if style.quiet && done == ended.len() {
        return;
    }
    out(&format!("{done} of {} sections done", ended.len()));
    let width = ended.iter().map(|(section, _)| section.chars().count()).max().unwrap_or_default();
    for (section, code) in ended {
        out(&format!(" {section:width$}  {}", told(*code)));
    }
}

/// A run is undone, as was asked for.
pub fn undone(run: &Run, style: Style) {
    if style.json {
        out(&json::ended(run, Shown::of(Some(run.status), true)).to_string());
        return;
    }
    text::undone(run);
}

/// A command waits for a target that somebody else holds.
pub fn waiting(busy: &StoreError, style: Style) {
    if !style.quiet {
        err(&format!("waiting: {busy}"));
    }
}

/// The list of runs.
pub fn history(lines: &[Line], now: Timestamp, style: Style) {
    if style.json { out(&json::history(lines, now).to_string()) } else { tables::history(lines, now) }
}

/// One run.
pub fn inspect(inspected: &Inspected<'_>, all_events: bool, now: Timestamp, style: Style) {
    if style.json {
        out(&json::inspect(inspected, now).to_string());
        return;
    }
    tables::inspect(inspected, now);
    if all_events {
        tables::events(inspected.events);
    }
}

/// A run that cannot be read.
pub fn inspect_unread(unread: &Unread<'_>, style: Style) {
    if style.json { out(&json::inspect_unread(unread).to_string()) } else { tables::inspect_unread(unread) }
}

/// What is behind an alias.
pub fn alias(now: &AliasNow, style: Style) {
    alias::print(now, style);
}

/// What can be told of a run that cannot be read.
pub(crate) fn name_of(summary: &Summary) -> &str {
    if summary.command.is_empty() { "?" } else { &summary.command }
}
