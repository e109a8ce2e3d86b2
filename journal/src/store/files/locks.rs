//! Who owns what: kernel locks (flock(2)), which end with the process that holds them, whatever becomes of it.
//!
//! An owner holds an exclusive lock. Whoever only looks takes a shared one for a moment, so that lookers never
//! mistake each other for an owner.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::super::{Claim, StoreError};
use super::folder::{self, failed};
use crate::clock::{Clock as _, SystemClock};

/// How long a claim waits for lookers to go away.
const LOOKERS: Duration = Duration::from_secs(2);
/// How often it tries meanwhile.
const PAUSE: Duration = Duration::from_millis(1);

/// An owner's lock; gone when dropped.
#[derive(Debug)]
pub(super) struct Owned {
    file: File,
}

impl Owned {
    /// Takes the lock at `path` for `claim`, or says that `what` is busy.
    pub(super) async fn take(path: PathBuf, what: &str, claim: &Claim) -> Result<Owned, StoreError> {
        let mut file = folder::private().open(&path).map_err(failed("open", &path))?;
        let deadline = SystemClock.monotonic() + LOOKERS;
        loop {
            match taken(file.try_lock()).map_err(failed("lock", &path))? {
                true if is_at(&file, &path).map_err(failed("look at", &path))? => break,
                // It was removed with its sealed run before it was locked.
                true => file = folder::private().open(&path).map_err(failed("open", &path))?,
                // A lock that cannot even be shared is an owner's.
                false if held(&path)? || SystemClock.monotonic() > deadline => {
                    return Err(StoreError::Busy {
                        what: what.to_owned(),
                        holder: holder(&path).await.map(Box::new),
                    });
                }
                false => SystemClock.sleep(PAUSE).await,
            }
        }
        let text = serde_json::to_vec(claim).map_err(|error| failed("write", &path)(error.into()))?;
        file.set_len(0).and_then(|()| file.write_all_at(&text, 0)).map_err(failed("write", &path))?;
        Ok(Owned { file })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // So that the next owner is not mistaken for this one before it has written its name. Nobody relies on it.
        let _ = self.file.set_len(0);
    }
}

/// Whether `file` is the one at `path`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let file = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an owner holds the lock at `path`.
pub(super) fn held(path: &Path) -> Result<bool, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(!taken(file.try_lock_shared()).map_err(failed("lock", path))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("open", path)(error)),
    }
}

/// A shared lock that keeps owners away while it lives, or `None` when there is one.
pub(super) fn look(path: &Path) -> Result<Option<File>, StoreError> {
    let file = folder::private().open(path).map_err(failed("open", path))?;
    let free = taken(file.try_lock_shared()).map_err(failed("lock", path))?;
    Ok(free.then_some(file))
}

fn taken(tried: Result<(), TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Who wrote its name into the lock at `path`. An owner does so right after taking it: that much is waited for.
async fn holder(path: &Path) -> Option<Claim> {
    for _ in 0..50 {
        let mut text = String::new();
        let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
        if let Some(claim) = read.ok().and_then(|_| serde_json::from_str(&text).ok()) {
            return Some(claim);
        }
        SystemClock.sleep(PAUSE).await;
    }
    None
}

/// The file at `path`, locked exclusively, or `None` when that took longer than `limit`.
pub(super) fn lock_within(path: &Path, limit: Duration) -> io::Result<Option<File>> {
    let file = folder::private().open(path)?;
    if taken(file.try_lock())? {
        return Ok(Some(file));
    }
    // The kernel wakes whoever waits for a lock, but knows no limit to the waiting: a thread waits in its place, and
    // what it gets too late it gives back.
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("journal lock".to_owned()).spawn(move || {
        let locked = loop {
            match file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                locked => break locked,
            }
        };
        // Nobody listens any more when it is too late.
        let _ = sender.send(locked.map(|()| file));
    })?;
    receiver.recv_timeout(limit).ok().transpose()
}
