//! What every store promises, and is held against each of them: a test binary says where it gets a store from, and
//! [`keeps_every_promise`] makes the tests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::{SignedDuration, Timestamp};
use journal::event::{Event, Failure, Hash, RollbackCause, RunId, StopCause};
use journal::query::{Query, Summary};
use journal::run::Status;
use journal::step::Progress;
use journal::store::{Numbered, Page, Seen, Store, StoreError};
use serde_json::json;

use super::material::{self, BEGINNING, Story, of_newer_type, run_id, started};

/// Where a test gets its store from.
pub(crate) trait Factory {
    /// The store as the next process would see it.
    fn open(&self) -> Arc<dyn Store>;
}

/// One test for each promise, of a store that the expression makes a [`Factory`] for; `super` has this module.
macro_rules! keeps_every_promise {
    ($factory:expr) => {
        super::keeps_every_promise! { $factory;
            what_is_appended_is_loaded_and_read
            a_run_goes_on_with_its_next_owner
            numbers_in_the_store_are_unique_and_stay
            an_append_out_of_order_is_refused
            a_run_that_never_began_is_not_there
            a_run_has_one_owner
            a_target_has_one_owner
            a_run_is_held_as_long_as_its_log_lives
            runs_come_newest_first_up_to_the_limit
            every_filter_filters
            runs_that_change_nothing_are_shown_on_request
            status_follows_the_events
            a_moving_run_without_a_process_is_interrupted
            a_run_is_found_by_any_part_of_its_id
            attachments_are_kept_by_their_hash
            an_event_that_may_be_passed_over_is_passed_over
            a_run_of_a_newer_version_is_listed_and_not_read
            many_runs_are_all_there
            readers_see_a_growing_run_whole
            several_runs_are_read_in_one_go
            runs_are_looked_at_with_what_there_is_of_them
            all_events_come_in_pages_by_their_numbers
            a_page_tells_how_each_run_began
            events_are_filtered_by_their_run_and_by_themselves
            whoever_watches_sees_each_event_once_and_the_owner_go
            progress_is_shown_while_the_run_is_owned
        }
    };
    ($factory:expr; $($promise:ident)*) => {
        $(#[tokio::test]
        async fn $promise() {
            super::conformance::$promise(&$factory).await;
        })*
    };
}
pub(crate) use keeps_every_promise;

fn ids(summaries: &[Summary]) -> Vec<RunId> {
    summaries.iter().map(|summary| summary.id).collect()
}

fn stopped() -> Event {
    Event::RunStopped { cause: StopCause::Signal(2), error: None }
}

pub(crate) async fn what_is_appended_is_loaded_and_read(factory: &dyn Factory) {
    let store = factory.open();
    let mut story = Story::new(1, started("restore", Some("shop")));
    let log = story.write(&*store, 3, Some(Event::RunSucceeded)).await;
    // Whether it is published or not, and whether its owner lives or not.
    for store in [&store, &factory.open()] {
        assert_eq!(store.load(story.run).await.unwrap(), story.told);
        let read = store.read(story.run).await.unwrap();
        assert!(read.iter().map(|stored| &stored.bytes).eq(&story.told));
    }
    drop(log);
    assert_eq!(factory.open().load(story.run).await.unwrap(), story.told);
    assert_eq!(store.take_notices(), Vec::<String>::new());
}

pub(crate) async fn a_run_goes_on_with_its_next_owner(factory: &dyn Factory) {
    let mut story = Story::new(1, started("restore", Some("shop")));
    let mut log = story.write(&*factory.open(), 2, Some(stopped())).await;
    log.publish().await.unwrap();
    drop(log);
    for _ in 0..3 {
        let store = factory.open();
        assert_eq!(store.load(story.run).await.unwrap(), story.told);
        let mut log = store.claim(&story.claim()).await.unwrap();
        let part = story.part();
        story.append(&mut *log, &part).await.unwrap();
    }
    assert_eq!(factory.open().load(story.run).await.unwrap(), story.told);
    assert_eq!(factory.open().read(story.run).await.unwrap().len(), story.told.len());
}

