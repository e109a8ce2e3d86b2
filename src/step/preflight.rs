//! Looks whether everything that the rest of the run needs is there, before anything is touched.
//!
//! What it finds out is its outcome, and the later steps build on it: by which way PostgreSQL is reached, which
//! backup it is down to its validator, where the alias points. Its undo removes the run's own folder, whichever step
//! made it.

use std::path::PathBuf;

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};
use url::Url;

use super::catalog::cannot_be_filtered;
use super::create_database::{comment_of, oid_of};
use super::protection::Protection;
use super::{Secrets, Settings, write};
use crate::backup;
use crate::bouncer::PgbouncerIni;
use crate::contents::TOC;
use crate::database::DumpName;
use crate::world::archive::{self, Form};
use crate::world::disk;
use crate::world::postgres::{Session, literal};
use crate::world::process::Program;
use crate::world::source::Source;
use crate::world::web::{Meta, Validator, Web, WebError};

/// The step.
pub struct Preflight {
    /// Where.
    pub settings: Settings,
    /// User and password of the backup server.
    pub secrets: Secrets,
    /// What the rest of the run needs.
    pub wanted: Wanted,
}

/// Its parameters: what to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The dump's URL, without user and password, when the run fetches one.
    pub backup: Option<String>,
    /// The folder where the server lists dumps, without what lets us in there: it may list this one elsewhere, and if not,
    /// there are others to name.
    pub listed_at: Option<String>,
    /// A dump on this machine, when the run loads one.
    pub dump: Option<PathBuf>,
    /// Whether PostgreSQL is needed, and what becomes of the copy there.
    pub database: Database,
    /// Whether pgbouncer.ini is changed.
    pub bouncer: bool,
    /// Whether pg_restore and psql are needed.
    pub programs: bool,
    /// Whether the copy may be the one that the alias points at.
    pub may_be_active: bool,
    /// The URL of what `pg_dumpall -g` has written, without user and password, when the run applies it.
    #[serde(default)]
    pub globals: Option<String>,
    /// Whether PostgreSQL must be reached on its own port, since pgbouncer may not be set up yet.
    #[serde(default)]
    pub directly: bool,
    /// Whether the dump may never come here as a file.
    #[serde(default)]
    pub by_parts: bool,
    /// Whether something of the dump may be left out.
    #[serde(default)]
    pub filtered: bool,
}

/// What the run expects of the copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Database {
    /// PostgreSQL is not needed.
    #[default]
    Unused,
    /// There must be none yet.
    Absent,
    /// There may be one that is empty.
    AbsentOrEmpty,
    /// It must be there.
    Present,
    /// It must be there, or an entry of pgbouncer.ini that was left of it.
    PresentOrListed,
    /// PostgreSQL is needed, whatever copies it has.
    Ignored,
}

/// What it found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// By which way PostgreSQL is reached.
    pub postgres: Way,
    /// PostgreSQL's `server_version_num`, when it was asked.
    pub server_version: Option<u32>,
    /// The copy's OID in `pg_database`, when it is there.
    pub copy: Option<u32>,
    /// The backup.
    pub backup: Option<Backup>,
    /// What `pg_dumpall -g` has written.
    #[serde(default)]
    pub globals: Option<Backup>,
    /// Where the alias points.
    pub alias: Option<Alias>,
    /// Free bytes in tmpdir.
    pub tmpdir_free: Option<u64>,
}

/// A way to PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Host.
    pub host: String,
    /// Port: PostgreSQL's own, or pgbouncer's.
    pub port: u16,
}

/// Where an alias points: what its entry says, or nothing where the entry says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// Database.
    pub dbname: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
}

/// One version of one file on the backup server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Where, without user and password.
    pub url: String,
    /// Length in bytes, when the server says.
    pub bytes: Option<u64>,
    /// Strong ETag.
    pub etag: Option<String>,
    /// Last-Modified as the server writes it, when there is no strong ETag.
    pub last_modified_text: Option<String>,
    /// When the server's file was last changed, in seconds since 1970.
    pub last_modified: Option<i64>,
    /// SHA-256 in hexadecimal, from the file beside it.
    pub sha256: Option<String>,
}

impl Backup {
    /// The URL, to be asked for.
    pub fn url(&self, secrets: &Secrets) -> Result<Url, Failure> {
        secrets.url(&self.url)
    }

