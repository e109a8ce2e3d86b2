//! `presql`, `postsql`, `vacuumdb` and `search_path`: what works on a copy that is in use, whoever made it.

use std::{fs, path::Path, process::Stdio, time::Duration};

use serde_json::Value;

use crate::{
    gate::Gate,
    stage::{Outcome, Site, SiteOptions, Stage, wait_until},
    traces::{Traces, error, fails, inspected, is_refused, last_run, names_in, plain, says, step, succeeds},
};

const DAY: &str = "20261121";
const EARLIER: &str = "20261119";

/// A site with two empty copies, of which the alias leads to the later one.
fn site() -> Site<'static> {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    for day in [EARLIER, DAY] {
        succeeds(&site, &["createdb", &site.section(), day]);
    }
    succeeds(&site, &["switch", &site.section(), DAY]);
    site
}

fn sql(site: &Site<'_>, day: &str, sql: &str) -> String {
    site.cluster().psql(&site.copy(day), sql).unwrap()
}

/// The comments of both copies: their marks.
fn marks(site: &Site<'_>) -> Vec<String> {
    let of = |day: &str| {
        format!(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{}'",
            site.copy(day)
        )
    };
    [EARLIER, DAY].iter().map(|day| sql(site, day, &of(day))).collect()
}

/// Whether a text stands in any file below a folder.
pub fn is_in_files(folder: &Path, text: &str) -> bool {
    names_in(folder).iter().map(|name| folder.join(name)).any(|path| {
        if path.is_dir() {
            return is_in_files(&path, text);
        }
        let is_file = fs::symlink_metadata(&path).unwrap().is_file();
        is_file && fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// The id of the newest run.
fn newest(site: &Site<'_>) -> String {
    last_run(site)["id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn ends(site: &Site<'_>, outcome: &Outcome, code: i32, said: &str) {
    assert_eq!(outcome.code, code, "{outcome}");
    says(&error(site, outcome), said);
}

#[test]
fn postsql_sources_the_files_in_order_in_the_active_copy_and_leaves_its_mark() {
    let site = site();
    let section = site.section();
    site.add_sql("post", "02_mask.sql", "INSERT INTO log VALUES ('two hidden words');\n").unwrap();
    site.add_sql("post", "01_log.sql", "CREATE TABLE log (what text);\n").unwrap();
    site.add_sql("post", "03_vacuum.sql", "VACUUM log;\nINSERT INTO log VALUES ('three');\n").unwrap();
    site.add_sql("post", "notes.txt", "nonsense").unwrap();
    site.add_sql("post/more", "04.sql", "nonsense").unwrap();
    let (before, marks_before) = (Traces::of(&site), marks(&site));

    let planned = succeeds(&site, &["-n", "postsql", &section]);
    says(
        &plain(&site, &planned.stdout),
        "postsql shop.dev would make these steps on 127.0.0.1:\n\
         \x20 1  preflight        look at PostgreSQL on 127.0.0.1, <bin>/pg_restore\n\
         \x20 2  post_sql 01_log.sql source <site>/sql/shop.dev/post/01_log.sql in shop_20261121; this cannot be undone\n\
         \x20 3  post_sql 02_mask.sql source <site>/sql/shop.dev/post/02_mask.sql in shop_20261121; this cannot be undone\n\
         \x20 4  post_sql 03_vacuum.sql source <site>/sql/shop.dev/post/03_vacuum.sql in shop_20261121; this cannot be undone\n\
         \x20 5  cleanup          take the run's note off shop_20261121\n",
    );
    assert_eq!(sql(&site, DAY, "SELECT to_regclass('log')"), "\n");

    let outcome = succeeds(&site, &["postsql", &section]);
    says(
        &plain(&site, &outcome.stdout),
        "postsql shop.dev: 3 files sourced in shop_20261121 (run <run>, <seconds> s)\n",
    );
    assert_eq!(sql(&site, DAY, "SELECT * FROM log"), "two hidden words\nthree\n");
    assert_eq!(sql(&site, EARLIER, "SELECT to_regclass('log')"), "\n");
    assert_eq!((Traces::of(&site), marks(&site)), (before, marks_before));
    let run = inspected(&site);
    let hash = &step(&run, "post_sql 02_mask.sql")["detail"]["intent"]["sha256"];
    assert_eq!(hash.as_str().unwrap().len(), 64);
    assert!(!is_in_files(&site.journal(), "two hidden words"));

    // Another time, and another copy.
    let outcome = site.run(&["postsql", &section]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    let outcome = succeeds(&site, &["--json", "postsql", &section, EARLIER]);
    let ended: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(ended["run"]["database"], site.copy(EARLIER));
    assert_eq!(sql(&site, EARLIER, "SELECT count(*) FROM log"), "2\n");
}

#[test]
fn presql_sources_the_other_folder_and_says_when_there_is_nothing_in_it() {
    let mut site = site();
    let section = site.section();
    site.add_sql("post", "01.sql", "nonsense").unwrap();
    let outcome = succeeds(&site, &["presql", &section]);
    says(
        &plain(&site, &outcome.stdout),
        "presql shop.dev: there is no *.sql file in <site>/sql/shop.dev/pre (run <run>, <seconds> s)\n",
    );
    site.add_sql("pre", "01.sql", "CREATE TABLE pre ();").unwrap();
    succeeds(&site, &["presql", &section, "oldest"]);
    assert_eq!(sql(&site, EARLIER, "SELECT to_regclass('pre')"), "pre\n");

    fails(
        &site,
        &["presql", &section, "20010101"],
        6,
        "there is no database shop_20010101\n\
         hint: pg_staging databases shop.dev lists those there are; pg_staging restore shop.dev 20010101 makes this one",
    );
    site.unset("sql_path").unwrap();
    for command in ["presql", "postsql"] {
        is_refused(
            &site,
            &[command, &section],
            2,
            "sql_path is not configured for [shop.dev]\n\
             hint: add `sql_path = /etc/pg_staging/sql` to [shop.dev] or [DEFAULT]",
        );
    }
}

#[test]
fn more_files_than_one_run_can_hold_are_refused_and_none_is_sourced() {
    let site = site();
    for number in 0..120 {
        site.add_sql("post", &format!("{number:03}_table.sql"), "CREATE TABLE t ();").unwrap();
    }
    let outcome = site.run(&["postsql", &site.section()]).unwrap();
    assert_eq!(outcome.code, 2, "{outcome}");
    let said = error(&site, &outcome);
    assert!(said.starts_with("that is more than one run can hold\n"), "{said}");
    assert!(
        said.ends_with("hint: give it less to do: fewer SQL files, or shorter names and paths"),
        "{said}"
    );
    assert_eq!(sql(&site, DAY, "SELECT to_regclass('t')"), "\n");
    assert_eq!(last_run(&site)["command"], "switch");
    // It holds nothing.
    succeeds(&site, &["vacuumdb", &site.section()]);
}

#[test]
fn where_no_copy_is_active_there_is_none_to_work_on() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    site.set("search_path", "public").unwrap();
    succeeds(&site, &["createdb", &site.section(), DAY]);
    for command in ["presql", "postsql", "vacuumdb", "search_path"] {
        is_refused(
            &site,
            &[command, &site.section()],
            6,
            "no copy is active\n\
             hint: `switch <dbname> <date>` makes a copy active; `databases <dbname>` lists them",
        );
    }
}

#[test]
fn a_file_that_fails_takes_no_effect_and_those_before_it_stay() {
    let site = site();
    let section = site.section();
    let marks_before = marks(&site);
    let bad = "INSERT INTO log VALUES ('bad');\nSELECT hidden_column FROM log;\n";
    site.add_sql("post", "01.sql", "CREATE TABLE log (what text); INSERT INTO log VALUES ('one');").unwrap();
    site.add_sql("post", "02.sql", bad).unwrap();
    site.add_sql("post", "03.sql", "INSERT INTO log VALUES ('three');").unwrap();
    let outcome = site.run(&["postsql", &section]).unwrap();
    ends(
        &site,
        &outcome,
        3,
        "postsql shop.dev stopped, and what it had done is kept (run <run>): <site>/sql/shop.dev/post/02.sql failed, and nothing of it took effect\n\
         cause: psql:<site>/sql/shop.dev/post/02.sql:2: ERROR:  column \"hidden_column\" does not exist at character 8\n\
         hint: correct the file, then try again\n\
         then: pg_staging continue <run>, or pg_staging abandon <run> --reason TEXT (what it did cannot be undone)",
    );
    assert_eq!(sql(&site, DAY, "SELECT * FROM log"), "one\n");
    assert!(!is_in_files(&site.journal(), "FROM log"));
    let run = newest(&site);
    let refused = site.run(&["rollback", &run]).unwrap();
    ends(
        &site,
        &refused,
        1,
        "run <run> is stopped: its step 'post_sql 01.sql' took effect and cannot be taken back\n\
         hint: what is left to do with it: pg_staging continue <run>",
    );

    site.add_sql("post", "02.sql", "INSERT INTO log VALUES ('two');").unwrap();
    succeeds(&site, &["continue", &run]);
    assert_eq!(sql(&site, DAY, "SELECT * FROM log"), "one\ntwo\nthree\n");
    assert_eq!(marks(&site), marks_before);

    // Here the first one fails: nothing took effect.
    let first = "postsql shop.dev failed, and what it had done is undone (run <run>): ";
    let outcome = site.run(&["postsql", &section, DAY]).unwrap();
    ends(
        &site,
        &outcome,
        1,
        &format!(
            "{first}<site>/sql/shop.dev/post/01.sql failed, and nothing of it took effect\n\
             cause: psql:<site>/sql/shop.dev/post/01.sql:1: ERROR:  relation \"log\" already exists\n\
             hint: correct the file, then try again"
        ),
    );
    assert_eq!(sql(&site, DAY, "SELECT count(*) FROM log"), "3\n");
    assert_eq!(marks(&site), marks_before);
}

#[test]
fn what_a_file_outside_of_a_transaction_did_is_for_the_operator_to_say() {
    let site = site();
    let section = site.section();
    let marks_before = marks(&site);
    site.add_sql("post", "01.sql", "CREATE TABLE log (what text); VACUUM log; SELECT nonsense;").unwrap();
    site.add_sql("post", "02.sql", "INSERT INTO log VALUES ('two');").unwrap();
    let outcome = site.run(&["postsql", &section]).unwrap();
    ends(
        &site,
        &outcome,
        4,
        "postsql shop.dev is stuck (run <run>): cannot tell what became of: post_sql 01.sql\n\
         cause: <site>/sql/shop.dev/post/01.sql may have run in part: <site>/sql/shop.dev/post/01.sql failed: psql:<site>/sql/shop.dev/post/01.sql:1: ERROR:  column \"nonsense\" does not exist at character 8\n\
         hint: look at shop_20261121, then say what became of it: pg_staging resolve <run> 'post_sql 01.sql' --as applied (or absent) --reason TEXT\n\
         then: look at it: pg_staging inspect <run>",
    );
    let run = newest(&site);
    // Nobody knows better by looking once more.
    assert_eq!(site.run(&["continue", &run]).unwrap().code, 4);
    assert_eq!(sql(&site, DAY, "SELECT count(*) FROM log"), "0\n");
    let reason = ["--as", "applied", "--reason", "only the last statement failed"];
    succeeds(&site, &[&["resolve", &run, "post_sql 01.sql"], reason.as_slice()].concat());
    succeeds(&site, &["continue", &run]);
    assert_eq!(sql(&site, DAY, "SELECT * FROM log"), "two\n");
    assert_eq!(marks(&site), marks_before);
}

#[test]
fn a_run_killed_within_a_file_sources_it_once_and_one_outside_of_a_transaction_not_again() {
    let site = site();
    let section = site.section();
    let marks_before = marks(&site);
    let log = "CREATE TABLE log (what text);";
    site.add_sql("post", "01.sql", &format!("{log} INSERT INTO log VALUES ('one');")).unwrap();
    let two = "INSERT INTO log VALUES ('two');";
    let gate = Gate::new(&site, "post", "02.sql", two);
    let mut program = site.spawn(&["postsql", &section]).unwrap();
    let waiting = gate.wait(&mut program);
    program.kill().unwrap();
    drop(waiting);
    // An older run is undone meanwhile, or not: the copy is still its own, whatever is noted on it.
    assert!(marks(&site)[1].starts_with(marks_before[1].trim_end()));
    site.add_sql("post", "02.sql", two).unwrap();
    let outcome = succeeds(&site, &["continue", &section]);
    assert!(outcome.stdout.contains("2 files sourced"), "{outcome}");
    assert_eq!(sql(&site, DAY, "SELECT * FROM log"), "one\ntwo\n");
    assert_eq!(marks(&site), marks_before);

    let gate = Gate::new(&site, "pre", "01.sql", &format!("{two}\nVACUUM log;"));
    let mut program = site.spawn(&["presql", &section]).unwrap();
    let waiting = gate.wait(&mut program);
    program.kill().unwrap();
    drop(waiting);
    site.add_sql("pre", "01.sql", two).unwrap();
    let stuck = site.run(&["continue", &section]).unwrap();
    ends(
        &site,
        &stuck,
        4,
        "presql shop.dev is stuck (run <run>): cannot tell what became of: pre_sql 01.sql\n\
         cause: <site>/sql/shop.dev/pre/01.sql may have run in part: it runs outside of a transaction, and its end was not seen\n\
         hint: look at shop_20261121, then say what became of it: pg_staging resolve <run> 'pre_sql 01.sql' --as applied (or absent) --reason TEXT\n\
         then: look at it: pg_staging inspect <run>",
    );
    assert_eq!(sql(&site, DAY, "SELECT count(*) FROM log"), "2\n");
    let run = newest(&site);
    succeeds(&site, &["resolve", &run, "pre_sql 01.sql", "--as", "absent", "--reason", "I looked"]);
    succeeds(&site, &["continue", &run]);
    assert_eq!(sql(&site, DAY, "SELECT count(*) FROM log"), "3\n");
    assert_eq!(marks(&site), marks_before);
}

#[test]
fn a_run_killed_in_a_file_can_be_rolled_back_while_nothing_took_effect() {
    let site = site();
    let before = (Traces::of(&site), marks(&site));
    let gate = Gate::new(&site, "post", "01.sql", "CREATE TABLE log ();");
    let mut program = site.spawn(&["postsql", &site.section()]).unwrap();
    let waiting = gate.wait(&mut program);
    program.kill().unwrap();
    drop(waiting);
    succeeds(&site, &["rollback", &newest(&site)]);
    assert_eq!(last_run(&site)["status"], "rolled_back");
    assert_eq!(sql(&site, DAY, "SELECT to_regclass('log')"), "\n");
    assert_eq!((Traces::of(&site), marks(&site)), before);
}

#[test]
fn a_copy_that_was_made_anew_meanwhile_is_not_taken_for_the_one_that_the_run_began_with() {
    let site = site();
    let gate = Gate::new(&site, "post", "01.sql", "CREATE TABLE log ();");
    let mut program = site.spawn(&["postsql", &site.section()]).unwrap();
    let waiting = gate.wait(&mut program);
    program.kill().unwrap();
    drop(waiting);
    let copy = site.copy(DAY);
    let renew = format!("DROP DATABASE {copy} WITH (FORCE);\nCREATE DATABASE {copy};");
    site.cluster().psql("postgres", &renew).unwrap();
    let outcome = site.run(&["continue", &site.section()]).unwrap();
    ends(
        &site,
        &outcome,
        1,
        "postsql shop.dev failed, and what it had done is undone (run <run>): database shop_20261121 is not the one that this run began with\n\
         cause: another of that name was made meanwhile, or it is gone\n\
         hint: look at it, and start again if it is meant",
    );
    assert_eq!(sql(&site, DAY, "SELECT to_regclass('log')"), "\n");
}

#[test]
fn vacuumdb_vacuums_and_analyzes_the_active_copy_or_the_one_of_a_date() {
    let site = site();
    let section = site.section();
    for day in [EARLIER, DAY] {
        // By nobody but us.
        let made = "CREATE TABLE t WITH (autovacuum_enabled = false) AS SELECT generate_series(1, 100) AS n";
        sql(&site, day, made);
    }
    let marks_before = marks(&site);
    let planned = succeeds(&site, &["-n", "vacuumdb", &section]);
    says(
        &plain(&site, &planned.stdout),
        "vacuumdb shop.dev would make these steps on 127.0.0.1:\n\
         \x20 1  preflight        look at PostgreSQL on 127.0.0.1\n\
         \x20 2  vacuum           VACUUM ANALYZE shop_20261121\n",
    );
    let known = "SELECT relpages > 0 AND reltuples = 100, (SELECT count(*) FROM pg_statistic \
                 WHERE starelid = 't'::regclass) FROM pg_class WHERE relname = 't'";
    assert_eq!(sql(&site, DAY, known), "f|0\n");
    let outcome = succeeds(&site, &["vacuumdb", &section]);
    says(
        &plain(&site, &outcome.stdout),
        "vacuumdb shop.dev: shop_20261121 is vacuumed and analyzed (run <run>, <seconds> s)\n",
    );
    assert_eq!(sql(&site, DAY, known), "t|1\n");
    assert_eq!(sql(&site, EARLIER, known), "f|0\n");
    succeeds(&site, &["vacuumdb", &section, EARLIER]);
    assert_eq!(sql(&site, EARLIER, known), "t|1\n");
    assert_eq!(marks(&site), marks_before);
    fails(
        &site,
        &["vacuumdb", &section, "20010101"],
        6,
        "there is no database shop_20010101\n\
         hint: pg_staging databases shop.dev lists those there are; pg_staging restore shop.dev 20010101 makes this one",
    );
}

#[test]
fn a_killed_vacuum_is_ended_on_the_server_and_done_again() {
    let site = site();
    sql(&site, DAY, "CREATE TABLE t AS SELECT 1 AS n");
    let blocker = "BEGIN; LOCK TABLE t; SELECT pg_sleep(600);";
    let mut client = site.cluster().client("psql");
    let mut client =
        client.args(["-Xq", "-d", &site.copy(DAY), "-c", blocker]).stderr(Stdio::null()).spawn().unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'VACUUM%' AND wait_event_type = 'Lock' \
                 AND datname = current_database()";
    let program = site.spawn(&["vacuumdb", &site.section()]).unwrap();
    let limit = Duration::from_secs(60);
    wait_until("VACUUM to wait for the table", limit, || sql(&site, DAY, waits) == "1\n").unwrap();
    program.kill().unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE t%' \
               AND datname = current_database()";
    sql(&site, DAY, end);
    client.wait().unwrap();
    succeeds(&site, &["continue", &site.section()]);
    let known = "SELECT count(*) FROM pg_statistic WHERE starelid = 't'::regclass";
    assert_eq!(sql(&site, DAY, known), "1\n");
}

/// What is set for a copy, as the server stores it.
fn set_for(site: &Site<'_>, day: &str) -> String {
    let config = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 0 AND setdatabase = \
                  (SELECT oid FROM pg_database WHERE datname = current_database())";
    sql(site, day, config)
}

#[test]
fn search_path_is_set_as_configured_and_rollback_sets_what_was_set_before() {
    let mut site = site();
    let section = site.section();
    is_refused(
        &site,
        &["search_path", &section],
        2,
        "search_path is not configured for [shop.dev]\n\
         hint: add `search_path = public, …` to [shop.dev] or [DEFAULT]",
    );
    site.set("search_path", "sales, Odd Name, public").unwrap();
    let marks_before = marks(&site);
    let planned = succeeds(&site, &["-n", "search_path", &section]);
    says(
        &plain(&site, &planned.stdout),
        "search_path shop.dev would make these steps on 127.0.0.1:\n\
         \x20 1  preflight        look at PostgreSQL on 127.0.0.1\n\
         \x20 2  search_path      set search_path of shop_20261121 to sales, Odd Name, public\n",
    );
    // Nothing was set before, an empty one, and one with quotes.
    for (before, stored) in [
        (None, String::new()),
        (Some("''"), "{\"search_path=\\\"\\\"\"}\n".to_owned()),
        (
            Some("'$user', \"a \"\"b\", public"),
            "{\"search_path=\\\"$user\\\", \\\"a \\\"\\\"b\\\", public\"}\n".to_owned(),
        ),
    ] {
        if let Some(before) = before {
            sql(&site, DAY, &format!("ALTER DATABASE {} SET search_path TO {before}", site.copy(DAY)));
        }
        assert_eq!(set_for(&site, DAY), stored);
        let outcome = succeeds(&site, &["search_path", &section]);
        says(
            &plain(&site, &outcome.stdout),
            "search_path shop.dev: search_path of shop_20261121 is sales, \"Odd Name\", public (run <run>, <seconds> s)\n",
        );
        assert_eq!(sql(&site, DAY, "SHOW search_path"), "sales, \"Odd Name\", public\n");
        succeeds(&site, &["rollback", &newest(&site), "--yes"]);
        assert_eq!(set_for(&site, DAY), stored);
    }
    succeeds(&site, &["search_path", &section, EARLIER]);
    assert_eq!(sql(&site, EARLIER, "SHOW search_path"), "sales, \"Odd Name\", public\n");
    let outcome = succeeds(&site, &["search_path", &section, EARLIER]);
    says(
        &plain(&site, &outcome.stdout),
        "search_path shop.dev: search_path of shop_20261119 is sales, \"Odd Name\", public already (run <run>, <seconds> s)\n",
    );
    assert_eq!(marks(&site), marks_before);

    // What somebody has set since stays.
    succeeds(&site, &["search_path", &section]);
    sql(&site, DAY, &format!("ALTER DATABASE {} SET search_path TO mine", site.copy(DAY)));
    succeeds(&site, &["rollback", &newest(&site), "--yes"]);
    assert_eq!(sql(&site, DAY, "SHOW search_path"), "mine\n");
    let run = inspected(&site);
    assert_eq!(step(&run, "search_path")["status"], "undone");
}
