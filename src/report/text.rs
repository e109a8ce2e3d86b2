//! Words for plans, endings and errors.

use std::io::Write as _;

use journal::event::{Detail, Effect, PlannedStep};
use journal::run::{Run, Status, StepStatus};
use serde_json::Value;

use super::listing::size;
use super::{Style, err, out};
use crate::error::Error;
use crate::plan::Plan;
use crate::step::Settings;

/// An error: one line, a cause, and what to type next.
pub fn error(error: &Error, color: bool) {
    block(&error.message, error.cause.as_deref(), error.hint.as_deref(), color);
}

fn block(message: &str, cause: Option<&str>, hint: Option<&str>, color: bool) {
    let head = if color { "\x1b[31merror:\x1b[0m" } else { "error:" };
    err(&format!("{head} {message}"));
    if let Some(cause) = cause {
        err(&framed("cause", cause));
    }
    if let Some(hint) = hint {
        err(&framed("hint", hint));
    }
}

/// What has several lines stands under its label.
fn framed(label: &str, text: &str) -> String {
    let mut lines = text.trim_end().lines();
    let first = format!("  {label}: {}", lines.next().unwrap_or_default());
    lines.fold(first, |all, line| format!("{all}\n  {:width$}  {line}", "", width = label.len()))
}

/// A question, which the answer is typed behind.
pub fn ask(question: &str) {
    // Nobody is left to ask when it cannot be printed; then nothing is answered either.
    let _ = write!(std::io::stderr().lock(), "{question}");
}

/// A plan, one line a step.
pub(super) fn plan(plan: &Plan, command: &str) {
    out(&format!("{command} {} would make these steps on {}:", plan.settings.section, plan.settings.host));
    for (index, step) in plan.steps.iter().enumerate() {
        out(&format!("{:>3}  {:<16} {}", index + 1, step.name, does(step, &plan.settings)));
    }
}