    /// What the server must still say of the file.
    pub fn meta(&self, url: &Url) -> Meta {
        let tag = self.etag.clone().map(Validator::Etag);
        Meta {
            url: url.clone(),
            length: self.bytes,
            validator: tag.or_else(|| self.last_modified_text.clone().map(Validator::LastModified)),
            last_modified: self.last_modified.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()),
            accept_ranges: true,
        }
    }

    /// Whether it is the contents of a dump that is a folder.
    pub fn is_folder(&self) -> bool {
        self.file_name().is_ok_and(|name| name == TOC)
    }

    /// The dump's file name.
    pub fn file_name(&self) -> Result<String, Failure> {
        let url = Url::parse(&self.url).ok();
        url.and_then(|url| backup::file_name(&url))
            .ok_or_else(|| Failure::new(format!("{} does not end in a file name", self.url)))
    }
}

impl Preflight {
    async fn look(&self, at: &Context<'_>) -> Result<Outcome, Failure> {
        self.look_at_programs().await?;
        if let Some(dump) = &self.wanted.dump {
            look_at_dump(dump)?;
            if self.wanted.filtered
                && let Ok(Form::Sql(_)) = archive::form_of(&Source::local(dump.clone())?).await
            {
                return Err(cannot_be_filtered(&dump.display().to_string()));
            }
        }
        let direct = Way { host: self.settings.host.clone(), port: self.settings.postgres_port };
        let (postgres, server_version, copy) = match self.wanted.database {
            Database::Unused => (direct, None, None),
            _ => {
                let mut ways = vec![self.settings.direct()];
                if !self.wanted.directly {
                    ways.push(self.settings.through_pgbouncer());
                }
                let (server, session) = self.settings.reach_postgres_by(&ways).await?;
                let way = Way { host: server.host, port: server.port };
                let version = self.look_at_postgres(&session).await?;
                (way, Some(version), oid_of(&session, &self.settings.database).await?)
            }
        };
        let alias = if self.wanted.bouncer { self.look_at_bouncer(at, copy.is_some()).await? } else { None };
        let backup = match &self.wanted.backup {
            Some(text) => Some(self.look_at_backup(text).await?),
            None => None,
        };
        if let Some(backup) = backup.as_ref().filter(|backup| backup.is_folder() && !self.wanted.by_parts) {
            return Err(Failure::new(format!("{} is in a folder of files, which is not brought here", backup.url))
                .hint("restore straight from the server: fast = True, verify = blocks, remove_dump = True and pg_restore_st = False; or have the backup made as one file, with pg_dump -Fc"));
        }
        // What it is shows in its first bytes, later; what its name says is known now.
        if let Some(backup) = backup.as_ref().filter(|_| self.wanted.filtered)
            && DumpName::parse(&backup.file_name()?).is_some_and(|name| name.is_sql())
        {
            return Err(cannot_be_filtered(&backup.url));
        }
        let globals = match &self.wanted.globals {
            Some(text) => Some(self.look_at_globals(text).await?),
            None => None,
        };
        let tmpdir_free = match &backup {
            Some(backup) if !self.wanted.by_parts => Some(look_at_tmpdir(&self.settings, backup)?),
            _ => None,
        };
        Ok(Outcome { postgres, server_version, copy, backup, globals, alias, tmpdir_free })
    }

    async fn look_at_programs(&self) -> Result<(), Failure> {
        if !self.wanted.programs {
            return Ok(());
        }
        for program in [self.settings.pg_restore.clone(), self.settings.psql()] {
            super::require_program(&program)?;
        }
        let ended = Program::new(&self.settings.pg_restore).arg("--version").run().await?;
        if !ended.status.success() {
            return Err(Failure::new(format!("{} does not run", self.settings.pg_restore.display()))
                .because(ended.errors())
                .hint("install PostgreSQL's client programs, or correct pg_restore"));
        }
        Ok(())
    }

    async fn look_at_postgres(&self, session: &Session) -> Result<u32, Failure> {
        let Settings { database, dbowner, section, .. } = &self.settings;
        let number = session.value("SHOW server_version_num").await?.unwrap_or_default();
        let found = comment_of(session, database).await?;
        match self.wanted.database {
            Database::Present if found.is_none() => return Err(self.is_missing()),
            Database::Absent if found.is_some() => {
                return Err(Failure::new(format!("database {database} exists already")).hint(format!(
                    "drop it first (pg_staging drop {section} {0}), or switch to it (pg_staging switch {section} {0})",
                    self.date()
                )));
            }
            _ => {}
        }
        if self.wanted.database == Database::PresentOrListed && !self.wanted.may_be_active {
            Protection::must_not_hold(found.as_deref().unwrap_or_default(), &self.settings).map_err(
                |failure| Failure {
                    hint: failure.hint.map(|hint| format!("{hint}, or add --force")),
                    ..failure
                },
            )?;
        }
        if matches!(self.wanted.database, Database::Absent | Database::AbsentOrEmpty) {
            let role = format!("SELECT 1 FROM pg_roles WHERE rolname = {}", literal(dbowner));
            if session.value(&role).await?.is_none() {
                return Err(Failure::new(format!("role {dbowner}, the owner of the copy, does not exist"))
                    .hint(format!("create it (pg_staging init {section}), or correct dbowner")));
            }
            let may = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user";
            if session.value(may).await?.as_deref() != Some("t") {
                return Err(Failure::new(format!("role {} may not create databases", self.settings.dbuser))
                    .hint("name a superuser, or a role with CREATEDB, as dbuser"));
            }
        }
        number.parse().map_err(|_| Failure::new(format!("PostgreSQL says it is version '{number}'")))
    }

