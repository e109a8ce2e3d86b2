//! How far the step of a run at work is: a small file beside the run's, for others to see.
//!
//! It is no fact, so it is written at a human pace, never synced, and gone with its owner. What a crash leaves of it is
//! taken away by the next owner; until then nobody owns the run, and nobody looks at it.

use std::borrow::Cow;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::folder;
use crate::clock::SystemClock;
use crate::event::RunId;
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
        let board = Board { path, last: None };
        board.clear();
        board
    }

    /// Shows this, unless something was shown a moment ago. The run does not depend on whether that works.
    pub(super) fn show(&mut self, progress: &Progress) {
        let now = SystemClock.monotonic();
        if self.last.is_some_and(|last| now.duration_since(last) < PACE) {
            return;
        }
        self.last = Some(now);
        let Progress { step, done, total, unit, .. } = progress;
        let shown =
            Shown { step: Cow::Borrowed(step), done: *done, total: *total, unit: Cow::Borrowed(unit) };
        if let (Ok(text), Ok(mut file)) =
            (serde_json::to_vec(&shown), folder::private().truncate(true).open(&self.path))
        {
            let _ = file.write_all(&text);
        }
    }

    fn clear(&self) {
        // One that stays is taken away by the next owner.
        let _ = folder::remove(&self.path);
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What the owner of `run` shows in the file at `path`; nothing when it is not whole.
pub(super) fn read(path: &Path, run: RunId) -> Option<Progress> {
    let Shown { step, done, total, unit } = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(Progress { run, step: step.into_owned(), done, total, unit: unit.into_owned().into() })
}
