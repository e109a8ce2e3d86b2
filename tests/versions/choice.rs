//! Which pg_restore is used, and what is said when none fits.

use std::fs;

use super::{DAY, configure, dumped, restores, site, source, stage};
use crate::{
    stage::Site,
    traces::{Traces, error, last_run, succeeds},
};

/// A restore that must fail for want of a pg_restore: in these words, and without a trace.
#[track_caller]
fn finds_none(site: &Site<'_>, said: &[&str]) {
    let before = Traces::of(site);
    let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
    let found = error(site, &outcome);
    for words in said {
        assert!(found.contains(words), "{words:?} is not in:\n{found}");
    }
    assert_eq!(outcome.code, 1, "{outcome}");
    assert_eq!(Traces::of(site), before, "{outcome}");
    assert_eq!(last_run(site)["status"], "failed", "{outcome}");
}

#[test]
fn a_configured_pg_restore_that_is_too_old_for_the_dump_gives_way_to_one_on_path() {
    let database = source(17, 1);
    let site = site(17, dumped(17, &database, &["-Z6"]), &[16, 17]);
    assert_eq!(restores(&site, (stage(17).cluster(), &database)), 17);
    let told = succeeds(&site, &["audit", &site.section()]).stdout;
    assert!(told.contains(" instead of /usr/lib/postgresql/15/bin/pg_restore"), "{told}");
}

#[test]
fn a_configured_pg_restore_that_is_too_new_for_the_server_gives_way_to_one_of_debians_folders() {
    let database = source(15, 1);
    let mut site = site(15, dumped(15, &database, &["-Z6"]), &[]);
    configure(&mut site, 18);
    assert_eq!(restores(&site, (stage(15).cluster(), &database)), 15);
}

#[test]
fn a_pg_restore_that_lacks_the_dumps_compression_gives_way_to_one_that_has_it() {
    let database = source(17, 1);
    let mut site = site(18, dumped(17, &database, &["--compress=zstd"]), &[17]);
    configure(&mut site, 18);
    assert_eq!(restores(&site, (stage(17).cluster(), &database)), 17);
    let mut lacking = super::site(18, site.dump().to_path_buf(), &[]);
    configure(&mut lacking, 18);
    finds_none(
        &lacking,
        &[
            "pg_restore cannot read ",
            "does not support compression (",
            "install a pg_restore 18 that was built with zstd, or have the backup made with another compression",
        ],
    );
}

#[test]
fn where_no_pg_restore_is_new_enough_for_the_dump_the_version_needed_is_told() {
    let dump = dumped(17, &source(17, 1), &["-Z6"]);
    let site = site(17, dump, &[16]);
    finds_none(
        &site,
        &[
            "/pg_restore is too old for http",
            "pg_dump 17.",
            "wrote it; installed: 15.",
            "install the client programs of PostgreSQL 17 or newer; what is in /usr/lib/postgresql and on PATH is found",
        ],
    );
}

#[test]
fn where_every_pg_restore_is_too_new_for_the_server_the_version_needed_is_told() {
    let dump = dumped(16, &source(16, 1), &["-Z6"]);
    let mut site = site(16, dump, &[]);
    configure(&mut site, 18);
    finds_none(
        &site,
        &[
            "/pg_restore is too new for http",
            "it sets transaction_timeout, which PostgreSQL 16 does not have; installed: 18.",
            "install the client programs of PostgreSQL 16; ",
        ],
    );
}

#[test]
fn a_dump_that_only_a_pg_restore_too_new_for_the_server_can_read_is_refused() {
    let dump = dumped(17, &source(17, 1), &["-Z6"]);
    let site = site(15, dump, &[16, 17, 18]);
    finds_none(
        &site,
        &[
            "no pg_restore can load http",
            " into PostgreSQL 15",
            "restore onto PostgreSQL 17 or newer, or have the backup made by pg_dump 16 or older",
        ],
    );
}

#[test]
fn an_archive_of_a_format_that_is_not_known_is_refused_by_its_version() {
    let dump = dumped(17, &source(17, 1), &["-Z6"]);
    let mut bytes = fs::read(&dump).unwrap();
    // Behind the magic word come the format's major and minor version.
    bytes[6] = 17;
    let site = site(17, dump, &[17]);
    site.write_file(&site.backup_name("2026-11-21"), bytes).unwrap();
    finds_none(
        &site,
        &["archive version 1.17.0 is newer than 1.16.0, the newest that is known", "upgrade pg_staging"],
    );
}
