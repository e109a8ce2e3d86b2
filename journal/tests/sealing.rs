//! Finished runs leave the database for sealed segments, and nobody who asks sees a difference.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod material;

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use journal::event::{Event, RollbackCause, RunId};
use journal::exchange;
use journal::query::{Query, Summary};
use journal::run::Status;
use journal::store::files::FileStore;
use journal::store::verified::Flaw;
use journal::store::{Adopted, Claim, Store, Upkeep as _};
use material::{BEGINNING, Story, run_id, started};

/// So many runs that a segment is sealed.
const RUNS: u32 = 1_300;
const EVENTS: usize = 3;

/// A run of one of seven sections; every hundredth was interrupted.
fn story(number: u32) -> Story {
    let mut story = Story::new(number, started("restore", Some(&format!("section{}", number % 7))));
    story.begin();
    story.part();
    if number.is_multiple_of(100) {
        story.part();
    } else {
        story.tell(Event::RunSucceeded);
    }
    story
}

async fn prepared(folder: &Path) -> FileStore {
    let store = FileStore::open(folder.to_path_buf()).unwrap();
    let numbers: Vec<u32> = (1..=RUNS).collect();
    for some in numbers.chunks(200) {
        let adopted = some.iter().map(|number| {
            let story = story(*number);
            Adopted { claim: Claim { target: None, ..story.claim() }, run: story.run, events: story.told }
        });
        store.adopt(adopted.collect()).await.unwrap();
    }
    // The last ones are known to be in the database when somebody asks again.
    store.runs(&Query { limit: Some(1), ..Query::default() }).await.unwrap();
    store
}

fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    paths.sort_unstable();
    paths
}

fn ids(summaries: &[Summary]) -> Vec<RunId> {
    summaries.iter().map(|summary| summary.id).collect()
}

/// Runs of the test, newest first.
fn those(wanted: impl Fn(u32) -> bool) -> Vec<RunId> {
    (1..=RUNS).rev().filter(|number| wanted(*number)).map(run_id).collect()
}

async fn asked(store: &FileStore, query: Query) -> Vec<RunId> {
    ids(&store.runs(&query).await.unwrap())
}

/// Everything that there is to ask, against what was written; numbers are in the order of the runs.
async fn check(store: &FileStore) {
    assert_eq!(asked(store, Query::default()).await, those(|_| true));
    let limited = Query { limit: Some(1_000), ..Query::default() };
    assert_eq!(asked(store, limited).await, those(|number| number > RUNS - 1_000));
    let section = Query { section: Some("section3".to_owned()), ..Query::default() };
    assert_eq!(asked(store, section).await, those(|number| number % 7 == 3));
    let status = Query { status: Some("interrupted".to_owned()), ..Query::default() };
    assert_eq!(asked(store, status).await, those(|number| number % 100 == 0));
    let at = |number: u32| {
        Timestamp::from_second(BEGINNING).unwrap() + SignedDuration::from_mins(i64::from(number))
    };
    let times = Query { since: Some(at(150)), until: Some(at(1_250)), ..Query::default() };
    assert_eq!(asked(store, times).await, those(|number| (150..1_250).contains(&number)));
    assert_eq!(asked(store, Query { user: Some("bob".to_owned()), ..Query::default() }).await, []);
    for number in [1, 100, 512, 513, 900, RUNS] {
        let run = run_id(number);
        assert_eq!(store.find(&run.short()).await.unwrap(), [run]);
        assert_eq!(store.find(&run.to_string().to_uppercase()).await.unwrap(), [run]);
        assert_eq!(store.load(run).await.unwrap(), story(number).told);
    }
    assert_eq!(store.find(&run_id(1).to_string()[..4]).await.unwrap(), those(|_| true));
    let all: Vec<RunId> = (1..=RUNS).map(run_id).collect();
    let mut seqs = Vec::new();
    for (number, events) in (1..).zip(store.read_all(&all).await.unwrap()) {
        assert!(events.iter().map(|event| &event.bytes).eq(&story(number).told), "run {number}");
        seqs.extend(events.iter().map(|event| event.seq));
    }
    assert_eq!(seqs, (1..=u64::from(RUNS) * 3).collect::<Vec<_>>());
    let mut paged = Vec::new();
    let mut from = Some(1);
    while let Some(next) = from {
        let page = store.events(&Query::default(), next).await.unwrap();
        paged.extend(page.events.iter().map(|event| event.seq));
        from = page.next;
    }
    assert_eq!(paged, seqs);
}

