//! The stage: private, real servers for tests and the demo, and their certain end.
//!
//! A [`Stage`] is a scratch folder with a PostgreSQL cluster of its own on free loopback ports; pgbouncer, sshd, nginx and
//! a [`RudeServer`] are started beside it as needed, and a [`Site`] joins what one restore needs. Everything runs as an
//! unprivileged account. When the last owner is gone, by drop, panic or SIGKILL, the guardian (`guardian.sh`) ends the
//! servers and removes the folder. Nothing here depends on a test harness: the demo includes this folder as well.
#![allow(dead_code, unused_imports, reason = "each program that includes the stage uses its own part of it")]
#![allow(unreachable_pub, reason = "`pub` says what the stage offers to the program that includes it")]
#![allow(
    clippy::disallowed_methods,
    reason = "the stage starts servers, and so is outside the doors of the program"
)]

mod bouncer;
mod cluster;
mod error;
mod etc;
mod port;
mod production;
mod rude;
mod scratch;
mod server;
mod site;
mod sshd;
mod terminal;
mod tls;
mod versions;
mod web;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

pub use bouncer::{Bouncer, BouncerOptions, Destination, PoolMode};
pub use cluster::{Cluster, ClusterOptions};
pub use error::{Result, StageError};
pub use etc::Etc;
pub use production::{
    Fingerprint, Scale, TableFingerprint, dump, everything, fingerprint, production, production_roles,
    restored_by_pg_restore, schema_fingerprint, source_database, told_in_full,
};
pub use rude::{Asked, Conduct, Plan, Request, RudeServer};
pub use scratch::{Account, Scratch};
pub use server::{Server, wait_until};
pub use site::{Outcome, Program, Serving, Site, SiteOptions, binary};
pub use sshd::{CLIENT_SCRIPT, Sshd};
pub use terminal::{Key, Terminal};
pub use tls::TlsDoor;
pub use versions::{Postgres, Versions};
pub use web::Nginx;

use cluster::start_cluster;
use production::Dumps;

/// The address at which the program takes a server for a local one.
pub const LOCAL: &str = "127.0.0.1";
/// A loopback address that the program takes for another machine, so that it uses ssh and scp.
pub const FAR: &str = "127.0.0.2";

/// What a stage is started with.
#[derive(Clone, Debug, Default)]
pub struct StageOptions {
    /// Settings of the PostgreSQL cluster.
    pub cluster: ClusterOptions,
}

/// A scratch folder, a running PostgreSQL cluster, and what is started once and shared: nginx, sshd and the dumps.
#[derive(Debug)]
pub struct Stage {
    cluster: Cluster,
    dumps: Mutex<Dumps>,
    nginx: Mutex<Option<Arc<Nginx>>>,
    sshd: Mutex<Option<Arc<Sshd>>>,
    scratch: Arc<Scratch>,
}

impl Stage {
    /// Makes the scratch folder, and starts the cluster in it; ready for connections when this returns.
    pub fn start(options: &StageOptions) -> Result<Stage> {
        let scratch = Arc::new(Scratch::create()?);
        Ok(Stage {
            cluster: start_cluster(&scratch, &options.cluster)?,
            dumps: Mutex::default(),
            nginx: Mutex::default(),
            sshd: Mutex::default(),
            scratch,
        })
    }

    /// The one stage of this process, started by the first who asks; it ends with the process.
    pub fn shared() -> Result<&'static Stage> {
        static SHARED: OnceLock<std::result::Result<Stage, String>> = OnceLock::new();
        let started =
            SHARED.get_or_init(|| Stage::start(&StageOptions::default()).map_err(|error| error.to_string()));
        started.as_ref().map_err(|reason| StageError::Shared { reason: reason.clone() })
    }

    /// The folder in which everything of this stage lives.
    pub fn scratch(&self) -> &Arc<Scratch> {
        &self.scratch
    }

    /// The stage's PostgreSQL.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The stage's nginx, started by the first who asks.
    pub fn nginx(&self) -> Result<Arc<Nginx>> {
        once(&self.nginx, || Nginx::start(&self.scratch))
    }

    /// The stage's sshd, started by the first who asks.
    pub fn sshd(&self) -> Result<Arc<Sshd>> {
        once(&self.sshd, || Sshd::start(self))
    }

    /// The dump of a [`production`] database of that scale, made by the first who asks; link or copy it, never change it.
    pub fn production_dump(&self, scale: Scale) -> Result<PathBuf> {
        lock(&self.dumps).of(self, scale)
    }

    /// The name of the database that [`Stage::production_dump`] was made of: what a full restore must equal.
    pub fn production_database(&self, scale: Scale) -> Result<String> {
        self.production_dump(scale)?;
        Ok(source_database(scale))
    }
}

/// What the slot holds; made first if it is empty.
fn once<T>(slot: &Mutex<Option<Arc<T>>>, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
    let mut slot = lock(slot);
    match &*slot {
        Some(made) => Ok(Arc::clone(made)),
        None => Ok(Arc::clone(slot.insert(Arc::new(make()?)))),
    }
}

/// Locks, also after another test panicked while it held the lock: what we guard is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