pub(crate) async fn numbers_in_the_store_are_unique_and_stay(factory: &dyn Factory) {
    let store = factory.open();
    let mut stories: Vec<Story> = (1..=4)
        .map(|number| Story::new(number, started("restore", Some(&format!("section{number}")))))
        .collect();
    let mut logs = Vec::new();
    for story in &mut stories {
        logs.push(story.write(&*store, 0, None).await);
    }
    let mut known: Vec<Vec<u64>> = vec![Vec::new(); stories.len()];
    for round in 0..4 {
        for (story, log) in stories.iter_mut().zip(&mut logs) {
            let part = story.part();
            story.append(&mut **log, &part).await.unwrap();
        }
        let before: BTreeSet<u64> = known.iter().flatten().copied().collect();
        let mut seen = BTreeSet::new();
        for (story, known) in stories.iter().zip(&mut known) {
            let read = store.read(story.run).await.unwrap();
            let seqs: Vec<u64> = read.iter().map(|stored| stored.seq).collect();
            assert_eq!(seqs.len(), round + 2);
            assert!(seqs.is_sorted(), "{seqs:?}");
            assert!(seqs.starts_with(known), "{known:?} became {seqs:?}");
            assert!(seqs.iter().all(|seq| seen.insert(*seq)), "{seqs:?} were given twice");
            *known = seqs;
        }
        // What became known later has greater numbers.
        let last = before.last().copied().unwrap_or_default();
        assert!(seen.difference(&before).all(|seq| *seq > last));
    }
    let all: BTreeSet<u64> = known.into_iter().flatten().collect();
    assert!(all.into_iter().eq(1..=20));
}

pub(crate) async fn an_append_out_of_order_is_refused(factory: &dyn Factory) {
    let store = factory.open();
    let mut story = Story::new(1, started("restore", Some("shop")));
    let mut log = story.write(&*store, 1, None).await;
    let kept = story.told.clone();
    let next = story.part();
    for n in [0, 1, 3, u64::MAX] {
        let refused = log.append(n, &next).await;
        assert!(matches!(refused, Err(StoreError::Fenced(run)) if run == story.run), "{n}");
    }
    assert_eq!(store.load(story.run).await.unwrap(), kept);
    log.append(2, &next).await.unwrap();
    assert_eq!(store.load(story.run).await.unwrap(), story.told);
}

pub(crate) async fn a_run_that_never_began_is_not_there(factory: &dyn Factory) {
    let store = factory.open();
    let run = run_id(1);
    assert!(matches!(store.load(run).await, Err(StoreError::NoSuchRun(id)) if id == run));
    assert!(matches!(store.read(run).await, Err(StoreError::NoSuchRun(id)) if id == run));
    assert!(!store.is_held(run).await.unwrap());
    let story = Story::new(1, started("restore", Some("shop")));
    let log = store.claim(&story.claim()).await.unwrap();
    assert!(store.is_held(run).await.unwrap());
    assert!(matches!(store.load(run).await, Err(StoreError::NoSuchRun(_))));
    drop(log);
    assert!(matches!(store.read(run).await, Err(StoreError::NoSuchRun(_))));
    assert_eq!(store.runs(&Query::default()).await.unwrap(), []);
    assert_eq!(store.find("0").await.unwrap(), []);
}

pub(crate) async fn a_run_has_one_owner(factory: &dyn Factory) {
    let mut story = Story::new(1, started("restore", None));
    let log = story.write(&*factory.open(), 0, None).await;
    let second = Story::new(1, started("continue", None)).by("grace").claim();
    for store in [factory.open(), factory.open()] {
        let Err(StoreError::Busy { what, holder }) = store.claim(&second).await else {
            panic!("a run has two owners");
        };
        assert_eq!(what, story.run.to_string());
        assert_eq!(holder.as_deref(), Some(&story.claim()));
    }
    drop(log);
    let log = factory.open().claim(&second).await.unwrap();
    let Err(StoreError::Busy { holder, .. }) = factory.open().claim(&story.claim()).await else {
        panic!("a run has two owners");
    };
    assert_eq!(holder.as_deref(), Some(&second));
    drop(log);
}

pub(crate) async fn a_target_has_one_owner(factory: &dyn Factory) {
    let mut story = Story::new(1, started("restore", Some("shop")));
    let log = story.write(&*factory.open(), 0, None).await;
    let second = Story::new(2, started("drop", Some("shop"))).by("grace").claim();
    let store = factory.open();
    let busy = store.claim(&second).await.map(drop).unwrap_err();
    let told = busy.to_string();
    assert!(told.contains("localhost:6432/shop") && told.contains("ada@here"), "{told}");
    assert!(told.contains(&story.run.to_string()), "{told}");
    let StoreError::Busy { what, holder } = busy else {
        panic!("{busy}");
    };
    assert_eq!(what, "localhost:6432/shop");
    assert_eq!(holder.as_deref(), Some(&story.claim()));
    assert!(!store.is_held(run_id(2)).await.unwrap(), "it did not get the run either");
    let elsewhere = Story::new(3, started("drop", Some("forum"))).claim();
    let beside = store.claim(&elsewhere).await.unwrap();
    drop(log);
    drop(store.claim(&second).await.unwrap());
    drop(beside);
}

