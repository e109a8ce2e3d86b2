//! The single steps as commands of their own, what they refuse, and `-n`, which changes nothing.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use crate::{
    gate::Gate,
    stage::{Scale, Serving, Site, SiteOptions, Stage, binary, fingerprint, source_database, wait_until},
    traces::{Traces, error, fails, inspected, is_refused, last_run, names_in, plain, says, step, succeeds},
};

const DAY: &str = "20261121";

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

/// A site with backups of these days, and this day in the time zone that the program runs in.
fn site_with_backups(dates: &[Date]) -> Site<'static> {
    let dates = dates.iter().map(ToString::to_string).collect();
    Site::new(Stage::shared().unwrap(), &SiteOptions { dates, ..SiteOptions::default() }).unwrap()
}

fn today() -> Date {
    Timestamp::now().to_zoned_datetime(TimeZone::UTC).date()
}

fn compact(date: Date) -> String {
    date.to_string().replace('-', "")
}

/// The copy is there and reached under its own name; an empty one has no tables.
#[track_caller]
fn is_empty_copy(site: &Site<'_>, date: &str) {
    let copy = site.copy(date);
    let tables = "SELECT count(*) AS tables FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(site.bouncer().psql(&copy, tables).unwrap(), "tables\n0\n");
}

#[test]
fn fetch_leaves_the_dump_of_the_day_that_a_word_or_a_date_means() {
    let (today, yesterday) = (today(), today() - 1.day());
    let days = [yesterday - 2.days(), yesterday, today, today + 3.days()];
    let site = site_with_backups(&days);
    let mut expected = Vec::new();
    for (typed, day) in [
        (None, today),
        (Some("yesterday".to_owned()), yesterday),
        (Some("oldest".to_owned()), days[0]),
        (Some("latest".to_owned()), days[3]),
        (Some(compact(yesterday)), yesterday),
        (Some(today.to_string()), today),
    ] {
        let section = site.section();
        let arguments: Vec<&str> = ["fetch", &section].into_iter().chain(typed.as_deref()).collect();
        let outcome = succeeds(&site, &arguments);
        let name = site.backup_name(&day.to_string());
        let file = site.tmpdir().join(&name);
        assert!(outcome.stdout.contains(&file.display().to_string()), "{outcome}");
        assert!(fs::read(&file).unwrap() == fs::read(site.dump()).unwrap(), "{name} differs");
        expected.push(name);
        expected.sort();
        expected.dedup();
        assert_eq!(names_in(&site.tmpdir()), expected);
    }
    assert_eq!(Traces::of(&site).databases, Vec::<String>::new());

    // A file of that name that is something else is left alone.
    let file = site.tmpdir().join(site.backup_name(&today.to_string()));
    fs::write(&file, "somebody's").unwrap();
    fails(
        &site,
        &["fetch", &site.section()],
        1,
        "<site>/tmp/shop.2026-11-24.dump exists already, and is not this backup\n\
         hint: move it away, then try again",
    );
    assert_eq!(fs::read(&file).unwrap(), b"somebody's");
}

#[test]
fn load_takes_the_date_from_the_files_name_or_as_it_is_told() {
    let site = site();
    let production = fingerprint(site.cluster(), &source_database(Scale::Small)).unwrap();
    let named = site.folder().join(format!("{}.2026-11-18.dump", site.dbname()));
    fs::copy(site.dump(), &named).unwrap();
    succeeds(&site, &["load", &site.section(), &named.display().to_string()]);
    assert_eq!(fingerprint(site.cluster(), &site.copy("20261118")).unwrap(), production);
    assert_eq!(site.active().unwrap(), Some(site.copy("20261118")));
    assert!(named.exists());

    // A path from the working folder, and an empty copy that createdb made before.
    fs::copy(site.dump(), site.folder().join("some.dump")).unwrap();
    is_refused(
        &site,
        &["load", &site.section(), "some.dump"],
        2,
        "the name of some.dump does not tell a date\n\
         hint: name it shop.YYYY-MM-DD.dump, or add --date YYYYMMDD",
    );
    succeeds(&site, &["createdb", &site.section(), "2026-11-19"]);
    succeeds(&site, &["load", &site.section(), "some.dump", "--date", "2026-11-19"]);
    assert_eq!(fingerprint(site.cluster(), &site.copy("20261119")).unwrap(), production);
    assert_eq!(site.active().unwrap(), Some(site.copy("20261119")));
    assert_eq!(names_in(&site.tmpdir()), Vec::<String>::new());

    fails(
        &site,
        &["load", &site.section(), "some.dump", "--date", "2026-11-19"],
        1,
        "shop_20261119 is the active copy: shop points at it\n\
         hint: switch to another copy first (pg_staging switch shop.dev <date>)",
    );
    fails(
        &site,
        &["load", &site.section(), "none.dump", "--date", "20261117"],
        6,
        "there is no file <site>/none.dump\n\
         hint: name a dump made by pg_dump -Fc",
    );
    fs::write(site.folder().join("not.dump"), "a letter").unwrap();
    fails(
        &site,
        &["load", &site.section(), "not.dump", "--date", "20261117"],
        1,
        "<site>/not.dump is not a dump that can be restored\n\
         cause: not a custom-format PostgreSQL archive but data of an unknown kind\n\
         hint: make the backup with pg_dump -Fc, and check that the download is complete",
    );
}

