//! A simulated world, crashed at every append and within every effect, and crashed again while recovering.
//!
//! Whatever the two crashes hit, the end is one of three: all that the plan makes is there, each thing made once;
//! nothing of it is there; or the run is stuck and names exactly what is left.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

mod material;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use journal::engine::{Engine, EngineError};
use journal::event::{Detail, Event, Failure, Hash, OnFailure, PlannedStep, RunId, RunStarted, Verdict};
use journal::query::{Query, Summary};
use journal::run::{Run, Status, StepStatus};
use journal::step::{Progress, Step, StepKinds, Stop};
use journal::store::memory::MemoryStore;
use journal::store::{Claim, Log, Page, Store, StoreError, Stored, Watch};
use material::world::{self, Amount, Fuse, Kinds, Nobody, SimulatedClock, World, step, who};
use serde_json::json;
use tokio::sync::watch;

/// A memory store whose appends can be the last thing that happens, before or after they are durable.
struct Mortal {
    store: MemoryStore,
    fuse: Arc<Fuse>,
}

struct MortalLog {
    log: Box<dyn Log>,
    fuse: Arc<Fuse>,
}

fn dead() -> StoreError {
    StoreError::Io { what: "write", path: PathBuf::from("journal"), source: io::Error::other("dead") }
}

#[async_trait]
impl Store for Mortal {
    async fn claim(&self, claim: &Claim) -> Result<Box<dyn Log>, StoreError> {
        let log = self.store.claim(claim).await?;
        Ok(Box::new(MortalLog { log, fuse: Arc::clone(&self.fuse) }))
    }
    async fn load(&self, run: RunId) -> Result<Vec<Vec<u8>>, StoreError> {
        self.store.load(run).await
    }
    async fn read(&self, run: RunId) -> Result<Vec<Stored>, StoreError> {
        self.store.read(run).await
    }
    async fn read_all(&self, runs: &[RunId]) -> Result<Vec<Vec<Stored>>, StoreError> {
        self.store.read_all(runs).await
    }
    async fn events(&self, query: &Query, from: u64) -> Result<Page, StoreError> {
        self.store.events(query, from).await
    }
    async fn watch(&self, run: RunId) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(run).await
    }
    async fn progress(&self, run: RunId) -> Result<Option<Progress>, StoreError> {
        self.store.progress(run).await
    }
    async fn is_held(&self, run: RunId) -> Result<bool, StoreError> {
        self.store.is_held(run).await
    }
    async fn runs(&self, query: &Query) -> Result<Vec<Summary>, StoreError> {
        self.store.runs(query).await
    }
    async fn find(&self, part: &str) -> Result<Vec<RunId>, StoreError> {
        self.store.find(part).await
    }
    async fn attach(&self, bytes: &[u8]) -> Result<Hash, StoreError> {
        self.store.attach(bytes).await
    }
    async fn attachment(&self, hash: Hash) -> Result<Vec<u8>, StoreError> {
        self.store.attachment(hash).await
    }
    fn take_notices(&self) -> Vec<String> {
        self.store.take_notices()
    }
}

#[async_trait]
impl Log for MortalLog {
    async fn append(&mut self, n: u64, bytes: &[u8]) -> Result<(), StoreError> {
        if !self.fuse.alive() {
            return Err(dead());
        }
        self.log.append(n, bytes).await?;
        if self.fuse.alive() { Ok(()) } else { Err(dead()) }
    }
    async fn publish(&mut self) -> Result<(), StoreError> {
        if self.fuse.dead() { Err(dead()) } else { self.log.publish().await }
    }
    fn show(&mut self, progress: &Progress) {
        self.log.show(progress);
    }
}

/// A plan, and what is there before it.
#[derive(Clone)]
struct Scenario {
    name: &'static str,
    steps: Vec<PlannedStep>,
    on_failure: OnFailure,
    there_before: Vec<&'static str>,
    /// Things that a crash takes away, as a reboot empties a folder for temporary files.
    volatile: Vec<&'static str>,
}

