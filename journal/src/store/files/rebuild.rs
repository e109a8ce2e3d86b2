//! Makes the database anew from all run files, and leaves a run in the journal that tells of it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::super::{Head, StoreError};
use super::database::{self, Broken, Turn};
use super::folder::{self, Folder, failed};
use super::intake;
use super::numbers::{self, Numbered, Numbers};
use super::sealed::Sealed;
use super::wal;
use crate::clock::{Clock as _, SystemClock};
use crate::codec::{self, CodecError};
use crate::event::{Actor, Detail, Envelope, Event, Hash, OnFailure, Process, RunId, RunStarted};

/// What came of making the database anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The run that tells of it.
    pub run: RunId,
    /// Where the old database is now, when there was one.
    pub set_aside: Option<PathBuf>,
    /// Why.
    pub reason: String,
    /// Runs found in the run files.
    pub runs: u64,
    /// Events found in the run files.
    pub events: u64,
}

/// Makes the first database of a journal, or one for run files that came without.
pub(super) fn make(turn: &Turn, folder: &Folder, patience: Duration) -> Result<(), StoreError> {
    let Numbered { ledger, numbers, .. } = numbers::number(folder)?;
    build(turn, folder, patience, numbers, ledger.head())
}

/// Sets the database aside and makes a new one.
pub(super) fn remake(
    turn: &Turn,
    folder: &Folder,
    patience: Duration,
    actor: Option<Actor>,
    reason: &str,
) -> Result<Rebuilt, StoreError> {
    prove_writable(folder)?;
    let set_aside = set_aside(folder)?;
    Sealed::mend(folder)?;
    let Numbered { mut ledger, mut numbers, next } = numbers::number(folder)?;
    let rebuilt = Rebuilt {
        run: RunId(SystemClock.mint()),
        set_aside,
        reason: reason.to_owned(),
        runs: u64::try_from(numbers.len()).unwrap_or(u64::MAX),
        events: numbers.values().map(|seqs| u64::try_from(seqs.len()).unwrap_or(u64::MAX)).sum(),
    };
    let told = tell(folder, &actor.unwrap_or_else(own_actor), &rebuilt)?;
    ledger.append(&intake::entries_of(folder, rebuilt.run, &told, 0, next)?)?;
    numbers.insert(rebuilt.run, (next..).take(told.len()).collect());
    build(turn, folder, patience, numbers, ledger.head())?;
    Ok(rebuilt)
}

/// A full disk can look like a damaged database; setting that aside would only make it worse.
fn prove_writable(folder: &Folder) -> Result<(), StoreError> {
    let path = folder.root().join("sled.probe");
    folder::replace(&path, &vec![0x5a; 1024 * 1024])?;
    folder::remove(&path)
}

fn set_aside(folder: &Folder) -> Result<Option<PathBuf>, StoreError> {
    let database = folder.database();
    if !database.exists() {
        return Ok(None);
    }
    let aside = folder.root().join(folder.damaged_name("sled", SystemClock.now()));
    fs::rename(&database, &aside).map_err(failed("set aside", &database))?;
    folder::sync(folder.root())?;
    Ok(Some(aside))
}

/// Makes a database elsewhere, and puts it in place when it is whole.
fn build(
    turn: &Turn,
    folder: &Folder,
    patience: Duration,
    numbers: Numbers,
    ledger: Head,
) -> Result<(), StoreError> {
    folder.remove_unfinished_databases()?;
    let path = folder.database_in_making(SystemClock.mint());
    folder::make(&path)?;
    let files = folder.clone();
    let next = database::burst(turn, &path, patience, move |session| {
        session.begin();
        let mut next = 1;
        for (run, seqs) in numbers {
            session.alive();
            next = seqs.last().map_or(next, |last| next.max(last + 1));
            let mut events = wal::read(&files.run_file(run), run)?.events;
            // What came after it was numbered is brought in like all that is new.
            events.truncate(seqs.len());
            intake::put(session, None, run, &events, 0, seqs)?;
            if session.is_large() {
                session.commit()?;
            }
        }
        session.set_next(next);
        session.set_ledger(ledger);
        Ok(next)
    });
    let next = next.map_err(|broken| explain(&path, broken))?;
    let place = folder.database();
    put_in_place(&path, &place)?;
    folder::sync(folder.root())?;
    database::set_head(folder, next)
}

