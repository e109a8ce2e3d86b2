//! `docs/operations.md` tells the truth: its command lines can be typed, and its sessions are what the program prints.

use std::{fs, path::Path};

use clap::Parser as _;
use pg_staging::cli::Cli;
use regex::Regex;

use crate::{
    gate::Gate,
    readme::alike,
    stage::{Outcome, Site, SiteOptions, Stage},
    traces::{last_run, names_in},
};

const OPERATIONS: &str = include_str!("../docs/operations.md");
const DAY: &str = "20261121";

/// The page under that heading.
fn page(heading: &str) -> &'static str {
    let (_, after) = OPERATIONS.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    after.split("\n## ").next().unwrap()
}

/// The fenced blocks of a page, one after the other, without those that nobody types into.
fn sessions(page: &str) -> String {
    let blocks = page.split("```\n").skip(1).step_by(2);
    blocks.filter(|block| block.starts_with("$ ")).collect()
}

/// What was typed, and what the program said.
fn typed(site: &Site<'_>, arguments: &[&str], code: i32) -> String {
    let outcome @ Outcome { .. } = &site.run(arguments).unwrap();
    assert_eq!(outcome.code, code, "{outcome}");
    format!(
        "$ pg_staging {}\n{}{}",
        shlex::try_join(arguments.iter().copied()).unwrap(),
        outcome.stderr,
        outcome.stdout
    )
}

#[track_caller]
fn prints(site: &Site<'_>, page_heading: &str, printed: &str) {
    assert_eq!(alike(site, printed), alike(site, &sessions(page(page_heading))), "{printed}");
}

#[test]
fn every_command_line_in_the_operations_manual_can_be_typed() {
    // In a session what the program says names commands as well, as a hint or within a sentence.
    let begins = Regex::new(r"^(\$ |[\d*@][\S ]* /usr/local/bin/)?(pg_staging .*)$").unwrap();
    let blocks = OPERATIONS.split("```\n").skip(1).step_by(2);
    let in_blocks = blocks.flat_map(str::lines).filter_map(|line| begins.captures(line));
    let in_blocks = in_blocks.map(|found| found.get(2).unwrap().as_str());
    let inline = Regex::new(r"`(pg_staging [^`]+)`").unwrap();
    let in_prose = inline.captures_iter(OPERATIONS).map(|found| found.get(1).unwrap().as_str());
    let mut count = 0;
    for line in in_blocks.chain(in_prose) {
        let words = shlex::split(line).unwrap_or_else(|| panic!("quoting: {line}"));
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        count += 1;
    }
    assert!(count > 20, "{count} command lines were found");
}

#[test]
fn the_files_that_the_operations_manual_names_are_there() {
    let links =
        OPERATIONS.split("](").skip(1).filter_map(|after| after.split_once(')')).map(|(link, _)| link);
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let missing: Vec<&str> =
        links.filter(|link| !link.starts_with('#') && !docs.join(link).exists()).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_session_about_an_interrupted_restore_is_what_the_program_prints() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let section = site.section();
    let gate = Gate::new(&site, "post", "10-masking.sql", "SELECT 1");
    let mut program = site.spawn(&["restore", &section, DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    let mut follow = site.spawn(&["follow"]).unwrap();
    follow.wait_until_it_says("vacuum").unwrap();
    program.kill().unwrap();
    let followed = follow.wait().unwrap();
    assert_eq!(followed.code, 3, "{followed}");
    let (_, end) = followed.stderr.split_once("error: ").unwrap();
    gate.remove(&site, "post", "10-masking.sql");
    drop(waiting);
    site.add_sql("post", "10-masking.sql", "SELECT 1").unwrap();
    let mut printed = format!("$ pg_staging follow\n...\nerror: {end}");
    printed.push_str(&typed(&site, &["history", "--status", "interrupted"], 0));
    printed.push_str(&typed(&site, &["continue", &section], 0));
    prints(&site, "A restore was interrupted", &printed);
}

#[test]
fn the_session_about_a_stuck_run_is_what_the_program_prints() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    site.set("retry_limit", "0s").unwrap();
    site.set("on_failure", "keep").unwrap();
    site.add_sql("pre", "01.sql", "SELECT 1/0").unwrap();
    let before = site.bouncer().ini_bytes().unwrap();
    assert_eq!(site.run(&["restore", &site.section(), DAY]).unwrap().code, 3);
    let id = last_run(&site)["id"].as_str().unwrap().replace('-', "")[24..].to_owned();
    site.bouncer_mut().stop().unwrap();
    let mut printed = typed(&site, &["rollback", &id], 4);
    printed.push_str(&typed(&site, &["inspect", &id], 0));
    site.bouncer().write_ini(&before).unwrap();
    site.bouncer_mut().start_again().unwrap();
    let word = ["resolve", &id, "bouncer_add", "--as", "undone", "--reason", "took the entry out by hand"];
    printed.push_str(&typed(&site, &word, 0));
    printed.push_str(&typed(&site, &["rollback", &id], 0));
    prints(&site, "A run is stuck", &printed);
}

#[test]
fn the_session_about_a_damaged_journal_is_what_the_program_prints() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    assert_eq!(site.run(&["createdb", &site.section(), DAY]).unwrap().code, 0);
    let head = site.run(&["journal", "verify"]).unwrap().stdout;
    let head = head.trim().rsplit(' ').next().unwrap();
    let file = names_in(&site.journal().join("runs")).into_iter().find(|name| name.ends_with(".log"));
    let file = site.journal().join("runs").join(file.unwrap());
    let events = fs::read(&file).unwrap();
    fs::write(&file, &events[..events.len() - 20]).unwrap();
    let mut printed = typed(&site, &["journal", "verify"], 4);
    printed.push_str(&typed(&site, &["journal", "rebuild"], 0));
    printed.push_str(&typed(&site, &["journal", "verify", "--against", head], 0));
    prints(&site, "The journal is damaged", &printed);
}

#[test]
fn from_cron_nothing_is_said_but_errors() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let said = |arguments: &[&str], code| {
        let outcome = site.run(arguments).unwrap();
        assert_eq!(outcome.code, code, "{outcome}");
        format!("{}{}", outcome.stdout, outcome.stderr)
    };
    assert_eq!(said(&["-q", "continue", "--all"], 0), "");
    assert_eq!(said(&["-q", "restore", &site.section(), "latest", "--wait=2h"], 0), "");
    assert_eq!(said(&["-q", "purge", &site.section()], 0), "");
    assert!(said(&["-q", "restore", &site.section(), "20261122"], 6).starts_with("error: "));
}
