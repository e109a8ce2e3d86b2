//! The store on files against what happens to processes and disks: kills at every system call, cut and changed files,
//! a full disk, many processes at once.
//!
//! The processes are this test binary, started again as [`child`]. `PG_STAGING_TEST_ALL=1` tries every kill point and
//! every cut, or some hundreds where there are thousands; without it a fixed sample is tried.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "it starts itself again as other processes")]

mod material;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use journal::event::{Event, RunId};
use journal::query::Query;
use journal::run::Status;
use journal::store::files::FileStore;
use journal::store::{Adopted, Claim, Head, Log, Store, StoreError, Upkeep as _};
use material::{Dice, Story, all, bulky, run_id, sample, spread, started};

/// What a child is to do, and where.
const ROLE: &str = "JOURNAL_TEST_ROLE";
const FOLDER: &str = "JOURNAL_TEST_FOLDER";
const NUMBER: &str = "JOURNAL_TEST_NUMBER";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn open(folder: &Path) -> FileStore {
    FileStore::open(folder.to_path_buf()).unwrap()
}

/// Run `number`, as all processes tell it.
fn story(number: u32) -> Story {
    Story::new(number, started("restore", Some(&format!("section{number}"))))
}

/// What `count` events of run `number` are, when it begins and then goes on part by part.
fn told(number: u32, count: usize) -> Vec<Vec<u8>> {
    let mut story = story(number);
    if count > 0 {
        story.begin();
    }
    while story.told.len() < count {
        story.part();
    }
    story.told
}

/// Takes the run over, whatever there is of it, and appends `more` parts to it. `done` hears of each.
async fn go_on(
    store: &FileStore,
    number: u32,
    more: usize,
    publish_every: usize,
    done: impl Fn(usize),
) -> Box<dyn Log> {
    let mut story = story(number);
    let mut log = store.claim(&story.claim()).await.unwrap();
    story.told = match store.load(story.run).await {
        Err(StoreError::NoSuchRun(_)) => Vec::new(),
        loaded => loaded.unwrap(),
    };
    for count in 1..=more {
        let bytes = if story.told.is_empty() { story.begin() } else { story.part() };
        story.append(&mut *log, &bytes).await.unwrap();
        done(story.told.len());
        if count % publish_every == 0 {
            log.publish().await.unwrap();
        }
    }
    log
}

/// A journal with these many events in its runs 1, 2, …, all of it in the database.
fn prepare(folder: &Path, counts: &[usize]) {
    run(async {
        let store = open(folder);
        for (number, count) in (1..).zip(counts) {
            let mut log = go_on(&store, number, *count, usize::MAX, |_| {}).await;
            log.publish().await.unwrap();
        }
        assert_eq!(store.runs(&Query::default()).await.unwrap().len(), counts.len());
        assert_eq!(store.take_notices(), Vec::<String>::new());
    });
}

fn same(there: &[Vec<u8>], expected: &[Vec<u8>], what: &str) {
    let (found, wanted) = (there.len(), expected.len());
    let agree = there.iter().zip(expected).take_while(|(one, other)| one == other).count();
    assert!(there == expected, "{what}: {found} events for {wanted}, of which the first {agree} agree");
}

/// Checks that the runs 1, 2, … have these many events in every view there is, and that they can go on.
async fn check(store: &FileStore, counts: &[usize]) {
    for (number, count) in (1..).zip(counts) {
        let expected = told(number, *count);
        same(&store.load(run_id(number)).await.unwrap(), &expected, &format!("run {number} loaded"));
        let read: Vec<Vec<u8>> =
            store.read(run_id(number)).await.unwrap().into_iter().map(|stored| stored.bytes).collect();
        same(&read, &expected, &format!("run {number} read"));
    }
    let listed = store.runs(&Query::default()).await.unwrap();
    for number in (1..).take(counts.len()) {
        let summary = listed.iter().find(|summary| summary.id == run_id(number));
        assert_eq!(summary.unwrap().status, Some(Status::Running), "run {number} listed");
        assert_eq!(store.find(&run_id(number).to_string()).await.unwrap(), [run_id(number)]);
    }
    for (number, count) in (1..).zip(counts) {
        drop(go_on(store, number, 1, usize::MAX, |_| {}).await);
        let loaded = store.load(run_id(number)).await.unwrap();
        same(&loaded, &told(number, *count + 1), &format!("run {number} going on"));
    }
}

// ---- processes ----

fn command(role: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(FOLDER, folder).stdin(Stdio::null());
    command
}

