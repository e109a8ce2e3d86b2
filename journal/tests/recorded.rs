//! A journal that an earlier version recorded is understood for ever, however much of it there is.
//!
//! `recorded/<version>/` is the journal's folder as that version left it (the locks aside): runs of every outcome, of
//! the simulated world, with every kind of event there is. `recorded/<version>.txt` says how that version understood
//! it, event by event. This version's is recorded, when it is missing, by `PG_STAGING_RECORD_JOURNAL=1 cargo test -p
//! journal --test recorded`; one that is there is never touched. To record it anew before a release, remove it first.
//!
//! Every prefix of every run goes on in a store in memory, and one in four in a store on files; one end in eight or so is
//! torn. `PG_STAGING_TEST_ALL=1` does all of it on files.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

mod material;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use journal::codec::payload::REGISTRY;
use journal::engine::{self, Engine, EngineError};
use journal::event::{Detail, Envelope, Event, Hash, OnFailure, PlannedStep, RunId, RunStarted, Verdict};
use journal::query::{Query, Shown};
use journal::run::{Run, Status, StepStatus};
use journal::step::Stop;
use journal::store::files::FileStore;
use journal::store::memory::MemoryStore;
use journal::store::{Claim, Store, StoreError, Upkeep as _};
use material::world::{self, Amount, Fuse, Kinds, Nobody, SimulatedClock, World, step, who};
use material::{all, sample};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

/// This version, as its folder is named.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

type Things = BTreeMap<String, Amount>;

/// What a run works with.
struct Site {
    store: Arc<dyn Store>,
    clock: Arc<SimulatedClock>,
    world: Arc<Mutex<World>>,
}

impl Site {
    /// With these things in its world, long after anything was recorded.
    fn new(store: impl Store + 'static, things: Things) -> Site {
        let world = World { things, ..World::default() };
        let clock = Arc::new(SimulatedClock::later(1_000_000_000));
        Site { store: Arc::new(store), clock, world: Arc::new(Mutex::new(world)) }
    }

    fn engine(&self, stop: Stop) -> Engine {
        let (actor, process) = who();
        Engine {
            store: Arc::clone(&self.store),
            kinds: Arc::new(Kinds { world: Arc::clone(&self.world), fuse: Fuse::burning(i64::MAX / 2) }),
            clock: self.clock.clone(),
            listener: Arc::new(Nobody),
            stop: watch::channel(stop).1,
            actor,
            process,
            version: VERSION.to_owned(),
        }
    }

    async fn events(&self, id: RunId) -> Vec<Envelope> {
        engine::decode_all(&self.store.load(id).await.unwrap()).unwrap()
    }

    async fn run(&self, id: RunId) -> Run {
        Run::fold(&self.events(id).await).unwrap()
    }
}

// ---- recording ----

fn plan(trouble: serde_json::Value, end: serde_json::Value) -> Vec<PlannedStep> {
    vec![
        step("preflight", "look", json!({})),
        step("copy", "make", json!({})),
        step("roles", "idle", json!({})),
        PlannedStep { redo_with: vec![1], ..step("load", "program", trouble) },
        PlannedStep { rests_on: vec![1], ..step("switch", "make", end) },
    ]
}

fn started(command: &str, section: &str, on_failure: OnFailure, plan: Vec<PlannedStep>) -> RunStarted {
    RunStarted {
        version: VERSION.to_owned(),
        command: command.to_owned(),
        arguments: vec![section.to_owned()],
        section: Some(section.to_owned()),
        database: None,
        target: Some(format!("localhost:6432/{section}")),
        read_only: plan.is_empty(),
        on_failure,
        retry_limit_ms: 60_000,
        settings: Detail::from_iter([("port".to_owned(), 6432.into())]),
        plan,
        process: who().1,
    }
}

/// A journal that is being recorded.
struct Recording {
    store: FileStore,
    clock: Arc<SimulatedClock>,
}

