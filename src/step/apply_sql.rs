//! Sources one of the user's SQL files in a copy that is there already, whoever made it, and others use.
//!
//! Its mark is another run's, and it cannot be made anew. So the proof that a file took effect is a note of this run's
//! own behind the mark, or whatever comment the database has, which is written in the file's own transaction;
//! [`Forget`] takes it away at the end. A file that no transaction can hold runs as psql runs it, and when it was not
//! seen to go through nobody but an operator can tell what it did.
//!
//! Neither the file's text nor rows of the copy go into the journal: psql is told to be terse.

use std::path::PathBuf;

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::create_database::{Mark, comment_of, require_seen};
use super::sql::{fits_a_transaction, psql};
use super::{
    Repeatable, Settings, application_name, end_leftovers, maintenance, read, run_child, server, write,
};
use crate::world::disk;
use crate::world::postgres::{identifier, literal};

/// The step.
pub struct ApplySql {
    /// Which copy, and where.
    pub settings: Settings,
    /// Which file.
    pub given: Given,
}

/// Its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// The folder of the files.
    pub folder: PathBuf,
    /// The file's name in it; none where the folder has no such files.
    pub file: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    file: PathBuf,
    sha256: String,
    /// Whether it runs in one transaction.
    whole: bool,
}

/// SQL that leaves this comment on the copy.
fn comment(database: &str, text: &str) -> String {
    format!("COMMENT ON DATABASE {} IS {}", identifier(database), literal(text))
}

impl ApplySql {
    /// Whether the database says that the file took effect, once nothing of an earlier process is at work on it.
    async fn took_effect(&self, at: &Context<'_>) -> Result<bool, Failure> {
        let server = server(at, &self.settings).await?;
        end_leftovers(at, &server, &self.settings.maintdb).await?;
        let session = server.connect(&self.settings.maintdb, "pg_staging").await?;
        let comment = comment_of(&session, &self.settings.database).await?.unwrap_or_default();
        Ok(Mark::noted(&comment, at.run()) == Some(at.step()))
    }

    /// What is said of a file of which nobody can tell how far it came.
    async fn who_knows(&self, at: &Context<'_>, plan: &Plan) -> Failure {
        let run = at.snapshot().await;
        let last = run.step(at.step()).and_then(|(_, step)| step.error.as_ref()).map(ToString::to_string);
        Failure::new(format!("{} may have run in part", plan.file.display()))
            .code(4)
            .because(last.unwrap_or_else(|| "it runs outside of a transaction, and its end was not seen".to_owned()))
            .hint(format!(
                "look at {}, then say what became of it: pg_staging resolve {} '{}' --as applied (or absent) --reason TEXT",
                self.settings.database,
                at.run().short(),
                at.step()
            ))
    }
}

#[async_trait]
impl Step for ApplySql {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        let Some(name) = &self.given.file else {
            let folder = self.given.folder.display();
            return Ok(Intent::Skip(format!("there is no *.sql file in {folder}")));
        };
        let file = self.given.folder.join(name);
        let bytes = disk::read(&file)?;
        let whole = fits_a_transaction(&String::from_utf8_lossy(&bytes))?;
        Ok(Intent::Do(write(&Plan { file, sha256: disk::sha256(&bytes), whole })))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let plan: Plan = read(intent)?;
        Ok(match self.took_effect(at).await? {
            true => Observed::Done(intent.clone()),
            false if plan.whole => Observed::Absent,
            false => Observed::Unknown(self.who_knows(at, &plan).await),
        })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let plan: Plan = read(intent)?;
        let server = server(at, &self.settings).await?;
        let session = server.connect(&self.settings.maintdb, "pg_staging").await?;
        let database = &self.settings.database;
        require_seen(at, &session, database).await?;
        let now = comment_of(&session, database).await?.unwrap_or_default();
        if disk::sha256_of_file(&plan.file)? != plan.sha256 {
            return Err(Failure::new(format!("{} is being changed", plan.file.display())).transient(true));
        }
        let noted = format!(
            "RESET SESSION AUTHORIZATION; RESET ROLE; {}",
            comment(database, &Mark::with_note(&now, at.run(), Some(at.step())))
        );
        let mut program = psql(&self.settings, &server, &application_name(at)).arg("--set=VERBOSITY=terse");
        if plan.whole {
            program = program.arg("--single-transaction");
        }
        let ended =
            run_child(at, &program.arg("--file").arg(&plan.file).arg("--command").arg(noted), |_| true)
                .await?;
        if ended.status.success() {
            return Ok(intent.clone());
        }
        let how = if plan.whole { ", and nothing of it took effect" } else { "" };
        // Status 2: the connection to the server went bad (psql(1), Exit Status).
        Err(Failure::new(format!("{} failed{how}", plan.file.display()))
            .because(ended.errors().trim())
            .transient(ended.status.code() == Some(2))
            .hint("correct the file, then try again"))
    }

    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let plan: Plan = read(intent)?;
        if self.took_effect(at).await? {
            return Err(Failure::new(format!(
                "{} took effect, and cannot be taken back",
                plan.file.display()
            )));
        }
        if plan.whole { Ok(Detail::new()) } else { Err(self.who_knows(at, &plan).await) }
    }
}

/// Takes the run's note off the copy.
pub struct Forget {
    /// Which copy, and where.
    pub settings: Settings,
}

#[async_trait]
impl Repeatable for Forget {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        Ok(Intent::Do(write(&serde_json::json!({ "comment_of": self.settings.database }))))
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let session = maintenance(at, &self.settings).await?;
        let database = &self.settings.database;
        // Somebody may have dropped it, and the note with it.
        if let Some(now) = comment_of(&session, database).await? {
            session.execute(&comment(database, &Mark::with_note(&now, at.run(), None))).await?;
        }
        Ok(intent.clone())
    }
}