/// What a planned step would do, in words.
pub(super) fn does(step: &PlannedStep, settings: &Settings) -> String {
    let settings = &settings.clone().of_step(&step.parameters);
    let Settings { database, dbname, dbowner, pgbouncer_conf, host, tmpdir, .. } = settings;
    let text = |name: &str| step.parameters.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is = |name: &str| step.parameters.get(name).and_then(Value::as_bool).unwrap_or_default();
    let by_parts = is("by_parts");
    match step.kind.as_str() {
        "preflight" => {
            let parameters = &step.parameters;
            let needs = |name: &str| parameters.get(name).is_some_and(|value| value.as_bool() == Some(true));
            let mut looks = Vec::new();
            if let Some(backup) = parameters.get("backup").and_then(Value::as_str) {
                let room = format!(", room in {}", tmpdir.display());
                looks.push(format!("the backup {backup}{}", if by_parts { "" } else { &room }));
            }
            if let Some(dump) = parameters.get("dump").and_then(Value::as_str) {
                looks.push(format!("the dump {dump}"));
            }
            if parameters.get("database").and_then(Value::as_str) != Some("unused") {
                looks.push(format!("PostgreSQL on {host}"));
            }
            if let Some(globals) = parameters.get("globals").and_then(Value::as_str) {
                looks.push(globals.to_owned());
            }
            if needs("bouncer") {
                looks.push(format!("pgbouncer and {pgbouncer_conf}"));
            }
            if needs("programs") {
                looks.push(settings.pg_restore.display().to_string());
            }
            format!("look at {}", looks.join(", "))
        }
        "create_database" => format!("create database {database}, owned by {dbowner}"),
        "bouncer_add" => format!("add {database} to {pgbouncer_conf} on {host}, and reload pgbouncer"),
        "bouncer_remove" if is("alias") => format!(
            "if {dbname} points at {database}: turn its new clients away, take it out of {pgbouncer_conf}, and reload pgbouncer"
        ),
        "bouncer_remove" => format!(
            "turn new clients of {database} away, take it out of {pgbouncer_conf}, and reload pgbouncer"
        ),
        "switch" if !is("wanted") => "nothing: auto_switch is off".to_owned(),
        "switch" => format!("point {dbname} at {database} in {pgbouncer_conf}, and reload pgbouncer"),
        "contents" if !text("seems").is_empty() => {
            format!("read what the backup holds: {}", seems(&text("seems")))
        }
        "contents" => {
            "read what the backup holds, and see whether its parts can be loaded straight from the server"
                .to_owned()
        }
        "fetch" if is("keep") => format!("fetch the backup into {}, to stay there", tmpdir.display()),
        "fetch" if by_parts => {
            format!(
                "only if its parts cannot be loaded from the server: fetch the backup into {}",
                tmpdir.display()
            )
        }
        "fetch" => format!("fetch the backup into {}", tmpdir.display()),
        "catalog" => {
            "decide which entries of the dump are restored, and by which of the pg_restores here".to_owned()
        }
        "sql" => match step.parameters.get("folder").and_then(Value::as_str) {
            Some(folder) => format!("source {folder}/*.sql in order of their names"),
            None => "nothing: sql_path is not configured".to_owned(),
        },
        "apply_sql" => match step.parameters.get("file").and_then(Value::as_str) {
            Some(file) => format!("source {}/{file} in {database}; this cannot be undone", text("folder")),
            None => format!("nothing: there is no *.sql file in {}", text("folder")),
        },
        "forget_sql" => format!("take the run's note off {database}"),
        "protect" => match step.parameters.get("protection").filter(|found| !found.is_null()) {
            Some(found) => format!("note on {database}: {}", protection(found)),
            None => format!("take what protects {database} off it"),
        },
        "choose" => chosen(&step.parameters, "drop"),
        "globals" => "read the file; it must be one that pg_dumpall -g writes".to_owned(),
        "roles" => format!("make the roles that it has on {host}, and all about them; this cannot be undone"),
        "tablespaces" => "make its tablespaces, and all about them; this cannot be undone".to_owned(),
        "load" | "parts" if text("seems") == "sql" => {
            format!("psql all of the dump's SQL into {database}, in one transaction")
        }
        "load" | "parts" => {
            let jobs = step.parameters.get("jobs").and_then(Value::as_u64).unwrap_or(1);
            // What is loaded file by file has a transaction for each.
            let how = if is("single_transaction") && text("seems").is_empty() {
                "in a single transaction".to_owned()
            } else {
                format!("with {jobs} {}", if jobs == 1 { "job" } else { "jobs" })
            };
            format!("pg_restore those entries into {database} {how}")
        }
        "search_path" | "alter_search_path" => {
            let schemas = step.parameters.get("schemas").and_then(Value::as_array);
            let schemas: Vec<&str> = schemas.into_iter().flatten().filter_map(Value::as_str).collect();
            if schemas.is_empty() {
                "nothing: search_path is not configured".to_owned()
            } else {
                format!("set search_path of {database} to {}", schemas.join(", "))
            }
        }
        "vacuum" if is("wanted") => format!("VACUUM ANALYZE {database}"),
        "vacuum" => "nothing: restore_vacuum is off".to_owned(),
        "check" => {
            let files = |folder| format!(", that *.sql in {folder} find nothing");
            let drop = |most| format!(", that no table lost more than {most}% of its rows");
            let files = step.parameters.get("folder").and_then(Value::as_str).map(files);
            let drop = step.parameters.get("max_row_drop").and_then(Value::as_u64).map(drop);
            format!(
                "check that {database} has every table, valid indexes, validated constraints, sequences that are not behind{}{}",
                files.unwrap_or_default(),
                drop.unwrap_or_default()
            )
        }
        "drop_database" => {
            format!("DROP DATABASE {database}, sessions in it notwithstanding; this cannot be undone")
        }
        "start_service" => format!("start {} on {host}, and wait until it answers", text("service")),
        "stop_service" => format!("stop {} on {host}, and wait until it is silent", text("service")),
        "dump" => format!("pg_dump {database}, to be {}", text("file")),
        "publish" if is("replace") => format!("name the dump {}, in place of an older one", text("file")),
        "publish" => format!("name the dump {}", text("file")),
        "pause" => {
            let limit = step.parameters.get("limit_seconds").and_then(Value::as_u64).unwrap_or_default();
            format!("PAUSE {database} in pgbouncer, and give up when that takes longer than {limit} s")
        }
        "resume" => format!("RESUME {database} in pgbouncer"),
        "cleanup" => "remove the files that were needed on the way".to_owned(),
        other => text(other),
    }
}

