//! What `pg_dumpall -g` has written: read, and applied to the server as psql would.
//!
//! It holds password verifiers. So it never touches a disk: each step reads it anew into memory, held against the
//! version that preflight saw. It is sent over a connection of our own, not by a program that could be looked at, and
//! what goes wrong is told by kind and object, without what the statement says.
//!
//! All about roles is one transaction, so that it is done or not done; the server is asked which, by the number that
//! the transaction has. Tablespaces cannot be made in one; each of their statements may be run again.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::preflight;
use super::{
    Repeatable, Secrets, Settings, announced, end_leftovers, maintenance, outcome, read, recorded, server,
    write,
};
use crate::contents::{self, Global, Part};
use crate::world::disk;
use crate::world::postgres::{Refused, Session, literal};

/// Reads it, and refuses one that does more than make roles and tablespaces.
pub struct Globals {
    /// Where.
    pub settings: Settings,
    /// How to get at it.
    pub secrets: Secrets,
}

/// Makes roles, and everything about them.
pub struct Roles {
    /// Where.
    pub settings: Settings,
    /// How to get at it.
    pub secrets: Secrets,
}

/// Makes tablespaces, and everything about them.
pub struct Tablespaces {
    /// Where.
    pub settings: Settings,
    /// How to get at it.
    pub secrets: Secrets,
}

/// The most bytes that are read: many thousand roles.
const LIMIT: u64 = 32 << 20;

/// What became of the roles, or of the tablespaces.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Made {
    /// How many were made.
    made: usize,
    /// How many were there already.
    existing: usize,
    /// The names of those.
    exist_already: Vec<String>,
}

impl Made {
    fn new(all: usize, existing: Vec<String>) -> Made {
        let made = all.saturating_sub(existing.len());
        Made { made, existing: existing.len(), exist_already: super::shortened(existing) }
    }
}

/// The script, as preflight found it.
struct Script {
    url: String,
    globals: contents::Globals,
}

impl Script {
    async fn read(at: &Context<'_>, secrets: &Secrets) -> Result<Script, Failure> {
        let found: preflight::Outcome = outcome(at, "preflight").await?;
        let seen = found.globals.ok_or_else(|| Failure::new("preflight found no roles"))?;
        let url = secrets.url(&seen.url)?;
        let too_large = || Failure::new(format!("{} has more than {LIMIT} bytes", seen.url));
        if seen.bytes.is_some_and(|bytes| bytes > LIMIT) {
            return Err(too_large());
        }
        let bytes = secrets.web()?.get_range(&url, &seen.meta(&url), 0, LIMIT).await?;
        if bytes.len() as u64 > LIMIT {
            return Err(too_large());
        }
        if seen.sha256.as_ref().is_some_and(|sum| *sum != disk::sha256(&bytes)) {
            let why = format!("{0} is damaged: its SHA-256 is not the one in {0}.sha256", seen.url);
            return Err(Failure::new(why).hint("have it made or copied again"));
        }
        let globals = contents::Globals::parse(&bytes).map_err(|error| {
            Failure::new(format!("{} is not what pg_dumpall -g writes: {error}", seen.url)).hint(
                "make it with pg_dumpall -g, which dumps roles and tablespaces only, and without --clean",
            )
        })?;
        Ok(Script { url: seen.url, globals })
    }

    fn made_by(&self, part: Part) -> Vec<String> {
        self.globals.about(part).filter_map(|global| global.makes.clone()).collect()
    }

    /// Makes the session one in which the statements mean what they meant to pg_dumpall, and keeps a statement that
    /// goes wrong out of the server's log where we may.
    async fn prepare(&self, session: &Session) -> Result<(), Failure> {
        let quiet = "SELECT set_config(name, value, false) FROM pg_roles, (VALUES ('log_statement', 'none'), \
                     ('log_min_error_statement', 'panic'), ('log_min_duration_statement', '-1')) AS quiet (name, value) \
                     WHERE rolname = current_user AND rolsuper";
        session.execute(quiet).await?;
        for global in self.globals.about(Part::Session) {
            session.attempt(&global.sql).await.map_err(|refused| self.failed(global, &refused))?;
        }
        Ok(())
    }

    fn failed(&self, global: &Global, refused: &Refused) -> Failure {
        let state = refused.sqlstate.as_ref().map(|state| format!(" [{state}]")).unwrap_or_default();
        Failure::new(format!("{} (line {} of {}) failed", global.what, global.line, self.url))
            .because(format!("{}{state}", global.without_secrets(&refused.message)))
            .transient(refused.transient)
            .hint("mend what it needs on the target, or leave the statement out of the file, and init again")
    }
}

/// SQLSTATE duplicate_object: there is such a role or tablespace.
fn exists_already(global: &Global, refused: &Refused) -> bool {
    global.makes.is_some() && refused.sqlstate.as_deref() == Some("42710")
}