fn scenarios() -> Vec<Scenario> {
    let plain = |name: &str, kind: &str| step(name, kind, json!({}));
    let copy = || plain("copy", "make");
    let load =
        |trouble: serde_json::Value| PlannedStep { redo_with: vec![1], ..step("load", "within", trouble) };
    let switch = |trouble| PlannedStep { rests_on: vec![1], ..step("switch", "make", trouble) };
    let restore = |trouble: serde_json::Value, end: serde_json::Value| {
        vec![plain("preflight", "look"), copy(), load(trouble), plain("check", "look"), switch(end)]
    };
    let scenario = |name, steps, on_failure| Scenario {
        name,
        steps,
        on_failure,
        there_before: Vec::new(),
        volatile: Vec::new(),
    };
    vec![
        scenario("all goes well", restore(json!({}), json!({})), OnFailure::Rollback),
        scenario(
            "a step fails twice and then goes well",
            restore(json!({"trouble": "passing", "times": 2}), json!({})),
            OnFailure::Rollback,
        ),
        scenario(
            "the last step fails",
            restore(json!({}), json!({"trouble": "lasting"})),
            OnFailure::Rollback,
        ),
        scenario(
            "a step fails, and all is kept",
            restore(json!({"trouble": "lasting"}), json!({})),
            OnFailure::Keep,
        ),
        scenario(
            "a thing cannot be undone",
            vec![
                plain("preflight", "look"),
                step("copy", "make", json!({"trouble": "stubborn"})),
                load(json!({})),
                switch(json!({"trouble": "lasting"})),
            ],
            OnFailure::Rollback,
        ),
        scenario(
            "what rests on a thing that stays, stays",
            vec![
                plain("preflight", "look"),
                copy(),
                switch(json!({"trouble": "stubborn"})),
                step("end", "make", json!({"trouble": "lasting"})),
            ],
            OnFailure::Rollback,
        ),
        scenario(
            "nobody can see a half thing",
            vec![copy(), plain("secret", "blind"), switch(json!({}))],
            OnFailure::Rollback,
        ),
        Scenario {
            volatile: vec!["file"],
            ..scenario(
                "what a step needs is gone after a crash",
                vec![
                    plain("preflight", "look"),
                    plain("file", "make"),
                    plain("load", "from_file"),
                    switch(json!({})),
                ],
                OnFailure::Rollback,
            )
        },
        Scenario {
            name: "a thing is taken away for good",
            steps: vec![
                plain("preflight", "look"),
                plain("entry", "make"),
                plain("old", "destroy"),
                plain("end", "look"),
            ],
            on_failure: OnFailure::Rollback,
            there_before: vec!["old"],
            volatile: Vec::new(),
        },
        Scenario {
            name: "after a thing is gone for good a step fails",
            steps: vec![
                plain("entry", "make"),
                plain("old", "destroy"),
                step("end", "make", json!({"trouble": "lasting"})),
            ],
            on_failure: OnFailure::Rollback,
            there_before: vec!["old"],
            volatile: Vec::new(),
        },
    ]
}

/// What outlives processes.
struct Machine {
    store: MemoryStore,
    world: Arc<Mutex<World>>,
    clock: Arc<SimulatedClock>,
    scenario: Scenario,
}

impl Machine {
    fn new(scenario: &Scenario) -> Machine {
        let mut world = World::default();
        for thing in &scenario.there_before {
            world.things.insert((*thing).to_owned(), Amount::Whole);
        }
        Machine {
            store: MemoryStore::default(),
            world: Arc::new(Mutex::new(world)),
            clock: Arc::default(),
            scenario: scenario.clone(),
        }
    }

    fn engine(&self, fuse: &Arc<Fuse>) -> (Engine, watch::Sender<Stop>) {
        let (tell, stop) = watch::channel(Stop::No);
        let (actor, process) = who();
        let engine = Engine {
            store: Arc::new(Mortal { store: self.store.clone(), fuse: Arc::clone(fuse) }),
            kinds: Arc::new(Kinds { world: Arc::clone(&self.world), fuse: Arc::clone(fuse) }),
            clock: self.clock.clone(),
            listener: Arc::new(Nobody),
            stop,
            actor,
            process,
            version: "1".to_owned(),
        };
        (engine, tell)
    }