#[test]
fn an_empty_copy_that_load_took_over_is_given_back_when_it_fails() {
    let site = site();
    succeeds(&site, &["createdb", &site.section(), DAY]);
    site.add_sql("post", "bad.sql", "SELECT nonsense;\n").unwrap();
    let dump = site.dump().display().to_string();
    fails(
        &site,
        &["load", &site.section(), &dump, "--date", DAY],
        1,
        "<site>/sql/shop.dev/post/bad.sql failed\n\
         cause: psql:<site>/sql/shop.dev/post/bad.sql:1: ERROR:  column \"nonsense\" does not exist\n\
         LINE 1: SELECT nonsense;\n\
         ^\n\
         hint: correct the file, then try again; the alias was not touched",
    );
    is_empty_copy(&site, DAY);
}

#[test]
fn createdb_makes_an_empty_copy_and_its_entry_and_switch_moves_the_alias_by_word_or_date() {
    let site = site();
    let (today, yesterday) = (today(), today() - 1.day());
    let oldest = yesterday - 5.days();
    let section = site.section();
    succeeds(&site, &["createdb", &section]);
    is_empty_copy(&site, &compact(today));
    assert_eq!(site.active().unwrap(), None);
    succeeds(&site, &["createdb", &section, "yesterday"]);
    succeeds(&site, &["createdb", &section, &oldest.to_string()]);
    for (typed, day) in [
        (None, today),
        (Some("oldest".to_owned()), oldest),
        (Some("latest".to_owned()), today),
        (Some("yesterday".to_owned()), yesterday),
        (Some(compact(oldest)), oldest),
        (Some("active".to_owned()), oldest),
    ] {
        let arguments: Vec<&str> = ["switch", &section].into_iter().chain(typed.as_deref()).collect();
        let outcome = succeeds(&site, &arguments);
        let copy = site.copy(&day.to_string());
        assert_eq!(site.active().unwrap().as_ref(), Some(&copy), "{outcome}");
        let line = |line: &str| line.starts_with(&format!("{} = ", site.dbname())) && line.contains(&copy);
        assert!(Traces::of(&site).ini.lines().any(line));
    }
    let reason = step(&inspected(&site), "switch")["detail"]["skipped"].clone();
    assert_eq!(
        plain(&site, reason.as_str().unwrap()),
        plain(&site, &format!("shop points at {} already", site.copy(&oldest.to_string())))
    );
    fails(
        &site,
        &["switch", &section, "20010101"],
        6,
        "there is no database shop_20010101\n\
         hint: pg_staging databases shop.dev lists those there are; pg_staging restore shop.dev 20010101 makes this one",
    );
}

#[test]
fn drop_takes_the_entry_and_the_database_and_never_the_active_one_unless_forced() {
    let site = site();
    let section = site.section();
    let before = Traces::of(&site);
    succeeds(&site, &["createdb", &section, "20261119"]);
    let one = Traces::of(&site);
    succeeds(&site, &["createdb", &section, DAY]);
    // Somebody is connected, and is not waited for.
    let outcome = succeeds(&site, &["drop", &section, DAY]);
    says(&plain(&site, &outcome.stdout), "drop shop.dev: shop_20261121 is gone (run <run>, <seconds> s)\n");
    assert_eq!(Traces::of(&site), one);
    fails(
        &site,
        &["drop", &section, DAY],
        6,
        "there is no database shop_20261121\n\
         hint: pg_staging databases shop.dev lists those there are; pg_staging restore shop.dev 20261121 makes this one",
    );

    succeeds(&site, &["switch", &section, "20261119"]);
    fails(
        &site,
        &["drop", &section, "20261119"],
        1,
        "shop_20261119 is the active copy: shop points at it\n\
         hint: switch to another copy first (pg_staging switch shop.dev <date>), or add --force",
    );
    fails(
        &site,
        &["drop", &section, "active"],
        1,
        "shop_20261119 is the active copy: shop points at it\n\
         hint: switch to another copy first (pg_staging switch shop.dev <date>), or add --force",
    );
    succeeds(&site, &["drop", &section, "20261119", "--force"]);
    let after = Traces::of(&site);
    assert_eq!(after.databases, before.databases);
    assert!(!after.aliases.contains_key(&site.copy("20261119")));
}

