//! Takes in many runs of another journal at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{Adopted, StoreError};
use super::folder::{self, failed};
use super::upkeep::{Bring, Inner};
use super::wal;
use crate::event::RunId;

/// Writes the files of those `runs` that are not there at all, and brings them into the database. Gives how many events
/// that were, and the runs of which something is there, but not all.
pub(super) fn write_new(inner: &Arc<Inner>, runs: Vec<Adopted>) -> Result<(u64, Vec<Adopted>), StoreError> {
    let runs = Arc::new(runs);
    let asked = Arc::clone(&runs);
    let there: BTreeMap<RunId, bool> = inner.burst(Bring::Marked, move |view| {
        let mut there = BTreeMap::new();
        for adopted in &*asked {
            let events = view.events(adopted.run)?;
            if !events.is_empty() {
                let events: Vec<Vec<u8>> = events.into_iter().map(|stored| stored.bytes).collect();
                there.insert(adopted.run, events.starts_with(&adopted.events));
            }
            view.alive();
        }
        Ok(there)
    })?;
    let folder = &inner.folder;
    let is_new = |adopted: &Adopted| {
        !there.contains_key(&adopted.run)
            && !folder.run_file(adopted.run).exists()
            && !folder.run_lock(adopted.run).exists()
    };
    let missing = Arc::unwrap_or_clone(runs).into_iter().filter(|run| there.get(&run.run) != Some(&true));
    let (new, known): (Vec<Adopted>, Vec<Adopted>) = missing.partition(is_new);
    // The markers first: whatever happens, the next burst looks at the files.
    for adopted in &new {
        let marker = folder.marker(adopted.run);
        folder::private().open(&marker).map_err(failed("create", &marker))?;
    }
    folder::sync(&folder.open_runs())?;
    let frames = |adopted: &Adopted| adopted.events.iter().flat_map(|event| wal::frame(event)).collect();
    let files = new.iter().map(|adopted| (folder.run_file(adopted.run), frames(adopted)));
    folder::add_all(&folder.runs(), files)?;
    let events = new.iter().map(|adopted| u64::try_from(adopted.events.len()).unwrap_or(u64::MAX)).sum();
    inner.burst(Bring::Marked, |_| Ok(()))?;
    Ok((events, known))
}