impl Recording {
    /// A world of its own, with these things in it.
    fn site(&self, things: &[&str]) -> Site {
        let things = things.iter().map(|thing| ((*thing).to_owned(), Amount::Whole)).collect();
        let site = Site { clock: Arc::clone(&self.clock), ..Site::new(self.store.clone(), things) };
        site.world.lock().unwrap().hanging = Some(Arc::default());
        site
    }

    async fn start(&self, site: &Site, section: &str, on_failure: OnFailure, plan: Vec<PlannedStep>) -> Run {
        site.engine(Stop::No).start(started("restore", section, on_failure, plan)).await.unwrap()
    }

    /// One whose process dies where a step hangs.
    async fn start_and_die(&self, site: &Site, section: &str, plan: Vec<PlannedStep>) -> RunId {
        let started = started("restore", section, OnFailure::Rollback, plan);
        dies(site, async |engine| engine.start(started).await).await;
        self.store.runs(&Query::default()).await.unwrap()[0].id
    }

    /// As the store itself tells that the database was made anew.
    async fn tell_of_a_rebuild(&self) {
        let facts = [
            Event::RunStarted(Box::new(RunStarted {
                section: None,
                target: None,
                ..started("journal", "rebuild", OnFailure::Rollback, Vec::new())
            })),
            Event::JournalRebuilt {
                set_aside: "/var/lib/pg_staging/sled.damaged.20261121T101112Z".to_owned(),
                reason: "it panicked".to_owned(),
                runs: 12,
                events: 345,
            },
            Event::RunSucceeded,
        ];
        let run = RunId(journal::clock::Clock::mint(&*self.clock));
        let mut log = self.store.claim(&claim(run)).await.unwrap();
        let mut prev = Hash::ZERO;
        for (n, event) in (0..).zip(facts) {
            let clock: &dyn journal::clock::Clock = &*self.clock;
            let (id, at, actor) = (clock.mint(), clock.now(), who().0);
            let envelope = Envelope { run, n, id, at, epoch: 1, actor, prev, event };
            let bytes = journal::codec::encode(&envelope).unwrap();
            prev = Hash::of(&bytes);
            log.append(n, &bytes).await.unwrap();
        }
        log.publish().await.unwrap();
    }
}

/// A process that dies where a step hangs.
async fn dies(site: &Site, work: impl AsyncFnOnce(&Engine) -> Result<Run, EngineError>) {
    let engine = site.engine(Stop::No);
    let hanging = site.world.lock().unwrap().hanging.clone().unwrap();
    tokio::select! {
        ended = work(&engine) => panic!("{ended:?}"),
        () = hanging.notified() => {}
    }
}

fn claim(run: RunId) -> Claim {
    let (actor, since) = (who().0, jiff::Timestamp::UNIX_EPOCH);
    Claim { run: run.to_string(), target: None, actor, since, command: "restore".to_owned() }
}

