//! Copies that go: `drop` under load and of what is left over, and `purge`, which chooses.

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    gate::Gate,
    stage::{Outcome, PoolMode, Site, SiteOptions, Stage, wait_until},
    traces::{Traces, error, fails, ini, inspected, last_run, plain, says, step, succeeds},
};

const DAY: &str = "20261121";
const OTHER: &str = "20261119";
const LIMIT: Duration = Duration::from_secs(60);

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

fn createdb(site: &Site<'_>, days: &[&str]) {
    for day in days {
        succeeds(site, &["createdb", &site.section(), day]);
    }
}

/// A database that nobody but the server knows of.
fn bare(site: &Site<'_>, day: &str) {
    site.cluster()
        .psql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", site.copy(day)))
        .unwrap();
}

/// DROP DATABASE by hand, which leaves pgbouncer.ini as it is.
fn drop_by_hand(site: &Site<'_>, day: &str) {
    site.cluster().psql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", site.copy(day))).unwrap();
}

/// Another name that leads to a copy, put into pgbouncer.ini by hand.
fn lead_there(site: &Site<'_>, name: &str, day: &str) {
    let copy = site.copy(day);
    let line = format!("[databases]\n{name} = host=127.0.0.1 port={} dbname={copy}\n", site.cluster().port());
    site.bouncer().write_ini(ini(site).replacen("[databases]\n", &line, 1)).unwrap();
    site.bouncer().admin("RELOAD").unwrap();
}

#[track_caller]
fn ends(site: &Site<'_>, outcome: &Outcome, code: i32, said: &str) {
    assert_eq!(outcome.code, code, "{outcome}");
    says(&error(site, outcome), said);
}

