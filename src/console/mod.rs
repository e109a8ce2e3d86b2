//! Many commands in one process: typed on a terminal, or read from standard input as a script.
//!
//! - `line.rs`: what a line says.
//! - `script.rs`: lines from standard input, up to the first that fails.
//! - `talk.rs`: lines from a person.
//! - `editor.rs`: the line editor, in a thread of its own, and the history of what was typed.
//! - `completion.rs`: what can stand where the cursor is, by the definitions of the commands.
//! - `candidates.rs`: which sections, dates, runs and files there are to complete with.
//!
//! The commands run on the main thread, where programs may be started; the editor's thread only reads the terminal.

mod candidates;
mod completion;
mod editor;
mod line;
mod script;
mod talk;

use self::line::Own;
use crate::cli::Global;
use crate::command::session::Session;
use crate::error::{Error, ExitCode};
use crate::report;
use crate::world::terminal;

pub use self::completion::{Kind, Wanted, wanted};
pub use self::line::language;

/// Runs the commands that come on standard input, with these options for all of them.
pub async fn run(global: Global) -> ExitCode {
    if terminal::is_attended() {
        talk::run(Session::new(global)).await
    } else {
        script::run(Session::of_script(global)).await
    }
}

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// With this code.
    Ended(ExitCode),
    /// By leaving the session.
    Left,
}

/// Carries out what a line says, and tells what has to be told.
async fn carry_out(session: &mut Session, said: line::Said) -> Outcome {
    let outcome = match said {
        line::Said::Nothing => Ok(()),
        line::Said::Program(typed) => {
            return Outcome::Ended(session.run(typed.global, typed.command).await);
        }
        line::Said::Session(own) => match own {
            Own::Set { section, option, value } => session.set(&section, &option, &value),
            Own::Config { filename } => session.read(&filename),
            Own::Verbose => {
                let how = if session.toggle_verbose() { "on" } else { "off" };
                report::done(&format!("verbose is {how}"), session.style());
                Ok(())
            }
            Own::Quit => return Outcome::Left,
        },
    };
    Outcome::Ended(match outcome {
        Ok(()) => ExitCode::DONE,
        Err(error) => session.tell(&error),
    })
}

/// Prints what clap has to say about a line, and gives the exit code: help is no error.
fn tell_usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when even this cannot be printed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::USAGE } else { ExitCode::DONE }
}

/// What is wrong with the quoting of a line.
fn quoting() -> Error {
    Error::new(ExitCode::USAGE, "the line ends inside a quotation, or after a backslash")
        .hint("close the quotation mark, or put the backslash in quotation marks")
}
