//! The database that is queried: sled 0.34.7, opened for a burst at a time and never trusted.
//!
//! What its source and our trials say of it, and what is done about it here:
//!
//! - One process at a time may open it, and its own lock is let go a moment after it is dropped, by a thread of its
//!   own. A burst therefore happens under a lock of ours and ends when sled's lock is free again.
//! - `flush` on Linux is `sync_file_range`, which makes nothing durable: after it, `db` is synced through a second
//!   handle, and the folder for the names in it.
//! - A kill while it opens can leave `snap.*.generating`, which it takes for its newest snapshot ever after: those
//!   are removed before it is opened.
//! - Damaged files make it return errors, panic, or turn in a circle. It works in a thread of its own, whose panics
//!   are caught, and which is left to itself when it shows no sign of life for too long. It reaches its folder
//!   through a handle, so that a thread left to itself never touches what was later put at the same path.
//! - A file that was cut off opens as an older database, without a word: the head file says how far it had come.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::super::StoreError;
use super::folder::{self, Folder, failed};
use super::locks;
use super::session::Session;

const THREAD: &str = "journal database";
/// How long a burst waits for those of other processes, each of which may have to make the database anew.
const TURN: Duration = Duration::from_secs(120);

/// Why a burst came to nothing.
#[derive(Debug)]
pub(super) enum Broken {
    /// The database is not what was written: it has to be made anew.
    Damaged(String),
    /// It cannot be used now, for reasons outside of it.
    Refused(String),
    /// Something else went wrong.
    Store(StoreError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Broken::Store(error)
    }
}

impl From<::sled::Error> for Broken {
    fn from(error: ::sled::Error) -> Self {
        use io::ErrorKind as Kind;
        match error {
            ::sled::Error::Io(error) => match error.kind() {
                Kind::UnexpectedEof | Kind::InvalidData | Kind::InvalidInput | Kind::NotFound => {
                    Broken::Damaged(error.to_string())
                }
                _ => Broken::Refused(error.to_string()),
            },
            ::sled::Error::Corruption { .. } => {
                Broken::Damaged("its bytes are not what was written".to_owned())
            }
            other => Broken::Damaged(other.to_string()),
        }
    }
}

/// The right to open the database, among all processes.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: File,
}

/// Waits for the database to be free.
pub(super) fn take_turn(folder: &Folder) -> Result<Turn, StoreError> {
    let path = folder.database_lock();
    match locks::lock_within(&path, TURN).map_err(failed("lock", &path))? {
        Some(lock) => Ok(Turn { _lock: lock }),
        None => Err(StoreError::Database {
            path: folder.database(),
            what: format!("other processes have been using it for {} seconds", TURN.as_secs()),
        }),
    }
}

/// Opens the database at `path`, does `work` with it, and closes it again, durable. `path` must exist; an empty
/// folder becomes an empty database. After `patience` without a sign of life it counts as damaged.
pub(super) fn burst<T: Send + 'static>(
    _turn: &Turn,
    path: &Path,
    patience: Duration,
    work: impl FnOnce(&Session) -> Result<T, Broken> + Send + 'static,
) -> Result<T, Broken> {
    keep_panics_quiet();
    let (sender, receiver) = mpsc::channel();
    let place = path.to_path_buf();
    let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        let alive = sender.clone();
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| perform(&place, alive, work)));
        // Nobody listens any more when it took too long.
        let _ = sender.send(Sign::Over(outcome.unwrap_or_else(|panic| Err(panicked(&*panic)))));
    });
    let thread = thread.map_err(failed("start a thread for", path))?;
    // In two halves: when this process was stopped for a while, the thread gets another chance after the first one.
    let mut halves = 0;
    loop {
        match receiver.recv_timeout(patience / 2) {
            Ok(Sign::Alive) => halves = 0,
            Ok(Sign::Over(outcome)) => {
                // Its panics are caught and were sent.
                let _ = thread.join();
                // A damaged one may stay open for good, and is not opened again.
                if !matches!(outcome, Err(Broken::Damaged(_))) {
                    wait_until_closed(path, patience)?;
                }
                return outcome;
            }
            Err(RecvTimeoutError::Timeout) if halves == 0 => halves += 1,
            Err(RecvTimeoutError::Timeout) => {
                let seconds = patience.as_secs_f32();
                return Err(Broken::Damaged(format!("no sign of life for {seconds} seconds")));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Broken::Damaged("its thread ended without a word".to_owned()));
            }
        }
    }
}

enum Sign<T> {
    Alive,
    Over(Result<T, Broken>),
}

fn perform<T: Send + 'static>(
    path: &Path,
    alive: Sender<Sign<T>>,
    work: impl FnOnce(&Session) -> Result<T, Broken>,
) -> Result<T, Broken> {
    let handle = File::open(path).map_err(failed("open", path))?;
    let by_handle = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let place = if by_handle.exists() { &by_handle } else { path };
    remove_unfinished_snapshots(place)?;
    // Nobody listens any more when it took too long.
    let session = Session::open(place, Box::new(move || drop(alive.send(Sign::Alive))))?;
    let done = work(&session)?;
    session.close(place, &handle)?;
    Ok(done)
}

fn remove_unfinished_snapshots(path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            folder::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// sled's threads may hold its file, and so its lock, a little longer than its owner.
fn wait_until_closed(path: &Path, patience: Duration) -> Result<(), Broken> {
    let file = path.join("db");
    if !file.exists() {
        return Ok(());
    }
    match locks::lock_within(&file, patience).map_err(failed("lock", &file))? {
        Some(_) => Ok(()),
        None => Err(Broken::Refused("it is still open".to_owned())),
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Broken {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Broken::Damaged(format!("it panicked: {}", text.unwrap_or("without a message")))
}

/// What panics in sled's threads is told as a notice, in our words; the default hook would print it as well.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let quiet = |name: &str| name == THREAD || name.starts_with("sled-io");
            if !thread::current().name().is_some_and(quiet) {
                before(panic);
            }
        }));
    });
}

/// How far the database had come when it was last closed: the number that its next event would have got. `None`
/// when it was never closed.
pub(super) fn head(folder: &Folder) -> Result<Option<u64>, StoreError> {
    let path = folder.head();
    match fs::read_to_string(&path) {
        // A power cut may leave it empty; then it says no more than that there was a database.
        Ok(text) => Ok(Some(text.trim().parse().unwrap_or(1))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// Notes how far the database has come. It lags behind when a crash comes first, which does no harm.
pub(super) fn set_head(folder: &Folder, next: u64) -> Result<(), StoreError> {
    let path = folder.head();
    let file = folder::open(&path)?;
    file.write_all_at(format!("{next:020}\n").as_bytes(), 0).map_err(failed("write", &path))
}
