//! What is too large for an event, each in a file named by its hash.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};

use super::super::StoreError;
use super::folder::{self, Folder, failed};
use crate::event::Hash;

/// Stores `bytes`; durable on return.
pub(super) fn store(folder: &Folder, bytes: &[u8]) -> Result<Hash, StoreError> {
    let hash = Hash::of(bytes);
    let path = folder.attachment(hash);
    // Nobody takes it away for being old meanwhile.
    let place = folder.attachments();
    let lock = File::open(&place).map_err(failed("open", &place))?;
    lock.lock_shared().map_err(failed("lock", &place))?;
    // A file with these bytes may have been renamed into place by somebody who has not synced the folder yet.
    if fs::read(&path).is_ok_and(|stored| stored == bytes) {
        touch(&path)?;
        folder::sync(&place)?;
    } else {
        folder::replace(&path, bytes)?;
    }
    Ok(hash)
}

/// Makes a file one that was stored just now.
fn touch(path: &Path) -> Result<(), StoreError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    futimens(&file, &times).map_err(|error| failed("touch", path)(error.into()))
}

/// The bytes stored under `hash`.
pub(super) fn load(folder: &Folder, hash: Hash) -> Result<Vec<u8>, StoreError> {
    let path = folder.attachment(hash);
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::NoSuchAttachment(hash),
        _ => failed("read", &path)(error),
    })?;
    let found = Hash::of(&bytes);
    if found != hash {
        return Err(StoreError::Damaged {
            path,
            what: format!("its content has the hash {found}, which is not its name"),
        });
    }
    Ok(bytes)
}
