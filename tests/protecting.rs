//! Copies that must not go: `protect`, what it keeps from them, and what `purge` does by itself after a restore.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    stage::{Site, SiteOptions, Stage, wait_until},
    traces::{Traces, error, fails, inspected, is_refused, json as ask, last_run, plain, says, succeeds},
};

const DAY: &str = "20261121";
const OTHER: &str = "20261119";
const LIMIT: Duration = Duration::from_secs(60);

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

/// What `databases` tells of a copy's protection.
fn protection(site: &Site<'_>, day: &str) -> (Value, Value) {
    let answer = ask(site, &["databases", &site.section()]);
    let copies = answer["databases"].as_array().unwrap();
    let copy = copies.iter().find(|copy| copy["name"] == site.copy(day)).unwrap();
    (copy["protected"].clone(), copy["protected_until"].clone())
}

fn comment(site: &Site<'_>, day: &str) -> String {
    let sql = format!(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{}'",
        site.copy(day)
    );
    site.cluster().psql("postgres", &sql).unwrap()
}

#[test]
fn a_protected_copy_is_left_alone_by_purge_drop_and_rollback_until_that_is_taken_back() {
    let mut site = site();
    let section = site.section();
    for day in [DAY, OTHER] {
        succeeds(&site, &["createdb", &section, day]);
    }
    let made = ask(&site, &["history"])["runs"][1]["id"].as_str().unwrap().to_owned();
    let bare = comment(&site, DAY);
    let protect = ["protect", &section, DAY, "--until", "20991231", "--reason", "audit of [all] orders"];
    let plan = succeeds(&site, &[&protect[..], &["-n"]].concat());
    assert!(plan.stdout.contains("protected until 2099-12-31: audit of [all] orders"), "{plan}");
    assert_eq!(comment(&site, DAY), bare);
    let outcome = succeeds(&site, &protect);
    let said = "protect shop.dev: shop_20261121 is protected until 2099-12-31: audit of [all] orders";
    assert!(plain(&site, &outcome.stdout).starts_with(said), "{outcome}");
    assert_eq!(last_run(&site)["arguments"], json!(protect[1..]));
    assert_eq!(protection(&site, DAY), (json!("audit of [all] orders"), json!("2099-12-31")));
    assert_eq!(protection(&site, OTHER), (Value::Null, Value::Null));
    // The mark is still there, and who made the copy is still known.
    assert!(comment(&site, DAY).starts_with(bare.trim_end()), "{}", comment(&site, DAY));

    site.set("keep_bases", "0").unwrap();
    let outcome = succeeds(&site, &["purge", &section]);
    let said = plain(&site, &outcome.stdout);
    assert!(
        said.contains("keep shop_20261121 (protected until 2099-12-31: audit of [all] orders)"),
        "{said}"
    );
    assert_eq!(site.copies().unwrap(), [site.copy(DAY)]);
    fails(
        &site,
        &["drop", &section, DAY],
        1,
        "shop_20261121 is protected until 2099-12-31: audit of [all] orders\n\
         hint: take that back first: pg_staging unprotect shop.dev 20261121, or add --force",
    );
    // A later protection takes the place of an earlier one, and its undo brings that back.
    succeeds(&site, &["protect", &section, DAY, "--reason", "for good"]);
    assert_eq!(protection(&site, DAY), (json!("for good"), Value::Null));
    let id = last_run(&site)["id"].as_str().unwrap().to_owned();
    succeeds(&site, &["rollback", &id, "--yes"]);
    assert_eq!(protection(&site, DAY).0, json!("audit of [all] orders"));
    // The run that made it cannot take it back.
    let outcome = site.run(&["rollback", &made, "--yes", "--force"]).unwrap();
    assert_eq!(outcome.code, 4, "{outcome}");
    assert!(outcome.stderr.contains("is protected until"), "{outcome}");
    assert_eq!(site.copies().unwrap(), [site.copy(DAY)]);

    let outcome = succeeds(&site, &["unprotect", &section, DAY]);
    assert!(outcome.stdout.contains("is not protected any more"), "{outcome}");
    assert_eq!(comment(&site, DAY), bare);
    let outcome = succeeds(&site, &["unprotect", &section, DAY]);
    assert!(outcome.stdout.contains("is not protected (run"), "{outcome}");
    succeeds(&site, &["rollback", &made, "--yes"]);
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
}

#[test]
fn a_protected_copy_goes_with_force_and_what_is_over_does_not_protect() {
    let mut site = site();
    let section = site.section();
    for day in [DAY, OTHER] {
        succeeds(&site, &["createdb", &section, day]);
        succeeds(&site, &["protect", &section, day, "--reason", "audit"]);
    }
    succeeds(&site, &["drop", &section, DAY, "--force"]);
    assert_eq!(site.copies().unwrap(), [site.copy(OTHER)]);
    // Its last day is over, as time would have it.
    let over = comment(&site, OTHER).trim_end().replace("protect: ", "protect until 2026-01-01: ");
    let sql = format!("COMMENT ON DATABASE \"{}\" IS '{over}'", site.copy(OTHER));
    site.cluster().psql("postgres", &sql).unwrap();
    assert_eq!(protection(&site, OTHER), (Value::Null, Value::Null));
    site.set("keep_bases", "0").unwrap();
    succeeds(&site, &["purge", &section]);
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
}

