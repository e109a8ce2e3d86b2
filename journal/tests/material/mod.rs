//! Runs and their events to test with.

#![allow(dead_code, reason = "each test binary uses its part of it")]

pub(crate) mod world;

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp};
use journal::codec;
use journal::event::{
    Actor, Detail, Effect, Envelope, Event, Hash, OnFailure, PlannedStep, Process, RunId, RunStarted,
};
use journal::store::files::FileStore;
use journal::store::{Adopted, Claim, Log, Store, StoreError};
use uuid::Uuid;

/// Whether to try everything.
pub(crate) fn all() -> bool {
    env::var_os("PG_STAGING_TEST_ALL").is_some()
}

/// `all` of something, or `few` of it, spread evenly.
pub(crate) fn sample<T>(items: Vec<T>, few: usize) -> Vec<T> {
    if all() { items } else { spread(items, few) }
}

/// `few` of them, spread evenly.
pub(crate) fn spread<T>(items: Vec<T>, few: usize) -> Vec<T> {
    if items.len() <= few {
        return items;
    }
    let step = items.len() / few;
    items.into_iter().step_by(step.max(1)).collect()
}

/// A generator of numbers that are the same each time (Knuth's MMIX).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// The moment at which the first run of a test begins.
pub(crate) const BEGINNING: i64 = 1_700_000_000;

/// Run number `number` of a test: ids order by their number.
pub(crate) fn run_id(number: u32) -> RunId {
    let millis = (u128::try_from(BEGINNING).unwrap() + u128::from(number)) * 1_000;
    let bits = (millis << 80) | (0x7 << 76) | (0x2 << 62) | u128::from(number.wrapping_mul(2_654_435_761));
    RunId(Uuid::from_u128(bits))
}

pub(crate) fn actor(user: &str) -> Actor {
    Actor { user: user.to_owned(), host: "here".to_owned(), pid: 4242 }
}

pub(crate) fn process() -> Process {
    Process { pid: 4711, start_time: 815, boot_id: "0b0e2a4c-8c3e-4a43-9a6e-0d8a2ac30b4e".to_owned() }
}

pub(crate) fn detail(key: &str, value: impl Into<serde_json::Value>) -> Detail {
    Detail::from_iter([(key.to_owned(), value.into())])
}

pub(crate) fn planned(name: &str, effect: Effect) -> PlannedStep {
    PlannedStep {
        name: name.to_owned(),
        kind: format!("make-{name}"),
        version: 1,
        parameters: detail("size", 7),
        effect,
        rests_on: Vec::new(),
        redo_with: Vec::new(),
    }
}

pub(crate) fn started(command: &str, section: Option<&str>) -> RunStarted {
    RunStarted {
        version: "1.2.3".to_owned(),
        command: command.to_owned(),
        arguments: section.iter().map(|section| (*section).to_owned()).collect(),
        section: section.map(str::to_owned),
        database: None,
        target: section.map(|section| format!("localhost:6432/{section}")),
        read_only: false,
        on_failure: OnFailure::Rollback,
        retry_limit_ms: 60_000,
        settings: detail("port", 6432),
        plan: vec![planned("one", Effect::Undoable), planned("two", Effect::None)],
        process: process(),
    }
}

/// A run that grows event by event.
pub(crate) struct Story {
    pub(crate) run: RunId,
    pub(crate) started: RunStarted,
    pub(crate) user: String,
    pub(crate) at: Timestamp,
    pub(crate) told: Vec<Vec<u8>>,
}

impl Story {
    /// Run `number` of a test, which began that many minutes after the [`BEGINNING`].
    pub(crate) fn new(number: u32, started: RunStarted) -> Story {
        let minutes = SignedDuration::from_mins(i64::from(number));
        Story {
            run: run_id(number),
            started,
            user: "ada".to_owned(),
            at: Timestamp::from_second(BEGINNING).unwrap() + minutes,
            told: Vec::new(),
        }
    }

    pub(crate) fn by(mut self, user: &str) -> Story {
        self.user = user.to_owned();
        self
    }

    pub(crate) fn claim(&self) -> Claim {
        Claim {
            run: self.run.to_string(),
            target: self.started.target.clone(),
            actor: actor(&self.user),
            since: self.at,
            command: self.started.command.clone(),
        }
    }

