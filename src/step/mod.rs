//! The steps that runs are made of: one file for each kind, which observes, acts and undoes.
//!
//! | kind | what it does |
//! |---|---|
//! | [`preflight`] | looks whether everything that the rest needs is there |
//! | [`create_database`] | makes the dated database, marked as this run's |
//! | [`bouncer`] | adds an entry to pgbouncer.ini, takes one out, points an alias elsewhere |
//! | [`contents`] | reads what the dump on the server holds, and says by which way it is loaded |
//! | [`fetch`] | brings the dump here |
//! | [`catalog`] | decides what of the dump is restored |
//! | [`sql`] | sources the user's files before or after the restore |
//! | [`apply_sql`] | sources one of them in a copy that is in use |
//! | [`load`] | pg_restore, from a file |
//! | [`parts`] | pg_restore, part by part while they come from the server |
//! | [`settle`] | search_path, and VACUUM ANALYZE |
//! | [`alter_search_path`] | search_path of a copy that is in use |
//! | [`check`] | looks whether the copy is what it should be |
//! | [`protection`] | protects a copy from being dropped, or takes that back |
//! | [`choose`] | looks whether the copies that a purge drops may still go |
//! | [`drop_database`] | DROP DATABASE |
//! | [`globals`] | reads and applies what pg_dumpall -g has written |
//! | [`dump`] | pg_dump into a file, and the name of that file |
//! | [`pause`] | holds the clients of a name in pgbouncer back, or lets them go on |
//! | [`service`] | starts or stops pgbouncer or PostgreSQL on the target host |
//! | [`cleanup`] | removes what was needed on the way |
//!
//! A step's parameters, intent and outcome are structs of its own, stored as JSON objects. Changing one of them so
//! that stored ones read differently needs a new version of the kind.

pub mod alter_search_path;
pub mod apply_sql;
mod backends;
mod board;
pub mod bouncer;
pub mod catalog;
pub mod check;
pub mod choose;
pub mod cleanup;
pub mod contents;
pub mod create_database;
pub mod drop_database;
pub mod dump;
pub mod fetch;
pub mod globals;
pub mod load;
mod lookout;
pub mod parts;
pub mod pause;
pub mod preflight;
pub mod protection;
pub mod reader;
pub mod service;
pub mod settle;
pub mod sql;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use journal::event::{Detail, Failure, Hash, PlannedStep, RunId};
use journal::step::{Context, Intent, Observed, Step, StepKinds, Stop};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use self::contents::Heads;
use crate::backup;
use crate::world::Trouble;
use crate::world::archive::ArchiveError;
use crate::world::bouncer::Console;
use crate::world::far::Far;
use crate::world::postgres::{Server, Session};
use crate::world::process::{Ended, Identity, Program, is_program};
use crate::world::web::{Access, Web, WebError, WebOptions};

/// What the steps of a run share: where everything is. It is stored with the run, and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Section of the configuration.
    pub section: String,
    /// Name of the database in production, and of pgbouncer's alias.
    pub dbname: String,
    /// The dated copy that the run works on; empty where it works on none, or on several.
    pub database: String,
    /// Target host.
    pub host: String,
    /// Owner of the copy.
    pub dbowner: String,
    /// Role that works.
    pub dbuser: String,
    /// Maintenance database.
    pub maintdb: String,
    /// Encoding of the copy.
    pub encoding: String,
    /// PostgreSQL's port.
    pub postgres_port: u16,
    /// pgbouncer's port.
    pub pgbouncer_port: u16,
    /// pgbouncer.ini on the target host.
    pub pgbouncer_conf: String,
    /// Whether `client_script` runs under sudo.
    pub use_sudo: bool,
    /// staging-client.sh on the target host.
    pub client_script: String,
    /// Further options for ssh.
    pub ssh_options: Vec<String>,
    /// pg_restore on this machine.
    pub pg_restore: PathBuf,
    /// Where dumps are fetched to.
    pub tmpdir: PathBuf,
}

impl Settings {
    /// What a step needs to know: a step of a run that works on several copies says in its parameters which is its own.
    #[must_use]
    pub fn of_step(mut self, parameters: &Detail) -> Settings {
        if let Some(copy) = parameters.get(COPY).and_then(serde_json::Value::as_str) {
            self.database = copy.to_owned();
        }
        self
    }

