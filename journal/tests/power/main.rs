//! After a power loss, whatever the disk made of what was not synced, every event that was acknowledged is there, and
//! so is every attachment; what the journal tells is true, and it can go on.
//!
//! The store's work is done by a process of its own, whose writes, names and syncs strace(1) writes down. From that,
//! for points between them, the folder is made as a disk may hold it when the power goes there (see [`disk`]), and the
//! store is opened on it. Which points and ways are tried is a fixed sample, twelve times as large with
//! `PG_STAGING_TEST_ALL=1`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "it starts itself again as other processes")]

mod disk;
#[path = "../material/mod.rs"]
mod material;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use disk::{Loss, Op};
use journal::engine::decode_all;
use journal::event::{Event, Hash, RunId, StopCause};
use journal::query::{Query, Shown, Summary};
use journal::run::Run;
use journal::store::files::FileStore;
use journal::store::verified::Flaw;
use journal::store::{Adopted, Claim, Head, Log, Store, StoreError, Upkeep as _};
use material::{Dice, Story, all, process, run_id, started};
use tempfile::TempDir;
use trace::{Recorder, strace};

/// What a child is to do, and in which folder.
const ROLE: &str = "JOURNAL_TEST_ROLE";
const FOLDER: &str = "JOURNAL_TEST_FOLDER";

/// The runs that children write.
const RUNS: u32 = 4;
/// From this number on, runs that there are so many of that they are sealed.
const MANY: u32 = 1_000;
/// More events than any of them gets.
const LONGEST: usize = 40;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A folder to work in: in memory where there is such a place, since what syncs do is looked at, and not waited for.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

// ---- the work ----

/// The next event of run `number`: it begins, and every few parts it stops and is continued. One of the many succeeds
/// with its third event, and can only be rolled back then.
fn next(number: u32, story: &mut Story) -> Vec<u8> {
    let continued = || Event::RunContinued { version: "1.2.3".to_owned(), process: process() };
    match story.told.len() {
        0 => story.begin(),
        2 if number >= MANY => story.tell(Event::RunSucceeded),
        n if n % 5 == 3 && number < MANY => {
            story.tell(Event::RunStopped { cause: StopCause::Signal(15), error: None })
        }
        n if n % 5 == 4 => story.tell(continued()),
        _ => story.part(),
    }
}

fn story(number: u32) -> Story {
    let section = if number < MANY { number } else { number % 7 };
    Story::new(number, started("restore", Some(&format!("section{section}"))))
}

/// What the first `count` events of run `number` are.
fn told(number: u32, count: usize) -> Vec<Vec<u8>> {
    let mut story = story(number);
    while story.told.len() < count {
        next(number, &mut story);
    }
    story.told
}

/// Finished runs, as they are imported.
async fn adopt(store: &FileStore, numbers: std::ops::RangeInclusive<u32>) {
    let (first, last) = (*numbers.start(), *numbers.end());
    let adopted = numbers.map(|number| {
        let story = story(number);
        Adopted { claim: Claim { target: None, ..story.claim() }, run: story.run, events: told(number, 3) }
    });
    store.adopt(adopted.collect()).await.unwrap();
    say(&format!("adopted {first} {last}"));
}

/// What is attached as number `number`.
fn attached(number: usize) -> Vec<u8> {
    format!("what program {number} said\n").repeat(200 * number).into_bytes()
}

/// Takes the run over, whatever there is of it, and appends so many events; tells when each is acknowledged.
async fn go_on(store: &FileStore, number: u32, more: usize) -> Box<dyn Log> {
    let mut story = story(number);
    let mut log = store.claim(&story.claim()).await.unwrap();
    story.told = match store.load(story.run).await {
        Err(StoreError::NoSuchRun(_)) => Vec::new(),
        loaded => loaded.unwrap(),
    };
    for _ in 0..more {
        let bytes = next(number, &mut story);
        story.append(&mut *log, &bytes).await.unwrap();
        say(&format!("acknowledged {number} {}", story.told.len()));
    }
    log
}

async fn attach(store: &FileStore, number: usize) {
    let bytes = attached(number);
    assert_eq!(store.attach(&bytes).await.unwrap(), Hash::of(&bytes));
    say(&format!("attached {number}"));
}

/// Tells the journal's head, as `journal verify` does.
async fn tell_head(store: &FileStore) {
    let found = store.verify(None).await.unwrap();
    assert_eq!(found.damage, []);
    say(&format!("head {}", found.head));
}