/// What a backup seems to be, and by which way it then is loaded.
fn seems(what: &str) -> &str {
    match what {
        "tar" => "it seems to be a tar file, whose files can be loaded straight from the server",
        "packed_tar" => "it seems to be a compressed tar file, which comes through tmpdir",
        "folder" => "it is a folder, whose files can be loaded straight from the server",
        _ => "it seems to be plain SQL, which psql runs while it comes from the server",
    }
}

/// Which copies go, after this word, and which stay, and why.
fn chosen(choice: &Detail, goes: &str) -> String {
    let all = |name: &str| choice.get(name).and_then(Value::as_array).into_iter().flatten();
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let gone: Vec<String> = all("drop").map(|copy| text(copy, "copy")).collect();
    let kept: Vec<String> =
        all("keep").map(|copy| format!("{} ({})", text(copy, "copy"), text(copy, "why"))).collect();
    let later = match choice.get("later").and_then(Value::as_u64) {
        None | Some(0) => String::new(),
        Some(count) => format!(" (and {count} more after these)"),
    };
    let drop = match gone.as_slice() {
        [] => "nothing to drop".to_owned(),
        gone => format!("{goes} {}{later}", gone.join(", ")),
    };
    if kept.is_empty() { drop } else { format!("{drop}; keep {}", kept.join(", ")) }
}

/// How a run ended: its result on standard output, or its error on standard error.
pub(super) fn ended(run: &Run, style: Style) {
    let name = format!("{} {}", run.started.command, run.started.section.as_deref().unwrap_or_default());
    let id = run.id.short();
    let seconds = run.last_at.duration_since(run.started_at).as_secs_f64();
    match run.status {
        Status::Succeeded => {
            if !style.quiet {
                out(&format!("{} (run {id}, {seconds:.1} s)", result(run, &name)));
            }
        }
        Status::RolledBack => undone(run),
        Status::Abandoned => out(&format!("{name}: abandoned (run {id})")),
        Status::Failed => {
            let touched = touched(run);
            let how = if touched {
                "failed, and what it had done is undone"
            } else {
                "failed before it changed anything"
            };
            failure(run, &format!("{name} {how} (run {id})"), None, style);
        }
        Status::Stuck => {
            let next = format!("look at it: pg_staging inspect {id}");
            failure(run, &format!("{name} is stuck (run {id})"), Some(&next), style);
        }
        Status::Stopped | Status::Running | Status::RollingBack => {
            let next = ways_on(run);
            let what = match run.signal {
                Some(_) => format!("{name} stopped on request (run {id})"),
                None => format!("{name} stopped, and what it had done is kept (run {id})"),
            };
            failure(run, &what, Some(&next), style);
        }
    }
}

/// The process that was at work on a run is gone.
pub(super) fn interrupted(run: &Run, style: Style) {
    let section = run.started.section.as_deref().unwrap_or_default();
    let what = format!(
        "{} {section} was interrupted: process {} is gone (run {})",
        run.started.command,
        run.process.pid,
        run.id.short()
    );
    block(&what, None, Some(&ways_on(run)), style.color);
}

/// What to type for an unfinished run.
pub(super) fn ways_on(run: &Run) -> String {
    format!("pg_staging continue {}, or {}", run.id.short(), way_out(run))
}

/// What to type for a run that is not to be continued.
pub(super) fn way_out(run: &Run) -> String {
    let id = run.id.short();
    match run.cannot_be_undone() {
        Some(_) => format!("pg_staging abandon {id} --reason TEXT (what it did cannot be undone)"),
        None => format!("pg_staging rollback {id}"),
    }
}

