//! `pause` and `resume`: who is held back is answered later, and nobody is held back by a command that gave up.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    stage::{BouncerOptions, LOCAL, PoolMode, Program, Site, SiteOptions, Stage, wait_until},
    traces::{Traces, error, inspected, is_refused, last_run, plain, says, step, succeeds},
};

const DAY: &str = "20261121";
const LIMIT: Duration = Duration::from_secs(60);

/// A site whose alias, and whose copy's name, lead to a database that is there.
fn site(number: u16, pool_mode: PoolMode) -> Site<'static> {
    // Far above the numbers that sites get without a name of their own.
    let dbname = format!("shop{number}");
    let aliases =
        [dbname.clone(), format!("{dbname}_{DAY}")].map(|alias| (alias, "postgres".to_owned())).to_vec();
    let bouncer = BouncerOptions { pool_mode, aliases, ..BouncerOptions::default() };
    let options = SiteOptions { dbname: Some(dbname), bouncer, ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    site.set("retry_limit", "1s").unwrap();
    site
}

/// A client that stays connected.
struct Client {
    psql: Child,
    stdin: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    /// Connects, and makes sure that it is answered.
    fn connect(site: &Site<'_>, name: &str) -> Client {
        let mut psql = site.cluster().client("psql");
        psql.args(["-XAtq", "-h", LOCAL, "-p", &site.bouncer().port().to_string(), "-d", name]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (psql.stdin.take().unwrap(), psql.stdout.take().unwrap());
        let mut client = Client { psql, stdin, answers: BufReader::new(stdout) };
        assert_eq!(client.ask("SELECT 'connected'"), "connected");
        client
    }

    fn send(&mut self, sql: &str) {
        writeln!(self.stdin, "{sql};").unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, sql: &str) -> String {
        self.send(sql);
        self.answer()
    }

    fn leave(self) {
        let Client { mut psql, stdin, answers } = self;
        drop((stdin, answers));
        assert!(psql.wait().unwrap().success());
    }
}

/// The rows of one of the console's lists, as the values of some columns.
fn rows<const N: usize>(site: &Site<'_>, command: &str, columns: [&str; N]) -> Vec<[String; N]> {
    let answer = site.bouncer().admin(command).unwrap();
    let mut lines = answer.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let place = |column: &str| header.iter().position(|name| *name == column).unwrap();
    let places = columns.map(place);
    lines.map(|line| places.map(|place| line[place].to_owned())).collect()
}

fn paused(site: &Site<'_>) -> Vec<String> {
    let all = rows(site, "SHOW DATABASES", ["name", "paused"]);
    all.into_iter().filter(|[_, paused]| paused == "1").map(|[name, _]| name).collect()
}

fn wait_until_paused(site: &Site<'_>, program: &mut Program) {
    wait_until("a pause", LIMIT, || !paused(site).is_empty() || !program.is_running().unwrap()).unwrap();
    assert!(program.is_running().unwrap(), "{}{}", program.stdout(), program.stderr());
}

fn wait_until_queued(site: &Site<'_>, name: &str) {
    let queued = [name.to_owned(), "waiting".to_owned()];
    wait_until("a query to wait", LIMIT, || {
        rows(site, "SHOW CLIENTS", ["database", "state"]).contains(&queued)
    })
    .unwrap();
}

#[test]
fn a_query_sent_while_the_alias_is_paused_is_answered_after_resume() {
    let site = site(9001, PoolMode::Transaction);
    let (section, name) = (site.section(), site.dbname().to_owned());
    let before = Traces::of(&site);
    let mut idle = Client::connect(&site, &name);

    let planned = succeeds(&site, &["-n", "pause", &section]);
    says(
        &plain(&site, &planned.stdout),
        "pause shop.dev would make these steps on 127.0.0.1:\n  1  pause            PAUSE shop in pgbouncer, and give up when that takes longer than 10 s\n",
    );
    assert_eq!(paused(&site), Vec::<String>::new());

    let outcome = succeeds(&site, &["pause", &section]);
    says(&plain(&site, &outcome.stdout), "pause shop.dev: shop is paused (run <run>, <seconds> s)\n");
    assert_eq!(paused(&site), std::slice::from_ref(&name));
    let run = last_run(&site);
    assert_eq!((&run["database"], &run["status"]), (&Value::from(name.clone()), &"succeeded".into()));

    idle.send("SELECT 'in time'");
    wait_until_queued(&site, &name);
    // The copy's own name is another one, and is served.
    assert_eq!(site.bouncer().psql(&site.copy(DAY), "SELECT 1 AS one").unwrap(), "one\n1\n");

    let planned = succeeds(&site, &["-n", "resume", &section]);
    says(
        &plain(&site, &planned.stdout),
        "resume shop.dev would make these steps on 127.0.0.1:\n  1  resume           RESUME shop in pgbouncer\n",
    );
    let outcome = succeeds(&site, &["resume", &section]);
    says(&plain(&site, &outcome.stdout), "resume shop.dev: shop is not paused (run <run>, <seconds> s)\n");
    assert_eq!(idle.answer(), "in time");
    assert_eq!(idle.ask("SELECT 'still there'"), "still there");
    idle.leave();
    assert_eq!((paused(&site), Traces::of(&site)), (vec![], before));
}

#[test]
fn pause_waits_for_transactions_to_end_and_takes_a_copys_own_name_by_its_date() {
    let site = site(9002, PoolMode::Transaction);
    let copy = site.copy(DAY);
    let mut busy = Client::connect(&site, &copy);
    busy.send("BEGIN");
    assert_eq!(busy.ask("SELECT 'begun'"), "begun");
    let mut program = site.spawn(&["pause", &site.section(), DAY, "--limit", "2m"]).unwrap();
    wait_until_paused(&site, &mut program);
    assert_eq!(busy.ask("SELECT 'goes on'"), "goes on");
    assert!(program.is_running().unwrap());
    busy.send("COMMIT");
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(paused(&site), [copy]);
    succeeds(&site, &["resume", &site.section(), "2026-11-21"]);
    assert_eq!(busy.ask("SELECT 'after'"), "after");
    busy.leave();
}

#[test]
fn clients_that_stay_connected_are_named_and_not_held_back_whatever_on_failure_says() {
    let said = regex::Regex::new(r"connected for \d+ s").unwrap();
    for (number, on_failure) in [(9003, "rollback"), (9004, "keep")] {
        let mut site = site(number, PoolMode::Session);
        site.set("on_failure", on_failure).unwrap();
        let mut stays = Client::connect(&site, site.dbname());
        let outcome = site.run(&["pause", &site.section(), "--limit", "1s"]).unwrap();
        says(
            &said.replace_all(&error(&site, &outcome), "connected for <seconds> s"),
            "pause shop.dev failed, and what it had done is undone (run <run>): clients of shop keep their server connections for longer than 1 s\n\
             cause: postgres from 127.0.0.1:<port>, connected for <seconds> s\n\
             hint: have them end their transactions, or in session pooling disconnect, or wait for longer with --limit",
        );
        assert_eq!((outcome.code, paused(&site)), (1, vec![]), "{outcome}");
        assert_eq!(last_run(&site)["status"], "failed");
        assert_eq!(stays.ask("SELECT 'served'"), "served");
        stays.leave();
        succeeds(&site, &["pause", &site.section()]);
        assert_eq!(paused(&site), [site.dbname()]);
    }
}

#[test]
fn what_is_paused_or_resumed_already_is_told_and_somebody_elses_pause_stays() {
    let site = site(9005, PoolMode::Session);
    let (section, name) = (site.section(), site.dbname());
    let outcome = succeeds(&site, &["resume", &section]);
    assert!(plain(&site, &outcome.stderr).contains("resume: shop is not paused"), "{outcome}");
    let stays = Client::connect(&site, name);
    let mut by_hand = site.cluster().client("psql");
    by_hand.args(["-Xq", "-h", LOCAL, "-p", &site.bouncer().port().to_string(), "-d", "pgbouncer"]);
    let mut by_hand = by_hand.args(["-c", &format!("PAUSE {name}")]).spawn().unwrap();
    wait_until("a pause by hand", LIMIT, || paused(&site) == [name]).unwrap();

    let outcome = succeeds(&site, &["pause", &section, "--limit", "1s"]);
    assert!(plain(&site, &outcome.stderr).contains("pause: shop is paused already"), "{outcome}");
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    succeeds(&site, &["rollback", &run, "--yes"]);
    assert_eq!(paused(&site), [name]);
    stays.leave();
    assert!(by_hand.wait().unwrap().success());
}

#[test]
fn a_finished_pause_is_rolled_back_by_letting_the_clients_go_on() {
    let site = site(9006, PoolMode::Transaction);
    succeeds(&site, &["pause", &site.section()]);
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    is_refused(
        &site,
        &["rollback", &run],
        2,
        "there is nobody to ask: Undo the finished pause shop.dev (run <run>)? Then clients go on.\n\
         hint: add --yes if this is meant",
    );
    assert_eq!(paused(&site), [site.dbname()]);
    succeeds(&site, &["rollback", &run, "--yes"]);
    assert_eq!(paused(&site), Vec::<String>::new());
}

#[test]
fn a_pause_that_is_asked_to_stop_is_undone_before_the_command_ends() {
    let site = site(9007, PoolMode::Session);
    let mut stays = Client::connect(&site, site.dbname());
    for (signals, code) in
        [(vec![Signal::INT], 130), (vec![Signal::INT, Signal::INT], 130), (vec![Signal::TERM], 143)]
    {
        let mut program = site.spawn(&["pause", &site.section(), "--limit", "1h"]).unwrap();
        wait_until_paused(&site, &mut program);
        for signal in &signals {
            // The first may have ended it already.
            let _gone = program.signal(*signal);
        }
        let outcome = program.wait().unwrap();
        assert_eq!((outcome.code, paused(&site)), (code, vec![]), "{signals:?}: {outcome}");
        assert_eq!(last_run(&site)["status"], "rolled_back", "{outcome}");
        assert_eq!(stays.ask("SELECT 'served'"), "served");
    }
    stays.leave();
}

#[test]
fn a_killed_pause_is_rolled_back_or_continued() {
    let site = site(9008, PoolMode::Session);
    let mut stays = Client::connect(&site, site.dbname());
    let killed = |site: &Site<'_>| {
        let mut program = site.spawn(&["pause", &site.section(), "--limit", "1h"]).unwrap();
        wait_until_paused(site, &mut program);
        program.kill().unwrap();
        let run = last_run(site);
        assert_eq!((run["status"].as_str(), paused(site)), (Some("interrupted"), vec![site.dbname().into()]));
        run["id"].as_str().unwrap().to_owned()
    };
    let run = killed(&site);
    succeeds(&site, &["rollback", &run]);
    assert_eq!(paused(&site), Vec::<String>::new());
    assert_eq!(stays.ask("SELECT 'served'"), "served");