/// What a client says that connects anew, asks something, and leaves.
fn asks(site: &Site<'_>, name: &str, through_pgbouncer: bool) -> bool {
    let port = if through_pgbouncer { site.bouncer().port() } else { site.cluster().port() };
    let mut client = site.cluster().client("psql");
    client.env("PGPORT", port.to_string()).args(["-XAtq", "-d", name, "-c", "SELECT current_database()"]);
    client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// Sends the clients home.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` while clients keep connecting to `names`, by the way that is said with each: how often each of them was
/// served and refused, from before `work` begins until after it has ended.
fn under_load(site: &Site<'_>, names: &[(&str, bool)], work: impl FnOnce()) -> Vec<(usize, usize)> {
    let over = AtomicBool::new(false);
    let counts: Vec<(AtomicUsize, AtomicUsize)> = names.iter().map(|_| Default::default()).collect();
    thread::scope(|scope| {
        for ((name, through_pgbouncer), (served, refused)) in names.iter().zip(&counts) {
            for _ in 0..2 {
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let count = if asks(site, name, *through_pgbouncer) { served } else { refused };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        // Also when what follows panics.
        let _end = End(&over);
        let served = |least: usize| counts.iter().all(|(served, _)| served.load(Ordering::Relaxed) >= least);
        wait_until("every client to be served", LIMIT, || served(3)).unwrap();
        work();
        let all = |(served, refused): &(AtomicUsize, AtomicUsize)| {
            served.load(Ordering::Relaxed) + refused.load(Ordering::Relaxed)
        };
        let after: Vec<usize> = counts.iter().map(all).collect();
        let went_on = || counts.iter().zip(&after).all(|(count, before)| all(count) >= before + 4);
        wait_until("every client to come once more", LIMIT, went_on).unwrap();
    });
    counts.into_iter().map(|(served, refused)| (served.into_inner(), refused.into_inner())).collect()
}

#[test]
fn drop_succeeds_while_clients_keep_connecting_and_those_of_the_alias_notice_nothing() {
    for pool_mode in [PoolMode::Session, PoolMode::Transaction] {
        let mut options = SiteOptions::default();
        options.bouncer.pool_mode = pool_mode;
        let site = Site::new(Stage::shared().unwrap(), &options).unwrap();
        createdb(&site, &[OTHER, DAY]);
        succeeds(&site, &["switch", &site.section(), OTHER]);
        let copy = site.copy(DAY);
        let born = || site.cluster().psql("postgres", "SELECT pg_postmaster_start_time()").unwrap();
        let servers = || (site.cluster().pid(), born(), site.bouncer().pid());
        let before = servers();
        let names = [(site.dbname(), true), (copy.as_str(), true), (copy.as_str(), false)];
        let counts = under_load(&site, &names, || {
            succeeds(&site, &["drop", &site.section(), DAY]);
        });
        assert_eq!(counts[0].1, 0, "clients of the alias that were refused");
        assert!(counts[1].1 > 0 && counts[2].1 > 0, "{counts:?}");
        assert_eq!(servers(), before);
        assert_eq!(site.copies().unwrap(), [site.copy(OTHER)]);
        assert!(!Traces::of(&site).aliases.contains_key(&copy));
        assert_eq!(site.active().unwrap(), Some(site.copy(OTHER)));
    }
}

#[test]
fn drop_of_the_active_copy_takes_the_alias_along_and_it_can_be_restored_again() {
    let site = site();
    let section = site.section();
    let before = Traces::of(&site);
    createdb(&site, &[DAY]);
    succeeds(&site, &["switch", &section, DAY]);
    let planned = succeeds(&site, &["-n", "drop", &section, DAY, "--force"]);
    says(
        &plain(&site, &planned.stdout),
        "drop shop.dev would make these steps on 127.0.0.1:\n\
         \x20 1  preflight        look at PostgreSQL on 127.0.0.1, pgbouncer and <bouncer>/pgbouncer.ini\n\
         \x20 2  alias_remove     if shop points at shop_20261121: turn its new clients away, take it out of <bouncer>/pgbouncer.ini, and reload pgbouncer\n\
         \x20 3  bouncer_remove   turn new clients of shop_20261121 away, take it out of <bouncer>/pgbouncer.ini, and reload pgbouncer\n\
         \x20 4  drop_database    DROP DATABASE shop_20261121, sessions in it notwithstanding; this cannot be undone\n\
         \x20 5  cleanup          remove the files that were needed on the way\n",
    );
    let outcome = succeeds(&site, &["drop", &section, DAY, "--force"]);
    says(
        &plain(&site, &outcome.stdout),
        "drop shop.dev: shop_20261121 is gone, and so is the entry shop, which pointed at it (run <run>, <seconds> s)\n",
    );
    assert_eq!(Traces::of(&site), before);

    succeeds(&site, &["restore", &section, DAY]);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
    assert!(asks(&site, site.dbname(), true));

    // Of a copy that is not the active one, --force takes nothing more than drop without it.
    createdb(&site, &[OTHER]);
    let outcome = succeeds(&site, &["drop", &section, OTHER, "--force"]);
    says(&plain(&site, &outcome.stdout), "drop shop.dev: shop_20261119 is gone (run <run>, <seconds> s)\n");
    assert_eq!(step(&inspected(&site), "alias_remove")["status"], "skipped");
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
}

#[test]
fn drop_takes_what_is_left_of_a_copy_its_database_or_its_entry() {
    let site = site();
    let section = site.section();
    let before = Traces::of(&site);
    bare(&site, DAY);
    succeeds(&site, &["drop", &section, DAY]);
    assert_eq!(Traces::of(&site), before);

    createdb(&site, &[DAY]);
    drop_by_hand(&site, DAY);
    let outcome = succeeds(&site, &["drop", &section, DAY]);
    says(
        &plain(&site, &outcome.stdout),
        "drop shop.dev: there was no database shop_20261121, and its entry is gone (run <run>, <seconds> s)\n",
    );
    assert_eq!(Traces::of(&site), before);
    fails(
        &site,
        &["drop", &section, DAY],
        6,
        "there is no database shop_20261121\n\
         hint: pg_staging databases shop.dev lists those there are; pg_staging restore shop.dev 20261121 makes this one",
    );

    // The alias of a copy that is gone would show the next one of that name before it is proven.
    createdb(&site, &[DAY]);
    succeeds(&site, &["switch", &section, DAY]);
    drop_by_hand(&site, DAY);
    for command in ["createdb", "restore"] {
        fails(
            &site,
            &[command, &section, DAY],
            1,
            "shop points at shop_20261121, which does not exist\n\
             hint: switch to another copy first (pg_staging switch shop.dev <date>), or take that entry out (pg_staging drop shop.dev 20261121 --force)",
        );
    }
    fails(
        &site,
        &["drop", &section, DAY],
        1,
        "shop points at shop_20261121, which does not exist\n\
         hint: switch to another copy first (pg_staging switch shop.dev <date>), or add --force to take that entry out",
    );
    succeeds(&site, &["drop", &section, DAY, "--force"]);
    assert_eq!(Traces::of(&site), before);
    createdb(&site, &[DAY]);
}

#[test]
fn drop_knows_other_names_that_lead_to_a_copy() {
    let site = site();
    let section = site.section();
    createdb(&site, &[DAY]);
    lead_there(&site, "qa", DAY);
    fails(
        &site,
        &["drop", &section, DAY],
        1,
        "shop_20261121 is in use: qa points at it\n\
         hint: point qa at another copy first, or add --force",
    );
    let outcome = succeeds(&site, &["drop", &section, DAY, "--force"]);
    says(
        &plain(&site, &outcome.stdout),
        "drop shop.dev: shop_20261121 is gone; still pointing at it: qa (run <run>, <seconds> s)\n",
    );
    fails(
        &site,
        &["createdb", &section, DAY],
        1,
        "qa points at shop_20261121, which does not exist\n\
         hint: point qa at another copy first, or take that entry out",
    );
}

#[test]
fn a_forced_drop_that_is_killed_before_the_database_goes_is_rolled_back_or_continued() {
    let site = site();
    let section = site.section();
    createdb(&site, &[DAY]);
    succeeds(&site, &["switch", &section, DAY]);
    let before = Traces::of(&site);
    // DROP DATABASE waits for whoever holds the database's own lock, which COMMENT takes.
    let hold = |site: &Site<'_>| {
        let sql = format!("BEGIN; COMMENT ON DATABASE {} IS 'held'; SELECT pg_sleep(600);", site.copy(DAY));
        let mut client = site.cluster().client("psql");
        let client =
            client.args(["-Xq", "-d", "postgres", "-c", &sql]).stderr(Stdio::null()).spawn().unwrap();
        let holds = format!(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE mode = 'ShareUpdateExclusiveLock' \
             AND granted AND query LIKE '%{}%' AND pid <> pg_backend_pid()",
            site.copy(DAY)
        );
        wait_until("the database to be locked", LIMIT, || {
            site.cluster().psql("postgres", &holds).unwrap() == "1\n"
        })
        .unwrap();
        client
    };
    let let_go = |site: &Site<'_>| {
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'BEGIN; COMMENT ON DATABASE {}%'",
            site.copy(DAY)
        );
        site.cluster().psql("postgres", &end).unwrap();
    };
    for continued in [false, true] {
        let mut client = hold(&site);
        let program = site.spawn(&["drop", &section, DAY, "--force"]).unwrap();
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DROP DATABASE%{}%' AND wait_event_type = 'Lock'",
            site.copy(DAY)
        );
        wait_until("DROP DATABASE to wait", LIMIT, || {
            site.cluster().psql("postgres", &waits).unwrap() == "1\n"
        })
        .unwrap();
        program.kill().unwrap();
        let run = last_run(&site)["id"].as_str().unwrap().to_owned();
        // The one that waits is ended first; the database is still there.
        let (verb, status) = if continued { ("continue", "succeeded") } else { ("rollback", "rolled_back") };
        if continued {
            let_go(&site);
        }
        succeeds(&site, &[verb, &run]);
        assert_eq!(last_run(&site)["status"], status);
        if continued {
            assert_eq!(site.copies().unwrap(), Vec::<String>::new());
            assert_eq!(site.active().unwrap(), None);
        } else {
            assert_eq!(Traces::of(&site), before);
            assert!(asks(&site, site.dbname(), true));
            let_go(&site);
        }
        client.wait().unwrap();
    }
}

