//! Where events are kept: the [`Store`] trait, and its stores.
//!
//! | store | for |
//! |---|---|
//! | [`files`] | one machine: run files that are durable at once, and sled to query them |
//! | [`memory`] | tests, and runs that nobody will ask about |
//! | [`postgres`] | several machines: a PostgreSQL server, with leases |
//!
//! All of them pass the one conformance suite in `tests/`.

pub mod files;
mod lease;
pub mod memory;
pub mod postgres;
pub mod verified;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::lease::Lease;
use self::verified::Verified;
use crate::event::{Actor, Hash, RunId};
use crate::query::{Query, Summary};
use crate::step::Progress;

/// Keeps events, and says who owns which run and target.
#[async_trait]
pub trait Store: Send + Sync {
    /// Takes ownership of a run, new or old, and of its target, for as long as the log that it returns lives. A
    /// crash ends the ownership. Of two that claim the same run or target, one gets [`StoreError::Busy`].
    async fn claim(&self, claim: &Claim) -> Result<Box<dyn Log>, StoreError>;

    /// The encoded events of a run as its next owner has to see them, in order; ends that a crash left half written
    /// are cut off. [`StoreError::NoSuchRun`] when there are none.
    async fn load(&self, run: RunId) -> Result<Vec<Vec<u8>>, StoreError>;

    /// The same for people who ask, each with its number in the whole store.
    async fn read(&self, run: RunId) -> Result<Vec<Stored>, StoreError>;

    /// The same of several runs in one go, in the order of `runs`; nothing of a run that is not there.
    async fn read_all(&self, runs: &[RunId]) -> Result<Vec<Vec<Stored>>, StoreError>;

    /// The runs that `query` asks for, newest first, each with its events and whether a living process owns it, which
    /// agree: the events of a run that is not owned are all that its last owner wrote.
    async fn look(&self, query: &Query) -> Result<Vec<(Summary, Known)>, StoreError> {
        let summaries = self.runs(query).await?;
        let ids: Vec<RunId> = summaries.iter().map(|summary| summary.id).collect();
        let known = self.known(&ids).await?;
        Ok(summaries.into_iter().zip(known).collect())
    }

    /// The same of the one run of whose id `part` is a part; the ids when there are none, or several.
    async fn look_up(&self, part: &str) -> Result<One<Known>, StoreError> {
        let ids = self.find(part).await?;
        let [id] = ids[..] else { return Ok(Err(ids)) };
        Ok(Ok((id, self.known_one(id).await?)))
    }

    /// The same of this run. [`StoreError::NoSuchRun`] when it is not there.
    async fn known_one(&self, run: RunId) -> Result<Known, StoreError> {
        // In this order: the owner of a run that is not held any more has written all that it is going to.
        let held = self.is_held(run).await?;
        Ok(Known { events: self.read(run).await?, held })
    }

    /// The same of these runs; no events of one that is not there.
    async fn known(&self, runs: &[RunId]) -> Result<Vec<Known>, StoreError> {
        // In the same order.
        let mut held = Vec::new();
        for run in runs {
            held.push(self.is_held(*run).await?);
        }
        let events = self.read_all(runs).await?;
        Ok(events.into_iter().zip(held).map(|(events, held)| Known { events, held }).collect())
    }

    /// The events that `query` asks for (see [`Query::matches_run`] and [`Query::matches_event`]), by their numbers in
    /// the whole store, from number `from` on: as many as can be looked at without holding anybody up.
    async fn events(&self, query: &Query, from: u64) -> Result<Page, StoreError>;

    /// Looks on while a run's owner writes to it, without being in its way.
    async fn watch(&self, run: RunId) -> Result<Box<dyn Watch>, StoreError>;

    /// What the run's owner last showed with [`Log::show`], as far as that can be told.
    async fn progress(&self, run: RunId) -> Result<Option<Progress>, StoreError>;

    /// Whether a living process owns the run.
    async fn is_held(&self, run: RunId) -> Result<bool, StoreError>;

    /// The runs that `query` asks for, newest first.
    async fn runs(&self, query: &Query) -> Result<Vec<Summary>, StoreError>;

    /// The ids of all runs of which `part` is a part, newest first.
    async fn find(&self, part: &str) -> Result<Vec<RunId>, StoreError>;

