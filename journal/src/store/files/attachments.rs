//! What is too large for an event, each in a file named by its hash.

use std::fs;
use std::io;

use super::super::StoreError;
use super::folder::{self, Folder, failed};
use crate::event::Hash;

/// Stores `bytes`; durable on return.
pub(super) fn store(folder: &Folder, bytes: &[u8]) -> Result<Hash, StoreError> {
    let hash = Hash::of(bytes);
    let path = folder.attachment(hash);
    // A file with these bytes may have been renamed into place by somebody who has not synced the folder yet.
    if fs::read(&path).is_ok_and(|stored| stored == bytes) {
        folder::sync(&folder.attachments())?;
    } else {
        folder::replace(&path, bytes)?;
    }
    Ok(hash)
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
