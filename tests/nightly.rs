//! What a timer does every night, with nobody watching.

use std::{fs, path::Path, process::Command};

use clap::Parser as _;
use pg_staging::cli::Cli;
use serde_json::{Value, json};

use crate::{
    gate::Gate,
    stage::{Site, SiteOptions, Stage, binary},
    traces::{Traces, is_refused, json as ask, last_run, plain, says, succeeds},
};

const OLDER: &str = "2026-11-20";
const DAY: &str = "2026-11-21";

/// A site with a backup of each of these days.
fn site(dates: &[&str]) -> Site<'static> {
    let dates = dates.iter().map(|date| (*date).to_owned()).collect();
    Site::new(Stage::shared().unwrap(), &SiteOptions { dates, ..SiteOptions::default() }).unwrap()
}

/// The runs that changed something, newest first.
fn runs(site: &Site<'_>) -> Vec<Value> {
    ask(site, &["history"])["runs"].as_array().unwrap().clone()
}

/// The restore of what is newer has nothing to do: it says so in these words, and no run begins that changes anything.
#[track_caller]
fn does_nothing(site: &Site<'_>, arguments: &[&str], said: &str) -> String {
    let before = (Traces::of(site), runs(site));
    let outcome = succeeds(site, arguments);
    says(&plain(site, &outcome.stdout), &format!("restore shop.dev: nothing to do, {said}\n"));
    assert_eq!((Traces::of(site), runs(site)), before, "{outcome}");
    plain(site, &outcome.stderr)
}

#[test]
fn a_backup_that_is_behind_the_alias_already_is_not_restored_again_and_a_newer_one_is() {
    let mut site = site(&[OLDER]);
    let section = site.section();
    let nightly = ["restore", &section, "latest", "--if-newer"];
    let plan = succeeds(&site, &[&nightly[..], &["-n"]].concat());
    assert!(plan.stdout.contains("would make these steps"), "{plan}");
    succeeds(&site, &nightly);
    let first = last_run(&site);
    assert_eq!(first["arguments"], json!([section, "latest", "--if-newer"]));
    let said = "shop points at shop_20261120, made of the backup of 2026-11-20 (run <run>)";
    assert_eq!(does_nothing(&site, &nightly, said), "");
    assert_eq!(does_nothing(&site, &[&nightly[..], &["-n"]].concat(), said), "");
    let all = ask(&site, &["history", "--all", "--command", "restore", "--limit", "1"]);
    assert_eq!(all["runs"][0]["arguments"], first["arguments"]);
    assert_ne!(all["runs"][0]["id"], first["id"], "that somebody asked is in the journal");
    let told = ask(&site, &nightly)["not_newer"].clone();
    let expected = json!({
        "section": section, "database": site.copy(OLDER), "backup_date": OLDER, "run": first["id"], "backup_changed": false
    });
    assert_eq!(told, expected);
    assert_eq!(succeeds(&site, &[&nightly[..], &["-q"]].concat()).stdout, "");

    site.add_backup(DAY).unwrap();
    succeeds(&site, &nightly);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
    // The newest backup went away, and what is live is newer than what is left.
    site.remove_file(&site.backup_name(DAY)).unwrap();
    let said = "shop points at shop_20261121, newer than the backup of 2026-11-20";
    assert_eq!(does_nothing(&site, &nightly, said), "");
    // Back to the older copy: then the newer backup is newer, and its copy is in the way.
    site.add_backup(DAY).unwrap();
    succeeds(&site, &["switch", &section, OLDER]);
    let outcome = site.run(&nightly).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("database") && outcome.stderr.contains("exists already"), "{outcome}");
    // Where a restore leaves the alias alone, the newest copy counts.
    site.set("auto_switch", "False").unwrap();
    let said = "shop_20261121 is there, made of the backup of 2026-11-21 (run <run>)";
    assert_eq!(does_nothing(&site, &nightly, said), "");
}

