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

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use journal::clock::Clock;
use journal::engine::{Engine, EngineError};
use journal::event::{
    Actor, Detail, Effect, Envelope, Event, Failure, Hash, OnFailure, PlannedStep, Process, RunId,
    RunStarted, Verdict,
};
use journal::query::{Query, Summary};
use journal::run::{Run, Status, StepStatus};
use journal::step::{Context, Intent, Listener, Observed, Progress, Step, StepKinds, Stop};
use journal::store::memory::MemoryStore;
use journal::store::{Claim, Log, Page, Store, StoreError, Stored, Watch};
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

/// Counts down to a crash; from then on nothing works any more.
#[derive(Debug, Default)]
struct Fuse {
    left: AtomicI64,
    ticks: AtomicU64,
}

impl Fuse {
    fn burning(left: i64) -> Arc<Fuse> {
        Arc::new(Fuse { left: AtomicI64::new(left), ticks: AtomicU64::new(0) })
    }

    /// A point where the process can die. Says whether it is still alive.
    fn alive(&self) -> bool {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.left.fetch_sub(1, Ordering::Relaxed) > 0
    }

    fn dead(&self) -> bool {
        self.left.load(Ordering::Relaxed) <= 0
    }
}

/// How much there is of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    Half,
    Whole,
}

#[derive(Debug, Default)]
struct World {
    things: BTreeMap<String, Amount>,
    /// Things that were made while they were there already.
    doubled: BTreeSet<String>,
    /// How often each step was tried.
    tries: BTreeMap<String, u32>,
}

/// What a simulated step is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Makes a thing; half a thing is seen and undone.
    Make,
    /// Makes a thing; a half one needs the step before to be done again as well.
    Within,
    /// Makes a thing from the thing `file`, which is made again when it is gone.
    FromFile,
    /// Makes a thing; whether there is half of it nobody can see.
    Blind,
    /// Takes away a thing that was there before, for good.
    Destroy,
    /// Only looks.
    Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Fails so often for a passing reason.
    Passing(u32),
    /// Fails for good, half-way.
    Lasting,
    /// Cannot be undone.
    Stubborn,
}

struct Simulated {
    name: String,
    kind: Kind,
    trouble: Trouble,
    world: Arc<Mutex<World>>,
    fuse: Arc<Fuse>,
}

impl Simulated {
    fn tick(&self) -> Result<(), Failure> {
        if self.fuse.alive() { Ok(()) } else { Err(Failure::new("dead")) }
    }

    fn set(&self, amount: Option<Amount>) {
        let mut world = self.world.lock().unwrap();
        let before = world.things.get(&self.name).copied();
        if before == Some(Amount::Whole) && amount == Some(Amount::Half) {
            world.doubled.insert(self.name.clone());
        }
        match amount {
            Some(amount) => world.things.insert(self.name.clone(), amount),
            None => world.things.remove(&self.name),
        };
    }

    fn amount(&self) -> Option<Amount> {
        self.world.lock().unwrap().things.get(&self.name).copied()
    }
}

#[async_trait]
impl Step for Simulated {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        self.tick()?;
        if self.kind == Kind::FromFile && !self.world.lock().unwrap().things.contains_key("file") {
            return Ok(Intent::Again {
                steps: vec!["file".to_owned()],
                reason: "the file is gone".to_owned(),
            });
        }
        Ok(Intent::Do(Detail::from_iter([("thing".to_owned(), self.name.clone().into())])))
    }

    async fn observe(&self, _: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        self.tick()?;
        Ok(match (self.kind, self.amount()) {
            (Kind::Look, _) => Observed::Absent,
            (Kind::Destroy, None) => Observed::Done(intent.clone()),
            (Kind::Destroy, Some(_)) => Observed::Absent,
            (_, None) => Observed::Absent,
            (_, Some(Amount::Whole)) => Observed::Done(intent.clone()),
            (Kind::Blind, Some(Amount::Half)) => Observed::Unknown(Failure::new("look at the thing")),
            (_, Some(Amount::Half)) => Observed::Partial("half a thing".to_owned()),
        })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.tick()?;
        let tries = {
            let mut world = self.world.lock().unwrap();
            let tries = world.tries.entry(self.name.clone()).or_default();
            *tries += 1;
            *tries
        };
        if self.kind == Kind::Look {
            return Ok(intent.clone());
        }
        if self.kind == Kind::Destroy {
            self.set(None);
            self.tick()?;
            return Ok(intent.clone());
        }
        self.set(Some(Amount::Half));
        self.tick()?;
        match self.trouble {
            Trouble::Passing(times) if tries <= times => return Err(Failure::new("passes").transient(true)),
            Trouble::Lasting => return Err(Failure::new("lasts")),
            _ => {}
        }
        at.part_done("half", Detail::new()).await?;
        self.set(Some(Amount::Whole));
        self.tick()?;
        Ok(intent.clone())
    }

    async fn undo(&self, _: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        self.tick()?;
        if self.kind == Kind::Destroy || self.kind == Kind::Look {
            return Ok(Detail::new());
        }
        if self.trouble == Trouble::Stubborn && self.amount().is_some() {
            return Err(Failure::new("will not go"));
        }
        if self.amount() == Some(Amount::Whole) {
            self.set(Some(Amount::Half));
            // Half of the undo of a whole thing is not the making of it again.
            self.world.lock().unwrap().doubled.remove(&self.name);
            self.tick()?;
        }
        self.set(None);
        self.tick()?;
        Ok(Detail::new())
    }
}

