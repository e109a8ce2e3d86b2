//! `docs/journal.md` names the test of each promise that it makes, and those tests are there.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;

const JOURNAL: &str = include_str!("../docs/journal.md");

/// The files that the text names after "Tested by:".
fn tests_named_in(text: &str) -> BTreeSet<String> {
    let file = Regex::new(r"`([a-z_/]+\.rs)`").unwrap();
    let named = |rest: &str| -> Vec<String> {
        // Up to where something else begins.
        let end = rest.find("\n\n").unwrap_or(rest.len());
        file.captures_iter(&rest[..end]).map(|found| found[1].to_owned()).collect()
    };
    Regex::new(r"\*Tested\s+by:\*").unwrap().split(text).skip(1).flat_map(named).collect()
}

#[test]
fn every_promise_of_the_journal_names_its_test() {
    let (_, after) = JOURNAL.split_once("\n## What is promised\n").unwrap();
    let promises = after.split("\n## ").next().unwrap();
    let promises: Vec<&str> = promises.split("\n**").skip(1).collect();
    assert!(promises.len() >= 7, "{promises:?}");
    for promise in promises {
        assert!(!tests_named_in(promise).is_empty(), "no test is named:\n{promise}");
    }
}

#[test]
fn every_test_that_the_journals_page_names_is_there() {
    let named = tests_named_in(JOURNAL);
    assert!(named.len() >= 10, "{named:?}");
    for file in named {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
        assert!(path.is_file(), "{file} is not there");
    }
}
