//! Who looks on from another machine sees what the owner does: `history`, `inspect`, `audit` and `follow`.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use super::{
    Database,
    controllers::{command_elsewhere, elsewhere, site, site_of},
};
use crate::{
    gate::Gate,
    stage::{Conduct, Outcome, Program, Serving, Site, SiteOptions, wait_until},
    traces::{last_run, succeeds},
};

const DAY: &str = "20261121";

fn begins_elsewhere(site: &Site<'_>, arguments: &[&str]) -> Program {
    site.spawn_command(&mut command_elsewhere(site, arguments)).unwrap()
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn asks(site: &Site<'_>, arguments: &[&str]) -> Value {
    let outcome = elsewhere(site, &[arguments, &["--json"]].concat());
    assert_eq!(outcome.code, 0, "{outcome}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn follows_from_elsewhere(database: &Database<'_>) {
    let site = site(database, "60s");
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut run);
    let at_work = &asks(&site, &["history"])["runs"][0];
    assert_eq!((&at_work["status"], &at_work["actor"]["pid"]), (&json!("running"), &json!(run.pid())));
    assert_eq!(at_work["step"], "post_sql");
    let id = at_work["id"].as_str().unwrap();
    let mut follow = begins_elsewhere(&site, &["follow"]);
    let mut as_json = begins_elsewhere(&site, &["follow", id, "--json"]);
    follow.wait_until_it_says("vacuum").unwrap();
    as_json.wait_until_it_says("child_started").unwrap();
    assert!(follow.is_running().unwrap() && as_json.is_running().unwrap());
    drop(waiting);
    let (run, follow, as_json) = (run.wait().unwrap(), follow.wait().unwrap(), as_json.wait().unwrap());
    assert_eq!((run.code, follow.code, as_json.code), (0, 0, 0), "{run}{follow}{as_json}");
    assert_eq!(follow.stdout, run.stdout);
    let told = lines(&as_json);
    let (last, events) = told.split_last().unwrap();
    let journal = asks(&site, &["inspect", id]);
    let hashes = |events: &[Value]| events.iter().map(|event| event["hash"].clone()).collect::<Vec<_>>();
    assert_eq!(hashes(events), hashes(journal["events"].as_array().unwrap()));
    assert_eq!(last["run"], journal["run"]);
}

#[test]
fn a_run_is_followed_from_another_machine_and_its_exit_code_returned() {
    follows_from_elsewhere(&Database::new());
}

#[test]
fn a_run_is_followed_through_a_pgbouncer_that_pools_transactions() {
    follows_from_elsewhere(&Database::through_pgbouncer());
}

#[test]
fn what_holds_a_restore_up_is_named_on_another_machine() {
    let options = SiteOptions { serving: Serving::Rude, ..SiteOptions::default() };
    let database = Database::new();
    let mut site = site_of(&database, "60s", &options);
    site.set("stall_after", "1s").unwrap();
    let (rude, dump) =
        (site.rude().unwrap(), format!("/{}/{}", site.dbname(), site.backup_name("2026-11-21")));
    rude.plan(&dump, Conduct::StallAt(fs::metadata(site.dump()).unwrap().len() / 2));
    let run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    rude.wait_until_stalled(&dump, Duration::from_secs(60)).unwrap();
    let mut follow = begins_elsewhere(&site, &["follow"]);
    follow.wait_until_it_says(": no byte for ").unwrap();
    wait_until("the stall to be told", Duration::from_secs(60), || {
        asks(&site, &["history"])["runs"][0]["progress"]["stalls"][0]["reason"] == "silence"
    })
    .unwrap();
    rude.behave(&dump);
    let (run, follow) = (run.wait().unwrap(), follow.wait().unwrap());
    assert_eq!((run.code, follow.code), (0, 0), "{run}{follow}");
}

#[test]
fn whoever_follows_a_controller_that_dies_hears_of_it_when_its_lease_has_ended() {
    let database = Database::new();
    let site = site(&database, "4s");
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut run);
    let mut follow = begins_elsewhere(&site, &["follow", "--json"]);
    follow.wait_until_it_says("child_started").unwrap();
    run.kill().unwrap();
    let outcome = follow.wait().unwrap();
    assert_eq!(outcome.code, 3, "{outcome}");
    assert_eq!(lines(&outcome).last().unwrap()["run"]["status"], "interrupted");
    drop(waiting);
}

