//! Makes the dated database.
//!
//! CREATE DATABASE and COMMENT cannot share a transaction, so between them a database of the final name would be there
//! that nobody can tell from somebody else's. Therefore it is made under a name that only this run can have, marked,
//! and then renamed: whatever has the final name and no mark is not ours.

use async_trait::async_trait;
use journal::event::{Detail, Failure, RunId};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::protection::Protection;
use super::{
    Settings, application_name, maintenance, maintenance_alone, outcome, preflight, read, server, write,
};
use crate::world::postgres::{Session, identifier, literal};

/// The step.
pub struct CreateDatabase {
    /// Where.
    pub settings: Settings,
    /// How.
    pub given: Given,
}

/// Its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// Whether a database of that name that is still empty may be taken instead of a new one.
    pub may_adopt: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    name: String,
    owner: String,
    encoding: String,
    /// The name it has until it is marked.
    made_as: String,
    /// The comment of the empty database that is taken over, when there is one.
    adopted: Option<String>,
}

/// One row when nothing was made in a database, and nothing set for it, since CREATE DATABASE.
const UNTOUCHED: &str = include_str!("create_database_untouched.sql");

/// What stands on a database of ours: which run made it, and how far that run is with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark;

impl Mark {
    /// The text of the mark.
    pub(crate) fn text(run: RunId) -> String {
        format!("pg_staging run {run}")
    }

    /// The text of the mark when `reached` is done in the database, in the same transaction.
    pub(crate) fn reached(run: RunId, reached: &str) -> String {
        format!("{}, done: {reached}", Mark::text(run))
    }

    /// Whether a database's comment says that it is of this run.
    pub(crate) fn is_of(comment: &str, run: RunId) -> bool {
        let mark = Mark::text(run);
        let rest = comment.strip_prefix(&mark);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(", done: ") || rest.starts_with(NOTE))
    }

    /// What a database's comment says is done in it.
    pub(crate) fn what_is_done(comment: &str, run: RunId) -> Option<&str> {
        let done = comment.strip_prefix(&Mark::text(run))?.strip_prefix(", done: ")?;
        Some(done.split_once(NOTE).map_or(done, |(done, _)| done))
    }

    /// What another run than the one that made the database has noted behind its comment.
    pub(crate) fn noted(comment: &str, run: RunId) -> Option<&str> {
        let (_, rest) = comment.split_once(&note_of(run))?;
        let end = rest.find(&format!("]{NOTE}")).or(rest.strip_suffix(']').map(str::len))?;
        rest.get(..end)
    }

    /// The comment with that note of the run's in place of the one it may have had, all else as it was.
    pub(crate) fn with_note(comment: &str, run: RunId, note: Option<&str>) -> String {
        let old = Mark::noted(comment, run).map(|old| format!("{}{old}]", note_of(run)));
        let bare = old.map_or(comment.to_owned(), |old| comment.replacen(&old, "", 1));
        match note {
            Some(note) => format!("{bare}{}{note}]", note_of(run)),
            None => bare,
        }
    }

    /// What other runs have noted behind a comment, each with its run, in the order in which they came.
    pub(crate) fn notes(comment: &str) -> Vec<(RunId, &str)> {
        let notes = comment.split(NOTE).skip(1);
        let notes = notes.filter_map(|note| note.strip_suffix(']')?.split_once(" did "));
        notes.filter_map(|(run, did)| Some((run.parse().ok()?, did))).collect()
    }

    /// The run whose mark a comment is.
    pub(crate) fn run_of(comment: &str) -> Option<RunId> {
        comment.strip_prefix("pg_staging run ")?.get(..36)?.parse().ok()
    }
}

/// How a note begins that a run leaves on a copy of another's.
const NOTE: &str = " [pg_staging run ";

fn note_of(run: RunId) -> String {
    format!("{NOTE}{run} did ")
}

/// The run that made a database, when its comment is a mark.
pub fn run_that_made(comment: &str) -> Option<RunId> {
    Mark::run_of(comment)
}

/// The comment of a database: `None` when there is no such database, empty when it has none.
pub(crate) async fn comment_of(session: &Session, name: &str) -> Result<Option<String>, Failure> {
    let sql = format!(
        "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = {}",
        literal(name)
    );
    Ok(session.value(&sql).await?)
}