/// Runs of every outcome.
async fn record(folder: &Path) {
    let (keep, undo) = (OnFailure::Keep, OnFailure::Rollback);
    let well = || plan(json!({}), json!({}));
    let recording =
        Recording { store: FileStore::open(folder.to_path_buf()).unwrap(), clock: Arc::default() };
    let it = &recording;

    let site = it.site(&[]);
    it.start(&site, "all goes well", undo, well()).await;
    let site = it.site(&[]);
    let run = it.start(&site, "undone on request", undo, well()).await;
    site.engine(Stop::No).roll_back(run.id, "asked", true).await.unwrap();
    let site = it.site(&[]);
    it.start(&site, "fails twice", undo, plan(json!({"trouble": "passing", "times": 2}), json!({}))).await;
    let site = it.site(&[]);
    it.start(&site, "fails for good", undo, plan(json!({}), json!({"trouble": "lasting"}))).await;
    let site = it.site(&[]);
    it.start(&site, "fails and is kept", keep, plan(json!({"trouble": "lasting"}), json!({}))).await;
    let site = it.site(&[]);
    it.start(&site, "only looks", undo, Vec::new()).await;

    let site = it.site(&[]);
    let run = site
        .engine(Stop::Soon(15))
        .start(started("restore", "stopped, then continued", undo, well()))
        .await
        .unwrap();
    site.engine(Stop::No).carry_on(run.id).await.unwrap();

    let file = || {
        vec![
            step("preflight", "look", json!({})),
            step("file", "make", json!({})),
            step("load", "from_file", json!({"trouble": "hanging"})),
        ]
    };
    let site = it.site(&[]);
    let id = it.start_and_die(&site, "interrupted, then its file is gone", file()).await;
    site.world.lock().unwrap().things.clear();
    dies(&site, async |engine| engine.carry_on(id).await).await;
    let site = it.site(&[]);
    it.start_and_die(&site, "interrupted", plan(json!({"trouble": "hanging"}), json!({}))).await;
    let site = it.site(&[]);
    let back = vec![
        step("copy", "make", json!({"trouble": "hanging back"})),
        step("switch", "make", json!({"trouble": "lasting"})),
    ];
    it.start_and_die(&site, "interrupted on its way back", back).await;

    let stubborn = || {
        vec![
            step("copy", "make", json!({})),
            step("entry", "make", json!({"trouble": "stubborn"})),
            step("switch", "make", json!({"trouble": "lasting"})),
        ]
    };
    let site = it.site(&[]);
    it.start(&site, "stuck", undo, stubborn()).await;
    let site = it.site(&[]);
    let run = it.start(&site, "stuck, then resolved", undo, stubborn()).await;
    site.world.lock().unwrap().things.remove("entry");
    site.engine(Stop::No).resolve(run.id, "entry", Verdict::Undone, "taken away by hand").await.unwrap();
    site.engine(Stop::No).roll_back(run.id, "asked", false).await.unwrap();
    let site = it.site(&[]);
    let run = it.start(&site, "stuck, then abandoned", undo, stubborn()).await;
    site.engine(Stop::No).abandon(run.id, "the server is gone").await.unwrap();

    let site = it.site(&[]);
    let secret =
        vec![step("copy", "make", json!({})), step("secret", "blind", json!({"trouble": "hanging"}))];
    let id = it.start_and_die(&site, "nobody can tell", secret).await;
    assert_eq!(site.engine(Stop::No).carry_on(id).await.unwrap().status, Status::Stuck);
    let site = it.site(&["old"]);
    let gone = vec![
        step("entry", "make", json!({})),
        step("old", "destroy", json!({})),
        step("end", "make", json!({"trouble": "lasting"})),
    ];
    it.start(&site, "cannot be taken back", undo, gone).await;
    it.tell_of_a_rebuild().await;
    assert_eq!(it.store.take_notices(), Vec::<String>::new());
}

/// How the events of a run are understood, one by one.
fn story(id: RunId, events: &[Envelope]) -> String {
    let mut text = String::new();
    for count in 1..=events.len() {
        let last = &events[count - 1];
        let run = Run::fold(&events[..count]).unwrap();
        let steps: Vec<&str> = run.steps.iter().map(|step| step.status.as_str()).collect();
        let step = last.event.step().map(|step| format!(" {step}")).unwrap_or_default();
        let (n, kind) = (last.n, last.event.kind());
        writeln!(text, "{id} {n:2} {kind}{step}: {} [{}]", run.status, steps.join(" ")).unwrap();
    }
    text
}

// ---- what was recorded ----

/// A journal in the repository.
struct Recorded {
    version: String,
    folder: PathBuf,
    told: String,
}

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

