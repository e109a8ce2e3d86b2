//! Where the journal is: in a folder, or on a server that several controllers share.

use std::path::PathBuf;
use std::sync::Arc;

use journal::store::Upkeep;
use journal::store::files::FileStore;
use journal::store::postgres::{self, PostgresStore, Refused};

use super::{absolute, actor};
use crate::config::{JournalServer, without_secrets};
use crate::error::{Error, ExitCode};
use crate::world::postgres::Destination;
use crate::world::{Trouble, disk, machine};

/// Where the journal is wanted.
pub(super) enum Place {
    /// Nothing is said about it: in the usual folder.
    Usual,
    /// In a folder.
    Folder(PathBuf),
    /// On a server.
    Server(JournalServer),
}

impl Place {
    /// The place that is written so, as a folder or as a URL.
    pub(super) fn of(written: Option<&str>) -> Result<Place, Error> {
        match written {
            None => Ok(Place::Usual),
            Some(url) if url.contains("://") => {
                JournalServer::parse(url).map(Place::Server).map_err(|problem| {
                    let url = without_secrets(url);
                    Error::new(ExitCode::USAGE, format!("the journal's place `{url}` {problem}"))
                        .hint("name a folder or postgres://user@host:port/database with --journal or journal")
                })
            }
            Some(folder) => absolute(&expand_home(folder)?).map(Place::Folder),
        }
    }

    /// The journal there. A server is not reached before something is asked of it.
    pub(super) fn open(&self) -> Result<Arc<dyn Upkeep>, Error> {
        match self {
            Place::Usual | Place::Folder(_) => Ok(Arc::new(self.open_folder()?)),
            Place::Server(server) => shared(server),
        }
    }

    /// The same where only a folder will do, signed by us where it records something itself.
    pub(super) fn open_folder(&self) -> Result<FileStore, Error> {
        let store = FileStore::open(self.folder()?)?;
        store.sign(&actor(&machine::this_process()?));
        Ok(store)
    }

    /// Whether there is something to look at: a folder may still be missing.
    pub(super) fn is_there(&self) -> Result<bool, Error> {
        match self {
            Place::Usual | Place::Folder(_) => Ok(disk::exists(&self.folder()?)),
            Place::Server(_) => Ok(true),
        }
    }

    /// The folder, which may not be there yet.
    pub(super) fn folder(&self) -> Result<PathBuf, Error> {
        match self {
            Place::Usual => absolute(&machine::default_journal()?),
            Place::Folder(folder) => Ok(folder.clone()),
            Place::Server(server) => {
                let url = without_secrets(&server.url);
                Err(Error::new(ExitCode::USAGE, format!("the journal is in no folder: it is on {url}"))
                    .hint("name a folder with --journal"))
            }
        }
    }
}

fn shared(server: &JournalServer) -> Result<Arc<dyn Upkeep>, Error> {
    let to = Destination::of(&server.url, "pg_staging journal")
        .map_err(|trouble| Error { code: ExitCode::USAGE, ..trouble.into() })?;
    let (to, lease) = (Arc::new(to), server.lease.unwrap_or(postgres::LEASE));
    let place = to.place().to_owned();
    let connect = move || {
        let to = Arc::clone(&to);
        Box::pin(async move { to.connect().await.map_err(refused) }) as _
    };
    Ok(Arc::new(PostgresStore::open(place, lease, Box::new(connect))?))
}

fn refused(trouble: Trouble) -> Refused {
    Refused { what: trouble.cause.unwrap_or(trouble.message), hint: trouble.hint }
}

/// A path with `~/` replaced.
pub(super) fn expand_home(path: &str) -> Result<PathBuf, Error> {
    match (path.strip_prefix("~/"), machine::home()) {
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        (Some(_), None) => {
            Err(Error::new(ExitCode::USAGE, format!("cannot tell what ~ is in '{path}': HOME is not set")))
        }
        (None, _) => Ok(PathBuf::from(path)),
    }
}
