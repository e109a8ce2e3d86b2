//! Brings the dump here: whole, checked, and going on where a broken download ended.
//!
//! The file grows beside its final place under a name that is this run's alone, and gets its own name only when its
//! length, its beginning and, where there is one, its checksum are right. Every `SYNC_EVERY` bytes what has come is
//! made durable and recorded. After a crash of this program the file itself tells how much came; after a crash of the
//! machine only what was recorded counts, since a file can be longer than what of it reached the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::board::{Board, Slot, stall_after_ms};
use super::contents::{Way, way};
use super::lookout::Lookout;
use super::preflight::Backup;
use super::{Secrets, Settings, asked_to_stop, read, recorded, write};
use crate::world::archive::{self, ArchiveError, Form};
use crate::world::disk::{self, FileId, Growing};
use crate::world::process::boot_id;
use crate::world::source::Source;
use crate::world::web::{Sink, WebError};

/// How much comes between two recordings of how far the download is, in bytes.
const SYNC_EVERY: u64 = 64 << 20;

/// The step.
pub struct Fetch {
    /// Where.
    pub settings: Settings,
    /// User and password of the backup server.
    pub secrets: Secrets,
    /// What becomes of it.
    pub given: Given,
}

/// Its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// Whether the dump outlives the run: then it goes to tmpdir itself, otherwise to the run's own folder.
    pub keep: bool,
    /// Whether it may turn out that nothing has to come here.
    #[serde(default)]
    pub by_parts: bool,
    /// `stall_after`, in milliseconds.
    #[serde(default = "stall_after_ms")]
    pub stall_after_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    backup: Backup,
    destination: PathBuf,
    growing: PathBuf,
}

/// What other steps know of the fetched dump.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fetched {
    /// Where it is.
    pub file: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal, when the server had one to compare.
    pub sha256: Option<String>,
}

/// Recorded when the growing file was made: which file it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Made {
    device: u64,
    inode: u64,
    born: Option<u64>,
}

/// Recorded while the file grows.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Durable {
    bytes: u64,
    boot_id: String,
}

impl Fetch {
    /// How much of the growing file can be built upon.
    async fn usable(&self, at: &Context<'_>, plan: &Plan) -> Result<u64, Failure> {
        let Some((_, length)) = disk::file_at(&plan.growing)? else { return Ok(0) };
        let Some(durable) = recorded(at, "durable").await else { return Ok(0) };
        let durable: Durable = read(&durable)?;
        let same_boot = boot_id().is_ok_and(|id| id == durable.boot_id);
        Ok(if same_boot { length } else { length.min(durable.bytes) })
    }

    async fn record_durable(&self, at: &Context<'_>, bytes: u64) -> Result<(), Failure> {
        let boot_id =
            boot_id().map_err(|error| Failure::new("cannot tell which boot this is").because(error))?;
        at.part_done("durable", write(&Durable { bytes, boot_id })).await
    }

    /// Downloads what is missing, and records how far it is as it goes. What came before a failure is kept for the
    /// next attempt.
    async fn download(&self, at: &Context<'_>, plan: &Plan, file: &mut Growing) -> Result<(), Failure> {
        let url = plan.backup.url(&self.secrets)?;
        let meta = plan.backup.meta(&url);
        let web = self.secrets.web()?;
        let (tell, mut told) = mpsc::unbounded_channel();
        let from = file.length();
        let patience = Duration::from_millis(self.given.stall_after_ms);
        let board = Board::of_file(plan.backup.bytes, patience);
        let slot = board.begin(&plan.backup.url, Vec::new(), None);
        slot.has(from);
        let mut sink = Durably { file, slot: &slot, next: from + SYNC_EVERY, tell };
        let download = async {
            let came = watched(at, async |stop| web.download(&url, &meta, from, &mut sink, stop).await).await;
            drop(sink);
            came
        };
        let record = async {
            while let Some(bytes) = told.recv().await {
                self.record_durable(at, bytes).await?;
            }
            Ok::<_, Failure>(())
        };
        let downloaded = async {
            let mut download = std::pin::pin!(download);
            let mut record = std::pin::pin!(record);
            tokio::select! {
                came = &mut download => {
                    record.await?;
                    Ok::<_, Failure>(came)
                }
                recorded = &mut record => {
                    // It ends before the download only when nothing more can be recorded.
                    recorded?;
                    Ok(download.await)
                }
            }
        };
        let came = Lookout { at, board: &board, sessions: None }.during(downloaded).await?;
        self.record_durable(at, file.sync()?).await?;
        match came {
            Ok(_) => Ok(()),
            Err(WebError::Sink { source, .. }) => Err(disk::refused("write", &plan.growing, &source).into()),
            Err(error) => Err(error.into()),
        }
    }

    async fn check(&self, plan: &Plan, file: &Path) -> Result<Fetched, Failure> {
        let found = disk::file_at(file)?.map_or(0, |(_, length)| length);
        let url = &plan.backup.url;
        if plan.backup.bytes.is_some_and(|expected| expected != found) {
            let expected = plan.backup.bytes.unwrap_or_default();
            return Err(Failure::new(format!("{url} has {expected} bytes, and {found} came"))
                .hint("try again; if it stays so, the backup server is at fault"));
        }
        // What is wrong with it is wrong with what is on the server, under its name there.
        let named = |error| match error {
            ArchiveError::Unfit { source, .. } => ArchiveError::Unfit { name: url.clone(), source },
            ArchiveError::Damaged { cause, .. } => ArchiveError::damaged(url, cause),
            error => error,
        };
        if archive::form_of(&Source::local(file.to_owned())?).await.map_err(named)? == Form::Archive {
            archive::local(file).map_err(named)?;
        }
        let sha256 = match &plan.backup.sha256 {
            None => None,
            Some(expected) => {
                let sum = disk::sha256_of_file(file)?;
                if sum != *expected {
                    return Err(Failure::new(format!(
                        "{url} is damaged: its SHA-256 is not the one in {url}.sha256"
                    ))
                    .because(format!("expected {expected}, found {sum}"))
                    .hint("have the backup made or copied again"));
                }
                Some(sum)
            }
        };
        Ok(Fetched { file: plan.destination.clone(), bytes: found, sha256 })
    }

