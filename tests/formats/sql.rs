//! pg_dump -Fp: plain SQL, compressed or not.

use std::{fs, time::Duration};

use serde_json::json;

use super::{DATE, DAY, dumped, equals_production, gzipped, list, loaded, roll_back, site, way, zstandard};
use crate::{
    chance::Chance,
    stage::{Conduct, Scale, Site, source_database},
    traces::{fails, inspected, step, succeeds},
};

fn sql(site: &Site<'_>, scale: Scale) -> Vec<u8> {
    fs::read(dumped(site, scale, "-Fp")).unwrap()
}

/// Takes a listed backup out again.
fn unlist(site: &Site<'_>, path: &str) {
    site.remove_file(path.rsplit('/').next().unwrap()).unwrap();
}

#[test]
fn plain_sql_is_run_while_it_comes() {
    let site = site();
    let sql = sql(&site, Scale::Small);
    let cases = vec![
        (".sql", sql.clone()),
        (".sql.gz", gzipped(&sql)),
        (".sql.zst", zstandard(&sql)),
        (".dump", sql.clone()),
    ];
    for (ending, bytes) in Chance::of("plain SQL").some_of(cases, 2) {
        let path = list(&site, ending, &bytes);
        succeeds(&site, &["restore", &site.section(), DAY]);
        equals_production(&site, Scale::Small);
        assert_eq!(way(&site), "sql", "{ending}");
        assert_eq!(loaded(&site)["bytes"], bytes.len(), "{ending}");
        assert_eq!(loaded(&site)["tolerated"], json!([]), "{ending}");
        roll_back(&site);
        unlist(&site, &path);
    }
}

#[test]
fn plain_sql_on_this_machine_is_loaded_and_through_tmpdir_too() {
    let mut site = site();
    let sql = sql(&site, Scale::Small);
    let cases = vec![("plain", sql.clone()), ("gz", gzipped(&sql)), ("zst", zstandard(&sql))];
    for (name, bytes) in Chance::of("plain SQL here").some_of(cases, 1) {
        let file = site.folder().join(name);
        fs::write(&file, bytes).unwrap();
        succeeds(&site, &["load", &site.section(), &file.display().to_string(), "--date", DAY]);
        equals_production(&site, Scale::Small);
        roll_back(&site);
    }
    // The file's own name tells the day.
    let named = site.folder().join(format!("{}.{DATE}.sql.gz", site.dbname()));
    fs::write(&named, gzipped(&sql)).unwrap();
    succeeds(&site, &["load", &site.section(), &named.display().to_string()]);
    equals_production(&site, Scale::Small);
    roll_back(&site);
    list(&site, ".sql.gz", &gzipped(&sql));
    site.set("fast", "False").unwrap();
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Small);
}

#[test]
fn inserts_are_as_good_as_copy() {
    let site = site();
    site.stage().production_dump(Scale::Small).unwrap();
    let production = source_database(Scale::Small);
    let sql = site.cluster().pg_dump(&production, &["--inserts"]).unwrap();
    list(&site, ".sql.gz", &gzipped(sql.as_bytes()));
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Small);
}

