//! Reads what the dump on the server holds, and says by which way it is loaded: part by part straight from there, or
//! through a file in tmpdir.

use std::sync::Arc;

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use url::Url;

use super::preflight::{Backup, look_at_tmpdir};
use super::{Repeatable, Secrets, Settings, read, write};
use crate::contents::{Contents, ContentsError, Original};
use crate::world::archive::{self, ArchiveError, RemoteHead};
use crate::world::web::Web;

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
    /// Whether the server serves parts of the file.
    pub ranges: bool,
}

/// The head that was read last: the steps of one process read it once.
#[derive(Debug, Clone, Default)]
pub struct Heads(Arc<Mutex<Option<Last>>>);

/// A head, and the backup that it is of.
type Last = (Backup, Arc<Head>);

impl Heads {
    /// The head of this backup, which must be the very file that preflight saw.
    pub(super) async fn of(&self, secrets: &Secrets, backup: &Backup) -> Result<Arc<Head>, Failure> {
        Ok(self.read(&secrets.web()?, &backup.url(secrets)?, backup).await?)
    }

    async fn read(&self, web: &Web, url: &Url, backup: &Backup) -> Result<Arc<Head>, ArchiveError> {
        let mut last = self.0.lock().await;
        if let Some((of, head)) = last.as_ref()
            && of == backup
        {
            return Ok(Arc::clone(head));
        }
        let RemoteHead { contents, bytes, meta } = archive::remote(web, url, Some(&backup.meta(url))).await?;
        let unfit = |source| ArchiveError::Unfit { name: backup.url.clone(), source };
        let original = Original::new(bytes).map_err(unfit)?;
        let head = Arc::new(Head { contents, original, ranges: meta.accept_ranges });
        *last = Some((backup.clone(), Arc::clone(&head)));
        Ok(head)
    }
}

impl ReadContents {
    async fn look(&self, backup: &Backup) -> Result<Outcome, Failure> {
        let (web, url) = (self.secrets.web()?, backup.url(&self.secrets)?);
        let head = match self.heads.read(&web, &url, backup).await {
            Ok(head) => head,
            // What else it may be is told once it is here.
            Err(ArchiveError::Unfit { source: source @ ContentsError::NotAnArchive { .. }, .. }) => {
                return Ok(Outcome { way: Way::File, reason: Some(source.to_string()), entries: None });
            }
            Err(error) => return Err(error.into()),
        };
        let reason = if !head.ranges {
            Some("the server does not serve parts of a file")
        } else if !head.contents.offsets_known() {
            Some("the dump does not tell where rows are: pg_dump wrote it into a pipe")
        } else if backup.bytes.is_none() {
            Some("the server does not tell how long the dump is")
        } else {
            None
        };
        Ok(Outcome {
            way: if reason.is_none() { Way::Parts } else { Way::Stream },
            reason: reason.map(str::to_owned),
            entries: Some(head.contents.entries().len() as u64),
        })
    }
}

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