/// Not a test: what the other processes of these tests do.
#[test]
fn child() {
    let Ok(role) = env::var(ROLE) else {
        return;
    };
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let number = env::var(NUMBER).map_or(1, |number| number.parse().unwrap());
    run(async {
        match role.as_str() {
            "begin" => {
                drop(go_on(&open(&folder), 1, 4, 2, acknowledge).await);
            }
            "go on" => {
                let store = open(&folder);
                store.runs(&Query::default()).await.unwrap();
                drop(go_on(&store, 1, 2, 2, acknowledge).await);
                store.read(run_id(2)).await.unwrap();
            }
            "rebuild" => {
                open(&folder).rebuild().await.unwrap();
            }
            "seal" => {
                adopt(&open(&folder), BEFORE_SEALING + 1..=BEFORE_SEALING + 60).await;
            }
            "prune" => {
                open(&folder).prune((1..=TO_PRUNE).map(run_id).collect()).await.unwrap();
            }
            "hold" => {
                let _log = go_on(&open(&folder), 1, 2, usize::MAX, acknowledge).await;
                std::io::stdin().lines().for_each(drop);
            }
            "append" => {
                drop(go_on(&open(&folder), number, 400, usize::MAX, acknowledge).await);
            }
            "burst" => {
                let store = open(&folder);
                for _ in 0..50 {
                    drop(go_on(&store, number, 1, 1, |_| {}).await);
                }
                assert_eq!(store.take_notices(), Vec::<String>::new());
            }
            "survive" => survive(&folder).await,
            "fill" => fill(&folder).await,
            other => panic!("no role '{other}'"),
        }
    });
}

fn acknowledge(count: usize) {
    say(&format!("acknowledged {count}"));
}

/// One line, in one write, so that it is whole or absent whenever this process dies.
fn say(line: &str) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

fn acknowledged(output: &[u8]) -> usize {
    let text = String::from_utf8_lossy(output);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("acknowledged "));
    last.map_or(0, |count| count.parse().unwrap())
}

fn succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn was_killed(status: ExitStatus) -> bool {
    // strace ends the way its child did.
    status.signal() == Some(9) || status.code() == Some(137)
}

struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(role: &str, folder: &Path) -> Running {
        let mut command = command(role, folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines }
    }

    /// The next number that it acknowledged, or `None` when it ended.
    fn next_acknowledged(&mut self) -> Option<usize> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(count) = line.trim().strip_prefix("acknowledged ") {
                return Some(count.parse().unwrap());
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            let modified = entry.metadata().unwrap().modified().unwrap();
            fs::File::options().write(true).open(&target).unwrap().set_modified(modified).unwrap();
        }
    }
}

// ---- kills ----

/// Everything that changes a file or a folder, and the locks.
const CHANGING: &str = "write,pwrite64,fsync,fdatasync,sync_file_range,ftruncate,rename,renameat,renameat2,unlink,\
                        unlinkat,rmdir,mkdir,mkdirat,openat,flock,fchmodat,chmod";

/// Where a child in this role can be killed: the k-th call of a name in any of its threads. `None` without strace.
fn kill_points(role: &str, folder: &Path, trace: &Path) -> Option<Vec<(String, usize)>> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", &format!("trace={CHANGING}"), "-o"]).arg(trace);
    let Some(output) = under(strace, role, folder) else {
        println!("skipped: there is no strace");
        return None;
    };
    let text = fs::read_to_string(trace).unwrap_or_default();
    if !output.status.success() && !text.contains("openat(") {
        println!("skipped: strace may not trace: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    succeeded(&output);
    let mut calls: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in text.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        if let Some((name, _)) = call.trim().split_once('(') {
            *calls.entry((name, thread)).or_default() += 1;
        }
    }
    let mut most: BTreeMap<&str, usize> = BTreeMap::new();
    for ((name, _), count) in calls {
        let most = most.entry(name).or_default();
        *most = count.max(*most);
    }
    let points = most.into_iter().flat_map(|(name, count)| (1..=count).map(move |k| (name.to_owned(), k)));
    Some(points.collect())
}

fn under(mut strace: Command, role: &str, folder: &Path) -> Option<Output> {
    let child = command(role, folder);
    strace.arg(child.get_program()).args(child.get_args());
    for (name, value) in child.get_envs() {
        strace.env(name, value.unwrap());
    }
    strace.stdin(Stdio::null()).output().ok()
}