#[test]
fn what_is_planned_tells_the_way_that_the_backup_seems_to_go() {
    let mut site = site();
    let sql = sql(&site, Scale::Small);
    let told = |site: &Site<'_>, arguments: &[&str]| succeeds(site, arguments).stdout;
    let file = site.folder().join("some.sql");
    fs::write(&file, &sql).unwrap();
    let psql = format!("psql all of the dump's SQL into {}, in one transaction", site.copy(DAY));
    let load = told(&site, &["-n", "load", &site.section(), &file.display().to_string(), "--date", DAY]);
    assert!(load.contains(&psql), "{load}");
    let path = list(&site, ".sql.gz", &gzipped(&sql));
    let restore = told(&site, &["-n", "restore", &site.section(), DAY]);
    assert!(restore.contains("it seems to be plain SQL, which psql runs while it comes"), "{restore}");
    assert!(restore.contains(&psql), "{restore}");
    let json = told(&site, &["-n", "--json", "restore", &site.section(), DAY]);
    assert!(json.contains(r#""seems":"sql""#) || json.contains(r#""seems": "sql""#), "{json}");
    unlist(&site, &path);
    list(&site, ".tar", b"");
    let restore = told(&site, &["-n", "restore", &site.section(), "latest"]);
    assert!(restore.contains("it seems to be a tar file"), "{restore}");
    // Each file of it has a transaction of its own, whatever is configured.
    site.set("restore_jobs", "1").unwrap();
    site.set("pg_restore_st", "True").unwrap();
    let restore = told(&site, &["-n", "restore", &site.section(), "latest"]);
    assert!(restore.contains("with 1 job") && !restore.contains("single transaction"), "{restore}");
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
}

#[test]
fn plain_sql_is_refused_where_something_would_be_left_out() {
    let mut site = site();
    let sql = sql(&site, Scale::Small);
    let options =
        vec![("schemas", "public"), ("schemas_nodata", "audit"), ("tablename_nodata_regexp", "log")];
    for (option, value) in Chance::of("filters").some_of(options, 1) {
        site.set(option, value).unwrap();
        let said = |dump: &str| {
            format!(
                "{dump} is plain SQL, of which nothing can be left out\n\
                 cause: schemas, schemas_nodata, tablename_nodata_regexp or replication are configured\n\
                 hint: make the backup with pg_dump -Fc, or take these options out"
            )
        };
        for ending in [".sql.gz", ".dump"] {
            let path = list(&site, ending, &if ending == ".dump" { sql.clone() } else { gzipped(&sql) });
            let url = format!("http://127.0.0.1:<port>/shop/shop.{DATE}{ending}");
            fails(&site, &["restore", &site.section(), DAY], 1, &said(&url));
            let requests = site.rude().unwrap().requests_for(&path);
            assert!(requests.iter().all(|request| request.sent <= 3_000_000));
            unlist(&site, &path);
        }
        let file = site.folder().join("some.sql");
        fs::write(&file, &sql).unwrap();
        let outcome =
            site.run(&["load", &site.section(), &file.display().to_string(), "--date", DAY]).unwrap();
        assert_eq!(outcome.code, 1, "{outcome}");
        assert!(
            outcome.stderr.contains("some.sql is plain SQL, of which nothing can be left out"),
            "{outcome}"
        );
        site.unset(option).unwrap();
    }
}

#[test]
fn plain_sql_that_was_killed_is_in_the_copy_once_or_not_at_all() {
    let site = site();
    let sql = sql(&site, Scale::Full);
    let path = list(&site, ".sql", &sql);
    let rude = site.rude().unwrap();
    for continued in Chance::of("killed SQL").some_of(vec![true, false], 1) {
        rude.plan(&path, Conduct::StallAt(sql.len() as u64 * 9 / 10));
        let program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
        rude.wait_until_stalled(&path, Duration::from_secs(60)).unwrap();
        program.kill().unwrap();
        rude.behave(&path);
        if continued {
            succeeds(&site, &["continue", &site.section()]);
            equals_production(&site, Scale::Full);
        }
        roll_back(&site);
    }
}

#[test]
fn plain_sql_that_is_cut_or_damaged_leaves_nothing() {
    let site = site();
    let sql = sql(&site, Scale::Small);
    let (gz, zst) = (gzipped(&sql), zstandard(&sql));
    let end = sql.windows(8).rposition(|bytes| bytes == b"complete").unwrap();
    let mut changed = gz.clone();
    changed[gz.len() / 2] ^= 0x55;
    let cases = vec![
        ("cut", ".sql", sql[..sql.len() / 2].to_vec()),
        ("cut at its end", ".sql", sql[..end].to_vec()),
        ("cut gzip", ".sql.gz", gz[..gz.len() - 5].to_vec()),
        ("changed gzip", ".sql.gz", changed),
        ("gzip with more behind", ".sql.gz", [gz.as_slice(), b"more"].concat()),
        ("cut zstd", ".sql.zst", zst[..zst.len() - 5].to_vec()),
    ];
    for (what, ending, bytes) in Chance::of("damaged SQL").some_of(cases, 3) {
        let path = list(&site, ending, &bytes);
        let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
        assert_eq!(outcome.code, 1, "{what}: {outcome}");
        assert!(outcome.stderr.contains(" is damaged"), "{what}: {outcome}");
        assert_eq!(site.copies().unwrap(), Vec::<String>::new(), "{what}");
        assert_eq!(fs::read_dir(site.tmpdir()).unwrap().count(), 0, "{what}");
        unlist(&site, &path);
    }
}

#[test]
fn plain_sql_that_would_act_elsewhere_is_refused() {
    let site = site();
    site.stage().production_dump(Scale::Small).unwrap();
    let mark = site.folder().join("mark");
    let creating = site.cluster().pg_dump(&source_database(Scale::Small), &["--create"]).unwrap();
    for (sql, cause) in [
        (creating.as_str(), "has CREATE DATABASE, which is about a whole database"),
        (
            "SET x.y = 1;\n\\connect postgres\nCREATE TABLE t ();\n",
            "line 2 has \\connect, a command of psql's",
        ),
        (&format!("SET x.y = 1;\n\\! touch '{}'\n", mark.display()), "line 2 has \\!, a command of psql's"),
        // What the one takes for a string is none for the other.
        (
            &format!(
                "SET x.y = 1;\nSELECT set_config('standard_conforming_strings', 'off', false);\nSELECT '\\''; \\! touch '{}'\n';\n",
                mark.display()
            ),
            "backslash commands are restricted",
        ),
        ("CREATE TABLE t ();\nROLLBACK;\n", "line 2 has ROLLBACK, which one transaction cannot hold"),
    ] {
        list(&site, ".sql", sql.as_bytes());
        let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
        assert_eq!(outcome.code, 1, "{outcome}");
        assert!(outcome.stderr.contains(cause), "{outcome}");
        assert_eq!(site.copies().unwrap(), Vec::<String>::new());
        let elsewhere = "SELECT to_regclass('public.t') IS NULL";
        assert_eq!(site.cluster().psql("postgres", elsewhere).unwrap(), "t\n");
    }
    assert!(!mark.exists());
}

#[test]
fn an_error_in_plain_sql_undoes_all_of_it_and_privileges_of_missing_roles_are_told() {
    let site = site();
    let mut sql = String::from_utf8(sql(&site, Scale::Small)).unwrap();
    let line = sql.lines().count() + 2;
    list(&site, ".sql", format!("{sql}\nSELECT 1 / 0;\n").as_bytes());
    let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains(&format!("line {line}: ERROR:  division by zero")), "{outcome}");
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
    sql.push_str("GRANT SELECT ON TABLE public.customer TO nobody_here;\n");
    list(&site, ".sql", sql.as_bytes());
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Small);
    let told =
        json!(["role \"nobody_here\" does not exist (GRANT SELECT ON TABLE public.customer TO nobody_here)"]);
    assert_eq!(step(&inspected(&site), "restore")["detail"]["outcome"]["tolerated"], told);
}
