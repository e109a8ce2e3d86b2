//! Chooses the pg_restore that fits the dump and the server, among those that are installed.

use std::cmp::Reverse;
use std::path::PathBuf;

use journal::event::Failure;
use journal::step::Context;
use serde::{Deserialize, Serialize};

use super::catalog::Selected;
use super::{Settings, outcome, preflight};
use crate::contents::{Contents, Readers, major};
use crate::world::clients::{Installed, pg_restores};
use crate::world::process::Program;

/// The pg_restore that a run uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// Where.
    pub path: PathBuf,
    /// Its version, as it says itself.
    pub version: String,
    /// The configured one, when that does not fit.
    pub instead_of: Option<PathBuf>,
}

/// What is to be read: how it is called, what it holds, and how it reaches a pg_restore.
pub(super) struct Source<'a> {
    /// Its path or URL.
    pub(super) name: String,
    pub(super) contents: &'a Contents,
    /// The bytes of the head; the file itself is read when there are none.
    pub(super) head: Option<&'a [u8]>,
}

/// The pg_restore that this run chose; the configured one in a run that was begun before there was a choice.
pub(super) async fn chosen(at: &Context<'_>, settings: &Settings) -> Result<PathBuf, Failure> {
    let Selected { reader, .. } = outcome(at, "catalog").await?;
    Ok(reader.map_or_else(|| settings.pg_restore.clone(), |reader| reader.path))
}

/// Chooses: the configured one when it can do it, else the newest that can. Each is asked to list the dump, since a
/// pg_restore may have been built without what the rows are compressed with.
///
/// # Errors
/// When none can: which version would be needed, and what is installed.
pub(super) async fn choose(
    at: &Context<'_>,
    settings: &Settings,
    source: &Source<'_>,
) -> Result<Reader, Failure> {
    let found: preflight::Outcome = outcome(at, "preflight").await?;
    let server = found.server_version.map(|number| number / 10_000);
    let readers = Readers::of(source.contents, server);
    let installed = pg_restores(&settings.pg_restore).await;
    let mut fit: Vec<&Installed> = installed.iter().filter(|one| fits(readers, one)).collect();
    fit.sort_by_key(|one| {
        let major = major(&one.version).unwrap_or_default();
        (!readers.knows_all(major), one.path != settings.pg_restore, Reverse(major))
    });
    let mut refused = None;
    for one in fit {
        match lists(one, source).await? {
            None => {
                let Installed { path, version } = one.clone();
                let instead_of = Some(settings.pg_restore.clone()).filter(|configured| *configured != path);
                return Ok(Reader { path, version, instead_of });
            }
            Some(cause) => refused = refused.or(Some((one, cause))),
        }
    }
    Err(match refused {
        Some((one, cause)) => cannot_read(one, source, &cause),
        None => none_fits(settings, source, readers, server, &installed),
    })
}

fn fits(readers: Readers, one: &Installed) -> bool {
    major(&one.version).is_some_and(|major| readers.fits(major))
}

/// Has a pg_restore list the dump; gives what it says when it cannot read it, or not all of it.
async fn lists(one: &Installed, source: &Source<'_>) -> Result<Option<String>, Failure> {
    // Built without what the rows are compressed with, it warns, and restores tables without them.
    const NO_ROWS: &str = "no data will be available";
    let program = Program::new(&one.path).arg("--list").env("LC_ALL", "C");
    let ended = match source.head {
        Some(head) => program.run_with(head).await?,
        None => program.arg(&source.name).run().await?,
    };
    let said = ended.errors();
    Ok((!ended.status.success() || said.contains(NO_ROWS)).then(|| said.trim().to_owned()))
}

fn cannot_read(one: &Installed, source: &Source<'_>, cause: &str) -> Failure {
    let failure = Failure::new(format!("{} cannot read {}", one.path.display(), source.name)).because(cause);
    if cause.contains("support compression") {
        let hint = format!(
            "install a pg_restore {} that was built with {:?}, or have the backup made with another compression",
            major(&one.version).unwrap_or_default(),
            source.contents.compression()
        );
        return failure.hint(hint.to_lowercase());
    }
    failure.hint("have the backup made or copied again")
}

fn none_fits(
    settings: &Settings,
    source: &Source<'_>,
    readers: Readers,
    server: Option<u32>,
    installed: &[Installed],
) -> Failure {
    let Readers { oldest, newest, .. } = readers;
    let wrote = source.contents.dump_version();
    let there: Vec<String> =
        installed.iter().map(|one| format!("{} at {}", one.version, one.path.display())).collect();
    let there = format!("installed: {}", if there.is_empty() { "none".to_owned() } else { there.join("; ") });
    let server = server.unwrap_or_default();
    if readers.is_none() {
        return Failure::new(format!("no pg_restore can load {} into PostgreSQL {server}", source.name))
            .because(format!(
                "pg_dump {wrote} wrote it, a pg_restore older than {oldest} does not read that, and from {oldest} on it sets transaction_timeout, which servers have since PostgreSQL 17"
            ))
            .hint("restore onto PostgreSQL 17 or newer, or have the backup made by pg_dump 16 or older");
    }
    let configured = installed.iter().find(|one| one.path == settings.pg_restore);
    let is_old = configured.and_then(|one| major(&one.version)).is_none_or(|major| major < oldest);
    let (how, why) = if is_old {
        ("old", format!("pg_dump {wrote} wrote it"))
    } else {
        ("new", format!("it sets transaction_timeout, which PostgreSQL {server} does not have"))
    };
    let needed = match newest {
        Some(newest) if newest == oldest => format!("PostgreSQL {oldest}"),
        Some(newest) => format!("PostgreSQL {oldest} to {newest}"),
        None => format!("PostgreSQL {oldest} or newer"),
    };
    Failure::new(format!("{} is too {how} for {}", settings.pg_restore.display(), source.name))
        .because(format!("{why}; {there}"))
        .hint(format!(
            "install the client programs of {needed}; what is in /usr/lib/postgresql and on PATH is found"
        ))
}