pub(crate) async fn a_run_is_held_as_long_as_its_log_lives(factory: &dyn Factory) {
    let mut story = Story::new(1, started("restore", Some("shop")));
    let store = factory.open();
    let mut log = story.write(&*store, 0, Some(Event::RunSucceeded)).await;
    assert!(store.is_held(story.run).await.unwrap());
    log.publish().await.unwrap();
    assert!(factory.open().is_held(story.run).await.unwrap());
    drop(log);
    assert!(!store.is_held(story.run).await.unwrap());
    assert!(!factory.open().is_held(story.run).await.unwrap());
}

pub(crate) async fn runs_come_newest_first_up_to_the_limit(factory: &dyn Factory) {
    let store = factory.open();
    for number in [3, 1, 5, 2, 4] {
        let mut story = Story::new(number, started("restore", Some("shop")));
        story.write(&*store, 0, Some(Event::RunSucceeded)).await;
    }
    let newest_first: Vec<RunId> = (1..=5).rev().map(run_id).collect();
    for (limit, expected) in [(None, 5), (Some(0), 0), (Some(1), 1), (Some(3), 3), (Some(9), 5)] {
        let by_all = Query { limit, ..Query::default() };
        let by_section = Query { section: Some("shop".to_owned()), ..by_all.clone() };
        let by_status = Query { status: Some("succeeded".to_owned()), ..by_all.clone() };
        for query in [by_all, by_section, by_status] {
            let runs = store.runs(&query).await.unwrap();
            assert_eq!(ids(&runs), newest_first[..expected], "{query:?}");
        }
    }
}

/// Eight runs that differ in every way one can ask for.
async fn eight_runs(store: &dyn Store) {
    let failed = Event::RunFailed { error: Failure::new("no") };
    let runs = [
        ("restore", Some("shop"), "ada", Some(Event::RunSucceeded)),
        ("restore", Some("shop"), "grace", Some(failed)),
        ("switch", Some("shop"), "ada", Some(Event::RunSucceeded)),
        ("restore", Some("forum"), "ada", Some(stopped())),
        ("drop", Some("forum"), "grace", Some(Event::RunSucceeded)),
        ("purge", None, "ada", Some(Event::RunSucceeded)),
        ("restore", Some("sh"), "ada", Some(Event::RunRolledBack)),
        ("restore", Some("shop2"), "ada", Some(Event::RunAbandoned { reason: "old".to_owned() })),
    ];
    for (number, (command, section, user, end)) in (1..).zip(runs) {
        let mut story = Story::new(number, started(command, section)).by(user);
        let mut log = story.write(store, 0, end).await;
        log.publish().await.unwrap();
    }
}

pub(crate) async fn every_filter_filters(factory: &dyn Factory) {
    let store = factory.open();
    eight_runs(&*store).await;
    let at = |number: i64| Timestamp::from_second(BEGINNING).unwrap() + SignedDuration::from_mins(number);
    let text = |text: &str| Some(text.to_owned());
    let none = Query::default();
    let cases: Vec<(Query, &[u32])> = vec![
        (none.clone(), &[8, 7, 6, 5, 4, 3, 2, 1]),
        (Query { section: text("shop"), ..none.clone() }, &[3, 2, 1]),
        (Query { section: text("sho"), ..none.clone() }, &[]),
        (Query { section: text(""), ..none.clone() }, &[]),
        (Query { command: text("restore"), ..none.clone() }, &[8, 7, 4, 2, 1]),
        (Query { user: text("grace"), ..none.clone() }, &[5, 2]),
        (Query { status: text("succeeded"), ..none.clone() }, &[6, 5, 3, 1]),
        (Query { status: text("stopped"), ..none.clone() }, &[4]),
        (Query { status: text("abandoned"), ..none.clone() }, &[8]),
        (Query { status: text("rolled_back"), ..none.clone() }, &[7]),
        (Query { status: text("no such word"), ..none.clone() }, &[]),
        (Query { since: Some(at(6)), ..none.clone() }, &[8, 7, 6]),
        (Query { until: Some(at(3)), ..none.clone() }, &[2, 1]),
        (Query { since: Some(at(2)), until: Some(at(4)), ..none.clone() }, &[3, 2]),
        (
            Query {
                section: text("shop"),
                status: text("succeeded"),
                command: text("restore"),
                user: text("ada"),
                since: Some(at(1)),
                until: Some(at(2)),
                limit: Some(5),
                ..none.clone()
            },
            &[1],
        ),
        (Query { section: text("shop"), status: text("succeeded"), limit: Some(1), ..none }, &[3]),
    ];
    for (query, expected) in cases {
        let expected: Vec<RunId> = expected.iter().copied().map(run_id).collect();
        assert_eq!(ids(&store.runs(&query).await.unwrap()), expected, "{query:?}");
    }
}

