//! A restore under way shows how far it is, names what holds it up, and says how long it will still take.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Child, ChildStdin, Stdio},
    time::Duration,
};

use regex::Regex;
use serde_json::{Value, json};

use crate::{
    gate::Gate,
    stage::{
        Conduct, Program, RudeServer, Scale, Serving, Site, SiteOptions, Stage, Terminal, source_database,
        wait_until,
    },
    traces::{inspected, last_run, plain, says, step, succeeds},
};

const DAY: &str = "20261121";
const NEXT_DAY: &str = "20261122";
/// How long something may take to be seen: far beyond the slowest.
const LIMIT: Duration = Duration::from_secs(120);

fn site(scale: Scale) -> Site<'static> {
    let dates = vec!["2026-11-21".into(), "2026-11-22".into()];
    let options = SiteOptions { serving: Serving::Rude, scale, dates, ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    site.set("restore_jobs", "2").unwrap();
    site.set("stall_after", "1s").unwrap();
    site
}

fn path(site: &Site<'_>, date: &str) -> String {
    format!("/{}/{}", site.dbname(), site.backup_name(date))
}

/// Has the server fall silent amid the dump, and gives how to let it go on.
fn silent<'s>(site: &'s Site<'_>) -> (&'s RudeServer, String) {
    let (rude, path) = (site.rude().unwrap(), path(site, "2026-11-21"));
    rude.plan(&path, Conduct::StallAt(fs::metadata(site.dump()).unwrap().len() / 2));
    (rude, path)
}

/// Waits until what is told of the run at work is as it should be.
fn told_of_run(site: &Site<'_>, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut told = Value::Null;
    wait_until(what, LIMIT, || {
        told = last_run(site)["progress"].clone();
        is(&told)
    })
    .unwrap_or_else(|error| panic!("{error}: {told}"));
    told
}

#[track_caller]
fn ends_well(program: Program) {
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
}

/// The first of the lines that is no event.
fn first_tick(said: &str) -> Value {
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["kind"] == "progress").unwrap()
}

#[test]
fn a_server_that_sends_nothing_is_named_by_the_run_and_to_those_who_look_on() {
    let site = site(Scale::Full);
    let (rude, dump) = silent(&site);
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    run.wait_until_it_says(": no byte for ").unwrap();
    let mut follow = site.spawn(&["follow"]).unwrap();
    follow.wait_until_it_says(": no byte for ").unwrap();
    let mut as_json = site.spawn(&["follow", "--json"]).unwrap();
    as_json.wait_until_it_says("silence").unwrap();
    let mut terminal = Terminal::start(site.stage(), site.command(&["follow"])).unwrap();
    terminal.wait_until_it_shows(": no byte for ").unwrap();

    let told = told_of_run(&site, "a stall", |told| told["stalls"][0]["reason"] == "silence");
    let stall = &told["stalls"][0];
    assert!(stall["ms"].as_u64().unwrap() >= 1_000, "{told}");
    assert_eq!(told["unit"], "bytes");
    assert_eq!(told["fetched"], json!({ "done": told["done"], "total": told["total"] }));
    assert!(told["tables"]["total"].as_u64().unwrap() > told["tables"]["done"].as_u64().unwrap(), "{told}");
    let workers = told["workers"].as_array().unwrap();
    let held = workers.iter().find(|worker| worker["part"] == stall["part"]).unwrap();
    assert_eq!(held["unit"], "bytes");
    assert!(held["done"].as_u64() < held["total"].as_u64(), "{held}");
    // Nothing comes, so that nobody can say how long it takes.
    assert_eq!(
        told_of_run(&site, "no time left to be told", |told| told.is_object() && told["left_ms"].is_null())["left_at_least"],
        false
    );
    let text = succeeds(&site, &["inspect", last_run(&site)["id"].as_str().unwrap()]).stdout;
    let shown = Regex::new(
        r"\nprogress  restore: .* fetched, .* of \d+ tables, \d+ of \d+ indexes.*\n(.*\n)? +.*: no byte for \d+ s\n",
    );
    assert!(shown.unwrap().is_match(&text), "{text}");

    rude.behave(&dump);
    let (run, follow, as_json) = (run.wait().unwrap(), follow.wait().unwrap(), as_json.wait().unwrap());
    assert_eq!((run.code, follow.code, as_json.code), (0, 0, 0), "{run}{follow}{as_json}");
    let line =
        Regex::new(r"(?m)^      restore: [\d.]+ \w+ of [\d.]+ \w+ fetched, .* tables, .* indexes").unwrap();
    assert!(line.is_match(&run.stderr), "{run}");
    let tick = first_tick(&as_json.stdout);
    assert_eq!((&tick["step"], &tick["n"], &tick["hash"]), (&json!("restore"), &Value::Null, &Value::Null));
    assert_eq!(tick["detail"]["stalls"][0]["reason"], "silence");
    let (code, shown) = terminal.wait().unwrap();
    assert_eq!(code, 0, "{shown}");
    // What the run is at has nothing left to show of it.
    assert_eq!(last_run(&site)["progress"], Value::Null);
}

