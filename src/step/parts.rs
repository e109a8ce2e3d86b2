//! Loads a dump part by part while the parts come from the server, each by a pg_restore of its own.
//!
//! A part is a small archive, made on the fly from the dump's own entries and the blocks of rows as they arrive, and fed to
//! `pg_restore --single-transaction`. The last command in it notes in a schema of ours which entries are done, in that
//! same transaction: so whatever is killed when, each entry is in the copy exactly once, and what is not there yet is all
//! that a further attempt fetches and loads. The last part takes that schema away, and writes into the copy's mark that
//! all went through.

mod feed;
mod files;
mod link;
mod marks;
mod script;
mod stream;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use journal::clock::{Clock as _, SystemClock};
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, watch};

use self::feed::{Fault, give};
use self::link::{Link, TICK};
use self::stream::{Came, Whole};

use super::backends;
use super::board::{Board, Slot, kind_word, stall_after_ms};
use super::catalog::{Form, Selected};
use super::contents::{Head, Heads, Way, way};
use super::create_database::{Mark, comment_of, require_ours};
use super::load::{self, Load};
use super::lookout::{Lookout, Sessions};
use super::{
    Secrets, Settings, application_name, asked_to_stop, end_leftovers, outcome, read, reader, server,
    shortened, until_ended, write,
};
use crate::contents::{self, PartKind, Piece, RestorePart, Rows, Schedule, Selection};
use crate::world::disk;
use crate::world::postgres::Server;
use crate::world::process::Input;

/// The step. An archive that had to be brought here as a file is loaded from it as ever.
pub struct Parts {
    /// Where, and how.
    pub load: Load,
    /// User and password of the backup server.
    pub secrets: Secrets,
    /// What was read already.
    pub heads: Heads,
    /// When to worry.
    pub patience: Patience,
}

/// Its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// `restore_jobs`.
    pub jobs: u16,
    /// `pg_restore_st`.
    pub single_transaction: bool,
    /// What the dump seems to be, when it seems to be no archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seems: Option<load::Seems>,
    /// `stall_after`, in milliseconds.
    pub stall_after_ms: u64,
}

/// The part of them that says when to worry; plans of older versions have none.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Patience {
    /// For how long the backup server may send nothing before that is told, in milliseconds.
    #[serde(default = "stall_after_ms")]
    stall_after_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    /// How many parts there are in all.
    parts: u64,
    /// Entries that are restored.
    entries: u64,
    /// Bytes of rows that come from the server.
    bytes: u64,
    jobs: u16,
    application_name: String,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Loaded {
    entries: u64,
    /// Entries that an earlier attempt had loaded.
    kept: u64,
    /// Bytes of rows that came from the server in this attempt.
    bytes: u64,
    /// Errors that are known to be harmless, in pg_restore's words.
    tolerated: Vec<String>,
}

/// Everything that the parts of one attempt share.
struct Attempt<'a> {
    at: &'a Context<'a>,
    settings: &'a Settings,
    pg_restore: PathBuf,
    head: Arc<Head>,
    parts: Vec<RestorePart>,
    /// Dump ids of what is done.
    done: HashSet<i32>,
    preamble: Vec<Piece>,
    server: Server,
    application_name: String,
    /// Whether the dump comes in one piece, as it is.
    streamed: bool,
    workers: Semaphore,
    board: Board,
    /// The parts that are done.
    over: watch::Sender<HashSet<usize>>,
}

impl Parts {
    fn settings(&self) -> &Settings {
        &self.load.settings
    }

    /// By which way this step works.
    async fn how(&self, at: &Context<'_>) -> Result<How, Failure> {
        let selected: Selected = outcome(at, "catalog").await?;
        Ok(match (way(at).await?, selected.form) {
            (_, Form::Sql) => How::Sql(selected),
            (Way::File, Form::Archive) => How::File,
            (Way::Stream, _) => How::Parts { streamed: true, selected },
            _ => How::Parts { streamed: false, selected },
        })
    }

    /// The head of a dump, and how what is kept of it is divided. The same each time.
    async fn divided(
        &self,
        at: &Context<'_>,
        selected: &Selected,
        streamed: bool,
    ) -> Result<(Arc<Head>, Vec<RestorePart>), Failure> {
        let head = match &selected.dump {
            Some(dump) => self.heads.of_files(dump).await?,
            None => self.heads.of(&self.secrets, &super::backup(at).await?).await?,
        };
        let same = |sha256: &String| disk::sha256(head.original.bytes()) == *sha256;
        if !selected.head_sha256.as_ref().is_none_or(same) {
            return Err(Failure::new(format!("{} was changed while this run was under way", head.name))
                .hint("roll the run back and start a new one"));
        }
        let selection: Selection = super::attached(at, &selected.selection, "what is restored").await?;
        let parts = contents::parts(&head.contents, &selection, head.end.filter(|_| !streamed));
        Ok((head, parts))
    }

