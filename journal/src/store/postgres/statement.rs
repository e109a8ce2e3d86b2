//! What is said to the server: calls of the functions in `schema.sql`, and selections of one line.

use std::time::Duration;

use uuid::Uuid;

use super::super::Claim;
use super::answer;
use crate::codec;
use crate::event::{Hash, RunId};
use crate::query::{Query, Shown, Summary};
use crate::run::Status;
use crate::step::Progress;

pub(super) fn claim(run: RunId, claim: &Claim, id: Uuid, lease: Duration) -> String {
    let holder = serde_json::to_string(claim).unwrap_or_default();
    format!(
        "SELECT epoch, events, head, busy, holder FROM staging_journal.claim('{run}', {}, '{id}', {}, {})",
        optional(claim.target.as_deref()),
        literal(&holder),
        interval(lease)
    )
}

/// Event `n` after the one with the hash `before`; `summary` is that of the run with this event.
pub(super) fn append(
    run: RunId,
    epoch: u64,
    n: u64,
    before: Hash,
    bytes: &[u8],
    summary: &Summary,
) -> String {
    let (at, actor) = at_and_actor(bytes);
    let named = codec::named_in(bytes);
    format!(
        "SELECT staging_journal.append('{run}', {epoch}, {n}, {}, {}, {}, {at}, {actor}, {}, {})",
        bytea(&before.0),
        bytea(&Hash::of(bytes).0),
        bytea(bytes),
        array("bytea", named.iter().map(|hash| bytea(&hash.0))),
        of_summary(summary)
    )
}

/// All events of a run that is not there yet; `summary` is that of the run with the last.
pub(super) fn adopt(run: RunId, events: &[Vec<u8>], summary: &Summary) -> String {
    let (ats, actors): (Vec<String>, Vec<String>) = events.iter().map(|event| at_and_actor(event)).unzip();
    let named = (0_u64..)
        .zip(events)
        .flat_map(|(n, event)| codec::named_in(event).into_iter().map(move |hash| (n, hash)));
    let (named_by, named): (Vec<String>, Vec<String>) =
        named.map(|(n, hash)| (n.to_string(), bytea(&hash.0))).unzip();
    format!(
        "SELECT staging_journal.adopt('{run}', {}, {}, {}, {}, {}, {}, {})",
        array("bytea", events.iter().map(|event| bytea(&Hash::of(event).0))),
        array("bytea", events.iter().map(|event| bytea(event))),
        array("timestamptz", ats.into_iter()),
        array("text", actors.into_iter()),
        array("bigint", named_by.into_iter()),
        array("bytea", named.into_iter()),
        of_summary(summary)
    )
}

/// What an encoded event says of itself, where this version can read it.
fn at_and_actor(event: &[u8]) -> (String, String) {
    let header = codec::header(event).ok();
    let at = header.as_ref().map(|header| header.at.to_string());
    (optional(at.as_deref()), optional(header.as_ref().map(|header| header.actor.user.as_str())))
}

fn of_summary(summary: &Summary) -> String {
    format!(
        "'{}', {}, {}, {}, {}, {}",
        summary.started_at,
        optional(summary.status.map(Status::as_str)),
        literal(&summary.command),
        optional(summary.section.as_deref()),
        literal(&summary.user),
        summary.read_only
    )
}

pub(super) fn prune(run: RunId) -> String {
    let finished = answer::STATUSES.into_iter().filter(|status| status.is_finished());
    let finished = array("text", finished.map(|status| literal(status.as_str())));
    format!("SELECT staging_journal.prune('{run}', {finished})")
}

pub(super) fn tidy() -> String {
    "SELECT staging_journal.tidy()".to_owned()
}

/// The last entry of the ledger, and the hash that it carries.
pub(super) fn head() -> String {
    "SELECT entry, encode(chain, 'hex') FROM staging_journal.journal".to_owned()
}

