//! Looks at everything that the journal holds, changes nothing, and tells what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::verified::{Damage, Flaw, Verified};
use super::super::{Head, StoreError};
use super::database::{self, Broken, Turn};
use super::examine::{self, Examined};
use super::folder::{Folder, failed};
use super::ledger::{self, Entry, Fact, Reading};
use super::sealed::Sealed;
use super::session::Session;
use super::upkeep::Inner;
use crate::event::{Hash, RunId};

impl Inner {
    /// Looks at everything; whether the journal goes on from `against`, too.
    pub(super) fn verify(&self, against: Option<Head>) -> Result<Verified, StoreError> {
        let found = self.look_at_everything(against)?;
        if !found.damage.is_empty() {
            return Ok(found);
        }
        // What runs at work have recorded meanwhile belongs to the head as well.
        self.burst(super::upkeep::Bring::Marked, |_| Ok(()))?;
        self.look_at_everything(against)
    }

    fn look_at_everything(&self, against: Option<Head>) -> Result<Verified, StoreError> {
        let turn = database::take_turn(&self.folder)?;
        let known = self.known_to_database(&turn)?;
        let reading = ledger::read(&self.folder, against.map(|head| head.entries), known)?;
        let mut looking = Looking::new(self.folder.clone(), &reading);
        looking.look_at_ledger(&reading, against);
        let looking = self.look_with_database(&turn, &looking)?;
        looking.look_at_attachments()
    }

    /// How many entries of the ledger the database was made of, as far as it can be opened.
    fn known_to_database(&self, turn: &Turn) -> Result<Option<u64>, StoreError> {
        let path = self.folder.database();
        if !path.join("db").exists() {
            return Ok(None);
        }
        match database::burst(turn, &path, self.patience(), |session| Ok(session.ledger()?.entries)) {
            Ok(known) => Ok(Some(known)),
            Err(Broken::Damaged(_)) => Ok(None),
            Err(broken) => Err(super::rebuild::explain(&path, broken)),
        }
    }

    /// Compares with the database as far as that can be opened.
    fn look_with_database(&self, turn: &Turn, looking: &Looking) -> Result<Looking, StoreError> {
        let path = self.folder.database();
        let without = |why: Option<String>| -> Result<Looking, StoreError> {
            let mut looking = looking.clone();
            if let Some(why) = why {
                looking.found(Flaw::Differ, None, &path, why);
            }
            looking.look_at_runs(None).map_err(|broken| super::rebuild::explain(&path, broken))?;
            Ok(looking)
        };
        if !path.join("db").exists() {
            return without((!looking.known.is_empty()).then(|| "the database is gone".to_owned()));
        }
        let head = database::head(&self.folder)?;
        let mut with = looking.clone();
        let looked = database::burst(turn, &path, self.patience(), move |session| {
            session.check(head.unwrap_or(1))?;
            with.look_at_runs(Some(session))?;
            Ok(with)
        });
        match looked {
            Err(Broken::Damaged(why)) => without(Some(why)),
            Err(broken) => Err(super::rebuild::explain(&path, broken)),
            Ok(looked) => Ok(looked),
        }
    }
}

/// What the ledger knows of a run.
#[derive(Debug, Clone, Default)]
struct Known {
    count: u64,
    hash: Option<Hash>,
    attachments: BTreeSet<Hash>,
}

impl Known {
    /// Of `count` events the last one has `hash`.
    fn tell(&mut self, count: u64, hash: Hash) {
        self.count = count;
        self.hash = Some(hash).filter(|_| count > 0);
    }
}

#[derive(Debug, Clone)]
struct Looking {
    folder: Folder,
    known: BTreeMap<RunId, Known>,
    /// What a crash left of these goes with the next burst.
    pruned: BTreeSet<RunId>,
    verified: Verified,
}

impl Looking {
    fn new(folder: Folder, reading: &Reading) -> Looking {
        let mut known: BTreeMap<RunId, Known> = BTreeMap::new();
        let mut pruned = BTreeSet::new();
        // With how many events they had.
        let mut lost: BTreeMap<RunId, u64> = BTreeMap::new();
        for Entry { fact, run, count, hash, .. } in &reading.entries {
            let of_run = known.entry(*run).or_default();
            match fact {
                Fact::Attachment => drop(of_run.attachments.insert(*hash)),
                Fact::Events => {
                    of_run.tell(*count, *hash);
                    pruned.remove(run);
                    // An import may have brought back what was lost.
                    if lost.get(run).is_some_and(|had| had <= count) {
                        lost.remove(run);
                    }
                }
                Fact::Lost => {
                    let had = lost.entry(*run).or_default();
                    *had = of_run.count.max(*had);
                    of_run.tell(*count, *hash);
                }
                Fact::Pruned => drop((known.remove(run), pruned.insert(*run), lost.remove(run))),
            }
        }
        let number = |things: usize| u64::try_from(things).unwrap_or(u64::MAX);
        let verified = Verified {
            head: reading.head.unwrap_or(Head { entries: 0, chain: Hash::ZERO }),
            runs: 0,
            events: 0,
            attachments: 0,
            pruned: number(pruned.len()),
            lost: number(lost.len()),
            damage: Vec::new(),
        };
        Looking { folder, known, pruned, verified }
    }

