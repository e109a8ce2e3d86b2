//! The upkeep of a journal on files: each kind of damage is found and named, the head is that of everything, and a
//! whole journal goes out as text and comes in again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

mod material;

use std::fs;
use std::path::{Path, PathBuf};

use journal::event::{Event, Hash, RunId};
use journal::exchange::{self, ExchangeError};
use journal::query::Query;
use journal::store::files::FileStore;
use journal::store::memory::MemoryStore;
use journal::store::verified::{Flaw, Verified};
use journal::store::{Store, StoreError, Upkeep as _};
use material::{Story, actor, detail, run_id, started};

/// A journal with three runs of five events, the second of which names an attachment.
async fn prepared(folder: &Path) -> (FileStore, Vec<Story>) {
    let store = FileStore::open(folder.join("journal")).unwrap();
    let mut stories = Vec::new();
    for number in 1..=3 {
        let mut story = Story::new(number, started("restore", Some(&format!("section{number}"))));
        let mut log = story.write(&store, 2, None).await;
        let named = if number == 2 { store.attach(b"what was said").await.unwrap() } else { Hash::of(b"") };
        let part =
            Event::PartDone { step: 0, part: "x".to_owned(), detail: detail("output", named.to_string()) };
        let bytes = story.tell(part);
        story.append(&mut *log, &bytes).await.unwrap();
        let bytes = story.tell(Event::RunSucceeded);
        story.append(&mut *log, &bytes).await.unwrap();
        log.publish().await.unwrap();
        stories.push(story);
    }
    (store, stories)
}

fn run_file(store: &FileStore, run: RunId) -> PathBuf {
    store.path().join(format!("runs/{run}.log"))
}

fn framed(events: &[Vec<u8>]) -> Vec<u8> {
    let frame = |event: &Vec<u8>| {
        let length = u32::try_from(event.len()).unwrap().to_be_bytes();
        [length.as_slice(), &crc32c::crc32c(event).to_be_bytes(), event].concat()
    };
    events.iter().flat_map(frame).collect()
}

/// The kinds of damage, each with its run and what is said of it.
fn told(found: &Verified) -> Vec<(Flaw, Option<RunId>, String)> {
    found.damage.iter().map(|damage| (damage.flaw, damage.run, damage.what.clone())).collect()
}

#[tokio::test]
async fn a_whole_journal_is_found_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = prepared(folder.path()).await;
    let found = store.verify(None).await.unwrap();
    assert_eq!(told(&found), []);
    assert_eq!((found.runs, found.events, found.attachments), (3, 15, 1));
    assert_eq!((found.pruned, found.lost), (0, 0));
    assert_eq!(store.verify(Some(found.head)).await.unwrap(), found);
    assert_eq!(store.take_notices(), Vec::<String>::new());
}