/// Records this version's, when that is asked for and there is none.
fn recorded() -> Vec<Recorded> {
    static ONCE: Mutex<()> = Mutex::new(());
    let _once = ONCE.lock().unwrap();
    if std::env::var_os("PG_STAGING_RECORD_JOURNAL").is_some() && !place().join(VERSION).exists() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("journal");
        run(record(&folder));
        let told = run(tell(&FileStore::open(folder.clone()).unwrap()));
        fs::create_dir_all(place()).unwrap();
        copy(&folder, &place().join(VERSION));
        fs::write(place().join(format!("{VERSION}.txt")), told).unwrap();
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(place()).unwrap() {
        let folder = entry.unwrap().path();
        if folder.is_dir() {
            let version = folder.file_name().unwrap().to_str().unwrap().to_owned();
            let told = fs::read_to_string(place().join(format!("{version}.txt"))).unwrap();
            all.push(Recorded { version, folder, told });
        }
    }
    assert!(
        all.iter().any(|recorded| recorded.version == VERSION),
        "there is no journal of version {VERSION}: PG_STAGING_RECORD_JOURNAL=1 records it"
    );
    all
}

async fn all_runs(store: &dyn Store) -> BTreeSet<RunId> {
    let all = Query { read_only: true, ..Query::default() };
    store.runs(&all).await.unwrap().into_iter().map(|summary| summary.id).collect()
}

async fn tell(store: &FileStore) -> String {
    let mut told = String::new();
    for id in all_runs(store).await {
        let events = engine::decode_all(&store.load(id).await.unwrap()).unwrap();
        told.push_str(&story(id, &events));
    }
    told
}

/// Copies what is kept in a repository: files, but for locks and what is shown of progress.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&path, &target);
        } else if !matches!(path.extension().and_then(|end| end.to_str()), Some("lock" | "progress")) {
            fs::create_dir_all(to).unwrap();
            fs::copy(&path, target).unwrap();
        }
    }
}

impl Recorded {
    /// A copy of it, to be worked on.
    fn copied(&self) -> (TempDir, PathBuf) {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("journal");
        copy(&self.folder, &folder);
        (scratch, folder)
    }

    /// Its runs, each with its events in their frames.
    fn runs(&self) -> Vec<(RunId, Vec<Vec<u8>>)> {
        let mut runs = Vec::new();
        for entry in fs::read_dir(self.folder.join("runs")).unwrap() {
            let path = entry.unwrap().path();
            let id = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let bytes = fs::read(path).unwrap();
            let (mut rest, mut frames) = (bytes.as_slice(), Vec::new());
            while let Some(length) = rest.first_chunk::<4>() {
                let length = 8 + usize::try_from(u32::from_be_bytes(*length)).unwrap();
                let (frame, after) = rest.split_at(length);
                frames.push(frame.to_vec());
                rest = after;
            }
            runs.push((id, frames));
        }
        runs
    }

    /// A journal whose run files hold these bytes, and that has no database yet.
    fn cut<'a>(&self, runs: impl IntoIterator<Item = (RunId, &'a [u8])>) -> (TempDir, FileStore) {
        let (scratch, folder) = self.copied();
        for path in ["runs", "sled"] {
            fs::remove_dir_all(folder.join(path)).unwrap();
        }
        for path in ["ledger", "sled.head"] {
            fs::remove_file(folder.join(path)).unwrap();
        }
        let store = FileStore::open(folder.clone()).unwrap();
        for (id, bytes) in runs {
            fs::write(folder.join(format!("runs/{id}.log")), bytes).unwrap();
            fs::write(folder.join(format!("open/{id}")), "").unwrap();
        }
        (scratch, store)
    }
}

fn events_in(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| frame[8..].to_vec()).collect()
}

// ---- how it goes on ----

/// Whether an interrupted run is brought to its end forward or backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Back,
}

