//! PostgreSQL, pgbouncer, its ini, and ssh.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use rustix::process::Signal;

use super::{DAY, far_site, impatient, site};
use crate::{
    gate::Gate,
    stage::{Serving, Site, SiteOptions, Stage, StageOptions, wait_until},
    traces::{Traces, error, fails, ini, inspected, last_run, names_in, says, step, succeeds},
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_database_of_that_name_that_is_there_already_is_left_alone() {
    let site = site();
    let copy = site.copy(DAY);
    site.cluster().psql("postgres", &format!("CREATE DATABASE {copy}")).unwrap();
    site.cluster().psql(&copy, "CREATE TABLE somebodys ()").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "database shop_20261121 exists already\n\
         hint: drop it first (pg_staging drop shop.dev 20261121), or switch to it (pg_staging switch shop.dev 20261121)",
    );
    fails(
        &site,
        &["createdb", &site.section(), DAY],
        1,
        "database shop_20261121 exists already\n\
         hint: drop it first (pg_staging drop shop.dev 20261121), or switch to it (pg_staging switch shop.dev 20261121)",
    );
    let dump = site.dump().display().to_string();
    fails(
        &site,
        &["load", &site.section(), &dump, "--date", DAY],
        1,
        "database shop_20261121 exists already\n\
         hint: drop it first (pg_staging drop shop.dev 20261121), or switch to it",
    );
    assert_eq!(site.cluster().psql(&copy, "SELECT count(*) FROM somebodys").unwrap(), "0\n");
}

#[test]
fn an_owner_that_does_not_exist_is_named_before_anything_is_made() {
    let mut site = site();
    site.set("dbowner", "nobody_known").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "role nobody_known, the owner of the copy, does not exist\n\
         hint: create it (pg_staging init shop.dev), or correct dbowner",
    );
}

#[test]
fn a_role_that_may_not_create_databases_is_named_before_anything_is_made() {
    let mut site = site();
    site.set("dbuser", "shop_owner").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "role shop_owner may not create databases\n\
         hint: name a superuser, or a role with CREATEDB, as dbuser",
    );
}

#[test]
fn an_entry_of_the_copys_name_that_leads_elsewhere_is_not_touched() {
    let site = site();
    let entry = format!("[databases]\n{} = host=127.0.0.1 dbname=template1\n", site.copy(DAY));
    let edited = ini(&site).replacen("[databases]\n", &entry, 1);
    site.bouncer().write_ini(edited).unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "<bouncer>/pgbouncer.ini has an entry shop_20261121 that leads elsewhere\n\
         hint: take it out, or rename it, then try again",
    );
}

#[test]
fn a_postgresql_that_is_down_is_waited_for_and_then_given_up() {
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let mut site = Site::new(&stage, &SiteOptions::default()).unwrap();
    // pgbouncer itself waits for PostgreSQL, so that each attempt takes seconds.
    site.set("retry_limit", "0s").unwrap();
    let before = Traces::of(&site);
    stage.cluster().stop().unwrap();
    let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
    stage.cluster().start_again().unwrap();
    says(
        &error(&site, &outcome),
        "restore shop.dev failed before it changed anything (run <run>): cannot reach PostgreSQL on 127.0.0.1\n\
         cause: cannot connect to database postgres on 127.0.0.1:<port>: error connecting to server: Connection refused (os error 111); cannot connect to database postgres on 127.0.0.1:<port>: no answer within 10 s\n\
         hint: start it, or correct host, postgres_port, pgbouncer_port, dbuser and maintdb",
    );
    assert_eq!((outcome.code, Traces::of(&site)), (1, before));

    // One that comes back in time is no failure.
    site.set("retry_limit", "1m").unwrap();
    stage.cluster().stop().unwrap();
    let mut program = site.spawn(&["createdb", &site.section(), DAY]).unwrap();
    program.wait_until_it_says("again in").unwrap();
    stage.cluster().start_again().unwrap();
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
}

#[test]
fn a_pgbouncer_that_is_down_from_the_start_fails_the_run_before_anything_is_made() {
    let mut site = site();
    let before = Traces::of(&site);
    site.bouncer_mut().stop().unwrap();
    let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
    site.bouncer_mut().start_again().unwrap();
    says(
        &error(&site, &outcome),
        "restore shop.dev failed before it changed anything (run <run>): cannot reach pgbouncer's console on 127.0.0.1:<port>\n\
         cause: error connecting to server: Connection refused (os error 111)\n\
         hint: check that pgbouncer runs there and that 'postgres' is one of its admin_users (psql -h 127.0.0.1 -p <port> -U postgres pgbouncer)",
    );
    assert_eq!((outcome.code, Traces::of(&site)), (1, before));
    assert_eq!(last_run(&site)["status"], "failed");
}

#[test]
fn a_pgbouncer_that_is_away_for_a_while_before_the_switch_is_waited_for() {
    let mut site = site();
    site.set("retry_limit", "1m").unwrap();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    site.bouncer_mut().stop().unwrap();
    drop(waiting);
    program.wait_until_it_says("again in").unwrap();
    site.bouncer_mut().start_again().unwrap();
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
}