#[test]
fn purge_keeps_the_newest_and_what_is_in_use_and_drops_the_rest() {
    let mut site = site();
    let section = site.section();
    bare(&site, "20261101");
    createdb(&site, &["20261102", "20261103", "20261104", "20261106", "20261107"]);
    bare(&site, "20261108");
    succeeds(&site, &["switch", &section, "20261102"]);
    lead_there(&site, "qa", "20261103");
    // Made by a run that is not finished.
    site.set("on_failure", "keep").unwrap();
    let broken = site.add_sql("post", "01.sql", "SELECT 1/0").unwrap();
    site.add_backup("2026-11-05").unwrap();
    assert_eq!(site.run(&["restore", &section, "20261105"]).unwrap().code, 3);
    site.set("keep_bases", "2").unwrap();
    let before = Traces::of(&site);

    let planned = succeeds(&site, &["-n", "purge", &section]);
    let lines: Vec<String> = plain(&site, &planned.stdout).lines().map(str::to_owned).collect();
    says(
        &lines[2],
        "  2  choose           drop shop_20261101, shop_20261104, shop_20261106; keep shop_20261102 (shop points at it), shop_20261103 (qa points at it), shop_20261105 (run <run> (restore) is not finished with it), shop_20261107 (one of the newest 2), shop_20261108 (one of the newest 2)",
    );
    let names: Vec<&str> = planned.stdout.lines().skip(1).map(|line| &line[5..]).collect();
    assert!(names[2].starts_with(&format!("bouncer_remove {} ", site.copy("20261101"))), "{planned}");
    assert!(names[3].starts_with(&format!("drop_database {} ", site.copy("20261101"))), "{planned}");
    assert_eq!(names.len(), 9, "{planned}");
    let as_json = succeeds(&site, &["-n", "--json", "purge", &section]);
    let plan: Value = serde_json::from_str(&as_json.stdout).unwrap();
    assert_eq!(plan["plan"]["database"], json!(null));
    let chosen = &plan["plan"]["steps"][1]["parameters"];
    assert_eq!(chosen["drop"][2]["copy"], site.copy("20261106"));
    assert_eq!(
        chosen["keep"][0],
        json!({ "copy": site.copy("20261102"), "why": format!("{} points at it", site.dbname()) })
    );
    assert_eq!(Traces::of(&site), before);

    let outcome = succeeds(&site, &["purge", &section]);
    let said = plain(&site, &outcome.stdout);
    assert!(
        said.starts_with("purge shop.dev: dropped shop_20261101, shop_20261104, shop_20261106; keep shop_2"),
        "{said}"
    );
    let kept: Vec<String> = ["20261102", "20261103", "20261105", "20261107", "20261108"]
        .iter()
        .map(|day| site.copy(day))
        .collect();
    assert_eq!(site.copies().unwrap(), kept);
    let after = Traces::of(&site);
    for gone in ["20261101", "20261104", "20261106"] {
        assert!(!after.ini.contains(&site.copy(gone)) && !after.aliases.contains_key(&site.copy(gone)));
    }
    assert_eq!(site.active().unwrap(), Some(site.copy("20261102")));
    assert_eq!(last_run(&site)["database"], json!(null));

    let outcome = succeeds(&site, &["purge", &section]);
    assert!(outcome.stdout.starts_with(&format!("purge {section}: nothing to drop; keep ")), "{outcome}");
    assert_eq!(site.copies().unwrap(), kept);

    // The run is finished, and the names lead elsewhere.
    std::fs::remove_file(broken).unwrap();
    succeeds(&site, &["continue", &section]);
    assert_eq!(site.active().unwrap(), Some(site.copy("20261105")));
    site.set("keep_bases", "0").unwrap();
    succeeds(&site, &["purge", &section]);
    assert_eq!(site.copies().unwrap(), [site.copy("20261103"), site.copy("20261105")]);
}

