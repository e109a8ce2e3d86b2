//! Reads what the dump on the server holds, and says by which way it is loaded: part by part straight from there, or
//! through a file in tmpdir.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use url::Url;

use super::preflight::{Backup, look_at_tmpdir};
use super::{Repeatable, Secrets, Settings, read, write};
use crate::contents::{Contents, ContentsError, Found, Original};
use crate::world::archive::{self, ArchiveError, Form, RemoteHead};
use crate::world::files::{self, Assembled, Pieces};
use crate::world::source::Source;
use crate::world::web::{Web, WebError};

/// The step.
pub struct ReadContents {
    /// Where.
    pub settings: Settings,
    /// User and password of the backup server.
    pub secrets: Secrets,
    /// Where what was read is kept for the steps that follow.
    pub heads: Heads,
}

/// What the steps that follow go by.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Outcome {
    /// By which way.
    way: Way,
    /// Why not part by part.
    reason: Option<String>,
    /// How many entries there are, when they were read.
    entries: Option<u64>,
}

/// How rows get from the server into the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// Each block by itself.
    Parts,
    /// All of the dump in one piece; what is not wanted is read past.
    Stream,
    /// Each file in a tar file by itself.
    Tar,
    /// Each file in a folder by itself.
    Folder,
    /// All of it, into psql.
    Sql,
    /// Through a file in tmpdir.
    File,
}

/// By which way this run loads its dump.
pub(super) async fn way(at: &Context<'_>) -> Result<Way, Failure> {
    match at.outcome_of("contents").await {
        Some(outcome) => Ok(read::<Outcome>(&outcome)?.way),
        None => Ok(Way::File),
    }
}

/// The beginning of a dump, up to its first block of data.
#[derive(Debug)]
pub struct Head {
    /// What it holds.
    pub contents: Contents,
    /// Its bytes.
    pub original: Original,
    /// Where the blocks are.
    pub blocks: Blocks,
    /// Where the last of them ends, in bytes, when that is known.
    pub end: Option<u64>,
    /// What the dump is called, in messages.
    pub name: String,
}

/// Where the blocks of a dump are.
#[derive(Debug)]
pub enum Blocks {
    /// In the archive.
    Archive {
        /// Which.
        source: Source,
        /// Whether parts of it can be had.
        ranges: bool,
    },
    /// In files, by dump id.
    Files(HashMap<i32, Pieces>),
}

impl Head {
    fn of_files(name: String, assembled: Assembled) -> Result<Head, ArchiveError> {
        let Assembled { contents, head, end, blocks } = assembled;
        let unfit = |source| ArchiveError::Unfit { name: name.clone(), source };
        let original = Original::new(head).map_err(unfit)?;
        Ok(Head { contents, original, blocks: Blocks::Files(blocks), end: Some(end), name })
    }
}

/// The head that was read last: the steps of one process read it once.
#[derive(Debug, Clone, Default)]
pub struct Heads(Arc<Mutex<Option<Last>>>);

/// A head, and the dump that it is of.
type Last = (Dump, Arc<Head>);

/// A dump.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dump {
    Remote(Backup),
    Local(PathBuf),
}

impl Heads {
    /// The head of this backup, which must be the very file that preflight saw.
    pub(super) async fn of(&self, secrets: &Secrets, backup: &Backup) -> Result<Arc<Head>, Failure> {
        Ok(self.remote(&secrets.web()?, &backup.url(secrets)?, backup).await?)
    }

    /// The head of a folder or a tar file on this machine.
    pub(super) async fn of_files(&self, dump: &Path) -> Result<Arc<Head>, Failure> {
        let local = Dump::Local(dump.to_owned());
        let read = async { Head::of_files(dump.display().to_string(), files::local(dump).await?) };
        Ok(self.last_or(local, read).await?)
    }

    async fn remote(&self, web: &Web, url: &Url, backup: &Backup) -> Result<Arc<Head>, ArchiveError> {
        self.last_or(Dump::Remote(backup.clone()), read_remote(web, url, backup)).await
    }

