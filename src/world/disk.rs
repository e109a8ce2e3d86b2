//! Files and folders. What is written here is written beside, synced, renamed, and its folder synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::Trouble;

/// What the operating system refused, in words.
pub fn refused(what: &str, path: &Path, error: &io::Error) -> Trouble {
    let trouble = Trouble::new(format!("cannot {what} {}", path.display())).because(error);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => trouble.hint(format!(
            "make room in the file system of {}, or name another with -t or tmpdir",
            path.display()
        )),
        io::ErrorKind::PermissionDenied => {
            trouble.hint(format!("check owner and mode of {}", path.display()))
        }
        _ => trouble,
    }
}

/// Whether there is anything at `path`.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether a file is at `path`, and not something else, or a link to one.
pub fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// The whole of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    fs::read(path).map_err(|error| refused("read", path, &error))
}

/// A file to read from.
pub fn open(path: &Path) -> Result<File, Trouble> {
    File::open(path).map_err(|error| refused("open", path, &error))
}

/// Whether there is a folder at `path` in which we may make files.
pub fn may_write_in(path: &Path) -> Result<(), Trouble> {
    let found = fs::metadata(path).map_err(|error| refused("write in", path, &error))?;
    if !found.is_dir() {
        return Err(refused("write in", path, &io::ErrorKind::NotADirectory.into()));
    }
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|error| refused("write in", path, &error.into()))
}

/// Makes a folder that only we can enter, and those above it that are missing; fine when it is there and ours.
pub fn make_private_folder(path: &Path) -> Result<(), Trouble> {
    if let Some(parent) = path.parent().filter(|parent| !exists(parent)) {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(parent);
        made.map_err(|error| refused("make the folder", parent, &error))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).map_err(|error| refused("look at", path, &error))?;
            if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() {
                return Ok(());
            }
            Err(Trouble::new(format!("{} is not a folder of ours", path.display()))
                .hint("remove it, or name another with -t"))
        }
        Err(error) => Err(refused("make the folder", path, &error)),
    }
}

/// Writes a file so that at every moment either the old or the new one is there, whole.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Trouble> {
    let beside = with_suffix(path, ".new");
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|error| refused("write", path, &error))?;
    sync_parent(path)
}

/// A file in the making, which nobody sees before it is whole.
#[derive(Debug)]
pub struct Beside {
    file: NamedTempFile,
    path: PathBuf,
}

impl Beside {
    /// What will be at `path`.
    pub fn open(path: &Path) -> Result<Beside, Trouble> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(folder).map_err(|error| refused("write", path, &error))?;
        Ok(Beside { file, path: path.to_path_buf() })
    }

    /// Puts it there, durable.
    pub fn put_in_place(self) -> Result<(), Trouble> {
        let failed = |error: io::Error| refused("write", &self.path, &error);
        self.file.as_file().sync_all().map_err(failed)?;
        self.file.persist(&self.path).map_err(|error| refused("write", &self.path, &error.error))?;
        sync_parent(&self.path)
    }
}

impl io::Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Removes a file; fine when it is not there. Says whether it was.
pub fn remove_file(path: &Path) -> Result<bool, Trouble> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused("remove", path, &error)),
    }
}

/// Removes a folder of ours with all that is in it; fine when it is not there. Says whether it was.
pub fn remove_folder(path: &Path) -> Result<bool, Trouble> {
    match fs::remove_dir_all(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused("remove", path, &error)),
    }
}

/// Removes a folder if there is nothing in it.
pub fn remove_folder_if_empty(path: &Path) -> Result<(), Trouble> {
    match fs::remove_dir(path) {
        Ok(()) => sync_parent(path),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        Err(error) => Err(refused("remove", path, &error)),
    }
}

/// The files in a folder whose names end in `suffix`, in order of their names; none when there is no such folder.
pub fn files_with_suffix(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>, Trouble> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused("list", folder, &error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| refused("list", folder, &error))?.path();
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(suffix));
        if named && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The names in a folder, in order, each with whether it is a folder itself or leads to one.
pub fn names(folder: &Path) -> Result<Vec<(String, bool)>, Trouble> {
    let failed = |error: io::Error| refused("list", folder, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // What cannot be typed as text is not offered.
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path().is_dir()));
        }
    }
    found.sort();
    Ok(found)
}