    fn found(&mut self, flaw: Flaw, run: Option<RunId>, path: &Path, what: String) {
        self.verified.damage.push(Damage { flaw, run, path: path.to_path_buf(), what });
    }

    fn look_at_ledger(&mut self, reading: &Reading, against: Option<Head>) {
        let path = self.folder.ledger();
        for what in &reading.damage {
            self.found(Flaw::Ledger, None, &path, what.clone());
        }
        let Some(against) = against else { return };
        let what = match reading.asked {
            Some(chain) if chain == against.chain => return,
            Some(_) => format!("after {} entries it is another journal than that head's", against.entries),
            None => format!(
                "it has {} entries, and had {} at that head",
                self.verified.head.entries, against.entries
            ),
        };
        self.found(Flaw::NotContinued, None, &path, what);
    }

    fn look_at_runs(&mut self, session: Option<&Session>) -> Result<(), Broken> {
        if let Some(session) = session {
            self.look_at_position(session)?;
        }
        let mut runs: BTreeSet<RunId> = self.folder.written()?.into_iter().collect();
        runs.extend(self.known.keys());
        if let Some(session) = session {
            for run in session.all_runs() {
                runs.insert(run?);
            }
        }
        let sealed = self.look_at_sealed(session)?;
        for run in runs {
            self.look_at_run(run, session, &sealed)?;
            if let Some(session) = session {
                session.alive();
            }
        }
        Ok(())
    }

    /// The database notes which ledger it was made of.
    fn look_at_position(&mut self, session: &Session) -> Result<(), Broken> {
        let noted = session.ledger()?;
        let there = ledger::read(&self.folder, Some(noted.entries), Some(noted.entries))?.asked;
        if there != Some(noted.chain) {
            let what = format!("it is not the one with {} entries that the database knows", noted.entries);
            let path = self.folder.ledger();
            self.found(Flaw::Ledger, None, &path, what);
        }
        Ok(())
    }

    /// Looks at all sealed runs; gives which those are.
    fn look_at_sealed(&mut self, session: Option<&Session>) -> Result<BTreeSet<RunId>, Broken> {
        let mut runs = BTreeSet::new();
        let sealed = match Sealed::open(&self.folder) {
            Err(StoreError::Damaged { path, what }) => {
                self.found(Flaw::Changed, None, &path, what);
                return Ok(runs);
            }
            sealed => sealed?,
        };
        for number in sealed.numbers() {
            let path = self.folder.segment(number);
            if let Err(error) = self.look_at_segment(&sealed, number, &mut runs) {
                let flaw = if path.exists() { Flaw::Changed } else { Flaw::RunRemoved };
                let mut what = error.to_string();
                if let StoreError::Damaged { what: short, .. } = error {
                    what = short;
                }
                self.found(flaw, None, &path, what);
            }
            sealed.close_all();
            if let Some(session) = session {
                session.alive();
            }
        }
        Ok(runs)
    }

    fn look_at_segment(
        &mut self,
        sealed: &Sealed,
        number: u64,
        runs: &mut BTreeSet<RunId>,
    ) -> Result<(), StoreError> {
        let opened = sealed.opened(number)?;
        for row in &opened.rows {
            let run = row.record.summary.id;
            if self.pruned.contains(&run) {
                continue;
            }
            let path = self.folder.segment(number);
            let mut examined = examine::file(&opened.segment.body(row)?, run);
            let there = u64::try_from(examined.events.len()).unwrap_or(u64::MAX);
            if examined.flaw.is_none() && there != row.record.count {
                let what = format!("it has {there} of its {} events", row.record.count);
                examined.flaw = Some((Flaw::Truncated, what));
            }
            if self.folder.run_file(run).exists() || sealed.is_older(number, run)? {
                // It went on since; this was its beginning.
                if let Some((flaw, what)) = examined.flaw {
                    self.found(flaw, Some(run), &path, what);
                }
                continue;
            }
            runs.insert(run);
            let known = self.known.get(&run).cloned().unwrap_or_default();
            self.look_at_events(run, &path, &known, &examined);
        }
        Ok(())
    }