#[test]
fn a_backup_that_changed_on_its_day_is_told_and_a_copy_that_nobody_can_vouch_for_does_not_count() {
    let site = site(&[DAY]);
    let section = site.section();
    let nightly = ["restore", &section, "latest", "--if-newer"];
    succeeds(&site, &nightly);
    let mut longer = fs::read(site.dump()).unwrap();
    longer.push(0);
    site.write_file(&site.backup_name(DAY), longer).unwrap();
    let said = "shop points at shop_20261121, made of the backup of 2026-11-21 (run <run>)";
    let warned = does_nothing(&site, &nightly, said);
    assert_eq!(
        warned,
        "warning: the backup of 2026-11-21 has changed since shop_20261121 was made of it; to take it as it is now, \
         switch to another copy, drop shop_20261121, and restore without --if-newer\n"
    );
    let outcome = succeeds(&site, &[&nightly[..], &["--json"]].concat());
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(told["not_newer"]["backup_changed"], true);

    // Its mark is gone: by whom and from what it was made is not known any more.
    let comment = format!("COMMENT ON DATABASE \"{}\" IS 'made by hand'", site.copy(DAY));
    site.cluster().psql("postgres", &comment).unwrap();
    let outcome = site.run(&nightly).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("exists already"), "{outcome}");
    // A backup server that cannot be asked is no reason to believe anything.
    site.remove_file(&site.backup_name(DAY)).unwrap();
    let outcome = site.run(&nightly).unwrap();
    assert_eq!(outcome.code, 6, "{outcome}");
}