/// The entries of the ledger after number `after` and up to `to`, no more than `limit`: number, fact, run, number in the
/// run, number in the store, hash, chain.
pub(super) fn ledger(after: u64, to: u64, limit: usize) -> String {
    format!(
        "SELECT entry, fact, run, n, seq, encode(hash, 'hex'), encode(chain, 'hex') FROM staging_journal.ledger \
         WHERE entry > {after} AND entry <= {to} ORDER BY entry LIMIT {limit}"
    )
}

/// The rows of runs: id, how many events there should be, hash of the last.
pub(super) fn run_rows() -> String {
    "SELECT id, events, encode(head, 'hex') FROM staging_journal.run WHERE events > 0 ORDER BY id".to_owned()
}

/// The hashes under which attachments are stored.
pub(super) fn attachments() -> String {
    "SELECT encode(hash, 'hex') FROM staging_journal.attachment ORDER BY hash".to_owned()
}

pub(super) fn renew(run: RunId, epoch: u64, lease: Duration) -> String {
    format!("SELECT staging_journal.renew('{run}', {epoch}, {})", interval(lease))
}

pub(super) fn release(run: RunId, epoch: u64) -> String {
    format!("SELECT staging_journal.release('{run}', {epoch})")
}

pub(super) fn show(run: RunId, epoch: u64, progress: &str) -> String {
    format!("SELECT staging_journal.show('{run}', {epoch}, {})", literal(progress))
}

/// The events of these runs, run by run: id, number in the store, bytes.
pub(super) fn events_of(runs: &[RunId]) -> String {
    let ids = list(runs.iter().map(|run| format!("'{run}'")));
    format!(
        "SELECT run, seq, encode(bytes, 'hex') FROM staging_journal.event WHERE run IN ({ids}) ORDER BY run, n"
    )
}

/// The bytes of a run's events from number `n` on.
pub(super) fn events_from(run: RunId, n: u64) -> String {
    format!(
        "SELECT encode(bytes, 'hex') FROM staging_journal.event WHERE run = '{run}' AND n >= {n} ORDER BY n"
    )
}

/// The first events of these runs: id and bytes.
pub(super) fn beginnings(runs: impl Iterator<Item = RunId>) -> String {
    let ids = list(runs.map(|run| format!("'{run}'")));
    format!("SELECT run, encode(bytes, 'hex') FROM staging_journal.event WHERE n = 0 AND run IN ({ids})")
}

/// The number of the last event.
pub(super) fn last_number() -> String {
    "SELECT seq FROM staging_journal.journal".to_owned()
}

/// The first `limit` events that `query` asks for, of the numbers from `from` to `to`: number, run, number in it, bytes.
pub(super) fn page(query: &Query, from: u64, to: u64, limit: usize) -> String {
    let mut wanted = of_run("run.", query);
    wanted.push(format!("event.seq BETWEEN {from} AND {to}"));
    wanted.extend(query.user.as_ref().map(|user| format!("event.actor = {}", literal(user))));
    wanted.extend(query.since.map(|since| format!("event.at >= '{since}'")));
    wanted.extend(query.until.map(|until| format!("event.at < '{until}'")));
    format!(
        "SELECT event.seq, event.run, event.n, encode(event.bytes, 'hex') \
         FROM staging_journal.event JOIN staging_journal.history AS run ON run.id = event.run \
         WHERE {} ORDER BY event.seq LIMIT {limit}",
        wanted.join(" AND ")
    )
}

/// Whether somebody owns the run, and what that one shows.
pub(super) fn owner(run: RunId) -> String {
    format!(
        "SELECT held, CASE WHEN held THEN progress END \
         FROM (SELECT expires > statement_timestamp() AS held, progress FROM staging_journal.run WHERE id = '{run}') AS run"
    )
}

