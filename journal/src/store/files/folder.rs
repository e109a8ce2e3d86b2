//! Where everything lies in the journal's folder, and the few ways in which files come to be there: private to their
//! owner, and durable by name as well as by content.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::super::StoreError;
use crate::event::{Hash, RunId};

/// How the names of databases begin that are not finished.
const IN_MAKING: &str = "sled.new.";

/// More files than this are made durable together with their whole file system, fewer one by one.
const MANY: usize = 16;

/// The journal's folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes the folders that are missing; durable on return.
    pub(super) fn open(root: PathBuf) -> Result<Folder, StoreError> {
        let folder = Folder { root };
        make(&folder.root)?;
        let mut made = false;
        for path in
            [folder.targets(), folder.attachments(), folder.open_runs(), folder.sealed(), folder.runs()]
        {
            made |= create(&path)?;
        }
        // Whoever made them before may have been killed before this; it has not been when there is a run.
        if made || is_empty(&folder.runs())? {
            sync(&folder.root)?;
        }
        Ok(folder)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    pub(super) fn targets(&self) -> PathBuf {
        self.root.join("targets")
    }

    pub(super) fn attachments(&self) -> PathBuf {
        self.root.join("attachments")
    }

    /// Holds a marker for each run whose file may hold more than the database.
    pub(super) fn open_runs(&self) -> PathBuf {
        self.root.join("open")
    }

    pub(super) fn run_file(&self, run: RunId) -> PathBuf {
        self.runs().join(format!("{run}.log"))
    }

    pub(super) fn run_lock(&self, run: RunId) -> PathBuf {
        self.runs().join(format!("{run}.lock"))
    }

    /// How far the run's step is, as its owner shows.
    pub(super) fn progress(&self, run: RunId) -> PathBuf {
        self.runs().join(format!("{run}.progress"))
    }

    pub(super) fn target_lock(&self, target: &str) -> PathBuf {
        self.targets().join(format!("{}.lock", Hash::of(target.as_bytes())))
    }

    pub(super) fn marker(&self, run: RunId) -> PathBuf {
        self.open_runs().join(run.to_string())
    }

    pub(super) fn attachment(&self, hash: Hash) -> PathBuf {
        self.attachments().join(hash.to_string())
    }

    pub(super) fn database(&self) -> PathBuf {
        self.root.join("sled")
    }

    /// Where a database is made, before it is put in place whole; each at a place of its own, since a thread that was
    /// left to itself may still be at work on another.
    pub(super) fn database_in_making(&self, id: Uuid) -> PathBuf {
        self.root.join(format!("{IN_MAKING}{id}"))
    }

    /// Removes databases that were never finished, and so hold nothing that the run files have not.
    pub(super) fn remove_unfinished_databases(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.root).map_err(failed("list", &self.root))? {
            let entry = entry.map_err(failed("list", &self.root))?;
            if entry.file_name().to_string_lossy().starts_with(IN_MAKING) {
                // One that is still written to stays until the next time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    pub(super) fn database_lock(&self) -> PathBuf {
        self.root.join("sled.lock")
    }

    /// Where sealed segments are.
    pub(super) fn sealed(&self) -> PathBuf {
        self.root.join("sealed")
    }

    /// Says which segments there are.
    pub(super) fn sealed_index(&self) -> PathBuf {
        self.sealed().join("index")
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.sealed().join(format!("{number:08}.runs"))
    }

    /// The numbers of the segments that have a file.
    pub(super) fn segments(&self) -> Result<Vec<u64>, StoreError> {
        let number = |name: &str| name.parse::<u64>().ok();
        named_in(&self.sealed(), ".runs", number)
    }

    /// What the journal has come to know, in order.
    pub(super) fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// Says how far the database had come when it was last closed.
    pub(super) fn head(&self) -> PathBuf {
        self.root.join("sled.head")
    }

    /// A free name for `what` when it is set aside, without its folder.
    pub(super) fn damaged_name(&self, what: &str, at: jiff::Timestamp) -> String {
        let stem = format!("{what}.damaged.{}", at.strftime("%Y%m%dT%H%M%SZ"));
        let taken = |name: &String| self.root.join(name).exists();
        if !taken(&stem) {
            return stem;
        }
        let mut names = (2..=u32::MAX).map(|number| format!("{stem}.{number}"));
        names.find(|name| !taken(name)).unwrap_or(stem)
    }

    /// The runs that have a marker, oldest first.
    pub(super) fn marked(&self) -> Result<Vec<RunId>, StoreError> {
        ids_in(&self.open_runs(), "")
    }

    /// The runs that have a file, oldest first.
    pub(super) fn written(&self) -> Result<Vec<RunId>, StoreError> {
        ids_in(&self.runs(), ".log")
    }
}

fn ids_in(path: &Path, suffix: &str) -> Result<Vec<RunId>, StoreError> {
    named_in(path, suffix, |name| name.parse().ok())
}

fn named_in<T: Ord>(
    path: &Path,
    suffix: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, StoreError> {
    let entries = fs::read_dir(path).map_err(failed("list", path))?;
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("list", path))?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(suffix));
        found.extend(name.and_then(&parse));
    }
    found.sort_unstable();
    Ok(found)
}