#[test]
fn an_empty_copy_behind_the_alias_is_no_restored_backup() {
    let site = site(&[DAY]);
    let section = site.section();
    succeeds(&site, &["createdb", &section, DAY]);
    succeeds(&site, &["switch", &section, DAY]);
    let outcome = site.run(&["restore", &section, "latest", "--if-newer"]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert_eq!(last_run(&site)["status"], "failed");
}

/// A restore of `day` that was killed while it sourced the last SQL file.
fn killed(site: &Site<'_>, day: &str) -> String {
    let name = format!("99-{day}.sql");
    let gate = Gate::new(site, "post", &name, "SELECT 1");
    let mut program = site.spawn(&["restore", &site.section(), day]).unwrap();
    let waiting = gate.wait(&mut program);
    gate.remove(site, "post", &name);
    assert_eq!(program.kill().unwrap().code, 137);
    drop(waiting);
    let run = last_run(site);
    assert_eq!(run["status"], "interrupted");
    run["id"].as_str().unwrap().to_owned()
}

fn statuses(site: &Site<'_>) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    runs(site).iter().rev().map(|run| (word(&run["database"]), word(&run["status"]))).collect()
}

#[test]
fn the_interrupted_restore_of_last_night_is_continued_before_another_one_begins() {
    let mut site = site(&[OLDER]);
    let section = site.section();
    site.set("on_interrupted", "continue").unwrap();
    let nightly = ["restore", &section, "latest", "--if-newer"];
    let id = killed(&site, OLDER);
    // It makes what was asked for, and nothing more is done.
    let plan = succeeds(&site, &[&nightly[..], &["-n"]].concat());
    assert!(plan.stdout.contains("would make these steps"), "{plan}");
    let outcome = succeeds(&site, &nightly[..3]);
    assert!(outcome.stderr.contains("taken up again"), "{outcome}");
    assert_eq!(site.active().unwrap(), Some(site.copy(OLDER)));
    assert_eq!((runs(&site).len(), &last_run(&site)["id"]), (1, &json!(id)));
    // Another one was asked for: both are there in the end, one after the other.
    site.add_backup(DAY).unwrap();
    let id = killed(&site, DAY);
    site.add_backup("2026-11-22").unwrap();
    succeeds(&site, &nightly);
    let done = |day: &str| (site.copy(day), "succeeded".to_owned());
    assert_eq!(statuses(&site), [done(OLDER), done(DAY), done("2026-11-22")]);
    assert_eq!(runs(&site)[1]["id"], json!(id));
    assert_eq!(site.active().unwrap(), Some(site.copy("2026-11-22")));
}

#[test]
fn the_interrupted_restore_of_last_night_is_undone_before_another_one_begins_or_left_to_be_asked_for() {
    let mut site = site(&[DAY]);
    let section = site.section();
    let id = killed(&site, DAY);
    let short = &id[id.len() - 8..];
    // Left to an operator, whom the failure reaches with what to type.
    let outcome = site.run(&["restore", &section, "latest"]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    let told = format!(
        "warning: run {short} (restore {section} {DAY}) is interrupted: pg_staging continue {short}, or pg_staging rollback \
         {short}; on_interrupted in the configuration does either of them\n"
    );
    assert!(outcome.stderr.starts_with(&told), "{outcome}");
    assert!(outcome.stderr.contains("exists already"), "{outcome}");

    site.set("on_interrupted", "rollback").unwrap();
    let plan = succeeds(&site, &["restore", &section, "latest", "-n"]);
    assert!(plan.stdout.contains("would make these steps") && plan.stdout.contains("undo"), "{plan}");
    succeeds(&site, &["restore", &section, "latest"]);
    let of = |status: &str| (site.copy(DAY), status.to_owned());
    assert_eq!(statuses(&site), [of("rolled_back"), of("failed"), of("succeeded")]);
    let events = ask(&site, &["inspect", &id])["events"].clone();
    let events = events.as_array().unwrap();
    let why = events.iter().find(|event| event["kind"] == "rollback_started").unwrap();
    assert!(why["detail"].to_string().contains("on_interrupted = rollback"), "{why}");

    // What failed and was kept is for somebody to look at, and not what was interrupted.
    site.set("on_failure", "keep").unwrap();
    let mistake = site.add_sql("post", "01.sql", "SELECT 1/0").unwrap();
    site.add_backup("2026-11-22").unwrap();
    assert_eq!(site.run(&["restore", &section, "2026-11-22"]).unwrap().code, 3);
    fs::remove_file(mistake).unwrap();
    assert_eq!(site.run(&["restore", &section, "2026-11-22"]).unwrap().code, 1);
    assert_eq!(statuses(&site)[3], (site.copy("2026-11-22"), "stopped".to_owned()));
}

/// A second section in the configuration file, for another database on the same servers.
fn with_another(site: &Site<'_>, dbname: &str) -> String {
    let ini = fs::read_to_string(site.ini_path()).unwrap();
    let (head, section) = ini.split_once(&format!("[{}]\n", site.section())).unwrap();
    let backups = site.backups().parent().unwrap().join(dbname);
    fs::create_dir_all(&backups).unwrap();
    fs::copy(site.dump(), backups.join(format!("{dbname}.{DAY}.dump"))).unwrap();
    site.stage().scratch().account().own(&backups).unwrap();
    let other = section.replace(&format!("= {}\n", site.dbname()), &format!("= {dbname}\n"));
    let other = other.replace(&format!("/{}/", site.dbname()), &format!("/{dbname}/"));
    let all = format!("{head}[{}]\n{section}\n[{dbname}.dev]\n{other}", site.section());
    fs::write(site.ini_path(), all).unwrap();
    format!("{dbname}.dev")
}

/// What each section was told to have done, from the lines that bear its name.
fn lines_of<'a>(said: &'a str, section: &str) -> Vec<&'a str> {
    let begins = format!("{section}: ");
    said.lines().filter_map(|line| line.strip_prefix(&begins)).collect()
}

