//! How long a restore takes, beside what people do without this program, on the same machine, in turns: `curl` and then
//! `pg_restore -j2`, `curl | pg_restore`, and `pg_restore -j2` of a file that is there already.
//!
//! `cargo bench --bench restore` makes the databases, serves their dumps over links of several speeds, and prints medians and
//! ratios. `BENCH_SIZE` is the size of the database in MB (1000), `BENCH_ROUNDS` how often each is measured (3),
//! `BENCH_ONLY` which tables are made: some of `links`, `filtered`, `small`, `continued`, separated by commas. It needs room
//! for some five times the database.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on ends, and its result is what it prints"
)]
#![allow(clippy::disallowed_methods, reason = "benchmarks measure time, and start what they compare with")]
#![allow(missing_docs, unreachable_pub, reason = "it is a program")]
#![allow(clippy::cast_precision_loss, reason = "for people to read")]

mod data;
#[path = "../../tests/stage/mod.rs"]
mod stage;

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use stage::{Cluster, Program, Serving, Site, SiteOptions, Stage, StageOptions};

/// Between two looks at a process.
const PAUSE: Duration = Duration::from_millis(10);

fn main() {
    let setting = |name: &str, or: &str| std::env::var(name).unwrap_or_else(|_| or.to_owned());
    let number = |name: &str, or: &str| setting(name, or).parse::<u64>().unwrap();
    let only = setting("BENCH_ONLY", "links,filtered,small,continued");
    let wanted = |name: &str| only.split(',').any(|one| one == name);
    let rounds = usize::try_from(number("BENCH_ROUNDS", "3")).unwrap();
    let mut options = StageOptions::default();
    let settings = &mut options.cluster.settings;
    settings.insert("shared_buffers".into(), "512MB".into());
    settings.insert("max_wal_size".into(), "8GB".into());
    // pg_dump locks every table that it dumps.
    settings.insert("max_locks_per_transaction".into(), "512".into());
    let stage = Stage::start(&options).unwrap();
    println!("{}", stage.cluster().psql("postgres", "SELECT version()").unwrap().trim());
    if wanted("links") || wanted("filtered") || wanted("continued") {
        let size = number("BENCH_SIZE", "1000");
        data::make_shop(stage.cluster(), "production", size).unwrap();
        let bench = Bench::new(&stage, "production", rounds);
        let local = bench.median(|| bench.restore_local_file());
        println!("pg_restore -j2 of the local file: {local:.1} s");
        if wanted("links") {
            links(&bench, local);
        }
        if wanted("filtered") {
            filtered(&stage, &bench, local);
        }
        if wanted("continued") {
            continued(&bench, local);
        }
        stage.cluster().psql("postgres", "DROP DATABASE production").unwrap();
    }
    if wanted("small") {
        for tables in [1_000, 10_000] {
            small(&stage, tables, rounds);
        }
    }
}

/// At links over which the dump takes a half, once and twice as long as pg_restore, and at one without a limit.
fn links(bench: &Bench<'_>, local: f64) {
    println!(
        "{:>10} {:>10} {:>14} {:>14} {:>11} {:>15} {:>18} {:>9} {:>10}",
        "link MB/s",
        "download",
        "curl, restore",
        "curl | restore",
        "pg_staging",
        "to max(d, r)",
        "to curl, restore",
        "peak MB",
        "fetched MB"
    );
    for (times, most) in
        [(Some(0.5), Some(0.75)), (Some(1.0), Some(0.62)), (Some(2.0), Some(0.75)), (None, Some(1.0))]
    {
        let speed = times.map(|times| bench.bytes() as f64 / (local * times));
        bench.set_link(speed);
        let [download, curl, pipe, ours] = bench.medians([
            &|| bench.download(),
            &|| bench.curl_and_restore(None),
            &|| bench.curl_into_restore(),
            &|| bench.restore(),
        ]);
        let floor = download.max(local);
        println!(
            "{:>10} {download:>10.1} {curl:>14.1} {pipe:>14.1} {ours:>11.1} {:>15} {:>18} {:>9.1} {:>10.1}",
            speed.map_or("no limit".to_owned(), |speed| format!("{:.1}", speed / 1e6)),
            against(ours / floor, times.map(|_| 1.10)),
            against(ours / curl, most),
            bench.peak.get() as f64 / 1024.0,
            bench.fetched.get() as f64 / 1e6,
        );
    }
    println!("the steps of the last, in seconds: {}", bench.steps());
    bench.set_link(None);
}

/// Without the rows of `audit`.
fn filtered(stage: &Stage, whole: &Bench<'_>, local: f64) {
    let mut bench = Bench::over(stage, whole.dump.clone(), whole.rounds);
    bench.site.set("schemas_nodata", "audit").unwrap();
    for times in [0.5, 1.0, 2.0] {
        let speed = bench.bytes() as f64 / (local * times);
        bench.set_link(Some(speed));
        let [curl, ours] =
            bench.medians([&|| bench.curl_and_restore(Some(" TABLE DATA audit ")), &|| bench.restore()]);
        println!(
            "without audit, {:.1} MB/s: curl, restore {curl:.1} s, pg_staging {ours:.1} s: {}, fetched {:.1} of {:.1} MB",
            speed / 1e6,
            against(ours / curl, Some(0.40)),
            bench.fetched.get() as f64 / 1e6,
            bench.bytes() as f64 / 1e6
        );
    }
}

