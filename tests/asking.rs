//! `history` and `inspect` tell the truth at any time, in a shape that scripts can rely on.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::{Value, json};

use crate::{
    gate::Gate,
    stage::{Outcome, Site, SiteOptions, Stage},
    traces::{Traces, inspected, is_refused, json as ask, last_run, names_in, plain, says, step, succeeds},
};

const DAY: &str = "20261121";

const RUN: [&str; 16] = [
    "id",
    "command",
    "arguments",
    "section",
    "database",
    "status",
    "actor",
    "version",
    "started_at",
    "finished_at",
    "duration_ms",
    "steps_done",
    "steps_total",
    "step",
    "progress",
    "error",
];
const STEP: [&str; 8] =
    ["name", "status", "attempts", "started_at", "finished_at", "duration_ms", "detail", "error"];
const EVENT: [&str; 9] = ["seq", "run", "n", "at", "kind", "step", "actor", "detail", "hash"];

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

#[track_caller]
fn has_keys(value: &Value, keys: &[&str]) {
    let found: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, keys.iter().copied().collect(), "{value}");
}

#[track_caller]
fn is_run(run: &Value) {
    has_keys(run, &RUN);
    has_keys(&run["actor"], &["user", "host", "pid"]);
    is_time(&run["started_at"]);
    if !run["error"].is_null() {
        has_keys(&run["error"], &["code", "message", "cause", "hint"]);
    }
}

#[track_caller]
fn is_step(step: &Value) {
    has_keys(step, &STEP);
    assert!(step["detail"].is_object(), "{step}");
    if !step["error"].is_null() {
        has_keys(&step["error"], &["code", "message", "cause", "hint"]);
    }
}

#[track_caller]
fn is_event(event: &Value) {
    has_keys(event, &EVENT);
    is_time(&event["at"]);
    assert_eq!(event["hash"].as_str().unwrap().len(), 64, "{event}");
    assert!(event["detail"].is_object(), "{event}");
}

/// RFC 3339, in UTC, with milliseconds.
#[track_caller]
fn is_time(value: &Value) {
    let shape = regex::Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$").unwrap();
    assert!(shape.is_match(value.as_str().unwrap()), "{value}");
}

