//! What a disk can hold after a power loss: all that was synced, and of the rest anything.
//!
//! A write to a file lasts once an fsync or fdatasync of that file that began after it has ended; a name once its
//! folder was fsynced so. Of what came later each write may be there or not, whole, in part (by sectors of 512 bytes),
//! or as zeros; and each name, whatever became of others. Real file systems promise more; nothing here relies on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::material::Dice;

/// A file or a folder, whatever its names are.
pub(crate) type Node = usize;

/// The folder that is looked at.
pub(crate) const ROOT: Node = 0;

const SECTOR: usize = 512;

/// Something that a process did.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Bytes were written into a file, from this place on.
    Write { file: Node, at: usize, bytes: Vec<u8> },
    /// A file was made this long.
    Resize { file: Node, length: usize },
    /// Names in folders came, went or changed, all at once.
    Names(Vec<Entry>),
    /// What was done to a file or a folder by the first so many operations is durable.
    Synced { node: Node, covers: usize },
    /// The process told this.
    Said(String),
}

/// A name in a folder, and what it stands for from now on.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) folder: Node,
    pub(crate) name: String,
    pub(crate) node: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
}

/// What was done, and to what.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) nodes: Vec<Kind>,
    pub(crate) ops: Vec<Op>,
}

/// What becomes of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing of it is there.
    Everything,
    /// All of it is there, as after a kill.
    Nothing,
    /// Of each file and folder only the last of it is there.
    AllButLast,
    /// All of it, but of the last write to each file only the first half.
    SecondHalf,
    /// All of it, but the first half of the last write to each file is zeros.
    FirstHalf,
    /// Files have their lengths, and zeros where something was to be.
    Contents,
    /// Names, while all contents are there.
    Names,
    /// Contents are not there, and neither are lengths; names are.
    Writes,
    /// Whatever the dice say.
    Some(u64),
}

impl Record {
    pub(crate) fn new() -> Record {
        Record { nodes: vec![Kind::Folder], ops: Vec::new() }
    }

    /// What is durable of each node's operations at this point: those before this one.
    fn durable(&self, point: usize) -> BTreeMap<Node, usize> {
        let mut durable = BTreeMap::new();
        for op in &self.ops[..point] {
            if let Op::Synced { node, covers } = op {
                let known: &mut usize = durable.entry(*node).or_default();
                *known = (*known).max(*covers);
            }
        }
        durable
    }

    /// How many operations before this point may be lost.
    pub(crate) fn unsynced(&self, point: usize) -> usize {
        let durable = self.durable(point);
        (0..point).filter(|index| !self.lasts(*index, &durable)).count()
    }

    fn lasts(&self, index: usize, durable: &BTreeMap<Node, usize>) -> bool {
        let synced = |node: &Node| durable.get(node).is_some_and(|covers| *covers > index);
        match &self.ops[index] {
            Op::Write { file, .. } | Op::Resize { file, .. } => synced(file),
            Op::Names(entries) => entries.iter().all(|entry| synced(&entry.folder)),
            Op::Synced { .. } | Op::Said(_) => true,
        }
    }

    /// The folder as a disk may hold it when the power goes after the first `point` operations.
    pub(crate) fn after(&self, point: usize, loss: Loss) -> Disk {
        let durable = self.durable(point);
        let last = self.last_of_each(point, &durable);
        let mut dice = Dice(match loss {
            Loss::Some(seed) => seed.wrapping_add(u64::try_from(point).unwrap()),
            _ => 0,
        });
        let mut disk = Disk::default();
        for index in 0..point {
            let fate = if self.lasts(index, &durable) {
                Fate::There
            } else {
                self.fate(index, loss, last.contains(&index), &mut dice)
            };
            disk.apply(&self.ops[index], fate, &mut dice);
        }
        disk
    }

    /// The last operation on each file and folder that may be lost.
    fn last_of_each(&self, point: usize, durable: &BTreeMap<Node, usize>) -> BTreeSet<usize> {
        let mut last: BTreeMap<Node, usize> = BTreeMap::new();
        for index in (0..point).filter(|index| !self.lasts(*index, durable)) {
            match &self.ops[index] {
                Op::Write { file, .. } | Op::Resize { file, .. } => {
                    last.insert(*file, index);
                }
                Op::Names(entries) => last.extend(entries.iter().map(|entry| (entry.folder, index))),
                Op::Synced { .. } | Op::Said(_) => {}
            }
        }
        last.into_values().collect()
    }