/// Kills a child in `role` at its kill points, each time in a fresh copy of `before`, and hands over what is left:
/// the folder, and how many events the child said were durable.
fn killed_everywhere(role: &str, before: &Path, few: usize, check: impl Fn(&str, &Path, usize)) {
    let scratch = tempfile::tempdir().unwrap();
    let trace = scratch.path().join("trace");
    let folder = scratch.path().join("undisturbed");
    copy(before, &folder);
    let Some(points) = kill_points(role, &folder, &trace) else {
        return;
    };
    let total = points.len();
    let mut tried = 0;
    let few = if all() { few * 25 } else { few };
    for (number, (name, k)) in spread(points, few).into_iter().enumerate() {
        let folder = scratch.path().join(number.to_string());
        copy(before, &folder);
        let mut strace = Command::new("strace");
        let inject = format!("inject={name}:signal=KILL:when={k}");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &inject]);
        let output = under(strace, role, &folder).unwrap();
        let point = format!("{role}: {name} #{k}");
        if was_killed(output.status) {
            tried += 1;
        } else {
            // Which thread comes first to its k-th call differs from time to time, and may be none.
            succeeded(&output);
        }
        check(&point, &folder, acknowledged(&output.stdout));
        fs::remove_dir_all(&folder).unwrap();
    }
    println!("{role}: killed at {tried} of {total} points");
    assert!(tried > 0);
}

/// After a kill, run 1 has what was acknowledged, and at most the one event more that was under way.
async fn check_after_kill(point: &str, folder: &Path, acknowledged: usize, others: &[usize]) {
    let store = open(folder);
    let there = match store.load(run_id(1)).await {
        Err(StoreError::NoSuchRun(_)) => 0,
        loaded => loaded.unwrap_or_else(|error| panic!("{point}: {error}")).len(),
    };
    let possible = [acknowledged, acknowledged + 1];
    assert!(possible.contains(&there), "{point}: {acknowledged} were acknowledged, {there} are there");
    if there == 0 {
        drop(go_on(&store, 1, 1, usize::MAX, |_| {}).await);
    }
    let counts: Vec<usize> = [there.max(1)].iter().chain(others).copied().collect();
    check(&store, &counts).await;
    assert_eq!(store.take_notices(), Vec::<String>::new(), "{point}");
}

#[test]
fn a_kill_at_any_point_of_the_first_run_loses_nothing() {
    let empty = tempfile::tempdir().unwrap();
    killed_everywhere("begin", empty.path(), 45, |point, folder, acknowledged| {
        run(check_after_kill(point, folder, acknowledged, &[]));
    });
}

#[test]
fn a_kill_at_any_point_of_a_later_run_loses_nothing() {
    let before = tempfile::tempdir().unwrap();
    prepare(before.path(), &[3, 2]);
    killed_everywhere("go on", before.path(), 45, |point, folder, acknowledged| {
        run(check_after_kill(point, folder, acknowledged.max(3), &[2]));
    });
}

#[test]
fn a_kill_at_any_point_of_a_rebuild_loses_nothing() {
    let before = tempfile::tempdir().unwrap();
    prepare(before.path(), &[3, 2]);
    killed_everywhere("rebuild", before.path(), 20, |point, folder, _| {
        run(async {
            let store = open(folder);
            check(&store, &[3, 2]).await;
            let notices = store.take_notices();
            let gone = |notice: &String| notice.contains("it was gone");
            assert!(notices.len() <= 1 && notices.iter().all(gone), "{point}: {notices:?}");
        });
    });
}

/// As many finished runs as may be in the database without any being sealed.
const BEFORE_SEALING: u32 = 1_000;

fn finished(number: u32) -> Story {
    let mut story = story(number);
    story.begin();
    story.tell(Event::RunSucceeded);
    story
}

/// Takes in finished runs of these numbers.
async fn adopt(store: &FileStore, numbers: impl IntoIterator<Item = u32>) {
    let adopted = numbers.into_iter().map(|number| {
        let story = finished(number);
        Adopted { claim: Claim { target: None, ..story.claim() }, run: story.run, events: story.told }
    });
    store.adopt(adopted.collect()).await.unwrap();
}

/// All runs that were there before are there, and so they are when the sealing is done.
async fn check_sealing(point: &str, folder: &Path) {
    let store = open(folder);
    let listed = store.runs(&Query::default()).await.unwrap();
    let there = u32::try_from(listed.len()).unwrap();
    assert!((BEFORE_SEALING..=BEFORE_SEALING + 60).contains(&there), "{point}: {there} runs");
    let found = store.verify(None).await.unwrap();
    assert_eq!(found.damage, [], "{point}");
    adopt(&store, 1..=BEFORE_SEALING + 60).await;
    let all: Vec<RunId> = (1..=BEFORE_SEALING + 60).map(run_id).collect();
    let ids: Vec<RunId> =
        store.runs(&Query::default()).await.unwrap().iter().rev().map(|run| run.id).collect();
    assert_eq!(ids, all, "{point}");
    let mut seqs = std::collections::BTreeSet::new();
    for (number, events) in (1..).zip(store.read_all(&all).await.unwrap()) {
        seqs.extend(events.iter().map(|event| event.seq));
        let events: Vec<Vec<u8>> = events.into_iter().map(|event| event.bytes).collect();
        same(&events, &finished(number).told, &format!("{point}: run {number}"));
    }
    assert_eq!(seqs.len(), all.len() * 2, "{point}: every event has its own number");
    let found = store.verify(Some(found.head)).await.unwrap();
    assert_eq!((found.damage, found.runs), (Vec::new(), u64::from(BEFORE_SEALING) + 60), "{point}");
    assert_eq!(store.take_notices(), Vec::<String>::new(), "{point}");
}

