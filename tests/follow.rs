//! `follow` shows a run of another process as it shows itself, and ends as it does.

use std::{fs, time::Duration};

use regex::Regex;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    gate::Gate,
    stage::{Conduct, Serving, Site, SiteOptions, Stage},
    traces::{error, is_refused, json as ask, last_run, plain, says, succeeds},
};

const DAY: &str = "20261121";

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

/// What was said, but for progress, which is told at a human pace.
fn told(text: &str) -> String {
    let progress = Regex::new(r"(?m)^ +\w+: .* of .*\n").unwrap();
    progress.replace_all(text, "").into_owned()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_is_shown_from_its_first_event_on_and_its_exit_code_is_returned() {
    let site = site();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut run);
    let mut follow = site.spawn(&["follow"]).unwrap();
    let mut as_json = site.spawn(&["follow", "--json", last_run(&site)["id"].as_str().unwrap()]).unwrap();
    follow.wait_until_it_says("vacuum").unwrap();
    as_json.wait_until_it_says("child_started").unwrap();
    assert!(follow.is_running().unwrap() && as_json.is_running().unwrap());
    drop(waiting);
    let (run, follow, as_json) = (run.wait().unwrap(), follow.wait().unwrap(), as_json.wait().unwrap());
    assert_eq!(run.code, 0, "{run}");
    assert_eq!((follow.code, &follow.stdout), (0, &run.stdout), "{follow}");
    assert_eq!(told(&follow.stderr), told(&run.stderr));
    // As JSON: the run's events, then the run.
    let told = lines(&as_json.stdout);
    let (last, events) = told.split_last().unwrap();
    let journal = ask(&site, &["inspect", last_run(&site)["id"].as_str().unwrap()]);
    let hashes = |events: &[Value]| events.iter().map(|event| event["hash"].clone()).collect::<Vec<_>>();
    assert_eq!(hashes(events), hashes(journal["events"].as_array().unwrap()));
    assert_eq!((&last["run"], &last["steps"]), (&journal["run"], &journal["steps"]));
    assert_eq!(as_json.code, 0);
}

#[test]
fn whoever_follows_a_run_that_is_killed_hears_that_it_was_interrupted() {
    let site = site();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut run);
    let mut follow = site.spawn(&["follow"]).unwrap();
    let mut as_json = site.spawn(&["follow", "--json"]).unwrap();
    follow.wait_until_it_says("vacuum").unwrap();
    as_json.wait_until_it_says("child_started").unwrap();
    assert_eq!(run.kill().unwrap().code, 137);
    let outcome = follow.wait().unwrap();
    assert_eq!(outcome.code, 3, "{outcome}");
    says(
        &error(&site, &outcome),
        "restore shop.dev was interrupted: process <pid> is gone (run <run>)\n\
         hint: pg_staging continue <run>, or pg_staging rollback <run>",
    );
    let outcome = as_json.wait().unwrap();
    assert_eq!(outcome.code, 3, "{outcome}");
    assert_eq!(lines(&outcome.stdout).last().unwrap()["run"]["status"], "interrupted");
    // The same later, when there is nothing to wait for.
    let id = last_run(&site)["id"].as_str().unwrap().to_owned();
    assert_eq!(site.run(&["follow", &id]).unwrap().code, 3);
    drop(waiting);
    let mut rollback = site.spawn(&["rollback", &id]).unwrap();
    let followed = site.run(&["follow", &id]).unwrap();
    // Its owner may not have come yet.
    assert!([0, 3].contains(&followed.code), "{followed}");
    assert!(rollback.is_running().is_ok());
    assert_eq!(rollback.wait().unwrap().code, 0);
    let followed = succeeds(&site, &["follow", &id]);
    assert!(followed.stderr.contains("rolling back"), "{followed}");
}

#[test]
fn an_interrupt_ends_the_following_and_not_the_run() {
    let site = site();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut run);
    let mut follow = site.spawn(&["follow"]).unwrap();
    follow.wait_until_it_says("vacuum").unwrap();
    follow.signal(Signal::INT).unwrap();
    let outcome = follow.wait().unwrap();
    assert_eq!(outcome.code, 130, "{outcome}");
    says(&error(&site, &outcome), "run <run> is not followed any more; it goes on");
    assert!(run.is_running().unwrap());
    drop(waiting);
    assert_eq!(run.wait().unwrap().code, 0);
}

#[test]
fn a_run_that_has_ended_is_shown_and_its_code_returned_and_without_one_at_work_there_is_nothing() {
    let site = site();
    is_refused(&site, &["follow"], 6, "no run is at work\nhint: history lists the runs there are");
    is_refused(
        &site,
        &["follow", "beef"],
        6,
        "there is no run 'beef'\nhint: history lists the runs there are",
    );
    let run = site.run(&["restore", &site.section(), "20261122"]).unwrap();
    assert_eq!(run.code, 6, "{run}");
    let follow = site.run(&["follow", last_run(&site)["id"].as_str().unwrap()]).unwrap();
    assert_eq!(follow, run);
    succeeds(&site, &["createdb", &site.section(), DAY]);
    is_refused(&site, &["follow"], 6, "no run is at work\nhint: history lists the runs there are");
}

#[test]
fn history_and_inspect_show_how_far_the_step_of_another_process_is_until_that_is_gone() {
    let options = SiteOptions { serving: Serving::Rude, ..SiteOptions::default() };
    let site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    let (rude, dump) =
        (site.rude().unwrap(), format!("/{}/{}", site.dbname(), site.backup_name("2026-11-21")));
    let size = fs::metadata(site.dump()).unwrap().len();
    rude.plan(&dump, Conduct::StallAt(size / 2));
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    rude.wait_until_stalled(&dump, Duration::from_secs(60)).unwrap();
    program.wait_until_it_says("catalog").unwrap();
    let shown = crate::stage::wait_until("progress to be shown", Duration::from_secs(60), || {
        last_run(&site)["progress"]["done"].as_u64().is_some_and(|done| done > 0)
    });
    shown.unwrap();

    let run = last_run(&site);
    assert_eq!((&run["status"], &run["step"]), (&json!("running"), &json!("restore")));
    let progress = &run["progress"];
    assert_eq!(progress["unit"], "bytes");
    assert!((1..size).contains(&progress["total"].as_u64().unwrap()), "{progress}");
    let done = progress["done"].as_u64().unwrap();
    assert!((1..=size / 2).contains(&done), "{progress}");
    let text = plain(&site, &succeeds(&site, &["history"]).stdout);
    assert!(Regex::new(r"restore \(7/14\), [\d.]+ \w+ of [\d.]+ KiB").unwrap().is_match(&text), "{text}");
    let id = run["id"].as_str().unwrap();
    let text = succeeds(&site, &["inspect", id]).stdout;
    assert!(text.contains("\nprogress  restore: "), "{text}");
    // What a killed process leaves is not believed, and goes with the next owner.
    let file = site.journal().join("runs").join(format!("{id}.progress"));
    program.kill().unwrap();
    let run = last_run(&site);
    assert_eq!((&run["status"], &run["progress"]), (&json!("interrupted"), &Value::Null));
    assert!(file.exists());
    rude.behave(&dump);
    succeeds(&site, &["continue", id]);
    assert!(!file.exists());
    let run = last_run(&site);
    assert_eq!((&run["step"], &run["progress"]), (&Value::Null, &Value::Null));
}
