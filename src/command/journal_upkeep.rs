//! `journal`: the upkeep of the journal itself.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use journal::exchange::{self, ExchangeError};
use journal::store::Head;
use journal::store::memory::MemoryStore;

use super::prune::Prune;
use super::{App, Typed};
use crate::error::{Error, ExitCode};
use crate::report;
use crate::step::Secrets;
use crate::world::disk;

/// `journal`.
#[derive(Debug, Args)]
pub struct Journal {
    #[command(subcommand)]
    task: Task,
}

/// What there is to do for a journal.
#[derive(Debug, Subcommand)]
enum Task {
    /// See that every event is there and is what was written, and print the journal's head
    ///
    /// Ends with code 4 when anything is wrong. The head is a short text that stands for everything that the journal
    /// has: keep it elsewhere, and --against it shows later that nothing before it was changed or taken away.
    Verify(Verify),
    /// Make the database anew from the run files, which are the authority
    ///
    /// The old database is set aside, not deleted. What run files lost is put back from it first; what neither has is
    /// noted as lost.
    Rebuild,
    /// Write everything as JSON lines, complete enough for import
    Export(Export),
    /// Take in what export wrote; what is there already is passed over
    ///
    /// A run whose chain of events is not whole, or that is another one in this journal, is refused.
    Import(Import),
    /// Take finished runs out for good, and give their space back
    ///
    /// A run whose copy is still there stays, and so does one of whose copy that cannot be told. What goes leaves a
    /// tombstone, so that heads that verify printed before still hold. Asks first, unless --yes.
    Prune(Prune),
    /// Print where the journal is
    Path,
}

/// `journal verify`.
#[derive(Debug, Args)]
struct Verify {
    /// See also that the journal goes on from this head, which verify printed before
    #[arg(long, value_name = "HEAD")]
    against: Option<String>,
}

/// `journal export`.
#[derive(Debug, Args)]
struct Export {
    /// Into this file, which appears when it is whole [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `journal import`.
#[derive(Debug, Args)]
struct Import {
    /// What export wrote [default: standard input]
    filename: Option<PathBuf>,
}

impl Journal {
    /// Does what was asked for.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        match self.task {
            Task::Verify(given) => given.run(app).await,
            Task::Rebuild => rebuild(app).await,
            Task::Export(given) => given.run(app).await,
            Task::Import(given) => given.run(app).await,
            Task::Prune(given) => given.run(app).await,
            Task::Path => {
                report::journal_path(&app.journal_folder()?, app.style);
                Ok(ExitCode::DONE)
            }
        }
    }
}

impl Verify {
    async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let against = self.against.as_deref().map(str::parse::<Head>).transpose();
        let against = against.map_err(|error| {
            Error::new(ExitCode::USAGE, error.to_string()).hint("type one that journal verify printed")
        })?;
        let store = app.kept_store()?;
        let found = store.verify(against).await?;
        report::verified(&found, &store.place(), app.style);
        app.tell_notices(&*store);
        if found.damage.is_empty() {
            return Ok(ExitCode::DONE);
        }
        if app.global.json {
            // What was found is the one thing that scripts read.
            return Ok(ExitCode::STUCK);
        }
        let things = match found.damage.len() {
            1 => "one thing is".to_owned(),
            many => format!("{many} things are"),
        };
        Err(Error::new(ExitCode::STUCK, format!("the journal is damaged: {things} not as it was written"))
            .hint(match app.journal_folder() {
                Ok(_) => "keep a copy of its folder, then type: pg_staging journal rebuild",
                Err(_) => {
                    "keep a dump of its schema staging_journal, and compare it with an export or a backup"
                }
            }))
    }
}

async fn rebuild(app: &App) -> Result<ExitCode, Error> {
    let store = app.file_store()?;
    if app.global.dry_run {
        let place = store.path().join("sled");
        let message = format!(
            "would set {} aside, and make it anew from the run files in {}",
            place.display(),
            store.path().display()
        );
        report::done(&message, app.style);
        return Ok(ExitCode::DONE);
    }
    let rebuilt = store.rebuild().await?;
    app.tell_notices(&store);
    let message = format!(
        "run {}: the database was made anew from {} events of {} runs; next: pg_staging journal verify",
        rebuilt.run.short(),
        rebuilt.events,
        rebuilt.runs
    );
    report::done(&message, app.style);
    Ok(ExitCode::DONE)
}

impl Export {
    async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let store = app.store(None)?;
        match &self.output {
            None => {
                let mut out = BufWriter::new(report::raw());
                exchange::export(&*store, &mut out).await?;
            }
            Some(path) => {
                let mut file = disk::Beside::open(path)?;
                let amount = {
                    let mut out = BufWriter::new(&mut file);
                    let amount = exchange::export(&*store, &mut out).await?;
                    out.flush().map_err(|error| disk::refused("write", path, &error))?;
                    amount
                };
                file.put_in_place()?;
                let message = format!("{} holds {}", path.display(), amounts(amount));
                report::done(&message, app.style);
            }
        }
        app.tell_notices(&*store);
        Ok(ExitCode::DONE)
    }
}

impl Import {
    async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let named = self.filename.as_deref();
        if named.is_none() && app.script {
            let message = "journal import cannot read standard input, which holds the script";
            return Err(
                Error::new(ExitCode::USAGE, message).hint("name the file that journal export --output wrote")
            );
        }
        let mut from: Box<dyn BufRead + Send> = match named {
            Some(path) => Box::new(BufReader::new(disk::open(path)?)),
            None => Box::new(BufReader::new(std::io::stdin())),
        };
        if app.global.dry_run {
            let nowhere = std::sync::Arc::new(MemoryStore::default());
            let actor = app.engine(nowhere.clone(), Secrets::default())?.actor;
            let taken = exchange::import(&*nowhere, &actor, &mut *from).await?;
            report::done(&format!("would take in {}", amounts(taken.read)), app.style);
            return Ok(ExitCode::DONE);
        }
        let store = app.store(None)?;
        let actor = app.engine(store.clone(), Secrets::default())?.actor;
        let shown = named.map(Path::to_string_lossy);
        let command = Typed::new("journal", &[Some("import"), shown.as_deref()]);
        let taken = app
            .ask(None, command, async { Ok(exchange::import(&*store, &actor, &mut *from).await?) })
            .await?;
        app.tell_notices(&*store);
        let message = format!("read {}; {} of the events are new here", amounts(taken.read), taken.new);
        report::done(&message, app.style);
        Ok(ExitCode::DONE)
    }
}

fn amounts(amount: exchange::Amount) -> String {
    format!("{} events of {} runs, and {} attachments", amount.events, amount.runs, amount.attachments)
}

impl From<ExchangeError> for Error {
    fn from(error: ExchangeError) -> Error {
        match error {
            ExchangeError::Store(error) => error.into(),
            ExchangeError::Io(cause) => {
                Error::new(ExitCode::FAILED, "cannot read or write the export").because(cause)
            }
            line @ ExchangeError::Line { .. } => Error::new(ExitCode::FAILED, line.to_string())
                .hint("what came before it is taken in; make a new one with pg_staging journal export"),
        }
    }
}