#[tokio::test]
async fn each_kind_of_damage_of_a_run_is_named() {
    type Change = fn(&[Vec<u8>]) -> Vec<u8>;
    let changes: [(&str, Change, Flaw, &str); 8] = [
        (
            "a changed byte",
            |events| {
                let mut bytes = framed(events);
                bytes[100] ^= 1;
                bytes
            },
            Flaw::Changed,
            "at byte 0: a damaged event",
        ),
        (
            "a changed byte of the last event",
            |events| {
                let mut bytes = framed(events);
                let last = bytes.len() - 10;
                bytes[last] ^= 1;
                bytes
            },
            Flaw::Changed,
            "the bytes of event 4",
        ),
        (
            "an event forged with its checksums",
            |events| {
                let mut events = events.to_vec();
                events[2] = material::of_newer_type(&events[2], true);
                framed(&events)
            },
            Flaw::Changed,
            "event 2 is not the one that event 3 names",
        ),
        (
            "the last event forged with its checksums",
            |events| {
                let mut events = events.to_vec();
                events[4] = material::of_newer_type(&events[4], true);
                framed(&events)
            },
            Flaw::Changed,
            "event 4 is not the one that was recorded",
        ),
        (
            "a removed event",
            |events| framed(&[&events[..2], &events[3..]].concat()),
            Flaw::Removed,
            "event 2 is not there, 3 is",
        ),
        (
            "a reordered pair",
            |events| {
                let mut events = events.to_vec();
                events.swap(1, 2);
                framed(&events)
            },
            Flaw::Reordered,
            "event 2 comes before event 1",
        ),
        ("a cut end", |events| framed(&events[..3]), Flaw::Truncated, "it has 3 of its 5 events"),
        (
            "an end cut within an event",
            |events| {
                let mut bytes = framed(events);
                bytes.truncate(bytes.len() - 7);
                bytes
            },
            Flaw::Truncated,
            "it has 4 of its 5 events",
        ),
    ];
    for (name, change, flaw, what) in changes {
        let folder = tempfile::tempdir().unwrap();
        let (store, stories) = prepared(folder.path()).await;
        let path = run_file(&store, stories[0].run);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, change(&stories[0].told)).unwrap();
        let found = store.verify(None).await.unwrap();
        let damage = &found.damage[0];
        assert_eq!((damage.flaw, damage.run), (flaw, Some(stories[0].run)), "{name}: {found:?}");
        assert!(damage.what.contains(what), "{name}: {}", damage.what);
        assert_eq!(damage.path, path);
        assert!(found.damage.iter().all(|damage| damage.run == Some(stories[0].run)), "{name}: {found:?}");
        // A look changes nothing.
        assert_eq!(fs::read(&path).unwrap(), change(&stories[0].told), "{name}");
        fs::write(&path, whole).unwrap();
        assert_eq!(told(&store.verify(None).await.unwrap()), [], "{name}");
    }
}

#[tokio::test]
async fn damage_on_both_sides_is_found_by_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stories) = prepared(folder.path()).await;
    let before = store.verify(None).await.unwrap().head;
    let text = exported(&store).await;
    // Somebody who knows the journal takes a run out of it, and the end of another, and has the database made of that.
    fs::remove_file(run_file(&store, stories[0].run)).unwrap();
    fs::write(run_file(&store, stories[1].run), framed(&stories[1].told[..3])).unwrap();
    fs::remove_dir_all(store.path().join("sled")).unwrap();
    let found = store.verify(None).await.unwrap();
    let flaws: Vec<_> = told(&found).into_iter().map(|(flaw, run, _)| (flaw, run)).collect();
    assert_eq!(
        flaws,
        [
            (Flaw::Differ, None),
            (Flaw::RunRemoved, Some(stories[0].run)),
            (Flaw::Truncated, Some(stories[1].run))
        ],
        "{found:?}"
    );
    // A rebuild makes the best of it, says what is lost, and the journal goes on from its old head.
    store.rebuild().await.unwrap();
    let found = store.verify(Some(before)).await.unwrap();
    assert_eq!(told(&found), []);
    assert_eq!(found.lost, 2);
    assert_eq!(store.load(stories[1].run).await.unwrap(), stories[1].told[..3]);
    // An export brings it back.
    assert_eq!(imported(&store, &text).await.unwrap().new, 7);
    let found = store.verify(Some(before)).await.unwrap();
    assert_eq!((told(&found), found.lost), (vec![], 0));
    assert_eq!(store.load(stories[1].run).await.unwrap(), stories[1].told);
}

#[tokio::test]
async fn a_run_that_only_the_run_file_lost_is_named_and_comes_back_with_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stories) = prepared(folder.path()).await;
    fs::remove_file(run_file(&store, stories[2].run)).unwrap();
    let found = store.verify(None).await.unwrap();
    assert_eq!((found.damage[0].flaw, found.damage[0].run), (Flaw::RunRemoved, Some(stories[2].run)));
    store.rebuild().await.unwrap();
    assert_eq!(told(&store.verify(Some(found.head)).await.unwrap()), []);
    assert_eq!(store.load(stories[2].run).await.unwrap(), stories[2].told);
}