#[test]
fn on_a_terminal_each_worker_has_a_bar() {
    let site = site(Scale::Full);
    let (rude, dump) = silent(&site);
    let mut terminal =
        Terminal::start(site.stage(), site.command(&["restore", &site.section(), DAY])).unwrap();
    terminal.wait_until_it_shows(" fetched, ").unwrap();
    terminal.wait_until_it_shows(": no byte for ").unwrap();
    let shown = terminal.shown().unwrap();
    let worker = Regex::new(r" {8}[█░]{20} \S[^░]*: no byte for \d+ s").unwrap();
    assert!(worker.is_match(&shown), "{shown:?}");
    rude.behave(&dump);
    let (code, shown) = terminal.wait().unwrap();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("ok   restore"), "{shown}");
}

#[test]
fn as_json_a_run_tells_how_far_it_is_among_its_events() {
    let site = site(Scale::Full);
    let (rude, dump) = silent(&site);
    let mut run = site.spawn(&["restore", &site.section(), DAY, "--json"]).unwrap();
    run.wait_until_it_says("\"progress\",\"step\":\"restore\"").unwrap();
    rude.behave(&dump);
    let outcome = run.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    let tick = first_tick(&outcome.stdout);
    let names: Vec<&String> = tick.as_object().unwrap().keys().collect();
    assert_eq!(names, ["seq", "run", "n", "at", "kind", "step", "actor", "detail", "hash"]);
    let detail = &tick["detail"];
    let fields = [
        "done",
        "total",
        "unit",
        "fetched",
        "loaded",
        "tables",
        "indexes",
        "left_ms",
        "left_at_least",
        "following_ms",
        "stalls",
        "workers",
    ];
    assert_eq!(detail.as_object().unwrap().keys().collect::<Vec<_>>(), fields);
    // What is told is no event.
    assert!(inspected(&site)["events"].as_array().unwrap().iter().all(|event| event["kind"] != "progress"));
}

/// A session in the copy that holds something until this goes.
struct Holder {
    psql: Child,
    input: Option<ChildStdin>,
}

impl Holder {
    fn new(site: &Site<'_>, sql: &str) -> Holder {
        let mut psql = site.cluster().client("psql");
        psql.args(["-Xq", "-d", &site.copy(DAY)]);
        psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut psql = psql.spawn().unwrap();
        let mut input = psql.stdin.take().unwrap();
        writeln!(input, "{sql}").unwrap();
        wait_until("a lock", LIMIT, || {
            let locks = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                         WHERE application_name = 'psql' AND datname = current_database() AND granted \
                         AND mode IN ('AccessExclusiveLock', 'ExclusiveLock') AND locktype IN ('relation', 'advisory') \
                         AND pid <> pg_backend_pid()";
            site.cluster().psql(&site.copy(DAY), locks).unwrap() == "1\n"
        })
        .unwrap();
        Holder { psql, input: Some(input) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.input.take());
        self.psql.wait().unwrap();
    }
}

