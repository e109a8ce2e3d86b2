//! Run files: how events become durable.
//!
//! A file is a sequence of frames, each one event: its length (u32, big-endian), the crc32c of its bytes (likewise),
//! its bytes. An append is one write and one fdatasync. What a crash may leave is one incomplete frame at the end,
//! which was never acknowledged and is cut off; anything else that is wrong is damage, and told.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::super::StoreError;
use super::folder::{self, failed};
use crate::codec::{self, CodecError, MAX_EVENT};
use crate::event::RunId;

const HEADER: usize = 8;

/// What a run file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// The events before the first thing that is not whole.
    pub(super) events: Vec<Vec<u8>>,
    /// Where those end, in bytes.
    pub(super) whole: u64,
    /// How long the file is.
    pub(super) size: u64,
    /// What is wrong with what comes after, when it is more than an unfinished append.
    pub(super) damage: Option<String>,
}

/// The length of the frame around `event`.
pub(super) fn frame_length(event: &[u8]) -> u64 {
    u64::try_from(HEADER + event.len()).unwrap_or(u64::MAX)
}

/// `event` in its frame.
pub(super) fn frame(event: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + event.len());
    frame.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(event).to_be_bytes());
    frame.extend_from_slice(event);
    frame
}

/// Reads the file of `run`; a missing one is empty.
pub(super) fn read(path: &Path, run: RunId) -> Result<Scan, StoreError> {
    let look = || match fs::read(path) {
        Ok(bytes) => Ok(scan(&bytes, run, 0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Scan::default()),
        Err(error) => Err(failed("read", path)(error)),
    };
    let seen = look()?;
    // What looks damaged may have been read while an owner cut something off and wrote something else.
    if seen.damage.is_some() { look() } else { Ok(seen) }
}

/// The events in `bytes`, which begin where event number `first` of `run` does.
pub(super) fn scan(bytes: &[u8], run: RunId, first: u64) -> Scan {
    let mut scan = Scan { size: u64::try_from(bytes.len()).unwrap_or(u64::MAX), ..Scan::default() };
    let mut rest = bytes;
    while !rest.is_empty() {
        let n = first.saturating_add(u64::try_from(scan.events.len()).unwrap_or(u64::MAX));
        let Some((event, after)) = whole_frame(rest) else {
            scan.damage = not_torn(rest).map(|why| format!("at byte {}: {why}", scan.whole));
            break;
        };
        if let Err(why) = belongs(event, run, n) {
            scan.damage = Some(format!("at byte {}: {why}", scan.whole));
            break;
        }
        scan.whole += frame_length(event);
        scan.events.push(event.to_vec());
        rest = after;
    }
    scan
}

/// The event in the frame that `bytes` begin with, and what follows; `None` when the frame is not whole.
pub(super) fn whole_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if length == 0 || length > MAX_EVENT {
        return None;
    }
    let (event, rest) = rest.split_at_checked(length)?;
    (crc32c::crc32c(event) == u32::from_be_bytes(*crc)).then_some((event, rest))
}

/// Why `bytes`, which do not begin with a whole frame, cannot be what an interrupted append left. That is at most one
/// frame, of which a beginning is there, or all its length with zeros where blocks were not written any more.
pub(super) fn not_torn(bytes: &[u8]) -> Option<String> {
    let is_event = |bytes| whole_frame(bytes).is_some_and(|(event, _)| codec::header(event).is_ok());
    let follows = (1..bytes.len()).find(|offset| bytes.get(*offset..).is_some_and(is_event));
    if let Some(offset) = follows {
        return Some(format!("a damaged event, followed by a whole one {offset} bytes later"));
    }
    if bytes.len() > HEADER + MAX_EVENT {
        return Some(format!("{} bytes that are no events", bytes.len()));
    }
    let length = u32::from_be_bytes(*bytes.first_chunk::<4>()?);
    match usize::try_from(length).unwrap_or(usize::MAX) {
        0 => None,
        length if length > MAX_EVENT => {
            Some(format!("an event of {length} bytes, which is more than any has"))
        }
        length if HEADER + length < bytes.len() => {
            Some("a damaged event, followed by other bytes".to_owned())
        }
        _ => None,
    }
}

/// Whether `bytes`, which do not begin with a whole frame, are as long as the frame that they begin.
pub(super) fn has_its_length(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk::<4>().map(|length| u32::from_be_bytes(*length));
    length
        .and_then(|length| usize::try_from(length).ok())
        .is_some_and(|length| HEADER + length == bytes.len())
}

