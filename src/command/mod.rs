//! One file for each verb or family of verbs: its arguments, and "build the plan, run it" or "ask and show".
//!
//! What they share is the [`App`]: what was typed for all of them, the configuration, the journal, and the engine.

pub mod audit;
pub mod backups;
pub mod commands;
pub mod contents;
mod continue_all;
pub mod copies;
pub mod databases;
pub mod dumping;
mod each;
mod filter;
pub mod follow;
pub mod get;
pub mod history;
pub mod init;
pub mod inspect;
pub mod journal_upkeep;
mod leftovers;
mod live;
pub mod mending;
mod newer;
pub mod pgbouncer;
mod place;
pub mod pooling;
pub mod protect;
mod prune;
pub mod psql;
pub mod purge;
pub mod restore;
pub mod runs;
pub mod services;
pub mod session;
pub mod show;
mod signals;
pub mod sizes;
pub mod upkeep;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use journal::clock::{Clock, SystemClock};
use journal::engine::{Engine, EngineError, Question};
use journal::event::{Actor, Detail, Failure, OnFailure, Process, RunStarted};
use journal::run::{Run, Status};
use journal::step::{Listener, Stop};
use journal::store::files::FileStore;
use journal::store::{Store, StoreError, Upkeep};
use tokio::sync::watch;

use self::place::Place;
use self::signals::Signals;
use crate::cli::{Command, Global};
use crate::config::{self, Config, ConfigError, Target};
use crate::database::{DateWord, DatedName};
use crate::error::{Error, ExitCode};
use crate::plan::Plan;
use crate::report::{self, Style};
use crate::step::contents::Heads;
use crate::step::{Kinds, Secrets, Settings, pause, write};
use crate::world::machine;
use crate::world::postgres::{Server, Session, literal};
use crate::world::process::{Identity, Program};
use crate::world::web::Access;

/// What the commands share.
pub struct App {
    /// What was typed for all of them.
    pub global: Global,
    /// How things are shown.
    pub style: Style,
    config: Option<Config>,
    signals: Rc<OnceCell<Signals>>,
    /// Standard input holds a script, which is for nobody else.
    script: bool,
}

/// Runs what was typed, tells what has to be told, and says how it ended.
pub async fn run(global: Global, command: Command) -> ExitCode {
    let mut session = session::Session::new(global);
    let about_the_program = matches!(command, Command::Commands(_) | Command::Completions(_));
    match if about_the_program { Ok(()) } else { session.read_first_config() } {
        Ok(()) => session.run(Global::default(), command).await,
        Err(error) => session.tell(&error),
    }
}

async fn dispatch(app: &App, command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Restore(given) => given.run(app).await,
        Command::Load(given) => given.run(app).await,
        Command::Fetch(given) => given.run(app).await,
        Command::Createdb(given) => given.run(app).await,
        Command::Switch(given) => given.run(app).await,
        Command::Drop(given) => given.run(app).await,
        Command::Databases(given) => given.run(app).await,
        Command::Dbsize(given) => given.run(app).await,
        Command::Dbsizes(given) => given.run(app).await,
        Command::Show(given) => given.run(app).await,
        Command::Pgbouncer(given) => given.run(app).await,
        Command::Psql(given) => given.run(app).await,
        Command::Get(given) => given.run(app),
        Command::Purge(given) => given.run(app).await,
        Command::Protect(given) => given.run(app).await,
        Command::Unprotect(given) => given.run(app).await,
        Command::Presql(given) => given.run(app).await,
        Command::Postsql(given) => given.run(app).await,
        Command::Vacuumdb(given) => given.run(app).await,
        Command::SearchPath(given) => given.run(app).await,
        Command::Init(given) => given.run(app).await,
        Command::Backups(given) => given.run(app).await,
        Command::Nodata(given) => given.run(app).await,
        Command::Catalog(given) => given.run(app).await,
        Command::Triggers(given) => given.run(app).await,
        Command::Start(given) => given.run(app).await,
        Command::Stop(given) => given.run(app).await,
        Command::Restart(given) => given.run(app).await,
        Command::Status(given) => given.run(app).await,
        Command::Dump(given) => given.run(app).await,
        Command::Redump(given) => given.run(app).await,
        Command::Pause(given) => given.run(app).await,
        Command::Resume(given) => given.run(app).await,
        Command::Continue(given) => given.run(app).await,
        Command::Rollback(given) => given.run(app).await,
        Command::History(given) => given.run(app).await,
        Command::Inspect(given) => given.run(app).await,
        Command::Audit(given) => given.run(app).await,
        Command::Follow(given) => given.run(app).await,
        Command::Resolve(given) => given.run(app).await,
        Command::Abandon(given) => given.run(app).await,
        Command::Journal(given) => given.run(app).await,
        Command::Commands(given) => given.run(app),
        Command::Completions(given) => given.run(),
    }
}