/// Killed when 90 % have come, over a link on which the dump takes as long as pg_restore.
fn continued(bench: &Bench<'_>, local: f64) {
    bench.set_link(Some(bench.bytes() as f64 / local));
    let whole = bench.median(|| bench.restore());
    let rest = bench.median(|| bench.killed_and_continued());
    println!(
        "killed at 90 %: the whole takes {whole:.1} s, continue {rest:.1} s: {}, fetched {:.1} of {:.1} MB",
        against(rest / whole, Some(0.20)),
        bench.fetched.get() as f64 / 1e6,
        bench.bytes() as f64 / 1e6
    );
    bench.set_link(None);
}

fn small(stage: &Stage, tables: u32, rounds: usize) {
    let name = format!("small{tables}");
    data::make_small(stage.cluster(), &name, tables).unwrap();
    let mut bench = Bench::new(stage, &name, rounds);
    let [curl, ours] = bench.medians([&|| bench.curl_and_restore(None), &|| bench.restore()]);
    let most = bench.peak.get() as f64 / 1024.0;
    bench.site.set("restore_jobs", "4").unwrap();
    bench.restore();
    println!(
        "{tables} small tables, dump of {:.1} MB: curl, restore {curl:.1} s, pg_staging {ours:.1} s: {}, peak {most:.1} MB, with 4 jobs {:.1} MB",
        bench.bytes() as f64 / 1e6,
        against(ours / curl, Some(1.0)),
        bench.peak.get() as f64 / 1024.0
    );
    stage.cluster().psql("postgres", &format!("DROP DATABASE {name}")).unwrap();
}

fn against(ratio: f64, most: Option<f64>) -> String {
    most.map_or_else(|| format!("{ratio:.2}"), |most| format!("{ratio:.2} (≤ {most:.2})"))
}

/// A dump that is served, and the ways to restore it.
struct Bench<'a> {
    site: Site<'a>,
    dump: PathBuf,
    rounds: usize,
    restored: Cell<u32>,
    /// The most memory that the program had, in KiB.
    peak: Cell<u64>,
    /// What came from the server in the last restore, in bytes.
    fetched: Cell<u64>,
}

