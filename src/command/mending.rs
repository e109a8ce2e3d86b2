//! `resolve` and `abandon`: an operator's word on a run that cannot help itself.

use clap::{Args, ValueEnum};
use journal::event::Verdict;

use super::{App, runs};
use crate::error::{Error, ExitCode};
use crate::report;
use crate::step::Secrets;

/// `resolve`.
#[derive(Debug, Args)]
pub struct Resolve {
    /// A part of the run's id
    #[arg(id = "open_run", value_name = "RUN")]
    run: String,
    /// The step's name, as inspect shows it
    step: String,
    /// What became of it
    #[arg(long = "as", value_enum)]
    verdict: Word,
    /// How you know
    #[arg(long)]
    reason: String,
}

/// `abandon`.
#[derive(Debug, Args)]
pub struct Abandon {
    /// A part of the run's id
    #[arg(id = "open_run", value_name = "RUN")]
    run: String,
    /// Why it will be neither continued nor rolled back
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Word {
    /// It took effect
    Applied,
    /// It did not take effect
    Absent,
    /// It took effect, and was taken back by hand
    Undone,
}

impl From<Word> for Verdict {
    fn from(word: Word) -> Self {
        match word {
            Word::Applied => Verdict::Applied,
            Word::Absent => Verdict::Absent,
            Word::Undone => Verdict::Undone,
        }
    }
}

impl Resolve {
    /// Records the operator's word.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let store = app.store(None)?;
        let id = runs::find(&*store, &self.run).await?;
        let run = runs::read(&*store, id).await?;
        let short = id.short();
        if app.global.dry_run {
            if run.step(&self.step).is_none() {
                return Err(Error::new(
                    ExitCode::MISSING,
                    format!("run {short} has no step '{}'", self.step),
                )
                .hint(format!("pg_staging inspect {short} shows its steps")));
            }
            report::done(&format!("run {short}: {} would be resolved", self.step), app.style);
            return Ok(ExitCode::DONE);
        }
        let engine = app.engine(store, Secrets::default())?;
        engine.resolve(id, &self.step, self.verdict.into(), &self.reason).await?;
        let next = format!("pg_staging continue {short}, or pg_staging rollback {short}");
        report::done(&format!("run {short}: {} is resolved; next: {next}", self.step), app.style);
        Ok(ExitCode::DONE)
    }
}

impl Abandon {
    /// Closes the run.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let store = app.store(None)?;
        let id = runs::find(&*store, &self.run).await?;
        let run = runs::read(&*store, id).await?;
        let short = id.short();
        if app.global.dry_run {
            report::done(&format!("run {short}: would be abandoned, and what it left would stay"), app.style);
            return Ok(ExitCode::DONE);
        }
        runs::agree(app, &run, "Give up", "what it left stays as it is").await?;
        app.engine(store, Secrets::default())?.abandon(id, &self.reason).await?;
        report::done(&format!("run {short}: abandoned, and what it left stays as it is"), app.style);
        Ok(ExitCode::DONE)
    }
}
