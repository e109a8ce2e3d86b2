//! Whole journals as text: one JSON object a line, complete enough to be taken in by another journal, of any kind.
//!
//! | line | what |
//! |---|---|
//! | `{"journal_export":1,…}` | the first: the format |
//! | `{"attachment":HASH,"base64":…}` | an attachment, before the first run that names it |
//! | `{"event":BASE64,"run":…,"n":…,"at":…,"kind":…,"actor":…,"hash":…}` | an encoded event; what comes after it is for people |
//! | `{"end":{"runs":…,"events":…,"attachments":…}}` | the last: how many there were |
//!
//! The events of a run come in order and without others between them, runs from the oldest to the newest.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::codec;
use crate::event::{Actor, Hash, RunId};
use crate::query::Query;
use crate::store::{Adopted, Claim, Store, StoreError, verified};

/// The format's number.
const FORMAT: u64 = 1;
/// So many runs are taken in at a time.
const AT_ONCE: usize = 256;

/// How much was written, or taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Runs.
    pub runs: u64,
    /// Events.
    pub events: u64,
    /// Attachments.
    pub attachments: u64,
}

/// What was taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// What was read.
    pub read: Amount,
    /// Events that were not there before.
    pub new: u64,
}

/// Why a journal could not be written as text, or text not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The text cannot be written or read.
    #[error("cannot read or write the export")]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {line} of the export: {what}")]
    Line {
        /// Counts from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// Writes everything that `store` has.
pub async fn export(store: &dyn Store, out: &mut (dyn Write + Send)) -> Result<Amount, ExchangeError> {
    let runs = store.runs(&Query { read_only: true, ..Query::default() }).await?;
    let mut amount = Amount::default();
    let mut written = BTreeSet::new();
    put(out, &json!({ "journal_export": FORMAT, "version": env!("CARGO_PKG_VERSION") }))?;
    let ids: Vec<RunId> = runs.iter().rev().map(|run| run.id).collect();
    for ids in ids.chunks(AT_ONCE) {
        for (run, events) in ids.iter().zip(store.read_all(ids).await?) {
            let events: Vec<Vec<u8>> = events.into_iter().map(|stored| stored.bytes).collect();
            amount.attachments += put_attachments(store, &events, &mut written, out).await?;
            for (n, event) in events.iter().enumerate() {
                put(out, &line(*run, n, event))?;
                amount.events += 1;
            }
            amount.runs += 1;
        }
    }
    put(out, &json!({ "end": amount }))?;
    out.flush()?;
    Ok(amount)
}

/// Writes the attachments that `events` name and that were not `written` yet; gives how many.
async fn put_attachments(
    store: &dyn Store,
    events: &[Vec<u8>],
    written: &mut BTreeSet<Hash>,
    out: &mut (dyn Write + Send),
) -> Result<u64, ExchangeError> {
    let mut count = 0;
    for hash in events.iter().flat_map(|event| codec::named_in(event)) {
        if written.contains(&hash) {
            continue;
        }
        match store.attachment(hash).await {
            // It only looks like one.
            Err(StoreError::NoSuchAttachment(_)) => {}
            bytes => {
                put(out, &json!({ "attachment": hash.to_string(), "base64": STANDARD.encode(bytes?) }))?;
                written.insert(hash);
                count += 1;
            }
        }
    }
    Ok(count)
}

fn put(out: &mut (dyn Write + Send), line: &Value) -> Result<(), ExchangeError> {
    Ok(writeln!(out, "{line}")?)
}

fn line(run: RunId, n: usize, event: &[u8]) -> Value {
    let header = codec::header(event).ok();
    let kind = codec::decode(event).ok().map(|envelope| envelope.event.kind());
    json!({
        "event": STANDARD.encode(event),
        "run": run.to_string(),
        "n": n,
        "at": header.as_ref().map(|header| header.at.to_string()),
        "kind": kind,
        "actor": header.map(|header| header.actor),
        "hash": Hash::of(event).to_string(),
    })
}

/// Takes in what [`export`] wrote, as `actor`. What is there already is passed over; a run whose chain is not whole,
/// or that is another one here, is refused, and nothing after it is taken in.
pub async fn import(
    store: &dyn Store,
    actor: &Actor,
    from: &mut (dyn BufRead + Send),
) -> Result<Taken, ExchangeError> {
    let mut importing = Importing { store, actor, taken: Taken::default(), runs: Vec::new(), last: None };
    let mut ended = false;
    let mut count = 0;
    for (line, text) in (1..).zip(from.lines()) {
        count = line;
        let bad = |what: String| ExchangeError::Line { line, what };
        let value: Line = serde_json::from_str(&text?).map_err(|error| bad(error.to_string()))?;
        match value {
            _ if ended => return Err(bad("it comes after the end".to_owned())),
            Line::Begin { journal_export } if line == 1 && journal_export == FORMAT => {}
            Line::Begin { journal_export } => {
                return Err(bad(format!("format {journal_export} begins, this version knows {FORMAT}")));
            }
            _ if line == 1 => return Err(bad("it does not begin as an export does".to_owned())),
            Line::Attachment { attachment, base64 } => {
                let bytes = STANDARD.decode(base64).map_err(|error| bad(error.to_string()))?;
                let hash = attachment.parse::<Hash>().map_err(|error| bad(error.to_string()))?;
                if Hash::of(&bytes) != hash {
                    return Err(bad(format!("the attachment is not the one that {hash} names")));
                }
                store.attach(&bytes).await?;
                importing.taken.read.attachments += 1;
            }
            Line::Event { event, run } => {
                let bytes = STANDARD.decode(event).map_err(|error| bad(error.to_string()))?;
                let run = run.parse().map_err(|_| bad(format!("'{run}' is not the id of a run")))?;
                importing.event(run, bytes, line).await?;
            }
            Line::End { end } => {
                importing.finish(line).await?;
                if end != importing.taken.read {
                    return Err(bad(format!(
                        "{} runs, {} events and {} attachments should be there, which are not",
                        end.runs, end.events, end.attachments
                    )));
                }
                ended = true;
            }
        }
    }
    if ended {
        Ok(importing.taken)
    } else {
        let what = "it ends before its end; what came before is taken in".to_owned();
        Err(ExchangeError::Line { line: count, what })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Event { event: String, run: String },
    Attachment { attachment: String, base64: String },
    Begin { journal_export: u64 },
    End { end: Amount },
}

struct Importing<'a> {
    store: &'a dyn Store,
    actor: &'a Actor,
    taken: Taken,
    /// Whole runs, to be taken in together.
    runs: Vec<Adopted>,
    /// The run whose events are being read.
    last: Option<Adopted>,
}

impl Importing<'_> {
    async fn event(&mut self, run: RunId, bytes: Vec<u8>, line: usize) -> Result<(), ExchangeError> {
        if self.last.as_ref().is_some_and(|last| last.run != run) {
            self.end_of_run(line)?;
            if self.runs.len() >= AT_ONCE {
                self.take_in().await?;
            }
        }
        let last = self.last.get_or_insert_with(|| Adopted {
            claim: claim(run, self.actor, &bytes),
            run,
            events: Vec::new(),
        });
        last.events.push(bytes);
        Ok(())
    }

    /// What was read of a run must be whole, from its first event on.
    fn end_of_run(&mut self, line: usize) -> Result<(), ExchangeError> {
        let Some(run) = self.last.take() else { return Ok(()) };
        if let Some((flaw, what)) = verified::flaw(&run.events, run.run) {
            let what = format!("run {} before it: {}: {what}", run.run, flaw.as_str());
            return Err(ExchangeError::Line { line, what });
        }
        self.taken.read.runs += 1;
        self.taken.read.events += u64::try_from(run.events.len()).unwrap_or(u64::MAX);
        self.runs.push(run);
        Ok(())
    }

    async fn take_in(&mut self) -> Result<(), ExchangeError> {
        self.taken.new += self.store.adopt(std::mem::take(&mut self.runs)).await?;
        Ok(())
    }

    async fn finish(&mut self, line: usize) -> Result<(), ExchangeError> {
        self.end_of_run(line)?;
        self.take_in().await
    }
}

fn claim(run: RunId, actor: &Actor, first: &[u8]) -> Claim {
    let since = codec::header(first).map(|header| header.at).unwrap_or_default();
    Claim {
        run: run.to_string(),
        target: None,
        actor: actor.clone(),
        since,
        command: "journal import".to_owned(),
    }
}