/// Takes a file away from everybody but its owner; fine when it is not there.
pub fn make_private(path: &Path) -> Result<(), Trouble> {
    match fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(refused("change the mode of", path, &error))
        }
        _ => Ok(()),
    }
}

/// Bytes that may still be written to the file system of `path` by us.
pub fn free_bytes(path: &Path) -> Result<u64, Trouble> {
    let found = rustix::fs::statvfs(path).map_err(|error| refused("look at", path, &error.into()))?;
    let free = if super::machine::is_root() { found.f_bfree } else { found.f_bavail };
    Ok(free.saturating_mul(found.f_frsize))
}

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file's contents, in hexadecimal; reads it through a buffer of 1 MiB.
pub fn sha256_of_file(path: &Path) -> Result<String, Trouble> {
    let mut file = open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(|error| refused("read", path, &error))?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

/// What tells one file from another: device and inode, which may be used again when a file is gone, and where the file
/// system knows it the time of its birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When it was made, in nanoseconds since 1970.
    pub born: Option<u64>,
}

/// Which file is at `path`, and its length in bytes; `None` when there is none.
pub fn file_at(path: &Path) -> Result<Option<(FileId, u64)>, Trouble> {
    match fs::symlink_metadata(path) {
        Ok(found) => {
            let age = found.created().ok().and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
            let born = age.and_then(|age| u64::try_from(age.as_nanos()).ok());
            Ok(Some((FileId { device: found.dev(), inode: found.ino(), born }, found.len())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused("look at", path, &error)),
    }
}

/// When a file was last changed, in seconds since 1970.
pub fn modified(path: &Path) -> Result<i64, Trouble> {
    fs::symlink_metadata(path).map(|found| found.mtime()).map_err(|error| refused("look at", path, &error))
}

/// A file that grows by appending, and tells what of it is durable.
#[derive(Debug)]
pub struct Growing {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Growing {
    /// Opens `path`, making it when needed, to go on after its first `keep` bytes; what is behind them is cut off.
    pub fn open(path: &Path, keep: u64) -> Result<Growing, Trouble> {
        let failed = |error: io::Error| refused("open", path, &error);
        let made = !exists(path);
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default())
            .open(path)
            .map_err(failed)?;
        if made {
            sync_parent(path)?;
        }
        let length = file.metadata().map_err(failed)?.len().min(keep);
        file.set_len(length).map_err(failed)?;
        Ok(Growing { file, path: path.to_owned(), length })
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Starts over at its beginning.
    pub fn restart(&mut self) -> io::Result<()> {
        self.length = 0;
        self.file.set_len(0)
    }

    /// Makes durable what was written; returns how much that is.
    pub fn sync(&self) -> Result<u64, Trouble> {
        self.file.sync_data().map_err(|error| refused("write", &self.path, &error))?;
        Ok(self.length)
    }

    /// Gives it the time of the thing that it is a copy of.
    pub fn set_modified(&self, seconds: i64) -> Result<(), Trouble> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        self.file.set_modified(time).map_err(|error| refused("set the time of", &self.path, &error))
    }

    /// Gives the file its final name, in place of another file that has it: at every moment the old or the new one has.
    pub fn replace(self, name: &Path) -> Result<(), Trouble> {
        self.file.sync_all().map_err(|error| refused("write", &self.path, &error))?;
        fs::rename(&self.path, name).map_err(|error| refused("name", name, &error))?;
        sync_parent(name)
    }

    /// Gives the file its final name, unless there is something of that name already.
    pub fn publish(self, name: &Path) -> Result<(), Trouble> {
        self.file.sync_all().map_err(|error| refused("write", &self.path, &error))?;
        match fs::hard_link(&self.path, name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if file_at(name)?.map(|found| found.0) != file_at(&self.path)?.map(|found| found.0) {
                    return Err(Trouble::new(format!("{} exists already", name.display()))
                        .hint("move it away, then try again"));
                }
            }
            Err(error) => return Err(refused("name", name, &error)),
        }
        sync_parent(name)?;
        remove_file(&self.path).map(|_| ())
    }
}

/// `path` with `suffix` at the end of its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn sync_parent(path: &Path) -> Result<(), Trouble> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|error| refused("sync", parent, &error))
}
