//! `journal`: what it finds wrong, mends, gives out and takes in, seen from the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::mending::on_a_terminal;
use crate::stage::{Outcome, Site, SiteOptions, Stage};

/// A site whose journal has a restore, and the run's id.
fn restored() -> (Site<'static>, String) {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let restored = site.run(&["restore", &site.section(), "20261121"]).unwrap();
    assert_eq!(restored.code, 0, "{restored:#?}");
    let history = json(&site.run(&["history", "--json"]).unwrap());
    let run = history["runs"][0]["id"].as_str().unwrap().to_owned();
    (site, run)
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:#?}"))
}

fn head(site: &Site<'_>) -> String {
    let verified = site.run(&["journal", "verify", "--json"]).unwrap();
    assert_eq!(verified.code, 0, "{verified:#?}");
    json(&verified)["journal"]["head"].as_str().unwrap().to_owned()
}

fn attachments(site: &Site<'_>) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.journal().join("attachments")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn path_says_where_the_journal_is_and_makes_none() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let told = site.run(&["journal", "path"]).unwrap();
    assert_eq!((told.code, Path::new(told.stdout.trim())), (0, site.journal().as_path()), "{told:#?}");
    assert!(!site.journal().exists());
}

#[test]
fn verify_finds_a_whole_journal_whole_and_its_head_in_a_later_one() {
    let (site, _) = restored();
    let before = head(&site);
    let told = site.run(&["journal", "verify", "--against", &before]).unwrap();
    assert_eq!(told.code, 0, "{told:#?}");
    assert!(told.stdout.contains("runs") && told.stdout.contains("\nhead "), "{told:#?}");
    assert_eq!(site.run(&["drop", &site.section(), "20261121", "--force"]).unwrap().code, 0);
    let told = site.run(&["journal", "verify", "--against", &before]).unwrap();
    assert_eq!(told.code, 0, "{told:#?}");
    assert_ne!(head(&site), before);

    let (count, hash) = before.split_once('.').unwrap();
    let other = format!("{count}.{}", hash.chars().rev().collect::<String>());
    let told = site.run(&["journal", "verify", "--against", &other]).unwrap();
    assert_eq!(told.code, 4, "{told:#?}");
    assert!(told.stdout.contains("not a continuation"), "{told:#?}");
    let told = site.run(&["journal", "verify", "--against", "yesterday"]).unwrap();
    assert_eq!(told.code, 2, "{told:#?}");
    assert!(told.stderr.contains("is not the head of a journal"), "{told:#?}");
}

#[test]
fn verify_names_damage_and_rebuild_mends_what_the_database_still_has() {
    let (site, run) = restored();
    let before = head(&site);
    let file = site.journal().join(format!("runs/{run}.log"));
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let told = site.run(&["journal", "verify"]).unwrap();
    assert_eq!(told.code, 4, "{told:#?}");
    assert!(told.stdout.contains(&format!("truncated run of run {run}")), "{told:#?}");
    assert!(told.stderr.contains("pg_staging journal rebuild"), "{told:#?}");
    let told = json(&site.run(&["journal", "verify", "--json"]).unwrap());
    assert_eq!(told["journal"]["damage"][0]["kind"], "truncated run");

    let dry = site.run(&["-n", "journal", "rebuild"]).unwrap();
    assert_eq!(dry.code, 0, "{dry:#?}");
    assert_eq!(fs::read(&file).unwrap().len(), whole.len() / 2);
    let rebuilt = site.run(&["journal", "rebuild"]).unwrap();
    assert_eq!(rebuilt.code, 0, "{rebuilt:#?}");
    assert_eq!(fs::read(&file).unwrap(), whole);
    assert_eq!(site.run(&["journal", "verify", "--against", &before]).unwrap().code, 0);
    let history = json(&site.run(&["history", "--json"]).unwrap());
    assert_eq!(history["runs"][0]["arguments"][0], "rebuild", "the rebuild is a run itself");
    assert_eq!(history["runs"][0]["actor"]["user"], history["runs"][1]["actor"]["user"]);
}