#[test]
fn a_kill_at_any_point_of_a_sealing_loses_nothing() {
    let before = tempfile::tempdir().unwrap();
    run(async {
        let store = open(before.path());
        adopt(&store, 1..=BEFORE_SEALING).await;
        store.runs(&Query::default()).await.unwrap();
    });
    killed_everywhere("seal", before.path(), 16, |point, folder, _| {
        run(check_sealing(point, folder));
    });
}

/// So many bulky runs are there before a pruning, and so many of them go.
const BEFORE_PRUNING: u32 = 74;
const TO_PRUNE: u32 = 64;

/// A run is there or pruned, never half of it, and a second pruning completes what the first one began.
async fn check_pruning(point: &str, folder: &Path, head: Head) {
    let store = open(folder);
    let found = store.verify(Some(head)).await.unwrap();
    assert_eq!(found.damage, [], "{point}");
    let listed = store.runs(&Query::default()).await.unwrap();
    assert_eq!((listed.len() as u64, found.lost), (found.runs, 0), "{point}");
    assert_eq!(found.runs + found.pruned, u64::from(BEFORE_PRUNING), "{point}");
    for number in 1..=BEFORE_PRUNING {
        if listed.iter().any(|summary| summary.id == run_id(number)) {
            same(&store.load(run_id(number)).await.unwrap(), &bulky(number).told, point);
        } else {
            assert!(number <= TO_PRUNE, "{point}: run {number} is gone");
            assert!(matches!(store.load(run_id(number)).await, Err(StoreError::NoSuchRun(_))), "{point}");
        }
    }
    store.prune((1..=TO_PRUNE).map(run_id).collect()).await.unwrap();
    let found = store.verify(Some(head)).await.unwrap();
    assert_eq!((found.damage, found.runs, found.pruned), (Vec::new(), 10, 64), "{point}");
    let ids: Vec<RunId> =
        store.runs(&Query::default()).await.unwrap().iter().rev().map(|run| run.id).collect();
    assert_eq!(ids, (TO_PRUNE + 1..=BEFORE_PRUNING).map(run_id).collect::<Vec<_>>(), "{point}");
    assert_eq!(store.take_notices(), Vec::<String>::new(), "{point}");
    let left = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let unfinished = left(folder.to_path_buf()).filter(|name| name.to_str().unwrap().starts_with("sled.new"));
    assert_eq!(unfinished.count(), 0, "{point}");
    assert_eq!(left(folder.join("sealed")).collect::<Vec<_>>(), ["index"], "{point}");
    let run_files = left(folder.join("runs")).filter(|name| name.to_str().unwrap().ends_with(".log"));
    assert_eq!(run_files.count(), 10, "{point}");
    assert_eq!(left(folder.join("attachments")).count(), 6, "{point}");
    // Nothing that was overlooked comes back.
    assert_eq!(store.rebuild().await.unwrap().runs, 10, "{point}");
}

#[test]
fn a_kill_at_any_point_of_a_pruning_leaves_what_a_second_one_completes() {
    let before = tempfile::tempdir().unwrap();
    let head = run(async {
        let store = material::bulky_journal(before.path(), BEFORE_PRUNING).await;
        store.verify(None).await.unwrap().head
    });
    killed_everywhere("prune", before.path(), 20, |point, folder, _| {
        run(check_pruning(point, folder, head));
    });
}

#[test]
fn a_killed_owner_is_known_and_leaves_nothing_locked() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = Running::start("hold", folder.path());
    assert_eq!(holder.next_acknowledged(), Some(1));
    assert_eq!(holder.next_acknowledged(), Some(2));
    run(async {
        let store = open(folder.path());
        let Err(StoreError::Busy { holder: Some(named), .. }) = store.claim(&story(1).claim()).await else {
            panic!("a run has two owners");
        };
        assert_eq!(*named, story(1).claim());
        assert!(store.is_held(run_id(1)).await.unwrap());
        let running = Query { status: Some("running".to_owned()), ..Query::default() };
        assert_eq!(store.runs(&running).await.unwrap().len(), 1);
        holder.kill();
        assert!(!store.is_held(run_id(1)).await.unwrap());
        assert_eq!(store.runs(&running).await.unwrap(), []);
        let interrupted = Query { status: Some("interrupted".to_owned()), ..Query::default() };
        assert_eq!(store.runs(&interrupted).await.unwrap().len(), 1);
        check(&store, &[2]).await;
    });
}

