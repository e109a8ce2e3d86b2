//! What is asked of the configuration, PostgreSQL and pgbouncer: `databases`, `dbsize`, `dbsizes`, `show`, `pgbouncer`
//! and `get`.

use std::fs;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    stage::{Outcome, Scale, Site, SiteOptions, Stage},
    traces::{Traces, error, json as ask, plain, says, succeeds},
};

const DAYS: [&str; 3] = ["20261119", "20261120", "20261121"];

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

/// A site with empty copies of [`DAYS`], the middle one active.
fn site_with_copies() -> Site<'static> {
    let site = site();
    for day in DAYS {
        succeeds(&site, &["createdb", &site.section(), day]);
    }
    succeeds(&site, &["switch", &site.section(), DAYS[1]]);
    site
}

/// A question that must fail with this exit code and in these words, and leave nothing but its end in the journal.
#[track_caller]
fn is_answered_with(site: &Site<'_>, arguments: &[&str], code: i32, said: &str) {
    let before = Traces::of(site);
    let outcome = site.run(arguments).unwrap();
    says(&error(site, &outcome), said);
    assert_eq!(outcome.code, code, "{outcome}");
    assert_eq!(Traces::of(site), before);
    let run = last_question(site);
    assert_eq!((&run["command"], &run["status"]), (&json!(arguments[0]), &json!("failed")));
    assert_eq!(run["error"]["code"], code);
}

fn last_question(site: &Site<'_>) -> Value {
    ask(site, &["history", "--all", "--limit", "1"])["runs"][0].clone()
}