    async fn last_or(
        &self,
        dump: Dump,
        read: impl Future<Output = Result<Head, ArchiveError>>,
    ) -> Result<Arc<Head>, ArchiveError> {
        let mut last = self.0.lock().await;
        if let Some((of, head)) = last.as_ref()
            && *of == dump
        {
            return Ok(Arc::clone(head));
        }
        let head = Arc::new(read.await?);
        *last = Some((dump, Arc::clone(&head)));
        Ok(head)
    }
}

async fn read_remote(web: &Web, url: &Url, backup: &Backup) -> Result<Head, ArchiveError> {
    let known = backup.meta(url);
    let name = backup.url.clone();
    let source = |meta| Source::remote(web.clone(), url.clone(), meta);
    match archive::remote(web, url, Some(&known)).await {
        Ok(RemoteHead { contents, bytes, meta }) => {
            let unfit = |source| ArchiveError::Unfit { name: name.clone(), source };
            let original = Original::new(bytes).map_err(unfit)?;
            let blocks = Blocks::Archive { ranges: meta.accept_ranges, source: source(known) };
            Ok(Head { contents, original, blocks, end: backup.bytes, name })
        }
        Err(ArchiveError::Unfit { source: ContentsError::NotAnArchive { found }, .. }) => {
            Head::of_files(name, files::remote(web, url, &known, found).await?)
        }
        Err(error) => Err(error),
    }
}

impl ReadContents {
    async fn look(&self, backup: &Backup) -> Result<Outcome, Failure> {
        let (web, url) = (self.secrets.web()?, backup.url(&self.secrets)?);
        let through_a_file = |reason: String| Outcome { way: Way::File, reason: Some(reason), entries: None };
        let head = match self.heads.remote(&web, &url, backup).await {
            Ok(head) => head,
            Err(ArchiveError::Unfit { source: unfit @ ContentsError::NotAnArchive { .. }, .. }) => {
                let meta = backup.meta(&url);
                let source = Source::remote(web, url, meta);
                return match archive::form_of(&source).await {
                    Ok(Form::Sql(_)) => Ok(Outcome {
                        way: Way::Sql,
                        reason: Some(Found::PlainSql.to_string()),
                        entries: None,
                    }),
                    // What else it may be is told once it is here.
                    Ok(_) | Err(ArchiveError::Unfit { .. }) => Ok(through_a_file(unfit.to_string())),
                    Err(error) => Err(error.into()),
                };
            }
            Err(ArchiveError::Web(WebError::NoRanges { .. })) => {
                return Ok(through_a_file(format!("{}, and {NO_RANGES}", Found::Tar)));
            }
            Err(error) => return Err(error.into()),
        };
        let entries = Some(head.contents.entries().len() as u64);
        let reason = match &head.blocks {
            Blocks::Files(_) => {
                let (way, found) =
                    if backup.is_folder() { (Way::Folder, Found::Folder) } else { (Way::Tar, Found::Tar) };
                return Ok(Outcome { way, reason: Some(found.to_string()), entries });
            }
            Blocks::Archive { ranges: false, .. } => Some(NO_RANGES),
            Blocks::Archive { .. } if !head.contents.offsets_known() => {
                Some("the dump does not tell where rows are: pg_dump wrote it into a pipe")
            }
            Blocks::Archive { .. } if backup.bytes.is_none() => {
                Some("the server does not tell how long the dump is")
            }
            Blocks::Archive { .. } => None,
        };
        let way = if reason.is_none() { Way::Parts } else { Way::Stream };
        Ok(Outcome { way, reason: reason.map(str::to_owned), entries })
    }
}

const NO_RANGES: &str = "the server does not serve parts of a file";

#[async_trait]
impl Repeatable for ReadContents {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        Ok(Intent::Do(write(&serde_json::json!({ "url": super::backup(at).await?.url }))))
    }

    async fn act(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        let backup = super::backup(at).await?;
        let outcome = self.look(&backup).await?;
        if outcome.way == Way::File {
            look_at_tmpdir(&self.settings, &backup)?;
        }
        Ok(write(&outcome))
    }
}
