//! `journal`: what it finds wrong, mends, gives out and takes in, seen from the command line.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

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