fn ids(answer: &Value) -> Vec<String> {
    answer["runs"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_run_at_work_is_shown_as_running_with_its_step_and_after_a_kill_as_interrupted() {
    let site = site();
    let section = site.section();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut program = site.spawn(&["restore", &section, DAY]).unwrap();
    let waiting = gate.wait(&mut program);

    let run = last_run(&site);
    assert_eq!(
        (&run["status"], &run["finished_at"], &run["error"]),
        (&json!("running"), &Value::Null, &Value::Null)
    );
    assert_eq!((&run["steps_done"], &run["steps_total"]), (&json!(10), &json!(14)));
    assert_eq!(run["actor"]["pid"], program.pid());
    let told = inspected(&site);
    assert_eq!(told["run"]["status"], "running");
    let statuses = |told: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        told["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| (text(&step["name"]), text(&step["status"])))
            .collect()
    };
    let expected: Vec<(String, String)> = [
        ("preflight", "succeeded"),
        ("create_database", "succeeded"),
        ("bouncer_add", "succeeded"),
        ("contents", "succeeded"),
        ("fetch", "skipped"),
        ("catalog", "succeeded"),
        ("pre_sql", "skipped"),
        ("restore", "succeeded"),
        ("search_path", "skipped"),
        ("vacuum", "succeeded"),
        ("post_sql", "running"),
        ("check", "pending"),
        ("switch", "pending"),
        ("cleanup", "pending"),
    ]
    .map(|(name, status)| (name.to_owned(), status.to_owned()))
    .into();
    assert_eq!(statuses(&told), expected);
    assert_eq!(step(&told, "post_sql")["finished_at"], Value::Null);
    let events = told["events"].as_array().unwrap();
    let last = events.last().unwrap();
    assert_eq!((&last["kind"], &last["step"]), (&json!("child_started"), &json!("post_sql")));
    let text = succeeds(&site, &["history", &section]).stdout;
    assert!(text.contains("running") && text.contains("post_sql (10/14)"), "{text}");
    let text = succeeds(&site, &["inspect", run["id"].as_str().unwrap()]).stdout;
    assert!(text.contains("status    running"), "{text}");
    assert!(!text.contains("next:"), "{text}");
    assert_eq!(ids(&ask(&site, &["history", "--status", "running"])), [run["id"].as_str().unwrap()]);
    assert_eq!(ids(&ask(&site, &["history", "--status", "interrupted"])), Vec::<String>::new());

    let killed = program.kill().unwrap();
    assert_eq!(killed.code, 137);
    let interrupted = last_run(&site);
    assert_eq!(interrupted["status"], "interrupted");
    assert_eq!(interrupted["finished_at"], Value::Null);
    assert_eq!(ids(&ask(&site, &["history", "--status", "running"])), Vec::<String>::new());
    assert_eq!(ids(&ask(&site, &["history", "--status", "interrupted"])), ids(&ask(&site, &["history"])));
    assert_eq!(statuses(&inspected(&site)), expected);
    let text = succeeds(&site, &["inspect", run["id"].as_str().unwrap()]).stdout;
    let next = text.lines().last().unwrap();
    says(&plain(&site, next), "next: pg_staging continue <run>, or pg_staging rollback <run>");
    drop(waiting);
    succeeds(&site, &["rollback", run["id"].as_str().unwrap()]);
    assert_eq!(last_run(&site)["status"], "rolled_back");
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
}

#[test]
fn json_has_the_keys_that_are_promised_and_no_other() {
    let site = site();
    let section = site.section();
    let answer = ask(&site, &["history"]);
    assert_eq!(answer, json!({ "schema": 1, "runs": [] }));
    succeeds(&site, &["createdb", &section, DAY]);
    site.run(&["restore", &section, DAY]).unwrap();

    let answer = ask(&site, &["history"]);
    has_keys(&answer, &["schema", "runs"]);
    let runs = answer["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    runs.iter().for_each(is_run);
    assert_eq!((&runs[0]["command"], &runs[0]["arguments"]), (&json!("restore"), &json!([section, DAY])));
    assert_eq!((&runs[0]["section"], &runs[0]["database"]), (&json!(section), &json!(site.copy(DAY))));
    assert_eq!((&runs[0]["status"], &runs[0]["error"]["code"]), (&json!("failed"), &json!(1)));
    assert_eq!((&runs[1]["status"], &runs[1]["error"]), (&json!("succeeded"), &Value::Null));
    is_time(&runs[1]["finished_at"]);
    assert_eq!((&runs[1]["steps_done"], &runs[1]["steps_total"]), (&json!(4), &json!(4)));

    for run in runs {
        let answer = ask(&site, &["inspect", run["id"].as_str().unwrap()]);
        has_keys(&answer, &["schema", "run", "steps", "events"]);
        assert_eq!((&answer["schema"], &answer["run"]), (&json!(1), run));
        answer["steps"].as_array().unwrap().iter().for_each(is_step);
        let events = answer["events"].as_array().unwrap();
        for (n, event) in events.iter().enumerate() {
            is_event(event);
            assert_eq!((&event["n"], &event["run"]), (&json!(n), &run["id"]));
            assert!(event["seq"].is_u64(), "{event}");
        }
        assert_eq!(events[0]["kind"], "run_started");
    }
}

#[test]
fn restore_as_json_prints_each_event_and_ends_with_the_run() {
    let site = site();
    let before = Traces::of(&site);
    let outcome = succeeds(&site, &["--json", "restore", &site.section(), DAY]);
    assert_eq!(outcome.stderr, "");
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, events) = lines.split_last().unwrap();
    has_keys(last, &["schema", "run", "steps"]);
    is_run(&last["run"]);
    assert_eq!((&last["schema"], &last["run"]["status"]), (&json!(1), &json!("succeeded")));
    assert_eq!(last["steps"].as_array().unwrap().len(), 14);
    last["steps"].as_array().unwrap().iter().for_each(is_step);
    events.iter().for_each(is_event);
    let kinds: Vec<&Value> =
        [events.first(), events.last()].into_iter().flatten().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["run_started", "run_succeeded"]);
    // The very events that the journal has.
    let told = inspected(&site);
    assert_eq!(last["run"], told["run"]);
    assert_eq!(last["steps"], told["steps"]);
    let hashes = |events: &[Value]| events.iter().map(|event| event["hash"].clone()).collect::<Vec<_>>();
    assert_eq!(hashes(events), hashes(told["events"].as_array().unwrap()));

    // One that fails says so in the same way, and by its exit code.
    let outcome = site.run(&["--json", "restore", &site.section(), "20261122"]).unwrap();
    assert_eq!(outcome.code, 6);
    let last: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["run"]["status"], &last["run"]["error"]["code"]), (&json!("failed"), &json!(6)));

    // And so does one that never began.
    let outcome = site.run(&["--json", "restore", "shoop.dev", DAY]).unwrap();
    assert_eq!(outcome.code, 6);
    let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
    has_keys(&answer, &["schema", "error"]);
    has_keys(&answer["error"], &["code", "message", "cause", "hint"]);
    assert_eq!(Traces::of(&site).databases.len(), before.databases.len() + 1);
}