#[test]
fn who_holds_a_lock_that_a_restore_waits_for_is_named() {
    let mut site = site(Scale::Full);
    // So that the table is loaded only after the rows that do not come.
    site.set("restore_jobs", "1").unwrap();
    let (rude, dump) = silent(&site);
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    run.wait_until_it_says(": no byte for ").unwrap();
    let holder = Holder::new(&site, "BEGIN;\nLOCK TABLE public.country;");
    rude.behave(&dump);
    run.wait_until_it_says(": waiting for a lock held by pid ").unwrap();
    let told = told_of_run(&site, "a lock", |told| told["stalls"][0]["reason"] == "lock");
    let pid =
        site.cluster().psql("postgres", "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE%'");
    let pid: i32 = pid.unwrap().trim().parse().unwrap();
    let stall = &told["stalls"][0];
    assert_eq!((&stall["pid"], &stall["application"]), (&json!(pid), &json!("psql")), "{told}");
    assert_eq!(stall["query"], "LOCK TABLE public.country;");
    let mut follow = site.spawn(&["follow"]).unwrap();
    let named = format!(": waiting for a lock held by pid {pid} (psql: LOCK TABLE public.country;)");
    follow.wait_until_it_says(&named).unwrap();
    drop(holder);
    ends_well(run);
    ends_well(follow);
}

/// Lists a backup whose index cannot be built as long as somebody holds an advisory lock in the copy; gives its file.
fn listed_with_an_index_that_waits(site: &Site<'_>) -> PathBuf {
    let source = format!("{}_source", site.dbname());
    site.cluster().psql("postgres", &format!("CREATE DATABASE {source}")).unwrap();
    // Whoever builds the index waits as long as somebody has the lock.
    let sql = "CREATE FUNCTION public.held(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS \
               'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(7); RETURN i; END';\n\
               CREATE TABLE public.item AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g;\n\
               CREATE INDEX item_held ON public.item (public.held(id));";
    site.cluster().psql(&source, sql).unwrap();
    let file = site.folder().join("source.dump");
    site.cluster().pg_dump(&source, &["-Fc", "-f", &file.display().to_string()]).unwrap();
    site.write_file(&site.backup_name("2026-11-21"), fs::read(&file).unwrap()).unwrap();
    file
}

#[test]
fn how_far_the_server_is_with_an_index_is_told() {
    let site = site(Scale::Small);
    let file = listed_with_an_index_that_waits(&site);
    let (rude, dump) = (site.rude().unwrap(), path(&site, "2026-11-21"));
    rude.plan(&dump, Conduct::StallAt(fs::metadata(&file).unwrap().len() / 2));
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    run.wait_until_it_says(": no byte for ").unwrap();
    let holder = Holder::new(&site, "SELECT pg_advisory_lock(7);");
    rude.behave(&dump);
    let building =
        |told: &Value| told["workers"][0]["phase"].is_string() && told["stalls"][0]["reason"] == "lock";
    let told = told_of_run(&site, "an index on its way", building);
    let worker = &told["workers"][0];
    assert_eq!(worker["phase"], "building index: scanning table");
    assert_eq!(worker["unit"], "blocks");
    assert!(worker["total"].as_u64().unwrap() > 0, "{worker}");
    assert_eq!(told["indexes"], json!({ "done": 0, "total": 1 }));
    assert_eq!(told["tables"], json!({ "done": 1, "total": 1 }));
    assert_eq!(told["loaded"]["done"], told["loaded"]["total"]);
    drop(holder);
    ends_well(run);
}

