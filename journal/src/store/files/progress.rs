//! How far the step of a run at work is: a small file beside the run's, for others to see.
//!
//! It is no fact, so it is written at a human pace, never synced, and gone with its owner. It is put in place whole: whoever
//! looks sees the last one or the one before it, also while its owner is held still. What a crash leaves of it is taken
//! away by the next owner; until then nobody owns the run, and nobody looks at it.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::StoreError;
use super::folder;
use crate::clock::SystemClock;
use crate::event::{Detail, RunId};
use crate::step::Progress;

/// Between two writings.
const PACE: Duration = Duration::from_millis(500);

/// As it is in the file.
#[derive(Serialize, Deserialize)]
struct Shown<'a> {
    step: Cow<'a, str>,
    done: u64,
    total: Option<u64>,
    unit: Cow<'a, str>,
    /// Older versions neither write nor read it.
    #[serde(default, skip_serializing_if = "has_nothing")]
    detail: Cow<'a, Detail>,
}

fn has_nothing(detail: &Detail) -> bool {
    detail.is_empty()
}

/// The owner's side.
#[derive(Debug)]
pub(super) struct Board {
    path: PathBuf,
    last: Option<Instant>,
}

impl Board {
    /// For a new owner: what an earlier one left is taken away.
    pub(super) fn new(path: PathBuf) -> Board {
        // What stays is taken away by the next owner, here and in the end.
        let _ = clear(&path);
        Board { path, last: None }
    }

    /// Shows this, unless something was shown a moment ago. The run does not depend on whether that works.
    pub(super) fn show(&mut self, progress: &Progress) {
        let now = SystemClock.monotonic();
        if self.last.is_some_and(|last| now.duration_since(last) < PACE) {
            return;
        }
        self.last = Some(now);
        let Progress { step, done, total, unit, detail, .. } = progress;
        let shown = Shown {
            step: Cow::Borrowed(step),
            done: *done,
            total: *total,
            unit: Cow::Borrowed(unit),
            detail: Cow::Borrowed(detail),
        };
        let _ = self.put(&shown);
    }

    fn put(&self, shown: &Shown<'_>) -> io::Result<()> {
        let beside = beside(&self.path);
        let mut file = folder::private().truncate(true).open(&beside)?;
        file.write_all(&serde_json::to_vec(shown)?)?;
        fs::rename(&beside, &self.path)
    }
}

/// Where the file is written before it is put in place at `path`.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("progress.new")
}

/// Takes away what is shown at `path`.
pub(super) fn clear(path: &Path) -> Result<(), StoreError> {
    folder::remove(path)?;
    folder::remove(&beside(path))
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = clear(&self.path);
    }
}

/// What the owner of `run` shows in the file at `path`; nothing when it is not whole.
pub(super) fn read(path: &Path, run: RunId) -> Option<Progress> {
    let Shown { step, done, total, unit, detail } = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let (step, unit) = (step.into_owned(), unit.into_owned().into());
    Some(Progress { run, step, done, total, unit, detail: detail.into_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(text: &str) -> Option<Progress> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.progress");
        fs::write(&path, text).unwrap();
        read(&path, RunId(uuid::Uuid::from_u128(1)))
    }

    #[test]
    fn what_an_older_or_a_newer_version_shows_is_read_as_far_as_it_is_known() {
        let plain = json!({ "step": "restore", "done": 7, "total": 14, "unit": "bytes" });
        let older = shown(&plain.to_string()).unwrap();
        assert_eq!((older.done, older.total, older.detail.is_empty()), (7, Some(14), true));
        let mut newer = plain;
        newer["detail"] = json!({ "left_ms": 9, "of_a_later_version": [1] });
        newer["of_a_later_version"] = json!(true);
        let newer = shown(&newer.to_string()).unwrap();
        assert_eq!(newer, Progress { detail: newer.detail.clone(), ..older });
        assert_eq!(newer.detail["left_ms"], 9);
        assert_eq!(shown("{\"step\":\"restore\",\"do"), None);
    }
}