impl<'a> Bench<'a> {
    fn new(stage: &'a Stage, database: &str, rounds: usize) -> Bench<'a> {
        let dump = stage.scratch().path().join(format!("{database}.dump"));
        stage.cluster().pg_dump(database, &["-Fc", "-f", &dump.display().to_string()]).unwrap();
        stage.scratch().account().own(&dump).unwrap();
        let size =
            stage.cluster().psql("postgres", &format!("SELECT pg_database_size('{database}')")).unwrap();
        let size: f64 = size.trim().parse().unwrap();
        let bytes = fs::metadata(&dump).unwrap().len() as f64;
        println!("{database}: {:.0} MB, dump of {:.1} MB, {rounds} rounds", size / 1e6, bytes / 1e6);
        Bench::over(stage, dump, rounds)
    }

    fn over(stage: &'a Stage, dump: PathBuf, rounds: usize) -> Bench<'a> {
        let options = SiteOptions { dates: Vec::new(), serving: Serving::Rude, ..SiteOptions::default() };
        let mut site = Site::new(stage, &options).unwrap();
        site.set("restore_jobs", "2").unwrap();
        // Those who do it by hand do without it.
        site.set("restore_vacuum", "False").unwrap();
        site.add_file(&dump, "whole").unwrap();
        Bench { site, dump, rounds, restored: Cell::new(0), peak: Cell::new(0), fetched: Cell::new(0) }
    }

    fn cluster(&self) -> &Cluster {
        self.site.cluster()
    }

    fn bytes(&self) -> u64 {
        fs::metadata(&self.dump).unwrap().len()
    }

    fn set_link(&self, bytes_per_second: Option<f64>) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a speed")]
        self.site.rude().unwrap().set_link(bytes_per_second.map(|speed| speed as u64));
    }

    fn median(&self, measured: impl Fn() -> f64) -> f64 {
        let [median] = self.medians([&measured]);
        median
    }

    /// What each takes, in seconds, measured in turns.
    fn medians<const N: usize>(&self, measured: [&dyn Fn() -> f64; N]) -> [f64; N] {
        self.peak.set(0);
        let mut taken = [const { Vec::new() }; N];
        for _ in 0..self.rounds {
            for (taken, measured) in taken.iter_mut().zip(measured) {
                // What the one before has left to be written is not for the next one to wait for.
                self.cluster().psql("postgres", "CHECKPOINT").unwrap();
                taken.push(measured());
            }
        }
        taken.map(|mut taken| {
            taken.sort_by(f64::total_cmp);
            taken[taken.len() / 2]
        })
    }

    fn shell(&self, script: &str) -> f64 {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", script]).current_dir(self.site.tmpdir());
        for (name, value) in self.cluster().client("psql").get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let path = std::env::var("PATH").unwrap();
        shell.env("PATH", format!("{}:{path}", self.cluster().bin().display()));
        let port = self.site.rude().unwrap().port();
        shell.env("URL", format!("http://127.0.0.1:{port}/{}/whole", self.site.dbname()));
        shell.env("DUMP", &self.dump);
        let begun = Instant::now();
        let output = shell.output().unwrap();
        let taken = begun.elapsed().as_secs_f64();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        self.cluster().psql("postgres", "DROP DATABASE IF EXISTS by_hand").unwrap();
        taken
    }

    fn download(&self) -> f64 {
        self.shell("curl -fsS -o dump \"$URL\"; rm dump")
    }

    fn restore_local_file(&self) -> f64 {
        self.shell("createdb by_hand; pg_restore -j2 -d by_hand \"$DUMP\"")
    }

    /// Without the entries whose line in the contents has these words.
    fn curl_and_restore(&self, without: Option<&str>) -> f64 {
        let words = without.unwrap_or("no such entry");
        self.shell(&format!(
            "createdb by_hand; curl -fsS -o dump \"$URL\"; pg_restore -l dump | grep -v '{words}' > list; \
             pg_restore -j2 -L list -d by_hand dump; rm dump list"
        ))
    }

    fn curl_into_restore(&self) -> f64 {
        self.shell("createdb by_hand; curl -fsS \"$URL\" | pg_restore -d by_hand")
    }

    /// Lists the dump under another date, and begins to restore it. Gives also where the server has it.
    fn begin(&self) -> (Program, String, String) {
        let number = self.restored.replace(self.restored.get() + 1);
        let date = format!("20{:02}-{:02}-01", 10 + number / 12, 1 + number % 12);
        let name = self.site.backup_name(&date);
        self.site.add_file(&self.dump, &name).unwrap();
        let path = format!("/{}/{name}", self.site.dbname());
        let program = self.site.spawn(&["restore", &self.site.section(), &date]).unwrap();
        (program, path, date)
    }

    fn restore(&self) -> f64 {
        let begun = Instant::now();
        let (program, path, date) = self.begin();
        let taken = self.end(program, begun);
        self.fetched.set(self.site.rude().unwrap().bytes_sent(&path));
        self.forget(&date);
        taken
    }

    /// What the steps of the newest run took, those that took more than a twentieth of a second.
    fn steps(&self) -> String {
        let json = |arguments: &[&str]| -> serde_json::Value {
            let outcome = self.site.run(arguments).unwrap();
            serde_json::from_str(&outcome.stdout).unwrap()
        };
        let run = json(&["--json", "history", "--limit", "1"])["runs"][0]["id"].as_str().unwrap().to_owned();
        let inspected = json(&["--json", "inspect", &run]);
        let took = |step: &serde_json::Value| {
            let seconds = step["duration_ms"].as_f64().unwrap_or(0.0) / 1000.0;
            (seconds > 0.05).then(|| format!("{} {seconds:.2}", step["name"].as_str().unwrap_or_default()))
        };
        inspected["steps"].as_array().unwrap().iter().filter_map(took).collect::<Vec<_>>().join(", ")
    }

    /// Waits for the end, looks at the memory meanwhile, and gives how long it has taken since it was `begun`.
    fn end(&self, mut program: Program, begun: Instant) -> f64 {
        while program.is_running().unwrap() {
            let peak = program.most_memory().unwrap_or(0);
            self.peak.set(self.peak.get().max(peak));
            thread::sleep(PAUSE);
        }
        let taken = begun.elapsed().as_secs_f64();
        let outcome = program.wait().unwrap();
        assert_eq!(outcome.code, 0, "{outcome}");
        taken
    }

    /// What `continue` takes.
    fn killed_and_continued(&self) -> f64 {
        let (program, path, date) = self.begin();
        let rude = self.site.rude().unwrap();
        while rude.bytes_sent(&path) < self.bytes() / 10 * 9 {
            thread::sleep(PAUSE);
        }
        program.kill().unwrap();
        let before = rude.bytes_sent(&path);
        let begun = Instant::now();
        let taken = self.end(self.site.spawn(&["continue"]).unwrap(), begun);
        self.fetched.set(rude.bytes_sent(&path) - before);
        self.forget(&date);
        taken
    }

    /// Drops the copy of that date and takes the backup out of the listing.
    fn forget(&self, date: &str) {
        self.site.remove_file(&self.site.backup_name(date)).unwrap();
        let copy = self.site.copy(date);
        self.cluster().psql("postgres", &format!("DROP DATABASE \"{copy}\" WITH (FORCE)")).unwrap();
        self.site.rude().unwrap().forget_requests();
    }
}