// ---- several processes ----

#[test]
fn what_another_process_acknowledged_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut appending = Running::start("append", folder.path());
    run(async {
        let store = open(folder.path());
        let mut seen = Vec::new();
        // Every hundredth is waited for and then asked about, while the other process goes on.
        while let Some(count) = appending.next_acknowledged() {
            if count % 100 == 1 {
                let read = store.read(run_id(1)).await.unwrap();
                assert!(read.len() >= count, "{count} were acknowledged, {} are read", read.len());
                assert!(read.starts_with(&seen), "what was read before changed");
                seen = read;
            }
        }
        assert!(appending.child.wait().unwrap().success());
        check(&store, &[400]).await;
        assert_eq!(store.take_notices(), Vec::<String>::new());
    });
}

#[test]
fn processes_take_turns_with_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (1..=2)
        .map(|number: u32| {
            let mut command = command("burst", folder.path());
            command
                .env(NUMBER, number.to_string())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        succeeded(&child.wait_with_output().unwrap());
    }
    run(async {
        let store = open(folder.path());
        check(&store, &[50, 50]).await;
        assert_eq!(store.take_notices(), Vec::<String>::new());
    });
}

// ---- run files ----

/// A journal whose runs have these many events in the database, and run 1 has `more` only in its file.
fn with_unpublished(folder: &Path, published: &[usize], more: usize) {
    prepare(folder, published);
    run(async {
        drop(go_on(&open(folder), 1, more, usize::MAX, |_| {}).await);
    });
}

fn run_file(folder: &Path) -> PathBuf {
    folder.join(format!("runs/{}.log", run_id(1)))
}

fn cut(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Where the frames of these events begin, and where the last one ends.
fn borders(events: &[Vec<u8>]) -> Vec<u64> {
    let mut borders = vec![0];
    for event in events {
        borders.push(borders.last().unwrap() + 8 + u64::try_from(event.len()).unwrap());
    }
    borders
}

#[test]
fn a_torn_append_is_cut_off() {
    let before = tempfile::tempdir().unwrap();
    with_unpublished(before.path(), &[2], 2);
    let borders = borders(&told(1, 4));
    let whole = fs::read(run_file(before.path())).unwrap();
    assert_eq!(u64::try_from(whole.len()).unwrap(), borders[4]);
    for length in sample((borders[3]..borders[4]).collect(), 25) {
        let scratch = tempfile::tempdir().unwrap();
        for zeros in [false, true] {
            let folder = scratch.path().join(zeros.to_string());
            copy(before.path(), &folder);
            cut(&run_file(&folder), length);
            if zeros {
                // As after a power cut: the file has its length, and not all of its blocks.
                cut(&run_file(&folder), borders[4]);
            }
            run(async {
                let store = open(&folder);
                check(&store, &[3]).await;
                assert_eq!(store.take_notices(), Vec::<String>::new());
            });
        }
    }
}

#[test]
fn what_a_run_file_lost_comes_back_from_the_database() {
    let before = tempfile::tempdir().unwrap();
    prepare(before.path(), &[4]);
    let borders = borders(&told(1, 4));
    let whole = fs::read(run_file(before.path())).unwrap();
    let lengths = [0, 1, borders[1], borders[1] + 5, borders[2] - 1].into_iter();
    for length in lengths.chain(sample((borders[3]..borders[4]).collect(), 12)) {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("journal");
        copy(before.path(), &folder);
        cut(&run_file(&folder), length);
        run(async {
            let store = open(&folder);
            same(&store.load(run_id(1)).await.unwrap(), &told(1, 4), &format!("cut at {length}"));
            assert_eq!(fs::read(run_file(&folder)).unwrap(), whole, "cut at {length}");
            let notices = store.take_notices();
            assert!(notices.len() == 1 && notices[0].contains("were put back"), "{notices:?}");
            check(&store, &[4]).await;
            assert_eq!(store.take_notices(), Vec::<String>::new(), "it is told once");
        });
    }
}

#[test]
fn a_removed_run_file_comes_back_whoever_asks_first() {
    let before = tempfile::tempdir().unwrap();
    prepare(before.path(), &[4]);
    for owner in [false, true] {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("journal");
        copy(before.path(), &folder);
        fs::remove_file(run_file(&folder)).unwrap();
        run(async {
            let store = open(&folder);
            let expected = if owner {
                drop(go_on(&store, 1, 1, 1, |_| {}).await);
                5
            } else {
                store.read(run_id(1)).await.unwrap();
                4
            };
            check(&store, &[expected]).await;
            let notices = store.take_notices();
            assert!(notices.len() == 1 && notices[0].contains("had lost 4 of its 4 events"), "{notices:?}");
        });
    }
}

#[test]
fn damage_within_a_run_file_is_told_with_its_place() {
    let before = tempfile::tempdir().unwrap();
    with_unpublished(before.path(), &[1, 2], 3);
    let borders = borders(&told(1, 4));
    for at in sample((borders[1]..borders[3]).collect(), 12) {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("journal");
        copy(before.path(), &folder);
        let path = run_file(&folder);
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
        let damaged = if at < borders[2] { borders[1] } else { borders[2] };
        run(async {
            let store = open(&folder);
            let refused = [
                store.load(run_id(1)).await.map(drop),
                store.read(run_id(1)).await.map(drop),
                store.claim(&story(1).claim()).await.map(drop),
            ];
            for refused in refused {
                let Err(StoreError::Damaged { path: named, what }) = refused else {
                    panic!("byte {at}: {refused:?}");
                };
                assert_eq!(named, path);
                assert!(what.contains(&format!("at byte {damaged}")), "byte {at}: {what}");
            }
            same(&store.load(run_id(2)).await.unwrap(), &told(2, 2), "beside the damage");
            assert_eq!(store.runs(&Query::default()).await.unwrap().len(), 2);
            let notices = store.take_notices();
            assert!(notices.len() == 1 && notices[0].contains(path.to_str().unwrap()), "{notices:?}");
            assert!(!store.is_held(run_id(1)).await.unwrap());
        });
    }
}

#[test]
fn a_rebuild_mends_a_damaged_run_file_of_which_the_database_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &[4]);
    let path = run_file(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    fs::write(&path, &damaged).unwrap();
    run(async {
        let store = open(folder.path());
        let rebuilt = store.rebuild().await.unwrap();
        assert_eq!((rebuilt.runs, rebuilt.events), (1, 4));
        assert_eq!(fs::read(&path).unwrap(), whole);
        let names = fs::read_dir(folder.path().join("runs")).unwrap().map(|entry| entry.unwrap().path());
        let kept = names.into_iter().find(|path| path.to_str().unwrap().contains("log.damaged."));
        assert_eq!(fs::read(kept.unwrap()).unwrap(), damaged);
        let notices = store.take_notices();
        assert!(notices.len() == 2 && notices[0].contains("mended from the database"), "{notices:?}");
        check(&store, &[4]).await;
    });
}