#[test]
fn how_long_it_takes_is_learnt_from_the_last_restore() {
    let site = site(Scale::Small);
    succeeds(&site, &["restore", &site.section(), DAY]);
    let last = inspected(&site);
    let parts = step(&last, "restore")["detail"]["parts"].as_object().unwrap();
    assert!(parts.values().all(|part| part["ms"].is_u64() && part["kind"].is_string()), "{parts:?}");
    let took = |name: &str| step(&last, name)["duration_ms"].as_u64().unwrap();

    let (rude, dump) = (site.rude().unwrap(), path(&site, "2026-11-22"));
    let size = fs::metadata(site.dump()).unwrap().len();
    rude.plan(&dump, Conduct::Slow(size / 10));
    let run = site.spawn(&["restore", &site.section(), NEXT_DAY]).unwrap();
    let told =
        told_of_run(&site, "a time left", |told| told["left_ms"].is_u64() && told["following_ms"].is_u64());
    // How long each part took is known from before.
    assert_eq!(told["left_at_least"], false, "{told}");
    // Those that had nothing to do took no time.
    let following: u64 = ["vacuum", "check", "switch", "cleanup"].into_iter().map(took).sum();
    // Each is told in whole milliseconds.
    assert!(told["following_ms"].as_u64().unwrap().abs_diff(following) <= 4, "{told} {following}");
    let text = succeeds(&site, &["inspect", last_run(&site)["id"].as_str().unwrap()]).stdout;
    let left =
        Regex::new(r"\nprogress  restore: .* fetched.*, (about \d+ s|about \d+ min|a few seconds) left\n")
            .unwrap();
    assert!(left.is_match(&text), "{text}");
    run.kill().unwrap();
}

#[test]
fn a_restore_that_cannot_ask_the_server_how_far_it_is_says_so_once_and_goes_on() {
    let mut site = site(Scale::Full);
    let own = format!("{}_maintenance", site.dbname());
    site.cluster().psql("postgres", &format!("CREATE DATABASE {own}")).unwrap();
    site.set("maintdb", &own).unwrap();
    let (rude, dump) = silent(&site);
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    run.wait_until_it_says(": no byte for ").unwrap();
    let may_connect = |may: bool| {
        let sql = format!("ALTER DATABASE {own} ALLOW_CONNECTIONS {may}");
        site.cluster().psql("postgres", &sql).unwrap();
    };
    may_connect(false);
    let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{own}'");
    site.cluster().psql("postgres", &sql).unwrap();
    run.wait_until_it_says("is not known: ").unwrap();
    may_connect(true);
    rude.behave(&dump);
    let outcome = run.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    let warnings: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("warning:")).collect();
    let [warning] = warnings.as_slice() else { panic!("{outcome}") };
    let (beginning, _) = warning.split_once("known: ").unwrap();
    says(&plain(&site, beginning), "warning: how far indexes are, and who waits for whom, is not ");
}

#[test]
fn of_a_dump_that_comes_in_one_piece_it_is_named_as_well() {
    let site = site(Scale::Full);
    let mut pg_dump = site.cluster().client("pg_dump");
    let piped = pg_dump.args(["-Fc", "-d", &source_database(Scale::Full)]).output().unwrap();
    assert!(piped.status.success());
    site.write_file(&site.backup_name("2026-11-21"), &piped.stdout).unwrap();
    let (rude, dump) = silent(&site);
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    run.wait_until_it_says("      restore: all of the dump: no byte for ").unwrap();
    let told = told_of_run(&site, "a stall", |told| told["stalls"][0]["reason"] == "silence");
    assert_eq!(told["fetched"]["total"], piped.stdout.len());
    rude.behave(&dump);
    ends_well(run);
}