#[test]
fn history_is_filtered_by_section_status_command_time_person_and_number() {
    let site = site();
    let section = site.section();
    succeeds(&site, &["createdb", &section, DAY]);
    succeeds(&site, &["switch", &section, DAY]);
    assert_eq!(site.run(&["createdb", &section, DAY]).unwrap().code, 1);
    let all = ids(&ask(&site, &["history"]));
    let [failed, switched, created] = all.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        panic!("{all:?}")
    };
    let of = |arguments: &[&str]| ids(&ask(&site, &[&["history"], arguments].concat()));
    let none: [&str; 0] = [];
    assert_eq!(of(&[&section]), all);
    assert_eq!(of(&["another.dev"]), none);
    assert_eq!(of(&["--status", "failed"]), [failed]);
    assert_eq!(of(&["--status", "succeeded"]), [switched, created]);
    assert_eq!(of(&["--command", "createdb"]), [failed, created]);
    assert_eq!(of(&["--command", "createdb", "--status", "succeeded", &section]), [created]);
    assert_eq!(of(&["--limit", "2"]), [failed, switched]);
    assert_eq!(of(&["--limit", "0"]), none);
    let actor = last_run(&site)["actor"]["user"].as_str().unwrap().to_owned();
    assert_eq!(of(&["--actor", &actor]), all);
    assert_eq!(of(&["--actor", "nobody_known"]), none);
    assert_eq!(of(&["--since", "-1h"]), all);
    assert_eq!(of(&["--since", "2999-01-01"]), none);
    assert_eq!(of(&["--until", "-1h"]), none);
    let moment = ask(&site, &["inspect", switched])["run"]["started_at"].as_str().unwrap().to_owned();
    assert_eq!(of(&["--until", &moment]), [created]);
    assert_eq!(of(&["--since", &moment]), [failed, switched]);
    assert_eq!(of(&["--all"]), all);
    // As a table: newest first, one line each.
    let table = succeeds(&site, &["history"]).stdout;
    let commands: Vec<&str> =
        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(4)).collect();
    assert_eq!(commands, ["createdb", "switch", "createdb"], "{table}");
}