    async fn start(&self, fuse: &Arc<Fuse>) -> Result<Run, EngineError> {
        let (engine, _tell) = self.engine(fuse);
        let started = RunStarted {
            version: "1".to_owned(),
            command: "restore".to_owned(),
            arguments: Vec::new(),
            section: Some("shop".to_owned()),
            database: None,
            target: Some("shop".to_owned()),
            read_only: false,
            on_failure: self.scenario.on_failure,
            retry_limit_ms: 60_000,
            settings: Detail::new(),
            plan: self.scenario.steps.clone(),
            process: who().1,
        };
        engine.start(started).await
    }

    async fn id(&self) -> Option<RunId> {
        self.store.find("0").await.unwrap().first().copied()
    }

    async fn run(&self, id: RunId) -> Run {
        let stored = self.store.load(id).await.unwrap();
        Run::fold(&journal::engine::decode_all(&stored).unwrap()).unwrap()
    }

    fn things(&self) -> BTreeMap<String, Amount> {
        self.world.lock().unwrap().things.clone()
    }
}

/// How a run that was cut short is brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Back,
}

/// One try at bringing the run to an end; an operator answers when nobody else can tell.
async fn recover(machine: &Machine, way: Way, fuse: &Arc<Fuse>) {
    let Some(id) = machine.id().await else { return };
    let run = machine.run(id).await;
    let (engine, _tell) = machine.engine(fuse);
    if run.status == Status::Stuck
        && let Some(step) = run.steps.iter().find(|step| step.status == StepStatus::Unknown)
    {
        // The operator takes away what is half there, and says so.
        machine.world.lock().unwrap().things.remove(&step.planned.name);
        let name = step.planned.name.clone();
        if engine.resolve(id, &name, Verdict::Absent, "removed by hand").await.is_err() {
            return;
        }
    }
    for thing in &machine.scenario.volatile {
        machine.world.lock().unwrap().things.remove(*thing);
    }
    // Errors are crashes, or say that there is nothing left to do: the end is looked at by the caller.
    let _ = match way {
        Way::Forward if !run.status.is_finished() => engine.carry_on(id).await,
        Way::Back if !matches!(run.status, Status::Failed | Status::RolledBack) => {
            match engine.roll_back(id, "asked", true).await {
                // What is gone for good leaves only the way forward.
                Err(EngineError::Impossible { .. }) if !run.status.is_finished() => engine.carry_on(id).await,
                other => other,
            }
        }
        _ => return,
    };
}

async fn check_the_end(machine: &Machine, context: &str) {
    let Some(id) = machine.id().await else {
        let made: Vec<&PlannedStep> =
            machine.scenario.steps.iter().filter(|step| machine.things().contains_key(&step.name)).collect();
        assert!(
            made.iter().all(|step| step.kind == "destroy"),
            "{context}: nothing was recorded, and this is there: {made:?}"
        );
        return;
    };
    let Scenario { there_before, volatile, .. } = &machine.scenario;
    let (run, last) = (machine.run(id).await, last_event(machine, id).await);
    let world = machine.world.lock().unwrap();
    world::check_the_end(&run, last.as_ref(), &world, there_before, volatile, context);
}

async fn last_event(machine: &Machine, id: RunId) -> Option<Event> {
    let stored = machine.store.load(id).await.unwrap();
    journal::engine::decode_all(&stored).unwrap().pop().map(|envelope| envelope.event)
}

const NEVER: i64 = i64::MAX / 2;