/// The words of a table, line by line.
fn words(outcome: &Outcome) -> Vec<Vec<&str>> {
    outcome.stdout.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn databases_lists_the_sections_without_a_server_and_a_broken_one_with_its_fault() {
    let mut site = site();
    site.bouncer_mut().stop().unwrap();
    let ini = fs::read_to_string(site.ini_path()).unwrap();
    let more = "\n[crm.dev]\nhost = staging.example.com\ndbname = crm\nretry_limit = soon\n\n[bare]\n";
    fs::write(site.ini_path(), format!("{ini}{more}")).unwrap();
    site.set_env("PATH", "/nonexistent");
    let outcome = succeeds(&site, &["databases"]);
    let section = site.section();
    assert_eq!(
        words(&outcome),
        [
            vec!["SECTION", "DATABASE", "HOST"],
            vec![&section, site.dbname(), "127.0.0.1"],
            vec!["crm.dev", "crm", "staging.example.com"],
            vec!["bare"],
        ]
    );
    let told = plain(&site, &outcome.stderr);
    let missing = "<site>/pg_staging.ini: section [crm.dev] lacks backup_host, backup_base_url, dbowner";
    assert!(told.contains(&format!("warning: {missing}")), "{told}");
    assert!(told.contains("section [bare] lacks "), "{told}");

    let answer = ask(&site, &["databases"]);
    let rows = answer["databases"].as_array().unwrap();
    assert_eq!(answer["schema"], 1);
    assert_eq!(
        rows[0],
        json!({ "section": section, "database": site.dbname(), "host": "127.0.0.1", "fault": null })
    );
    assert_eq!((&rows[2]["section"], &rows[2]["host"]), (&json!("bare"), &Value::Null));
    assert!(rows[1]["fault"].as_str().unwrap().contains("backup_host"), "{answer}");
    // It asks nobody, and so it is not among what was asked.
    assert_eq!(ask(&site, &["history", "--all"])["runs"], json!([]));
}

#[test]
fn databases_lists_the_copies_of_a_section_with_the_active_one_and_who_made_them() {
    let site = site_with_copies();
    let section = site.section();
    // Somebody's own, by its name a copy; and a neighbour, by its name none.
    let other = site.copy("20261201");
    let neighbour = format!("{}_extra_20261201", site.dbname());
    for name in [&other, &neighbour] {
        site.cluster().psql("postgres", &format!("CREATE DATABASE {name}")).unwrap();
    }
    let answer = ask(&site, &["databases", &section]);
    let rows = answer["databases"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, [&other, &site.copy(DAYS[2]), &site.copy(DAYS[1]), &site.copy(DAYS[0])]);
    let active: Vec<&Value> = rows.iter().map(|row| &row["active"]).collect();
    assert_eq!(active, [&json!(false), &json!(false), &json!(true), &json!(false)]);
    assert_eq!(rows[1]["date"], "2026-11-21");
    assert_eq!((&rows[0]["run"], &rows[0]["made_at"]), (&Value::Null, &Value::Null));
    let runs = ask(&site, &["history", "--command", "createdb"]);
    let (made, before) = (&runs["runs"][0], &runs["runs"][1]);
    assert_eq!(rows[1]["run"], made["id"]);
    // The id is made a moment before the first event.
    let moment = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let made_at = moment(&rows[1]["made_at"]);
    assert!(moment(&before["finished_at"]) < made_at && made_at <= moment(&made["started_at"]), "{answer}");
    let bytes = site.cluster().psql("postgres", &format!("SELECT pg_database_size('{other}')")).unwrap();
    assert_eq!(rows[0]["bytes"].to_string(), bytes.trim());

    let table = succeeds(&site, &["databases", &section]);
    let table = words(&table);
    assert_eq!(table[0], ["NAME", "DATE", "SIZE", "ACTIVE", "RUN", "MADE", "PROTECTED"]);
    assert_eq!(table[3][..2], [site.copy(DAYS[1]).as_str(), "2026-11-20"]);
    assert_eq!(table[3][4], "yes");
    assert_eq!(last_question(&site)["arguments"], json!([section]));

    for (which, day) in [("latest", "20261201"), ("oldest", DAYS[0])] {
        let answer = ask(&site, &["databases", &section, which]);
        assert_eq!(answer["databases"].as_array().unwrap().len(), 1);
        assert_eq!(answer["databases"][0]["name"], site.copy(day));
    }
    site.cluster().psql("postgres", &format!("DROP DATABASE {neighbour}")).unwrap();
}

#[test]
fn databases_says_what_is_missing_and_shows_the_copies_without_pgbouncer() {
    let mut site = site();
    let section = site.section();
    assert_eq!(ask(&site, &["databases", &section])["databases"], json!([]));
    is_answered_with(
        &site,
        &["databases", &section, "latest"],
        6,
        "there is no copy of shop on 127.0.0.1\n\
         hint: pg_staging restore shop.dev makes one",
    );
    let outcome = site.run(&["databases", "shoop.dev"]).unwrap();
    assert_eq!(outcome.code, 6, "{outcome}");
    assert_eq!(site.run(&["databases", &section, "newest"]).unwrap().code, 2);

    succeeds(&site, &["createdb", &section, DAYS[0]]);
    site.bouncer_mut().stop().unwrap();
    let outcome = site.run(&["databases", &section, "--json"]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(answer["databases"][0]["name"], site.copy(DAYS[0]));
    assert_eq!(answer["databases"][0]["active"], Value::Null);
    let told = error(&site, &outcome);
    assert!(told.starts_with("which copy shop points at could not be found out\ncause: "), "{told}");
    assert_eq!(last_question(&site)["status"], "failed");
    site.bouncer_mut().start_again().unwrap();
}

#[test]
fn dbsize_is_what_pg_size_pretty_shows_of_the_active_copy_or_another() {
    let site = site_with_copies();
    let section = site.section();
    site.cluster()
        .psql(&site.copy(DAYS[2]), "CREATE TABLE filler AS SELECT generate_series(1, 200000) AS n")
        .unwrap();
    let size_of = |day: &str, function: &str| {
        let sql = format!("SELECT {function}(pg_database_size('{}'))", site.copy(day));
        site.cluster().psql("postgres", &sql).unwrap()
    };
    assert_eq!(succeeds(&site, &["dbsize", &section]).stdout, size_of(DAYS[1], "pg_size_pretty"));
    for date in [DAYS[2], "2026-11-21", "latest"] {
        assert_eq!(succeeds(&site, &["dbsize", &section, date]).stdout, size_of(DAYS[2], "pg_size_pretty"));
    }
    let bytes: u64 = size_of(DAYS[2], "").trim().parse().unwrap();
    assert_eq!(
        ask(&site, &["dbsize", &section, "latest"]),
        json!({ "schema": 1, "dbsize": [{ "name": site.copy(DAYS[2]), "date": "2026-11-21", "bytes": bytes }] })
    );
    is_answered_with(
        &site,
        &["dbsize", &section, "20261231"],
        6,
        "there is no database shop_20261231 on 127.0.0.1\n\
         hint: pg_staging databases shop.dev lists those there are",
    );
    is_answered_with(
        &site,
        &["dbsize", &section, "soon"],
        2,
        "`soon` is not a date\n\
         hint: give YYYYMMDD, YYYY-MM-DD, or one of today, yesterday, latest, oldest, active",
    );
}

#[test]
fn dbsizes_shows_every_copy_of_the_sections_and_tells_those_that_cannot_be_asked() {
    let site = site_with_copies();
    let (section, dbname) = (site.section(), site.dbname());
    let names = |answer: &Value| -> Vec<String> {
        let rows = answer["dbsizes"].as_array().unwrap();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let newest_first = [site.copy(DAYS[2]), site.copy(DAYS[1]), site.copy(DAYS[0])];
    for arguments in [vec!["--all"], vec![section.as_str()], vec!["--match", r"^shop\d+\.dev$"]] {
        let answer = ask(&site, &[&["dbsizes"], &arguments[..]].concat());
        assert_eq!(names(&answer), newest_first, "{arguments:?}");
        assert_eq!(answer["dbsizes"][0]["section"], section.as_str());
    }
    let total = format!(
        "SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database WHERE datname LIKE '{dbname}\\_%'"
    );
    let total = site.cluster().psql("postgres", &total).unwrap();
    let table = succeeds(&site, &["dbsizes", "--all"]);
    let last = table.stdout.lines().last().unwrap();
    assert!(last.trim().starts_with("total") && last.ends_with(total.trim()), "{table}");

    // One section that nobody answers for, and one that is not whole.
    let ini = fs::read_to_string(site.ini_path()).unwrap();
    let away = ini.split_once('[').unwrap().1.split_once(&format!("[{section}]")).unwrap().1.to_owned();
    let away = away
        .replace(&format!("postgres_port = {}", site.cluster().port()), "postgres_port = 1")
        .replace(&format!("pgbouncer_port = {}", site.bouncer().port()), "pgbouncer_port = 1");
    fs::write(site.ini_path(), format!("{ini}\n[away.dev]{away}\n[bare]\nhost = 127.0.0.1\n")).unwrap();
    let outcome = site.run(&["dbsizes", "--all", "--json"]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert_eq!(names(&serde_json::from_str(&outcome.stdout).unwrap()), newest_first);
    let told = error(&site, &outcome);
    assert!(told.starts_with("2 of 3 sections could not be asked\ncause: away.dev: "), "{told}");
    assert!(told.contains("cannot reach PostgreSQL on 127.0.0.1") && told.contains("\nbare: "), "{told}");
    assert_eq!(last_question(&site)["error"]["code"], 1);
    // Those that are not asked for do not matter.
    assert_eq!(names(&ask(&site, &["dbsizes", &section])), newest_first);

    for (arguments, code) in [
        (&["dbsizes"][..], 2),
        (&["dbsizes", "--all", &section], 2),
        (&["dbsizes", "--match", "["], 2),
        (&["dbsizes", "--match", "crm"], 6),
        (&["dbsizes", &section, "shoop.dev"], 6),
    ] {
        let outcome = site.run(arguments).unwrap();
        assert_eq!(outcome.code, code, "{arguments:?}: {outcome}");
    }
}

#[test]
fn show_is_the_setting_as_it_is_in_that_copy() {
    let site = site_with_copies();
    let section = site.section();
    for (day, value) in [(DAYS[1], "7MB"), (DAYS[2], "9MB")] {
        let sql = format!("ALTER DATABASE {} SET work_mem = '{value}'", site.copy(day));
        site.cluster().psql("postgres", &sql).unwrap();
    }
    assert_eq!(succeeds(&site, &["show", &section, "work_mem"]).stdout, "7MB\n");
    assert_eq!(succeeds(&site, &["show", &section, DAYS[2], "work_mem"]).stdout, "9MB\n");
    assert_eq!(succeeds(&site, &["show", &section, "latest", "WORK_MEM"]).stdout, "9MB\n");
    assert_eq!(
        ask(&site, &["show", &section, "work_mem"]),
        json!({ "schema": 1, "show": [{ "database": site.copy(DAYS[1]), "setting": "work_mem", "value": "7MB" }] })
    );
    is_answered_with(
        &site,
        &["show", &section, "wrok_mem"],
        6,
        "PostgreSQL on 127.0.0.1 has no setting 'wrok_mem'\n\
         hint: pg_staging psql shop.dev -- -c '\\dconfig *' lists them",
    );
    // What is typed is a name, and nothing else.
    is_answered_with(
        &site,
        &["show", &section, "a'; DROP DATABASE x --"],
        6,
        "PostgreSQL on 127.0.0.1 has no setting 'a'; DROP DATABASE x --'\n\
         hint: pg_staging psql shop.dev -- -c '\\dconfig *' lists them",
    );
    is_answered_with(
        &site,
        &["show", &section, "20261231", "work_mem"],
        6,
        "there is no database shop_20261231 on 127.0.0.1\n\
         hint: pg_staging databases shop.dev lists those there are",
    );
    assert_eq!(site.run(&["show", &section]).unwrap().code, 2);
}

#[test]
fn without_an_active_copy_a_command_that_means_it_says_how_to_get_one() {
    let site = site();
    succeeds(&site, &["createdb", &site.section(), DAYS[0]]);
    for arguments in [&["dbsize", &site.section()][..], &["show", &site.section(), "work_mem"]] {
        is_answered_with(
            &site,
            arguments,
            6,
            "no copy is active\n\
             hint: `switch <dbname> <date>` makes a copy active; `databases <dbname>` lists them",
        );
    }
}

#[test]
fn pgbouncer_shows_the_entries_of_the_alias_and_its_copies() {
    let site = site_with_copies();
    let section = site.section();
    site.bouncer().psql(site.dbname(), "SELECT 1").unwrap();
    site.bouncer().admin(&format!("DISABLE {}", site.copy(DAYS[0]))).unwrap();
    let answer = ask(&site, &["pgbouncer", &section]);
    let rows = answer["pgbouncer"].as_array().unwrap();
    let expected: Vec<String> =
        [site.dbname().to_owned()].into_iter().chain(DAYS.iter().rev().map(|day| site.copy(day))).collect();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, expected);
    assert_eq!(
        rows[0],
        json!({
            "name": site.dbname(),
            "host": "127.0.0.1",
            "port": site.cluster().port(),
            "database": site.copy(DAYS[1]),
            "pool_mode": null,
            "connections": 1,
            "max_connections": null,
            "pool_size": 20,
            "paused": false,
            "disabled": false,
        })
    );
    assert_eq!(rows[3]["disabled"], true);
    let table = succeeds(&site, &["pgbouncer", &section]);
    let table = words(&table);
    assert_eq!(table[0].join(" "), "NAME HOST PORT DATABASE POOL MODE CONNECTIONS PAUSED DISABLED");
    assert_eq!(table[1][3..], [site.copy(DAYS[1]).as_str(), "1", "no", "no"]);

    for (which, day) in [("latest", DAYS[2]), ("oldest", DAYS[0])] {
        let answer = ask(&site, &["pgbouncer", &section, which]);
        assert_eq!(answer["pgbouncer"].as_array().unwrap().len(), 1);
        assert_eq!(answer["pgbouncer"][0]["name"], site.copy(day));
    }
    site.bouncer().admin(&format!("ENABLE {}", site.copy(DAYS[0]))).unwrap();
}

#[test]
fn pgbouncer_says_what_is_missing() {
    let mut site = site();
    assert_eq!(ask(&site, &["pgbouncer", &site.section()])["pgbouncer"], json!([]));
    is_answered_with(
        &site,
        &["pgbouncer", &site.section(), "oldest"],
        6,
        "pgbouncer on 127.0.0.1:<port> has no entry of a copy of shop\n\
         hint: pg_staging databases shop.dev lists the copies",
    );
    site.bouncer_mut().stop().unwrap();
    let outcome = site.run(&["pgbouncer", &site.section()]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    let told = error(&site, &outcome);
    assert!(told.starts_with("cannot reach pgbouncer's console on 127.0.0.1:<port>\ncause: "), "{told}");
    site.bouncer_mut().start_again().unwrap();
}

#[test]
fn get_shows_a_value_and_where_it_comes_from() {
    let mut site = site();
    site.set("keep_bases", "5").unwrap();
    let section = site.section();
    let get = |arguments: &[&str]| {
        let outcome = succeeds(&site, &[&["get"], arguments].concat());
        (plain(&site, &outcome.stdout), plain(&site, &outcome.stderr))
    };
    let pair = |value: &str, from: &str| (format!("{value}\n"), format!("{from}\n"));
    let line = |start: &str| {
        let ini = fs::read_to_string(site.ini_path()).unwrap();
        ini.lines().position(|line| line.starts_with(start)).unwrap() + 1
    };
    let here = format!("<site>/pg_staging.ini:{}", line("keep_bases"));
    assert_eq!(get(&[&section, "keep_bases"]), pair("5", &here));
    assert_eq!(get(&[&section, "Keep_Bases"]), pair("5", &here));
    let there = format!("<site>/pg_staging.ini:{}, [DEFAULT]", line("journal"));
    assert_eq!(get(&[&section, "journal"]), pair("<site>/journal", &there));
    assert_eq!(get(&["DEFAULT", "journal"]), pair("<site>/journal", &there));
    assert_eq!(get(&[&section, "on_failure"]), pair("rollback", "built-in default"));
    assert_eq!(get(&[&section, "tmpdir", "-t", "/var/tmp"]), pair("/var/tmp", "-t on the command line"));
    assert_eq!(get(&[&section, "keep_bases", "-q"]), ("5\n".to_owned(), String::new()));

    assert_eq!(
        ask(&site, &["get", &section, "keep_bases"])["get"],
        json!([{
            "option": "keep_bases",
            "value": "5",
            "origin": "section",
            "file": site.ini_path().display().to_string(),
            "line": line("keep_bases"),
            "from": format!("{}:{}", site.ini_path().display(), line("keep_bases")),
        }])
    );
    let answer = ask(&site, &["get", &section]);
    let all = answer["get"].as_array().unwrap();
    assert_eq!(all.len(), pg_staging::config::OPTIONS.len());
    let of = |name: &str| all.iter().find(|row| row["option"] == name).unwrap();
    assert_eq!((&of("dumpall_url")["value"], &of("dumpall_url")["origin"]), (&Value::Null, &Value::Null));
    assert_eq!((&of("maintdb")["value"], &of("maintdb")["origin"]), (&json!("postgres"), &json!("built_in")));
    let table = succeeds(&site, &["get", &section]).stdout;
    assert!(table.lines().next().unwrap().split_whitespace().eq(["OPTION", "VALUE", "FROM"]), "{table}");

    for (arguments, code, said) in [
        (["get", &section, "dumpall_url"], 2, "section [shop.dev] has no option dumpall_url"),
        (["get", &section, "keep_base"], 2, "section [shop.dev] has no option keep_base"),
        (["get", "shoop.dev", "host"], 6, "no section [shoop.dev]"),
    ] {
        let outcome = site.run(&arguments).unwrap();
        assert_eq!(outcome.code, code, "{outcome}");
        assert!(error(&site, &outcome).contains(said), "{outcome}");
    }
}

#[test]
fn get_never_shows_a_password() {
    let mut site = site();
    site.set("backup_word", "hunter2").unwrap();
    site.set("backup_name", "keeper").unwrap();
    let host = "https://keeper:hunter2@backups.example.com?token=tulip";
    site.set("backup_host", host).unwrap();
    let section = site.section();
    assert_eq!(
        succeeds(&site, &["get", &section, "backup_host"]).stdout,
        "https://***@backups.example.com?***\n"
    );
    for arguments in [
        vec!["get", &section],
        vec!["get", &section, "backup_host"],
        vec!["get", &section, "backup_word"],
        vec!["get", &section, "backup_name"],
        vec![
            "get",
            &section,
            "journal",
            "--journal",
            "postgres://keeper:hunter2@db.example.com/runs?token=tulip",
        ],
    ] {
        for json in [&[][..], &["--json"]] {
            let outcome = succeeds(&site, &[&arguments[..], json].concat());
            for secret in ["hunter2", "tulip", "keeper"] {
                assert!(!outcome.to_string().contains(secret), "{arguments:?}: {outcome}");
            }
        }
    }
}

#[test]
fn a_restored_copy_is_listed_as_made_by_its_restore() {
    let options = SiteOptions { scale: Scale::Small, ..SiteOptions::default() };
    let site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    succeeds(&site, &["restore", &site.section(), "20261121"]);
    let answer = ask(&site, &["databases", &site.section()]);
    let run = &ask(&site, &["history", "--command", "restore"])["runs"][0]["id"];
    assert_eq!((&answer["databases"][0]["run"], &answer["databases"][0]["active"]), (run, &json!(true)));
}

#[test]
fn an_unknown_option_is_a_warning_with_the_nearest_name_that_there_is() {
    let mut site = site();
    site.set("restore_job", "2").unwrap();
    let outcome = succeeds(&site, &["databases"]);
    let warning = plain(&site, &outcome.stderr);
    let told = "option restore_job (line ";
    assert!(warning.contains(told), "{outcome}");
    says(
        warning.split_once("): ").unwrap().1,
        "is not an option of pg_staging, and no other value uses it; did you mean restore_jobs?\n",
    );
    assert_eq!(succeeds(&site, &["-q", "databases"]).stderr, "");
}