#[tokio::test]
async fn attachments_that_changed_or_are_gone_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stories) = prepared(folder.path()).await;
    let path = store.path().join("attachments").join(Hash::of(b"what was said").to_string());
    fs::write(&path, b"what was sad").unwrap();
    let found = store.verify(None).await.unwrap();
    assert_eq!((found.damage[0].flaw, &found.damage[0].path), (Flaw::AttachmentChanged, &path));
    fs::remove_file(&path).unwrap();
    let found = store.verify(None).await.unwrap();
    let damage = &found.damage[0];
    assert_eq!((damage.flaw, damage.run), (Flaw::AttachmentMissing, Some(stories[1].run)), "{found:?}");
    assert_eq!(found.damage.len(), 1);
}

#[tokio::test]
async fn a_head_is_that_of_everything_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = prepared(folder.path()).await;
    let old = store.verify(None).await.unwrap().head;
    let mut later = Story::new(9, started("restore", Some("shop")));
    drop(later.write(&store, 1, None).await);
    let found = store.verify(Some(old)).await.unwrap();
    assert_eq!(told(&found), []);
    assert!(found.head.entries > old.entries);
    store.rebuild().await.unwrap();
    assert_eq!(told(&store.verify(Some(old)).await.unwrap()), []);
    assert_eq!(told(&store.verify(Some(found.head)).await.unwrap()), []);
    // Text and back.
    assert_eq!(old.to_string().parse::<journal::store::Head>().unwrap(), old);

    let other = tempfile::tempdir().unwrap();
    let (other, _) = prepared(other.path()).await;
    let mut one_more = Story::new(10, started("restore", Some("crm")));
    drop(one_more.write(&other, 1, None).await);
    let strange = other.verify(Some(found.head)).await.unwrap();
    assert_eq!(strange.damage[0].flaw, Flaw::NotContinued, "{strange:?}");
}

#[tokio::test]
async fn a_damaged_ledger_is_named_and_made_anew_by_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stories) = prepared(folder.path()).await;
    let path = store.path().join("ledger");
    let whole = fs::read(&path).unwrap();
    let size = whole.len() / usize::try_from(store.verify(None).await.unwrap().head.entries).unwrap();
    let mut changed = whole.clone();
    changed[size + 60] ^= 1;
    let reordered = [&whole[size..2 * size], &whole[..size], &whole[2 * size..]].concat();
    let cut = whole[..whole.len() - size].to_vec();
    let middle_out = [&whole[..size], &whole[2 * size..]].concat();
    for damaged in [changed, reordered, cut, middle_out] {
        fs::write(&path, &damaged).unwrap();
        let found = store.verify(None).await.unwrap();
        assert!(found.damage.iter().any(|damage| damage.flaw == Flaw::Ledger), "{found:?}");
        store.rebuild().await.unwrap();
        assert_eq!(told(&store.verify(None).await.unwrap()), []);
        for story in &stories {
            assert_eq!(store.load(story.run).await.unwrap(), story.told);
        }
    }
}

#[tokio::test]
async fn numbers_in_the_store_outlast_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stories) = prepared(folder.path()).await;
    let mut before = Vec::new();
    for story in &stories {
        before.push(store.read(story.run).await.unwrap());
    }
    store.rebuild().await.unwrap();
    fs::remove_dir_all(store.path().join("sled")).unwrap();
    for (story, before) in stories.iter().zip(before) {
        assert_eq!(store.read(story.run).await.unwrap(), before);
    }
}

#[tokio::test]
async fn no_number_in_the_store_is_used_twice_when_the_newest_run_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stories) = prepared(folder.path()).await;
    fs::remove_file(run_file(&store, stories[2].run)).unwrap();
    fs::remove_dir_all(store.path().join("sled")).unwrap();
    let rebuilt = store.rebuild().await.unwrap();
    let seqs = store.read(rebuilt.run).await.unwrap().iter().map(|event| event.seq).collect::<Vec<_>>();
    assert_eq!(seqs, [16, 17, 18], "those of the lost run were 11 to 15");
    assert_eq!(told(&store.verify(None).await.unwrap()), []);
}

// ---- out and in ----