pub(crate) async fn runs_that_change_nothing_are_shown_on_request(factory: &dyn Factory) {
    let store = factory.open();
    let mut looking = started("check", Some("shop"));
    looking.read_only = true;
    Story::new(1, looking).write(&*store, 0, Some(Event::RunSucceeded)).await;
    Story::new(2, started("restore", Some("shop"))).write(&*store, 0, Some(Event::RunSucceeded)).await;
    assert_eq!(ids(&store.runs(&Query::default()).await.unwrap()), [run_id(2)]);
    let all = Query { read_only: true, ..Query::default() };
    assert_eq!(ids(&store.runs(&all).await.unwrap()), [run_id(2), run_id(1)]);
    let newest = Query { limit: Some(1), ..Query::default() };
    assert_eq!(ids(&store.runs(&newest).await.unwrap()), [run_id(2)]);
}

pub(crate) async fn status_follows_the_events(factory: &dyn Factory) {
    let store = factory.open();
    let mut story = Story::new(1, started("restore", Some("shop")));
    let mut log = story.write(&*store, 1, None).await;
    let rollback = Event::RollbackStarted { cause: RollbackCause::Request, reason: "asked".to_owned() };
    let steps = [
        (Event::RunSucceeded, Status::Succeeded),
        (rollback, Status::RollingBack),
        (Event::RunRolledBack, Status::RolledBack),
    ];
    for (event, expected) in steps {
        let bytes = story.tell(event);
        story.append(&mut *log, &bytes).await.unwrap();
        let runs = store.runs(&Query::default()).await.unwrap();
        let [summary] = runs.as_slice() else { panic!("{runs:?}") };
        assert_eq!(summary.status, Some(expected));
        for word in ["running", "succeeded", "rolling_back", "rolled_back"] {
            let query = Query { status: Some(word.to_owned()), ..Query::default() };
            let found = store.runs(&query).await.unwrap().len();
            assert_eq!(found, usize::from(word == expected.as_str()), "{word}, {expected}");
        }
    }
    let [summary] = &store.runs(&Query::default()).await.unwrap()[..] else { panic!() };
    let expected = Summary {
        id: story.run,
        started_at: story.at,
        status: Some(Status::RolledBack),
        command: "restore".to_owned(),
        section: Some("shop".to_owned()),
        user: "ada".to_owned(),
        read_only: false,
    };
    assert_eq!(*summary, expected);
}

pub(crate) async fn a_moving_run_without_a_process_is_interrupted(factory: &dyn Factory) {
    let store = factory.open();
    let shown = async |word: &str| {
        let query = Query { status: Some(word.to_owned()), ..Query::default() };
        ids(&store.runs(&query).await.unwrap())
    };
    let mut first = Story::new(1, started("restore", Some("shop")));
    let mut second = Story::new(2, started("restore", Some("forum")));
    let first_log = first.write(&*store, 0, None).await;
    let rollback = Event::RollbackStarted { cause: RollbackCause::Failure, reason: "failed".to_owned() };
    let second_log = second.write(&*store, 0, Some(rollback)).await;
    assert_eq!(shown("running").await, [run_id(1)]);
    assert_eq!(shown("rolling_back").await, [run_id(2)]);
    assert_eq!(shown("interrupted").await, []);
    drop(first_log);
    assert_eq!(shown("running").await, []);
    assert_eq!(shown("interrupted").await, [run_id(1)]);
    drop(second_log);
    assert_eq!(shown("interrupted").await, [run_id(2), run_id(1)]);
}

