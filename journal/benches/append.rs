//! What an append costs beyond what the disk does: one event through the store's log, against a bare write and
//! fdatasync of as many bytes, in turns, on the same disk.
//!
//! `cargo bench -p journal` shows both, and the ratio of their medians, which a noisy disk moves as well.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark that cannot go on ends")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use divan::Bencher;
use jiff::Timestamp;
use journal::codec;
use journal::event::{
    Actor, Detail, Effect, Envelope, Event, Hash, OnFailure, PlannedStep, Process, RunId, RunStarted,
};
use journal::store::files::FileStore;
use journal::store::{Claim, Log, Store as _};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

fn main() {
    divan::main();
    if std::env::args().any(|argument| argument == "--bench") {
        ratio();
    }
}

/// A run's log, and the numbers of its events.
struct Appending {
    runtime: Runtime,
    log: Box<dyn Log>,
    n: u64,
    _folder: TempDir,
}

const RUN: RunId = RunId(Uuid::from_u128(0x0193_4d5e_6f70_7182_93a4_b5c6_d7e8_f901));

fn actor() -> Actor {
    Actor { user: "postgres".to_owned(), host: "db1".to_owned(), pid: 4711 }
}

fn encoded(n: u64, event: Event) -> Vec<u8> {
    let envelope = Envelope {
        run: RUN,
        n,
        id: Uuid::from_u128(u128::from(n)),
        at: Timestamp::UNIX_EPOCH,
        epoch: 1,
        actor: actor(),
        prev: Hash::ZERO,
        event,
    };
    codec::encode(&envelope).expect("an event of this size can be encoded")
}

fn part(n: u64) -> Vec<u8> {
    let detail = Detail::from_iter([("rows".to_owned(), 123_456.into())]);
    encoded(n, Event::PartDone { step: 0, part: "public.orders".to_owned(), detail })
}

fn started() -> RunStarted {
    let step = PlannedStep {
        name: "restore".to_owned(),
        kind: "restore".to_owned(),
        version: 1,
        parameters: Detail::new(),
        effect: Effect::None,
        rests_on: Vec::new(),
        redo_with: Vec::new(),
    };
    RunStarted {
        version: "1.0.0".to_owned(),
        command: "restore".to_owned(),
        arguments: Vec::new(),
        section: None,
        database: None,
        target: None,
        read_only: false,
        on_failure: OnFailure::Rollback,
        retry_limit_ms: 0,
        settings: Detail::new(),
        plan: vec![step],
        process: Process { pid: 4711, start_time: 815, boot_id: String::new() },
    }
}

impl Appending {
    fn new() -> Appending {
        let folder = place();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
        let store = FileStore::open(folder.path().join("journal")).expect("a journal can be made");
        let claim = Claim {
            run: RUN.to_string(),
            target: None,
            actor: actor(),
            since: Timestamp::UNIX_EPOCH,
            command: "restore".to_owned(),
        };
        let log = runtime.block_on(store.claim(&claim)).expect("nobody else has the run");
        let mut appending = Appending { runtime, log, n: 0, _folder: folder };
        let first = encoded(0, Event::RunStarted(Box::new(started())));
        appending.append(&first);
        appending
    }

    fn append(&mut self, event: &[u8]) {
        self.runtime.block_on(self.log.append(self.n, event)).expect("there is room");
        self.n += 1;
    }
}

/// Where the target folder is, since a folder for temporary files may be in memory.
fn place() -> TempDir {
    let beside = std::env::current_exe().expect("this program has a path");
    let folder = beside.parent().expect("it lies in a folder");
    tempfile::tempdir_in(folder).expect("that folder can be written")
}

fn bare(folder: &TempDir) -> File {
    File::create(folder.path().join("bare")).expect("that folder can be written")
}

fn write(file: &mut File, bytes: &[u8]) {
    file.write_all(bytes).and_then(|()| file.sync_data()).expect("there is room");
}

#[divan::bench(sample_count = 200, sample_size = 1)]
fn append(bencher: Bencher<'_, '_>) {
    let mut appending = Appending::new();
    bencher.bench_local(|| appending.append(&part(appending.n)));
}

#[divan::bench(sample_count = 200, sample_size = 1)]
fn write_and_fdatasync(bencher: Bencher<'_, '_>) {
    let folder = place();
    let mut file = bare(&folder);
    let bytes = vec![7; part(0).len() + 8];
    bencher.bench_local(|| write(&mut file, &bytes));
}

/// Both in turns, so that what else the disk does meets both alike.
fn ratio() {
    let mut appending = Appending::new();
    let folder = place();
    let mut file = bare(&folder);
    let bytes = vec![7; part(0).len() + 8];
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        through.push(timed(|| appending.append(&part(appending.n))));
        direct.push(timed(|| write(&mut file, &bytes)));
    }
    let (through, direct) = (median(through), median(direct));
    let ratio = through.as_secs_f64() / direct.as_secs_f64();
    println!("append {through:?}, write and fdatasync {direct:?} (medians of 500 each): ratio {ratio:.3}");
}

fn timed(work: impl FnOnce()) -> Duration {
    let before = Instant::now();
    work();
    before.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