/// Whether a run got as far as changing something.
pub(super) fn touched(run: &Run) -> bool {
    run.steps.iter().any(|step| step.planned.effect != Effect::None && step.intent.is_some())
}

/// What a run did is undone, as was asked for.
pub(super) fn undone(run: &Run) {
    let section = run.started.section.as_deref().unwrap_or_default();
    out(&format!("{} {section}: undone (run {})", run.started.command, run.id.short()));
}

/// What a finished run made true.
fn result(run: &Run, name: &str) -> String {
    let database = run.started.database.as_deref().unwrap_or_default();
    let did = |step: &str| run.step(step).is_some_and(|(_, step)| step.status == StepStatus::Succeeded);
    let setting = |name: &str| run.started.settings.get(name).and_then(Value::as_str).unwrap_or_default();
    let dbname = setting("dbname");
    let fetched = run
        .step("fetch")
        .and_then(|(_, step)| step.outcome.as_ref()?.get("file")?.as_str().map(str::to_owned));
    match run.started.command.as_str() {
        "fetch" => match (fetched, run.step("fetch").and_then(|(_, step)| step.skipped.clone())) {
            (Some(file), _) => format!("{name}: {file}"),
            (None, Some(reason)) => format!("{name}: {reason}"),
            _ => name.to_owned(),
        },
        "drop" => format!("{name}: {}", dropped(run, database, dbname)),
        "purge" => {
            let choice = run.step("choose").map(|(_, step)| &step.planned.parameters);
            format!("{name}: {}", choice.map(|choice| chosen(choice, "dropped")).unwrap_or_default())
        }
        "presql" | "postsql" => format!("{name}: {}", sourced(run, database)),
        "vacuumdb" => format!("{name}: {database} is vacuumed and analyzed{}", not_analyzed(run)),
        "protect" | "unprotect" => match run.step("protect").map(|(_, step)| step) {
            Some(step) => match (&step.skipped, step.planned.parameters.get("protection")) {
                (Some(reason), _) => format!("{name}: {reason}"),
                (None, Some(found)) if !found.is_null() => {
                    format!("{name}: {database} is {}", protection(found))
                }
                _ => format!("{name}: {database} is not protected any more"),
            },
            None => name.to_owned(),
        },
        "search_path" => match run.step("search_path").and_then(|(_, step)| step.skipped.clone()) {
            Some(reason) => format!("{name}: {reason}"),
            None => format!("{name}: search_path of {database} is {}", told(run, "search_path", "after")),
        },
        "init" => initialized(run, name),
        "start" | "restart" => format!("{name}: {} runs on {}", service(run), setting("host")),
        "stop" => format!("{name}: {} on {} is stopped", service(run), setting("host")),
        "dump" | "redump" => format!("{name}: {}", dumped(run)),
        "pause" => format!("{name}: {database} is paused"),
        "resume" => format!("{name}: {database} is not paused"),
        _ if did("switch") => format!("{name}: {dbname} points at {database}{}", not_analyzed(run)),
        _ => format!("{name}: {database}{}", not_analyzed(run)),
    }
}

/// What protects a copy, and until when.
fn protection(found: &Value) -> String {
    let text = |name: &str| found.get(name).and_then(Value::as_str);
    let until = text("until").map(|until| format!(" until {until}")).unwrap_or_default();
    format!("protected{until}: {}", text("reason").unwrap_or_default())
}

/// What a step's outcome says under a name.
fn told(run: &Run, step: &str, name: &str) -> String {
    let outcome = run.step(step).and_then(|(_, step)| step.outcome.as_ref());
    outcome.and_then(|outcome| outcome.get(name)?.as_str()).unwrap_or_default().to_owned()
}

/// The tables that VACUUM ANALYZE had to leave without statistics.
fn not_analyzed(run: &Run) -> String {
    let outcome = run.step("vacuum").and_then(|(_, step)| step.outcome.as_ref());
    let tables = outcome.and_then(|outcome| outcome.get("not_analyzed")?.as_array());
    let tables: Vec<&str> = tables.into_iter().flatten().filter_map(Value::as_str).collect();
    if tables.is_empty() { String::new() } else { format!("; not analyzed: {}", tables.join(", ")) }
}

