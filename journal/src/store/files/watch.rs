//! Looks on while a run's owner appends to its file. Nothing is locked, and the database is not opened.
//!
//! The kernel tells what happens in the folder of the run files (inotify(7)): an append, another file put in place, and
//! by the closing of the lock's file that its owner is gone. Where it cannot tell, for want of inotify instances or on a
//! file system that others write to, a slow tick of the clock makes up for it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::{Seen, StoreError, Watch};
use super::folder::{Folder, failed};
use super::{locks, progress, wal};
use crate::clock::{Clock as _, SystemClock};
use crate::event::RunId;
use crate::step::Progress;

/// How often it is looked when the kernel says nothing.
const TICK: Duration = Duration::from_secs(1);
/// The kernel tells that a file is closed a moment before it lets go of the lock on it.
const MOMENT: Duration = Duration::from_millis(20);

/// A run's file, its lock, and what is shown of its progress.
pub(super) struct FileWatch {
    folder: Folder,
    run: RunId,
    /// Events that are in the database alone.
    kept: Vec<Vec<u8>>,
    /// Up to where the file was read.
    offset: u64,
    /// How many events came before that.
    count: u64,
    /// What else was given last.
    last: Option<(bool, Option<Progress>)>,
    told: Option<AsyncFd<OwnedFd>>,
}

impl FileWatch {
    /// For the run whose events are its file's, or `kept` where it has none.
    pub(super) fn new(folder: Folder, run: RunId, kept: Vec<Vec<u8>>) -> FileWatch {
        let told = listen(&folder).ok();
        FileWatch { folder, run, kept, offset: 0, count: 0, last: None, told }
    }

    /// What is new, if anything is.
    fn look(&mut self) -> Result<Option<Seen>, StoreError> {
        // In this order, so that of an owner who is gone everything is read.
        let held = locks::held(&self.folder.run_lock(self.run))?;
        let mut events = std::mem::take(&mut self.kept);
        events.extend(self.read_on()?);
        let shown = || progress::read(&self.folder.progress(self.run), self.run);
        let now = (held, if held { shown() } else { None });
        if events.is_empty() && self.last.as_ref() == Some(&now) {
            return Ok(None);
        }
        self.last = Some(now.clone());
        let (held, progress) = now;
        Ok(Some(Seen { events, progress, held }))
    }

    /// The whole events after those that were read before.
    fn read_on(&mut self) -> Result<Vec<Vec<u8>>, StoreError> {
        let path = self.folder.run_file(self.run);
        let read = || -> Result<Vec<u8>, StoreError> {
            let mut bytes = Vec::new();
            match File::open(&path) {
                Ok(mut file) => file
                    .seek(SeekFrom::Start(self.offset))
                    .and_then(|_| file.read_to_end(&mut bytes))
                    .map_err(failed("read", &path))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(failed("read", &path)(error)),
            };
            Ok(bytes)
        };
        let mut scan = wal::scan(&read()?, self.run, self.count);
        if scan.damage.is_some() {
            // An owner may just have cut off what a crash left, and written something else.
            scan = wal::scan(&read()?, self.run, self.count);
        }
        if let Some(what) = scan.damage {
            return Err(StoreError::Damaged {
                path,
                what: format!("{what} (counted from byte {})", self.offset),
            });
        }
        self.offset += scan.whole;
        self.count += u64::try_from(scan.events.len()).unwrap_or(u64::MAX);
        Ok(scan.events)
    }

    /// Waits until something may have happened.
    async fn wait(&self) {
        let Some(told) = &self.told else {
            return SystemClock.sleep(TICK).await;
        };
        tokio::select! {
            () = ours(told, self.run) => {}
            () = SystemClock.sleep(TICK) => {}
        }
    }
}

#[async_trait]
impl Watch for FileWatch {
    async fn next(&mut self) -> Result<Seen, StoreError> {
        loop {
            if let Some(seen) = self.look()? {
                return Ok(seen);
            }
            self.wait().await;
        }
    }
}

/// Begins to hear of what happens to run files.
#[expect(unsafe_code, reason = "tokio offers no safe way to wait for a descriptor that it did not make")]
fn listen(folder: &Folder) -> io::Result<AsyncFd<OwnedFd>> {
    let told = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let what = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
    inotify::add_watch(&told, folder.runs(), what)?;
    // SAFETY: an `OwnedFd` is open for as long as it lives, and always the same descriptor.
    unsafe { AsyncFd::register_with_interest(told, Interest::READABLE) }.map_err(io::Error::from)
}

/// Waits until one of the files of `run` is told of.
async fn ours(told: &AsyncFd<OwnedFd>, run: RunId) {
    let run = run.to_string();
    loop {
        let Ok(mut ready) = told.readable().await else {
            return std::future::pending().await;
        };
        match heard(told.get_ref(), &run) {
            Heard::Nothing => ready.clear_ready(),
            Heard::Change => return,
            Heard::Closing => return SystemClock.sleep(MOMENT).await,
        }
    }
}

enum Heard {
    Nothing,
    Change,
    /// A lock may be free in a moment.
    Closing,
}

/// Reads all there is to hear, and says what of it concerns `run`.
fn heard(told: &OwnedFd, run: &str) -> Heard {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(told, &mut buffer);
    let mut heard = Heard::Nothing;
    loop {
        match reader.next() {
            Ok(event) => match event.file_name().map(CStr::to_bytes) {
                Some(name) if !name.starts_with(run.as_bytes()) => {}
                Some(name) if name.ends_with(b".lock") => heard = Heard::Closing,
                _ if matches!(heard, Heard::Nothing) => heard = Heard::Change,
                _ => {}
            },
            Err(Errno::INTR) => {}
            Err(_) => return heard,
        }
    }
}
