//! A page of the events of the whole store: one burst's worth.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::super::{Numbered, Page};
use super::database::Broken;
use super::folder::Folder;
use super::locks;
use super::view::View;
use crate::event::RunId;
use crate::query::Query;

/// How many events are looked at for a page.
const LOOKED_AT: usize = 10_000;
/// How many bytes of events a page has, but for the last one.
const BYTES: usize = 1024 * 1024;
/// How often a sign of life is given meanwhile.
const BREATH: usize = 500;

/// The page that begins with number `from`.
pub(super) fn take(view: &View<'_>, folder: &Folder, query: &Query, from: u64) -> Result<Page, Broken> {
    let mut page = Page { end: view.next_seq()?, ..Page::default() };
    let mut wanted = BTreeMap::new();
    let mut bytes = 0;
    for (looked_at, place) in view.numbered_from(from).enumerate() {
        let (seq, run, n) = place?;
        if looked_at == LOOKED_AT || bytes > BYTES {
            page.next = Some(seq);
            break;
        }
        if looked_at % BREATH == 0 {
            view.alive();
        }
        let known = wanted.get(&run).copied();
        let is_wanted = known.map_or_else(|| asks_for(view, folder, query, run), Ok)?;
        wanted.insert(run, is_wanted);
        if !is_wanted {
            continue;
        }
        let event = view.event(run, n)?;
        if query.matches_event(&event.bytes) {
            if let Entry::Vacant(place) = page.beginnings.entry(run) {
                bytes += place.insert(view.event(run, 0)?.bytes).len();
            }
            bytes += event.bytes.len();
            page.events.push(Numbered { seq, run, n, bytes: event.bytes });
        }
    }
    Ok(page)
}

/// Whether `query` asks for events of `run`.
fn asks_for(view: &View<'_>, folder: &Folder, query: &Query, run: RunId) -> Result<bool, Broken> {
    let missing = || Broken::Damaged(format!("it lost run {run}"));
    let summary = view.record(run)?.ok_or_else(missing)?.summary;
    let mut held = Ok(false);
    let asks = query.matches_run(&summary, || {
        held = locks::held(&folder.run_lock(run));
        matches!(held, Ok(true))
    });
    held?;
    Ok(asks)
}