/// The OID of a database: what tells it from another of the same name that came later.
pub(crate) async fn oid_of(session: &Session, name: &str) -> Result<Option<u32>, Failure> {
    let sql = format!("SELECT oid FROM pg_database WHERE datname = {}", literal(name));
    Ok(session.value(&sql).await?.and_then(|oid| oid.parse().ok()))
}

/// The copy must be the one that this run made: its name says nothing, and somebody may have dropped it and made another
/// since this run was last at work.
pub(crate) async fn require_ours(session: &Session, name: &str, run: RunId) -> Result<(), Failure> {
    match comment_of(session, name).await? {
        Some(comment) if Mark::is_of(&comment, run) => Ok(()),
        Some(_) => Err(Failure::new(format!("database {name} is not the one that this run made"))
            .because("its mark (COMMENT ON DATABASE) is not this run's")
            .hint(format!(
                "somebody made another meanwhile; roll this run back: pg_staging rollback {}",
                run.short()
            ))),
        None => Err(Failure::new(format!("database {name}, which this run made, is gone"))
            .hint(format!("roll this run back: pg_staging rollback {}", run.short()))),
    }
}

/// The copy must be the one that preflight saw: what works on a copy that others made goes by its OID, not by its name.
pub(crate) async fn require_seen(at: &Context<'_>, session: &Session, name: &str) -> Result<u32, Failure> {
    let seen = outcome::<preflight::Outcome>(at, "preflight").await?.copy;
    oid_of(session, name).await?.filter(|oid| Some(*oid) == seen).ok_or_else(|| {
        Failure::new(format!("database {name} is not the one that this run began with"))
            .because("another of that name was made meanwhile, or it is gone")
            .hint("look at it, and start again if it is meant")
    })
}

/// DROP DATABASE, sessions in it notwithstanding; fine when there is none. WITH (FORCE) is of PostgreSQL 13.
pub(crate) async fn drop_database(session: &Session, name: &str) -> Result<bool, Failure> {
    if comment_of(session, name).await?.is_none() {
        return Ok(false);
    }
    let version = session.value("SHOW server_version_num").await?.unwrap_or_default();
    if version.parse::<u32>().unwrap_or_default() >= 130_000 {
        session.execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name))).await?;
    } else {
        let sessions = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {} AND pid <> pg_backend_pid()",
            literal(name)
        );
        session.execute(&sessions).await?;
        session.execute(&format!("DROP DATABASE IF EXISTS {}", identifier(name))).await?;
    }
    Ok(true)
}

impl CreateDatabase {
    /// An empty database that may be taken over: its comment, or why it may not.
    async fn adoptable(&self, at: &Context<'_>, comment: String) -> Result<Option<String>, Failure> {
        let name = &self.settings.database;
        let exists = || {
            let made_by = Mark::run_of(&comment).map(|run| format!(", made by run {}", run.short()));
            Failure::new(format!("database {name} exists already{}", made_by.unwrap_or_default())).hint(
                format!(
                    "drop it first (pg_staging drop {} {}), or switch to it",
                    self.settings.section,
                    name.rsplit('_').next().unwrap_or_default()
                ),
            )
        };
        // One that another program made may have an owner, a locale or rights that would be lost.
        if !self.given.may_adopt || Mark::run_of(&comment).is_none() {
            return Err(exists());
        }
        let inside = server(at, &self.settings).await?.connect(name, &application_name(at)).await?;
        let untouched = inside.value(UNTOUCHED).await?.is_some();
        if untouched { Ok(Some(comment)) } else { Err(exists()) }
    }

    async fn make(&self, session: &Session, plan: &Plan, comment: &str) -> Result<(), Failure> {
        drop_database(session, &plan.made_as).await?;
        let (made_as, name) = (identifier(&plan.made_as), identifier(&plan.name));
        let (owner, encoding) = (identifier(&plan.owner), literal(&plan.encoding));
        let create =
            format!("CREATE DATABASE {made_as} OWNER {owner} ENCODING {encoding} TEMPLATE template0");
        session.execute(&create).await?;
        session.execute(&format!("COMMENT ON DATABASE {made_as} IS {}", literal(comment))).await?;
        session.execute(&format!("ALTER DATABASE {made_as} RENAME TO {name}")).await?;
        Ok(())
    }
}