    /// What no two runs may work on at the same time: the alias, at the pgbouncer that has it.
    pub fn target(&self) -> String {
        format!("{}:{}/{}", self.host, self.pgbouncer_port, self.dbname)
    }

    /// The folder that is this run's alone; its name says whose it is.
    pub fn workspace(&self, run: RunId) -> PathBuf {
        self.tmpdir.join(format!("pg_staging.{run}"))
    }

    /// pgbouncer's console.
    pub fn console(&self) -> Console {
        Console { server: self.through_pgbouncer() }
    }

    /// PostgreSQL, by way of pgbouncer.
    pub fn through_pgbouncer(&self) -> Server {
        Server { host: self.host.clone(), port: self.pgbouncer_port, user: self.dbuser.clone() }
    }

    /// PostgreSQL itself.
    pub fn direct(&self) -> Server {
        Server { host: self.host.clone(), port: self.postgres_port, user: self.dbuser.clone() }
    }

    /// A session in the maintenance database, and by which way: PostgreSQL's own port where it can be reached,
    /// pgbouncer's otherwise.
    pub async fn reach_postgres(&self) -> Result<(Server, Session), Failure> {
        self.reach_postgres_by(&[self.direct(), self.through_pgbouncer()]).await
    }

    /// The same, by the first of these ways that works.
    pub async fn reach_postgres_by(&self, ways: &[Server]) -> Result<(Server, Session), Failure> {
        let mut refused = Vec::new();
        for server in ways.iter().cloned() {
            match server.connect(&self.maintdb, "pg_staging").await {
                Ok(session) => return Ok((server, session)),
                Err(trouble) => refused.push(trouble),
            }
        }
        let transient = refused.iter().any(|trouble| trouble.transient);
        let causes: Vec<String> = refused.iter().map(ToString::to_string).collect();
        let hint = refused.iter().find_map(|trouble| trouble.hint.clone());
        let usual = "start it, or correct host, postgres_port, pgbouncer_port, dbuser and maintdb";
        Err(Failure::new(format!("cannot reach PostgreSQL on {}", self.host))
            .because(causes.join("; "))
            .hint(hint.unwrap_or_else(|| usual.to_owned()))
            .transient(transient))
    }

    /// The host where pgbouncer.ini is.
    pub fn far(&self, run: RunId) -> Far {
        self.far_by_way_of(self.workspace(run))
    }

    /// The same, with files on their way to it or from it in `folder`.
    pub fn far_by_way_of(&self, folder: PathBuf) -> Far {
        Far {
            host: self.host.clone(),
            ssh_options: self.ssh_options.clone(),
            use_sudo: self.use_sudo,
            client_script: self.client_script.clone(),
            pgbouncer_conf: PathBuf::from(&self.pgbouncer_conf),
            pgbouncer_port: self.pgbouncer_port,
            folder,
        }
    }

    /// psql: pg_restore's neighbour.
    pub fn psql(&self) -> PathBuf {
        self.pg_restore.with_file_name("psql")
    }

    /// pg_dump: pg_restore's neighbour.
    pub fn pg_dump(&self) -> PathBuf {
        self.pg_restore.with_file_name("pg_dump")
    }
}

/// The parameter that names the copy of a single step.
pub const COPY: &str = "copy";

/// What is needed to run steps and must not be stored: made anew from the configuration each time.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// What lets us in at the backup server.
    pub backup: Option<Access>,
    /// `dumpall_url` with all that is in it.
    pub globals: Option<Url>,
}

impl Secrets {
    /// A client that gets into the backup server. What it needs for that is read now.
    fn web(&self) -> Result<Web, Failure> {
        Ok(match &self.backup {
            Some(access) => access.web()?,
            None => Web::new(&WebOptions::default())?,
        })
    }

    /// A stored URL, made whole again.
    fn url(&self, stored: &str) -> Result<Url, Failure> {
        if let Some(url) = self.globals.as_ref().filter(|url| backup::to_store(url) == stored) {
            return Ok(url.clone());
        }
        match &self.backup {
            Some(access) => Ok(access.url(stored)?),
            None => Url::parse(stored)
                .map_err(|error| Failure::new(format!("{stored} is not a URL")).because(error)),
        }
    }
}

/// All kinds of steps.
pub struct Kinds {
    /// What must not be stored.
    pub secrets: Secrets,
    /// What of dumps was read already.
    pub heads: Heads,
}

