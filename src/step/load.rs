//! pg_restore of the chosen entries into the copy.
//!
//! That it went through is written into the copy's mark, so that after a crash the database itself tells. A restore
//! that was interrupted is not patched: the copy is made anew, which the plan says by naming the steps to redo.

mod messages;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

pub(super) use self::messages::is_progress;
use self::messages::{Message, read_messages};
use super::board::Board;
use super::catalog::Selected;
use super::create_database::{Mark, comment_of, require_ours};
use super::lookout::{Lookout, Sessions};
use super::{
    Settings, application_name, end_leftovers, last_words, outcome, read, reader, run_child, server,
    shortened, write,
};
use crate::world::disk;
use crate::world::postgres::{Server, identifier, literal};
use crate::world::process::{Ended, Program};

/// The step.
pub struct Load {
    /// Where.
    pub settings: Settings,
    /// How.
    pub given: Given,
}

/// Its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// `restore_jobs`.
    pub jobs: u16,
    /// `pg_restore_st`.
    pub single_transaction: bool,
    /// What the dump seems to be, when it seems to be no archive; what it is decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seems: Option<Seems>,
}

/// What a dump seems to be that is no archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seems {
    /// A tar file.
    Tar,
    /// A compressed one.
    PackedTar,
    /// A folder.
    Folder,
    /// Plain SQL.
    Sql,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    dump: PathBuf,
    list: PathBuf,
    list_sha256: String,
    entries: u64,
    jobs: u16,
    single_transaction: bool,
    application_name: String,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Loaded {
    entries: u64,
    /// Errors that are known to be harmless, in pg_restore's words.
    tolerated: Vec<String>,
    /// The attachment that holds all that pg_restore said, when it said something.
    output: Option<String>,
}

impl Load {
    fn program(&self, pg_restore: &Path, plan: &Plan, server: &Server) -> Program {
        let program = into_copy(pg_restore, &self.settings, server, &plan.application_name)
            .arg(format!("--use-list={}", plan.list.display()));
        let program = if plan.single_transaction {
            program.arg("--single-transaction")
        } else {
            program.arg(format!("--jobs={}", plan.jobs))
        };
        program.arg(&plan.dump)
    }

    async fn run(&self, at: &Context<'_>, plan: &Plan, server: &Server) -> Result<Ended, Failure> {
        let pg_restore = reader::chosen(at, &self.settings).await?;
        let board = Board::of_entries(at.step(), plan.entries);
        let (maintdb, application_name) = (self.settings.maintdb.as_str(), plan.application_name.as_str());
        let sessions = Some(Sessions { server, maintdb, application_name });
        let program = self.program(&pg_restore, plan, server);
        let run = run_child(at, &program, |line| {
            let progress = is_progress(line);
            if progress {
                board.entry_done();
            }
            !progress
        });
        Lookout { at, board: &board, sessions }.during(run).await
    }
}

/// What was here on this machine is made again, and then this step is done.
pub(super) fn again(gone: &Path) -> Intent {
    Intent::Again {
        steps: vec!["fetch".to_owned(), "catalog".to_owned()],
        reason: format!("{} is gone", gone.display()),
    }
}

/// A pg_restore into the copy, whose words are those that [`judge`] knows: it names the entry that an error is about only
/// when it tells of all of them.
pub(super) fn into_copy(
    pg_restore: &Path,
    settings: &Settings,
    server: &Server,
    application_name: &str,
) -> Program {
    let conninfo = server.conninfo(&settings.database, Some(application_name));
    let program = Program::new(pg_restore).args(["--no-password", "--verbose"]);
    program.arg(format!("--dbname={conninfo}")).env("LC_ALL", "C")
}

/// What came of a pg_restore into the copy. Ending with status 1 is success only when every error is one of the few that
/// are harmless, and pg_restore itself went through to its end. All that it said is attached, when it said something.
pub(super) async fn judge(
    at: &Context<'_>,
    database: &str,
    ended: &Ended,
) -> Result<(Vec<String>, Option<String>), Failure> {
    let said = ended.errors();
    let read = read_messages(&said);
    let (tolerated, errors): (Vec<&Message>, Vec<&Message>) =
        read.messages.iter().partition(|message| message.is_tolerated());
    let spoken: Vec<&str> = said.lines().collect();
    let output = if read.messages.is_empty() && ended.status.success() {
        None
    } else {
        let hash = at.attach(spoken.join("\n").as_bytes()).await?.to_string();
        at.part_done("output", write(&serde_json::json!({ "output": hash }))).await?;
        Some(hash)
    };
    let went_through = ended.status.success() || read.ignored == Some(tolerated.len() as u64);
    if went_through && errors.is_empty() {
        return Ok((tolerated.into_iter().map(ToString::to_string).collect(), output));
    }
    let first = errors.first().map(|message| message.to_string());
    let more = match errors.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Err(Failure::new(format!("pg_restore into {database} failed ({}){more}", ended.ending()))
        .because(first.unwrap_or_else(|| last_words(&said)))
        .hint(format!("see all it said: pg_staging inspect {}", at.run().short()))
        .transient(read.may_pass))
}

#[async_trait]
impl Step for Load {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let Selected { dump: Some(dump), list: Some(list), list_sha256: Some(list_sha256), kept, .. } =
            outcome(at, "catalog").await?
        else {
            return Err(Failure::new("no dump was brought here"));
        };
        if let Some(gone) = [&dump, &list].into_iter().find(|file| !disk::exists(file)) {
            return Ok(again(gone));
        }
        let Given { jobs, single_transaction, .. } = self.given;
        Ok(Intent::Do(write(&Plan {
            dump,
            list,
            list_sha256,
            entries: kept,
            jobs,
            single_transaction,
            application_name: application_name(at),
        })))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let plan: Plan = read(intent)?;
        let server = server(at, &self.settings).await?;
        end_leftovers(at, &server, &self.settings.maintdb).await?;
        let session = server.connect(&self.settings.maintdb, "pg_staging").await?;
        let comment = comment_of(&session, &self.settings.database).await?.unwrap_or_default();
        if Mark::what_is_done(&comment, at.run()) == Some(at.step()) {
            return Ok(Observed::Done(write(&Loaded {
                entries: plan.entries,
                tolerated: Vec::new(),
                output: None,
            })));
        }
        Ok(Observed::Partial("pg_restore was interrupted: the copy is made anew".to_owned()))
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let plan: Plan = read(intent)?;
        if disk::sha256_of_file(&plan.list)? != plan.list_sha256 {
            return Err(Failure::new(format!("{} was changed by somebody else", plan.list.display()))
                .hint("roll the run back and start a new one"));
        }
        let server = server(at, &self.settings).await?;
        let session = server.connect(&self.settings.maintdb, &application_name(at)).await?;
        require_ours(&session, &self.settings.database, at.run()).await?;
        let ended = self.run(at, &plan, &server).await?;
        let (tolerated, output) = judge(at, &self.settings.database, &ended).await?;
        let loaded = Loaded { entries: plan.entries, tolerated: shortened(tolerated), output };
        let database = identifier(&self.settings.database);
        let mark = literal(&Mark::reached(at.run(), at.step()));
        let session = server.connect(&self.settings.maintdb, &application_name(at)).await?;
        session.execute(&format!("COMMENT ON DATABASE {database} IS {mark}")).await?;
        Ok(write(&loaded))
    }

    /// What it loaded is in the copy, and goes with it.
    async fn undo(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        let server = server(at, &self.settings).await?;
        end_leftovers(at, &server, &self.settings.maintdb).await?;
        Ok(Detail::new())
    }
}