#[test]
fn what_happened_on_one_machine_is_told_in_full_on_another() {
    let database = Database::through_pgbouncer();
    let site = site(&database, "60s");
    let section = site.section();
    // More than the events of one page.
    for _ in 0..4 {
        succeeds(&site, &["restore", &section, DAY]);
        succeeds(&site, &["drop", &section, DAY, "--force"]);
    }
    succeeds(&site, &["restore", &section, DAY]);
    let told = lines(&elsewhere(&site, &["audit", "--format", "json"]));
    assert!(told.len() > 128, "{}", told.len());
    assert!(told.is_sorted_by(|a, b| a["seq"].as_u64() < b["seq"].as_u64()));
    let runs = asks(&site, &["history"])["runs"].as_array().unwrap().clone();
    assert_eq!(runs.len(), 9);
    let mut inspected = Vec::new();
    for run in &runs {
        let run = asks(&site, &["inspect", run["id"].as_str().unwrap()]);
        inspected.extend(run["events"].as_array().unwrap().clone());
    }
    inspected.sort_by_key(|event| event["seq"].as_u64());
    assert_eq!(told, inspected);
    let last = lines(&elsewhere(&site, &["audit", "--format", "json", "--limit", "5"]));
    assert_eq!(last, told[told.len() - 5..]);
    let drops = lines(&elsewhere(&site, &["audit", &section, "--command", "drop", "--format", "json"]));
    let ids = |command: &str| {
        let of = runs.iter().filter(|run| run["command"] == command);
        of.map(|run| run["id"].clone()).collect::<Vec<_>>()
    };
    assert!(!drops.is_empty() && drops.iter().all(|event| ids("drop").contains(&event["run"])));
    assert_eq!(
        asks(&site, &["history", "--command", "drop", "--limit", "2"])["runs"].as_array().unwrap().len(),
        2
    );
    let live = elsewhere(&site, &["inspect", "--live", &section]);
    assert_eq!(live.code, 0, "{live}");
    let newest = last_run(&site)["id"].as_str().unwrap().to_owned();
    assert!(
        live.stdout.contains(&site.copy(DAY)) && live.stdout.contains(&newest[newest.len() - 8..]),
        "{live}"
    );
}

/// What is too large for an event is shared as well: the list of what a dump holds and of what is kept of it.
#[test]
fn attachments_are_read_on_another_machine() {
    let database = Database::new();
    let site = site(&database, "4s");
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut run);
    run.kill().unwrap();
    let id = last_run(&site)["id"].as_str().unwrap().to_owned();
    assert_ne!(database.psql("SELECT count(*) FROM staging_journal.attachment"), "0\n");
    drop(waiting);
    gate.remove(&site, "pre", "wait.sql");
    // Nothing of the first machine's files is left.
    fs::remove_dir_all(site.tmpdir()).unwrap();
    fs::create_dir(site.tmpdir()).unwrap();
    let outcome = elsewhere(&site, &["--wait=100s", "continue", &id]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
}

/// Rows of runs that were read: one after the other, and by an index.
fn rows_read(database: &Database<'_>) -> (u64, u64) {
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                AND backend_type = 'client backend'";
    wait_until("the program's session to end", Duration::from_secs(60), || database.psql(gone) == "0\n")
        .unwrap();
    let read = "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relid = 'staging_journal.run'::regclass";
    let read = database.psql(read);
    let (one_by_one, by_index) = read.trim().split_once('|').unwrap();
    (one_by_one.parse().unwrap(), by_index.parse().unwrap())
}

#[test]
fn history_never_looks_at_every_run() {
    let database = Database::new();
    let site = site(&database, "60s");
    let section = site.section();
    succeeds(&site, &["history"]);
    database.psql(
        "INSERT INTO staging_journal.run (id, epoch, events, started_at, status, command, section, actor, read_only)
         SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 1, 1,
                timestamptz '2020-01-01' + i * interval '1 hour', 'succeeded', 'restore', 'shop.dev', 'ada', false
           FROM generate_series(1, 20000) AS i;
         VACUUM ANALYZE staging_journal.run;",
    );
    succeeds(&site, &["createdb", &section, DAY]);
    for asked in [
        &["history", "--limit", "20"][..],
        &["history", &section],
        &["history", "--status", "running"],
        &["history", "--since", "2022-04-01", "--until", "2022-04-02"],
    ] {
        let before = rows_read(&database);
        succeeds(&site, asked);
        let after = rows_read(&database);
        let read = (after.0 - before.0, after.1 - before.1);
        assert!(read.0 == 0 && read.1 < 200, "{asked:?} read {read:?}");
    }
}
