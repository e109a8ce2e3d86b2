//! `inspect --live`: what is behind an alias.

use std::path::PathBuf;

use jiff::Timestamp;
use journal::event::{Actor, RunId};
use journal::query::Shown;
use journal::run::Run;
use serde_json::{Value, json};

use super::tables::local;
use super::{Style, json, listing, out};

/// What is known of an alias now.
#[derive(Debug, Clone)]
pub struct AliasNow {
    /// Its name.
    pub alias: String,
    /// The host that it leads to, as pgbouncer has it; empty for a unix socket.
    pub host: String,
    /// The port there.
    pub port: String,
    /// The database there.
    pub database: String,
    /// Whether pgbouncer holds its clients.
    pub paused: bool,
    /// Whether pgbouncer turns new clients away.
    pub disabled: bool,
    /// The run that the database's mark names.
    pub marked: Option<RunId>,
    /// That run, when the journal has it.
    pub made_by: Option<Maker>,
    /// Who pointed the alias there, when the journal knows.
    pub switched: Option<Switched>,
    /// What is not known, and why.
    pub notes: Vec<String>,
}

/// The run that made a copy.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The run.
    pub run: Run,
    /// Where it stands.
    pub shown: Shown,
    /// What it made the copy from.
    pub origin: Origin,
}

/// What a copy was made from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A backup that was fetched.
    Backup {
        /// Its URL, without user and password.
        url: String,
        /// Its size in bytes, when the server said.
        bytes: Option<u64>,
        /// Its ETag, or its Last-Modified.
        validator: Option<String>,
        /// Its SHA-256 in hexadecimal, when the server had one.
        sha256: Option<String>,
    },
    /// A dump on the machine that ran it.
    Dump(PathBuf),
    /// Nothing: it was made empty.
    Nothing,
}

/// A change of where an alias leads.
#[derive(Debug, Clone)]
pub struct Switched {
    /// By which run.
    pub run: RunId,
    /// That run's command.
    pub command: String,
    /// And arguments.
    pub arguments: Vec<String>,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: Actor,
}

/// Prints it.
pub(super) fn print(now: &AliasNow, style: Style) {
    if style.json {
        out(&json!({ "schema": 1, "live": to_json(now) }).to_string());
        return;
    }
    let AliasNow { alias, database, host, port, .. } = now;
    let place = if host.is_empty() { format!("socket:{port}") } else { format!("{host}:{port}") };
    let mut held = String::new();
    held.push_str(if now.paused { ", paused" } else { "" });
    held.push_str(if now.disabled { ", disabled" } else { "" });
    out(&format!("alias     {alias} points at {database} on {place}{held}"));
    match &now.switched {
        Some(switched) => {
            let by = words(&switched.command, &switched.arguments, switched.run, &switched.actor);
            out(&format!("since     {}, by {by}", local(switched.at)));
        }
        None => out("since     unknown"),
    }
    match &now.made_by {
        Some(Maker { run, shown, origin }) => {
            let by = words(&run.started.command, &run.started.arguments, run.id, &run.actor);
            out(&format!("made by   {by}, {}, begun {}", shown.as_str(), local(run.started_at)));
            origin_lines(origin).iter().for_each(|line| out(line));
        }
        None => out("made by   unknown"),
    }
    for note in &now.notes {
        out(&format!("note      {note}"));
    }
}

fn words(command: &str, arguments: &[String], run: RunId, actor: &Actor) -> String {
    let typed = [&[command.to_owned()], arguments].concat().join(" ");
    format!("{typed} (run {}) of {}@{}", run.short(), actor.user, actor.host)
}

fn origin_lines(origin: &Origin) -> Vec<String> {
    match origin {
        Origin::Nothing => vec!["backup    none: it was made empty".to_owned()],
        Origin::Dump(path) => vec![format!("dump      {}", path.display())],
        Origin::Backup { url, bytes, validator, sha256 } => {
            let size = bytes.map(|bytes| format!("{} ({bytes} bytes)", listing::size(bytes)));
            let unknown =
                |value: Option<String>, why: &str| value.unwrap_or_else(|| format!("unknown: {why}"));
            vec![
                format!("backup    {url}"),
                format!("size      {}", unknown(size, "the server did not say")),
                format!("version   {}", unknown(validator.clone(), "the server did not say")),
                format!("sha256    {}", unknown(sha256.clone(), "the server had none to compare with")),
            ]
        }
    }
}

fn to_json(now: &AliasNow) -> Value {
    json!({
        "alias": now.alias,
        "database": now.database,
        "host": now.host,
        "port": now.port.parse::<u16>().ok(),
        "paused": now.paused,
        "disabled": now.disabled,
        "made_by": now.marked.map(|run| run.to_string()),
        "run": now.made_by.as_ref().map(|made| json::run_at_rest(&made.run, made.shown)),
        "backup": now.made_by.as_ref().map(|made| origin_json(&made.origin)),
        "switched": now.switched.as_ref().map(|switched| json!({
            "run": switched.run.to_string(),
            "command": switched.command,
            "arguments": switched.arguments,
            "at": json::time(switched.at),
            "actor": json::actor(&switched.actor),
        })),
        "notes": now.notes,
    })
}

fn origin_json(origin: &Origin) -> Value {
    match origin {
        Origin::Backup { url, bytes, validator, sha256 } => {
            json!({ "url": url, "bytes": bytes, "validator": validator, "sha256": sha256, "file": null })
        }
        Origin::Dump(path) => {
            json!({ "url": null, "bytes": null, "validator": null, "sha256": null, "file": path.display().to_string() })
        }
        Origin::Nothing => Value::Null,
    }
}