pub(crate) async fn a_run_is_found_by_any_part_of_its_id(factory: &dyn Factory) {
    let store = factory.open();
    for number in 1..=3 {
        Story::new(number, started("restore", Some("shop"))).write(&*store, 0, None).await;
    }
    let id = run_id(2);
    assert_eq!(store.find(&id.to_string()).await.unwrap(), [id]);
    assert_eq!(store.find(&id.short().to_uppercase()).await.unwrap(), [id]);
    assert_eq!(store.find("018b").await.unwrap(), [run_id(3), run_id(2), run_id(1)]);
    assert_eq!(store.find("").await.unwrap(), []);
    assert_eq!(store.find("no id").await.unwrap(), []);
}

pub(crate) async fn attachments_are_kept_by_their_hash(factory: &dyn Factory) {
    let store = factory.open();
    let large = vec![7; 3_000_000];
    for bytes in [&b"what the program said"[..], b"", &large] {
        let hash = store.attach(bytes).await.unwrap();
        assert_eq!(hash, Hash::of(bytes));
        assert_eq!(store.attach(bytes).await.unwrap(), hash);
        assert_eq!(factory.open().attachment(hash).await.unwrap(), bytes);
    }
    let nothing = Hash::of(b"never stored");
    assert!(
        matches!(store.attachment(nothing).await, Err(StoreError::NoSuchAttachment(hash)) if hash == nothing)
    );
}

pub(crate) async fn an_event_that_may_be_passed_over_is_passed_over(factory: &dyn Factory) {
    let store = factory.open();
    let mut story = Story::new(1, started("restore", Some("shop")));
    let mut log = story.write(&*store, 0, None).await;
    let newer = of_newer_type(&story.tell(Event::RunSucceeded), true);
    *story.told.last_mut().unwrap() = newer.clone();
    story.append(&mut *log, &newer).await.unwrap();
    let end = story.tell(Event::RunSucceeded);
    story.append(&mut *log, &end).await.unwrap();
    assert_eq!(store.load(story.run).await.unwrap(), story.told);
    let runs = store.runs(&Query::default()).await.unwrap();
    assert_eq!(runs[0].status, Some(Status::Succeeded));
}

pub(crate) async fn a_run_of_a_newer_version_is_listed_and_not_read(factory: &dyn Factory) {
    let store = factory.open();
    let mut story = Story::new(1, started("restore", Some("shop")));
    let mut log = story.write(&*store, 0, None).await;
    let newer = of_newer_type(&story.tell(Event::RunSucceeded), false);
    *story.told.last_mut().unwrap() = newer.clone();
    story.append(&mut *log, &newer).await.unwrap();
    drop(log);
    assert_eq!(store.load(story.run).await.unwrap(), story.told);
    let runs = store.runs(&Query::default()).await.unwrap();
    let [summary] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!((summary.id, summary.status), (story.run, None));
    assert_eq!((summary.started_at, summary.user.as_str()), (story.at, "ada"));
    let query = Query { status: Some("unreadable".to_owned()), ..Query::default() };
    assert_eq!(ids(&store.runs(&query).await.unwrap()), [story.run]);
}

pub(crate) async fn many_runs_are_all_there(factory: &dyn Factory) {
    let store = factory.open();
    for number in 1..=150 {
        let section = format!("section{}", number % 7);
        let mut story = Story::new(number, started("restore", Some(&section)));
        story.write(&*store, usize::try_from(number % 5).unwrap(), Some(Event::RunSucceeded)).await;
    }
    let all: Vec<RunId> = (1..=150).rev().map(run_id).collect();
    assert_eq!(ids(&factory.open().runs(&Query::default()).await.unwrap()), all);
    let third = Query { section: Some("section3".to_owned()), ..Query::default() };
    let expected: Vec<RunId> = (1..=150).rev().filter(|number| number % 7 == 3).map(run_id).collect();
    assert_eq!(ids(&store.runs(&third).await.unwrap()), expected);
    let mut seqs = BTreeSet::new();
    for run in all.iter().take(20) {
        for stored in store.read(*run).await.unwrap() {
            assert!(seqs.insert(stored.seq));
        }
    }
    assert_eq!(store.take_notices(), Vec::<String>::new());
}