    fn look_at_run(
        &mut self,
        run: RunId,
        session: Option<&Session>,
        sealed: &BTreeSet<RunId>,
    ) -> Result<(), Broken> {
        if self.pruned.contains(&run) {
            return Ok(());
        }
        let path = self.folder.run_file(run);
        let known = self.known.get(&run).cloned().unwrap_or_default();
        let Some(bytes) = read(&path)? else {
            if sealed.contains(&run) {
                return Ok(());
            }
            if known.count > 0 {
                let what = format!("its {} events are gone", known.count);
                self.found(Flaw::RunRemoved, Some(run), &path, what);
            } else if session.is_some_and(|session| matches!(session.record(run), Ok(Some(_)))) {
                self.found(Flaw::Differ, Some(run), &path, "only the database has the run".to_owned());
            }
            return Ok(());
        };
        let examined = examine::file(&bytes, run);
        self.look_at_events(run, &path, &known, &examined);
        // What is sealed leaves the database first, and its file then.
        let may_lack = Sealed::open(&self.folder).and_then(|sealed| Ok(sealed.row(run)?.is_some()));
        if let Some(session) = session
            && (session.record(run)?.is_some() || !may_lack.unwrap_or(false))
        {
            self.compare(run, &path, &known, &examined, session)?;
        }
        Ok(())
    }

    /// The events of a run, as they are kept at `path`, against what the ledger knows.
    fn look_at_events(&mut self, run: RunId, path: &Path, known: &Known, examined: &Examined) {
        let there = u64::try_from(examined.events.len()).unwrap_or(u64::MAX);
        self.verified.runs += 1;
        self.verified.events += there;
        if let Some((flaw, what)) = &examined.flaw {
            self.found(*flaw, Some(run), path, what.clone());
        } else if there < known.count && examined.whole_length {
            let what = format!("the bytes of event {there} are not those that were recorded");
            self.found(Flaw::Changed, Some(run), path, what);
        } else if there < known.count {
            let what = format!("it has {there} of its {} events", known.count);
            self.found(Flaw::Truncated, Some(run), path, what);
        } else if let Some(last) = known.count.checked_sub(1) {
            let place = usize::try_from(last).unwrap_or(usize::MAX);
            if examined.events.get(place).map(|event| Hash::of(event)) != known.hash {
                let what = format!("event {last} is not the one that was recorded");
                self.found(Flaw::Changed, Some(run), path, what);
            }
        }
    }

    fn compare(
        &mut self,
        run: RunId,
        path: &Path,
        known: &Known,
        examined: &Examined,
        session: &Session,
    ) -> Result<(), Broken> {
        let stored = match session.events(run) {
            Err(Broken::Damaged(why)) => {
                self.found(Flaw::Differ, Some(run), path, why);
                return Ok(());
            }
            stored => stored?,
        };
        let both = stored.iter().zip(&examined.events);
        if let Some(n) = both.clone().position(|(stored, event)| stored.bytes != *event) {
            self.found(Flaw::Differ, Some(run), path, format!("event {n} is another one in the database"));
        } else if both.count() < stored.len() && examined.flaw.is_none() {
            let what =
                format!("the database has {} events, the file {}", stored.len(), examined.events.len());
            self.found(Flaw::Differ, Some(run), path, what);
        } else if u64::try_from(stored.len()).unwrap_or(u64::MAX) < known.count {
            let what = format!("the database has {} of its {} events", stored.len(), known.count);
            self.found(Flaw::Differ, Some(run), path, what);
        }
        Ok(())
    }

    fn look_at_attachments(mut self) -> Result<Verified, StoreError> {
        let mut there = BTreeSet::new();
        let path = self.folder.attachments();
        for entry in fs::read_dir(&path).map_err(failed("list", &path))? {
            let name = entry.map_err(failed("list", &path))?.file_name();
            let Some(hash) = name.to_str().and_then(|name| name.parse::<Hash>().ok()) else { continue };
            let file = self.folder.attachment(hash);
            there.insert(hash);
            match read(&file)? {
                Some(bytes) if Hash::of(&bytes) == hash => self.verified.attachments += 1,
                Some(_) => {
                    let what = "its content is not the one that it is named after".to_owned();
                    self.found(Flaw::AttachmentChanged, None, &file, what);
                }
                None => {}
            }
        }
        let named: Vec<(RunId, Hash)> = self
            .known
            .iter()
            .flat_map(|(run, known)| known.attachments.iter().map(|hash| (*run, *hash)))
            .filter(|(_, hash)| !there.contains(hash))
            .collect();
        for (run, hash) in named {
            let path: PathBuf = self.folder.attachment(hash);
            self.found(Flaw::AttachmentMissing, Some(run), &path, "an event names it".to_owned());
        }
        Ok(self.verified)
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}