/// Whether `event` is number `n` of `run`, or why it is not. What a newer version wrote is believed.
fn belongs(event: &[u8], run: RunId, n: u64) -> Result<(), String> {
    match codec::header(event) {
        Ok(header) if header.run != run => Err(format!("an event of run {}", header.run)),
        Ok(header) if header.n != n => Err(format!("event {} where {n} should be", header.n)),
        Ok(_) | Err(CodecError::Newer(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// A run file that its owner appends to.
#[derive(Debug)]
pub(super) struct RunFile {
    path: PathBuf,
    run: RunId,
    /// Opened when there is something to write.
    file: Option<File>,
    length: u64,
    next_n: u64,
    broken: bool,
}

impl RunFile {
    /// For the owner of `run`, whose file holds `scan`: what an interrupted append left is cut off.
    pub(super) fn open(path: PathBuf, run: RunId, scan: &Scan) -> Result<RunFile, StoreError> {
        let mut file = None;
        if path.exists() {
            let opened = folder::open(&path)?;
            // Whoever put it there may have been killed before its name was durable.
            folder::sync(path.parent().unwrap_or(Path::new(".")))?;
            if scan.size > scan.whole {
                opened
                    .set_len(scan.whole)
                    .and_then(|()| opened.sync_all())
                    .map_err(failed("shorten", &path))?;
            }
            file = Some(opened);
        }
        Ok(RunFile {
            path,
            run,
            file,
            length: scan.whole,
            next_n: u64::try_from(scan.events.len()).unwrap_or(u64::MAX),
            broken: false,
        })
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Whether no append has failed.
    pub(super) fn is_whole(&self) -> bool {
        !self.broken
    }

    /// Appends `event` as number `n`; durable when this returns without an error, and the last append otherwise.
    pub(super) fn append(&mut self, n: u64, event: &[u8]) -> Result<(), StoreError> {
        if self.broken || n != self.next_n {
            return Err(StoreError::Fenced(self.run));
        }
        if event.is_empty() || event.len() > MAX_EVENT {
            return Err(self.refused(format!("an event of {} bytes", event.len())));
        }
        if let Err(why) = belongs(event, self.run, n) {
            return Err(self.refused(why));
        }
        self.broken = true;
        let frame = frame(event);
        self.write(&frame)?;
        self.length += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        self.next_n += 1;
        self.broken = false;
        Ok(())
    }

    fn write(&mut self, frame: &[u8]) -> Result<(), StoreError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(folder::open(&self.path)?),
        };
        let there = file.metadata().map_err(failed("look at", &self.path))?;
        if there.nlink() == 0 {
            return Err(StoreError::Damaged {
                path: self.path.clone(),
                what: "it was removed while its run went on".to_owned(),
            });
        }
        if there.len() != self.length {
            return Err(StoreError::Fenced(self.run));
        }
        let written = file
            .write_all_at(frame, self.length)
            .map_err(failed("write", &self.path))
            .and_then(|()| file.sync_data().map_err(failed("sync", &self.path)));
        if written.is_err() {
            // As far as it goes: a frame that stays is cut off, or found whole, by the next owner.
            let _ = file.set_len(self.length).and_then(|()| file.sync_data());
        }
        written
    }

    fn refused(&self, why: String) -> StoreError {
        failed("append to", &self.path)(io::Error::new(io::ErrorKind::InvalidInput, why))
    }
}

/// Makes the file at `path` hold `events`, all or nothing.
pub(super) fn replace<'a>(path: &Path, events: impl IntoIterator<Item = &'a [u8]>) -> Result<(), StoreError> {
    let frames: Vec<u8> = events.into_iter().flat_map(frame).collect();
    folder::replace(path, &frames)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use uuid::Uuid;

    use super::*;
    use crate::event::{Actor, Envelope, Event, Hash};

    const RUN: RunId = RunId(Uuid::from_u128(7));

    fn events(count: u64) -> Vec<Vec<u8>> {
        let event = |n| Envelope {
            run: RUN,
            n,
            id: Uuid::from_u128(u128::from(n)),
            at: jiff::Timestamp::UNIX_EPOCH,
            epoch: 1,
            actor: Actor { user: "ada".to_owned(), host: "here".to_owned(), pid: 1 },
            prev: Hash::ZERO,
            event: Event::RunAbandoned { reason: "x".repeat(usize::try_from(n % 5).unwrap() * 7) },
        };
        (0..count).map(|n| codec::encode(&event(n)).unwrap()).collect()
    }

    fn file(events: &[Vec<u8>]) -> Vec<u8> {
        events.iter().flat_map(|event| frame(event)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_file_that_ends_anywhere_gives_its_whole_events(count in 1..6_u64, end in any::<Index>()) {
            let events = events(count);
            let bytes = file(&events);
            let end = end.index(bytes.len() + 1);
            let scan = scan(&bytes[..end], RUN, 0);
            let whole = (0..=events.len()).rev().find(|kept| file(&events[..*kept]).len() <= end).unwrap();
            prop_assert_eq!(&scan.events, &events[..whole]);
            prop_assert_eq!(scan.damage, None);
        }

        #[test]
        fn a_changed_byte_is_never_another_event(count in 2..6_u64, at in any::<Index>(), by in 1..=255_u8) {
            let events = events(count);
            let mut bytes = file(&events);
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            let scan = scan(&bytes, RUN, 0);
            prop_assert!(events.starts_with(&scan.events));
            prop_assert!(scan.events.len() < events.len());
            // In the last frame it may be an append that a power cut interrupted.
            let last = bytes.len() - frame(&events[events.len() - 1]).len();
            prop_assert!(scan.damage.is_some() || at >= last);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(0..5_u8, 0..300)) {
            let scan = scan(&bytes, RUN, 0);
            prop_assert_eq!(scan.events.len(), 0);
        }

        #[test]
        fn events_of_another_run_or_place_are_damage(count in 2..5_u64, gone in any::<Index>()) {
            let mut events = events(count);
            let other = RunId(Uuid::from_u128(8));
            prop_assert!(scan(&file(&events), other, 0).damage.is_some());
            let gone = gone.index(events.len() - 1);
            events.remove(gone);
            let scan = scan(&file(&events), RUN, 0);
            prop_assert_eq!(scan.events.len(), gone);
            prop_assert!(scan.damage.is_some());
        }
    }
}
