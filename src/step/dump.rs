//! pg_dump of the copy into a file beside the one it will be, and then its name.
//!
//! What is under the final name is always a whole dump: the new one gets it when it is durable and its contents can be
//! read. Until then an older one of that name stays.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use journal::clock::{Clock as _, SystemClock};
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::{
    Settings, application_name, end_children, end_leftovers, last_words, outcome, read, require_program,
    run_child, server, write,
};
use crate::contents::Contents;
use crate::world::disk::{self, FileId, Growing};
use crate::world::postgres::Server;
use crate::world::process::{Ended, Program};

/// Between two looks at how long the file is.
const PACE: Duration = Duration::from_millis(500);

/// pg_dump.
pub struct Dump {
    /// Which copy, and where.
    pub settings: Settings,
    /// Into which file.
    pub given: Given,
}

/// Gives the dump its name.
pub struct Publish {
    /// Which file.
    pub given: Given,
}

/// Parameters of both.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// The file that the dump will be.
    pub file: PathBuf,
    /// Whether it may take the place of another.
    pub replace: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    database: String,
    /// Where the dump is until it is whole; the run's alone.
    part: PathBuf,
    application_name: String,
}

/// What pg_dump made.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Dumped {
    part: PathBuf,
    bytes: u64,
    entries: u64,
    device: u64,
    inode: u64,
    born: Option<u64>,
    /// The attachment that holds all that pg_dump said, when it said something.
    output: Option<String>,
}

/// What [`Publish`] announces.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {
    file: PathBuf,
    dumped: Dumped,
}

impl Given {
    /// There must be room for the name, and a folder that we may write in.
    fn look_at_place(&self) -> Result<(), Failure> {
        let file = self.file.display();
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        disk::may_write_in(folder).map_err(|trouble| {
            trouble.hint(format!("make that folder, or name a file in another: {file} cannot be written"))
        })?;
        match disk::file_at(&self.file)? {
            Some(_) if !self.replace => Err(Failure::new(format!("{file} exists already"))
                .hint("name another file, or have it replaced with redump")),
            Some(_) if !disk::is_file(&self.file) => {
                Err(Failure::new(format!("{file} is not a file that can be replaced"))
                    .hint("name another file, or take away what is there"))
            }
            _ => Ok(()),
        }
    }

    fn part(&self, at: &Context<'_>) -> PathBuf {
        disk::with_suffix(&self.file, &format!(".{}.part", at.run()))
    }
}

impl Dumped {
    fn id(&self) -> FileId {
        FileId { device: self.device, inode: self.inode, born: self.born }
    }

    fn is_at(&self, path: &Path) -> Result<bool, Failure> {
        Ok(disk::file_at(path)?.is_some_and(|(found, _)| found == self.id()))
    }
}

impl Dump {
    fn program(&self, plan: &Plan, server: &Server) -> Program {
        Program::new(self.settings.pg_dump())
            .args(["--no-password", "--format=custom"])
            .arg(format!("--file={}", plan.part.display()))
            .arg(format!("--dbname={}", server.conninfo(&plan.database, Some(&plan.application_name))))
            .env("LC_ALL", "C")
    }

    async fn run(&self, at: &Context<'_>, plan: &Plan) -> Result<Ended, Failure> {
        let server = server(at, &self.settings).await?;
        let program = self.program(plan, &server);
        let grows = async {
            loop {
                SystemClock.sleep(PACE).await;
                if let Ok(Some((_, bytes))) = disk::file_at(&plan.part) {
                    at.progress(bytes, None, "bytes");
                }
            }
        };
        tokio::select! {
            ended = run_child(at, &program, |_| true) => ended,
            () = grows => unreachable!("it never ends"),
        }
    }