    killed(&site);
    let mut program = site.spawn(&["continue", &site.section()]).unwrap();
    program.wait_until_it_says("taken up again").unwrap();
    stays.leave();
    let outcome = program.wait().unwrap();
    assert_eq!((outcome.code, paused(&site)), (0, vec![site.dbname().to_owned()]), "{outcome}");

    // A continued one that is asked to stop lets go as well.
    succeeds(&site, &["resume", &site.section()]);
    let mut stays = Client::connect(&site, site.dbname());
    killed(&site);
    let mut program = site.spawn(&["continue", &site.section()]).unwrap();
    program.wait_until_it_says("taken up again").unwrap();
    program.signal(Signal::TERM).unwrap();
    assert_eq!(program.wait().unwrap().code, 143);
    assert_eq!(paused(&site), Vec::<String>::new());
    assert_eq!(stays.ask("SELECT 'served'"), "served");
    stays.leave();
}

#[test]
fn names_that_pgbouncer_does_not_know_and_limits_that_are_none_are_refused() {
    let mut site = site(9009, PoolMode::Transaction);
    let section = site.section();
    for command in ["pause", "resume"] {
        let outcome = site.run(&[command, &section, "2001-01-01"]).unwrap();
        says(
            &error(&site, &outcome),
            &format!(
                "{command} shop.dev failed before it changed anything (run <run>): pgbouncer on 127.0.0.1:<port> has no database shop_20010101\n\
                 hint: pg_staging pgbouncer shop.dev lists those it has"
            ),
        );
        assert_eq!(outcome.code, 6, "{outcome}");
        is_refused(
            &site,
            &[command, "nobody.dev"],
            6,
            "<site>/pg_staging.ini: no section [nobody.dev]\n\
             hint: the sections are shop.dev",
        );
    }
    for limit in ["0s", "soon", "-1s", "10d"] {
        let outcome = site.run(&["pause", &section, "--limit", limit]).unwrap();
        assert_eq!((outcome.code, paused(&site)), (2, vec![]), "{limit}: {outcome}");
    }
    site.bouncer_mut().stop().unwrap();
    let outcome = site.run(&["pause", &section]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(error(&site, &outcome).contains("cannot reach pgbouncer's console"), "{outcome}");
}

#[test]
fn scripts_get_the_run_of_a_pause_as_json() {
    let site = site(9010, PoolMode::Transaction);
    let outcome = succeeds(&site, &["--json", "pause", &site.section()]);
    let last: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["run"]["command"], &last["run"]["status"]), (&"pause".into(), &"succeeded".into()));
    let told = inspected(&site);
    assert_eq!(step(&told, "pause")["detail"]["outcome"]["name"], site.dbname());
    let outcome = succeeds(&site, &["-n", "--json", "pause", &site.section(), "--limit", "5m"]);
    let plan: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(plan["plan"]["steps"][0]["parameters"]["limit_seconds"], 300);
}