    /// There is a file already that this run did not make: it is used if it is the very dump.
    async fn take_as_is(&self, plan: &Plan) -> Result<Intent, Failure> {
        let there = plan.destination.display();
        match self.check(plan, &plan.destination).await {
            Ok(_) if plan.backup.sha256.is_some() || self.is_as_old(plan)? => {
                Ok(Intent::Skip(format!("{there} is there already, whole")))
            }
            _ => Err(Failure::new(format!("{there} exists already, and is not this backup"))
                .hint("move it away, then try again")),
        }
    }

    /// Whether the file has the time of the server's: what fetched it whole gave it that last.
    fn is_as_old(&self, plan: &Plan) -> Result<bool, Failure> {
        let modified = disk::modified(&plan.destination)?;
        Ok(plan.backup.bytes.is_some() && plan.backup.last_modified == Some(modified))
    }

    /// Which file this run made, when it got so far.
    async fn made(&self, at: &Context<'_>) -> Result<Option<FileId>, Failure> {
        let Some(made) = recorded(at, "made").await else { return Ok(None) };
        let Made { device, inode, born } = read(&made)?;
        Ok(Some(FileId { device, inode, born }))
    }
}

#[async_trait]
impl Step for Fetch {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        if way(at).await? != Way::File {
            return Ok(Intent::Skip("what is restored is loaded straight from the server".to_owned()));
        }
        let backup = super::backup(at).await?;
        let name = backup.file_name()?;
        let workspace = self.settings.workspace(at.run());
        let destination =
            if self.given.keep { self.settings.tmpdir.join(&name) } else { workspace.join(&name) };
        let growing = workspace.join(format!("{name}.part"));
        let plan = Plan { backup, destination, growing };
        match disk::file_at(&plan.destination)?.map(|(id, _)| id) {
            Some(found) if self.made(at).await? != Some(found) => self.take_as_is(&plan).await,
            _ => Ok(Intent::Do(write(&plan))),
        }
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let plan: Plan = read(intent)?;
        let ours = match (self.made(at).await?, disk::file_at(&plan.destination)?) {
            (Some(made), Some((found, _))) => made == found,
            _ => false,
        };
        if !ours {
            return Ok(Observed::Absent);
        }
        disk::remove_file(&plan.growing)?;
        Ok(Observed::Done(write(&self.check(&plan, &plan.destination).await?)))
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let plan: Plan = read(intent)?;
        disk::make_private_folder(&self.settings.workspace(at.run()))?;
        let mut file = Growing::open(&plan.growing, self.usable(at, &plan).await?)?;
        if let Some((FileId { device, inode, born }, _)) = disk::file_at(&plan.growing)? {
            at.part_done("made", write(&Made { device, inode, born })).await?;
        }
        // What is kept of an earlier attempt may have been written and never synced.
        self.record_durable(at, file.sync()?).await?;
        self.download(at, &plan, &mut file).await?;
        let fetched = match self.check(&plan, &plan.growing).await {
            Ok(fetched) => fetched,
            Err(failure) => {
                // What came cannot be built upon.
                disk::remove_file(&plan.growing)?;
                return Err(failure);
            }
        };
        if let Some(seconds) = plan.backup.last_modified {
            file.set_modified(seconds)?;
        }
        file.publish(&plan.destination)?;
        Ok(write(&fetched))
    }

    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let plan: Plan = read(intent)?;
        let mut removed = disk::remove_file(&plan.growing)?;
        let found = disk::file_at(&plan.destination)?.map(|(id, _)| id);
        if found.is_some() && found == self.made(at).await? {
            removed |= disk::remove_file(&plan.destination)?;
        }
        Ok(write(&serde_json::json!({ "file": plan.destination, "removed": removed })))
    }
}

/// Writes what comes, makes it durable every so often, and tells how much is.
struct Durably<'f, 's, 'b> {
    file: &'f mut Growing,
    slot: &'s Slot<'b>,
    next: u64,
    tell: mpsc::UnboundedSender<u64>,
}

impl Sink for Durably<'_, '_, '_> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write(chunk)?;
        if self.file.length() >= self.next {
            let durable = self.file.sync().map_err(io::Error::other)?;
            self.next = durable + SYNC_EVERY;
            // Nobody listens only when recording failed, which ends the download.
            let _ = self.tell.send(durable);
        }
        self.slot.has(self.file.length());
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.next = SYNC_EVERY;
        self.file.restart()
    }
}

/// Runs `work` with a receiver that turns true when the run is asked to stop.
async fn watched<T>(at: &Context<'_>, work: impl AsyncFnOnce(&mut watch::Receiver<bool>) -> T) -> T {
    let (tell, mut stop) = watch::channel(false);
    let forward = async {
        asked_to_stop(at).await;
        tell.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        out = work(&mut stop) => out,
        () = forward => unreachable!("it never ends"),
    }
}