    fn is_missing(&self) -> Failure {
        let Settings { database, section, .. } = &self.settings;
        let date = self.date();
        Failure::new(format!("there is no database {database}")).code(6).hint(format!(
            "pg_staging databases {section} lists those there are; pg_staging restore {section} {date} makes this one"
        ))
    }

    fn date(&self) -> &str {
        self.settings.database.rsplit('_').next().unwrap_or_default()
    }

    async fn look_at_bouncer(&self, at: &Context<'_>, is_there: bool) -> Result<Option<Alias>, Failure> {
        self.settings.console().databases().await?;
        disk::make_private_folder(&self.settings.workspace(at.run()))?;
        let bytes = self.settings.far(at.run()).read_ini().await?;
        let ini = super::bouncer::parse(bytes, &self.settings)?;
        let alias = super::bouncer::destination(&ini, &self.settings.dbname);
        let active =
            alias.as_ref().is_some_and(|alias| alias.dbname.as_ref() == Some(&self.settings.database));
        if !self.wanted.may_be_active {
            self.look_who_points_there(&ini, active, is_there)?;
        }
        let listed = super::bouncer::destination(&ini, &self.settings.database).is_some();
        if self.wanted.database == Database::PresentOrListed && !(is_there || listed || active) {
            return Err(self.is_missing());
        }
        self.look_at_entry(&ini)?;
        Ok(alias)
    }

    /// A copy that is led to is in use; one that is yet to be made would be seen before it is proven.
    fn look_who_points_there(&self, ini: &PgbouncerIni, active: bool, is_there: bool) -> Result<(), Failure> {
        let Settings { database, dbname, section, .. } = &self.settings;
        let goes = self.wanted.database == Database::PresentOrListed;
        let another = format!("switch to another copy first (pg_staging switch {section} <date>)");
        if active && is_there {
            let force = if goes { ", or add --force" } else { "" };
            return Err(Failure::new(format!("{database} is the active copy: {dbname} points at it"))
                .hint(format!("{another}{force}")));
        }
        if active {
            let entry = if goes {
                "add --force to take that entry out".to_owned()
            } else {
                format!("take that entry out (pg_staging drop {section} {} --force)", self.date())
            };
            return Err(Failure::new(format!("{dbname} points at {database}, which does not exist"))
                .hint(format!("{another}, or {entry}")));
        }
        let Some(other) = self.settings.who_points_there(ini).into_iter().find(|name| name != dbname) else {
            return Ok(());
        };
        Err(if is_there {
            let force = if goes { ", or add --force" } else { "" };
            Failure::new(format!("{database} is in use: {other} points at it"))
                .hint(format!("point {other} at another copy first{force}"))
        } else {
            Failure::new(format!("{other} points at {database}, which does not exist"))
                .hint(format!("point {other} at another copy first, or take that entry out"))
        })
    }

    /// An entry for a copy that is yet to be made must not lead elsewhere.
    fn look_at_entry(&self, ini: &PgbouncerIni) -> Result<(), Failure> {
        if !matches!(self.wanted.database, Database::Absent | Database::AbsentOrEmpty) {
            return Ok(());
        }
        let Settings { database, pgbouncer_conf, .. } = &self.settings;
        match super::bouncer::destination(ini, database) {
            Some(entry) if entry.dbname.as_ref() != Some(database) => {
                Err(Failure::new(format!("{pgbouncer_conf} has an entry {database} that leads elsewhere"))
                    .hint("take it out, or rename it, then try again"))
            }
            _ => Ok(()),
        }
    }