impl StepKinds for Kinds {
    fn step(&self, planned: &PlannedStep, settings: &Detail) -> Result<Option<Box<dyn Step>>, Failure> {
        let parameters = &planned.parameters;
        let settings = read::<Settings>(settings)?.of_step(parameters);
        let (secrets, heads) = (self.secrets.clone(), self.heads.clone());
        let step: Box<dyn Step> = match (planned.kind.as_str(), planned.version) {
            ("preflight", 1) => {
                Box::new(preflight::Preflight { settings, secrets, wanted: read(parameters)? })
            }
            ("create_database", 1) => {
                Box::new(create_database::CreateDatabase { settings, given: read(parameters)? })
            }
            ("bouncer_add", 1) => Box::new(bouncer::Add { settings }),
            ("bouncer_remove", 1) => Box::new(bouncer::Remove { settings, given: read(parameters)? }),
            ("switch", 1) => Box::new(bouncer::Switch { settings, given: read(parameters)? }),
            ("fetch", 1) => Box::new(fetch::Fetch { settings, secrets, given: read(parameters)? }),
            ("contents", 1) => Box::new(Again(contents::ReadContents { settings, secrets, heads })),
            ("catalog", 1) => {
                Box::new(catalog::Catalog { settings, secrets, heads, given: read(parameters)? })
            }
            ("sql", 1) => Box::new(sql::Sql { settings, given: read(parameters)? }),
            // What a dump turns out to be decides how it is loaded.
            ("load" | "parts", 1) => Box::new(parts::Parts {
                load: load::Load { settings, given: read(parameters)? },
                secrets,
                heads,
                patience: read(parameters)?,
            }),
            ("search_path", 1) => Box::new(Again(settle::SearchPath { settings, given: read(parameters)? })),
            ("vacuum", 1) => Box::new(Again(settle::Vacuum { settings, given: read(parameters)? })),
            ("apply_sql", 1) => Box::new(apply_sql::ApplySql { settings, given: read(parameters)? }),
            ("forget_sql", 1) => Box::new(Again(apply_sql::Forget { settings })),
            ("alter_search_path", 1) => {
                Box::new(alter_search_path::AlterSearchPath { settings, given: read(parameters)? })
            }
            ("protect", 1) => Box::new(protection::Protect { settings, given: read(parameters)? }),
            ("choose", 1) => Box::new(Again(choose::Choose { settings, choice: read(parameters)? })),
            ("globals", 1) => Box::new(Again(globals::Globals { settings, secrets })),
            ("roles", 1) => Box::new(globals::Roles { settings, secrets }),
            ("tablespaces", 1) => Box::new(globals::Tablespaces { settings, secrets }),
            ("check", 1 | 2) => Box::new(Again(check::Check { settings, given: read(parameters)? })),
            ("drop_database", 1) => {
                Box::new(drop_database::DropDatabase { settings, given: read(parameters)? })
            }
            ("dump", 1) => Box::new(dump::Dump { settings, given: read(parameters)? }),
            ("publish", 1) => Box::new(dump::Publish { given: read(parameters)? }),
            ("start_service", 1) => Box::new(service::Start { settings, given: read(parameters)? }),
            ("stop_service", 1) => Box::new(service::Stop { settings, given: read(parameters)? }),
            (pause::KIND, 1) => Box::new(pause::Pause { settings, given: read(parameters)? }),
            ("resume", 1) => Box::new(pause::Resume { settings }),
            ("cleanup", 1) => Box::new(cleanup::Cleanup { settings }),
            _ => return Ok(None),
        };
        Ok(Some(step))
    }
}

/// A step that changes nothing that would have to be undone, and may be done any number of times.
struct Again<T>(T);

/// The two things that such a step does.
#[async_trait]
trait Repeatable: Send + Sync {
    /// What it will do, or why there is nothing to do.
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure>;
    /// Does it.
    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure>;
}

#[async_trait]
impl<T: Repeatable> Step for Again<T> {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        self.0.intend(at).await
    }

    async fn observe(&self, _: &Context<'_>, _: &Detail) -> Result<Observed, Failure> {
        Ok(Observed::Absent)
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.0.act(at, intent).await
    }

    async fn undo(&self, _: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        Ok(Detail::new())
    }
}

/// A stored object as one of our structs.
pub fn read<T: DeserializeOwned>(detail: &Detail) -> Result<T, Failure> {
    serde_json::from_value(serde_json::Value::Object(detail.clone())).map_err(|error| {
        Failure::new("a stored step cannot be understood")
            .because(error)
            .hint("use the version of pg_staging that began the run; inspect names it")
    })
}