    async fn attempt<'a>(
        &'a self,
        at: &'a Context<'a>,
        plan: &Plan,
        selected: &Selected,
        streamed: bool,
    ) -> Result<Attempt<'a>, Failure> {
        let (head, parts) = self.divided(at, selected, streamed).await?;
        let server = server(at, self.settings()).await?;
        // A commit of an attempt that failed may still be on its way.
        end_leftovers(at, &server, &self.settings().maintdb).await?;
        let session = server.connect(&self.settings().database, &plan.application_name).await?;
        require_ours(&session, &self.settings().database, at.run()).await?;
        let done = marks::read(&session).await?;
        let total = if streamed { head.end } else { Some(rows_left(&parts, &done).map(Rows::length).sum()) };
        let patience = Duration::from_millis(self.patience.stall_after_ms);
        let board = Board::new(&parts, &head.contents, &done, streamed, total, plan.jobs, patience);
        Ok(Attempt {
            at,
            settings: self.settings(),
            pg_restore: reader::chosen(at, self.settings()).await?,
            preamble: contents::preamble(&head.contents).into_iter().map(Piece::Entry).collect(),
            head,
            parts,
            done,
            server,
            application_name: plan.application_name.clone(),
            streamed,
            // One more may load, so that the network is not idle while all others build indexes.
            workers: Semaphore::new(usize::from(plan.jobs.max(1)) + 1),
            board,
            over: watch::Sender::default(),
        })
    }
}

/// How a dump is loaded.
enum How {
    /// From a file, by one pg_restore.
    File,
    /// Part by part.
    Parts {
        /// Whether it comes in one piece.
        streamed: bool,
        /// What of it.
        selected: Selected,
    },
    /// All of it, by psql.
    Sql(Selected),
}

/// A small archive on its way into the copy.
struct Archive<'p> {
    /// What is in it, for messages.
    name: String,
    head: Vec<u8>,
    /// The blocks that follow.
    rows: Vec<&'p Rows>,
    /// The parts that it is of.
    parts: Vec<usize>,
    /// Dump ids of what is in it.
    ids: Vec<i32>,
    /// Whether it is one transaction.
    atomic: bool,
}