    /// What the server says of the dump at that URL, which is without user and password.
    pub(crate) async fn look_at_backup(&self, text: &str) -> Result<Backup, Failure> {
        let web = self.secrets.web()?;
        let url = self.secrets.url(text)?;
        let mut sum_at = url.clone();
        sum_at.set_path(&format!("{}.sha256", url.path()));
        match web.head(&url).await {
            // A folder is led to by its name without a slash.
            Ok(meta) if meta.url.path().ends_with('/') => {
                let mut toc = meta.url;
                toc.set_path(&format!("{}{TOC}", toc.path()));
                Ok(backup_of(backup::to_store(&toc), web.head(&toc).await?, None))
            }
            Ok(meta) => {
                let sum = web.sha256_of(&sum_at).await?;
                Ok(backup_of(text.to_owned(), meta, sum))
            }
            // A store that may not say what there is answers with 403.
            Err(error @ (WebError::NotFound { .. } | WebError::Status { code: 403, .. })) => {
                self.look_for_backup(&web, &url, error).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn look_at_globals(&self, text: &str) -> Result<Backup, Failure> {
        self.look_at_backup(text).await.map_err(|failure| failure.hint("check dumpall_url"))
    }

    /// A backup that is not where its folder is may be listed there all the same, as in a bucket, whose listing has
    /// another URL than what it lists.
    async fn look_for_backup(&self, web: &Web, url: &Url, missing: WebError) -> Result<Backup, Failure> {
        let missing = Failure::from(missing);
        let Some(folder) = &self.wanted.listed_at else { return Err(missing) };
        // That it is missing says more than that the listing cannot be had.
        let Ok(dumps) = web.dumps(&self.secrets.url(folder)?, &self.settings.dbname).await else {
            return Err(missing);
        };
        let name = backup::file_name(url);
        let elsewhere = dumps.iter().find(|dump| Some(&dump.name) == name.as_ref() && dump.url != *url);
        // The day is what was asked for, not how its dump is called.
        let date = name.and_then(|name| DumpName::date_of(&self.settings.dbname, &name));
        let another = || dumps.iter().find(|dump| Some(dump.date) == date && dump.url != *url);
        match elsewhere.or_else(another) {
            None if missing.code == 6 => {
                Err(Failure { hint: Some(backup::those_there_are(&dumps, &self.settings.dbname)), ..missing })
            }
            None => Err(missing),
            Some(dump) => {
                let meta = web.head(&dump.url).await?;
                let sum = match &dump.sha256 {
                    Some(sum_at) => web.sha256_of(sum_at).await?,
                    None => None,
                };
                Ok(backup_of(backup::to_store(&dump.url), meta, sum))
            }
        }
    }
}

/// The free bytes in tmpdir, where the whole dump must fit in.
pub(super) fn look_at_tmpdir(settings: &Settings, backup: &Backup) -> Result<u64, Failure> {
    let tmpdir = &settings.tmpdir;
    let free = disk::free_bytes(tmpdir)?;
    match backup.bytes {
        Some(needed) if needed > free => {
            Err(Failure::new(format!("{} has too little room for the dump", tmpdir.display()))
                .because(format!("{needed} bytes are needed, {free} are free"))
                .hint("make room there, or name another folder with -t or tmpdir"))
        }
        _ => Ok(free),
    }
}

/// What later steps know of the dump.
fn backup_of(url: String, meta: Meta, sha256: Option<[u8; 32]>) -> Backup {
    let (etag, last_modified_text) = match meta.validator {
        Some(Validator::Etag(tag)) => (Some(tag), None),
        Some(Validator::LastModified(text)) => (None, Some(text)),
        None => (None, None),
    };
    Backup {
        url,
        bytes: meta.length,
        etag,
        last_modified_text,
        last_modified: meta.last_modified.map(|time| time.as_second()),
        sha256: sha256.map(|sum| sum.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

fn look_at_dump(dump: &std::path::Path) -> Result<(), Failure> {
    if !dump.is_file() && !dump.join(TOC).is_file() {
        return Err(Failure::new(format!("there is no file {}", dump.display()))
            .code(6)
            .hint("name a dump made by pg_dump -Fc"));
    }
    disk::open(dump)?;
    Ok(())
}

#[async_trait]
impl Step for Preflight {
    async fn intend(&self, _: &Context<'_>) -> Result<Intent, Failure> {
        Ok(Intent::Do(write(&self.wanted)))
    }

    async fn observe(&self, _: &Context<'_>, _: &Detail) -> Result<Observed, Failure> {
        Ok(Observed::Absent)
    }

    async fn act(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        Ok(write(&self.look(at).await?))
    }

    async fn undo(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        disk::remove_folder(&self.settings.workspace(at.run()))?;
        Ok(Detail::new())
    }
}