/// The error of a program that could not even begin.
pub fn cannot_start(cause: &std::io::Error) -> Error {
    Error::new(ExitCode::FAILED, "cannot start").because(cause)
}

impl App {
    /// The configuration, which must be there.
    pub fn config(&self) -> Result<&Config, Error> {
        self.config.as_ref().ok_or_else(|| {
            let path = machine::default_config();
            Error::new(ExitCode::USAGE, format!("there is no configuration file {}", path.display()))
                .hint("name one with -c FILE or PG_STAGING_CONFIG")
        })
    }

    /// A section of the configuration.
    pub fn target(&self, section: &str) -> Result<Target, Error> {
        let mut target = self.config()?.target(section, machine::home().as_deref())?;
        if let Some(tmpdir) = &self.global.tmpdir {
            target.tmpdir.clone_from(tmpdir);
        }
        target.tmpdir = absolute(&target.tmpdir)?;
        Ok(target)
    }

    /// The section, when the configuration has it.
    pub fn has_section(&self, name: &str) -> bool {
        self.config.as_ref().is_some_and(|config| config.sections().any(|section| section == name))
    }

    /// The journal: where the command line says, else the section, else the usual place. Where no section is asked
    /// for, it is the one that all sections share.
    pub fn store(&self, section: Option<&str>) -> Result<Arc<dyn Store>, Error> {
        Ok(self.journal_place(section)?.open()?)
    }

    /// The journal that all sections share, to be looked after.
    pub fn kept_store(&self) -> Result<Arc<dyn Upkeep>, Error> {
        self.journal_place(None)?.open()
    }

    /// The journal, when there is one already, or when it is on a server.
    pub fn store_if_there(&self, section: Option<&str>) -> Result<Option<Arc<dyn Store>>, Error> {
        let place = self.journal_place(section)?;
        if place.is_there()? { Ok(Some(place.open()?)) } else { Ok(None) }
    }

    /// The journal that all sections share, which must be in a folder.
    pub fn file_store(&self) -> Result<FileStore, Error> {
        self.journal_place(None)?.open_folder()
    }

    /// The folder of the journal that all sections share, which may not be there yet.
    pub fn journal_folder(&self) -> Result<PathBuf, Error> {
        self.journal_place(None)?.folder()
    }

    /// The same, when there is one already, or when it is on a server.
    pub fn kept_store_if_there(&self) -> Result<Option<Arc<dyn Upkeep>>, Error> {
        let place = self.journal_place(None)?;
        if place.is_there()? { place.open().map(Some) } else { Ok(None) }
    }

    fn journal_place(&self, section: Option<&str>) -> Result<Place, Error> {
        let wanted = match &self.global.journal {
            Some(place) => Some(place.clone()),
            None => self.configured_journal(section)?,
        };
        Place::of(wanted.as_deref())
    }

    fn configured_journal(&self, section: Option<&str>) -> Result<Option<String>, Error> {
        let Some(config) = &self.config else { return Ok(None) };
        let of = |section: &str| match config.get(section, "journal") {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(ConfigError::NoOption { .. }) => Ok(None),
            Err(error) => Err(Error::from(error)),
        };
        if let Some(section) = section.filter(|section| self.has_section(section)) {
            return of(section);
        }
        let mut places = config.sections().map(of).collect::<Result<BTreeSet<_>, _>>()?;
        if places.is_empty() {
            places.insert(of(config::DEFAULT_SECTION)?);
        }
        let mut places = places.into_iter();
        match (places.next().flatten(), places.next()) {
            (place, None) => Ok(place),
            _ => {
                Err(Error::new(ExitCode::USAGE, "the sections of the configuration have different journals")
                    .hint("name one with --journal"))
            }
        }
    }

    /// This day, where we are.
    pub fn today(&self) -> Date {
        SystemClock.now().to_zoned_datetime(TimeZone::system()).date()
    }

    /// What the steps of a run on `date` need to know of the target.
    pub fn settings(&self, target: &Target, date: Date) -> Result<Settings, Error> {
        Ok(Settings { database: DatedName::new(&target.dbname, date)?.to_string(), ..self.place(target) })
    }