    /// Stores bytes under their hash; durable on return. Storing the same bytes again is fine.
    async fn attach(&self, bytes: &[u8]) -> Result<Hash, StoreError>;

    /// The bytes stored under `hash`, checked against it.
    async fn attachment(&self, hash: Hash) -> Result<Vec<u8>, StoreError>;

    /// Takes in runs of another journal, whose chains are whole; durable on return. Gives how many of the events were
    /// not there. [`StoreError::Contradicted`] when one is another run here, [`StoreError::Busy`] when one is at work.
    async fn adopt(&self, runs: Vec<Adopted>) -> Result<u64, StoreError> {
        let mut new = 0;
        for run in &runs {
            new += run.append_to(self).await?;
        }
        Ok(new)
    }

    /// What had to be mended while the store was used, in words for the user; each is told once.
    fn take_notices(&self) -> Vec<String>;
}

/// The one run that was looked for, with something of it; the ids when there are none, or several.
pub type One<T> = Result<(RunId, T), Vec<RunId>>;

/// What there is of a run when somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its events, in order.
    pub events: Vec<Stored>,
    /// Whether a living process owns it.
    pub held: bool,
}

/// A store that is looked after for years.
#[async_trait]
pub trait Upkeep: Store {
    /// Where it is, for people.
    fn place(&self) -> String;

    /// Looks at everything that is there, changes nothing, and tells what is wrong; whether it all goes on from the head
    /// `against`, too. A head is of one store: what was moved to another one has another head there.
    async fn verify(&self, against: Option<Head>) -> Result<Verified, StoreError>;

    /// Takes those of `runs` out for good that are finished and that nobody works on, with the attachments that no other
    /// run names, and gives their space back. The ledger keeps a tombstone of each. A journal that is damaged is left as
    /// it is.
    async fn prune(&self, runs: BTreeSet<RunId>) -> Result<Pruned, StoreError>;
}

/// What a pruning took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The runs, in the order of their ids.
    pub runs: Vec<RunId>,
    /// How many attachments.
    pub attachments: u64,
}

/// The right to append to one run.
#[async_trait]
pub trait Log: Send + Sync {
    /// Appends the encoded event number `n`. It is durable when this returns without an error; after an error it may
    /// or may not be, and the log takes no more.
    async fn append(&mut self, n: u64, bytes: &[u8]) -> Result<(), StoreError>;

    /// Brings what was appended to where it is queried. Nothing is lost when it fails: the next reader does it.
    async fn publish(&mut self) -> Result<(), StoreError>;

    /// Shows others how far a step is, as well as that can be done without delay. It is no fact: it is gone with the
    /// log, and others may see an old one, or none.
    fn show(&mut self, progress: &Progress);

    /// How long the ownership lasts, as far as can be told without asking.
    fn lease(&self) -> Lease {
        Lease::unlimited()
    }
}

/// Sees what happens in a run.
#[async_trait]
pub trait Watch: Send {
    /// What is new since the last call; the first one begins with the run's first event. Waits until there is
    /// something: an event, progress, an owner who comes or goes.
    async fn next(&mut self) -> Result<Seen, StoreError>;
}

/// What was seen of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The encoded events after those that were seen before, in order.
    pub events: Vec<Vec<u8>>,
    /// How far its step is, as its owner showed last.
    pub progress: Option<Progress>,
    /// Whether a living process owns it. When not, that owner's events are all there.
    pub held: bool,
}

/// Some events of the whole store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The events, in the order of their numbers.
    pub events: Vec<Numbered>,
    /// The encoded first event of each run that has an event here: its command and its plan.
    pub beginnings: BTreeMap<RunId, Vec<u8>>,
    /// Where to go on; `None` when there is nothing more yet.
    pub next: Option<u64>,
    /// The number that the next new event gets.
    pub end: u64,
}

/// An encoded event and its place in its run and in the whole store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Its number in the whole store.
    pub seq: u64,
    /// Its run.
    pub run: RunId,
    /// Its number within the run.
    pub n: u64,
    /// The event.
    pub bytes: Vec<u8>,
}