#[test]
fn an_owner_whose_file_is_taken_away_stops() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let store = open(folder.path());
        let mut log = go_on(&store, 1, 2, 1, |_| {}).await;
        fs::remove_file(run_file(folder.path())).unwrap();
        let next = told(1, 3).pop().unwrap();
        assert!(matches!(log.append(2, &next).await, Err(StoreError::Damaged { .. })));
        assert!(matches!(log.append(2, &next).await, Err(StoreError::Fenced(_))), "it takes no more");
        drop(log);
        check(&store, &[2]).await;
    });
}

#[test]
fn a_changed_attachment_is_not_given_out() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let store = open(folder.path());
        let hash = store.attach(b"what was said").await.unwrap();
        let path = folder.path().join("attachments").join(hash.to_string());
        fs::write(&path, b"what was sad").unwrap();
        assert!(
            matches!(store.attachment(hash).await, Err(StoreError::Damaged { path: named, .. }) if named == path)
        );
        assert_eq!(store.attach(b"what was said").await.unwrap(), hash);
        assert_eq!(store.attachment(hash).await.unwrap(), b"what was said");
    });
}

#[test]
fn nobody_else_can_look_into_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    prepare(&journal, &[2]);
    run(open(&journal).attach(b"what was said")).unwrap();
    let mut open = vec![journal];
    while let Some(path) = open.pop() {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
}

// ---- the database ----

/// The runs of the journals whose database is damaged.
const RUNS: [usize; 4] = [3, 40, 1, 7];

/// Checks everything there is to check; says what was told.
async fn survive(folder: &Path) {
    let store = FileStore::with_patience(folder.to_path_buf(), Duration::from_secs(2)).unwrap();
    check(&store, &RUNS).await;
    for notice in store.take_notices() {
        say(&format!("notice {notice}"));
    }
    let rebuilds = Query { command: Some("journal".to_owned()), ..Query::default() };
    for rebuild in store.runs(&rebuilds).await.unwrap() {
        let events = store.load(rebuild.id).await.unwrap();
        let event = journal::codec::decode(&events[1]).unwrap().event;
        let Event::JournalRebuilt { runs, events, set_aside, .. } = event else {
            panic!("{event:?}");
        };
        say(&format!("rebuilt runs={runs} events={events} set_aside={}", Path::new(&set_aside).is_dir()));
    }
}