#[async_trait]
impl Step for CreateDatabase {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let session = maintenance(at, &self.settings).await?;
        let adopted = match comment_of(&session, &self.settings.database).await? {
            Some(comment) if Mark::is_of(&comment, at.run()) => None,
            Some(comment) => self.adoptable(at, comment).await?,
            None => None,
        };
        Ok(Intent::Do(write(&Plan {
            name: self.settings.database.clone(),
            owner: self.settings.dbowner.clone(),
            encoding: self.settings.encoding.clone(),
            made_as: format!("pg_staging_{}", at.run().0.simple()),
            adopted,
        })))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let plan: Plan = read(intent)?;
        let comment = comment_of(&maintenance_alone(at, &self.settings).await?, &plan.name).await?;
        Ok(match comment {
            Some(comment) if Mark::is_of(&comment, at.run()) => Observed::Done(made(&plan)),
            _ => Observed::Absent,
        })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let plan: Plan = read(intent)?;
        let session = maintenance(at, &self.settings).await?;
        let mark = Mark::text(at.run());
        if plan.adopted.is_some() {
            let name = identifier(&plan.name);
            session.execute(&format!("COMMENT ON DATABASE {name} IS {}", literal(&mark))).await?;
        } else {
            self.make(&session, &plan, &mark).await?;
        }
        Ok(made(&plan))
    }

    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let plan: Plan = read(intent)?;
        let session = maintenance_alone(at, &self.settings).await?;
        let found = comment_of(&session, &plan.name).await?;
        let ours = found.as_ref().is_some_and(|comment| Mark::is_of(comment, at.run()));
        if ours {
            if let Some(alias) = self.settings.who_points_at_the_copy(at).await?.first() {
                return Err(Failure::new(format!("{} is in use: {alias} points at it", plan.name)).hint(
                    format!(
                        "point {alias} at another copy (pg_staging switch {} <date>), then try again",
                        self.settings.section
                    ),
                ));
            }
            Protection::must_not_hold(found.as_deref().unwrap_or_default(), &self.settings)?;
            drop_database(&session, &plan.name).await?;
        }
        match &plan.adopted {
            // An empty database was taken over: an empty one is given back.
            Some(comment) if ours || found.is_none() => self.make(&session, &plan, comment).await?,
            _ => {
                drop_database(&session, &plan.made_as).await?;
            }
        }
        Ok(write(&serde_json::json!({ "database": plan.name, "dropped": ours })))
    }
}

fn made(plan: &Plan) -> Detail {
    write(&serde_json::json!({ "database": plan.name, "owner": plan.owner, "encoding": plan.encoding }))
}

#[cfg(test)]
mod tests {
    use journal::event::RunId;
    use uuid::Uuid;

    use super::Mark;

    #[test]
    fn a_note_comes_and_goes_and_leaves_the_comment_as_it_was() {
        let [maker, one, other] = [1, 2, 3].map(|number| RunId(Uuid::from_u128(number)));
        for comment in [String::new(), Mark::text(maker), "somebody's [text]".to_owned()] {
            let noted = Mark::with_note(&comment, one, Some("post_sql a].sql"));
            assert_eq!(Mark::noted(&noted, one), Some("post_sql a].sql"));
            assert_eq!(Mark::noted(&noted, other), None);
            let both = Mark::with_note(&noted, other, Some("post_sql 1.sql"));
            let both = Mark::with_note(&both, one, Some("post_sql b.sql"));
            assert_eq!(Mark::noted(&both, one), Some("post_sql b.sql"));
            assert_eq!(Mark::noted(&both, other), Some("post_sql 1.sql"));
            assert_eq!(Mark::is_of(&both, maker), comment == Mark::text(maker));
            let bare = Mark::with_note(&Mark::with_note(&both, other, None), one, None);
            assert_eq!(bare, comment);
            assert_eq!(Mark::with_note(&bare, one, None), comment);
        }
        let reached = Mark::reached(maker, "post_sql 1.sql");
        let noted = Mark::with_note(&reached, one, Some("pre_sql 2.sql"));
        assert_eq!(Mark::what_is_done(&noted, maker), Some("post_sql 1.sql"));
    }
}