    /// What the steps of a run that works on no single copy need to know of the target.
    pub fn place(&self, target: &Target) -> Settings {
        Settings {
            section: target.section.clone(),
            dbname: target.dbname.clone(),
            database: String::new(),
            host: target.host.clone(),
            dbowner: target.dbowner.clone(),
            dbuser: target.dbuser.clone(),
            maintdb: target.maintdb.clone(),
            encoding: target.db_encoding.clone(),
            postgres_port: target.postgres_port,
            pgbouncer_port: target.pgbouncer_port,
            pgbouncer_conf: target.pgbouncer_conf.clone(),
            use_sudo: target.use_sudo,
            client_script: target.client_script.clone(),
            ssh_options: target.ssh_options.clone(),
            pg_restore: target.pg_restore.clone(),
            tmpdir: target.tmpdir.clone(),
        }
    }

    /// The date that a word means among the copies that are there.
    pub async fn date_of_copy(&self, target: &Target, word: DateWord) -> Result<Date, Error> {
        let mut copies = Vec::new();
        let mut active = None;
        if matches!(word, DateWord::Latest | DateWord::Oldest) {
            copies = self.copies(target).await?;
        }
        if word == DateWord::Active {
            let alias = self.place(target).console().database(&target.dbname).await?;
            active = alias.and_then(|alias| DatedName::date_of(&target.dbname, &alias.database));
        }
        Ok(word.resolve(self.today(), &copies, active)?)
    }

    /// What there is to know of the copy that a date on the command line means, or `default` where there is none.
    pub async fn copy(
        &self,
        target: &Target,
        typed: Option<&str>,
        default: DateWord,
    ) -> Result<Settings, Error> {
        let word = typed.map_or(Ok(default), str::parse)?;
        let date = self.date_of_copy(target, word).await?;
        self.settings(target, date)
    }

    /// A session in the maintenance database, by the way that works.
    pub async fn maintenance(&self, target: &Target) -> Result<Session, Error> {
        let (_, session) = self.place(target).reach_postgres().await?;
        Ok(session)
    }

    /// The dates of the copies that PostgreSQL has.
    pub async fn copies(&self, target: &Target) -> Result<Vec<Date>, Error> {
        let session = self.maintenance(target).await?;
        let names = session.rows("SELECT datname FROM pg_database").await?;
        let names = names.into_iter().flatten().flatten();
        Ok(names.filter_map(|name| DatedName::date_of(&target.dbname, &name)).collect())
    }