/// What there can be in the world of a run, as far as its events tell: of what was under way, any amount.
fn possible(run: &Run) -> Vec<Things> {
    let amounts = [None, Some(Amount::Half), Some(Amount::Whole)];
    let there = |under_way: Option<Amount>| {
        let thing = |step: &journal::run::StepRecord| {
            let amount = match step.status {
                _ if matches!(step.planned.kind.as_str(), "look" | "idle") => None,
                _ if step.reset => under_way,
                StepStatus::Pending | StepStatus::Skipped | StepStatus::Undone => None,
                StepStatus::Succeeded => Some(Amount::Whole),
                _ => under_way,
            };
            // What is taken away is there before, and never half.
            let amount = match (step.planned.kind.as_str(), amount) {
                ("destroy", Some(Amount::Whole)) => None,
                ("destroy", _) => Some(Amount::Whole),
                (_, amount) => amount,
            };
            amount.map(|amount| (step.planned.name.clone(), amount))
        };
        run.steps.iter().filter_map(thing).collect::<Things>()
    };
    let mut worlds: Vec<Things> = Vec::new();
    for under_way in amounts {
        let world = there(under_way);
        if !worlds.contains(&world) {
            worlds.push(world);
        }
    }
    worlds
}

/// Brings the run to an end; an operator answers when nobody else can tell or undo.
async fn recover(site: &Site, id: RunId, way: Way, context: &str) -> Run {
    for _ in 0..5 {
        let run = site.run(id).await;
        let engine = site.engine(Stop::No);
        let open = |step: &&journal::run::StepRecord| {
            matches!(step.status, StepStatus::Unknown | StepStatus::UndoFailed)
        };
        if run.status == Status::Stuck
            && let Some(step) = run.steps.iter().find(open)
        {
            let name = &step.planned.name;
            let verdict = if step.status == StepStatus::Unknown { Verdict::Absent } else { Verdict::Undone };
            site.world.lock().unwrap().things.remove(name);
            engine.resolve(id, name, verdict, "taken away by hand").await.unwrap();
        }
        let ended = match way {
            Way::Forward if run.status.is_finished() => return run,
            Way::Forward => engine.carry_on(id).await,
            Way::Back if matches!(run.status, Status::Failed | Status::RolledBack) => return run,
            Way::Back => match engine.roll_back(id, "asked", true).await {
                Err(EngineError::Impossible { .. }) if !run.status.is_finished() => engine.carry_on(id).await,
                Err(EngineError::Impossible { .. }) => return run,
                ended => ended,
            },
        };
        let run = ended.unwrap_or_else(|error| panic!("{context}: {error}"));
        if run.status != Status::Stuck {
            return run;
        }
    }
    panic!("{context}: it does not come to an end")
}

/// Goes on with a run of which these events are there, every way there is, and looks at what comes of it.
async fn goes_on(store: impl Store + Clone + 'static, id: RunId, way: Way, things: &Things, context: &str) {
    let before = store.load(id).await.unwrap();
    let site = Site::new(store, things.clone());
    let seen = site.run(id).await;
    let run = recover(&site, id, way, context).await;
    let after = site.store.load(id).await.unwrap();
    assert!(after.starts_with(&before), "{context}: what was recorded changed");
    if run == seen {
        assert!(run.status.is_finished() && after == before, "{context}: {}", run.status);
        assert!(site.world.lock().unwrap().things == *things, "{context}: it was finished");
        return;
    }
    let last = site.events(id).await.pop().map(|envelope| envelope.event);
    let destroyed = |step: &&PlannedStep| step.kind == "destroy";
    let old: Vec<&str> = run.started.plan.iter().filter(destroyed).map(|step| step.name.as_str()).collect();
    world::check_the_end(&run, last.as_ref(), &site.world.lock().unwrap(), &old, &[], context);
}

/// A store in memory that holds these events.
async fn in_memory(id: RunId, events: &[Vec<u8>]) -> MemoryStore {
    let store = MemoryStore::default();
    let mut log = store.claim(&claim(id)).await.unwrap();
    for (n, event) in (0..).zip(events) {
        log.append(n, event).await.unwrap();
    }
    drop(log);
    store
}

// ---- tests ----