/// Damages the database of a copy of `before`, lets a child survive it, and gives back what that said.
fn survived(before: &Path, what: &str, damage: impl FnOnce(&Path)) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("journal");
    copy(before, &folder);
    damage(&folder.join("sled"));
    let output = command("survive", &folder).output().unwrap();
    println!("{what}:");
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    let said = |line: &&str| line.starts_with("notice ") || line.starts_with("rebuilt ");
    text.lines().filter(said).map(str::to_owned).collect()
}

fn prepared_for_damage() -> tempfile::TempDir {
    let before = tempfile::tempdir().unwrap();
    prepare(before.path(), &RUNS);
    before
}

/// It was noticed, told, recorded, and nothing was thrown away.
fn was_rebuilt(said: &[String], set_aside: bool) {
    let [notice, rebuilt] = said else {
        panic!("{said:?}");
    };
    assert!(notice.contains("was made anew from 51 events of 4 runs"), "{notice}");
    assert_eq!(*rebuilt, format!("rebuilt runs=4 events=51 set_aside={set_aside}"));
}

#[test]
fn an_unfinished_snapshot_is_removed() {
    let before = prepared_for_damage();
    for content in [&b""[..], b"garbage", &[0; 4096]] {
        let said = survived(before.path(), "snapshot", |sled| {
            fs::write(sled.join("snap.FFFFFFFFFFFFFFFF.generating"), content).unwrap();
        });
        assert_eq!(said, Vec::<String>::new());
    }
}

#[test]
fn a_database_that_lost_its_end_is_made_anew() {
    let before = prepared_for_damage();
    let used = used(&fs::read(before.path().join("sled/db")).unwrap());
    for length in [0, 1, used / 8, used / 2, used - used / 8] {
        let said = survived(before.path(), &format!("cut at {length} of {used}"), |sled| {
            cut(&sled.join("db"), u64::try_from(length).unwrap());
        });
        was_rebuilt(&said, true);
    }
}

/// How many bytes of a database's file are in use; most of a young one is empty.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1)
}

#[test]
fn an_older_database_is_not_taken_for_the_present_one() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    prepare(&journal, &[3, 2]);
    copy(&journal.join("sled"), &folder.path().join("old"));
    run(async {
        let store = open(&journal);
        let mut log = go_on(&store, 1, 2, usize::MAX, |_| {}).await;
        log.publish().await.unwrap();
        drop(log);
        fs::remove_dir_all(journal.join("sled")).unwrap();
        copy(&folder.path().join("old"), &journal.join("sled"));
        assert_eq!(store.runs(&Query::default()).await.unwrap().len(), 3, "two, and the one that tells");
        let notices = store.take_notices();
        assert!(notices.len() == 1 && notices[0].contains("it ends before event 6"), "{notices:?}");
        check(&store, &[5, 2]).await;
        assert_eq!(store.take_notices(), Vec::<String>::new());
    });
}

#[test]
fn a_database_without_a_beginning_is_made_anew() {
    let before = prepared_for_damage();
    for snapshots in [true, false] {
        let said = survived(before.path(), "zeroed", |sled| {
            let db = fs::File::options().write(true).open(sled.join("db")).unwrap();
            db.write_all_at(&[0; 64 * 1024], 0).unwrap();
            if !snapshots {
                snapshots_of(sled).iter().for_each(|path| fs::remove_file(path).unwrap());
            }
        });
        was_rebuilt(&said, true);
    }
}

fn snapshots_of(sled: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(sled).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_str().unwrap().contains("/snap.")).collect()
}

#[test]
fn a_database_that_is_gone_is_made_anew() {
    let before = prepared_for_damage();
    let said = survived(before.path(), "folder removed", |sled| fs::remove_dir_all(sled).unwrap());
    was_rebuilt(&said, false);
    let said = survived(before.path(), "file removed", |sled| fs::remove_file(sled.join("db")).unwrap());
    was_rebuilt(&said, true);
    let said = survived(before.path(), "only run files left", |sled| {
        fs::remove_dir_all(sled).unwrap();
        fs::remove_file(sled.with_extension("head")).unwrap();
    });
    was_rebuilt(&said, false);
}