    /// The server by the way that it can be reached, once it has shown that it has the copy.
    pub async fn server_with_copy(&self, target: &Target, settings: &Settings) -> Result<Server, Error> {
        let (server, session) = settings.reach_postgres().await?;
        let there = format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(&settings.database));
        match session.value(&there).await? {
            Some(_) => Ok(server),
            None => Err(self.no_copy(target, &settings.database)),
        }
    }

    /// The error for a copy that PostgreSQL does not have.
    pub fn no_copy(&self, target: &Target, database: &str) -> Error {
        let what = format!("there is no database {database} on {}", target.host);
        Error::new(ExitCode::MISSING, what)
            .hint(format!("pg_staging databases {} lists those there are", target.section))
    }

    /// The exit code of a command whose results were shown; what kept them from being complete is told.
    pub fn incomplete(&self, asked: Result<(), Error>) -> ExitCode {
        asked.map_or_else(
            |error| {
                report::incomplete(&error, self.style);
                error.code
            },
            |()| ExitCode::DONE,
        )
    }

    /// Prints the plan, or runs it.
    pub async fn carry_out(&self, target: &Target, command: Typed, plan: Plan) -> Result<ExitCode, Error> {
        if self.global.dry_run {
            report::plan(&plan, &command.name, self.style);
            return Ok(ExitCode::DONE);
        }
        let store = self.store(Some(&target.section))?;
        self.carry_out_in(store, target, command, plan).await
    }

    /// Runs a plan whose attachments are in `store` already.
    pub async fn carry_out_in(
        &self,
        store: Arc<dyn Store>,
        target: &Target,
        command: Typed,
        plan: Plan,
    ) -> Result<ExitCode, Error> {
        self.carry_out_made(store, target, command, async || Ok(plan.clone())).await
    }

    /// Runs a plan that is made anew each time that a busy target is asked for: what it was made from may have changed
    /// while another run was waited for.
    pub async fn carry_out_made(
        &self,
        store: Arc<dyn Store>,
        target: &Target,
        command: Typed,
        make: impl AsyncFn() -> Result<Plan, Error>,
    ) -> Result<ExitCode, Error> {
        let engine = self.engine(store, secrets(target))?;
        let start = async || {
            let plan = make().await.map_err(|error| EngineError::Step(Failure::from(&error)))?;
            engine.start(started(&engine, target, command.clone(), plan)).await
        };
        self.run_engine(&engine, start).await
    }

    /// Does what changes nothing, as a run that `history --all` shows. ^C ends it at once.
    ///
    /// Nothing depends on what such a run records, so a journal that cannot be written is told, and no more. One that is
    /// named badly is an error all the same.
    pub async fn ask<T>(
        &self,
        section: Option<&str>,
        command: Typed,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.recorded(section, command, self.until_stopped(work)).await
    }

    /// Like [`App::ask`], with work that hears the signals itself.
    pub async fn recorded<T>(
        &self,
        section: Option<&str>,
        command: Typed,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let place = self.journal_place(section)?;
        let question = match self.question(place, section, command, true).await {
            Ok(question) => Some(question),
            Err(error) => {
                self.style.warn(&format!("this command is not in the journal: {error}"));
                None
            }
        };
        let answer = work.await;
        if let Some(question) = question {
            let how = answer.as_ref().map(|_| ()).map_err(Failure::from);
            if let Err(error) = question.answered(how).await {
                self.style.warn(&format!("how this command ended is not in the journal: {error}"));
            }
        }
        answer
    }

    /// Does something to the journal that all sections share, as a run in it, which has to begin there first.
    pub async fn recorded_change<T>(
        &self,
        command: Typed,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let question = self.question(self.journal_place(None)?, None, command, false).await?;
        let done = work.await;
        question
            .answered(done.as_ref().map(|_| ()).map_err(Failure::from))
            .await
            .map_err(EngineError::from)?;
        done
    }

    /// Does something until the program is asked to stop.
    pub async fn until_stopped<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let stop = self.signals()?.stop_at_once();
        tokio::select! {
            biased;
            answer = work => answer,
            signal = signals::wait(stop, |_| true) => Err(stopped(signal)),
        }
    }

    /// Leaves the terminal to another program until it ends, or until we are asked by somebody else to stop; then the
    /// signal that asked comes with how it ended. It has nothing to read where we read a script.
    pub async fn hand_over(&self, program: &Program) -> Result<(ExitStatus, Option<u8>), Error> {
        let program = if self.script { program.clone().without_input() } else { program.clone() };
        let mut stop = self.stop()?;
        let lent = self.signals()?.lend()?;
        let mut signal = None;
        let asked_to_stop = async {
            match stop.wait_for(|stop| matches!(stop, Stop::Now(_))).await.map(|stop| *stop) {
                Ok(Stop::Now(by)) => signal = Some(by),
                // Nobody is left who could ask.
                _ => std::future::pending().await,
            }
        };
        let status = program.hand_over(asked_to_stop).await;
        lent.end().await;
        Ok((status?, signal))
    }

    async fn question(
        &self,
        place: Place,
        section: Option<&str>,
        command: Typed,
        read_only: bool,
    ) -> Result<Question, Error> {
        let store = place.open()?;
        let engine = Engine {
            listener: Arc::new(report::Silent),
            ..self.engine_until(store, Secrets::default(), self.signals()?.stop_at_once())?
        };
        let started = RunStarted {
            version: engine.version.clone(),
            command: command.name,
            arguments: command.arguments,
            section: section.map(str::to_owned),
            database: None,
            target: None,
            read_only,
            on_failure: OnFailure::Keep,
            retry_limit_ms: 0,
            settings: Detail::new(),
            plan: Vec::new(),
            process: engine.process.clone(),
        };
        Ok(engine.question(started).await?)
    }

    /// Changes when the command is asked to stop, at a safe point or at once.
    pub fn stop(&self) -> Result<watch::Receiver<Stop>, Error> {
        Ok(self.signals()?.stop())
    }

    fn signals(&self) -> Result<&Signals, Error> {
        if let Some(signals) = self.signals.get() {
            return Ok(signals);
        }
        let signals = Signals::listen(self.style, false)?;
        Ok(self.signals.get_or_init(|| signals))
    }

    /// The engine, with everything it needs from outside.
    pub fn engine(&self, store: Arc<dyn Store>, secrets: Secrets) -> Result<Engine, Error> {
        self.engine_until(store, secrets, self.stop()?)
    }

    fn engine_until(
        &self,
        store: Arc<dyn Store>,
        secrets: Secrets,
        stop: watch::Receiver<Stop>,
    ) -> Result<Engine, Error> {
        let this = machine::this_process()?;
        let listener: Arc<dyn Listener> = report::listener(self.style);
        Ok(Engine {
            store,
            kinds: Arc::new(Kinds { secrets, heads: Heads::default() }),
            clock: Arc::new(SystemClock),
            listener,
            stop,
            actor: actor(&this),
            process: Process { pid: this.pid, start_time: this.start_time, boot_id: this.boot_id },
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Runs what the engine is asked to do, waiting for a busy target when that is wanted, and tells how it ended.
    pub async fn run_engine(
        &self,
        engine: &Engine,
        ask: impl AsyncFn() -> Result<Run, EngineError>,
    ) -> Result<ExitCode, Error> {
        let run = self.run_to_its_end(engine, ask).await?;
        if run.status == Status::Stopped && pause::must_not_wait(&run.started.plan) {
            return self.let_go(engine, &run).await;
        }
        report::ended(&run, self.style);
        Ok(ExitCode::of(&run))
    }

    /// Undoes a run that was asked to stop and must not be left half done. It is not asked twice.
    async fn let_go(&self, engine: &Engine, stopped: &Run) -> Result<ExitCode, Error> {
        let (_, nobody_asks) = watch::channel(Stop::No);
        let engine =
            Engine { stop: nobody_asks, ..self.engine(Arc::clone(&engine.store), Secrets::default())? };
        let run = engine.roll_back(stopped.id, "stopped on request", false).await?;
        report::ended(&run, self.style);
        let signal = stopped.signal.filter(|_| run.status == Status::RolledBack);
        Ok(signal.map_or_else(|| ExitCode::of(&run), |signal| ExitCode(128 + signal)))
    }

    /// Runs what the engine is asked to do, waiting for a busy target when that is wanted.
    pub async fn run_to_its_end(
        &self,
        engine: &Engine,
        ask: impl AsyncFn() -> Result<Run, EngineError>,
    ) -> Result<Run, Error> {
        let limit = self.global.wait;
        let mut waited = Duration::ZERO;
        loop {
            match ask().await {
                Err(EngineError::Store(busy @ StoreError::Busy { .. }))
                    if limit.is_some_and(|limit| limit.0.is_none_or(|limit| waited < limit)) =>
                {
                    if let Stop::Soon(signal) | Stop::Now(signal) = *engine.stop.borrow() {
                        let message = "stopped while waiting for another run; nothing was started";
                        return Err(Error::new(ExitCode(128 + signal), message));
                    }
                    if waited.is_zero() {
                        report::waiting(&busy, self.style);
                    }
                    waited += BUSY_PAUSE;
                    SystemClock.sleep(BUSY_PAUSE).await;
                }
                ended => return Ok(ended?),
            }
        }
    }
}

/// How long to wait before a busy target is asked for again.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// A command as it was typed.
#[derive(Debug, Clone)]
pub struct Typed {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Typed {
    /// A command and its arguments, without those that were left out.
    pub fn new(name: &str, arguments: &[Option<&str>]) -> Typed {
        let arguments = arguments.iter().flatten().map(|argument| (*argument).to_owned()).collect();
        Typed { name: name.to_owned(), arguments }
    }
}

/// The first fact of a run that carries out a plan.
fn started(engine: &Engine, target: &Target, command: Typed, plan: Plan) -> RunStarted {
    RunStarted {
        version: engine.version.clone(),
        command: command.name,
        arguments: command.arguments,
        section: Some(target.section.clone()),
        database: plan.database().map(str::to_owned),
        target: Some(plan.target()),
        read_only: false,
        on_failure: match target.on_failure {
            config::OnFailure::Keep if !pause::must_not_wait(&plan.steps) => OnFailure::Keep,
            _ => OnFailure::Rollback,
        },
        retry_limit_ms: u64::try_from(target.retry_limit.as_millis()).unwrap_or(u64::MAX),
        settings: write(&plan.settings),
        plan: plan.steps,
        process: engine.process.clone(),
    }
}

/// What the steps need and the journal must not hold.
pub fn secrets(target: &Target) -> Secrets {
    Secrets { backup: Some(access(target)), globals: target.dumpall_url() }
}

/// The way into the backup server.
fn access(target: &Target) -> Access {
    Access::new(target.backups_url(), target.backup_token_file.clone(), target.ca_file.clone())
}

/// The error of a command that a signal ended.
fn stopped(signal: u8) -> Error {
    Error::new(ExitCode(128 + signal), "stopped on request")
}

/// A path that means the same wherever the run is continued from.
pub fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| {
        Error::new(ExitCode::USAGE, format!("'{}' is not a path", path.display())).because(error)
    })
}

/// This process, as one who acts.
fn actor(this: &Identity) -> Actor {
    Actor { user: machine::user(), host: machine::host(), pid: this.pid }
}
