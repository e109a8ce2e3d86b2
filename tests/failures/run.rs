//! The user's own SQL, the checks, and the journal.

use std::{
    fs::{self, File},
    io::Write,
};

use serde_json::json;

use super::{DAY, SmallDisk, site};
use crate::{
    gate::Gate,
    stage::Site,
    traces::{Traces, error, fails, inspected, is_refused, last_run, plain, says, step, succeeds},
};

/// A site with an older copy at which the alias points.
fn site_in_use() -> Site<'static> {
    let site = site();
    succeeds(&site, &["createdb", &site.section(), "20261120"]);
    succeeds(&site, &["switch", &site.section(), "20261120"]);
    site
}

#[test]
fn sql_that_fails_before_the_restore_ends_it() {
    let site = site();
    site.add_sql("pre", "01-good.sql", "SELECT 1;").unwrap();
    site.add_sql("pre", "02-bad.sql", "SELECT 1;\nSELECT nonsense;\n").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "<site>/sql/shop.dev/pre/02-bad.sql failed\n\
         cause: psql:<site>/sql/shop.dev/pre/02-bad.sql:2: ERROR:  column \"nonsense\" does not exist\n\
         LINE 1: SELECT nonsense;\n\
         ^\n\
         hint: correct the file, then try again; the alias was not touched",
    );
}

#[test]
fn sql_that_fails_after_the_restore_leaves_the_alias_where_it_was() {
    let site = site_in_use();
    site.add_sql("post", "mask.sql", "UPDATE public.customer SET email = 'x';\n").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "<site>/sql/shop.dev/post/mask.sql failed\n\
         cause: psql:<site>/sql/shop.dev/post/mask.sql:1: ERROR:  value for domain email violates check constraint \"email_check\"\n\
         hint: correct the file, then try again; the alias was not touched",
    );
    assert_eq!(site.active().unwrap(), Some(site.copy("20261120")));
}

#[test]
fn a_copy_that_is_not_what_it_should_be_is_never_seen() {
    let site = site_in_use();
    site.add_sql("post", "drop.sql", "DROP TABLE warehouse.scratchpad, \"Odd Schema\".\"it's\";\n").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "shop_20261121 is not what it should be: tables are missing\n\
         cause: Odd Schema.it's, warehouse.scratchpad\n\
         hint: the alias was not touched; look at what post SQL and the dump do to them",
    );
    site.add_sql(
        "post",
        "drop.sql",
        "ALTER TABLE public.customer ADD CONSTRAINT old_enough CHECK (id > 0) NOT VALID;\n",
    )
    .unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "shop_20261121 is not what it should be: constraints are not validated\n\
         cause: public.customer old_enough\n\
         hint: the alias was not touched; look at what post SQL and the dump do to them",
    );
    assert_eq!(site.active().unwrap(), Some(site.copy("20261120")));
}

#[test]
fn what_failed_is_kept_where_that_is_wanted_and_goes_on_when_the_cause_is_mended() {
    let mut site = site();
    site.set("on_failure", "keep").unwrap();
    site.add_sql("post", "mask.sql", "UPDATE public.customer SET email = 'x';\n").unwrap();
    let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
    says(
        &error(&site, &outcome),
        "restore shop.dev stopped, and what it had done is kept (run <run>): <site>/sql/shop.dev/post/mask.sql failed\n\
         cause: psql:<site>/sql/shop.dev/post/mask.sql:1: ERROR:  value for domain email violates check constraint \"email_check\"\n\
         hint: correct the file, then try again; the alias was not touched\n\
         then: pg_staging continue <run>, or pg_staging rollback <run>",
    );
    assert_eq!(outcome.code, 3, "{outcome}");
    let run = last_run(&site);
    assert_eq!((&run["status"], &run["steps_done"]), (&json!("stopped"), &json!(10)));
    assert_eq!(site.active().unwrap(), None);
    assert_eq!(site.copies().unwrap(), [site.copy(DAY)]);

    site.add_sql("post", "mask.sql", "UPDATE public.note SET body = 'masked';\n").unwrap();
    succeeds(&site, &["continue", &site.section()]);
    assert_eq!(last_run(&site)["status"], "succeeded");
    assert_eq!(last_run(&site)["id"], run["id"]);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
    assert_eq!(step(&inspected(&site), "restore")["attempts"], 1);
    let masked = "SELECT count(*) FROM public.note WHERE body = 'masked'";
    assert_eq!(site.cluster().psql(&site.copy(DAY), masked).unwrap(), "1500\n");
    is_refused(
        &site,
        &["continue", &site.section()],
        6,
        "no run of shop.dev waits to be continued\n\
         hint: history lists the runs there are",
    );
}