    /// The next event, encoded, which must be appended.
    pub(crate) fn tell(&mut self, event: Event) -> Vec<u8> {
        let n = u64::try_from(self.told.len()).unwrap();
        let envelope = Envelope {
            run: self.run,
            n,
            id: Uuid::from_u128(self.run.0.as_u128() ^ u128::from(n + 1)),
            at: self.at + SignedDuration::from_millis(i64::try_from(n).unwrap()),
            epoch: 1,
            actor: actor(&self.user),
            prev: self.told.last().map_or(Hash::ZERO, |bytes| Hash::of(bytes)),
            event,
        };
        let bytes = codec::encode(&envelope).unwrap();
        self.told.push(bytes.clone());
        bytes
    }

    /// The first event.
    pub(crate) fn begin(&mut self) -> Vec<u8> {
        let started = Box::new(self.started.clone());
        self.tell(Event::RunStarted(started))
    }

    /// One event of no consequence.
    pub(crate) fn part(&mut self) -> Vec<u8> {
        let part = format!("part {}", self.told.len());
        let detail = detail("rows", 12_345);
        self.tell(Event::PartDone { step: 0, part, detail })
    }

    /// Appends one encoded event that was just told.
    pub(crate) async fn append(&self, log: &mut dyn Log, bytes: &[u8]) -> Result<(), StoreError> {
        let n = u64::try_from(self.told.len()).unwrap() - 1;
        log.append(n, bytes).await
    }

    /// Writes the whole run into `store`: it begins, has `parts`, and comes to `end`.
    pub(crate) async fn write(
        &mut self,
        store: &dyn Store,
        parts: usize,
        end: Option<Event>,
    ) -> Box<dyn Log> {
        let mut log = store.claim(&self.claim()).await.unwrap();
        let first = self.begin();
        self.append(&mut *log, &first).await.unwrap();
        for _ in 0..parts {
            let part = self.part();
            self.append(&mut *log, &part).await.unwrap();
        }
        if let Some(end) = end {
            let end = self.tell(end);
            self.append(&mut *log, &end).await.unwrap();
        }
        log
    }
}

/// A finished run of a quarter of a megabyte, which names the attachment [`said`] of its number: few of them are sealed.
pub(crate) fn bulky(number: u32) -> Story {
    let mut story = Story::new(number, started("restore", Some(&format!("section{}", number % 3))));
    story.begin();
    for part in 0..36 {
        let text = format!("{number} {part} ").repeat(2_000);
        let detail = detail("output", &text[..7_000]);
        story.tell(Event::PartDone { step: 0, part: format!("part {part}"), detail });
    }
    let hash = Hash::of(&said(number)).to_string();
    story.tell(Event::PartDone { step: 0, part: "attached".to_owned(), detail: detail("output", hash) });
    story.tell(Event::RunSucceeded);
    story
}

/// What a [`bulky`] run names; two of them have the same.
pub(crate) fn said(number: u32) -> Vec<u8> {
    format!("said by {}", number / 2).into_bytes()
}

/// A journal of as many bulky runs, the oldest of which are sealed, and whose attachments were stored long ago.
pub(crate) async fn bulky_journal(folder: &Path, runs: u32) -> FileStore {
    let store = FileStore::open(folder.to_path_buf()).unwrap();
    for number in 1..=runs {
        store.attach(&said(number)).await.unwrap();
    }
    for number in 1..=runs {
        let story = bulky(number);
        let claim = Claim { target: None, ..story.claim() };
        store.adopt(vec![Adopted { claim, run: story.run, events: story.told }]).await.unwrap();
    }
    let long_ago = UNIX_EPOCH + Duration::from_secs(BEGINNING.unsigned_abs());
    for entry in fs::read_dir(folder.join("attachments")).unwrap() {
        let file = File::options().write(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    store
}

/// Gives the encoded event `bytes` another type, as a newer version would have written it.
pub(crate) fn of_newer_type(bytes: &[u8], skippable: bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[6..8].copy_from_slice(&u16::from(skippable).to_be_bytes());
    bytes[8..10].copy_from_slice(&9_999_u16.to_be_bytes());
    let checked = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..checked]);
    bytes[checked..].copy_from_slice(&crc.to_be_bytes());
    bytes
}