/// One line, in one write, where somebody records it.
fn say(line: &str) {
    if env::var_os(ROLE).is_none() {
        return;
    }
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// Some of all that a journal sees in its first days.
async fn live(folder: &Path) {
    let store = FileStore::open(folder.to_path_buf()).unwrap();
    let mut log = go_on(&store, 1, 3).await;
    log.publish().await.unwrap();
    drop(log);
    attach(&store, 1).await;
    let mut log = go_on(&store, 1, 4).await;
    attach(&store, 2).await;
    log.publish().await.unwrap();
    drop(log);
    // This one's owner goes without a word, and somebody asks.
    drop(go_on(&store, 2, 3).await);
    store.runs(&Query::default()).await.unwrap();
    attach(&store, 1).await;
    let mut log = go_on(&store, 2, 2).await;
    tell_head(&store).await;
    drop(go_on(&store, 3, 2).await);
    log.publish().await.unwrap();
    drop(log);
    store.rebuild().await.unwrap();
    tell_head(&store).await;
    drop(go_on(&store, 4, 3).await);
    store.read(run_id(4)).await.unwrap();
    let mut log = go_on(&store, 1, 2).await;
    log.publish().await.unwrap();
}

/// A run that is begun.
async fn begin(folder: &Path) {
    let store = FileStore::open(folder.to_path_buf()).unwrap();
    attach(&store, 1).await;
    let mut log = go_on(&store, 1, 3).await;
    log.publish().await.unwrap();
    drop(log);
    drop(go_on(&store, 2, 1).await);
    adopt(&store, MANY..=MANY).await;
}

/// Somebody attaches something, asks, and then goes on with what there is.
async fn take_over(folder: &Path) {
    let store = FileStore::open(folder.to_path_buf()).unwrap();
    attach(&store, 1).await;
    store.runs(&Query::default()).await.unwrap();
    drop(go_on(&store, 1, 2).await);
    drop(go_on(&store, MANY, 1).await);
    let mut log = go_on(&store, 2, 2).await;
    log.publish().await.unwrap();
}

/// One run more than may be kept in the database, and then one goes on that was sealed.
async fn seal(folder: &Path) {
    let store = FileStore::open(folder.to_path_buf()).unwrap();
    adopt(&store, 2_020..=2_030).await;
    tell_head(&store).await;
    drop(go_on(&store, MANY, 3).await);
    store.runs(&Query { limit: Some(1), ..Query::default() }).await.unwrap();
    let mut log = go_on(&store, 1, 2).await;
    log.publish().await.unwrap();
}

/// Not a test: what the other processes of these tests do.
#[test]
fn child() {
    let Ok(role) = env::var(ROLE) else {
        return;
    };
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    run(async {
        match role.as_str() {
            "live" => live(&folder).await,
            "begin" => begin(&folder).await,
            "take over" => take_over(&folder).await,
            "seal" => seal(&folder).await,
            other => panic!("no role '{other}'"),
        }
    });
}

// ---- what was recorded of it ----

/// Lets a child work in the journal in `disk`, and adds what it does to the record. Gives its end, and `None` where
/// strace cannot be had.
fn watch(recorder: &mut Recorder, role: &str, disk: &Path) -> Option<Output> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("trace");
    let mut strace = strace(&path);
    strace.arg(env::current_exe().unwrap());
    strace.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    strace.env(ROLE, role).env(FOLDER, disk.join("journal")).stdin(Stdio::null());
    let Ok(output) = strace.output() else {
        println!("skipped: there is no strace");
        return None;
    };
    let trace = fs::read_to_string(path).unwrap_or_default();
    if !output.status.success() && !trace.contains("openat(") {
        println!("skipped: strace may not trace: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    recorder.add(&trace);
    Some(output)
}

fn succeeded(output: &Output) {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}\n{}", output.status, said(&output.stdout), said(&output.stderr));
}

/// What was acknowledged before a point.
#[derive(Debug, Default, Clone)]
struct Promised {
    /// How many events of each run.
    events: BTreeMap<u32, usize>,
    attached: BTreeSet<usize>,
    head: Option<Head>,
}

impl Promised {
    /// Which is all of `self`, and what was told before that.
    fn before(&self, point: usize, ops: &[Op]) -> Promised {
        let mut promised = self.clone();
        for op in &ops[..point] {
            let Op::Said(text) = op else { continue };
            let words: Vec<&str> = text.split(' ').collect();
            match words[..] {
                ["acknowledged", run, count] => {
                    promised.events.insert(run.parse().unwrap(), count.parse().unwrap());
                }
                ["adopted", first, last] => {
                    let numbers = first.parse().unwrap()..=last.parse().unwrap();
                    promised.events.extend(numbers.map(|number: u32| (number, 3)));
                }
                ["head", head] => promised.head = Some(head.parse().unwrap()),
                ["attached", number] => {
                    promised.attached.insert(number.parse().unwrap());
                }
                _ => {}
            }
        }
        promised
    }

    /// The runs of which there may be something.
    fn numbers(&self) -> BTreeSet<u32> {
        let last = if self.events.contains_key(&2_019) { 2_030 } else { MANY };
        (1..=RUNS).chain(MANY..=last).collect()
    }
}

// ---- what is there after the power loss ----

fn open(folder: &Path) -> FileStore {
    FileStore::with_patience(folder.to_path_buf(), Duration::from_secs(20)).unwrap()
}

fn same(there: &[Vec<u8>], expected: &[Vec<u8>], what: &str) {
    let (found, wanted) = (there.len(), expected.len());
    let agree = there.iter().zip(expected).take_while(|(one, other)| one == other).count();
    assert!(there == expected, "{what}: {found} events for {wanted}, of which the first {agree} agree");
}

/// How many events of each run are there: no fewer than were promised, each the one that was written.
async fn kept(store: &FileStore, promised: &Promised) -> BTreeMap<u32, usize> {
    let mut kept = BTreeMap::new();
    let numbers: Vec<u32> = promised.numbers().into_iter().collect();
    let ids: Vec<RunId> = numbers.iter().map(|number| run_id(*number)).collect();
    for (number, stored) in numbers.into_iter().zip(store.read_all(&ids).await.unwrap()) {
        let mut there: Vec<Vec<u8>> = stored.into_iter().map(|stored| stored.bytes).collect();
        if number <= MANY {
            let loaded = match store.load(run_id(number)).await {
                Err(StoreError::NoSuchRun(_)) => Vec::new(),
                loaded => loaded.unwrap_or_else(|error| panic!("run {number}: {error}")),
            };
            assert!(loaded.starts_with(&there), "run {number}: what is listed is not what is loaded");
            there = loaded;
        }
        same(&there, &told(number, there.len()), &format!("run {number}"));
        let wanted = promised.events.get(&number).copied().unwrap_or_default();
        assert!(there.len() >= wanted, "run {number}: {wanted} were acknowledged, {} are there", there.len());
        assert!(there.len() <= LONGEST);
        if !there.is_empty() {
            kept.insert(number, there.len());
        }
    }
    kept
}

/// What is told in every way that one can ask is what these runs are.
async fn is_told(store: &FileStore, kept: &BTreeMap<u32, usize>, head: Option<Head>) {
    let everything = Query { read_only: true, ..Query::default() };
    let listed = store.runs(&everything).await.unwrap();
    let listed: BTreeMap<RunId, Summary> = listed.into_iter().map(|summary| (summary.id, summary)).collect();
    let mut others: BTreeSet<RunId> = listed.keys().copied().collect();
    let mut count = 0;
    for (number, length) in kept {
        let events = told(*number, *length);
        let run = Run::fold(&decode_all(&events).unwrap()).unwrap();
        let summary = listed.get(&run.id).unwrap_or_else(|| panic!("run {number} is not listed"));
        assert_eq!(summary.status, Some(run.status), "run {number}");
        others.remove(&run.id);
        count += events.len();
        if *number > MANY {
            continue;
        }
        let stored = store.read(run.id).await.unwrap();
        let read: Vec<Vec<u8>> = stored.into_iter().map(|stored| stored.bytes).collect();
        same(&read, &events, &format!("run {number} read"));
        assert_eq!(store.find(&run.id.to_string()).await.unwrap(), [run.id]);
        let shown = Shown::of(Some(run.status), false).as_str();
        for query in [
            Query { section: run.started.section.clone(), ..Query::default() },
            Query { status: Some(shown.to_owned()), ..Query::default() },
        ] {
            let found = store.runs(&query).await.unwrap();
            assert!(found.iter().any(|summary| summary.id == run.id), "run {number}: {query:?}");
            let wrong = found.iter().find(|summary| listed.get(&summary.id) != Some(summary));
            assert_eq!(wrong, None, "{query:?}");
        }
    }
    for id in others {
        assert_eq!(listed[&id].command, "journal", "{id} is listed, and there is nothing of it");
        count += store.load(id).await.unwrap().len();
    }
    let mut seqs = Vec::new();
    let mut from = Some(0);
    while let Some(first) = from {
        let page = store.events(&everything, first).await.unwrap();
        seqs.extend(page.events.iter().map(|event| event.seq));
        from = page.next;
    }
    assert_eq!(seqs.len(), count);
    assert!(seqs.is_sorted_by(|one, other| one < other), "numbers are given twice");
    let found = store.verify(head).await.unwrap();
    assert_eq!(found.damage, []);
    assert_eq!(found.events, u64::try_from(count).unwrap());
}

/// Opens the journal that a power loss left, and looks at all there is; then goes on with it. Gives what had to be
/// mended.
async fn survived(folder: &Path, promised: &Promised) -> Vec<String> {
    let found = open(folder).verify(promised.head).await.unwrap();
    let lost = |flaw: Flaw| !matches!(flaw, Flaw::Truncated | Flaw::RunRemoved | Flaw::Differ);
    let lost = found.damage.iter().find(|damage| lost(damage.flaw));
    assert_eq!(lost, None, "more than what is in two places, and now in one");
    let store = open(folder);
    let mut kept = kept(&store, promised).await;
    is_told(&store, &kept, promised.head).await;
    for number in 1..=2 {
        let bytes = attached(number);
        match store.attachment(Hash::of(&bytes)).await {
            Ok(there) => assert_eq!(there, bytes),
            Err(StoreError::NoSuchAttachment(_)) => {
                assert!(!promised.attached.contains(&number), "attachment {number} is gone");
            }
            Err(error) => panic!("attachment {number}: {error}"),
        }
        store.attach(&bytes).await.unwrap();
        assert_eq!(store.attachment(Hash::of(&bytes)).await.unwrap(), bytes);
    }
    let many = promised.events.contains_key(&MANY).then_some(MANY);
    for number in (1..=RUNS).chain(many) {
        let mut log = go_on(&store, number, 1).await;
        if number % 2 == 1 {
            log.publish().await.unwrap();
        }
        *kept.entry(number).or_default() += 1;
    }
    let again = open(folder);
    is_told(&again, &kept, Some(found.head)).await;
    let mended = again.take_notices();
    assert_eq!(mended, Vec::<String>::new(), "it was mended before");
    let mended = store.take_notices();
    let damaged = mended.iter().find(|notice| notice.contains("is damaged"));
    assert_eq!(damaged, None);
    mended
}

/// The ways in which the power goes at one point.
fn losses(point: usize) -> Vec<Loss> {
    let random = (0..4).map(|seed| Loss::Some(seed * 1_000_000 + u64::try_from(point).unwrap()));
    let fixed = [
        Loss::Everything,
        Loss::Nothing,
        Loss::AllButLast,
        Loss::SecondHalf,
        Loss::FirstHalf,
        Loss::Contents,
        Loss::Names,
        Loss::Writes,
    ];
    fixed.into_iter().chain(random).collect()
}

/// Lets the power go at these points, in all ways there are.
fn everywhere(points: impl IntoIterator<Item = usize>) -> Vec<(usize, Loss)> {
    let at = |point: usize| losses(point).into_iter().map(move |loss| (point, loss));
    points.into_iter().flat_map(at).collect()
}

/// Lets the power go in a `few` of these cases, and looks at the journal that is left.
fn survives(recorder: &Recorder, before: &Promised, cases: Vec<(usize, Loss)>, few: usize, what: &str) {
    let record = &recorder.record;
    let possible = cases.len();
    let begins = cases.first().map_or(0, |(point, _)| *point);
    // In an order that has nothing to do with the record's own rhythm, so that a sample sees all of it.
    let mut dice = Dice(u64::try_from(begins).unwrap());
    let mut order: Vec<(usize, (usize, Loss))> =
        cases.into_iter().map(|case| (dice.roll(1 << 30), case)).collect();
    order.sort_by_key(|(place, _)| *place);
    let (mut tried, mut lost, mut mended) = (BTreeSet::new(), 0, BTreeMap::<String, usize>::new());
    let mut seen: Vec<disk::Disk> = Vec::new();
    for (_, (point, loss)) in order.into_iter().take(if all() { few * 12 } else { few }) {
        let disk = record.after(point, loss);
        if seen.contains(&disk) {
            continue;
        }
        let scratch = scratch();
        let place = scratch.path().join("disk");
        disk.write(&record.nodes, &place);
        let promised = before.before(point, &record.ops);
        println!("{what}: power lost after {point} operations, {loss:?}");
        for notice in run(survived(&place.join("journal"), &promised)) {
            let told = notice.split_once(" because ").map_or(notice.as_str(), |(_, why)| why);
            *mended.entry(told.split("; the old one").next().unwrap().to_owned()).or_default() += 1;
        }
        lost += usize::from(record.unsynced(point) > 0);
        tried.insert(point);
        seen.push(disk);
    }
    println!(
        "{what}: {} of {possible} power losses at {} points, {lost} with something to lose; mended: {mended:#?}",
        seen.len(),
        tried.len(),
    );
    assert!(!seen.is_empty());
}

// ---- tests ----

#[test]
fn what_was_acknowledged_outlives_a_power_loss_at_any_point() {
    let scratch = scratch();
    let mut recorder = Recorder::new(scratch.path());
    let Some(output) = watch(&mut recorder, "live", scratch.path()) else {
        return;
    };
    succeeded(&output);
    recorder.agrees();
    let nothing = Promised::default();
    let promised = nothing.before(recorder.record.ops.len(), &recorder.record.ops);
    assert_eq!(promised.events, BTreeMap::from([(1, 9), (2, 5), (3, 2), (4, 3)]));
    let cases = everywhere(0..=recorder.record.ops.len());
    survives(&recorder, &nothing, cases, 150, "a journal's first days");
}

/// What a process that is killed before a sync leaves looks like all else to whoever comes next.
#[test]
fn what_a_killed_process_had_not_synced_takes_nothing_with_it_that_came_later() {
    let place = scratch();
    let mut undisturbed = Recorder::new(place.path());
    let Some(output) = watch(&mut undisturbed, "begin", place.path()) else {
        return;
    };
    succeeded(&output);
    undisturbed.agrees();
    let ops = &undisturbed.record.ops;
    let before_sync = |point: &usize| matches!(ops[*point], Op::Synced { .. });
    for killed in (0..ops.len()).filter(before_sync) {
        let scratch = scratch();
        let folder = scratch.path().join("disk");
        let mut recorder = Recorder::killed(&undisturbed, killed, &folder);
        succeeded(&watch(&mut recorder, "take over", &folder).unwrap());
        recorder.agrees();
        let told = |point: &usize| matches!(recorder.record.ops[point - 1], Op::Said(_));
        let points: Vec<usize> = (killed + 1..=recorder.record.ops.len()).filter(told).collect();
        let what = format!("killed after {killed} operations");
        let nothing = Promised::default();
        // As soon as something is promised, all that is not synced goes.
        let soonest: Vec<(usize, Loss)> =
            points.iter().take(2).map(|point| (*point, Loss::Everything)).collect();
        survives(&recorder, &nothing, soonest, 2, &what);
        survives(&recorder, &nothing, everywhere(points), 3, &what);
    }
}

#[test]
fn runs_that_are_sealed_outlive_a_power_loss_at_any_point_of_that() {
    let scratch = scratch();
    let folder = scratch.path().join("journal");
    let before = run(async {
        let store = FileStore::open(folder.clone()).unwrap();
        drop(go_on(&store, 1, 3).await);
        adopt(&store, MANY..=2_019).await;
        let head = Some(store.verify(None).await.unwrap().head);
        let events = (MANY..=2_019).map(|number| (number, 3)).chain([(1, 3)]).collect();
        Promised { events, attached: BTreeSet::new(), head }
    });
    assert!(fs::read_dir(folder.join("sealed")).unwrap().next().is_none());
    let mut recorder = Recorder::new(scratch.path());
    let first = recorder.record.ops.len();
    let Some(output) = watch(&mut recorder, "seal", scratch.path()) else {
        return;
    };
    succeeded(&output);
    recorder.agrees();
    assert!(folder.join("sealed/index").exists());
    let cases = everywhere(first..=recorder.record.ops.len());
    survives(&recorder, &before, cases, 20, "many runs are sealed");
}
