//! Restores that load straight from the server: by every way in which a server or a dump lends itself to it.
#![allow(clippy::disallowed_methods, reason = "dumps are made by pg_dump itself")]

use std::{fs, time::Duration};

use serde_json::json;

use crate::{
    stage::{Conduct, Scale, Serving, Site, SiteOptions, Stage, fingerprint, source_database},
    traces::{inspected, step, succeeds},
};

const DAY: &str = "20261121";

fn rude_site(scale: Scale) -> Site<'static> {
    let options = SiteOptions { serving: Serving::Rude, scale, ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    site.set("restore_jobs", "3").unwrap();
    site
}

fn path(site: &Site<'_>) -> String {
    format!("/{}/{}", site.dbname(), site.backup_name("2026-11-21"))
}

/// The copy is what production is, and nothing but the copy was left anywhere.
#[track_caller]
fn equals_production(site: &Site<'_>, scale: Scale) {
    let copy = site.copy(DAY);
    let production = fingerprint(site.cluster(), &source_database(scale)).unwrap();
    assert_eq!(fingerprint(site.cluster(), &copy).unwrap(), production);
    let ours = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'staging_%'";
    assert_eq!(site.cluster().psql(&copy, ours).unwrap(), "0\n");
    assert_eq!(site.active().unwrap(), Some(copy));
    assert_eq!(fs::read_dir(site.tmpdir()).unwrap().count(), 0);
}

/// What pg_dump writes where it cannot go back.
fn piped(database: &str) -> Vec<u8> {
    let mut pg_dump = Stage::shared().unwrap().cluster().client("pg_dump");
    let output = pg_dump.args(["-Fc", "-d", database]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// By which way the last run loaded its dump.
fn way(site: &Site<'_>) -> String {
    step(&inspected(site), "contents")["detail"]["outcome"]["way"].as_str().unwrap().to_owned()
}

#[test]
fn a_server_without_ranges_is_read_once_from_the_dumps_start_to_its_end() {
    let site = rude_site(Scale::Full);
    site.rude().unwrap().plan(&path(&site), Conduct::IgnoreRange);
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Full);
    assert_eq!(way(&site), "stream");
}

#[test]
fn a_dump_that_does_not_tell_where_rows_are_is_read_from_its_first_block_to_its_end() {
    let site = rude_site(Scale::Small);
    site.write_file(&site.backup_name("2026-11-21"), piped(&source_database(Scale::Small))).unwrap();
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Small);
    assert_eq!(way(&site), "stream");
}

#[test]
fn a_connection_that_breaks_again_and_again_is_made_again_where_it_broke() {
    let site = rude_site(Scale::Full);
    let rude = site.rude().unwrap();
    for conduct in [Conduct::CloseAfter(200_000), Conduct::CloseAfter(1_000_000)] {
        rude.plan(&path(&site), conduct);
        succeeds(&site, &["restore", &site.section(), DAY]);
        equals_production(&site, Scale::Full);
        assert_eq!(way(&site), "parts");
        rude.behave(&path(&site));
        succeeds(&site, &["rollback", inspected(&site)["run"]["id"].as_str().unwrap(), "--yes"]);
    }
}

#[test]
fn what_was_loaded_before_a_kill_is_neither_fetched_nor_loaded_again() {
    let site = rude_site(Scale::Full);
    let rude = site.rude().unwrap();
    let length = fs::metadata(site.dump()).unwrap().len();
    rude.plan(&path(&site), Conduct::StallAt(length * 9 / 10));
    let program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    rude.wait_until_stalled(&path(&site), Duration::from_secs(60)).unwrap();
    program.kill().unwrap();
    rude.behave(&path(&site));
    rude.forget_requests();
    succeeds(&site, &["continue", &site.section()]);
    equals_production(&site, Scale::Full);
    let told = inspected(&site);
    let outcome = &step(&told, "restore")["detail"]["outcome"];
    assert!(outcome["kept"].as_u64().unwrap() > 0, "{outcome}");
    assert!(rude.bytes_sent(&path(&site)) < length, "{outcome}");
    assert_eq!(outcome["tolerated"], json!([]));
}