struct Kinds {
    world: Arc<Mutex<World>>,
    fuse: Arc<Fuse>,
}

impl StepKinds for Kinds {
    fn step(&self, planned: &PlannedStep, _: &Detail) -> Result<Option<Box<dyn Step>>, Failure> {
        let kind = match planned.kind.as_str() {
            "make" => Kind::Make,
            "within" => Kind::Within,
            "from_file" => Kind::FromFile,
            "blind" => Kind::Blind,
            "destroy" => Kind::Destroy,
            "look" => Kind::Look,
            _ => return Ok(None),
        };
        let number = planned.parameters.get("times").and_then(serde_json::Value::as_u64);
        let trouble = match planned.parameters.get("trouble").and_then(serde_json::Value::as_str) {
            Some("passing") => Trouble::Passing(u32::try_from(number.unwrap_or(1)).unwrap()),
            Some("lasting") => Trouble::Lasting,
            Some("stubborn") => Trouble::Stubborn,
            _ => Trouble::None,
        };
        let (world, fuse) = (Arc::clone(&self.world), Arc::clone(&self.fuse));
        Ok(Some(Box::new(Simulated { name: planned.name.clone(), kind, trouble, world, fuse })))
    }
}

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

/// Time that moves when asked, and waits that end at once.
#[derive(Default)]
struct SimulatedClock {
    moments: AtomicI64,
}

#[async_trait]
impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + self.moments.fetch_add(1, Ordering::Relaxed)).unwrap()
    }
    fn mint(&self) -> Uuid {
        let moment = self.moments.fetch_add(1, Ordering::Relaxed);
        Uuid::from_u128(0x018c_0000_0000_7000_8000_0000_0000_0000 + u128::try_from(moment).unwrap())
    }
    async fn sleep(&self, _: Duration) {}
}

struct Nobody;

impl Listener for Nobody {
    fn recorded(&self, _: &Run, _: &Envelope, _: Hash) {}
    fn progressed(&self, _: &Progress) {}
    fn warned(&self, _: &str) {}
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

fn step(name: &str, kind: &str, parameters: serde_json::Value) -> PlannedStep {
    let serde_json::Value::Object(parameters) = parameters else { panic!("an object is needed") };
    let effect = match kind {
        "destroy" => Effect::Final,
        "look" => Effect::None,
        _ => Effect::Undoable,
    };
    PlannedStep {
        name: name.to_owned(),
        kind: kind.to_owned(),
        version: 1,
        parameters,
        effect,
        rests_on: Vec::new(),
        redo_with: Vec::new(),
    }
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

fn who() -> (Actor, Process) {
    (
        Actor { user: "u".to_owned(), host: "h".to_owned(), pid: 1 },
        Process { pid: 1, start_time: 1, boot_id: "b".to_owned() },
    )
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
    let things = machine.things();
    let world = machine.world.lock().unwrap().doubled.clone();
    assert!(world.is_empty(), "{context}: made twice: {world:?}");
    let made: BTreeSet<String> = machine
        .scenario
        .steps
        .iter()
        .filter(|step| !matches!(step.kind.as_str(), "look" | "destroy"))
        .map(|step| step.name.clone())
        .filter(|name| !machine.scenario.volatile.contains(&name.as_str()))
        .collect();
    let there: BTreeSet<String> = things.keys().filter(|name| made.contains(*name)).cloned().collect();
    let old_there = machine.scenario.there_before.iter().filter(|thing| things.contains_key(**thing)).count();
    let Some(id) = machine.id().await else {
        assert!(there.is_empty(), "{context}: nothing was recorded, and this is there: {there:?}");
        return;
    };
    let run = machine.run(id).await;
    match run.status {
        Status::Succeeded => {
            assert_eq!(there, made, "{context}");
            assert!(things.values().all(|amount| *amount == Amount::Whole), "{context}: {things:?}");
            assert_eq!(old_there, 0, "{context}");
        }
        Status::Failed | Status::RolledBack => {
            assert!(there.is_empty(), "{context}: {:?}, and this is left: {there:?}", run.status);
            assert_eq!(old_there, machine.scenario.there_before.len(), "{context}");
        }
        Status::Stuck => {
            let Some(Event::RunStuck { error }) = last_event(machine, id).await else { panic!("{context}") };
            let left: BTreeSet<String> = run
                .steps
                .iter()
                .filter(|step| !matches!(step.status, StepStatus::Undone | StepStatus::Pending))
                .filter(|step| made.contains(&step.planned.name))
                .map(|step| step.planned.name.clone())
                .collect();
            assert_eq!(there, left, "{context}");
            let named = run
                .steps
                .iter()
                .filter(|step| matches!(step.status, StepStatus::UndoFailed | StepStatus::Unknown));
            for step in named {
                assert!(error.message.contains(&step.planned.name), "{context}: {error}");
            }
        }
        Status::Stopped => {
            let keeps = machine.scenario.on_failure == OnFailure::Keep || run.cannot_be_undone().is_some();
            assert!(keeps, "{context}: stopped");
        }
        other => {
            let stored = machine.store.load(id).await.unwrap();
            let kinds: Vec<_> = journal::engine::decode_all(&stored)
                .unwrap()
                .iter()
                .map(|e| format!("{}/{:?}", e.event.kind(), e.event.step()))
                .collect();
            panic!("{context}: the end is {other}, after {}", kinds.join(", "))
        }
    }
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