#[test]
fn a_recorded_journal_is_understood_as_it_was_when_it_was_recorded() {
    for recorded in recorded() {
        let (_scratch, folder) = recorded.copied();
        let store = FileStore::open(folder).unwrap();
        run(async {
            assert_eq!(tell(&store).await, recorded.told, "{}", recorded.version);
            for (id, frames) in recorded.runs() {
                assert_eq!(store.load(id).await.unwrap(), events_in(&frames));
                let run = Run::fold(&engine::decode_all(&events_in(&frames)).unwrap()).unwrap();
                let shown = Shown::of(Some(run.status), false).as_str().to_owned();
                let section = run.started.section.clone();
                for query in [
                    Query { section, read_only: true, ..Query::default() },
                    Query { status: Some(shown), read_only: true, ..Query::default() },
                ] {
                    let found = store.runs(&query).await.unwrap();
                    assert!(found.iter().any(|summary| summary.id == id), "{id}: {query:?}");
                }
                for step in &run.steps {
                    let said = step.parts.get("output").and_then(|part| part.get("output"));
                    if let Some(hash) = said.and_then(|hash| hash.as_str()) {
                        let bytes = store.attachment(hash.parse().unwrap()).await.unwrap();
                        assert_eq!(bytes, b"load: done\n");
                    }
                }
            }
            assert_eq!(store.verify(None).await.unwrap().damage, []);
            // A database of an older layout is made anew, and that is all.
            let expected = |notice: &String| {
                recorded.version != VERSION
                    && notice.contains("made anew")
                    && notice.contains("older version")
            };
            let notices = store.take_notices();
            assert!(notices.iter().all(expected), "{}: {notices:?}", recorded.version);
        });
    }
}

#[test]
fn this_versions_recorded_journal_has_every_outcome_and_every_kind_of_event() {
    let all = recorded();
    let recorded = all.iter().find(|recorded| recorded.version == VERSION).unwrap();
    let (mut kinds, mut ends, mut attached) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (_, frames) in recorded.runs() {
        let events = engine::decode_all(&events_in(&frames)).unwrap();
        kinds.extend(events.iter().map(|envelope| envelope.event.kind()));
        let run = Run::fold(&events).unwrap();
        ends.insert(Shown::of(Some(run.status), false).as_str());
        attached += run.steps.iter().filter(|step| step.parts.contains_key("output")).count();
    }
    let missing: Vec<&str> =
        REGISTRY.iter().map(|line| line.2).filter(|kind| !kinds.contains(kind)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "remove recorded/{VERSION} and record it anew");
    let expected = ["abandoned", "failed", "interrupted", "rolled_back", "stopped", "stuck", "succeeded"];
    assert_eq!(ends, BTreeSet::from(expected));
    assert!(attached > 0);
}

#[test]
fn a_recorded_database_gives_back_what_its_run_files_lost() {
    let all = recorded();
    // Of other versions' databases no more is asked than that the run files replace them.
    let recorded = all.iter().find(|recorded| recorded.version == VERSION).unwrap();
    let (_scratch, folder) = recorded.copied();
    for (id, _) in recorded.runs() {
        fs::remove_file(folder.join(format!("runs/{id}.log"))).unwrap();
    }
    let store = FileStore::open(folder).unwrap();
    run(async {
        for (id, frames) in recorded.runs() {
            assert_eq!(store.load(id).await.unwrap(), events_in(&frames));
        }
        assert_eq!(store.take_notices().len(), recorded.runs().len());
    });
}

