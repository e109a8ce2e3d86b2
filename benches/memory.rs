//! How much memory the program itself needs for a whole restore, of a dump of about 1 GiB and of a small one. The
//! programs that it starts (pg_restore, psql) are not counted: they are PostgreSQL's.
//!
//! `cargo bench --bench memory` fails when one of them is above the promise. It needs about 4 GiB in the folder for
//! temporary files.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on ends, and its result is what it prints"
)]
#![allow(clippy::disallowed_methods, reason = "benchmarks measure time and watch processes")]

#[path = "../tests/stage/mod.rs"]
mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, thread};

use stage::{Outcome, Site, SiteOptions, Stage, StageOptions};

/// What is promised, in KiB.
const PROMISED: u64 = 40 * 1024;
/// Of a thousand characters each.
const ROWS: u32 = 1_048_576;
const LARGE: &str = "2026-11-20";
const SMALL: &str = "2026-11-21";
/// Between two looks at a process. What is read is its peak so far, so only what is new in the last of them can be missed.
const PAUSE: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let site =
        Site::new(&stage, &SiteOptions { dates: vec![SMALL.into()], ..SiteOptions::default() }).unwrap();
    let file = stage.scratch().path().join("large.dump");
    make_large(&stage, &file);
    site.add_file(&file, &site.backup_name(LARGE)).unwrap();
    let mut kept = true;
    for date in [SMALL, LARGE] {
        let bytes = fs::metadata(site.backups().join(site.backup_name(date))).unwrap().len();
        let begun = Instant::now();
        let (peak, outcome) = peak_of(&site, &["restore", &site.section(), date]);
        assert_eq!(outcome.code, 0, "{outcome}");
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "restore of {:.1} MiB: peak of {:.1} MiB, {seconds:.1} s (promised: under {} MiB)",
            mebi(bytes / 1024),
            mebi(peak),
            PROMISED / 1024
        );
        kept &= peak < PROMISED;
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A dump of about 1 GiB that no compression could make smaller; not compressed at all, so that it comes whole.
fn make_large(stage: &Stage, file: &std::path::Path) {
    let cluster = stage.cluster();
    let psql = |database: &str, sql: &str| cluster.psql(database, sql).unwrap();
    psql("postgres", "CREATE DATABASE large TEMPLATE template0");
    psql("large", "CREATE EXTENSION pgcrypto");
    psql(
        "large",
        &format!(
            "CREATE TABLE noise AS SELECT i AS id, translate(encode(gen_random_bytes(750), 'base64'), E'\\n', '') AS body \
             FROM generate_series(1, {ROWS}) AS i"
        ),
    );
    let path = file.display().to_string();
    cluster.pg_dump("large", &["-Fc", "-Z0", "-f", &path]).unwrap();
    psql("postgres", "DROP DATABASE large");
    stage.scratch().account().own(file).unwrap();
}

/// Runs the program to its end. Gives the most memory that it had at once, in KiB, and how it ended.
fn peak_of(site: &Site<'_>, arguments: &[&str]) -> (u64, Outcome) {
    let mut program = site.spawn(arguments).unwrap();
    let mut peak = 0;
    while program.is_running().unwrap() {
        peak = program.most_memory().unwrap_or(peak);
        thread::sleep(PAUSE);
    }
    (peak, program.wait().unwrap())
}

#[allow(clippy::cast_precision_loss, reason = "for people to read")]
fn mebi(kibi: u64) -> f64 {
    kibi as f64 / 1024.0
}