#[test]
fn a_pgbouncer_that_does_not_come_back_leaves_the_run_stuck_and_rollback_ends_it_later() {
    let mut site = site();
    let before = Traces::of(&site);
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    site.bouncer_mut().stop().unwrap();
    drop(waiting);
    let outcome = program.wait().unwrap();
    says(
        &error(&site, &outcome),
        "restore shop.dev is stuck (run <run>): could not undo: switch\n\
         cause: cannot reach pgbouncer's console on 127.0.0.1:<port>: error connecting to server: Connection refused (os error 111)\n\
         hint: check that pgbouncer runs there and that 'postgres' is one of its admin_users (psql -h 127.0.0.1 -p <port> -U postgres pgbouncer)\n\
         then: look at it: pg_staging inspect <run>",
    );
    assert_eq!(outcome.code, 4, "{outcome}");
    let run = last_run(&site);
    assert_eq!(run["status"], "stuck");

    site.bouncer_mut().start_again().unwrap();
    succeeds(&site, &["rollback", run["id"].as_str().unwrap()]);
    assert_eq!(Traces::of(&site), before);
    // It failed, and is undone now.
    assert_eq!(last_run(&site)["status"], "failed");
}

#[test]
fn an_ini_that_cannot_be_edited_is_refused_before_anything_is_made() {
    let site = site();
    let broken = ini(&site).replacen("[databases]\n", "[databases]\nnonsense\n", 1);
    site.bouncer().write_ini(broken).unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "<bouncer>/pgbouncer.ini on 127.0.0.1 cannot be edited\n\
         cause: line 5: `nonsense` is not followed by `=`\n\
         hint: write `nonsense = …`, or put `;` before it",
    );
}

#[test]
fn an_ini_that_pgbouncer_does_not_take_is_put_back_and_the_run_undone() {
    let site = site();
    let version = site.bouncer().admin("SHOW VERSION").unwrap();
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()).unwrap();
    if minor >= 24 {
        eprintln!("not tested: this pgbouncer knows load_balance_hosts, {version}");
        return;
    }
    // Read in order, and nothing after a line that is wrong: the databases last, and the wrong one first among them.
    let ini = ini(&site);
    let (head, rest) = ini.split_once("[databases]\n").unwrap();
    let (databases, settings) = rest.split_once("[users]\n").unwrap();
    let wrong = "typo = host=127.0.0.1 load_balance_hosts=disable\n";
    let broken = format!("{head}[users]\n{settings}\n[databases]\n{wrong}{databases}");
    site.bouncer().write_ini(broken).unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "pgbouncer on 127.0.0.1 does not take the new <bouncer>/pgbouncer.ini; the old one is back\n\
    cause: staging-client: entry typo is missing\n\
    staging-client: entry shop_20261121 is missing\n\
    staging-client: <bouncer>/pgbouncer.ini is the old one again\n\
    hint: mend what pgbouncer cannot read in <bouncer>/pgbouncer.ini (its log says which line), then try again",
    );
}

#[test]
fn an_ini_with_which_pgbouncer_lets_nobody_in_leaves_the_run_stuck_and_rollback_ends_it_later() {
    let site = site();
    let before = Traces::of(&site);
    let broken = format!("[pgbouncer]\nsettled = maybe\n\n{}", before.ini);
    site.bouncer().write_ini(&broken).unwrap();
    let outcome = site.run(&["createdb", &site.section(), DAY]).unwrap();
    says(
        &error(&site, &outcome),
        "createdb shop.dev is stuck (run <run>): could not undo: bouncer_add\n\
    cause: cannot reach pgbouncer's console on 127.0.0.1:<port>: not allowed [08P01]\n\
    hint: check that pgbouncer runs there and that 'postgres' is one of its admin_users (psql -h 127.0.0.1 -p <port> -U postgres pgbouncer)\n\
    then: look at it: pg_staging inspect <run>",
    );
    assert_eq!((outcome.code, ini(&site)), (4, broken), "{outcome}");
    let run = last_run(&site);
    assert_eq!(run["status"], "stuck");

    site.bouncer().write_ini(&before.ini).unwrap();
    site.bouncer().signal(Signal::HUP).unwrap();
    wait_until("pgbouncer to let us in", LIMIT, || site.bouncer().show_databases().is_ok()).unwrap();
    succeeds(&site, &["rollback", run["id"].as_str().unwrap()]);
    assert_eq!(Traces::of(&site), before);
}

