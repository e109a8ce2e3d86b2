//! Takes in many runs of another journal at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{Adopted, StoreError};
use super::folder;
use super::upkeep::{Bring, Inner};
use super::wal;
use crate::event::RunId;

/// Writes the files of those `runs` that are not there at all, and brings them into the database. Gives how many events
/// that were, and the runs of which something is there.
pub(super) fn write_new(inner: &Arc<Inner>, runs: Vec<Adopted>) -> Result<(u64, Vec<Adopted>), StoreError> {
    let ids: Vec<RunId> = runs.iter().map(|adopted| adopted.run).collect();
    let known: BTreeSet<RunId> = inner.burst(Bring::Marked, move |view| {
        let mut known = BTreeSet::new();
        for run in &ids {
            if view.record(*run)?.is_some() {
                known.insert(*run);
            }
        }
        Ok(known)
    })?;
    let is_new = |adopted: &Adopted| {
        let folder = &inner.folder;
        !known.contains(&adopted.run)
            && !folder.run_file(adopted.run).exists()
            && !folder.run_lock(adopted.run).exists()
    };
    let (new, known): (Vec<Adopted>, Vec<Adopted>) = runs.into_iter().partition(is_new);
    let mut events = 0;
    for adopted in &new {
        // The marker first: whatever happens, the next burst looks at the file.
        folder::open(&inner.folder.marker(adopted.run))?;
        wal::replace(&inner.folder.run_file(adopted.run), adopted.events.iter().map(Vec::as_slice))?;
        events += u64::try_from(adopted.events.len()).unwrap_or(u64::MAX);
    }
    inner.burst(Bring::Marked, |_| Ok(()))?;
    Ok((events, known))
}