impl Attempt<'_> {
    /// Loads what is missing, by so many workers.
    async fn run(&self, jobs: u16) -> Result<Loaded, Failure> {
        let is_done = |part: &RestorePart| part.kind != PartKind::Finish && self.left(part).is_empty();
        let done: HashSet<usize> =
            self.parts.iter().enumerate().filter(|(_, part)| is_done(part)).map(|(at, _)| at).collect();
        self.board.found(done.iter().copied());
        self.over.send_replace(done.clone());
        let mut schedule = Schedule::new(&self.parts, usize::from(jobs), self.streamed, done);
        let (mut running, mut tolerated) = (FuturesUnordered::new(), Vec::new());
        let (tell, mut told) = mpsc::channel(1);
        let mut stream = std::pin::pin!(self.stream(tell));
        let mut streaming = self.streamed && rows_left(&self.parts, &self.done).next().is_some();
        let mut stop = std::pin::pin!(asked_to_stop(self.at));
        let mut link = Link::default();
        let mut tick = std::pin::pin!(SystemClock.sleep(TICK));
        loop {
            loop {
                let begun = schedule.begin(link.is_full());
                if begun.is_empty() {
                    break;
                }
                running.push(self.load(begun).boxed());
            }
            // The last that the stream told may be still to be heard.
            if running.is_empty() && !streaming && told.is_empty() {
                break;
            }
            // What is dropped on the way out of here is ended, and its transaction with it.
            tokio::select! {
                Some(ended) = running.next() => {
                    let (parts, harmless) = ended?;
                    tolerated.extend(harmless);
                    parts.into_iter().for_each(|part| self.ended(part, &mut schedule));
                }
                Some(came) = told.recv() => {
                    let small = self.take_in(came, &mut schedule);
                    running.extend(small.map(|blocks| self.load_small(blocks).boxed()));
                }
                ended = &mut stream, if streaming && schedule.rows_may_come() => {
                    ended?;
                    streaming = false;
                }
                () = &mut stop => {
                    return Err(Failure { stopped: true, ..Failure::new("stopped between two parts") });
                }
                () = &mut tick => {
                    link.look(self.board.came(), schedule.loading(), self.board.is_waited_for());
                    tick.set(SystemClock.sleep(TICK));
                }
            }
        }
        let entries: usize = self.parts.iter().map(|part| part.entries.len()).sum();
        Ok(Loaded {
            entries: entries as u64,
            kept: self.done.len() as u64,
            bytes: self.board.came(),
            tolerated: shortened(tolerated),
        })
    }

    fn ended(&self, part: usize, schedule: &mut Schedule<'_>) {
        schedule.end(part);
        self.over.send_modify(|over| {
            over.insert(part);
        });
    }

    /// Takes in what came of the stream, and gives what is to be loaded of it.
    fn take_in(&self, came: Came, schedule: &mut Schedule<'_>) -> Option<Vec<Whole>> {
        match came {
            Came::Small(blocks) => {
                blocks.iter().for_each(|block| schedule.came(block.part, block.bytes.len() as u64));
                Some(blocks)
            }
            Came::Loaded { part, bytes } => {
                schedule.came(part, bytes);
                self.ended(part, schedule);
                None
            }
        }
    }

    /// The entries of a part that are not done.
    fn left(&self, part: &RestorePart) -> Vec<(contents::Place, i32)> {
        let entries = self.head.contents.entries();
        let ids = part.entries.iter().filter_map(|at| Some((*at, entries.get(*at)?.dump_id)));
        ids.filter(|(_, id)| !self.done.contains(id)).collect()
    }

    /// The archive of what is not done of these parts, which are of one kind.
    fn archive(&self, indexes: &[usize]) -> Archive<'_> {
        let parts: Vec<&RestorePart> = indexes.iter().filter_map(|index| self.parts.get(*index)).collect();
        let is = |kind: PartKind| parts.iter().any(|part| part.kind == kind);
        let left: Vec<(contents::Place, i32)> = parts.iter().flat_map(|part| self.left(part)).collect();
        let rows: Vec<&Rows> = rows_left(parts.iter().copied(), &self.done).collect();
        let by_place: HashMap<contents::Place, &Rows> = rows.iter().map(|rows| (rows.entry, *rows)).collect();
        let ids: Vec<i32> = left.iter().map(|(_, id)| *id).collect();
        let mut pieces = self.preamble.clone();
        if is(PartKind::Finish) {
            pieces.push(Piece::Sql(marks::take_away(&Mark::reached(self.at.run(), self.at.step()))));
        }
        for (place, _) in left {
            match by_place.get(&place) {
                Some(rows) => {
                    pieces.extend(rows.empties.then_some(Piece::Truncate(place)));
                    pieces.push(Piece::Rows { at: place, freeze: rows.empties });
                }
                None => pieces.push(Piece::Entry(place)),
            }
        }
        let atomic = !is(PartKind::Privileges);
        if atomic && !is(PartKind::Finish) {
            pieces.push(Piece::Sql(marks::done(&ids)));
        }
        let name = match parts.as_slice() {
            [part] => part.name.clone(),
            [part, others @ ..] => format!("{} and {} more", part.name, others.len()),
            [] => String::new(),
        };
        Archive {
            name,
            head: self.head.original.excerpt(&pieces),
            rows,
            parts: indexes.to_vec(),
            ids,
            atomic,
        }
    }

    /// What kind the parts of an archive are of, and with how many bytes of rows they have to do.
    fn kind_and_weight(&self, parts: &[usize]) -> (&'static str, u64) {
        let parts = parts.iter().filter_map(|part| self.parts.get(*part));
        let weight = parts.clone().map(|part| part.weight).sum();
        (parts.clone().next().map(|part| kind_word(part.kind)).unwrap_or_default(), weight)
    }

    /// Loads parts in one transaction, with rows that come straight from the server. Gives the errors that are harmless.
    async fn load(&self, parts: Vec<usize>) -> Result<(Vec<usize>, Vec<String>), Failure> {
        let mut archive = self.archive(&parts);
        let rows = std::mem::take(&mut archive.rows);
        let bytes = rows.iter().map(|rows| rows.length()).sum();
        let feed = async |input: &mut Input, slot: &Slot<'_>| self.feed(input, slot, &rows).await;
        let harmless = self.restore(archive, bytes, feed).await?;
        Ok((parts, harmless))
    }

    /// Runs pg_restore on an archive; `feed` writes what follows its head.
    async fn restore(
        &self,
        archive: Archive<'_>,
        bytes: u64,
        feed: impl AsyncFnOnce(&mut Input, &Slot<'_>) -> Result<(), Fault>,
    ) -> Result<Vec<String>, Failure> {
        let Archive { name, head, parts, ids, atomic, .. } = archive;
        let named = |failure: Failure| Failure { message: format!("{name}: {}", failure.message), ..failure };
        let (kind, weight) = self.kind_and_weight(&parts);
        let _worker = self.workers.acquire().await.map_err(|error| Failure::new(error.to_string()))?;
        let slot = self.board.begin(&name, parts, Some(bytes).filter(|bytes| *bytes > 0));
        let session = backends::name_of(&self.application_name, slot.number());
        let program = load::into_copy(&self.pg_restore, self.settings, &self.server, &session);
        let program = if atomic { program.arg("--single-transaction") } else { program };
        let (running, mut input) = program.start_fed()?;
        let identity = running.identity()?;
        let place = &slot;
        let feed = async move {
            let fed = async {
                give(&mut input, &head).await?;
                drop(head);
                feed(&mut input, place).await
            };
            match fed.await {
                Ok(()) | Err(Fault::Closed) => Ok(()),
                Err(Fault::Failed(failure)) => Err(failure),
            }
        };
        let finish = async { running.finish(|line| !load::is_progress(line)).await.map_err(Failure::from) };
        // When the feed fails, pg_restore is ended before it can commit.
        let ends = async { tokio::try_join!(feed, finish).map(|((), ended)| ended).map_err(named) };
        let ended = until_ended(self.at, &program, identity, ends).await?;
        let (tolerated, _) = load::judge(self.at, &self.settings.database, &ended).await.map_err(named)?;
        if !atomic {
            let session = self.server.connect(&self.settings.database, &self.application_name).await?;
            session.execute(&marks::done(&ids)).await?;
        }
        let (entries, ms) = (ids.len(), slot.done());
        // Later runs learn from it how long theirs take.
        let told = serde_json::json!({
            "entries": entries, "bytes": bytes, "kind": kind, "weight": weight, "ms": ms,
        });
        self.at.part_done(&name, write(&told)).await?;
        Ok(tolerated)
    }
}