/// Puts the database at `path` into its `place`. One that is there is exchanged with it, and then removed.
fn put_in_place(path: &Path, place: &Path) -> Result<(), StoreError> {
    if !place.exists() {
        return fs::rename(path, place).map_err(failed("put in place", place));
    }
    renameat_with(CWD, path, CWD, place, RenameFlags::EXCHANGE)
        .map_err(|error| failed("put in place", place)(error.into()))?;
    // What stays of it goes before the next database is made.
    let _ = fs::remove_dir_all(path);
    Ok(())
}

/// Makes the database anew beside the one there is, which is right but larger than it need be.
pub(super) fn compact(turn: &Turn, folder: &Folder, patience: Duration) -> Result<(), StoreError> {
    let Numbered { ledger, numbers, .. } = numbers::number(folder)?;
    build(turn, folder, patience, numbers, ledger.head())
}

/// A burst's error, when making the database anew is no way out.
pub(super) fn explain(path: &Path, broken: Broken) -> StoreError {
    match broken {
        Broken::Store(error) => error,
        Broken::Damaged(what) | Broken::Refused(what) => {
            StoreError::Database { path: path.to_path_buf(), what }
        }
    }
}

/// Writes the run that tells of it, as a run file like any other; gives its events.
fn tell(folder: &Folder, actor: &Actor, rebuilt: &Rebuilt) -> Result<Vec<Vec<u8>>, StoreError> {
    let name = rebuilt.set_aside.as_ref().map(|path| path.display().to_string());
    let facts = [
        Event::RunStarted(Box::new(started())),
        Event::JournalRebuilt {
            set_aside: name.unwrap_or_default(),
            reason: rebuilt.reason.clone(),
            runs: rebuilt.runs,
            events: rebuilt.events,
        },
        Event::RunSucceeded,
    ];
    let path = folder.run_file(rebuilt.run);
    let mut events: Vec<Vec<u8>> = Vec::new();
    for (n, event) in (0..).zip(facts) {
        let envelope = Envelope {
            run: rebuilt.run,
            n,
            id: SystemClock.mint(),
            at: SystemClock.now(),
            epoch: 1,
            actor: actor.clone(),
            prev: events.last().map_or(Hash::ZERO, |event| Hash::of(event)),
            event,
        };
        let not_encoded = |error: CodecError| failed("write", &path)(std::io::Error::other(error));
        events.push(codec::encode(&envelope).map_err(not_encoded)?);
    }
    folder::open(&folder.marker(rebuilt.run))?;
    wal::replace(&path, events.iter().map(Vec::as_slice))?;
    Ok(events)
}

fn started() -> RunStarted {
    RunStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: "journal".to_owned(),
        arguments: vec!["rebuild".to_owned()],
        section: None,
        database: None,
        target: None,
        read_only: false,
        on_failure: OnFailure::Rollback,
        retry_limit_ms: 0,
        settings: Detail::new(),
        plan: Vec::new(),
        process: own_process(),
    }
}

/// Who made the database anew, when nobody has claimed a run through this store yet.
fn own_actor() -> Actor {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let user = env::var("USER").or_else(|_| env::var("LOGNAME"));
    Actor {
        user: user.unwrap_or_else(|_| format!("uid {}", rustix::process::geteuid().as_raw())),
        host: host.trim().to_owned(),
        pid: process::id(),
    }
}

/// proc(5): after the program's name, which is in parentheses and may hold anything, the start time is field 22.
fn own_process() -> Process {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let start_time = after_name.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok());
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Process {
        pid: process::id(),
        start_time: start_time.unwrap_or_default(),
        boot_id: boot_id.trim().to_owned(),
    }
}
