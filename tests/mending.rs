//! Runs that cannot help themselves, and the operator's word on them.

use crate::stage::{Site, SiteOptions, Stage};

/// The short id of the newest run.
fn newest_run(site: &Site<'_>) -> (String, String) {
    let history = site.run(&["history", "--json", "--limit", "1"]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&history.stdout).unwrap();
    let run = &json["runs"][0];
    (run["id"].as_str().unwrap().to_owned(), run["status"].as_str().unwrap().to_owned())
}

#[test]
fn a_run_whose_undo_cannot_be_done_is_stuck_until_the_operator_says_what_became_of_it() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    site.set("retry_limit", "0s").unwrap();
    site.add_sql("post", "01.sql", "SELECT 1/0").unwrap();
    site.set("on_failure", "keep").unwrap();
    let before = site.bouncer().ini_bytes().unwrap();
    assert_eq!(site.run(&["restore", &site.section(), "20261121"]).unwrap().code, 3);
    let (run, status) = newest_run(&site);
    assert_eq!(status, "stopped");

    site.bouncer_mut().stop().unwrap();
    let stuck = site.run(&["rollback", &run]).unwrap();
    assert_eq!(stuck.code, 4, "{stuck:#?}");
    assert!(stuck.stderr.contains("could not undo: bouncer_add"), "{stuck:#?}");
    assert!(stuck.stderr.contains("pg_staging inspect"), "{stuck:#?}");
    assert_eq!(newest_run(&site).1, "stuck");

    // The operator takes the entry out by hand, and says so.
    site.bouncer().write_ini(&before).unwrap();
    site.bouncer_mut().start_again().unwrap();
    let resolved = site
        .run(&["resolve", &run, "bouncer_add", "--as", "undone", "--reason", "took it out by hand"])
        .unwrap();
    assert_eq!(resolved.code, 0, "{resolved:#?}");
    let rolled_back = site.run(&["rollback", &run]).unwrap();
    assert_eq!(rolled_back.code, 0, "{rolled_back:#?}");
    assert_eq!(newest_run(&site).1, "rolled_back");
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
    assert_eq!(site.bouncer().ini_bytes().unwrap(), before);
    assert!(std::fs::read_dir(site.tmpdir()).unwrap().next().is_none());
}

#[test]
fn an_abandoned_run_keeps_what_it_left_and_needs_a_yes() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    site.add_sql("post", "01.sql", "SELECT 1/0").unwrap();
    site.set("on_failure", "keep").unwrap();
    assert_eq!(site.run(&["restore", &site.section(), "20261121"]).unwrap().code, 3);
    let (run, _) = newest_run(&site);

    let refused = site.run(&["abandon", &run, "--reason", "no use any more"]).unwrap();
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(refused.stderr.contains("add --yes"), "{refused:#?}");
    assert_eq!(newest_run(&site).1, "stopped");

    let abandoned = site.run(&["abandon", &run, "--reason", "no use any more", "--yes"]).unwrap();
    assert_eq!(abandoned.code, 0, "{abandoned:#?}");
    assert_eq!(newest_run(&site).1, "abandoned");
    assert_eq!(site.copies().unwrap(), vec![site.copy("20261121")]);
    assert_eq!(site.run(&["continue", &run]).unwrap().code, 1);
}
