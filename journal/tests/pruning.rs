//! What a pruning takes away, what it leaves, and what the journal says of it afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod material;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use journal::event::{Event, Hash, RunId};
use journal::exchange;
use journal::query::{Query, Summary};
use journal::store::files::FileStore;
use journal::store::verified::{Flaw, Verified};
use journal::store::{Head, Store, StoreError, Upkeep as _};
use material::{Story, actor, bulky, bulky_journal, run_id, said, started};

/// So many that some are sealed and some are not.
const RUNS: u32 = 80;

fn those(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<RunId> {
    numbers.into_iter().map(run_id).collect()
}

async fn listed(store: &FileStore) -> BTreeSet<RunId> {
    let summaries: Vec<Summary> = store.runs(&Query::default()).await.unwrap();
    summaries.iter().map(|summary| summary.id).collect()
}

async fn whole(store: &FileStore, against: Option<Head>) -> Verified {
    let found = store.verify(against).await.unwrap();
    assert_eq!(found.damage, []);
    found
}

fn size(path: &Path) -> u64 {
    let entry = fs::metadata(path).unwrap();
    if entry.is_file() {
        return entry.len();
    }
    fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum()
}

fn files(folder: &Path, suffix: &str) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().ends_with(suffix)).count()
}

#[tokio::test]
async fn pruned_runs_are_gone_with_their_space_and_the_old_head_is_still_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let store = bulky_journal(folder.path(), RUNS).await;
    let before = whole(&store, None).await;
    let hot = files(&folder.path().join("runs"), ".log");
    assert!((1..60).contains(&hot), "{hot} are not sealed");
    let large = size(folder.path());

    // All but the newest ten, sealed or not, and one in the middle.
    let gone = those((1..=70).filter(|number| *number != 33));
    let stay = those((33..=33).chain(71..=RUNS));
    let pruned = store.prune(gone.clone()).await.unwrap();
    assert_eq!(pruned.runs, gone.iter().copied().collect::<Vec<_>>());
    assert_eq!(listed(&store).await, stay);
    let found = whole(&store, Some(before.head)).await;
    assert_eq!((found.runs, found.pruned, found.lost), (11, 69, 0));
    assert!(found.head.entries > before.head.entries);
    for run in &gone {
        assert!(matches!(store.load(*run).await, Err(StoreError::NoSuchRun(_))));
    }
    for number in [33, 71, RUNS] {
        assert_eq!(store.load(run_id(number)).await.unwrap(), bulky(number).told);
    }
    let (small, database) = (size(folder.path()), size(&folder.path().join("sled")));
    assert!(small < large / 3, "{large} bytes became {small}, {database} of them the database");
    assert_eq!(files(&folder.path().join("sealed"), ".runs"), 1);

    // It is no less gone when the database is made anew, and what comes then has numbers of its own.
    let rebuilt = store.rebuild().await.unwrap();
    assert_eq!(rebuilt.runs, 10, "the one in the middle is sealed");
    whole(&store, Some(found.head)).await;
    assert_eq!(listed(&store).await, stay.into_iter().chain([rebuilt.run]).collect());
    let first = store.read(rebuilt.run).await.unwrap()[0].seq;
    assert_eq!(first, u64::from(RUNS) * 39 + 1);
}

#[tokio::test]
async fn only_attachments_go_that_nobody_names_and_that_are_not_new() {
    let folder = tempfile::tempdir().unwrap();
    let store = bulky_journal(folder.path(), RUNS).await;
    // Of runs 10 and 11, 11 stays; what 20 and 21 name is stored again meanwhile.
    store.attach(&said(20)).await.unwrap();
    let pruned = store.prune(those((2..=30).filter(|number| *number != 11))).await.unwrap();
    assert_eq!(pruned.runs.len(), 28);
    let gone = [2, 4, 6, 8, 12, 14, 16, 18, 22, 24, 26, 28];
    assert_eq!(pruned.attachments, 12);
    for number in 1..=RUNS {
        let found = store.attachment(Hash::of(&said(number))).await;
        if gone.contains(&(number / 2 * 2)) {
            assert!(matches!(found, Err(StoreError::NoSuchAttachment(_))), "{number}: {found:?}");
        } else {
            assert_eq!(found.unwrap(), said(number), "{number}");
        }
    }
    whole(&store, None).await;
}

#[tokio::test]
async fn a_run_that_is_not_finished_or_at_work_or_the_newest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path().to_path_buf()).unwrap();
    let mut open = Story::new(1, started("restore", Some("shop")));
    drop(open.write(&store, 1, None).await);
    let mut held = Story::new(2, started("load", Some("crm")));
    let log = held.write(&store, 1, Some(Event::RunSucceeded)).await;
    let mut done = Story::new(3, started("drop", Some("wiki")));
    drop(done.write(&store, 1, Some(Event::RunSucceeded)).await);
    let mut newest = Story::new(4, started("drop", Some("blog")));
    drop(newest.write(&store, 1, Some(Event::RunSucceeded)).await);

    let all = those(1..=4);
    assert_eq!(store.prune(all.clone()).await.unwrap().runs, [done.run]);
    assert_eq!(listed(&store).await, those([1, 2, 4]));
    drop(log);
    assert_eq!(store.prune(all).await.unwrap().runs, [held.run]);
    // Whoever owns a run may still append to it.
    let mut log = store.claim(&open.claim()).await.unwrap();
    let bytes = open.tell(Event::RunSucceeded);
    open.append(&mut *log, &bytes).await.unwrap();
    drop(log);
    assert_eq!(store.load(open.run).await.unwrap(), open.told);
    assert_eq!(whole(&store, None).await.pruned, 2);
    assert_eq!(store.take_notices(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pruned_run_can_be_taken_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = bulky_journal(&folder.path().join("journal"), RUNS).await;
    let head = whole(&store, None).await.head;
    let mut text = Vec::new();
    exchange::export(&store, &mut text).await.unwrap();
    store.prune(those(1..=60)).await.unwrap();
    let taken = exchange::import(&store, &actor("eve"), &mut text.as_slice()).await.unwrap();
    assert_eq!(taken.new, 60 * 39);
    assert_eq!(listed(&store).await, those(1..=RUNS));
    let found = whole(&store, Some(head)).await;
    assert_eq!((found.runs, found.pruned), (u64::from(RUNS), 0));
    store.rebuild().await.unwrap();
    assert_eq!(store.load(run_id(1)).await.unwrap(), bulky(1).told);
}

#[tokio::test]
async fn a_damaged_journal_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = bulky_journal(folder.path(), RUNS).await;
    let path = folder.path().join(format!("runs/{}.log", run_id(RUNS)));
    let right = fs::read(&path).unwrap();
    fs::write(&path, &right[..1_000]).unwrap();
    let refused = store.prune(those(1..=70)).await.unwrap_err();
    let StoreError::Damaged { path: named, .. } = refused else { panic!("{refused}") };
    assert_eq!(named, path);
    fs::write(&path, &right).unwrap();
    assert_eq!(whole(&store, None).await.pruned, 0);

    // An attachment that is gone cannot be mended, and is in nobody's way.
    fs::remove_file(folder.path().join("attachments").join(Hash::of(&said(80)).to_string())).unwrap();
    assert_eq!(store.prune(those(1..=70)).await.unwrap().runs.len(), 70);
    let damage = store.verify(None).await.unwrap().damage;
    assert_eq!(damage.iter().map(|damage| damage.flaw).collect::<Vec<_>>(), [Flaw::AttachmentMissing]);
}
