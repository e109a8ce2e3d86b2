//! The one error on top, and the exit code that each leads to.

use journal::codec::CodecError;
use journal::engine::{EngineError, RecordError};
use journal::event::Failure;
use journal::run::{Run, Status};
use journal::store::StoreError;

use crate::config::ConfigError;
use crate::database::{DateError, NameError};
use crate::world::Trouble;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(pub u8);

impl ExitCode {
    /// Done.
    pub const DONE: ExitCode = ExitCode(0);
    /// Failed; everything that the command had done was undone, or it had changed nothing.
    pub const FAILED: ExitCode = ExitCode(1);
    /// Usage or configuration error: nothing was started.
    pub const USAGE: ExitCode = ExitCode(2);
    /// Stopped part-way: the run can be continued or rolled back.
    pub const STOPPED: ExitCode = ExitCode(3);
    /// An operator must look.
    pub const STUCK: ExitCode = ExitCode(4);
    /// Another run holds the target.
    pub const BUSY: ExitCode = ExitCode(5);
    /// What was asked for does not exist.
    pub const MISSING: ExitCode = ExitCode(6);

    /// The worse of two: signals before what an operator must look at, then what is left half done, what failed, what was
    /// never begun, what is missing, and what is busy.
    #[must_use]
    pub fn worse(self, other: ExitCode) -> ExitCode {
        let rank = |code: ExitCode| match code {
            ExitCode::DONE => 0,
            ExitCode::BUSY => 1,
            ExitCode::MISSING => 2,
            ExitCode::USAGE => 3,
            ExitCode::FAILED => 4,
            ExitCode::STOPPED => 5,
            ExitCode::STUCK => 6,
            _ => 7,
        };
        if rank(other) > rank(self) { other } else { self }
    }

    /// What a run that ended as `run` did leads to.
    pub fn of(run: &Run) -> ExitCode {
        match run.status {
            Status::Succeeded | Status::RolledBack | Status::Abandoned => ExitCode::DONE,
            Status::Failed => match run.error.as_ref().map(|error| error.code) {
                Some(6) => ExitCode::MISSING,
                _ => ExitCode::FAILED,
            },
            Status::Stuck => ExitCode::STUCK,
            Status::Stopped | Status::Running | Status::RollingBack => match run.signal {
                Some(signal) => ExitCode(128 + signal),
                None => ExitCode::STOPPED,
            },
        }
    }
}

/// Why a command ended before, or without, a run of its own that tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The exit code.
    pub code: ExitCode,
    /// What could not be done.
    pub message: String,
    /// Why.
    pub cause: Option<String>,
    /// What to type next.
    pub hint: Option<String>,
}

impl Error {
    /// An error with this exit code.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), cause: None, hint: None }
    }

    /// Adds why.
    #[must_use]
    pub fn because(mut self, cause: impl std::fmt::Display) -> Error {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds what to type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { code, message, cause, hint, .. } = failure;
        Error { code: ExitCode(code), message, cause, hint }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let Error { code, message, cause, hint } = error.clone();
        Failure { code: code.0, cause, hint, ..Failure::new(message) }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(out, ": {cause}"))
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        Failure::from(trouble).into()
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        let code =
            if matches!(error, ConfigError::NoSection { .. }) { ExitCode::MISSING } else { ExitCode::USAGE };
        Error::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<DateError> for Error {
    fn from(error: DateError) -> Self {
        let missing = matches!(error, DateError::NoneAvailable { .. } | DateError::NoneActive);
        let code = if missing { ExitCode::MISSING } else { ExitCode::USAGE };
        Error::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Error::new(ExitCode::USAGE, error.to_string()).hint(error.hint())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let (code, hint) = match &error {
            StoreError::Busy { .. } => (ExitCode::BUSY, Some("wait for it, or add --wait")),
            StoreError::NoSuchRun(_) => (ExitCode::MISSING, Some("history lists the runs there are")),
            StoreError::NoSuchAttachment(_) | StoreError::Fenced(_) => (ExitCode::FAILED, None),
            StoreError::Contradicted { .. } => {
                (ExitCode::FAILED, Some("one of the two journals was changed: see which with journal verify"))
            }
            StoreError::Damaged { .. } | StoreError::Database { .. } => {
                (ExitCode::STUCK, Some("keep a copy of the journal's folder before anything else"))
            }
            StoreError::Server { hint, .. } => {
                let hint = hint.as_deref().unwrap_or("see that the server that keeps the journal is there");
                (ExitCode::FAILED, Some(hint))
            }
            StoreError::Io { .. } => (
                ExitCode::USAGE,
                Some(
                    "see that you may write there and that there is room, or name another folder with --journal or journal",
                ),
            ),
        };
        Error { code, message: error.to_string(), cause, hint: hint.map(str::to_owned) }
    }
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Newer(_) => Error::new(ExitCode::USAGE, error.to_string())
                .hint("use the version of pg_staging that wrote it, or a newer one"),
            CodecError::TooLarge { kind: "run_started", .. } => {
                Error::new(ExitCode::USAGE, "that is more than one run can hold")
                    .because(error)
                    .hint("give it less to do: fewer SQL files, or shorter names and paths")
            }
            _ => Error::new(ExitCode::STUCK, error.to_string()),
        }
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Codec(error) => error.into(),
            EngineError::Fold(error) => Error::new(ExitCode::STUCK, error.to_string()),
            EngineError::Impossible { id, status, .. } => {
                let hint = format!("what is left to do with it: pg_staging continue {}", id.short());
                let hint = (!status.is_finished()).then_some(hint);
                Error { hint, ..Error::new(ExitCode::FAILED, error.to_string()) }
            }
            EngineError::UnknownKind { ref written_by, .. } => {
                let hint = format!("continue it with version {written_by} of pg_staging");
                Error::new(ExitCode::USAGE, error.to_string()).hint(hint)
            }
            EngineError::Step(failure) => failure.into(),
            EngineError::Lost { id, ref source } => {
                let mut cause = source.to_string();
                let mut inner = std::error::Error::source(source);
                while let Some(error) = inner {
                    cause = format!("{cause}: {error}");
                    inner = error.source();
                }
                let short = id.short();
                let hint = match source {
                    RecordError::Store(StoreError::Fenced(_)) => {
                        format!(
                            "who goes on with it: pg_staging inspect {short}; if nobody does: pg_staging continue {short}"
                        )
                    }
                    _ => format!("mend that, then: pg_staging continue {short}"),
                };
                Error::new(ExitCode::STOPPED, error.to_string()).because(cause).hint(hint)
            }
        }
    }
}