#[test]
fn every_prefix_of_every_recorded_run_is_read_and_brought_to_an_end() {
    let mut histories = 0;
    for recorded in recorded() {
        let runs = recorded.runs();
        let longest = runs.iter().map(|(_, frames)| frames.len()).max().unwrap();
        for count in 1..=longest {
            let cut: Vec<(RunId, &[Vec<u8>])> = runs
                .iter()
                .filter(|(_, frames)| frames.len() >= count)
                .map(|(id, frames)| (*id, &frames[..count]))
                .collect();
            let bytes: Vec<(RunId, Vec<u8>)> =
                cut.iter().map(|(id, frames)| (*id, frames.concat())).collect();
            let (_scratch, store) = recorded.cut(bytes.iter().map(|(id, bytes)| (*id, bytes.as_slice())));
            run(async {
                assert_eq!(all_runs(&store).await.len(), cut.len());
                for (place, (id, frames)) in cut.into_iter().enumerate() {
                    let events = events_in(frames);
                    assert_eq!(store.load(id).await.unwrap(), events, "{count} events of {id}");
                    let seen = Run::fold(&engine::decode_all(&events).unwrap()).unwrap();
                    let worlds = possible(&seen);
                    for things in &worlds {
                        for way in [Way::Forward, Way::Back] {
                            let context = format!("{count} events of {id}, {way:?}, {things:?}");
                            goes_on(in_memory(id, &events).await, id, way, things, &context).await;
                            histories += 1;
                        }
                    }
                    if all() || place % 4 == count % 4 {
                        let context = format!("{count} events of {id}, on files");
                        goes_on(store.clone(), id, Way::Forward, &worlds[0], &context).await;
                    }
                }
                assert_eq!(store.take_notices(), Vec::<String>::new());
            });
        }
    }
    println!("{histories} histories");
    assert!(histories > 500, "only {histories} histories");
}

#[test]
fn a_torn_end_of_a_recorded_run_is_cut_off_wherever_it_is_torn() {
    for recorded in recorded() {
        let runs = recorded.runs();
        let last = |frames: &[Vec<u8>]| frames.last().unwrap().len();
        let longest = runs.iter().map(|(_, frames)| last(frames)).max().unwrap();
        for torn in sample((0..longest).collect(), 40) {
            let cut: Vec<(RunId, Vec<Vec<u8>>, Vec<u8>)> = runs
                .iter()
                .filter(|(_, frames)| frames.len() > 1 && torn < last(frames))
                .map(|(id, frames)| {
                    let (end, whole) = frames.split_last().unwrap();
                    (*id, events_in(whole), [&whole.concat(), &end[..torn]].concat())
                })
                .collect();
            let (_scratch, store) = recorded.cut(cut.iter().map(|(id, _, bytes)| (*id, bytes.as_slice())));
            run(async {
                let ids: Vec<RunId> = cut.iter().map(|(id, ..)| *id).collect();
                let read = store.read_all(&ids).await.unwrap();
                for ((id, whole, _), stored) in cut.iter().zip(read) {
                    let read: Vec<Vec<u8>> = stored.into_iter().map(|stored| stored.bytes).collect();
                    assert_eq!(read, *whole, "{id} torn after {torn} bytes");
                }
                // The next owner of one of them writes where the whole events end.
                let (id, whole, _) = &cut[torn % cut.len()];
                let mut log = store.claim(&claim(*id)).await.unwrap();
                let next = runs.iter().find(|(run, _)| run == id).unwrap().1.last().unwrap();
                log.append(u64::try_from(whole.len()).unwrap(), &next[8..]).await.unwrap();
                drop(log);
                assert_eq!(store.load(*id).await.unwrap().len(), whole.len() + 1);
                assert_eq!(store.take_notices(), Vec::<String>::new());
            });
        }
    }
}

/// A journal is asked for a run that is not there as for one of which nothing was written.
#[test]
fn of_a_recorded_run_that_lost_even_its_first_event_nothing_is_told() {
    for recorded in recorded() {
        let runs = recorded.runs();
        let (_scratch, store) =
            recorded.cut(runs.iter().map(|(id, frames)| (*id, &frames[0][..frames[0].len() / 2])));
        run(async {
            assert_eq!(all_runs(&store).await, BTreeSet::new());
            for (id, _) in &runs {
                assert!(matches!(store.load(*id).await, Err(StoreError::NoSuchRun(_))));
            }
            assert_eq!(store.take_notices(), Vec::<String>::new());
        });
    }
}