pub(super) fn runs(query: &Query) -> String {
    let mut wanted = of_run("", query);
    wanted.extend(query.before.map(|before| format!("id < '{before}'")));
    wanted.extend(query.user.as_ref().map(|user| format!("actor = {}", literal(user))));
    wanted.extend(query.since.map(|since| format!("started_at >= '{since}'")));
    wanted.extend(query.until.map(|until| format!("started_at < '{until}'")));
    let limit = query.limit.map_or_else(|| "ALL".to_owned(), |limit| limit.to_string());
    format!(
        "SELECT id, extract(epoch FROM started_at) * 1000000, status, command, section, actor, read_only \
         FROM staging_journal.history WHERE {} ORDER BY id DESC LIMIT {limit}",
        wanted.join(" AND ")
    )
}

/// What [`Query::matches_run`] looks at, of the columns with that prefix.
fn of_run(prefix: &str, query: &Query) -> Vec<String> {
    let mut wanted = vec!["true".to_owned()];
    let mut equal = |column: &str, value: &Option<String>| {
        wanted.extend(value.as_ref().map(|value| format!("{prefix}{column} = {}", literal(value))));
    };
    equal("section", &query.section);
    equal("command", &query.command);
    equal("shown", &query.status);
    wanted.extend(query.status.as_deref().map(|word| format!("{prefix}{}", stored_as(word))));
    wanted.extend((!query.read_only).then(|| format!("NOT {prefix}read_only")));
    wanted
}

/// What the status of runs that are shown with `word` may be, for the index.
fn stored_as(word: &str) -> String {
    let may_be = |status| [true, false].iter().any(|held| Shown::of(status, *held).as_str() == word);
    let known = answer::STATUSES.into_iter().filter(|status| may_be(Some(*status)));
    let known: Vec<String> = known.map(|status| literal(status.as_str())).collect();
    match (known.is_empty(), may_be(None)) {
        (false, _) => format!("status IN ({})", known.join(", ")),
        (true, true) => "status IS NULL".to_owned(),
        (true, false) => "status IN (NULL)".to_owned(),
    }
}

pub(super) fn find(part: &str) -> String {
    let part: String = part.chars().filter(|c| *c != '-').flat_map(char::to_lowercase).collect();
    let wanted = match Uuid::try_parse(&part) {
        Ok(id) => format!("id = '{id}'"),
        Err(_) if part.is_empty() => "false".to_owned(),
        Err(_) => format!("position({} IN encode(uuid_send(id), 'hex')) > 0", literal(&part)),
    };
    format!("SELECT id FROM staging_journal.history WHERE {wanted} ORDER BY id DESC")
}

pub(super) fn attach(hash: Hash, bytes: &[u8]) -> String {
    format!("SELECT staging_journal.attach({}, {})", bytea(&hash.0), bytea(bytes))
}

pub(super) fn attachment(hash: Hash) -> String {
    format!("SELECT encode(bytes, 'hex') FROM staging_journal.attachment WHERE hash = {}", bytea(&hash.0))
}

/// What is shown of the progress of a run, as it is stored.
pub(super) fn progress_text(progress: &Progress) -> String {
    let Progress { step, done, total, unit, detail, .. } = progress;
    serde_json::json!({ "step": step, "done": done, "total": total, "unit": unit, "detail": detail })
        .to_string()
}

fn bytea(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).map(|digit| char::from(*digit));
    let digits: String =
        bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten().collect();
    format!("decode('{digits}', 'hex')")
}

/// What stands in the brackets of `IN`, where something has to.
fn list(items: impl Iterator<Item = String>) -> String {
    std::iter::once("NULL".to_owned()).chain(items).collect::<Vec<_>>().join(", ")
}

fn array(of: &str, items: impl Iterator<Item = String>) -> String {
    format!("ARRAY[{}]::{of}[]", items.collect::<Vec<_>>().join(", "))
}

fn interval(length: Duration) -> String {
    format!("interval '{} milliseconds'", length.as_millis())
}

fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), literal)
}

/// `text` as an SQL string, whatever `standard_conforming_strings` says. No text that PostgreSQL keeps has a NUL.
fn literal(text: &str) -> String {
    let quoted = text.replace('\0', "").replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}