#[test]
fn verify_misses_a_removed_run_and_a_removed_attachment() {
    let (site, run) = restored();
    let gone = attachments(&site).remove(0);
    fs::remove_file(&gone).unwrap();
    let told = site.run(&["journal", "verify"]).unwrap();
    assert_eq!(told.code, 4, "{told:#?}");
    assert!(told.stdout.contains("missing attachment"), "{told:#?}");
    assert!(told.stdout.contains(gone.to_str().unwrap()), "{told:#?}");

    fs::remove_file(site.journal().join(format!("runs/{run}.log"))).unwrap();
    fs::remove_dir_all(site.journal().join("sled")).unwrap();
    let told = site.run(&["journal", "verify"]).unwrap();
    assert!(told.stdout.contains(&format!("removed run of run {run}")), "{told:#?}");
}

#[test]
fn what_is_exported_is_imported_elsewhere_once_and_is_the_same() {
    let (site, run) = restored();
    let file = site.folder().join("export.jsonl");
    let exported = site.run(&["journal", "export", "--output", file.to_str().unwrap()]).unwrap();
    assert_eq!(exported.code, 0, "{exported:#?}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert!(text.contains(&run) && text.contains("\"kind\":\"run_succeeded\""), "{text}");
    let printed = site.run(&["journal", "export"]).unwrap();
    assert_eq!(printed.stdout, text);

    let other = site.folder().join("other");
    let there = |arguments: &[&str]| {
        let all = [&["--journal", other.to_str().unwrap()], arguments].concat();
        site.run(&all).unwrap()
    };
    let dry = there(&["-n", "journal", "import", file.to_str().unwrap()]);
    assert_eq!(dry.code, 0, "{dry:#?}");
    assert!(dry.stdout.contains("would take in") || dry.stderr.contains("would take in"), "{dry:#?}");
    assert!(!other.exists());
    for _ in 0..2 {
        let imported = there(&["journal", "import", file.to_str().unwrap()]);
        assert_eq!(imported.code, 0, "{imported:#?}");
    }
    let of = |outcome: Outcome| json(&outcome)["steps"].clone();
    let here = of(site.run(&["inspect", "--json", &run]).unwrap());
    assert_eq!(of(there(&["inspect", "--json", &run])), here);
    assert_eq!(there(&["journal", "verify"]).code, 0);

    // Not a word of it is taken in when its chain is broken.
    let lines: Vec<&str> = text.lines().collect();
    let second = lines.iter().position(|line| line.contains("\"n\":1,")).unwrap();
    let broken = site.folder().join("broken.jsonl");
    fs::write(&broken, [&lines[..second], &lines[second + 1..]].concat().join("\n")).unwrap();
    let third = site.folder().join("third");
    let refused = site
        .run(&["--journal", third.to_str().unwrap(), "journal", "import", broken.to_str().unwrap()])
        .unwrap();
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.stderr.contains("removed event"), "{refused:#?}");
}

/// A site with a copy that is there, made by a restore, and one that was made and dropped again.
fn with_a_past() -> Site<'static> {
    let (site, _) = restored();
    for command in ["createdb", "drop"] {
        assert_eq!(site.run(&[command, &site.section(), "20261120"]).unwrap().code, 0);
    }
    site
}

/// The commands and statuses in the journal, oldest first, without those that asked only.
fn history(site: &Site<'_>) -> Vec<String> {
    let listed = json(&site.run(&["history", "--limit", "1000", "--json"]).unwrap());
    let text = |run: &Value, key: &str| run[key].as_str().unwrap().to_owned();
    let runs = listed["runs"].as_array().unwrap().iter().rev();
    runs.map(|run| format!("{} {}", text(run, "command"), text(run, "status"))).collect()
}

