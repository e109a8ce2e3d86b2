//! A journal with 100,000 runs of ten events: what it costs to ask it, and to append to it.
//!
//! `cargo bench -p journal --bench scale` makes one beside the target folder (once; it is used again) and prints what
//! each question takes, each in a process of its own as a command would be, how much of that on processors, and the most
//! memory that it had.
//! `SCALE_RUNS` is another number of runs.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark that cannot go on ends, and its result is what it prints"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time, and starts itself again")]
#![allow(missing_docs, unreachable_pub, reason = "it shares the tests' material")]

#[path = "../tests/material/mod.rs"]
mod material;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use journal::event::Event;
use journal::query::Query;
use journal::store::files::FileStore;
use journal::store::{Adopted, Claim, Store as _};
use rustix::time::ClockId;

use material::{BEGINNING, Story, actor, run_id, started};

/// So many runs are written at a time.
const AT_ONCE: u32 = 256;
/// The median of so many processes counts.
const ROUNDS: usize = 7;

fn main() {
    let runs = std::env::var("SCALE_RUNS").map_or(100_000, |runs| runs.parse().unwrap());
    let folder = place(runs);
    if let Ok(task) = std::env::var("SCALE_TASK") {
        perform(&task, &folder, runs);
        return;
    }
    if !folder.join("whole").exists() {
        generate(&folder, runs);
        std::fs::write(folder.join("whole"), b"").unwrap();
    }
    println!("{runs} runs of ten events, medians of {ROUNDS} processes:");
    for (task, most) in [
        ("history --limit 20", Some(50)),
        ("history section7 --since, one day", Some(100)),
        ("history --status interrupted", None),
        ("inspect a run by its short id, new", Some(50)),
        ("inspect a run by its short id, old", Some(50)),
        ("a run: claim, ten appends, publish", None),
        ("the same in an empty journal", None),
        ("its ten appends alone", None),
        ("the same alone in an empty journal", None),
    ] {
        let mut taken: Vec<Taken> = (0..ROUNDS).map(|_| alone(task, runs)).collect();
        let memory = taken.iter().map(|taken| taken.memory).max().unwrap();
        let mut median = |of: fn(&Taken) -> Duration| {
            taken.sort_unstable_by_key(of);
            of(&taken[ROUNDS / 2]).as_secs_f64() * 1000.0
        };
        let (time, busy) = (median(|taken| taken.time), median(|taken| taken.busy));
        let promised = most.map_or_else(String::new, |most| format!(" (promised: under {most} ms, 64 MB)"));
        println!("{task}: {time:.1} ms, {busy:.1} ms of a processor, {} MB{promised}", memory / 1024);
    }
}

fn place(runs: u32) -> PathBuf {
    let beside = std::env::current_exe().unwrap();
    let folder = beside.parent().unwrap().join(format!("journal-of-{runs}"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn store(folder: &Path) -> FileStore {
    FileStore::open(folder.join("journal")).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn told(number: u32) -> Story {
    let mut story = Story::new(number, started("restore", Some(&format!("section{}", number % 50))));
    story.begin();
    (0..8).for_each(|_| drop(story.part()));
    story.tell(Event::RunSucceeded);
    story
}

fn generate(folder: &Path, runs: u32) {
    let begun = Instant::now();
    let store = store(folder);
    let numbers: Vec<u32> = (1..=runs).collect();
    for some in numbers.chunks(AT_ONCE as usize) {
        let adopted = some.iter().map(|number| {
            let story = told(*number);
            let claim = Claim { target: None, ..story.claim() };
            Adopted { claim, run: story.run, events: story.told }
        });
        run(store.adopt(adopted.collect())).unwrap();
        if some[0] % (AT_ONCE * 64) == 1 {
            println!("{} of {runs} runs after {:.0} s", some[0], begun.elapsed().as_secs_f64());
        }
    }
    println!("{runs} runs written in {:.0} s", begun.elapsed().as_secs_f64());
}

/// What a task takes in a process of its own.
struct Taken {
    time: Duration,
    /// On processors, by all threads.
    busy: Duration,
    /// The most there was, in kB.
    memory: u64,
}

fn alone(task: &str, runs: u32) -> Taken {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.env("SCALE_TASK", task).env("SCALE_RUNS", runs.to_string()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [time, busy, memory] = words[..] else {
        panic!("{task}: {}", String::from_utf8_lossy(&output.stderr));
    };
    Taken { time: Duration::from_micros(time), busy: Duration::from_micros(busy), memory }
}

fn perform(task: &str, folder: &Path, runs: u32) {
    let empty = tempfile::tempdir_in(folder).unwrap();
    let begun = Instant::now();
    let mut alone = None;
    match task {
        "history --limit 20" => {
            let query = Query { limit: Some(20), ..Query::default() };
            assert_eq!(history(folder, &query), 20);
        }
        "history section7 --since, one day" => {
            let end = Timestamp::from_second(BEGINNING).unwrap() + SignedDuration::from_mins(i64::from(runs));
            let query = Query {
                section: Some("section7".to_owned()),
                since: Some(end - SignedDuration::from_hours(24)),
                limit: Some(20),
                ..Query::default()
            };
            assert!(history(folder, &query) > 0);
        }
        "history --status interrupted" => {
            history(folder, &Query { status: Some("interrupted".to_owned()), ..Query::default() });
        }
        "inspect a run by its short id, new" => inspect(folder, runs),
        "inspect a run by its short id, old" => inspect(folder, runs / 2),
        "a run: claim, ten appends, publish" => drop(append(folder)),
        "the same in an empty journal" => drop(append(empty.path())),
        "its ten appends alone" => alone = Some(append(folder)),
        "the same alone in an empty journal" => alone = Some(append(empty.path())),
        other => panic!("no task '{other}'"),
    }
    let time = alone.unwrap_or_else(|| begun.elapsed());
    let busy = Duration::try_from(rustix::time::clock_gettime(ClockId::ProcessCPUTime)).unwrap();
    println!("{} {} {}", time.as_micros(), busy.as_micros(), most_memory());
}

fn history(folder: &Path, query: &Query) -> usize {
    run(store(folder).look(query)).unwrap().len()
}

fn inspect(folder: &Path, number: u32) {
    let (_, known) = run(store(folder).look_up(&run_id(number).short())).unwrap().unwrap();
    assert!(known.events.len() >= 10);
}

/// Writes a run to its end, and gives what its appends took.
fn append(folder: &Path) -> Duration {
    let store = store(folder);
    let mut story = told(1);
    story.run = journal::event::RunId(uuid::Uuid::now_v7());
    story.told.clear();
    run(async {
        let mut log = store.claim(&Claim { actor: actor("eve"), ..story.claim() }).await.unwrap();
        let begun = Instant::now();
        let first = story.begin();
        story.append(&mut *log, &first).await.unwrap();
        for _ in 0..8 {
            let part = story.part();
            story.append(&mut *log, &part).await.unwrap();
        }
        let last = story.tell(Event::RunSucceeded);
        story.append(&mut *log, &last).await.unwrap();
        let taken = begun.elapsed();
        log.publish().await.unwrap();
        taken
    })
}

/// `VmHWM` of proc(5), in kB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
