//! A page of the events of the whole store. Events are numbered in the order in which they become visible (see
//! `schema.sql`), so that none comes later among those that were read.

use std::collections::BTreeSet;

use super::super::{Numbered, Page, StoreError};
use super::link::Link;
use super::{answer, statement};
use crate::event::RunId;
use crate::query::Query;

/// How many events a page has; each may have 8 KiB.
const EVENTS: usize = 128;

/// How many are looked at for a page: a moment's work for the server, whatever is asked for.
const LOOKED_AT: u64 = 20_000;

/// The page that begins with number `from`.
pub(super) async fn take(link: &Link, query: &Query, from: u64) -> Result<Page, StoreError> {
    let not_understood = || link.not_understood("a question for events");
    let last = link.rows(&statement::last_number()).await?.into_iter().flatten().flatten().next();
    let last: u64 = last.and_then(|last| last.parse().ok()).ok_or_else(not_understood)?;
    let to = last.min(from.saturating_add(LOOKED_AT - 1));
    let rows = link.rows(&statement::page(query, from, to, EVENTS)).await?;
    let events: Option<Vec<Numbered>> = rows.iter().map(answer::numbered).collect();
    let events = events.ok_or_else(not_understood)?;
    let runs: BTreeSet<RunId> = events.iter().map(|event| event.run).collect();
    let beginnings = link.rows(&statement::beginnings(runs.into_iter())).await?;
    let beginnings = beginnings.iter().map(answer::beginning).collect::<Option<_>>();
    let seen = events.last().filter(|_| events.len() == EVENTS).map_or(to, |event| event.seq);
    Ok(Page {
        next: (seen < last).then_some(seen + 1),
        beginnings: beginnings.ok_or_else(not_understood)?,
        end: last + 1,
        events,
    })
}