#[test]
fn drop_waits_for_nobody_who_is_connected() {
    let site = site();
    succeeds(&site, &["createdb", &site.section(), DAY]);
    let before = site.copies().unwrap();
    assert_eq!(before.len(), 1);
    let mut client = site.cluster().client("psql");
    client.args(["-Xq", "-d", &site.copy(DAY)]).stdin(Stdio::piped());
    let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let connected = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", site.copy(DAY));
    let limit = Duration::from_secs(60);
    wait_until("a client to be connected", limit, || {
        site.cluster().psql("postgres", &connected).unwrap() == "1\n"
    })
    .unwrap();
    succeeds(&site, &["drop", &site.section(), DAY]);
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
    drop(client.stdin.take());
    client.wait().unwrap();
}

#[test]
fn drop_never_takes_a_copy_that_a_run_is_working_on() {
    let site = site();
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let outcome = site.run(&["drop", &site.section(), DAY, "--force"]).unwrap();
    assert_eq!(outcome.code, 5, "{outcome}");
    assert_eq!(site.copies().unwrap(), [site.copy(DAY)]);
    drop(waiting);
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
}

#[test]
fn rollback_of_a_finished_restore_points_the_alias_back_and_takes_the_copy_away() {
    let site = site();
    let section = site.section();
    succeeds(&site, &["createdb", &section, "20261119"]);
    succeeds(&site, &["switch", &section, "20261119"]);
    let before = Traces::of(&site);
    succeeds(&site, &["restore", &section, DAY]);
    let restored = Traces::of(&site);
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();

    // There is nobody to ask here.
    is_refused(
        &site,
        &["rollback", &run],
        2,
        "there is nobody to ask: Undo the finished restore shop.dev 20261121 (run <run>)? Then the alias goes back, and the copy goes.\n\
         hint: add --yes if this is meant",
    );
    assert_eq!(Traces::of(&site), restored);
    let planned = succeeds(&site, &["-n", "rollback", &run]);
    says(
        &plain(&site, &planned.stdout),
        "run <run> (restore shop.dev 20261121) would make these steps:\n  1  undo cleanup\n  2  undo switch\n  3  undo check\n  4  undo vacuum\n  5  undo restore\n  6  undo catalog\n  7  undo contents\n  8  undo bouncer_add\n  9  undo create_database\n 10  undo preflight\n",
    );
    assert_eq!(Traces::of(&site), restored);

    let outcome = succeeds(&site, &["rollback", &run, "--yes"]);
    says(&plain(&site, &outcome.stdout), "restore shop.dev: undone (run <run>)\n");
    assert_eq!(Traces::of(&site), before);
    assert_eq!(last_run(&site)["status"], "rolled_back");
    is_refused(
        &site,
        &["rollback", &run, "--yes"],
        1,
        "run <run> is rolled_back: what it did is undone already",
    );
}

#[test]
fn rollback_under_a_newer_state_of_the_target_must_be_forced_and_leaves_what_came_later() {
    let site = site();
    let section = site.section();
    succeeds(&site, &["restore", &section, DAY]);
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    succeeds(&site, &["createdb", &section, "20261119"]);
    succeeds(&site, &["switch", &section, "20261119"]);
    is_refused(
        &site,
        &["rollback", &run, "--yes"],
        1,
        "run <run> is not the last one on its target: switch <run> came after it\n\
         hint: roll that one back first, or add --force",
    );
    succeeds(&site, &["rollback", &run, "--yes", "--force"]);
    assert_eq!(site.active().unwrap(), Some(site.copy("20261119")));
    assert_eq!(site.copies().unwrap(), [site.copy("20261119")]);
}

#[test]
fn rollback_of_a_finished_drop_is_refused_and_says_why() {
    let site = site();
    succeeds(&site, &["createdb", &site.section(), DAY]);
    succeeds(&site, &["drop", &site.section(), DAY]);
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    is_refused(
        &site,
        &["rollback", &run, "--yes"],
        1,
        "run <run> is succeeded: its step 'drop_database' took effect and cannot be taken back",
    );
    assert_eq!(last_run(&site)["status"], "succeeded");
}

