//! What every store promises, held against those that need nothing but this machine.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod conformance;
mod material;

use std::sync::Arc;

use conformance::{Factory, keeps_every_promise};
use journal::store::Store;
use journal::store::files::FileStore;
use journal::store::memory::MemoryStore;

#[derive(Default)]
struct InMemory(MemoryStore);

impl Factory for InMemory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }
}

struct OnFiles(tempfile::TempDir);

impl Default for OnFiles {
    fn default() -> Self {
        OnFiles(tempfile::tempdir().unwrap())
    }
}

impl Factory for OnFiles {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(FileStore::open(self.0.path().join("journal")).unwrap())
    }
}

mod memory {
    super::keeps_every_promise!(super::InMemory::default());
}

mod files {
    super::keeps_every_promise!(super::OnFiles::default());
}
