//! The ledger: what the journal has come to know, in the order in which it did. It is the journal's head, by which a
//! removed run or a shortened one is missed, and it numbers the events of the whole store.
//!
//! A file of entries of one size, each of which carries the hash of all entries before it and of itself:
//!
//! | bytes | what |
//! |---|---|
//! | 1 + 7 | the kind of entry, zeros |
//! | 16 | run |
//! | 8, 8 | events of the run from this number on, up to before that one |
//! | 8 | number in the store of the first of them; the others follow on it |
//! | 32 | hash of the last of them, or of the attachment |
//! | 32 | blake3 of the chain's hash in the entry before (zeros for the first) and of all of the above |
//!
//! All integers are big-endian. An entry is durable before the database has what it tells of, so that a database that
//! lags behind is brought up to it. Entries are appended by whoever may open the database, and never changed.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use uuid::Uuid;

use super::super::{Head, StoreError};
use super::folder::{self, Folder, failed};
use crate::clock::{Clock as _, SystemClock};
use crate::event::{Hash, RunId};

const BODY: usize = 80;
const SIZE: usize = BODY + 32;

/// What an entry says of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// It has these events.
    Events,
    /// One of its events names this attachment.
    Attachment,
    /// It was pruned, with all its events.
    Pruned,
    /// Events of it are lost: what is left is what the entry names.
    Lost,
}

const CODES: [(u8, Fact); 4] = [(1, Fact::Events), (2, Fact::Attachment), (3, Fact::Pruned), (4, Fact::Lost)];

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) fact: Fact,
    pub(super) run: RunId,
    /// The number within the run of the first event that is meant.
    pub(super) from: u64,
    /// How many events the run has with the last one that is meant.
    pub(super) count: u64,
    /// The number in the store of the first event that is meant.
    pub(super) first: u64,
    /// Of the last event that is meant, or of the attachment.
    pub(super) hash: Hash,
}

impl Entry {
    /// Events of `run` up to before number `count`, the last of which has `hash`; number `from` is `first` in the
    /// store.
    pub(super) fn events(run: RunId, from: u64, count: u64, first: u64, hash: Hash) -> Entry {
        Entry { fact: Fact::Events, run, from, count, first, hash }
    }

    /// An event of `run` names the attachment `hash`.
    pub(super) fn attachment(run: RunId, hash: Hash) -> Entry {
        Entry { fact: Fact::Attachment, run, from: 0, count: 0, first: 0, hash }
    }

    /// The number in the store that follows on its events.
    pub(super) fn next_seq(&self) -> u64 {
        self.first.saturating_add(self.count.saturating_sub(self.from))
    }

    fn encode(&self, chain: Hash) -> ([u8; BODY], Hash) {
        let code = CODES.iter().find(|(_, fact)| *fact == self.fact).map_or(0, |(code, _)| *code);
        let fields = [
            u64::from(code).to_le_bytes().as_slice(),
            self.run.0.as_bytes(),
            &self.from.to_be_bytes(),
            &self.count.to_be_bytes(),
            &self.first.to_be_bytes(),
            &self.hash.0,
        ]
        .concat();
        let mut body = [0; BODY];
        body.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        (body, link(chain, &body))
    }

    /// From an entry's bytes, with the chain's hash that it carries.
    fn decode(bytes: &[u8; SIZE]) -> Option<(Entry, Hash)> {
        let (code, rest) = bytes.split_first_chunk::<8>()?;
        let (run, rest) = rest.split_first_chunk::<16>()?;
        let (from, rest) = rest.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (hash, chain) = rest.split_first_chunk::<32>()?;
        let fact = CODES.iter().find(|(known, _)| [*known, 0, 0, 0, 0, 0, 0, 0] == *code)?.1;
        let entry = Entry {
            fact,
            run: RunId(Uuid::from_bytes(*run)),
            from: u64::from_be_bytes(*from),
            count: u64::from_be_bytes(*count),
            first: u64::from_be_bytes(*first),
            hash: Hash(*hash),
        };
        Some((entry, Hash(*chain.first_chunk()?)))
    }
}

