//! From what strace(1) tells of a process to what it did to the files and folders of one folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::disk::{Entry, Kind, Loss, Node, Op, ROOT, Record};

/// All calls that change files or folders, those that make them last, and those that say which they are.
const CALLS: &str = "openat,open,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,pwritev2,\
                     ftruncate,truncate,fallocate,copy_file_range,sendfile,splice,mknod,mknodat,symlink,symlinkat,\
                     fsync,fdatasync,sync,syncfs,msync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,\
                     mkdir,mkdirat,execve";

/// strace, ready to be told what to start and to write what it sees to `trace`.
pub(crate) fn strace(trace: &Path, inject: Option<&str>) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-xx", "-s", "16777216", "-e", &format!("trace={CALLS}")]);
    if let Some(inject) = inject {
        strace.args(["-e", &format!("inject={inject}")]);
    }
    strace.arg("-o").arg(trace);
    strace
}

/// What processes, one after the other, did in one folder.
pub(crate) struct Recorder {
    folder: PathBuf,
    pub(crate) record: Record,
    /// What names stand for now.
    names: BTreeMap<(Node, String), Node>,
    lengths: BTreeMap<Node, usize>,
}

/// What a process has open: which file or folder, if it is one of ours, and where it writes next.
#[derive(Debug, Clone, Copy)]
struct Open {
    node: Option<Node>,
    at: usize,
    append: bool,
}

impl Recorder {
    /// Of what is done in `folder`; what is in there is durable.
    pub(crate) fn new(folder: &Path) -> Recorder {
        let mut recorder = Recorder {
            folder: folder.to_path_buf(),
            record: Record::new(),
            names: BTreeMap::new(),
            lengths: BTreeMap::new(),
        };
        recorder.take_in(ROOT, folder);
        let covers = recorder.record.ops.len();
        for node in 0..recorder.record.nodes.len() {
            recorder.record.ops.push(Op::Synced { node, covers });
        }
        recorder
    }