/// Those of `names` that a catalog has.
async fn existing(session: &Session, names: &[String], catalog: &str) -> Result<Vec<String>, Failure> {
    let names = names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT name FROM unnest(ARRAY[{names}]::text[]) AS name WHERE name IN ({catalog}) ORDER BY 1"
    );
    Ok(session.rows(&sql).await?.into_iter().flatten().flatten().collect())
}

#[async_trait]
impl Repeatable for Globals {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        Ok(Intent::Do(Detail::new()))
    }

    async fn act(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        let script = Script::read(at, &self.secrets).await?;
        let (roles, tablespaces) =
            (script.made_by(Part::Roles).len(), script.made_by(Part::Tablespaces).len());
        Ok(write(&serde_json::json!({ "file": script.url, "roles": roles, "tablespaces": tablespaces })))
    }
}

/// Recorded before the transaction ends: its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Transaction {
    xid: String,
}

impl Roles {
    /// Applies everything within a transaction that is open; the names of the roles that were there.
    async fn apply(&self, script: &Script, session: &Session) -> Result<Vec<String>, Failure> {
        let mut existing = Vec::new();
        for global in script.globals.about(Part::Roles) {
            if global.makes.is_some() {
                session.execute("SAVEPOINT before").await?;
            }
            match session.attempt(&global.sql).await {
                Ok(()) => {}
                Err(refused) if exists_already(global, &refused) => {
                    session.execute("ROLLBACK TO before").await?;
                    existing.extend(global.makes.clone());
                }
                Err(refused) => return Err(script.failed(global, &refused)),
            }
            if global.makes.is_some() {
                session.execute("RELEASE before").await?;
            }
        }
        Ok(existing)
    }
}

#[async_trait]
impl Step for Roles {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let script = Script::read(at, &self.secrets).await?;
        let roles = script.made_by(Part::Roles);
        let existing =
            existing(&maintenance(at, &self.settings).await?, &roles, "SELECT rolname FROM pg_roles").await?;
        Ok(Intent::Do(write(&Made::new(roles.len(), existing))))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        end_leftovers(at, &server(at, &self.settings).await?, &self.settings.maintdb).await?;
        let Some(begun) = recorded(at, "transaction").await else { return Ok(Observed::Absent) };
        let Transaction { xid } = read(&begun)?;
        let sql = format!("SELECT txid_status({}::bigint)", literal(&xid));
        Ok(match maintenance(at, &self.settings).await?.value(&sql).await?.as_deref() {
            Some("committed") => Observed::Done(intent.clone()),
            Some("aborted") => Observed::Absent,
            Some(_) => {
                return Err(Failure::new("the transaction that makes the roles is not over").transient(true));
            }
            // The server forgets what is long past; to make the roles once more changes nothing then.
            None => Observed::Absent,
        })
    }

    async fn act(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        let script = Script::read(at, &self.secrets).await?;
        let session = maintenance(at, &self.settings).await?;
        script.prepare(&session).await?;
        session.execute("BEGIN").await?;
        let xid = session.value("SELECT txid_current()").await?.unwrap_or_default();
        at.part_done("transaction", write(&Transaction { xid })).await?;
        // Where anything goes wrong from here on, the session ends, and the transaction with it.
        let existing = self.apply(&script, &session).await?;
        session.execute("COMMIT").await?;
        Ok(write(&Made::new(script.made_by(Part::Roles).len(), existing)))
    }

    /// Asked for only when the transaction was seen not to have come to its end.
    async fn undo(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        end_leftovers(at, &server(at, &self.settings).await?, &self.settings.maintdb).await?;
        Ok(Detail::new())
    }
}

#[async_trait]
impl Step for Tablespaces {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let script = Script::read(at, &self.secrets).await?;
        if script.globals.about(Part::Tablespaces).next().is_none() {
            return Ok(Intent::Skip("there is none in the file".to_owned()));
        }
        let tablespaces = script.made_by(Part::Tablespaces);
        let session = maintenance(at, &self.settings).await?;
        let existing = existing(&session, &tablespaces, "SELECT spcname FROM pg_tablespace").await?;
        // What a first attempt has made is not there already.
        Ok(Intent::Do(announced(at).await.unwrap_or_else(|| write(&Made::new(tablespaces.len(), existing)))))
    }

    async fn observe(&self, at: &Context<'_>, _: &Detail) -> Result<Observed, Failure> {
        end_leftovers(at, &server(at, &self.settings).await?, &self.settings.maintdb).await?;
        Ok(Observed::Absent)
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let script = Script::read(at, &self.secrets).await?;
        let session = maintenance(at, &self.settings).await?;
        script.prepare(&session).await?;
        for global in script.globals.about(Part::Tablespaces) {
            match session.attempt(&global.sql).await {
                Err(refused) if !exists_already(global, &refused) => {
                    return Err(script.failed(global, &refused));
                }
                _ => {}
            }
        }
        Ok(intent.clone())
    }

    /// The roles that come before cannot be taken back, so this is not asked for.
    async fn undo(&self, _: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        Err(Failure::new("tablespaces that were made stay").hint("DROP TABLESPACE takes one away"))
    }
}
