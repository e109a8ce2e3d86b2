//! Takes in many runs of another journal at once.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::super::{Adopted, StoreError};
use super::folder::{self, failed};
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
    let folder = &inner.folder;
    let mut events = 0;
    // The markers first: whatever happens, the next burst looks at the files. It also makes their content durable.
    for adopted in &new {
        let marker = folder.marker(adopted.run);
        folder::private().open(&marker).map_err(failed("create", &marker))?;
    }
    folder::sync(&folder.open_runs())?;
    for adopted in &new {
        let path = folder.run_file(adopted.run);
        let frames: Vec<u8> = adopted.events.iter().flat_map(|event| wal::frame(event)).collect();
        let file = folder::private().open(&path).map_err(failed("create", &path))?;
        file.write_all_at(&frames, 0).map_err(failed("write", &path))?;
        events += u64::try_from(adopted.events.len()).unwrap_or(u64::MAX);
    }
    folder::sync(&folder.runs())?;
    inner.burst(Bring::Marked, |_| Ok(()))?;
    Ok((events, known))
}