#[test]
fn what_was_kept_can_be_taken_back() {
    let mut site = site();
    site.set("on_failure", "keep").unwrap();
    site.add_sql("post", "mask.sql", "SELECT nonsense;\n").unwrap();
    let before = Traces::of(&site);
    assert_eq!(site.run(&["restore", &site.section(), DAY]).unwrap().code, 3);
    succeeds(&site, &["rollback", last_run(&site)["id"].as_str().unwrap()]);
    assert_eq!(Traces::of(&site), before);
    assert_eq!(last_run(&site)["status"], "rolled_back");
}

#[test]
fn a_target_is_one_runs_at_a_time_and_the_next_one_waits_if_it_is_told_to() {
    let site = site();
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let run = last_run(&site);
    assert_eq!(run["status"], "running");

    let outcome = site.run(&["createdb", &site.section(), "20261119"]).unwrap();
    assert_eq!(outcome.code, 5, "{outcome}");
    let said = error(&site, &outcome);
    let actor = &run["actor"];
    let who = format!("{}@{}", actor["user"].as_str().unwrap(), actor["host"].as_str().unwrap());
    assert!(outcome.stderr.contains(&format!("process {}", actor["pid"])), "{outcome}");
    says(
        &said.replace(&who, "<who>"),
        "busy: 127.0.0.1:<port>/shop is held by restore shop.dev 20261121 (run <run>) of <who>, process <pid>, since <time>\n\
         hint: wait for it, or add --wait",
    );
    let impatient = site.run(&["--wait=1s", "createdb", &site.section(), "20261119"]).unwrap();
    assert_eq!(impatient.code, 5, "{impatient}");
    assert_eq!(last_run(&site)["id"], run["id"]);

    let mut patient = site.spawn(&["--wait", "createdb", &site.section(), "20261119"]).unwrap();
    patient.wait_until_it_says("waiting").unwrap();
    says(
        &plain(&site, &patient.stderr()).replace(&who, "<who>"),
        "waiting: busy: 127.0.0.1:<port>/shop is held by restore shop.dev 20261121 (run <run>) of <who>, process <pid>, since <time>\n",
    );
    drop(waiting);
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    let outcome = patient.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(site.copies().unwrap(), [site.copy("20261119"), site.copy(DAY)]);
}

#[test]
fn without_a_journal_nothing_is_begun() {
    let site = site();
    let file = site.folder().join("a-file");
    fs::write(&file, "").unwrap();
    let journal = file.display().to_string();
    for command in ["restore", "createdb"] {
        is_refused(
            &site,
            &["--journal", &journal, command, &site.section(), DAY],
            2,
            "cannot create <site>/a-file\n\
             cause: File exists (os error 17)\n\
             hint: see that you may write there and that there is room, or name another folder with --journal or journal",
        );
    }
}

#[test]
fn a_command_that_only_asks_answers_without_a_journal_and_says_so() {
    let site = site();
    let place = site.folder().join("a-file");
    fs::write(&place, "").unwrap();
    let journal = place.display().to_string();
    let outcome = succeeds(&site, &["--journal", &journal, "backups", &site.section()]);
    assert!(outcome.stdout.contains("2026-11-21"), "{outcome}");
    let told = plain(&site, &outcome.stderr);
    assert!(
        told.contains("warning: this command is not in the journal: cannot create <site>/a-file"),
        "{told}"
    );
}

#[test]
fn a_journal_that_is_full_stops_the_run_where_it_is_and_it_goes_on_when_there_is_room() {
    let mut site = site();
    site.set("fast", "False").unwrap();
    fs::create_dir(site.journal()).unwrap();
    let Some(_disk) = SmallDisk::mount(&site.journal(), "24m") else { return };
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let before = Traces::of(&site);
    let filler = site.journal().join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop((file, waiting));
    let outcome = program.wait().unwrap();
    // Where the events lie on the pages of the disk decides which of two is the first for which there is no room.
    says(
        &error(&site, &outcome).replace("an earlier event could not be recorded: ", ""),
        "run <run> was left as it is: the journal cannot be written\n\
         cause: cannot write <site>/journal/runs/<run>.log: No space left on device (os error 28)\n\
         hint: mend that, then: pg_staging continue <run>",
    );
    assert_eq!(outcome.code, 3, "{outcome}");
    // The file at the gate took effect; nothing came after it, and nothing was undone.
    assert_eq!(Traces::of(&site), before);
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(site.cluster().psql(&site.copy(DAY), tables).unwrap(), "0\n");

    fs::remove_file(&filler).unwrap();
    assert_eq!(last_run(&site)["status"], "interrupted");
    gate.remove(&site, "pre", "wait.sql");
    succeeds(&site, &["continue", &site.section()]);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
    assert_eq!(last_run(&site)["status"], "succeeded");
}