#[test]
fn a_run_is_named_by_any_part_of_its_id_that_no_other_has() {
    let site = site();
    succeeds(&site, &["createdb", &site.section(), DAY]);
    succeeds(&site, &["drop", &site.section(), DAY]);
    let id = last_run(&site)["id"].as_str().unwrap().to_owned();
    let simple = id.replace('-', "");
    for part in [id.as_str(), &simple, &simple[20..], &simple.to_uppercase()] {
        assert_eq!(ask(&site, &["inspect", part])["run"]["id"], id.as_str(), "{part}");
    }
    let shown = succeeds(&site, &["history"]).stdout;
    let short = shown.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    assert_eq!(short.len(), 8);
    assert_eq!(ask(&site, &["inspect", short])["run"]["id"], id.as_str());

    // All ids of the same minutes begin alike.
    let outcome = site.run(&["inspect", &simple[..4]]).unwrap();
    assert_eq!(outcome.code, 2, "{outcome}");
    let said = plain(&site, &outcome.stderr).replace(&simple[..4], "<part>");
    says(&said, "error: '<part>' is a part of 2 ids\n  cause: <run>, <run>\n  hint: type more of it\n");
    is_refused(
        &site,
        &["inspect", "no such run"],
        6,
        "there is no run 'no such run'\n\
         hint: history lists the runs there are",
    );
}

#[test]
fn a_journal_that_the_configuration_names_badly_is_not_passed_over_for_another_place() {
    let site = site();
    let ini = fs::read_to_string(site.ini_path()).unwrap();
    let journal = site.journal().display().to_string();
    fs::write(site.ini_path(), ini.replace(&journal, "/srv/journal-%Y")).unwrap();
    for arguments in
        [vec!["history"], vec!["history", &site.section()], vec!["createdb", &site.section(), DAY]]
    {
        let outcome = site.run(&arguments).unwrap();
        assert_eq!(outcome.code, 2, "{outcome}");
        assert!(outcome.stderr.contains("option journal ([DEFAULT], line 2): `%Y`"), "{outcome}");
    }
    assert_eq!(names_in(&site.folder().join("home")), Vec::<String>::new());
}

#[test]
fn whoever_reads_while_the_writer_is_killed_sees_a_beginning_of_what_it_wrote() {
    let site = site();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let id = last_run(&site)["id"].as_str().unwrap().to_owned();
    let killed = AtomicBool::new(false);
    let read = |arguments: &[&str]| -> Vec<Outcome> {
        let mut seen = Vec::new();
        loop {
            let last = killed.load(Ordering::SeqCst);
            seen.push(succeeds(&site, arguments));
            if last {
                return seen;
            }
        }
    };
    let (audited, inspected, listed) = thread::scope(|scope| {
        let audit = scope.spawn(|| read(&["audit", "--format", "json"]));
        let inspect = scope.spawn(|| read(&["inspect", &id, "--json"]));
        let history = scope.spawn(|| read(&["history", "--json"]));
        // Each reads while it lives, and after.
        for word in ["switch", "audit"] {
            succeeds(&site, &["history", "--command", word]);
        }
        assert_eq!(program.kill().unwrap().code, 137);
        killed.store(true, Ordering::SeqCst);
        (audit.join().unwrap(), inspect.join().unwrap(), history.join().unwrap())
    });
    let all = &ask(&site, &["inspect", &id])["events"];
    let all = all.as_array().unwrap();
    for outcome in audited {
        let events: Vec<Value> =
            outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(all.starts_with(&events), "{outcome}");
    }
    let mut words = Vec::new();
    for outcome in inspected {
        let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert!(all.starts_with(answer["events"].as_array().unwrap()), "{outcome}");
        words.push(answer["run"]["status"].clone());
    }
    let first_dead = words.iter().position(|word| word == "interrupted").unwrap();
    assert!(words[..first_dead].iter().all(|word| word == "running"), "{words:?}");
    assert!(words[first_dead..].iter().all(|word| word == "interrupted"), "{words:?}");
    for outcome in listed {
        let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let status = &answer["runs"][0]["status"];
        assert!(status == "running" || status == "interrupted", "{outcome}");
    }
    drop(waiting);
}