#[test]
fn a_change_of_the_ini_between_reading_and_writing_it_is_kept_and_the_step_done_again() {
    let mut site = site();
    site.set("retry_limit", "1m").unwrap();
    // An administrator who saves the file at the worst moment, once.
    let script = site.folder().join("client.sh");
    let real = crate::stage::CLIENT_SCRIPT;
    let (once, conf) = (site.folder().join("once"), site.bouncer().ini_path());
    let text = format!(
        "#!/bin/sh\n[ -e '{0}' ] || {{ : >'{0}'; printf '\\n; changed by hand\\n' >>'{1}'; }}\nexec '{real}' \"$@\"\n",
        once.display(),
        conf.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    site.set("client_script", &script.display().to_string()).unwrap();
    succeeds(&site, &["createdb", &site.section(), DAY]);
    let after = ini(&site);
    assert!(after.ends_with("; changed by hand\n"), "{after}");
    assert!(Traces::of(&site).aliases.contains_key(&site.copy(DAY)));
    let told = inspected(&site);
    assert_eq!(step(&told, "bouncer_add")["attempts"], 2);
    assert_eq!(step(&told, "bouncer_add")["status"], "succeeded");
}

#[test]
fn a_comment_that_somebody_adds_during_a_restore_is_kept() {
    let site = site();
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let edited = ini(&site).replacen("[databases]\n", "; a word from somebody\n[databases]\n", 1);
    site.bouncer().write_ini(&edited).unwrap();
    drop(waiting);
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    let to = format!("dbname={} host=127.0.0.1 port={}\n", site.copy(DAY), site.cluster().port());
    assert_eq!(ini(&site).replace(&format!("{} = {to}", site.dbname()), ""), edited);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
}

#[test]
fn an_alias_that_somebody_points_elsewhere_during_a_restore_stays_there() {
    let site = site();
    let before = Traces::of(&site);
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let port = site.cluster().port();
    let alias = format!("[databases]\n{} = host=127.0.0.1 port={port} dbname=template1\n", site.dbname());
    site.bouncer().write_ini(ini(&site).replacen("[databases]\n", &alias, 1)).unwrap();
    site.bouncer().admin("RELOAD").unwrap();
    drop(waiting);
    let outcome = program.wait().unwrap();
    says(
        &error(&site, &outcome),
        "restore shop.dev failed, and what it had done is undone (run <run>): shop was pointed elsewhere by somebody else meanwhile\n\
         cause: it led to nothing, and leads to template1 on 127.0.0.1:<port> now\n\
         hint: it stays there; start again if it is to point at shop_20261121 all the same",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    let after = Traces::of(&site);
    assert_eq!(after.ini, before.ini.replacen("[databases]\n", &alias, 1));
    assert_eq!(site.active().unwrap().as_deref(), Some("template1"));
    assert_eq!((after.databases, after.tmpdir), (before.databases, before.tmpdir));
    assert_eq!(last_run(&site)["status"], "failed");
}

#[test]
fn a_client_script_that_is_missing_or_may_not_run_fails_the_run() {
    let mut site = site();
    site.set("client_script", "/nowhere/staging-client.sh").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "there is no program /nowhere/staging-client.sh\n\
         hint: copy staging-client.sh there and make it executable, or set client_script to where it is",
    );
    let mut site = far_site();
    site.set("client_script", "/nowhere/staging-client.sh").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "cannot run /nowhere/staging-client.sh on 127.0.0.2\n\
         cause: /bin/sh: 1: /nowhere/staging-client.sh: not found\n\
         hint: copy staging-client.sh there and make it executable, or set client_script to where it is",
    );
    site.set("client_script", "./staging-client.sh; true").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "client_script './staging-client.sh; true' has characters that a shell would change\n\
         hint: use letters, digits and -_./+@~ only",
    );
    let uploads = names_in(&site.sshd().unwrap().login_folder());
    assert!(uploads.iter().all(|name| !name.starts_with("pgbouncer.")), "{uploads:?}");
}

#[test]
fn an_ssh_that_is_refused_is_told_from_one_that_may_come() {
    let mut site = far_site();
    let options = site.sshd().unwrap().ssh_options().join(" ");
    let port = format!("Port={}", site.sshd().unwrap().port());
    site.set("ssh_options", &options.replace(&port, "Port=1")).unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "cannot copy <bouncer>/pgbouncer.ini from 127.0.0.2\n\
         cause: ssh: connect to host 127.0.0.2 port 1: Connection refused\n\
         scp: Connection closed\n\
         hint: check that this works: ssh <options> 127.0.0.2 true",
    );
    assert!(step(&inspected(&site), "preflight")["attempts"].as_u64().unwrap() > 1);

    let key = options.split_once("IdentityFile=").unwrap().1.split(' ').next().unwrap();
    let another = site.folder().join("another_key");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&another);
    assert!(keygen.status().unwrap().success());
    site.set("ssh_options", &options.replace(key, &another.display().to_string())).unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "cannot copy <bouncer>/pgbouncer.ini from 127.0.0.2\n\
    cause: <user>@127.0.0.2: Permission denied (publickey).\n\
    scp: Connection closed\n\
    hint: check that this works: ssh <options> 127.0.0.2 true",
    );
    assert_eq!(step(&inspected(&site), "preflight")["attempts"], 1);
}

#[test]
fn a_backup_server_and_a_target_that_both_fail_are_told_one_at_a_time() {
    let options = SiteOptions { serving: Serving::Rude, ..SiteOptions::default() };
    let mut site = impatient(&options);
    site.set("dbowner", "nobody_known").unwrap();
    site.set("backup_host", "127.0.0.1:1").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "role nobody_known, the owner of the copy, does not exist\n\
         hint: create it (pg_staging init shop.dev), or correct dbowner",
    );
}