fn ticks(fuse: &Fuse) -> i64 {
    i64::try_from(fuse.ticks.load(Ordering::Relaxed)).unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn every_crash_and_every_second_crash_ends_in_all_or_nothing_or_stuck_with_what_is_left() {
    let mut histories = 0;
    for scenario in scenarios() {
        let undisturbed = Machine::new(&scenario);
        let fuse = Fuse::burning(NEVER);
        undisturbed.start(&fuse).await.unwrap();
        check_the_end(&undisturbed, scenario.name).await;
        for first in 0..ticks(&fuse) {
            for way in [Way::Forward, Way::Back] {
                let mut second = 0;
                loop {
                    let context = format!("{}: crash at {first}, {way:?}, again at {second}", scenario.name);
                    let machine = Machine::new(&scenario);
                    assert!(machine.start(&Fuse::burning(first)).await.is_err(), "{context}");
                    let again = Fuse::burning(second);
                    recover(&machine, way, &again).await;
                    // Nothing more is in the way: at most one more look is needed, and one answer of the operator.
                    for _ in 0..3 {
                        recover(&machine, way, &Fuse::burning(NEVER)).await;
                    }
                    check_the_end(&machine, &context).await;
                    histories += 1;
                    if !again.dead() {
                        break;
                    }
                    second += 1;
                }
            }
        }
    }
    println!("{histories} histories");
    assert!(histories > 5_000, "only {histories} histories");
}

#[tokio::test(flavor = "current_thread")]
async fn a_finished_run_is_undone_on_request_whatever_crashes_on_the_way_back() {
    let scenario = scenarios().into_iter().next().unwrap();
    for crash in 0..200 {
        let machine = Machine::new(&scenario);
        machine.start(&Fuse::burning(NEVER)).await.unwrap();
        let fuse = Fuse::burning(crash);
        recover(&machine, Way::Back, &fuse).await;
        recover(&machine, Way::Back, &Fuse::burning(NEVER)).await;
        let id = machine.id().await.unwrap();
        assert_eq!(machine.run(id).await.status, Status::RolledBack, "crash at {crash}");
        assert!(machine.things().is_empty(), "crash at {crash}");
        if !fuse.dead() {
            return;
        }
    }
    panic!("undoing takes more than 200 moments");
}

#[tokio::test(flavor = "current_thread")]
async fn a_request_to_stop_leaves_a_run_that_can_be_continued() {
    let scenario = scenarios().into_iter().next().unwrap();
    let machine = Machine::new(&scenario);
    let fuse = Fuse::burning(NEVER);
    let (engine, tell) = machine.engine(&fuse);
    tell.send_replace(Stop::Soon(2));
    let started = RunStarted {
        plan: scenario.steps.clone(),
        version: "1".to_owned(),
        command: "restore".to_owned(),
        arguments: Vec::new(),
        section: None,
        database: None,
        target: None,
        read_only: false,
        on_failure: OnFailure::Rollback,
        retry_limit_ms: 0,
        settings: Detail::new(),
        process: who().1,
    };
    let run = engine.start(started).await.unwrap();
    assert_eq!((run.status, run.signal), (Status::Stopped, Some(2)));
    assert!(machine.things().is_empty());
    let run = machine.engine(&fuse).0.carry_on(run.id).await.unwrap();
    assert_eq!(run.status, Status::Succeeded);
}

#[tokio::test(flavor = "current_thread")]
async fn a_plan_of_a_newer_version_is_refused_before_anything_is_touched() {
    let mut scenario = scenarios().into_iter().next().unwrap();
    let machine = Machine::new(&scenario);
    assert!(machine.start(&Fuse::burning(20)).await.is_err());
    let before = machine.things();
    scenario.steps.clear();
    let (mut engine, _tell) = machine.engine(&Fuse::burning(NEVER));
    struct NoKinds;
    impl StepKinds for NoKinds {
        fn step(&self, _: &PlannedStep, _: &Detail) -> Result<Option<Box<dyn Step>>, Failure> {
            Ok(None)
        }
    }
    engine.kinds = Arc::new(NoKinds);
    let id = machine.id().await.unwrap();
    let events = machine.store.load(id).await.unwrap().len();
    assert!(matches!(engine.carry_on(id).await, Err(EngineError::UnknownKind { .. })));
    assert_eq!(machine.things(), before);
    assert_eq!(machine.store.load(id).await.unwrap().len(), events);
}