#[test]
fn purge_works_on_a_far_host() {
    let options = SiteOptions { over_ssh: true, ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    let before = Traces::of(&site);
    createdb(&site, &["20261101", "20261102"]);
    site.set("keep_bases", "0").unwrap();
    succeeds(&site, &["purge", &site.section()]);
    assert_eq!(Traces::of(&site), before);
}

#[test]
fn purge_of_many_copies_takes_as_many_runs_as_it_needs() {
    let mut site = site();
    let days: Vec<String> = (1..=13).map(|day| format!("202611{day:02}")).collect();
    for day in &days {
        bare(&site, day);
    }
    site.set("keep_bases", "1").unwrap();
    let outcome = succeeds(&site, &["purge", &site.section()]);
    assert!(outcome.stdout.contains("(and 2 more after these)"), "{outcome}");
    assert_eq!(site.copies().unwrap(), [site.copy("20261113")]);
}

#[test]
fn purge_waits_for_a_run_at_work_and_then_chooses_anew() {
    let mut site = site();
    let section = site.section();
    createdb(&site, &["20261101", "20261102"]);
    site.set("keep_bases", "1").unwrap();
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut program = site.spawn(&["restore", &section, DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let outcome = site.run(&["purge", &section]).unwrap();
    assert_eq!(outcome.code, 5, "{outcome}");
    // What was planned before the wait is not what is done after it.
    let mut purge = site.spawn(&["purge", &section, "--wait"]).unwrap();
    purge.wait_until_it_says("waiting: ").unwrap();
    drop(waiting);
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    let outcome = purge.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(site.copies().unwrap(), [site.copy(DAY)]);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
}

#[test]
fn a_purge_killed_half_way_goes_on_where_it_was_and_cannot_be_rolled_back() {
    let mut site = site();
    let section = site.section();
    createdb(&site, &["20261101", "20261102", "20261103", "20261104"]);
    site.set("keep_bases", "1").unwrap();
    let second = site.copy("20261102");
    let sql = format!("BEGIN; COMMENT ON DATABASE {second} IS 'held'; SELECT pg_sleep(600);");
    let mut client = site.cluster().client("psql");
    let mut client =
        client.args(["-Xq", "-d", "postgres", "-c", &sql]).stderr(Stdio::null()).spawn().unwrap();
    let program = site.spawn(&["purge", &section]).unwrap();
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DROP DATABASE%{second}%' AND wait_event_type = 'Lock'"
    );
    wait_until("DROP DATABASE to wait", LIMIT, || site.cluster().psql("postgres", &waits).unwrap() == "1\n")
        .unwrap();
    program.kill().unwrap();
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'BEGIN; COMMENT ON DATABASE {second}%'"
    );
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    let refused = site.run(&["rollback", &run]).unwrap();
    ends(
        &site,
        &refused,
        1,
        "run <run> is running: its step 'drop_database shop_20261101' took effect and cannot be taken back\n\
         hint: what is left to do with it: pg_staging continue <run>",
    );
    site.cluster().psql("postgres", &end).unwrap();
    client.wait().unwrap();

    // What somebody uses by now stays, and so does its entry.
    let before = ini(&site);
    lead_there(&site, "qa", "20261103");
    let outcome = site.run(&["continue", &section]).unwrap();
    ends(
        &site,
        &outcome,
        3,
        "purge shop.dev stopped, and what it had done is kept (run <run>): shop_20261103 is in use: qa points at it\n\
         hint: point qa at another copy, or drop it with --force\n\
         then: pg_staging continue <run>, or pg_staging abandon <run> --reason TEXT (what it did cannot be undone)",
    );
    assert_eq!(site.copies().unwrap(), [site.copy("20261103"), site.copy("20261104")]);
    assert!(asks(&site, "qa", true) && asks(&site, &site.copy("20261103"), true));

    site.bouncer().write_ini(&before).unwrap();
    site.bouncer().admin("RELOAD").unwrap();
    succeeds(&site, &["continue", &section]);
    assert_eq!(site.copies().unwrap(), [site.copy("20261104")]);
    let traces = Traces::of(&site);
    assert_eq!(traces.tmpdir, Vec::<String>::new());
    assert!(!traces.ini.contains(&second), "{}", traces.ini);
}