#[tokio::test]
async fn sealed_runs_are_asked_for_like_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = prepared(folder.path()).await;
    assert!(!files(&folder.path().join("sealed"), ".runs").is_empty());
    let left = files(&folder.path().join("runs"), ".log").len();
    assert!((512..=1_100).contains(&left), "{left} run files are left");
    assert!(files(&folder.path().join("runs"), ".lock").len() <= left, "locks go with their runs");
    check(&store).await;
    let found = store.verify(None).await.unwrap();
    assert_eq!(found.damage, []);
    assert_eq!((found.runs, found.events), (u64::from(RUNS), u64::from(RUNS) * 3));
    let mut out = Vec::new();
    exchange::export(&store, &mut out).await.unwrap();
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), RUNS as usize * EVENTS + 2);

    // All of it again from what is the authority, with the same numbers.
    let rebuilt = store.rebuild().await.unwrap();
    let last = store.runs(&Query { command: Some("journal".to_owned()), ..Query::default() }).await.unwrap();
    assert_eq!(ids(&last), [rebuilt.run]);
    assert_eq!(store.verify(Some(found.head)).await.unwrap().damage, []);
    assert_eq!(store.read(run_id(5)).await.unwrap()[0].seq, 13);
    assert_eq!(store.take_notices().len(), 1);
}

#[tokio::test]
async fn a_sealed_run_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = prepared(folder.path()).await;
    let mut story = story(3);
    let file = folder.path().join(format!("runs/{}.log", story.run));
    assert!(!file.exists());
    let before = store.verify(None).await.unwrap();
    let mut log = store.claim(&story.claim()).await.unwrap();
    assert_eq!(store.load(story.run).await.unwrap(), story.told);
    let back = Event::RollbackStarted { cause: RollbackCause::Request, reason: "asked for".to_owned() };
    let bytes = story.tell(back);
    story.append(&mut *log, &bytes).await.unwrap();
    assert_eq!(store.load(story.run).await.unwrap(), story.told);
    let running = Query { status: Some("rolling_back".to_owned()), ..Query::default() };
    assert_eq!(asked(&store, running).await, [story.run]);
    let succeeded = Query { status: Some("succeeded".to_owned()), ..Query::default() };
    assert!(!asked(&store, succeeded).await.contains(&story.run));
    let bytes = story.tell(Event::RunRolledBack);
    story.append(&mut *log, &bytes).await.unwrap();
    log.publish().await.unwrap();
    drop(log);
    let listed = store.runs(&Query::default()).await.unwrap();
    assert_eq!(listed.len(), RUNS as usize);
    assert_eq!(listed[RUNS as usize - 3].status, Some(Status::RolledBack));
    let found = store.verify(Some(before.head)).await.unwrap();
    assert_eq!(found.damage, []);
    assert_eq!((found.runs, found.events), (before.runs, before.events + 2));
    let read = store.read(story.run).await.unwrap();
    assert_eq!(
        read.iter().map(|event| event.seq).collect::<Vec<_>>(),
        [7, 8, 9, before.events + 1, before.events + 2]
    );
}

#[tokio::test]
async fn a_damaged_segment_is_named_and_its_runs_are_saved_by_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let store = prepared(folder.path()).await;
    let segment = files(&folder.path().join("sealed"), ".runs").remove(0);
    let whole = fs::read(&segment).unwrap();
    let head = store.verify(None).await.unwrap().head;

    // A byte of the first event of a run that is not the last in it.
    let mut changed = whole.clone();
    changed[100] ^= 1;
    fs::write(&segment, &changed).unwrap();
    let found = store.verify(None).await.unwrap();
    let flaws: Vec<_> = found.damage.iter().map(|damage| (damage.flaw, damage.run)).collect();
    assert_eq!(flaws, [(Flaw::Changed, Some(run_id(1)))], "{:?}", found.damage);
    assert_eq!(found.damage[0].path, segment);

    // Its end is gone: what is where cannot be told, but the events can.
    fs::write(&segment, &whole[..whole.len() - 100]).unwrap();
    assert!(!store.verify(None).await.unwrap().damage.is_empty());
    store.rebuild().await.unwrap();
    let found = store.verify(Some(head)).await.unwrap();
    assert_eq!((found.damage, found.lost), (Vec::new(), 0));
    assert_eq!(store.load(run_id(1)).await.unwrap(), story(1).told);
}

#[tokio::test]
async fn a_removed_segment_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let store = prepared(folder.path()).await;
    let segment = files(&folder.path().join("sealed"), ".runs").remove(0);
    fs::remove_file(&segment).unwrap();
    let found = store.verify(None).await.unwrap();
    assert!(found.damage.iter().any(|damage| damage.path == segment), "{:?}", found.damage[0]);
    let gone = found.damage.iter().filter(|damage| damage.flaw == Flaw::RunRemoved && damage.run.is_some());
    assert!(gone.count() > 100);
    store.rebuild().await.unwrap();
    let found = store.verify(None).await.unwrap();
    assert_eq!(found.damage, []);
    assert!(found.lost > 100);
}

#[tokio::test]
async fn an_index_that_is_damaged_or_gone_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = prepared(folder.path()).await;
    let index = folder.path().join("sealed/index");
    let whole = fs::read(&index).unwrap();
    fs::remove_file(&index).unwrap();
    assert_eq!(asked(&store, Query::default()).await, those(|_| true));
    assert_eq!(fs::read(&index).unwrap(), whole);
    fs::write(&index, &whole[1..]).unwrap();
    assert_eq!(asked(&store, Query::default()).await, those(|_| true));
    assert_eq!(fs::read(&index).unwrap(), whole);
}
