//! How long the program takes to start, to its end: `--version`, and `databases`, which reads a configuration and
//! records that it was asked; each against `psql --version`, which does nothing else.
//!
//! The three take turns, so that a busy moment of the machine meets all of them alike.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on ends, and its result is what it prints"
)]
#![allow(clippy::disallowed_methods, reason = "benchmarks measure time and start programs")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often each is run.
const TURNS: usize = 200;
const CONFIGURATION: &str = "[DEFAULT]\nbackup_host = localhost\nhost = localhost\ndbowner = shop\n\
    [shop.dev]\nbackup_base_url = /shop/\ndbname = shop\n[crm.dev]\nbackup_base_url = /crm/\ndbname = crm\n";

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let ini = folder.path().join("pg_staging.ini");
    fs::write(&ini, CONFIGURATION).unwrap();
    let ours = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg_staging"));
        command.args(arguments).arg("-c").arg(&ini).arg("--journal").arg(folder.path().join("journal"));
        command
    };
    let mut programs = [
        ("psql --version", Command::new(psql()), Vec::new()),
        ("pg_staging --version", ours(&["--version"]), Vec::new()),
        ("pg_staging databases", ours(&["databases"]), Vec::new()),
    ];
    programs[0].1.arg("--version");
    for _ in 0..TURNS {
        for (_, command, times) in &mut programs {
            times.push(time(command));
        }
    }
    let medians: Vec<Duration> = programs.iter_mut().map(|(_, _, times)| median(times)).collect();
    for ((name, _, _), median) in programs.iter().zip(&medians) {
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        println!("{name}: {:.2} ms, {ratio:.2} x psql --version", median.as_secs_f64() * 1e3);
    }
}

fn psql() -> &'static Path {
    Path::new("/usr/lib/postgresql/15/bin/psql")
}

fn time(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    assert!(command.status().unwrap().success(), "{command:?}");
    begun.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
