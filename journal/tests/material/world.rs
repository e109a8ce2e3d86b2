//! A simulated world: steps that make things in it, which can fail before, after or half-way, and a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use journal::clock::Clock;
use journal::event::{
    Actor, Detail, Effect, Envelope, Event, Failure, Hash, OnFailure, PlannedStep, Process,
};
use journal::run::{Run, Status, StepStatus};
use journal::step::{Context, Intent, Listener, Observed, Progress, Step, StepKinds};
use tokio::sync::Notify;
use uuid::Uuid;

/// Counts down to a crash; from then on nothing works any more.
#[derive(Debug, Default)]
pub(crate) struct Fuse {
    left: AtomicI64,
    pub(crate) ticks: AtomicU64,
}

impl Fuse {
    pub(crate) fn burning(left: i64) -> Arc<Fuse> {
        Arc::new(Fuse { left: AtomicI64::new(left), ticks: AtomicU64::new(0) })
    }

    /// A point where the process can die. Says whether it is still alive.
    pub(crate) fn alive(&self) -> bool {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.left.fetch_sub(1, Ordering::Relaxed) > 0
    }

    pub(crate) fn dead(&self) -> bool {
        self.left.load(Ordering::Relaxed) <= 0
    }
}

/// How much there is of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    Half,
    Whole,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) things: BTreeMap<String, Amount>,
    /// Things that were made while they were there already.
    pub(crate) doubled: BTreeSet<String>,
    /// How often each step was tried.
    pub(crate) tries: BTreeMap<String, u32>,
    /// Told when a step has come to where it hangs; where nobody is to be told, none does.
    pub(crate) hanging: Option<Arc<Notify>>,
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
    /// Has nothing to do.
    Idle,
    /// Makes a thing by a program, whose output it keeps.
    Program,
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
    /// Never comes to an end, half-way.
    Hanging,
    /// Never comes to an end while it is undone.
    HangingBack,
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

    async fn hang(&self) {
        let hanging = self.world.lock().unwrap().hanging.clone();
        if let Some(hanging) = hanging {
            hanging.notify_one();
            std::future::pending::<()>().await;
        }
    }

    async fn run_program(&self, at: &Context<'_>) -> Result<(), Failure> {
        let process = Process { pid: 4711, start_time: 815, boot_id: "b".to_owned() };
        at.child_started(process, "pg_restore").await?;
        let said = at.attach(format!("{}: done\n", self.name).as_bytes()).await?;
        at.child_ended(4711, "exit status: 0").await?;
        let output = Detail::from_iter([("output".to_owned(), said.to_string().into())]);
        at.part_done("output", output).await
    }
}

#[async_trait]
impl Step for Simulated {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        self.tick()?;
        if self.kind == Kind::Idle {
            return Ok(Intent::Skip("there is nothing to do".to_owned()));
        }
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
            (Kind::Look | Kind::Idle, _) => Observed::Absent,
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
            Trouble::Hanging => self.hang().await,
            _ => {}
        }
        match self.kind {
            Kind::Program => self.run_program(at).await?,
            _ => at.part_done("half", Detail::new()).await?,
        }
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
        if self.trouble == Trouble::HangingBack {
            self.hang().await;
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

pub(crate) struct Kinds {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) fuse: Arc<Fuse>,
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
            "idle" => Kind::Idle,
            "program" => Kind::Program,
            _ => return Ok(None),
        };
        let number = planned.parameters.get("times").and_then(serde_json::Value::as_u64);
        let trouble = match planned.parameters.get("trouble").and_then(serde_json::Value::as_str) {
            Some("passing") => Trouble::Passing(u32::try_from(number.unwrap_or(1)).unwrap()),
            Some("lasting") => Trouble::Lasting,
            Some("stubborn") => Trouble::Stubborn,
            Some("hanging") => Trouble::Hanging,
            Some("hanging back") => Trouble::HangingBack,
            _ => Trouble::None,
        };
        let (world, fuse) = (Arc::clone(&self.world), Arc::clone(&self.fuse));
        Ok(Some(Box::new(Simulated { name: planned.name.clone(), kind, trouble, world, fuse })))
    }
}

/// Time that moves when asked, and waits that end at once.
#[derive(Default)]
pub(crate) struct SimulatedClock {
    moments: AtomicI64,
}

impl SimulatedClock {
    /// One that so many milliseconds have passed on.
    pub(crate) fn later(moments: i64) -> SimulatedClock {
        SimulatedClock { moments: AtomicI64::new(moments) }
    }
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

pub(crate) struct Nobody;

impl Listener for Nobody {
    fn recorded(&self, _: &Run, _: &Envelope, _: Hash) {}
    fn progressed(&self, _: &Progress) {}
    fn warned(&self, _: &str) {}
}

pub(crate) fn step(name: &str, kind: &str, parameters: serde_json::Value) -> PlannedStep {
    let serde_json::Value::Object(parameters) = parameters else { panic!("an object is needed") };
    let effect = match kind {
        "destroy" => Effect::Final,
        "look" | "idle" => Effect::None,
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

pub(crate) fn who() -> (Actor, Process) {
    (
        Actor { user: "u".to_owned(), host: "h".to_owned(), pid: 1 },
        Process { pid: 1, start_time: 1, boot_id: "b".to_owned() },
    )
}

/// Checks that a run that is at an end left in `world` all, nothing, or what it names; `there_before` are the things
/// that were there before it, `volatile` those that a crash takes away.
pub(crate) fn check_the_end(
    run: &Run,
    last: Option<&Event>,
    world: &World,
    there_before: &[&str],
    volatile: &[&str],
    context: &str,
) {
    let World { things, doubled, .. } = world;
    assert!(doubled.is_empty(), "{context}: made twice: {doubled:?}");
    let made: BTreeSet<&str> = run
        .started
        .plan
        .iter()
        .filter(|step| !matches!(step.kind.as_str(), "look" | "idle" | "destroy"))
        .map(|step| step.name.as_str())
        .filter(|name| !volatile.contains(name))
        .collect();
    let there: BTreeSet<&str> =
        things.keys().map(String::as_str).filter(|name| made.contains(name)).collect();
    let old_there = there_before.iter().filter(|thing| things.contains_key(**thing)).count();
    match run.status {
        Status::Succeeded => {
            assert_eq!(there, made, "{context}");
            assert!(things.values().all(|amount| *amount == Amount::Whole), "{context}: {things:?}");
            assert_eq!(old_there, 0, "{context}");
        }
        Status::Failed | Status::RolledBack => {
            assert!(there.is_empty(), "{context}: {:?}, and this is left: {there:?}", run.status);
            assert_eq!(old_there, there_before.len(), "{context}");
        }
        Status::Stuck => {
            let Some(Event::RunStuck { error }) = last else { panic!("{context}: {last:?}") };
            let left: BTreeSet<&str> = run
                .steps
                .iter()
                .filter(|step| !matches!(step.status, StepStatus::Undone | StepStatus::Pending))
                .map(|step| step.planned.name.as_str())
                .filter(|name| made.contains(name))
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
            let keeps = run.started.on_failure == OnFailure::Keep || run.cannot_be_undone().is_some();
            assert!(keeps, "{context}: stopped");
        }
        other => panic!("{context}: the end is {other}"),
    }
}