    fn fate(&self, index: usize, loss: Loss, is_last: bool, dice: &mut Dice) -> Fate {
        let is_name = matches!(self.ops[index], Op::Names(_));
        match loss {
            Loss::Everything => Fate::Lost,
            Loss::AllButLast if !is_last => Fate::Lost,
            Loss::Names if is_name => Fate::Lost,
            Loss::Writes if !is_name => Fate::Lost,
            Loss::SecondHalf if is_last && !is_name => Fate::FirstHalf,
            Loss::FirstHalf if is_last && !is_name => Fate::SecondHalf,
            Loss::Contents if !is_name => Fate::Zeros,
            Loss::Some(_) => match dice.roll(if is_name { 4 } else { 8 }) {
                0..=1 => Fate::There,
                2..=3 => Fate::Lost,
                4 => Fate::FirstHalf,
                5 => Fate::Zeros,
                _ => Fate::Sectors,
            },
            _ => Fate::There,
        }
    }
}

/// What becomes of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    There,
    Lost,
    FirstHalf,
    SecondHalf,
    Zeros,
    Sectors,
}

/// A folder on a disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    files: BTreeMap<Node, Vec<u8>>,
    folders: BTreeMap<Node, BTreeMap<String, Node>>,
}

impl Disk {
    fn apply(&mut self, op: &Op, fate: Fate, dice: &mut Dice) {
        if fate == Fate::Lost {
            return;
        }
        match op {
            Op::Write { file, at, bytes } => {
                let content = self.files.entry(*file).or_default();
                let end = at + bytes.len();
                let half = bytes.len() / 2;
                let mut put = |from: usize, to: usize| {
                    if content.len() < at + to {
                        content.resize(at + to, 0);
                    }
                    content[at + from..at + to].copy_from_slice(&bytes[from..to]);
                };
                match fate {
                    Fate::FirstHalf => put(0, half),
                    Fate::SecondHalf => put(half, bytes.len()),
                    Fate::Zeros => content.resize(content.len().max(end), 0),
                    Fate::Sectors => {
                        let mut from = 0;
                        while from < bytes.len() {
                            let to = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
                            if dice.roll(2) == 0 {
                                put(from, to);
                            }
                            from = to;
                        }
                    }
                    Fate::There | Fate::Lost => put(0, bytes.len()),
                }
            }
            Op::Resize { file, length } => self.files.entry(*file).or_default().resize(*length, 0),
            Op::Names(entries) => {
                for Entry { folder, name, node } in entries {
                    let folder = self.folders.entry(*folder).or_default();
                    match node {
                        Some(node) => folder.insert(name.clone(), *node),
                        None => folder.remove(name),
                    };
                }
            }
            Op::Synced { .. } | Op::Said(_) => {}
        }
    }

    /// Makes it a folder that can be looked at.
    pub(crate) fn write(&self, nodes: &[Kind], place: &Path) {
        self.write_folder(nodes, ROOT, place);
    }

    fn write_folder(&self, nodes: &[Kind], folder: Node, place: &Path) {
        fs::DirBuilder::new().mode(0o700).create(place).unwrap();
        for (name, node) in self.folders.get(&folder).into_iter().flatten() {
            let place = place.join(name);
            match nodes[*node] {
                Kind::Folder => self.write_folder(nodes, *node, &place),
                Kind::File => {
                    let content = self.files.get(node).map(Vec::as_slice).unwrap_or_default();
                    let mut options = fs::OpenOptions::new();
                    let mut file = options.write(true).create_new(true).mode(0o600).open(&place).unwrap();
                    std::io::Write::write_all(&mut file, content).unwrap();
                }
            }
        }
    }

    /// The paths of the files in it, with what they hold.
    pub(crate) fn files(&self, nodes: &[Kind]) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut open = vec![(ROOT, String::new())];
        while let Some((folder, path)) = open.pop() {
            for (name, node) in self.folders.get(&folder).into_iter().flatten() {
                let path = format!("{path}/{name}");
                match nodes[*node] {
                    Kind::Folder => open.push((*node, path)),
                    Kind::File => {
                        found.insert(path, self.files.get(node).cloned().unwrap_or_default());
                    }
                }
            }
        }
        found
    }
}