/// Each reader has a store and a thread of its own, as another process would.
pub(crate) async fn readers_see_a_growing_run_whole(factory: &dyn Factory) {
    const PARTS: usize = 200;
    let store = factory.open();
    let mut story = Story::new(1, started("restore", Some("shop")));
    let mut log = story.write(&*store, 0, None).await;
    let done = Arc::new(AtomicBool::new(false));
    let run = story.run;
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (store, done) = (factory.open(), Arc::clone(&done));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    let mut seen: Vec<journal::store::Stored> = Vec::new();
                    loop {
                        let last = done.load(Ordering::SeqCst);
                        let now = store.read(run).await.unwrap();
                        assert!(now.starts_with(&seen), "what was seen changed");
                        seen = now;
                        if last {
                            return (seen, store.take_notices());
                        }
                        assert!(store.is_held(run).await.unwrap());
                    }
                })
            })
        })
        .collect();
    for _ in 0..PARTS {
        let part = story.part();
        story.append(&mut *log, &part).await.unwrap();
        tokio::task::yield_now().await;
    }
    log.publish().await.unwrap();
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        let (seen, notices) = reader.join().unwrap();
        assert!(seen.iter().map(|stored| &stored.bytes).eq(&story.told));
        assert_eq!(notices, Vec::<String>::new());
    }
    drop(log);
}

pub(crate) async fn several_runs_are_read_in_one_go(factory: &dyn Factory) {
    let store = factory.open();
    let mut stories: Vec<Story> =
        (1..=3).map(|number| Story::new(number, started("restore", Some("shop")))).collect();
    for (parts, story) in stories.iter_mut().enumerate() {
        // The log is gone before anything of it was published.
        story.write(&*store, parts, None).await;
    }
    let asked = [run_id(3), run_id(9), run_id(1)];
    let read = factory.open().read_all(&asked).await.unwrap();
    let [third, unknown, first] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!(*unknown, []);
    for (read, story) in [(third, &stories[2]), (first, &stories[0])] {
        assert_eq!(*read, store.read(story.run).await.unwrap());
    }
    assert_eq!(store.read_all(&[]).await.unwrap(), Vec::<Vec<_>>::new());
}

pub(crate) async fn runs_are_looked_at_with_what_there_is_of_them(factory: &dyn Factory) {
    let store = factory.open();
    let mut stories: Vec<Story> =
        (1..=3).map(|number| Story::new(number, started("restore", Some("shop")))).collect();
    let [first, second, third] = stories.as_mut_slice() else { panic!() };
    first.write(&*store, 2, Some(Event::RunSucceeded)).await;
    // Its owner went away before anything of it was published.
    second.write(&*store, 1, None).await;
    let mut log = store.claim(&third.claim()).await.unwrap();
    let begun = third.begin();
    third.append(&mut *log, &begun).await.unwrap();
    log.publish().await.unwrap();
    let part = third.part();
    third.append(&mut *log, &part).await.unwrap();

    let other = factory.open();
    let everything = other.look(&Query::default()).await.unwrap();
    let held: Vec<bool> = everything.iter().map(|(_, known)| known.held).collect();
    assert_eq!(held, [true, false, false]);
    for ((summary, known), run) in everything.iter().zip([3, 2, 1].map(run_id)) {
        assert_eq!(summary.id, run);
        assert_eq!(known.events, store.read(run).await.unwrap());
        let (id, alone) = other.look_up(&run.to_string()).await.unwrap().unwrap();
        assert_eq!((id, &alone), (run, known));
    }
    let pages = [(None, 3), (Some(run_id(3)), 2), (Some(run_id(2)), 1), (Some(run_id(1)), 0)];
    for (before, left) in pages {
        for section in [None, Some("shop".to_owned())] {
            let query = Query { before, section, ..Query::default() };
            assert_eq!(other.look(&query).await.unwrap(), everything[3 - left..], "{query:?}");
        }
    }
    let all = [3, 2, 1].map(run_id).to_vec();
    assert_eq!(other.look_up("018b").await.unwrap(), Err(all));
    assert_eq!(other.look_up("no id").await.unwrap(), Err(Vec::new()));
    drop(log);
    let (_, ended) = other.look_up(&third.run.to_string()).await.unwrap().unwrap();
    assert_eq!((ended.events.len(), ended.held), (2, false));
    assert_eq!(other.look(&Query { limit: Some(1), ..Query::default() }).await.unwrap()[0].1, ended);
}

/// All events that `query` asks for, and the pages that they came in.
async fn all_events(store: &dyn Store, query: &Query) -> (Vec<Numbered>, Vec<Page>) {
    let mut pages = vec![store.events(query, 0).await.unwrap()];
    while let Some(next) = pages.last().and_then(|page| page.next) {
        pages.push(store.events(query, next).await.unwrap());
    }
    (pages.iter().flat_map(|page| page.events.clone()).collect(), pages)
}