fn link(chain: Hash, body: &[u8]) -> Hash {
    Hash::of(&[&chain.0, body].concat())
}

/// The ledger as whoever may open the database appends to it.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: File,
    head: Head,
}

impl Ledger {
    /// Opens or makes it. What a crash left unfinished at its end is cut off; the first `known` entries are durable,
    /// and never cut.
    pub(super) fn open(folder: &Folder, known: u64) -> Result<Ledger, StoreError> {
        let ledger = Ledger::as_it_is(folder)?;
        // Of an append that was under way any part may be there: what counts ends before the first that is not.
        let mut whole = known.min(ledger.head.entries);
        while whole < ledger.head.entries && ledger.follows(whole + 1)? {
            whole += 1;
        }
        if whole > known {
            // Whoever appended them may have been killed before this.
            ledger.file.sync_data().map_err(failed("sync", &ledger.path))?;
        }
        ledger.ending_after(whole)
    }

    /// Opens it to make the database anew: when there is damage within it, it is set aside, and one is made of what
    /// is as it was written. Gives the entries, too, and whether that was so.
    pub(super) fn mended(folder: &Folder) -> Result<(Ledger, Vec<Entry>, bool), StoreError> {
        let ledger = Ledger::as_it_is(folder)?;
        // Nobody can tell which entries were durable, so nothing that is as it was written is given up.
        let mut whole = ledger.head.entries;
        while whole > 0 && !ledger.follows(whole)? {
            whole -= 1;
        }
        let mut ledger = ledger.ending_after(whole)?;
        let reading = read(folder, None, None)?;
        let damaged = !reading.damage.is_empty();
        if damaged {
            let aside = folder.root().join(folder.damaged_name("ledger", SystemClock.now()));
            fs::rename(&ledger.path, &aside).map_err(failed("set aside", &ledger.path))?;
            ledger = Ledger::open(folder, 0)?;
            ledger.append(&reading.entries)?;
        }
        Ok((ledger, reading.entries, damaged))
    }

    fn as_it_is(folder: &Folder) -> Result<Ledger, StoreError> {
        let path = folder.ledger();
        let file = folder::open(&path)?;
        let size = file.metadata().map_err(failed("look at", &path))?.len();
        Ok(Ledger { path, file, head: Head { entries: size / bytes(1), chain: Hash::ZERO } })
    }

    /// Cuts off what comes after so many entries.
    fn ending_after(mut self, entries: u64) -> Result<Ledger, StoreError> {
        self.head = Head { entries, chain: self.chain_at(entries)?.unwrap_or(Hash::ZERO) };
        let size = self.file.metadata().map_err(failed("look at", &self.path))?.len();
        if size > bytes(entries) {
            let shortened = self.file.set_len(bytes(entries));
            shortened.and_then(|()| self.file.sync_data()).map_err(failed("shorten", &self.path))?;
        }
        Ok(self)
    }

    /// Where it stands.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Whether it goes on from `head`.
    pub(super) fn continues(&self, head: Head) -> Result<bool, StoreError> {
        Ok(head.entries <= self.head.entries && self.chain_at(head.entries)? == Some(head.chain))
    }