/// One of our structs as an object to store.
pub fn write<T: Serialize>(value: &T) -> Detail {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(detail)) => detail,
        // Our structs have string keys and nothing that JSON cannot hold.
        _ => Detail::new(),
    }
}

/// Resolves when the run is asked to stop.
async fn asked_to_stop(at: &Context<'_>) {
    let mut stop = at.stop();
    if stop.wait_for(|stop| *stop != Stop::No).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}

/// Stores one of our values as an attachment; returns the name to put into an event.
async fn attach<T: Serialize>(at: &Context<'_>, value: &T) -> Result<String, Failure> {
    let bytes = serde_json::to_vec(value).map_err(|error| Failure::new(error.to_string()))?;
    Ok(at.attach(&bytes).await?.to_string())
}

/// What [`attach`] stored under this name; `what` it is, for the message.
async fn attached<T: DeserializeOwned>(at: &Context<'_>, name: &str, what: &str) -> Result<T, Failure> {
    let hash: Hash = name.parse().map_err(|error| Failure::new(format!("{error}")))?;
    serde_json::from_slice(&at.attachment(hash).await?)
        .map_err(|error| Failure::new(format!("{what} cannot be read")).because(error))
}

/// As many of `all` as an event has room for, and how many more there are. The whole belongs into an attachment.
fn shortened(all: impl IntoIterator<Item = String>) -> Vec<String> {
    const MOST: usize = 15;
    const LONGEST: usize = 200;
    let all: Vec<String> = all.into_iter().collect();
    let more = all.len().saturating_sub(MOST);
    let short = |text: String| match text.char_indices().take_while(|(at, _)| *at < LONGEST).last() {
        Some((end, _)) if text.len() > LONGEST => format!("{}…", text.get(..end).unwrap_or_default()),
        _ => text,
    };
    let mut shown: Vec<String> = all.into_iter().take(MOST).map(short).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown
}

/// The outcome of an earlier step of the same run.
async fn outcome<T: DeserializeOwned>(at: &Context<'_>, step: &str) -> Result<T, Failure> {
    let missing = || Failure::new(format!("step '{step}' of this run has no outcome"));
    read(&at.outcome_of(step).await.ok_or_else(missing)?)
}

/// The backup that preflight found.
async fn backup(at: &Context<'_>) -> Result<preflight::Backup, Failure> {
    let found: preflight::Outcome = outcome(at, "preflight").await?;
    found.backup.ok_or_else(|| Failure::new("preflight found no backup"))
}

/// PostgreSQL by the way that preflight found.
async fn server(at: &Context<'_>, settings: &Settings) -> Result<Server, Failure> {
    let found: preflight::Outcome = outcome(at, "preflight").await?;
    Ok(Server { host: found.postgres.host, port: found.postgres.port, user: settings.dbuser.clone() })
}

/// A session of this step in the maintenance database.
async fn maintenance(at: &Context<'_>, settings: &Settings) -> Result<Session, Failure> {
    Ok(server(at, settings).await?.connect(&settings.maintdb, &application_name(at)).await?)
}

/// The same, after those of an earlier process are gone: the server goes on with a command when nobody waits for it any
/// more, and what that is about to make cannot be seen yet.
async fn maintenance_alone(at: &Context<'_>, settings: &Settings) -> Result<Session, Failure> {
    end_leftovers(at, &server(at, settings).await?, &settings.maintdb).await?;
    maintenance(at, settings).await
}

/// The name under which the connections of a step are seen in `pg_stat_activity`; PostgreSQL keeps 63 bytes of it, and
/// no others than ASCII. Steps of one kind for several copies or files share it: they are never at work together.
fn application_name(at: &Context<'_>) -> String {
    let step = at.step().split(' ').next().unwrap_or_default();
    format!("pg_staging:{}:{step}", at.run()).chars().take(63).collect()
}

/// Ends the programs that an earlier process left at work on this step.
async fn end_children(at: &Context<'_>) -> Result<(), Failure> {
    let run = at.snapshot().await;
    let children = run.step(at.step()).map(|(_, step)| step.children.clone()).unwrap_or_default();
    for child in children.into_iter().filter(|child| child.ending.is_none()) {
        let journal::event::Process { pid, start_time, boot_id } = child.process;
        if (Identity { pid, start_time, boot_id }).end().await? {
            at.child_ended(pid, "ended by the process that continued").await?;
        }
    }
    Ok(())
}