    /// What pg_dump said is kept, and it must have ended well.
    async fn judge(&self, at: &Context<'_>, plan: &Plan, ended: &Ended) -> Result<Option<String>, Failure> {
        let said = ended.errors();
        let output = if said.trim().is_empty() {
            None
        } else {
            let hash = at.attach(said.as_bytes()).await?.to_string();
            at.part_done("output", write(&serde_json::json!({ "output": hash }))).await?;
            Some(hash)
        };
        if ended.status.success() {
            return Ok(output);
        }
        let lost = ["server closed the connection", "terminating connection", "the database system is"];
        let hint = if said.contains("No space left on device") {
            let folder = self.given.file.parent().unwrap_or(Path::new("/"));
            format!("make room in {}, or name a file elsewhere", folder.display())
        } else {
            format!("see all it said: pg_staging inspect {}", at.run().short())
        };
        Err(Failure::new(format!("pg_dump of {} failed ({})", plan.database, ended.ending()))
            .because(last_words(&said))
            .hint(hint)
            .transient(lost.iter().any(|words| said.contains(words))))
    }

    /// Whether what pg_dump made is a dump that can be restored.
    fn check(&self, plan: &Plan, output: Option<String>) -> Result<Dumped, Failure> {
        let gone = || Failure::new(format!("{} is gone", plan.part.display()));
        let (FileId { device, inode, born }, bytes) = disk::file_at(&plan.part)?.ok_or_else(gone)?;
        let read = Contents::read(BufReader::new(disk::open(&plan.part)?));
        let checked = read.and_then(|contents| contents.check_extent(bytes).map(|()| contents));
        let contents = checked.map_err(|error| {
            Failure::new(format!("what pg_dump made of {} cannot be restored", plan.database)).because(error)
        })?;
        let entries = contents.entries().len() as u64;
        Ok(Dumped { part: plan.part.clone(), bytes, entries, device, inode, born, output })
    }
}

#[async_trait]
impl Step for Dump {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        self.given.look_at_place()?;
        require_program(&self.settings.pg_dump())?;
        let part = self.given.part(at);
        let database = self.settings.database.clone();
        Ok(Intent::Do(write(&Plan { database, part, application_name: application_name(at) })))
    }

    /// A dump that was interrupted is made anew.
    async fn observe(&self, at: &Context<'_>, _: &Detail) -> Result<Observed, Failure> {
        end_leftovers(at, &server(at, &self.settings).await?, &self.settings.maintdb).await?;
        Ok(Observed::Absent)
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let plan: Plan = read(intent)?;
        // pg_dump writes into the file that is there, so that at no time others can read it.
        let file = Growing::open(&plan.part, 0)?;
        let ended = self.run(at, &plan).await?;
        let output = self.judge(at, &plan, &ended).await?;
        file.sync()?;
        Ok(write(&self.check(&plan, output)?))
    }

    /// The server may be what failed, so it is not asked: a session of pg_dump only reads, and ends without its client.
    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let plan: Plan = read(intent)?;
        end_children(at).await?;
        let removed = disk::remove_file(&plan.part)?;
        Ok(write(&serde_json::json!({ "file": plan.part, "removed": removed })))
    }
}

#[async_trait]
impl Step for Publish {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let dumped: Dumped = outcome(at, "dump").await?;
        if !dumped.is_at(&dumped.part)? {
            let reason = format!("{} is gone", dumped.part.display());
            return Ok(Intent::Again { steps: vec!["dump".to_owned()], reason });
        }
        self.given.look_at_place()?;
        Ok(Intent::Do(write(&Named { file: self.given.file.clone(), dumped })))
    }

    async fn observe(&self, _: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let named: Named = read(intent)?;
        if !named.dumped.is_at(&named.file)? {
            return Ok(Observed::Absent);
        }
        disk::remove_file(&named.dumped.part)?;
        Ok(Observed::Done(intent.clone()))
    }

    async fn act(&self, _: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let named: Named = read(intent)?;
        let Dumped { part, bytes, .. } = &named.dumped;
        let file = Growing::open(part, u64::MAX)?;
        if !named.dumped.is_at(part)? || file.length() != *bytes {
            return Err(Failure::new(format!("{} was changed by somebody else", part.display())));
        }
        if self.given.replace {
            file.replace(&named.file)?;
        } else {
            file.publish(&named.file)?;
        }
        Ok(intent.clone())
    }

    async fn undo(&self, _: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let named: Named = read(intent)?;
        let ours = !self.given.replace && named.dumped.is_at(&named.file)?;
        let removed = if ours { disk::remove_file(&named.file)? } else { false };
        Ok(write(&serde_json::json!({ "file": named.file, "removed": removed })))
    }
}