async fn exported(store: &dyn Store) -> String {
    let mut out = Vec::new();
    exchange::export(store, &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

async fn imported(store: &dyn Store, text: &str) -> Result<exchange::Taken, ExchangeError> {
    exchange::import(store, &actor("eve"), &mut text.as_bytes()).await
}

#[tokio::test]
async fn what_goes_out_comes_in_once_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stories) = prepared(folder.path()).await;
    let text = exported(&store).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let files = FileStore::open(elsewhere.path().join("journal")).unwrap();
    let mut own = Story::new(20, started("restore", Some("own")));
    drop(own.write(&files, 1, None).await);
    let memory = MemoryStore::default();
    let stores: [&dyn Store; 2] = [&files, &memory];
    for other in stores {
        let taken = imported(other, &text).await.unwrap();
        assert_eq!((taken.read.runs, taken.read.events, taken.read.attachments), (3, 15, 1));
        assert_eq!(taken.new, 15);
        assert_eq!(imported(other, &text).await.unwrap().new, 0, "it is taken in once");
        for story in &stories {
            assert_eq!(other.load(story.run).await.unwrap(), story.told);
        }
        assert_eq!(other.attachment(Hash::of(b"what was said")).await.unwrap(), b"what was said");
    }
    assert_eq!(exported(&memory).await, text);
    assert_eq!(files.load(own.run).await.unwrap(), own.told);
    assert_eq!(told(&files.verify(None).await.unwrap()), []);
    assert_eq!(files.runs(&Query::default()).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_run_that_went_on_since_is_taken_in_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path().join("journal")).unwrap();
    let mut story = Story::new(1, started("restore", Some("shop")));
    drop(story.write(&store, 1, None).await);
    let early = exported(&store).await;
    let other = FileStore::open(folder.path().join("other")).unwrap();
    assert_eq!(imported(&other, &early).await.unwrap().new, 2);
    let mut log = store.claim(&story.claim()).await.unwrap();
    let bytes = story.tell(Event::RunSucceeded);
    story.append(&mut *log, &bytes).await.unwrap();
    drop(log);
    assert_eq!(imported(&other, &exported(&store).await).await.unwrap().new, 1);
    assert_eq!(other.load(story.run).await.unwrap(), story.told);
    assert_eq!(imported(&other, &early).await.unwrap().new, 0, "an older export takes nothing away");
}

#[tokio::test]
async fn what_is_not_whole_or_contradicts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stories) = prepared(folder.path()).await;
    let text = exported(&store).await;
    let lines: Vec<&str> = text.lines().collect();
    let of_run = |run: RunId| lines.iter().position(|line| line.contains(&run.to_string())).unwrap();
    let first = of_run(stories[0].run);
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().join("\n");
    let mut swapped = lines.clone();
    swapped.swap(first + 1, first + 2);
    let bad = [
        (without(first + 1), "removed event"),
        (without(first + 4), "should be there"),
        (swapped.join("\n"), "reordered events"),
        (lines[..lines.len() - 1].join("\n"), "ends before its end"),
        (lines[1..].join("\n"), "does not begin as an export does"),
        (text.replacen("\"event\":\"", "\"event\":\"!", 1), "line 2"),
        (
            text.replace(&Hash::of(b"what was said").to_string(), &Hash::of(b"else").to_string()),
            "is not the one",
        ),
        (format!("{text}{}", lines[0]), "after the end"),
    ];
    for (text, why) in bad {
        let refused = imported(&MemoryStore::default(), &text).await.unwrap_err();
        assert!(refused.to_string().contains(why), "{why}: {refused}");
    }
    // The same id, and another story.
    let other = MemoryStore::default();
    let mut contradiction = Story::new(1, started("load", Some("section1")));
    drop(contradiction.write(&other, 0, None).await);
    let refused = imported(&other, &text).await.unwrap_err();
    assert!(
        matches!(refused, ExchangeError::Store(StoreError::Contradicted { run, n: 0 }) if run == run_id(1)),
        "{refused}"
    );
    assert_eq!(other.load(run_id(1)).await.unwrap(), contradiction.told);
}