/// Who wants to own what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The run, as text of its id.
    pub run: String,
    /// What no two runs may work on at the same time, when the run works on such a thing.
    pub target: Option<String>,
    /// Who.
    pub actor: Actor,
    /// Since when.
    pub since: Timestamp,
    /// With which command, for the one who has to wait.
    pub command: String,
}

/// A run of another journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Who takes it in; without a target.
    pub claim: Claim,
    /// The run.
    pub run: RunId,
    /// Its encoded events, from the first on.
    pub events: Vec<Vec<u8>>,
}

impl Adopted {
    /// How many of its events are `there`, or that what is there is another run.
    fn follows_on(&self, there: &[Vec<u8>]) -> Result<usize, StoreError> {
        match there.iter().zip(&self.events).position(|(there, event)| there != event) {
            Some(n) => Err(StoreError::Contradicted { run: self.run, n }),
            None => Ok(there.len()),
        }
    }

    /// Appends what is missing, as the run's owner.
    async fn append_to(&self, store: &(impl Store + ?Sized)) -> Result<u64, StoreError> {
        let there = async || match store.load(self.run).await {
            Err(StoreError::NoSuchRun(_)) => Ok(Vec::new()),
            loaded => loaded,
        };
        if self.follows_on(&there().await?)? >= self.events.len() {
            return Ok(0);
        }
        let mut log = store.claim(&self.claim).await?;
        let known = self.follows_on(&there().await?)?;
        let mut new = 0;
        for (n, event) in (0..).zip(&self.events).skip(known) {
            log.append(n, event).await?;
            new += 1;
        }
        Ok(new)
    }
}

/// An encoded event and its number in the whole store, counted from 1 in the order in which events became known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The number.
    pub seq: u64,
    /// The encoded event.
    pub bytes: Vec<u8>,
}

/// How far a journal has come, and by which way: a journal that goes on from it has everything that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many entries its ledger has.
    pub entries: u64,
    /// The hash over all of them, in order.
    pub chain: Hash,
}

/// A text was not a journal's head.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not the head of a journal: a number, a full stop and 64 hexadecimal digits are needed")]
pub struct BadHead(String);

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.entries, self.chain)
    }
}

impl FromStr for Head {
    type Err = BadHead;

    fn from_str(text: &str) -> Result<Head, BadHead> {
        let parsed = text.trim().split_once('.').and_then(|(entries, chain)| {
            Some(Head { entries: entries.parse().ok()?, chain: chain.parse().ok()? })
        });
        parsed.ok_or_else(|| BadHead(text.to_owned()))
    }
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A living process owns the run or the target.
    #[error("busy: {what} is held by {}", holder.as_ref().map_or_else(|| "another process".to_owned(), |claim| describe(claim)))]
    Busy {
        /// The run or the target.
        what: String,
        /// Who owns it, as far as that can be told.
        holder: Option<Box<Claim>>,
    },
    /// There is no such run.
    #[error("the journal has no run {0}")]
    NoSuchRun(RunId),
    /// There is no such attachment.
    #[error("the journal has no attachment {0}")]
    NoSuchAttachment(Hash),
    /// A run that is to be taken in is another one here.
    #[error("run {run} is another one in this journal: its event {n} is not the same")]
    Contradicted {
        /// The run.
        run: RunId,
        /// The first event that differs.
        n: usize,
    },
    /// The ownership ended, or another owner took over.
    #[error("run {0} is not this process's any more: its lease ended, or another process took it over")]
    Fenced(RunId),
    /// What was stored is not what is there now.
    #[error("the journal is damaged: {path}: {what}", path = path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// The operating system refused.
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        /// What was tried, as a verb: `write`, `open`.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it refused.
        #[source]
        source: io::Error,
    },
    /// The queryable database could not be used.
    #[error("cannot use the journal's database {path}: {what}", path = path.display())]
    Database {
        /// Where it is.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The server that keeps the journal could not be used.
    #[error("cannot use the journal on {place}: {what}")]
    Server {
        /// Where it is, without anything that is secret.
        place: String,
        /// Why.
        what: String,
        /// What may mend it.
        hint: Option<String>,
    },
}

fn describe(claim: &Claim) -> String {
    let Claim { run, actor, since, command, .. } = claim;
    format!("{command} (run {run}) of {}@{}, process {}, since {since:.0}", actor.user, actor.host, actor.pid)
}