#[test]
fn several_sections_are_restored_at_a_time_each_by_a_run_of_its_own_and_each_line_says_whose_it_is() {
    let site = site(&[DAY]);
    let section = site.section();
    let other_db = format!("{}b", site.dbname());
    let other = with_another(&site, &other_db);
    let outcome = succeeds(&site, &["restore", &section, &other, "--date", "latest", "--jobs", "2"]);
    let points = site.bouncer().show_databases().unwrap();
    assert_eq!(points[site.dbname()].dbname, site.copy(DAY));
    assert_eq!(points[&other_db].dbname, format!("{other_db}_20261121"));
    let made = runs(&site);
    let both: Vec<(&Value, &Value)> = made.iter().map(|run| (&run["section"], &run["status"])).collect();
    let done = json!("succeeded");
    assert_eq!(both.len(), 2);
    assert!(both.contains(&(&json!(section), &done)) && both.contains(&(&json!(other), &done)), "{both:?}");
    for run in &made {
        assert_eq!(run["arguments"], json!([run["section"], "latest"]));
    }
    for (section, copy) in [(&section, site.copy(DAY)), (&other, format!("{other_db}_20261121"))] {
        let results = lines_of(&outcome.stdout, section);
        assert_eq!(results.len(), 1, "{outcome}");
        assert!(results[0].contains(&format!("points at {copy}")), "{outcome}");
        let steps = lines_of(&outcome.stderr, section);
        assert!(steps.iter().any(|line| line.contains("ok   switch")), "{outcome}");
    }
    let width = other.len();
    let summary = format!("2 of 2 sections done\n {section:width$}  done\n {other:width$}  done\n");
    assert!(outcome.stdout.ends_with(&summary), "{outcome}");
    for line in outcome.stderr.lines() {
        assert!(line.starts_with(&section) || line.starts_with(&other), "{line}");
    }

    // One has nothing to do, and one fails, which keeps no other from its work.
    let dump = format!("{other_db}.{DAY}.dump");
    fs::remove_file(site.backups().parent().unwrap().join(&other_db).join(dump)).unwrap();
    let nightly = ["restore", "--all", "--date", "latest", "--if-newer"];
    let outcome = site.run(&nightly).unwrap();
    assert_eq!(outcome.code, 6, "{outcome}");
    assert!(lines_of(&outcome.stdout, &section)[0].contains("nothing to do"), "{outcome}");
    assert!(lines_of(&outcome.stderr, &other)[0].starts_with("error: "), "{outcome}");
    let summary = format!("1 of 2 sections done\n {section:width$}  done\n {other:width$}  exit code 6\n");
    assert!(outcome.stdout.ends_with(&summary), "{outcome}");
    let outcome = site.run(&[&nightly[..], &["--json", "-q"]].concat()).unwrap();
    let last: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    let told = json!([{ "section": section, "code": 0 }, { "section": other, "code": 6 }]);
    assert_eq!(last["sections"], told);
    assert_eq!(runs(&site).len(), 2);
    site.cluster().psql("postgres", &format!("DROP DATABASE {other_db}_20261121 WITH (FORCE)")).unwrap();
}

#[test]
fn what_is_no_section_among_several_is_refused_before_anything_is_begun() {
    let site = site(&[DAY]);
    let section = site.section();
    let other = with_another(&site, &format!("{}b", site.dbname()));
    let hint = "hint: a date for several sections is given with --date; databases lists the sections";
    for (word, code) in [("latest", 2), ("shoop", 6)] {
        is_refused(
            &site,
            &["restore", &section, &other, word],
            code,
            &format!("there is no section {word}\n{hint}"),
        );
    }
    for words in [&["restore"][..], &["restore", "--all", &section], &["restore", &section, "--jobs", "0"]] {
        assert_eq!(site.run(words).unwrap().code, 2, "{words:?}");
    }
    // One section, however often.
    let plan = succeeds(&site, &["restore", &section, &section, "--date", DAY, "-n"]);
    assert_eq!(plan.stdout.matches("would make these steps").count(), 1, "{plan}");
    let plan = succeeds(&site, &["restore", "--all", "--date", DAY, "-n"]);
    assert_eq!(plan.stdout.matches("would make these steps").count(), 2, "{plan}");
}

#[test]
fn systemd_understands_the_unit_files() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let folder = tempfile::tempdir().unwrap();
    let units = ["service", "timer"].map(|kind| {
        let unit = fs::read_to_string(docs.join(format!("pg_staging@.{kind}"))).unwrap();
        // The program need not be installed here.
        let unit = unit.replace("/usr/local/bin/pg_staging", binary().to_str().unwrap());
        let path = folder.path().join(format!("pg_staging@shop.dev.{kind}"));
        fs::write(&path, unit).unwrap();
        path
    });
    let mut verify = Command::new("systemd-analyze");
    verify.env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display())).arg("verify").arg("--man=no");
    match verify.args(&units).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let ours: Vec<&str> = said.lines().filter(|line| line.contains("pg_staging")).collect();
            assert_eq!(ours, Vec::<&str>::new());
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => panic!("{error}"),
    }
    // What the service runs can be typed.
    let unit = fs::read_to_string(docs.join("pg_staging@.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words = shlex::split(&line.replace("%i", "shop.dev")).unwrap();
    Cli::try_parse_from(words).unwrap();
}