fn in_folder(folder: &Path, suffix: &str) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().ends_with(suffix)).count()
}

#[test]
fn prune_takes_what_has_no_copy_any_more_and_the_old_head_still_holds() {
    let site = with_a_past();
    let before = head(&site);
    let dropped = json(&site.run(&["history", "--json"]).unwrap())["runs"][0]["id"].clone();
    let live = || json(&site.run(&["inspect", "--live", &site.section(), "--json"]).unwrap())["live"].clone();
    let answer = live();

    // It is shown, and nothing goes.
    let shown = site.run(&["-n", "journal", "prune", "--keep-last", "0"]).unwrap();
    assert_eq!(shown.code, 0, "{shown}");
    assert!(shown.stdout.contains(&format!("{} is still there", site.copy("20261121"))), "{shown}");
    let shown = json(&site.run(&["-n", "--json", "journal", "prune", "--keep-last", "0"]).unwrap());
    let rows = shown["journal"].as_array().unwrap();
    let going = |row: &&Value| row["kept"].is_null() && row["section"] == site.section().as_str();
    let names: Vec<&str> = rows.iter().filter(going).map(|row| row["command"].as_str().unwrap()).collect();
    assert_eq!(names, ["inspect", "drop", "createdb"]);
    let restore = rows.iter().find(|row| row["command"] == "restore").unwrap();
    assert_eq!(restore["kept"], format!("{} is still there", site.copy("20261121")));
    assert_eq!(history(&site), ["restore succeeded", "createdb succeeded", "drop succeeded"]);

    // Nobody is there to ask.
    let refused = site.run(&["journal", "prune", "--keep-last", "0"]).unwrap();
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.stderr.contains("there is nobody to ask: Take "), "{refused}");
    let (code, said) = on_a_terminal(&site, &["journal", "prune", "--keep-last", "0"], "n\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("[y/N]") && said.contains("nothing was done"), "{said}");
    assert_eq!(history(&site).len(), 3);

    let (code, said) = on_a_terminal(&site, &["journal", "prune", "--keep-last", "0"], "y\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("pruned ") && said.contains("stays, since"), "{said}");
    assert_eq!(history(&site), ["restore succeeded", "journal succeeded"]);
    let gone = site.run(&["inspect", dropped.as_str().unwrap()]).unwrap();
    assert_eq!(gone.code, 6, "{gone}");
    assert_eq!(live(), answer, "where the copy came from is known as before");
    let verified = site.run(&["journal", "verify", "--against", &before]).unwrap();
    assert_eq!(verified.code, 0, "{verified}");
    assert!(verified.stdout.contains("runs that were pruned: "), "{verified}");
    let file = |id: &Value| site.journal().join(format!("runs/{}.log", id.as_str().unwrap()));
    assert!(!file(&dropped).exists());
    assert_eq!(site.run(&["journal", "rebuild"]).unwrap().code, 0);
    assert_eq!(history(&site), ["restore succeeded", "journal succeeded", "journal succeeded"]);
}

#[test]
fn prune_keeps_the_newest_runs_of_a_section_and_what_is_younger_than_the_age() {
    let site = with_a_past();
    for arguments in [["--older-than", "1h"], ["--older-than", "4000000000w"], ["--keep-last", "3"]] {
        let pruned = site.run(&[&["journal", "prune", "--yes"], &arguments[..]].concat()).unwrap();
        assert_eq!(pruned.code, 0, "{pruned}");
        assert_eq!(history(&site)[..3], ["restore succeeded", "createdb succeeded", "drop succeeded"]);
    }
    // Both have to hold.
    let both = ["journal", "prune", "--yes", "--older-than", "0s", "--keep-last", "1"];
    assert_eq!(site.run(&both).unwrap().code, 0);
    assert_eq!(history(&site)[..2], ["restore succeeded", "drop succeeded"]);
    assert_eq!(site.run(&["journal", "prune", "--yes", "--older-than", "0s"]).unwrap().code, 0);
    assert_eq!(history(&site), ["restore succeeded", "journal succeeded"]);

    for bad in [vec![], vec!["--older-than", "90"], vec!["--older-than=-2h"], vec!["--keep-last", "-1"]] {
        let refused = site.run(&[vec!["journal", "prune", "--yes"], bad].concat()).unwrap();
        assert_eq!(refused.code, 2, "{refused}");
    }
}

#[test]
fn prune_gives_attachments_and_run_files_back_to_the_disk() {
    let (site, _) = restored();
    assert_eq!(site.run(&["drop", &site.section(), "20261121", "--force"]).unwrap().code, 0);
    assert!(!attachments(&site).is_empty());
    let old = |path: &PathBuf| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
    };
    attachments(&site).iter().for_each(old);
    let pruned = site.run(&["journal", "prune", "--yes", "--keep-last", "0"]).unwrap();
    assert_eq!(pruned.code, 0, "{pruned}");
    assert_eq!(attachments(&site), Vec::<PathBuf>::new(), "{pruned}");
    let left = json(&site.run(&["history", "--all", "--json"]).unwrap())["runs"].as_array().unwrap().len();
    assert_eq!(in_folder(&site.journal().join("runs"), ".log"), left);
    assert_eq!(site.run(&["journal", "verify"]).unwrap().code, 0);
}