#[test]
fn the_plan_is_printed_and_nothing_is_changed() {
    let options = SiteOptions { serving: Serving::Rude, ..SiteOptions::default() };
    let site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    let section = site.section();
    site.add_sql("post", "mask.sql", "SELECT 1;").unwrap();
    let dump = site.dump().display().to_string();
    let load: Vec<&str> = vec!["load", &section, &dump, "--date", DAY];
    let preflight_to_switch = [
        "preflight",
        "create_database",
        "bouncer_add",
        "catalog",
        "pre_sql",
        "restore",
        "search_path",
        "vacuum",
        "post_sql",
        "check",
        "switch",
        "cleanup",
    ];
    let mut restore = preflight_to_switch.to_vec();
    restore.splice(3..3, ["contents", "fetch"]);
    let cases: [(Vec<&str>, Vec<&str>); 7] = [
        (vec!["restore", &section, DAY], restore.clone()),
        (vec!["restore", &section, "latest"], restore),
        (load, preflight_to_switch.to_vec()),
        (vec!["fetch", &section, DAY], vec!["preflight", "fetch", "cleanup"]),
        (vec!["createdb", &section, DAY], vec!["preflight", "create_database", "bouncer_add", "cleanup"]),
        (vec!["switch", &section, DAY], vec!["preflight", "switch", "cleanup"]),
        (vec!["drop", &section, DAY], vec!["preflight", "bouncer_remove", "drop_database", "cleanup"]),
    ];
    let before = Traces::of(&site);
    for (arguments, steps) in cases {
        let text = succeeds(&site, &[&["-n"], arguments.as_slice()].concat());
        let listed: Vec<&str> =
            text.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(listed, steps, "{text}");
        let outcome = succeeds(&site, &[&["-n", "--json"], arguments.as_slice()].concat());
        let plan: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!((&plan["schema"], &plan["plan"]["command"]), (&json!(1), &json!(arguments[0])));
        assert_eq!(plan["plan"]["section"], section);
        assert_eq!(plan["plan"]["database"], site.copy(DAY));
        let named: Vec<&str> = plan["plan"]["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["name"].as_str().unwrap())
            .collect();
        assert_eq!(named, steps, "{outcome}");
        assert_eq!(Traces::of(&site), before);
        assert!(!site.journal().exists(), "{outcome}");
    }
    let asked = site.rude().unwrap().requests();
    assert!(asked.iter().all(|request| request.path.ends_with('/')), "{asked:?}");

    let text = succeeds(&site, &["-n", "restore", &section, DAY]);
    says(
        &plain(&site, &text.stdout),
        "restore shop.dev would make these steps on 127.0.0.1:\n  1  preflight        look at the backup http://127.0.0.1:<port>/shop/shop.2026-11-21.dump, PostgreSQL on 127.0.0.1, pgbouncer and <bouncer>/pgbouncer.ini, <bin>/pg_restore\n  2  create_database  create database shop_20261121, owned by staging_owner\n  3  bouncer_add      add shop_20261121 to <bouncer>/pgbouncer.ini on 127.0.0.1, and reload pgbouncer\n  4  contents         read what the backup holds, and see whether its parts can be loaded straight from the server\n  5  fetch            only if its parts cannot be loaded from the server: fetch the backup into <site>/tmp\n  6  catalog          decide which entries of the dump are restored, and by which of the pg_restores here\n  7  pre_sql          source <site>/sql/shop.dev/pre/*.sql in order of their names\n  8  restore          pg_restore those entries into shop_20261121 with 1 job\n  9  search_path      nothing: search_path is not configured\n 10  vacuum           VACUUM ANALYZE shop_20261121\n 11  post_sql         source <site>/sql/shop.dev/post/*.sql in order of their names\n 12  check            check that shop_20261121 has every table, valid indexes, validated constraints, sequences that are not behind, that *.sql in <site>/sql/shop.dev/check find nothing\n 13  switch           point shop at shop_20261121 in <bouncer>/pgbouncer.ini, and reload pgbouncer\n 14  cleanup          remove the files that were needed on the way\n",
    );
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_begins() {
    let mut site = site();
    let section = site.section();
    for arguments in [
        vec!["restore"],
        vec!["restore", &section, DAY, "more"],
        vec!["restoer", &section],
        vec!["-v", "-q", "restore", &section],
        vec!["--wait=soon", "restore", &section],
        vec!["history", "--status", "fine"],
        vec!["--nonsense"],
    ] {
        let outcome = site.run(&arguments).unwrap();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{arguments:?}: {outcome}");
        assert!(!outcome.stderr.is_empty());
    }
    for command in ["restore", "fetch", "createdb", "switch", "drop"] {
        is_refused(
            &site,
            &[command, &section, "20261131"],
            2,
            "`20261131` is not a day of the calendar\n\
             hint: give YYYYMMDD, YYYY-MM-DD, or one of today, yesterday, latest, oldest, active",
        );
        is_refused(
            &site,
            &[command, &section, "tomorrow"],
            2,
            "`tomorrow` is not a date\n\
             hint: give YYYYMMDD, YYYY-MM-DD, or one of today, yesterday, latest, oldest, active",
        );
        is_refused(
            &site,
            &[command, "shoop.dev"],
            6,
            "<site>/pg_staging.ini: no section [shoop.dev]\n\
             hint: did you mean shop.dev?",
        );
        is_refused(
            &site,
            &["-n", command, "shoop.dev"],
            6,
            "<site>/pg_staging.ini: no section [shoop.dev]\n\
             hint: did you mean shop.dev?",
        );
        is_refused(
            &site,
            &[command, &section, "active"],
            6,
            "no copy is active\n\
             hint: `switch <dbname> <date>` makes a copy active; `databases <dbname>` lists them",
        );
    }
    for command in ["switch", "drop"] {
        is_refused(
            &site,
            &[command, &section, "latest"],
            6,
            "there is nothing to take the latest of\n\
             hint: `backups <dbname>` lists what can be restored, `databases <dbname>` what was",
        );
    }
    is_refused(
        &site,
        &["history", "--since", "soon"],
        2,
        "'soon' is not a time\n\
         hint: type a date (2026-11-21), today, yesterday, an age (-2h, -30m, -7d), or RFC 3339",
    );
    is_refused(
        &site,
        &["inspect", "ffffffff"],
        6,
        "there is no run 'ffffffff'\n\
         hint: history lists the runs there are",
    );
    is_refused(
        &site,
        &["rollback", "ffffffff"],
        6,
        "there is no run 'ffffffff'\n\
         hint: history lists the runs there are",
    );
    is_refused(
        &site,
        &["continue"],
        6,
        "no run waits to be continued\n\
         hint: history lists the runs there are",
    );
    site.set("pg_restore_st", "True").unwrap();
    site.set("restore_jobs", "2").unwrap();
    is_refused(
        &site,
        &["restore", &section, DAY],
        2,
        "<site>/pg_staging.ini: section [shop.dev], option pg_restore_st (line 12): cannot be combined with restore_jobs = 2\n\
         hint: a single transaction has one worker: set `restore_jobs = 1` or `pg_restore_st = False`",
    );
    site.unset("backup_host").unwrap();
    is_refused(
        &site,
        &["restore", &section, DAY],
        2,
        "<site>/pg_staging.ini: section [shop.dev] lacks backup_host\n\
         hint: add `backup_host = …` to [shop.dev] or [DEFAULT]",
    );
    let mut command = Command::new(binary());
    command.env_clear().current_dir(site.folder()).args(["-c", "nowhere.ini", "restore", &section, DAY]);
    let outcome = site.spawn_command(&mut command).unwrap().wait().unwrap();
    assert_eq!(outcome.code, 2, "{outcome}");
    says(
        &error(&site, &outcome),
        "cannot read nowhere.ini\n\
    cause: No such file or directory (os error 2)\n\
    hint: name the configuration file with -c FILE or PG_STAGING_CONFIG",
    );
}

#[test]
fn a_copy_has_the_configured_encoding_and_is_made_from_the_configured_database() {
    let mut site = site();
    let section = site.section();
    site.set("db_encoding", "SQL_ASCII").unwrap();
    site.set("maintdb", "template1").unwrap();
    succeeds(&site, &["createdb", &section, DAY]);
    let sql = "SELECT datname, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = ";
    let made = site.cluster().psql("postgres", &format!("{sql}'{}'", site.copy(DAY))).unwrap();
    assert_eq!(made, format!("{}|SQL_ASCII\n", site.copy(DAY)));

    site.set("db_encoding", "KLINGON").unwrap();
    let outcome = site.run(&["createdb", &section, "20261120"]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("KLINGON"), "{outcome}");
    site.set("maintdb", "nowhere").unwrap();
    let outcome = site.run(&["createdb", &section, "20261120"]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("database nowhere"), "{outcome}");
    assert_eq!(site.copies().unwrap(), [site.copy(DAY)]);
}

#[test]
fn the_client_programs_are_those_of_postgres_major() {
    let mut site = site();
    site.unset("pg_restore").unwrap();
    site.set("postgres_major", "9.6").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "there is no program /usr/lib/postgresql/9.6/bin/pg_restore\n\
         hint: install PostgreSQL's client programs, or set postgres_major or pg_restore to where they are",
    );
}