/// The blocks of these parts that are not done.
fn rows_left<'p>(
    parts: impl IntoIterator<Item = &'p RestorePart>,
    done: &HashSet<i32>,
) -> impl Iterator<Item = &'p Rows> {
    parts.into_iter().flat_map(|part| &part.rows).filter(|rows| !done.contains(&rows.dump_id))
}

#[async_trait]
impl Step for Parts {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let how = self.how(at).await?;
        let (How::Parts { selected, .. } | How::Sql(selected)) = &how else {
            return self.load.intend(at).await;
        };
        if let Some(dump) = selected.dump.as_ref().filter(|dump| !disk::exists(dump)) {
            return Ok(load::again(dump));
        }
        let (streamed, selected) = match &how {
            How::Parts { streamed, selected } => (*streamed, selected),
            _ => return Ok(Intent::Do(write(&self.script(at, selected).await?))),
        };
        let (_, parts) = self.divided(at, selected, streamed).await?;
        let entries: usize = parts.iter().map(|part| part.entries.len()).sum();
        Ok(Intent::Do(write(&Plan {
            parts: parts.len() as u64,
            entries: entries as u64,
            bytes: parts.iter().flat_map(|part| &part.rows).map(Rows::length).sum(),
            jobs: self.load.given.jobs,
            application_name: application_name(at),
        })))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        if matches!(self.how(at).await?, How::File) {
            return self.load.observe(at, intent).await;
        }
        let plan: Plan = read(intent)?;
        let server = server(at, self.settings()).await?;
        end_leftovers(at, &server, &self.settings().maintdb).await?;
        let session = server.connect(&self.settings().maintdb, "pg_staging").await?;
        let comment = comment_of(&session, &self.settings().database).await?.unwrap_or_default();
        if Mark::what_is_done(&comment, at.run()) == Some(at.step()) {
            let loaded =
                Loaded { entries: plan.entries, kept: plan.entries, bytes: 0, tolerated: Vec::new() };
            return Ok(Observed::Done(write(&loaded)));
        }
        Ok(Observed::Absent)
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let loaded = match self.how(at).await? {
            How::File => return self.load.act(at, intent).await,
            How::Parts { streamed, selected } => {
                let plan: Plan = read(intent)?;
                let attempt = self.attempt(at, &plan, &selected, streamed).await?;
                let sessions = Sessions {
                    server: &attempt.server,
                    maintdb: &self.settings().maintdb,
                    application_name: &attempt.application_name,
                };
                let lookout = Lookout { at, board: &attempt.board, sessions: Some(sessions) };
                lookout.during(attempt.run(plan.jobs)).await?
            }
            How::Sql(selected) => self.run_script(at, &selected).await?,
        };
        Ok(write(&loaded))
    }

    /// What it loaded is in the copy, and goes with it.
    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.load.undo(at, intent).await
    }
}
