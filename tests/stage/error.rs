//! What can go wrong while a stage is set up or used; each names the thing, so that a failing test explains itself.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    time::Duration,
};

/// What the functions of the stage return.
pub type Result<T> = std::result::Result<T, StageError>;

/// Why the stage could not do what it was asked.
#[derive(thiserror::Error)]
pub enum StageError {
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried, with the path it was tried on.
        doing: String,
        /// The refusal.
        source: io::Error,
    },
    /// A program that the stage needs is not installed.
    #[error("{program} is not installed; run `make setup`")]
    Missing {
        /// Its name or path.
        program: String,
    },
    /// A program ended with a failure.
    #[error("{program} ended with {status}:\n{output}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said on stdout and stderr.
        output: String,
    },
    /// A server ended while it should have been starting.
    #[error("{server} ended with {status} while it was starting:\n{log}")]
    Ended {
        /// The kind of server.
        server: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: String,
    },
    /// What was waited for did not happen in time.
    #[error("waited {} s for {what}{log}", limit.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// The limit.
        limit: Duration,
        /// What a server's log says, or nothing.
        log: String,
    },
    /// A server of ours had its port taken by somebody else between the choice of the port and the start.
    #[error("{server} found its port {port} taken")]
    PortTaken {
        /// The kind of server.
        server: &'static str,
        /// The port.
        port: u16,
    },
    /// No port in the stage's range is free.
    #[error("no free loopback port between {first} and {last}")]
    NoPort {
        /// Start of the range.
        first: u16,
        /// End of the range, not part of it.
        last: u16,
    },
    /// The shared stage did not start; told to everyone who asks for it.
    #[error("the shared stage did not start: {reason}")]
    Shared {
        /// The first error.
        reason: String,
    },
    /// A program's answer is not what its documentation promises.
    #[error("{what} is not understood: {answer}")]
    Answer {
        /// What was asked.
        what: String,
        /// What came.
        answer: String,
    },
    /// The machine lacks something that no package brings.
    #[error("{0}")]
    Unfit(String),
}

/// The message itself: `unwrap` in a test shows it with its line breaks.
impl std::fmt::Debug for StageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Says what was tried when the operating system refuses.
pub trait Doing<T> {
    /// Turns the refusal into `cannot <doing>: …`.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| StageError::Io { doing: what(), source })
    }
}

/// Runs a program to its end and gives its stdout; anything but success is [`StageError::Failed`].
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|source| cannot_run(command, source))?;
    checked(command, &output)
}

/// The error for a program that could not be started.
pub fn cannot_run(command: &Command, source: io::Error) -> StageError {
    let program = command.get_program().to_string_lossy().into_owned();
    match source.kind() {
        io::ErrorKind::NotFound => StageError::Missing { program },
        _ => StageError::Io { doing: format!("run {program}"), source },
    }
}

/// The stdout of a program that succeeded.
pub fn checked(command: &Command, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    Err(StageError::Failed {
        program: std::iter::once(command.get_program().to_string_lossy())
            .chain(arguments)
            .collect::<Vec<_>>()
            .join(" "),
        status: output.status,
        output: stdout + &String::from_utf8_lossy(&output.stderr),
    })
}

/// The first of these paths that exists, for programs that distributions put outside `$PATH`.
pub fn find_program(candidates: &[&str]) -> Result<PathBuf> {
    let found = candidates.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_path_buf).ok_or_else(|| StageError::Missing {
        program: candidates.first().copied().unwrap_or_default().to_owned(),
    })
}