#[test]
fn a_database_with_changed_bytes_loses_nothing() {
    let before = prepared_for_damage();
    let seeds = if all() { 150 } else { 10 };
    let mut rebuilt = 0;
    for seed in 0..seeds {
        let mut dice = Dice(seed);
        let said = survived(before.path(), &format!("seed {seed}"), |sled| {
            let mut files = snapshots_of(sled);
            files.extend([sled.join("db"), sled.join("db"), sled.join("conf")]);
            let path = &files[dice.roll(files.len())];
            let mut bytes = fs::read(path).unwrap();
            let used = used(&bytes);
            let flips = if seed % 2 == 0 { 1 } else { 1 + dice.roll(12) };
            for _ in 0..flips {
                let at = dice.roll(used);
                bytes[at] ^= 1 << dice.roll(8);
            }
            println!("{} of {used} bytes: {flips} changed", path.file_name().unwrap().display());
            fs::write(path, bytes).unwrap();
        });
        if !said.is_empty() {
            println!("{}", said[0]);
            was_rebuilt(&said, true);
            rebuilt += 1;
        }
    }
    println!("{rebuilt} of {seeds} were made anew");
}

#[test]
fn a_database_that_gives_no_sign_of_life_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &[3, 2]);
    run(async {
        let impatient = FileStore::with_patience(folder.path().to_path_buf(), Duration::ZERO).unwrap();
        let refused = impatient.runs(&Query::default()).await;
        let Err(StoreError::Database { what, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(what.contains("no sign of life"), "{what}");
        let patient = open(folder.path());
        check(&patient, &[3, 2]).await;
        let notices = patient.take_notices();
        assert!(notices.len() == 1 && notices[0].contains("made anew"), "{notices:?}");
    });
}

#[test]
fn a_rebuild_on_request_keeps_the_old_database() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &[3, 2]);
    cut(&run_file(folder.path()), 20);
    run(async {
        let store = open(folder.path());
        let rebuilt = store.rebuild().await.unwrap();
        assert_eq!((rebuilt.runs, rebuilt.events), (2, 5), "the cut file was mended first");
        assert!(rebuilt.set_aside.unwrap().join("db").exists());
        check(&store, &[3, 2]).await;
        let listed = store.runs(&Query::default()).await.unwrap();
        assert_eq!((listed[0].id, listed[0].status), (rebuilt.run, Some(Status::Succeeded)));
        assert_eq!(store.take_notices().len(), 2);
    });
}

// ---- a full disk ----

/// Appends until the disk is full; then, on request, when there is room again, looks at what is there.
async fn fill(folder: &Path) {
    let store = open(folder);
    let mut story = story(1);
    let mut log = store.claim(&story.claim()).await.unwrap();
    if run_file(folder).exists() {
        story.told = store.load(story.run).await.unwrap();
    }
    loop {
        let bytes = if story.told.is_empty() { story.begin() } else { story.part() };
        match story.append(&mut *log, &bytes).await {
            Ok(()) => acknowledge(story.told.len()),
            Err(StoreError::Io { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let refused = story.append(&mut *log, &story.told[story.told.len() - 1]).await;
    assert!(matches!(refused, Err(StoreError::Fenced(_))), "the log takes no more");
}

struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, size: &str) -> Option<Mounted> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Mounted(at.to_path_buf()))
    }

    fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]).arg(&self.0);
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().unwrap();
    }
}

#[test]
fn a_full_disk_leaves_a_journal_that_goes_on_when_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = Mounted::tmpfs(place.path(), "300k") else {
        println!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let folder = place.path().join("journal");
    let output = command("fill", &folder).output().unwrap();
    succeeded(&output);
    let count = acknowledged(&output.stdout);
    assert!(count > 100);
    run(async {
        let store = open(&folder);
        let refused = store.load(run_id(1)).await;
        assert!(matches!(refused, Err(StoreError::Database { .. } | StoreError::Io { .. })), "{refused:?}");
        assert_eq!(fs::metadata(run_file(&folder)).unwrap().len(), *borders(&told(1, count)).last().unwrap());
        disk.resize("64m");
        check(&open(&folder), &[count]).await;
        assert_eq!(store.take_notices(), Vec::<String>::new());
    });
}

#[test]
fn a_disk_that_is_full_for_the_database_is_no_reason_to_set_it_aside() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = Mounted::tmpfs(place.path(), "2m") else {
        println!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let folder = place.path().join("journal");
    prepare(&folder, &[3]);
    let output = command("fill", &folder).output().unwrap();
    succeeded(&output);
    let count = acknowledged(&output.stdout);
    assert!(count > 100);
    let child = command("go on", &folder).output().unwrap();
    assert!(!child.status.success(), "there is no room");
    disk.resize("64m");
    run(async {
        let store = open(&folder);
        check(&store, &[count]).await;
        assert_eq!(store.take_notices(), Vec::<String>::new());
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(entries.into_iter().all(|name| !name.to_str().unwrap().contains("damaged")));
    });
}
