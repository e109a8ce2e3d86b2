//! Several controllers at work with one journal: who may act, and what becomes of one who may not any more.

use std::{fs, process::Command, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use super::Database;
use crate::{
    gate::Gate,
    stage::{Bouncer, BouncerOptions, Outcome, Program, Site, SiteOptions, Stage, StageOptions, wait_until},
    traces::{Traces, error, last_run, plain, says, succeeds},
};

const DAY: &str = "20261121";
/// How long a lease may take to end, or a program to find something out.
const LIMIT: Duration = Duration::from_secs(120);

/// A site whose journal is in that database.
pub(super) fn site(database: &Database<'_>, lease: &str) -> Site<'static> {
    site_of(database, lease, &SiteOptions::default())
}

/// The same, made with these options.
pub(super) fn site_of(database: &Database<'_>, lease: &str, options: &SiteOptions) -> Site<'static> {
    let mut site = Site::new(Stage::shared().unwrap(), options).unwrap();
    site.set("retry_limit", "10s").unwrap();
    site.set("journal", &database.url("postgres", &format!("?lease={lease}"))).unwrap();
    site
}

impl Database<'_> {
    /// Waits until nobody owns the last run.
    fn wait_for_the_end_of_the_lease(&self) {
        let held = "SELECT held FROM staging_journal.history ORDER BY id DESC LIMIT 1";
        wait_until("the lease to end", LIMIT, || self.psql(held) == "f\n").unwrap();
    }

    /// How many events there are; each once, and without a gap.
    fn events(&self) -> String {
        let whole = "SELECT count(*) = max(seq) AND (SELECT bool_and(has) FROM (SELECT count(*) = max(n) + 1 AS has \
                     FROM staging_journal.event GROUP BY run) AS run) FROM staging_journal.event";
        assert_eq!(self.psql(whole), "t\n");
        self.psql("SELECT count(*) FROM staging_journal.event")
    }
}

/// The program on another machine, as far as that matters: nothing of what the first one has at home.
pub(super) fn command_elsewhere(site: &Site<'_>, arguments: &[&str]) -> Command {
    let home = site.stage().scratch().new_folder("elsewhere").unwrap();
    let mut command = site.command(arguments);
    command.env("HOME", &home).current_dir(&home);
    command
}

/// The same, run to its end.
pub(super) fn elsewhere(site: &Site<'_>, arguments: &[&str]) -> Outcome {
    site.spawn_command(&mut command_elsewhere(site, arguments)).unwrap().wait().unwrap()
}

fn id_of_the_last_run(site: &Site<'_>) -> String {
    last_run(site)["id"].as_str().unwrap().to_owned()
}

fn status(site: &Site<'_>) -> Value {
    last_run(site)["status"].clone()
}

/// A run that was at the gate has ended because it is not its process's any more, and has done nothing more.
#[track_caller]
fn has_lost_its_run(site: &Site<'_>, program: Program) {
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 3, "{outcome}");
    let said = plain(site, &outcome.stderr);
    assert!(said.contains("run <run> is not this process's any more"), "{outcome}");
    assert!(said.contains("pg_staging inspect <run>"), "{outcome}");
}

#[test]
fn of_two_controllers_that_start_at_the_same_time_one_runs_and_the_other_is_told_who() {
    let database = Database::new();
    let site = site(&database, "60s");
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let start = || site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let mut both = [start(), start()];
    wait_until("one of them to be refused", LIMIT, || both.iter_mut().any(|one| !one.is_running().unwrap()))
        .unwrap();
    both.sort_by_key(|one| one.stderr().contains("busy"));
    let [mut first, second] = both;
    let waiting = gate.wait(&mut first);
    let outcome = second.wait().unwrap();
    assert_eq!(outcome.code, 5, "{outcome}");
    let run = last_run(&site);
    let actor = &run["actor"];
    assert_eq!(actor["pid"], first.pid());
    let who = format!("{}@{}", actor["user"].as_str().unwrap(), actor["host"].as_str().unwrap());
    assert!(outcome.stderr.contains(run["id"].as_str().unwrap()), "{outcome}");
    assert!(outcome.stderr.contains(&format!("process {},", first.pid())), "{outcome}");
    says(
        &error(&site, &outcome).replace(&who, "<who>"),
        "busy: 127.0.0.1:<port>/shop is held by restore shop.dev 20261121 (run <run>) of <who>, process <pid>, since <time>\n\
         hint: wait for it, or add --wait",
    );
    drop(waiting);
    let outcome = first.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    // What it held, it gave back.
    succeeds(&site, &["createdb", &site.section(), "20261119"]);
    database.events();
}

#[test]
fn a_controller_that_was_stopped_past_its_lease_does_nothing_more() {
    let database = Database::new();
    let site = site(&database, "4s");
    let gate = Gate::new(&site, "pre", "wait.sql", "CREATE TABLE after_the_gate ();");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    program.signal(Signal::STOP).unwrap();
    database.wait_for_the_end_of_the_lease();
    let before = (Traces::of(&site), database.events());
    assert_eq!(status(&site), "interrupted");
    program.signal(Signal::CONT).unwrap();
    has_lost_its_run(&site, program);
    drop(waiting);
    assert_eq!((Traces::of(&site), database.events()), before);
    assert_eq!(status(&site), "interrupted");

    gate.remove(&site, "pre", "wait.sql");
    let outcome = elsewhere(&site, &["continue", &site.section()]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(status(&site), "succeeded");
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
}

#[test]
fn a_run_that_was_taken_over_is_left_alone_by_the_one_who_had_it() {
    let database = Database::through_pgbouncer();
    let site = site(&database, "4s");
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    program.signal(Signal::STOP).unwrap();
    let run = id_of_the_last_run(&site);
    gate.remove(&site, "pre", "wait.sql");
    let outcome = elsewhere(&site, &["--wait=100s", "continue", &run]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let after = (Traces::of(&site), database.events());
    program.signal(Signal::CONT).unwrap();
    has_lost_its_run(&site, program);
    drop(waiting);
    assert_eq!((Traces::of(&site), database.events()), after);
    assert_eq!(status(&site), "succeeded");
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
}

#[test]
fn a_run_whose_process_was_killed_goes_on_from_another_machine_when_its_lease_has_ended() {
    let database = Database::new();
    let site = site(&database, "4s");
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    program.kill().unwrap();
    let run = id_of_the_last_run(&site);
    gate.remove(&site, "post", "wait.sql");
    let outcome = elsewhere(&site, &["--wait=100s", "continue", &run]);
    drop(waiting);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(status(&site), "succeeded");
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
    assert_eq!(fs::read_dir(site.tmpdir()).unwrap().count(), 0);
    database.events();
}

#[test]
fn a_server_that_is_restarted_under_a_run_loses_nothing_and_doubles_nothing() {
    let stage = Stage::start(&StageOptions::default()).unwrap();
    restarts_under_a_run(&stage, &Database::on(&stage));
}

#[test]
fn a_server_that_is_restarted_behind_pgbouncer_loses_nothing_and_doubles_nothing() {
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let mut database = Database::on(&stage);
    let alias = (database.name.clone(), database.name.clone());
    let bouncer =
        Bouncer::start(&stage, &BouncerOptions { aliases: vec![alias], ..BouncerOptions::default() })
            .unwrap();
    database.port = bouncer.port();
    restarts_under_a_run(&stage, &database);
}

fn restarts_under_a_run(stage: &Stage, database: &Database<'_>) {
    let site = site(database, "120s");
    let gate = Gate::new(&site, "pre", "wait.sql", "CREATE TABLE after_the_gate ();");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    stage.cluster().stop().unwrap();
    drop(waiting);
    // What comes next is to record that.
    let made = "SELECT to_regclass('after_the_gate') IS NOT NULL";
    wait_until("SQL to be done", LIMIT, || site.cluster().psql(&site.copy(DAY), made).unwrap() == "t\n")
        .unwrap();
    stage.cluster().start_again().unwrap();
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(status(&site), "succeeded");
    let undisturbed = self::site(database, "120s");
    let before: u32 = database.events().trim().parse().unwrap();
    undisturbed.add_sql("pre", "wait.sql", "CREATE TABLE after_the_gate ();").unwrap();
    succeeds(&undisturbed, &["restore", &undisturbed.section(), DAY]);
    assert_eq!(database.events(), format!("{}\n", 2 * before));
}

#[test]
fn a_server_that_is_away_for_longer_than_the_lease_stops_the_run_where_it_is() {
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let database = Database::on(&stage);
    let site = site(&database, "3s");
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let before = Traces::of(&site);
    stage.cluster().stop().unwrap();
    // It ends at the gate: it is not waited for that something comes to its end.
    has_lost_its_run(&site, program);
    drop(waiting);
    assert_eq!(Traces::of(&site), before);
    let refused = site.run(&["history"]).unwrap();
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("cannot use the journal on postgres://127.0.0.1:"), "{refused}");

    stage.cluster().start_again().unwrap();
    gate.remove(&site, "pre", "wait.sql");
    assert_eq!(status(&site), "interrupted");
    succeeds(&site, &["continue", &site.section()]);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
}