#[test]
fn a_protection_that_makes_no_sense_is_refused() {
    let mut site = site();
    let section = site.section();
    succeeds(&site, &["createdb", &section, DAY]);
    let reason = ["protect", &section, DAY, "--reason"];
    let said = "that is not a reason that can be kept\n\
                hint: say it in one line of at most 500 bytes, and without \"[pg_staging\"";
    for text in ["", " ", "two\nlines", "x] [pg_staging run "] {
        is_refused(&site, &[&reason[..], &[text]].concat(), 2, said);
    }
    let until = |text| ["protect", &section, DAY, "--reason", "audit", "--until", text];
    is_refused(
        &site,
        &until("20260101"),
        2,
        "2026-01-01 is over\nhint: give a day to come, or none to protect it until unprotect",
    );
    assert_eq!(site.run(&until("latest")).unwrap().code, 2);
    assert_eq!(site.run(&["protect", &section, DAY]).unwrap().code, 2);
    let outcome = site.run(&["protect", &section, OTHER, "--reason", "audit"]).unwrap();
    assert_eq!(outcome.code, 6, "{outcome}");
    // The run that makes a copy writes its mark anew.
    site.set("on_failure", "keep").unwrap();
    site.add_sql("post", "01.sql", "SELECT 1/0").unwrap();
    succeeds(&site, &["drop", &section, DAY]);
    assert_eq!(site.run(&["restore", &section, DAY]).unwrap().code, 3);
    let outcome = site.run(&["protect", &section, DAY, "--reason", "audit"]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(error(&site, &outcome).contains("is not finished with shop_20261121"), "{outcome}");
}

#[test]
fn a_protection_that_was_killed_is_finished_or_taken_back_and_leaves_no_session_behind() {
    let site = site();
    let section = site.section();
    succeeds(&site, &["createdb", &section, DAY]);
    let (before, bare) = (Traces::of(&site), comment(&site, DAY));
    for (verb, then) in [("rollback", Value::Null), ("continue", json!("audit"))] {
        // Somebody else changes the same comment, and has not made up his mind.
        let mut psql = site.cluster().client("psql");
        psql.args(["-XAtq", "-d", "postgres"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut session = psql.spawn().unwrap();
        let mut commands = session.stdin.take().unwrap();
        let copy = site.copy(DAY);
        writeln!(commands, "BEGIN; COMMENT ON DATABASE \"{copy}\" IS 'another';\n\\echo shut").unwrap();
        let mut answer = String::new();
        BufReader::new(session.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        assert_eq!(answer, "shut\n");
        let mut program = site.spawn(&["protect", &section, DAY, "--reason", "audit"]).unwrap();
        let waits = format!(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COMMENT ON DATABASE%{copy}%'"
        );
        let waiting = || site.cluster().psql("postgres", &waits).unwrap().trim().to_owned();
        let mut left = String::new();
        wait_until("the run to wait for the comment", LIMIT, || {
            left = waiting();
            !left.is_empty() || !program.is_running().unwrap()
        })
        .unwrap();
        assert_eq!(program.kill().unwrap().code, 137);
        assert_eq!(last_run(&site)["status"], "interrupted");
        let id = last_run(&site)["id"].as_str().unwrap().to_owned();
        // It is the killed one's session that waits; it does not get what it waited for.
        let next = site.spawn(&[verb, &id]).unwrap();
        wait_until("the session that was left to be ended", LIMIT, || {
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {left}");
            site.cluster().psql("postgres", &sql).unwrap().trim() == "0"
        })
        .unwrap();
        drop(commands);
        session.wait().unwrap();
        let outcome = next.wait().unwrap();
        assert_eq!(outcome.code, 0, "{outcome}");
        assert_eq!(protection(&site, DAY).0, then);
        assert_eq!(Traces::of(&site), before);
    }
    succeeds(&site, &["unprotect", &section, DAY]);
    says(&comment(&site, DAY), &bare);
}

#[test]
fn a_restore_that_switched_the_alias_is_followed_by_a_purge_when_that_is_wanted() {
    let dates = ["2026-11-19", "2026-11-20", "2026-11-21"].map(str::to_owned).to_vec();
    let mut site =
        Site::new(Stage::shared().unwrap(), &SiteOptions { dates, ..SiteOptions::default() }).unwrap();
    let section = site.section();
    site.set("keep_bases", "1").unwrap();
    site.set("purge_after_restore", "True").unwrap();
    succeeds(&site, &["restore", &section, "20261119"]);
    succeeds(&site, &["protect", &section, "20261119", "--reason", "audit"]);
    succeeds(&site, &["restore", &section, "20261120"]);
    let outcome = succeeds(&site, &["restore", &section, "20261121", "--if-newer"]);
    let said = plain(&site, &outcome.stdout);
    assert!(
        said.contains("\npurge shop.dev: dropped shop_20261120; keep shop_20261119 (protected: audit)"),
        "{said}"
    );
    assert_eq!(site.copies().unwrap(), ["20261119", "20261121"].map(|day| site.copy(day)));
    let purge = inspected(&site)["run"].clone();
    assert_eq!((&purge["command"], &purge["status"]), (&json!("purge"), &json!("succeeded")));
    // Nothing was restored, so nothing is purged.
    succeeds(&site, &["restore", &section, "20261121", "--if-newer"]);
    assert_eq!(last_run(&site), purge);
    // What is young stays, whatever the number.
    site.set("keep_days", "36500").unwrap();
    site.set("keep_bases", "0").unwrap();
    succeeds(&site, &["createdb", &section, "20261118"]);
    let outcome = succeeds(&site, &["purge", &section]);
    assert!(outcome.stdout.contains("(of the last 36500 days)"), "{outcome}");
    assert_eq!(site.copies().unwrap().len(), 3);
}