    /// The entries from number `from` on, counted from 0.
    pub(super) fn after(&self, from: u64) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for number in from..self.head.entries {
            entries.extend(self.entry(number)?.map(|(entry, _)| entry));
        }
        Ok(entries)
    }

    /// Appends entries; durable on return.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut chain = self.head.chain;
        let mut all = Vec::with_capacity(entries.len() * SIZE);
        for entry in entries {
            let (body, next) = entry.encode(chain);
            all.extend_from_slice(&body);
            all.extend_from_slice(&next.0);
            chain = next;
        }
        let written =
            self.file.write_all_at(&all, bytes(self.head.entries)).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // As far as it goes: entries that stay are cut off or found whole by whoever comes next.
            let _ = self.file.set_len(bytes(self.head.entries));
            return Err(failed("write", &self.path)(error));
        }
        let more = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        self.head = Head { entries: self.head.entries + more, chain };
        Ok(())
    }

    /// The chain's hash in the entry before number `number`.
    fn chain_at(&self, number: u64) -> Result<Option<Hash>, StoreError> {
        match number.checked_sub(1) {
            None => Ok(Some(Hash::ZERO)),
            Some(last) => Ok(self.entry(last)?.map(|(_, chain)| chain)),
        }
    }

    /// Whether the last of `count` entries follows on the one before it.
    fn follows(&self, count: u64) -> Result<bool, StoreError> {
        let Some(last) = count.checked_sub(1) else { return Ok(true) };
        let before = self.chain_at(last)?;
        let entry = self.entry(last)?;
        Ok(entry.zip(before).is_some_and(|((entry, chain), before)| entry.encode(before).1 == chain))
    }

    fn entry(&self, number: u64) -> Result<Option<(Entry, Hash)>, StoreError> {
        let mut all = [0; SIZE];
        match self.file.read_exact_at(&mut all, bytes(number)) {
            Ok(()) => Ok(Entry::decode(&all)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(failed("read", &self.path)(error)),
        }
    }
}

fn bytes(entries: u64) -> u64 {
    entries.saturating_mul(u64::try_from(SIZE).unwrap_or(u64::MAX))
}

/// All of the ledger, read from its beginning and checked.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The entries that are as they were written.
    pub(super) entries: Vec<Entry>,
    /// The head after the last of them.
    pub(super) head: Option<Head>,
    /// The chain's hash after as many entries as were asked about, when there are as many.
    pub(super) asked: Option<Hash>,
    /// What is wrong with it.
    pub(super) damage: Vec<String>,
}

/// Reads all of it; says what the chain was after `asked` entries. It ends before the first entry after the `known` ones
/// that is not as it was written, which a crash left unfinished; where it is not known how many were durable, after
/// the last that is.
pub(super) fn read(folder: &Folder, asked: Option<u64>, known: Option<u64>) -> Result<Reading, StoreError> {
    let path = folder.ledger();
    let mut reading =
        Reading { asked: asked.filter(|asked| *asked == 0).map(|_| Hash::ZERO), ..Reading::default() };
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(reading),
        opened => opened.map_err(failed("open", &path))?,
    };
    let mut file = BufReader::with_capacity(256 * SIZE, file);
    let mut chain = Hash::ZERO;
    let mut number = 0;
    let mut all = [0; SIZE];
    let mut head = Head { entries: 0, chain };
    // What is wrong with the entries after that.
    let mut pending = Vec::new();
    loop {
        match file.read_exact(&mut all) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(failed("read", &path)(error)),
        }
        let flaw = match Entry::decode(&all) {
            Some((entry, carried)) if entry.encode(chain).1 == carried => {
                reading.entries.push(entry);
                None
            }
            Some(_) => Some(format!("entry {number} does not follow on the one before it")),
            None => Some(format!("entry {number} is no entry")),
        };
        match flaw {
            Some(_) if known.is_some_and(|known| number >= known) => break,
            Some(flaw) => pending.push(flaw),
            None => reading.damage.append(&mut pending),
        }
        // Whatever an entry says, the one after it was made to follow on the hash that it carries.
        chain = all.last_chunk().copied().map_or(chain, Hash);
        number += 1;
        if asked == Some(number) {
            reading.asked = Some(chain);
        }
        if pending.is_empty() || known.is_some() {
            head = Head { entries: number, chain };
        }
    }
    if known.is_some() {
        reading.damage.append(&mut pending);
    }
    reading.head = Some(head);
    Ok(reading)
}