#[test]
fn of_plain_sql_it_is_named_as_well_and_who_holds_a_lock() {
    let site = site(Scale::Small);
    let sql = site.cluster().pg_dump(&source_database(Scale::Small), &[]).unwrap();
    let end = "\n--\n-- PostgreSQL database dump complete";
    let sql = sql.replace(end, &format!("\nSELECT pg_catalog.pg_advisory_xact_lock(7);\n{end}"));
    site.write_file(&site.backup_name("2026-11-21"), sql.as_bytes()).unwrap();
    let (rude, dump) = (site.rude().unwrap(), path(&site, "2026-11-21"));
    rude.plan(&dump, Conduct::StallAt(sql.len() as u64 / 2));
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    run.wait_until_it_says("      restore: all of the dump: no byte for ").unwrap();
    let told = told_of_run(&site, "a stall", |told| told["stalls"][0]["reason"] == "silence");
    assert_eq!(told["fetched"]["total"], sql.len());
    assert_eq!(told["workers"][0]["part"], "all of the dump");
    let holder = Holder::new(&site, "SELECT pg_advisory_lock(7);");
    rude.behave(&dump);
    run.wait_until_it_says("all of the dump: waiting for a lock held by pid ").unwrap();
    // The program that runs it is not done when all of it has come.
    told_of_run(&site, "nothing to tell the time left by", |told| told["left_ms"].is_null());
    drop(holder);
    ends_well(run);
}

#[test]
fn a_dump_on_its_way_into_a_file_is_told_of_with_all_that_follows() {
    let mut site = site(Scale::Small);
    site.set("fast", "False").unwrap();
    let (rude, dump) = silent(&site);
    let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    run.wait_until_it_says(": no byte for ").unwrap();
    let told = last_run(&site);
    assert_eq!(told["step"], "fetch");
    assert!(told["progress"]["stalls"][0]["part"].as_str().unwrap().ends_with(&dump), "{told}");
    rude.behave(&dump);
    ends_well(run);
    let last = inspected(&site);

    rude.plan(&path(&site, "2026-11-22"), Conduct::Slow(fs::metadata(site.dump()).unwrap().len() / 10));
    let run = site.spawn(&["restore", &site.section(), NEXT_DAY]).unwrap();
    let told =
        told_of_run(&site, "a time left", |told| told["left_ms"].is_u64() && told["following_ms"].is_u64());
    let restore = step(&last, "restore")["duration_ms"].as_u64().unwrap();
    assert!(told["following_ms"].as_u64().unwrap() >= restore, "{told}");
    assert_eq!(last_run(&site)["step"], "fetch");
    run.kill().unwrap();
}

#[test]
fn a_restore_from_a_file_names_who_holds_a_lock_and_learns_from_the_last_one() {
    let mut site = site(Scale::Small);
    site.set("fast", "False").unwrap();
    listed_with_an_index_that_waits(&site);
    let restore = |file: &str| {
        let gate = Gate::new(&site, "pre", file, "");
        let mut run = site.spawn(&["restore", &site.section(), DAY]).unwrap();
        let waiting = gate.wait(&mut run);
        let holder = Holder::new(&site, "SELECT pg_advisory_lock(7);");
        drop(waiting);
        run.wait_until_it_says(": waiting for a lock held by pid ").unwrap();
        let is_known =
            |told: &Value| told["stalls"][0]["reason"] == "lock" && told["workers"][0]["phase"].is_string();
        let told = told_of_run(&site, "an index on its way", is_known);
        assert_eq!((&told["unit"], &told["stalls"][0]["application"]), (&json!("entries"), &json!("psql")));
        assert_eq!(told["workers"][0]["phase"], "building index: scanning table");
        gate.remove(&site, "pre", file);
        (run, holder)
    };
    let (run, holder) = restore("wait.sql");
    // There is none to learn from.
    told_of_run(&site, "no time left", |told| told.is_object() && told["left_ms"].is_null());
    drop(holder);
    ends_well(run);
    succeeds(&site, &["rollback", last_run(&site)["id"].as_str().unwrap(), "--yes"]);
    succeeds(&site, &["restore", &site.section(), NEXT_DAY]);
    let (run, holder) = restore("again.sql");
    told_of_run(&site, "a time left", |told| told["left_ms"].is_u64() && told["following_ms"].is_u64());
    drop(holder);
    ends_well(run);
}