/// Turns the operating system's refusal to do `what` to `path` into the store's error.
pub(super) fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { what, path: path.to_path_buf(), source }
}

/// Makes a folder that only its owner may enter, and those above it; durable on return.
pub(super) fn make(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let known = path.is_dir();
    if !known {
        if let Some(parent) = parent {
            make(parent)?;
        }
        create(path)?;
    }
    // One that is empty may have been made by a process that was killed before its name was durable.
    if known && !is_empty(path)? {
        return Ok(());
    }
    match sync(parent.unwrap_or(Path::new("."))) {
        // Where nobody may look, it was not made by this program.
        Err(StoreError::Io { source, .. }) if known && source.kind() == io::ErrorKind::PermissionDenied => {
            Ok(())
        }
        synced => synced,
    }
}

/// Makes a folder that only its owner may enter, and says whether it was missing.
fn create(path: &Path) -> Result<bool, StoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(failed("create", path)(error)),
    }
}

fn is_empty(path: &Path) -> Result<bool, StoreError> {
    Ok(fs::read_dir(path).map_err(failed("list", path))?.next().is_none())
}

/// Makes the names in a folder durable.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    let folder = File::open(path).map_err(failed("open", path))?;
    folder.sync_all().map_err(failed("sync", path))
}

/// How files in here are opened that may have to be made: private, never shortened.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

/// Opens a file, making it if it is not there; durable by name.
pub(super) fn open(path: &Path) -> Result<File, StoreError> {
    let file = private().open(path).map_err(failed("open", path))?;
    // An empty one may have been made by a process that was killed before this.
    if file.metadata().map_err(failed("look at", path))?.len() == 0 {
        sync(path.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(file)
}

/// Makes `path` hold `bytes`, all or nothing, whatever crashes; durable on return.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = beside(path);
    let written = fill(&temporary, bytes)
        .and_then(|file| file.sync_all().map_err(failed("sync", &temporary)))
        .and_then(|()| fs::rename(&temporary, path).map_err(failed("put in place", path)));
    if written.is_err() {
        // The reason is on its way to the caller; a file that stays is one nobody reads.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

/// Makes files in `folder` that must not be there yet, each as a whole or not at all, whatever crashes; durable on
/// return.
pub(super) fn add_all(
    folder: &Path,
    files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>,
) -> Result<(), StoreError> {
    let mut written = Vec::new();
    let added = write_and_add(folder, files, &mut written);
    for (temporary, _) in &written {
        // A file that stays is one nobody reads.
        let _ = fs::remove_file(temporary);
    }
    added?;
    sync(folder)
}

/// Tells in `written` which files it has made, for which others.
fn write_and_add(
    folder: &Path,
    files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>,
    written: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<(), StoreError> {
    for (path, bytes) in files {
        let temporary = beside(&path);
        written.push((temporary.clone(), path));
        fill(&temporary, &bytes)?;
    }
    let temporaries: Vec<&Path> = written.iter().map(|(temporary, _)| temporary.as_path()).collect();
    sync_files(folder, &temporaries)?;
    for (temporary, path) in written {
        fs::hard_link(temporary, &*path).map_err(failed("put in place", path))?;
    }
    Ok(())
}

/// A name that nobody else has.
fn beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{number}.tmp", process::id()));
    PathBuf::from(name)
}

fn fill(path: &Path, bytes: &[u8]) -> Result<File, StoreError> {
    let mut file = private().truncate(true).open(path).map_err(failed("create", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    Ok(file)
}

/// Makes the contents of these files in `folder` durable.
pub(super) fn sync_files(folder: &Path, paths: &[impl AsRef<Path>]) -> Result<(), StoreError> {
    if paths.len() > MANY {
        let opened = File::open(folder).map_err(failed("open", folder))?;
        return rustix::fs::syncfs(&opened).map_err(|error| failed("sync", folder)(error.into()));
    }
    for path in paths {
        let path = path.as_ref();
        File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))?;
    }
    Ok(())
}

/// Removes a file; that there is none is fine.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", path)),
    }
}