pub(crate) async fn all_events_come_in_pages_by_their_numbers(factory: &dyn Factory) {
    let store = factory.open();
    assert_eq!(store.events(&Query::default(), 0).await.unwrap(), Page { end: 1, ..Page::default() });
    let mut stories: Vec<Story> = (1..=3)
        .map(|number| Story::new(number, started("restore", Some(&format!("section{number}")))))
        .collect();
    let mut logs = Vec::new();
    for story in &mut stories {
        logs.push(story.write(&*store, 0, None).await);
    }
    // More than a page has, in any store: an event may have 8 KiB.
    for _ in 0..60 {
        for (story, log) in stories.iter_mut().zip(&mut logs) {
            let large = Event::StepSkipped { step: 1, reason: "x".repeat(7_000) };
            let large = story.tell(large);
            story.append(&mut **log, &large).await.unwrap();
        }
        // Now the numbers of the three are mixed.
        store.runs(&Query::default()).await.unwrap();
    }
    let (events, pages) = all_events(&*store, &Query::default()).await;
    assert!(pages.len() > 1, "a page has no end");
    assert!(events.iter().map(|event| event.seq).eq(1..=183));
    assert!(pages.iter().all(|page| page.end == 184));
    for story in &stories {
        let own: Vec<&Numbered> = events.iter().filter(|event| event.run == story.run).collect();
        assert!(own.iter().map(|event| event.n).eq(0..61));
        assert!(own.iter().map(|event| &event.bytes).eq(&story.told));
        let read = store.read(story.run).await.unwrap();
        assert!(own.iter().map(|event| event.seq).eq(read.iter().map(|stored| stored.seq)));
    }
    // From the middle on; and what comes later is found where the last page ended.
    let page = store.events(&Query::default(), 180).await.unwrap();
    assert!(page.events.iter().map(|event| event.seq).eq(180..=183));
    assert_eq!(page.next, None);
    let part = stories[1].part();
    stories[1].append(&mut *logs[1], &part).await.unwrap();
    let page = factory.open().events(&Query::default(), page.end).await.unwrap();
    assert!(page.events.iter().map(|event| (event.seq, event.run)).eq([(184, stories[1].run)]));
    assert_eq!(store.events(&Query::default(), page.end).await.unwrap().events, []);
}

pub(crate) async fn a_page_tells_how_each_run_began(factory: &dyn Factory) {
    let store = factory.open();
    eight_runs(&*store).await;
    let by_grace = Query { user: Some("grace".to_owned()), since: None, ..Query::default() };
    let page = store.events(&by_grace, 4).await.unwrap();
    let event = page.events.first().unwrap();
    assert_eq!((event.run, event.n), (run_id(2), 1));
    let first = store.read(run_id(2)).await.unwrap().first().unwrap().bytes.clone();
    assert_eq!(page.beginnings.get(&run_id(2)), Some(&first));
    let told: BTreeSet<RunId> = page.events.iter().map(|event| event.run).collect();
    assert!(page.beginnings.keys().eq(&told));
}