#[test]
fn prune_keeps_runs_of_copies_that_nobody_can_ask_about_and_asks_where_a_forgotten_section_was() {
    let mut site = with_a_past();
    let port = |site: &Site<'_>| site.cluster().port().to_string();
    let bouncer = site.bouncer().port().to_string();
    site.set("postgres_port", "1").unwrap();
    site.set("pgbouncer_port", "1").unwrap();
    let pruned = site.run(&["journal", "prune", "--yes", "--keep-last", "0"]).unwrap();
    assert_eq!(pruned.code, 0, "{pruned}");
    assert!(pruned.stdout.contains("cannot tell whether"), "{pruned}");
    assert_eq!(history(&site)[..3], ["restore succeeded", "createdb succeeded", "drop succeeded"]);

    site.set("postgres_port", &port(&site)).unwrap();
    site.set("pgbouncer_port", &bouncer).unwrap();
    let configuration = fs::read_to_string(site.ini_path()).unwrap();
    let renamed = configuration.replace(&format!("[{}]", site.section()), "[renamed]");
    assert_ne!(renamed, configuration);
    fs::write(site.ini_path(), renamed).unwrap();
    let pruned = site.run(&["journal", "prune", "--yes", "--keep-last", "0"]).unwrap();
    assert_eq!(pruned.code, 0, "{pruned}");
    assert_eq!(history(&site)[0], "restore succeeded");
    assert!(!history(&site).contains(&"drop succeeded".to_owned()));
}

#[test]
fn prune_leaves_what_is_not_finished_and_a_journal_that_is_not_there() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let pruned = site.run(&["journal", "prune", "--keep-last", "0"]).unwrap();
    assert_eq!(pruned.code, 0, "{pruned}");
    assert!(!site.journal().exists());
    site.set("on_failure", "keep").unwrap();
    site.add_sql("pre", "01.sql", "SELECT 1/0").unwrap();
    assert_eq!(site.run(&["restore", &site.section(), "20261121"]).unwrap().code, 3);
    site.cluster().psql("postgres", &format!("DROP DATABASE \"{}\"", site.copy("20261121"))).unwrap();
    let pruned = site.run(&["journal", "prune", "--yes", "--keep-last", "0"]).unwrap();
    assert_eq!(pruned.code, 0, "{pruned}");
    assert_eq!(history(&site), ["restore stopped", "journal succeeded"]);
    assert_eq!(site.run(&["rollback", &site.section()]).unwrap().code, 6, "a run is named by its id");
    assert_eq!(site.run(&["continue", "--all", "-n"]).unwrap().code, 0);
}