/// Ends what an earlier process left at work on this step: its programs, then its connections, and those of its workers,
/// whose names begin with the step's.
async fn end_leftovers(at: &Context<'_>, server: &Server, database: &str) -> Result<(), Failure> {
    end_children(at).await?;
    let session = server.connect(database, "pg_staging").await?;
    let name = crate::world::postgres::literal(&format!("{}:", application_name(at)));
    let is_left = format!("starts_with(application_name || ':', {name})");
    // They are told to go, and are gone a moment later: the server itself waits between looks.
    for _ in 0..200 {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {is_left} AND pid <> pg_backend_pid()"
        );
        if session.value(&sql).await?.as_deref() == Some("0") {
            return Ok(());
        }
        session.execute("SELECT pg_sleep(0.05)").await?;
    }
    Err(Failure::new("connections of an interrupted attempt do not end")
        .hint(format!(
            "end them by hand: SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {is_left}"
        ))
        .transient(true))
}

/// One of PostgreSQL's client programs must be there.
fn require_program(program: &Path) -> Result<(), Failure> {
    if is_program(program) {
        return Ok(());
    }
    Err(Failure::new(format!("there is no program {}", program.display()))
        .hint("install PostgreSQL's client programs, or set postgres_major or pg_restore to where they are"))
}

/// Runs a program to its end, and records when it starts and ends. `line` hears each line of its standard error as it
/// comes, and says whether it is kept.
async fn run_child(
    at: &Context<'_>,
    program: &Program,
    line: impl FnMut(&str) -> bool,
) -> Result<Ended, Failure> {
    let running = program.start()?;
    let identity = running.identity()?;
    until_ended(at, program, identity, async { Ok(running.finish(line).await?) }).await
}

/// Records that a program was started, and, when `ends` tells, how it ended.
async fn until_ended(
    at: &Context<'_>,
    program: &Program,
    Identity { pid, start_time, boot_id }: Identity,
    ends: impl Future<Output = Result<Ended, Failure>>,
) -> Result<Ended, Failure> {
    at.child_started(journal::event::Process { pid, start_time, boot_id }, &program.name()).await?;
    let ended = ends.await?;
    at.child_ended(pid, &ended.ending()).await?;
    Ok(ended)
}

/// The end of what a program said; all of it belongs into an attachment.
fn last_words(said: &str) -> String {
    let mut last: Vec<&str> = said.lines().rev().take(5).collect();
    last.reverse();
    last.join("\n")
}

/// What this step announced before, when this is not its first attempt.
async fn announced(at: &Context<'_>) -> Option<Detail> {
    at.snapshot().await.step(at.step()).and_then(|(_, step)| step.intent.clone())
}

/// What this step recorded last under the name of a part.
async fn recorded(at: &Context<'_>, part: &str) -> Option<Detail> {
    at.snapshot().await.step(at.step()).and_then(|(_, step)| step.parts.get(part).cloned())
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let Trouble { message, cause, hint, transient } = trouble;
        Failure { cause, hint, transient, ..Failure::new(message) }
    }
}

impl From<WebError> for Failure {
    fn from(error: WebError) -> Self {
        let failure = Failure::new(error.to_string()).transient(error.is_transient());
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !failure.message.contains(&cause_text) {
                causes.push(cause_text);
            }
            source = cause.source();
        }
        let retry_after = error.retry_after().and_then(|wait| u64::try_from(wait.as_millis()).ok());
        Failure {
            cause: (!causes.is_empty()).then(|| causes.join(": ")),
            hint: error.hint().map(str::to_owned),
            retry_after_ms: retry_after,
            code: if matches!(error, WebError::NotFound { .. }) { 6 } else { 1 },
            stopped: matches!(error, WebError::Stopped { .. }),
            ..failure
        }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        let message = error.to_string();
        match error {
            ArchiveError::Web(error) => error.into(),
            ArchiveError::Disk(trouble) => trouble.into(),
            ArchiveError::Unfit { source, .. } => {
                let failure = Failure::new(message).because(&source);
                Failure { hint: source.hint(), ..failure }
            }
            ArchiveError::Damaged { cause, .. } => {
                Failure::new(message).because(cause).hint("have the backup made or copied again")
            }
        }
    }
}