fn dropped(run: &Run, database: &str, dbname: &str) -> String {
    let step = |name: &str| run.step(name).map(|(_, step)| step);
    let did = |name: &str| step(name).is_some_and(|step| step.status == StepStatus::Succeeded);
    let gone = if did("drop_database") {
        format!("{database} is gone")
    } else {
        format!("there was no database {database}, and its entry is gone")
    };
    let alias = if did("alias_remove") {
        format!(", and so is the entry {dbname}, which pointed at it")
    } else {
        String::new()
    };
    let left =
        step("drop_database").and_then(|step| step.outcome.as_ref()?.get("still_points_there")?.as_array());
    let left: Vec<&str> = left.into_iter().flatten().filter_map(Value::as_str).collect();
    match left.as_slice() {
        [] => format!("{gone}{alias}"),
        left => format!("{gone}{alias}; still pointing at it: {}", left.join(", ")),
    }
}

fn sourced(run: &Run, database: &str) -> String {
    let files = run.steps.iter().filter(|step| step.planned.kind == "apply_sql");
    if let Some(reason) = files.clone().find_map(|step| step.skipped.clone()) {
        return reason;
    }
    match files.count() {
        1 => format!("1 file sourced in {database}"),
        count => format!("{count} files sourced in {database}"),
    }
}

/// What there was already, a line each, and what was made.
fn initialized(run: &Run, name: &str) -> String {
    let outcome = |step: &str| run.step(step).and_then(|(_, step)| step.outcome.as_ref());
    let made =
        |step: &str| outcome(step).and_then(|outcome| outcome.get("made")?.as_u64()).unwrap_or_default();
    let existing = [("roles", "role"), ("tablespaces", "tablespace")].into_iter().flat_map(|(step, kind)| {
        let names = outcome(step).and_then(|outcome| outcome.get("exist_already")?.as_array());
        let names = names.into_iter().flatten().filter_map(Value::as_str);
        names.map(move |name| format!("{kind} {name} exists already\n"))
    });
    let existing: String = existing.collect();
    format!("{existing}{name}: roles made: {}, tablespaces made: {}", made("roles"), made("tablespaces"))
}

/// The service that a run started or stopped.
fn service(run: &Run) -> &str {
    let named = run.started.plan.iter().find_map(|step| step.parameters.get("service"));
    named.and_then(Value::as_str).unwrap_or_default()
}

/// The file that a dump went to, and how large it is.
fn dumped(run: &Run) -> String {
    let outcome = run.step("publish").and_then(|(_, step)| step.outcome.as_ref());
    let file = outcome.and_then(|outcome| outcome.get("file")?.as_str()).unwrap_or_default();
    let bytes = outcome.and_then(|outcome| outcome.get("dumped")?.get("bytes")?.as_u64()).unwrap_or_default();
    format!("{file}, {}", size(bytes))
}

fn failure(run: &Run, what: &str, next: Option<&str>, style: Style) {
    let error = run.error.as_ref().filter(|_| run.signal.is_none());
    let message = error.map_or_else(|| what.to_owned(), |error| format!("{what}: {}", error.message));
    let hint = match (error.and_then(|error| error.hint.clone()), next) {
        (Some(hint), Some(next)) => Some(format!("{hint}\nthen: {next}")),
        (hint, next) => hint.or_else(|| next.map(str::to_owned)),
    };
    block(&message, error.and_then(|error| error.cause.as_deref()), hint.as_deref(), style.color);
    if style.debug {
        for step in run.steps.iter().filter(|step| step.error.is_some()) {
            if let Some(error) = &step.error {
                err(&framed(&step.planned.name, &error.to_string()));
            }
            for child in &step.children {
                let ending = child.ending.as_deref().unwrap_or("no end was seen");
                err(&format!(
                    "  {}: {} (process {}): {ending}",
                    step.planned.name, child.program, child.process.pid
                ));
            }
        }
    }
}
