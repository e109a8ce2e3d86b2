//! `audit` tells every fact in the journal, in the order in which they became known, in three formats.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    gate::Gate,
    stage::{Site, SiteOptions, Stage},
    traces::{json as ask, last_run, succeeds},
};

const DAY: &str = "20261121";

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

/// The lines of `audit --format json`.
fn audit(site: &Site<'_>, arguments: &[&str]) -> Vec<Value> {
    let outcome = succeeds(site, &[&["audit", "--format", "json"], arguments].concat());
    assert_eq!(outcome.stderr, "");
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of<'a>(events: &'a [Value], key: &str) -> Vec<&'a Value> {
    events.iter().map(|event| &event[key]).collect()
}

/// The ids of all runs, newest first.
fn ids(site: &Site<'_>) -> Vec<String> {
    let answer = ask(site, &["history", "--all"]);
    answer["runs"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_event_of_every_run_is_told_as_inspect_tells_it_oldest_first() {
    let site = site();
    let section = site.section();
    assert_eq!(audit(&site, &[]), Vec::<Value>::new());
    succeeds(&site, &["createdb", &section, DAY]);
    succeeds(&site, &["switch", &section, DAY]);
    // A reason that no format may take apart.
    assert_eq!(site.run(&["createdb", &section, DAY]).unwrap().code, 1);

    let events = audit(&site, &[]);
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    let runs = ids(&site);
    assert_eq!(runs.len(), 3);
    let mut inspected = Vec::new();
    for run in &runs {
        inspected.extend(ask(&site, &["inspect", run])["events"].as_array().unwrap().clone());
    }
    inspected.sort_by_key(|event| event["seq"].as_u64());
    assert_eq!(events, inspected);
    let outcome = succeeds(&site, &["audit", "--json"]);
    assert_eq!(outcome.stdout, succeeds(&site, &["audit", "--format", "json"]).stdout);

    // CSV says the same: RFC 4180, with a header.
    let text = succeeds(&site, &["audit", "--format", "csv"]).stdout;
    assert_eq!(text.split("\r\n").next().unwrap(), "seq,run,n,at,kind,step,user,host,pid,detail,hash");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let records: Vec<BTreeMap<String, String>> = reader.deserialize().collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), events.len());
    for (record, event) in records.iter().zip(&events) {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for key in ["seq", "run", "n", "at", "kind", "hash"] {
            assert_eq!(record[key], text(&event[key]), "{key} of {event}");
        }
        assert_eq!(record["step"], event["step"].as_str().unwrap_or_default());
        let actor = json!({ "user": record["user"], "host": record["host"], "pid": record["pid"].parse::<u32>().unwrap() });
        assert_eq!(actor, event["actor"]);
        assert_eq!(serde_json::from_str::<Value>(&record["detail"]).unwrap(), event["detail"]);
    }

    // And the table, in a line each.
    let table = succeeds(&site, &["audit"]).stdout;
    assert_eq!(table.lines().count(), events.len() + 1);
    for (line, event) in table.lines().skip(1).zip(&events) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], event["seq"].to_string());
        assert_eq!((words[1], words[4]), (event["at"].as_str().unwrap(), event["kind"].as_str().unwrap()));
    }
    let switched = format!("{}: nothing -> {}", site.dbname(), site.copy(DAY));
    assert!(table.contains(&switched), "{table}");
}

#[test]
fn audit_is_filtered_as_history_is_but_by_the_events_own_time_and_person() {
    let site = site();
    let section = site.section();
    succeeds(&site, &["createdb", &section, DAY]);
    succeeds(&site, &["switch", &section, DAY]);
    assert_eq!(site.run(&["createdb", &section, DAY]).unwrap().code, 1);
    let events = audit(&site, &[]);
    let runs = ids(&site);
    let [failed, switched, created] = [0, 1, 2].map(|at| json!(runs[at]));
    let of_run =
        |run: &Value| events.iter().filter(|event| event["run"] == *run).cloned().collect::<Vec<_>>();
    let none = Vec::<Value>::new();
    assert_eq!(audit(&site, &[&section]), events);
    assert_eq!(audit(&site, &["another.dev"]), none);
    assert_eq!(audit(&site, &["--command", "switch"]), of_run(&switched));
    assert_eq!(audit(&site, &["--status", "failed"]), of_run(&failed));
    assert_eq!(audit(&site, &["--status", "succeeded"]), [of_run(&created), of_run(&switched)].concat());
    // Who switched it?
    assert_eq!(audit(&site, &["--database", site.dbname(), "--command", "switch"]), of_run(&switched));
    assert_eq!(audit(&site, &["--database", &site.copy(DAY)]), events);
    assert_eq!(audit(&site, &["--database", "another"]), none);
    let user = events[0]["actor"]["user"].as_str().unwrap();
    assert_eq!(audit(&site, &["--actor", user]), events);
    assert_eq!(audit(&site, &["--actor", "nobody_known"]), none);
    // From the middle of a run on, and up to there.
    let middle = &of_run(&switched)[2];
    let at = middle["at"].as_str().unwrap();
    let from = events.iter().position(|event| event["at"] == *at).unwrap();
    assert_eq!(audit(&site, &["--since", at]), events[from..]);
    assert_eq!(audit(&site, &["--until", at]), events[..from]);
    assert_eq!(audit(&site, &["--since", "2999-01-01"]), none);
    // The last ones, still oldest first.
    assert_eq!(audit(&site, &["--limit", "3"]), events[events.len() - 3..]);
    assert_eq!(audit(&site, &["--limit", "0"]), none);
    assert_eq!(audit(&site, &["--limit", "10000"]), events);
    assert_eq!(
        audit(&site, &["--limit", "1", "--command", "switch"]),
        of_run(&switched)[of_run(&switched).len() - 1..]
    );
    // What only asks is there on request.
    succeeds(&site, &["inspect", "--live", &section]);
    assert_eq!(audit(&site, &[]), events);
    let asked = &audit(&site, &["--all"])[events.len()..];
    assert_eq!(of(asked, "kind"), ["run_started", "run_succeeded"]);
    let outcome = site.run(&["audit", "--since", "soon"]).unwrap();
    assert_eq!(outcome.code, 2, "{outcome}");
}

#[test]
fn audit_sees_a_run_at_work_and_does_not_hold_it_up() {
    let site = site();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let so_far = audit(&site, &[]);
    let last = so_far.last().unwrap();
    assert_eq!((&last["kind"], &last["step"]), (&json!("child_started"), &json!("post_sql")));
    assert_eq!(last["actor"]["pid"], program.pid());
    drop(waiting);
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    let all = audit(&site, &[]);
    assert_eq!(all[..so_far.len()], so_far);
    assert_eq!(all.last().unwrap()["kind"], "run_succeeded");
    assert_eq!(all.last().unwrap()["run"], last_run(&site)["id"]);
}