pub(crate) async fn events_are_filtered_by_their_run_and_by_themselves(factory: &dyn Factory) {
    let store = factory.open();
    eight_runs(&*store).await;
    let mut looking = started("check", Some("shop"));
    looking.read_only = true;
    Story::new(9, looking).write(&*store, 0, Some(Event::RunSucceeded)).await;
    // Another person goes on with the fourth run, a day later.
    let mut fourth = Story::new(4, started("restore", Some("forum")));
    fourth.told = store.load(fourth.run).await.unwrap();
    let mut fourth = fourth.by("grace");
    fourth.at += SignedDuration::from_hours(24);
    let mut log = store.claim(&fourth.claim()).await.unwrap();
    let continued = Event::RunContinued { version: "2".to_owned(), process: material::process() };
    let continued = fourth.tell(continued);
    fourth.append(&mut *log, &continued).await.unwrap();
    drop(log);

    let at = |number: i64| Timestamp::from_second(BEGINNING).unwrap() + SignedDuration::from_mins(number);
    let text = |text: &str| Some(text.to_owned());
    let none = Query::default();
    let cases: Vec<(Query, &[(u32, u64)])> = vec![
        (Query { section: text("shop"), ..none.clone() }, &[(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]),
        (Query { section: text("forum"), ..none.clone() }, &[(4, 0), (4, 1), (5, 0), (5, 1), (4, 2)]),
        (Query { command: text("purge"), ..none.clone() }, &[(6, 0), (6, 1)]),
        (Query { command: text("check"), ..none.clone() }, &[]),
        (Query { command: text("check"), read_only: true, ..none.clone() }, &[(9, 0), (9, 1)]),
        (Query { status: text("interrupted"), ..none.clone() }, &[(4, 0), (4, 1), (4, 2)]),
        (Query { user: text("grace"), section: text("forum"), ..none.clone() }, &[(5, 0), (5, 1), (4, 2)]),
        (Query { since: Some(at(60)), ..none.clone() }, &[(4, 2)]),
        (Query { until: Some(at(2)), ..none.clone() }, &[(1, 0), (1, 1)]),
        (Query { since: Some(at(5)), until: Some(at(6)), ..none }, &[(5, 0), (5, 1)]),
    ];
    for (query, expected) in cases {
        let (events, _) = all_events(&*store, &query).await;
        let found: Vec<(RunId, u64)> = events.iter().map(|event| (event.run, event.n)).collect();
        let expected: Vec<(RunId, u64)> = expected.iter().map(|(run, n)| (run_id(*run), *n)).collect();
        assert_eq!(found, expected, "{query:?}");
    }
}

pub(crate) async fn whoever_watches_sees_each_event_once_and_the_owner_go(factory: &dyn Factory) {
    let store = factory.open();
    let mut story = Story::new(1, started("restore", Some("shop")));
    let mut log = story.write(&*store, 1, None).await;
    let mut watch = factory.open().watch(story.run).await.unwrap();
    let nothing = |events: Vec<Vec<u8>>, held| Seen { events, progress: None, held };
    assert_eq!(watch.next().await.unwrap(), nothing(story.told.clone(), true));
    // Whoever waits hears of what comes.
    let writer = async {
        for _ in 0..3 {
            let part = story.part();
            story.append(&mut *log, &part).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let watcher = async {
        let mut seen = 2;
        while seen < 5 {
            let next = watch.next().await.unwrap();
            assert!(next.held);
            seen += next.events.len();
        }
        watch
    };
    let ((), mut watch) = tokio::join!(writer, watcher);
    let end = story.tell(Event::RunSucceeded);
    story.append(&mut *log, &end).await.unwrap();
    let (last, ()) = tokio::join!(watch.next(), async { tokio::task::yield_now().await });
    assert_eq!(last.unwrap(), nothing(vec![end], true));
    let (gone, ()) = tokio::join!(watch.next(), async {
        tokio::task::yield_now().await;
        drop(log);
    });
    assert_eq!(gone.unwrap(), nothing(Vec::new(), false));

    // A run that is over is seen at once, and its next owner as well.
    let mut watch = store.watch(story.run).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), nothing(story.told.clone(), false));
    let (log, next) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            store.claim(&story.claim()).await.unwrap()
        },
        watch.next()
    );
    assert_eq!(next.unwrap(), nothing(Vec::new(), true));
    drop(log);
}

pub(crate) async fn progress_is_shown_while_the_run_is_owned(factory: &dyn Factory) {
    let store = factory.open();
    let mut story = Story::new(1, started("restore", Some("shop")));
    let mut log = story.write(&*store, 1, None).await;
    assert_eq!(store.progress(story.run).await.unwrap(), None);
    let mut watch = factory.open().watch(story.run).await.unwrap();
    watch.next().await.unwrap();
    let half = Progress {
        run: story.run,
        step: "one".to_owned(),
        done: 7,
        total: Some(14),
        unit: "bytes".into(),
        detail: json!({ "left_ms": 7_000, "stalls": [] }).as_object().cloned().unwrap(),
    };
    let (seen, ()) = tokio::join!(watch.next(), async {
        tokio::task::yield_now().await;
        log.show(&half);
    });
    assert_eq!(seen.unwrap(), Seen { events: Vec::new(), progress: Some(half.clone()), held: true });
    assert_eq!(factory.open().progress(story.run).await.unwrap(), Some(half));
    drop(log);
    assert_eq!(factory.open().progress(story.run).await.unwrap(), None);
    assert_eq!(watch.next().await.unwrap(), Seen { events: Vec::new(), progress: None, held: false });
    // The next owner has not shown anything yet.
    let log = factory.open().claim(&story.claim()).await.unwrap();
    assert_eq!(factory.open().progress(story.run).await.unwrap(), None);
    drop(log);
}
