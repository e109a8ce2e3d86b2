//! Sources the user's SQL files, one part each.
//!
//! A file runs in one transaction that also writes how far this run is into the copy's mark, so that after a crash the
//! database itself tells which files took effect: exactly once each. A file with words in it that no transaction can
//! hold, or that end one, runs as psql runs it; interrupted half-way it cannot be told what it did, and the copy is
//! made anew.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::create_database::{Mark, comment_of, require_ours};
use super::{Settings, application_name, end_leftovers, read, server, write};
use crate::world::disk;
use crate::world::postgres::{Server, identifier, literal};
use crate::world::process::Program;

/// The step.
pub struct Sql {
    /// Where.
    pub settings: Settings,
    /// Which files.
    pub given: Given,
}

/// Its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// The folder whose `*.sql` files are sourced in order of their names; none when `sql_path` is not set.
    pub folder: Option<PathBuf>,
}

/// What is announced: the attachment with the files as [`Planned`], and how many they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    files: String,
    count: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Planned {
    file: PathBuf,
    sha256: String,
    /// Whether it runs in one transaction.
    whole: bool,
}

impl Planned {
    fn name(&self) -> String {
        self.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Whether a file can run within a transaction of ours. Errs to the safe side: a word in a comment or in a function's
/// body counts as well.
pub(super) fn fits_a_transaction(sql: &str) -> Result<bool, Failure> {
    let pattern = r"(?i)\b(begin|commit|rollback|abort|end|start\s+transaction|prepare\s+transaction|vacuum|concurrently|call|(create|drop|alter)\s+(database|tablespace|subscription|system)|reindex|cluster)\b|\\(c|connect|i|ir|include|!|q|quit|exit|if|gexec|watch|lo_import)\b";
    let words = Regex::new(pattern).map_err(|error| Failure::new(error.to_string()))?;
    Ok(!words.is_match(sql))
}

impl Sql {
    fn files(&self) -> Result<Vec<Planned>, Failure> {
        let Some(folder) = &self.given.folder else { return Ok(Vec::new()) };
        let mut files = Vec::new();
        for file in disk::files_with_suffix(folder, ".sql")? {
            let bytes = disk::read(&file)?;
            let whole = fits_a_transaction(&String::from_utf8_lossy(&bytes))?;
            files.push(Planned { file, sha256: disk::sha256(&bytes), whole });
        }
        Ok(files)
    }

    /// When some of the files took effect already, the last of them must still be there under its name, or nobody can
    /// tell which of the others did.
    async fn know_the_last_one(&self, at: &Context<'_>, files: &[Planned]) -> Result<(), Failure> {
        let session = server(at, &self.settings).await?.connect(&self.settings.maintdb, "pg_staging").await?;
        let comment = comment_of(&session, &self.settings.database).await?.unwrap_or_default();
        let done = Mark::what_is_done(&comment, at.run()).unwrap_or_default();
        let Some(last) = done.strip_prefix(at.step()).and_then(|rest| rest.strip_prefix(' ')) else {
            return Ok(());
        };
        if files.iter().any(|file| file.name() == last) {
            return Ok(());
        }
        Err(Failure::new(format!("{last} took effect in this run, and is gone")).hint(format!(
            "put it back under that name, or roll the run back: pg_staging rollback {}",
            at.run().short()
        )))
    }

    async fn planned(at: &Context<'_>, intent: &Detail) -> Result<Vec<Planned>, Failure> {
        let Plan { files, .. } = read(intent)?;
        super::attached(at, &files, "the list of SQL files").await
    }

    /// What the mark says when a file took effect.
    fn reached(at: &Context<'_>, file: &Planned) -> String {
        format!("{} {}", at.step(), file.name())
    }

    async fn run_file(&self, at: &Context<'_>, server: &Server, planned: &Planned) -> Result<(), Failure> {
        let session = server.connect(&self.settings.maintdb, "pg_staging").await?;
        require_ours(&session, &self.settings.database, at.run()).await?;
        if disk::sha256_of_file(&planned.file)? != planned.sha256 {
            return Err(Failure::new(format!(
                "{} was changed while this run was under way",
                planned.file.display()
            ))
            .hint("roll the run back and start a new one, or put the file back as it was"));
        }
        let mark = format!(
            "RESET SESSION AUTHORIZATION; RESET ROLE; COMMENT ON DATABASE {} IS {}",
            identifier(&self.settings.database),
            literal(&Mark::reached(at.run(), &Sql::reached(at, planned)))
        );
        let mut program = psql(&self.settings, server, &application_name(at));
        if planned.whole {
            program = program.arg("--single-transaction");
        }
        let program = program.arg("--file").arg(&planned.file).arg("--command").arg(mark);
        let ended = super::run_child(at, &program, |_| true).await?;
        if ended.status.success() {
            return Ok(());
        }
        let said = ended.errors();
        // Status 2: the connection to the server went bad (psql(1), Exit Status).
        Err(Failure::new(format!("{} failed", planned.file.display()))
            .because(said.trim())
            .transient(ended.status.code() == Some(2))
            .hint("correct the file, then try again; the alias was not touched"))
    }
}

/// psql on the copy, stopping at the first error, without the user's own settings.
pub(super) fn psql(settings: &Settings, server: &Server, application_name: &str) -> Program {
    Program::new(settings.psql())
        .args(["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"])
        .arg(format!("--dbname={}", server.conninfo(&settings.database, Some(application_name))))
        .env("LC_ALL", "C.UTF-8")
}

#[async_trait]
impl Step for Sql {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let files = self.files()?;
        if files.is_empty() {
            let folder =
                self.given.folder.as_deref().map_or("sql_path is not configured".to_owned(), there_is_none);
            return Ok(Intent::Skip(folder));
        }
        self.know_the_last_one(at, &files).await?;
        let plan = Plan { files: super::attach(at, &files).await?, count: files.len() };
        Ok(Intent::Do(write(&plan)))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let files = Sql::planned(at, intent).await?;
        let server = server(at, &self.settings).await?;
        end_leftovers(at, &server, &self.settings.maintdb).await?;
        let session = server.connect(&self.settings.maintdb, "pg_staging").await?;
        let comment = comment_of(&session, &self.settings.database).await?.unwrap_or_default();
        let done = Mark::what_is_done(&comment, at.run()).unwrap_or_default();
        let next = files.iter().position(|file| Sql::reached(at, file) == done).map_or(0, |last| last + 1);
        Ok(match files.get(next) {
            None => Observed::Done(intent.clone()),
            Some(file) if file.whole => Observed::Absent,
            Some(file) => Observed::Partial(format!("{} may have run in part", file.file.display())),
        })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let files = Sql::planned(at, intent).await?;
        let server = server(at, &self.settings).await?;
        let session = server.connect(&self.settings.maintdb, "pg_staging").await?;
        for (index, file) in files.iter().enumerate() {
            let comment = comment_of(&session, &self.settings.database).await?.unwrap_or_default();
            let done = Mark::what_is_done(&comment, at.run()).unwrap_or_default();
            if files.iter().skip(index).any(|later| Sql::reached(at, later) == done) {
                continue;
            }
            self.run_file(at, &server, file).await?;
            at.part_done(&file.name(), write(&serde_json::json!({ "sha256": file.sha256 }))).await?;
            at.progress(index as u64 + 1, Some(files.len() as u64), "files");
        }
        Ok(intent.clone())
    }

    /// What the files did is in the copy, and goes with it.
    async fn undo(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        let server = server(at, &self.settings).await?;
        end_leftovers(at, &server, &self.settings.maintdb).await?;
        Ok(Detail::new())
    }
}

fn there_is_none(folder: &Path) -> String {
    format!("there is no *.sql file in {}", folder.display())
}

#[cfg(test)]
mod tests {
    use super::fits_a_transaction;

    #[test]
    fn a_file_that_ends_transactions_is_told_from_one_that_does_not() {
        for sql in ["UPDATE u SET email = 'x@example.com';", "SET ROLE app; INSERT INTO legend VALUES (1);"] {
            assert!(fits_a_transaction(sql).unwrap(), "{sql}");
        }
        for sql in [
            "BEGIN; SELECT 1; COMMIT;",
            "vacuum full t;",
            "CREATE INDEX concurrently i ON t(a)",
            "\\connect x",
            "\\i more.sql",
        ] {
            assert!(!fits_a_transaction(sql).unwrap(), "{sql}");
        }
    }
}