    fn take_in(&mut self, folder: Node, path: &Path) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                let node = self.make(Kind::Folder, folder, &name);
                self.take_in(node, &entry.path());
            } else {
                let node = self.make(Kind::File, folder, &name);
                self.write(node, 0, fs::read(entry.path()).unwrap());
            }
        }
    }

    /// Adds what a process did, as strace wrote it down; whatever was under way when it was killed is not there.
    pub(crate) fn add(&mut self, trace: &str) {
        let mut process = BTreeMap::new();
        // Where each thread is within a call, and how many operations there were when it came there.
        let mut under_way: BTreeMap<&str, (String, usize)> = BTreeMap::new();
        for line in trace.lines() {
            let (thread, text) = line.split_once(' ').unwrap();
            let text = text.trim_start();
            let now = self.record.ops.len();
            if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
                under_way.insert(thread, (begun.to_owned(), now));
            } else if let Some(resumed) = text.strip_prefix("<... ") {
                let (_, rest) = resumed.split_once(" resumed>").unwrap();
                let (begun, since) = under_way.remove(thread).unwrap();
                self.call(&mut process, &format!("{begun}{rest}"), since);
            } else {
                self.call(&mut process, text, now);
            }
        }
    }

    fn call(&mut self, process: &mut BTreeMap<i64, Open>, text: &str, since: usize) {
        let Some((name, rest)) = text.split_once('(') else {
            return;
        };
        let (arguments, result) = rest.rsplit_once(" = ").unwrap_or_else(|| panic!("{text:.200}"));
        let Some(result) = result.split(' ').next().and_then(number) else {
            return; // It did not come back.
        };
        if result < 0 {
            return;
        }
        let arguments = arguments.trim_end().strip_suffix(')').unwrap();
        let given: Vec<&str> = arguments.split(", ").collect();
        let descriptor = |index: usize| given.get(index).copied().and_then(number);
        let ours = |process: &BTreeMap<i64, Open>, index: usize| {
            descriptor(index).and_then(|fd| process.get(&fd)?.node)
        };
        match name {
            "openat" => {
                let opened = self.open(process, given[0], given[1], given[2]);
                process.insert(result, opened);
            }
            "close" => {
                process.remove(&descriptor(0).unwrap());
            }
            "fcntl" if given[1].starts_with("F_DUPFD") => {
                if let Some(open) = process.get(&descriptor(0).unwrap()).copied() {
                    process.insert(result, open);
                }
            }
            "lseek" => {
                if let Some(open) = process.get_mut(&descriptor(0).unwrap()) {
                    open.at = usize::try_from(result).unwrap();
                }
            }
            "write" => {
                let bytes = string(given[1]);
                let fd = descriptor(0).unwrap();
                if fd == 1 {
                    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
                    self.record.ops.push(Op::Said(text));
                } else if let Some(open) = process.get_mut(&fd)
                    && let Some(node) = open.node
                {
                    assert_eq!(usize::try_from(result).unwrap(), bytes.len());
                    let end = self.lengths.get(&node).copied().unwrap_or_default();
                    let at = if open.append { end } else { open.at };
                    open.at = at + bytes.len();
                    self.write(node, at, bytes);
                }
            }
            "pwrite64" => {
                if let Some(node) = ours(process, 0) {
                    let bytes = string(given[1]);
                    assert_eq!(usize::try_from(result).unwrap(), bytes.len());
                    self.write(node, usize::try_from(number(given[3]).unwrap()).unwrap(), bytes);
                }
            }
            "ftruncate" => {
                if let Some(node) = ours(process, 0) {
                    self.resize(node, usize::try_from(number(given[1]).unwrap()).unwrap());
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(node) = ours(process, 0) {
                    self.record.ops.push(Op::Synced { node, covers: since });
                }
            }
            "mkdir" => {
                if let Some((folder, name)) = self.place(process, "AT_FDCWD", given[0]) {
                    self.make(Kind::Folder, folder, &name);
                }
            }
            "rename" => self.rename(process, ("AT_FDCWD", given[0]), ("AT_FDCWD", given[1]), true),
            "renameat" | "renameat2" => {
                self.rename(process, (given[0], given[1]), (given[2], given[3]), true);
            }
            "link" => self.rename(process, ("AT_FDCWD", given[0]), ("AT_FDCWD", given[1]), false),
            "linkat" => self.rename(process, (given[0], given[1]), (given[2], given[3]), false),
            "unlink" | "rmdir" => self.remove(process, "AT_FDCWD", given[0]),
            "unlinkat" => self.remove(process, given[0], given[1]),
            "execve" | "fcntl" => {}
            // Not what the store does today. Whoever makes it do so has to say here what that does.
            other => panic!("{other} is not known here"),
        }
    }

    fn open(&mut self, process: &BTreeMap<i64, Open>, from: &str, path: &str, flags: &str) -> Open {
        let elsewhere = Open { node: None, at: 0, append: flags.contains("O_APPEND") };
        if let Some((base, rest)) = self.path(process, from, path)
            && rest.is_empty()
        {
            return Open { node: Some(base), ..elsewhere };
        }
        let Some((folder, name)) = self.place(process, from, path) else {
            return elsewhere;
        };
        let known = self.names.get(&(folder, name.clone())).copied();
        let node = known.unwrap_or_else(|| {
            assert!(flags.contains("O_CREAT"), "{name} was opened and never made");
            self.make(Kind::File, folder, &name)
        });
        if known.is_some() && flags.contains("O_TRUNC") {
            self.resize(node, 0);
        }
        Open { node: Some(node), ..elsewhere }
    }

    fn write(&mut self, file: Node, at: usize, bytes: Vec<u8>) {
        let length = self.lengths.entry(file).or_default();
        *length = (*length).max(at + bytes.len());
        self.record.ops.push(Op::Write { file, at, bytes });
    }

    fn resize(&mut self, file: Node, length: usize) {
        if self.lengths.insert(file, length).unwrap_or_default() != length {
            self.record.ops.push(Op::Resize { file, length });
        }
    }

    fn make(&mut self, kind: Kind, folder: Node, name: &str) -> Node {
        let node = self.record.nodes.len();
        self.record.nodes.push(kind);
        self.name(vec![Entry { folder, name: name.to_owned(), node: Some(node) }]);
        node
    }

    fn name(&mut self, entries: Vec<Entry>) {
        for Entry { folder, name, node } in &entries {
            match node {
                Some(node) => self.names.insert((*folder, name.clone()), *node),
                None => self.names.remove(&(*folder, name.clone())),
            };
        }
        self.record.ops.push(Op::Names(entries));
    }

    fn rename(
        &mut self,
        process: &BTreeMap<i64, Open>,
        (old_from, old): (&str, &str),
        (new_from, new): (&str, &str),
        moves: bool,
    ) {
        let (Some(old), Some(new)) = (self.place(process, old_from, old), self.place(process, new_from, new))
        else {
            return;
        };
        let node = self.names.get(&old).copied();
        assert!(node.is_some(), "{old:?} was renamed and never made");
        let mut entries = vec![Entry { folder: new.0, name: new.1, node }];
        if moves {
            entries.push(Entry { folder: old.0, name: old.1, node: None });
        }
        self.name(entries);
    }

    fn remove(&mut self, process: &BTreeMap<i64, Open>, from: &str, path: &str) {
        if let Some((folder, name)) = self.place(process, from, path) {
            self.name(vec![Entry { folder, name, node: None }]);
        }
    }

    /// The folder of ours that `path` is in, and its name there.
    fn place(&self, process: &BTreeMap<i64, Open>, from: &str, path: &str) -> Option<(Node, String)> {
        let (mut folder, mut rest) = self.path(process, from, path)?;
        let name = rest.pop()?;
        for part in rest {
            folder = *self.names.get(&(folder, part))?;
        }
        Some((folder, name))
    }

    /// The file or folder of ours that `path` begins at, and the names that lead on from there.
    fn path(&self, process: &BTreeMap<i64, Open>, from: &str, path: &str) -> Option<(Node, Vec<String>)> {
        let path = PathBuf::from(String::from_utf8(string(path)).unwrap());
        let names = |path: &Path| -> Vec<String> {
            let normal = path.components().filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_str().unwrap().to_owned()),
                _ => None,
            });
            normal.collect()
        };
        if let Ok(rest) = path.strip_prefix("/proc/self/fd") {
            let mut names = names(rest);
            let descriptor = number(&names.remove(0))?;
            return Some((process.get(&descriptor)?.node?, names));
        }
        if path.is_absolute() {
            return path.strip_prefix(&self.folder).ok().map(|rest| (ROOT, names(rest)));
        }
        Some((process.get(&number(from)?)?.node?, names(&path)))
    }

    /// Makes the record agree with what a killed process left, of whose last calls nobody knows how far they came.
    pub(crate) fn settle(&mut self) {
        let known = self.now();
        let there = files_in(&self.folder);
        for (path, content) in &there {
            if known.get(path) == Some(content) {
                continue;
            }
            let (folder, name) = self.locate(path);
            let node = self.names.get(&(folder, name.clone())).copied();
            let node = node.unwrap_or_else(|| self.make(Kind::File, folder, &name));
            self.write(node, 0, content.clone());
            self.resize(node, content.len());
        }
        for path in known.keys().filter(|path| !there.contains_key(*path)) {
            let (folder, name) = self.locate(path);
            self.name(vec![Entry { folder, name, node: None }]);
        }
    }

    fn locate(&self, path: &str) -> (Node, String) {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let name = parts.pop().unwrap().to_owned();
        let mut folder = ROOT;
        for part in parts {
            folder = self.names[&(folder, part.to_owned())];
        }
        (folder, name)
    }

    fn now(&self) -> BTreeMap<String, Vec<u8>> {
        let disk = self.record.after(self.record.ops.len(), Loss::Nothing);
        disk.files(&self.record.nodes)
    }

    /// Makes sure that what was recorded leads to what is there.
    pub(crate) fn agrees(&self) {
        let (told, there) = (self.now(), files_in(&self.folder));
        assert_eq!(told.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
        for (path, content) in &there {
            assert!(told[path] == *content, "{path} is not what was recorded");
        }
    }
}

fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, path)) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{path}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                open.push((entry.path(), path));
            } else {
                found.insert(path, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// The bytes of a string that strace wrote as `"\x2f\x74"`.
fn string(text: &str) -> Vec<u8> {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let inner = inner.unwrap_or_else(|| panic!("{text:.80} was cut off"));
    let hex = inner.split("\\x").skip(1);
    hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
