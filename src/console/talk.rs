//! The console: a person types, and sees what comes of it. No error ends it.

use super::candidates::Candidates;
use super::editor::{Heard, Lines};
use super::line::{self, Said, Unreadable};
use super::{Outcome, carry_out, quoting, tell_usage};
use crate::cli::Group;
use crate::command::session::Session;
use crate::error::{Error, ExitCode};
use crate::report;
use crate::world::machine;
use crate::world::process::Program;

/// Where what was typed is remembered, in the home folder.
const HISTORY: &str = ".pg_staging_history";

/// Reads and carries out lines until somebody leaves.
pub(super) async fn run(mut session: Session) -> ExitCode {
    if let Err(error) = session.listen(true) {
        return session.tell(&error);
    }
    // Another file can be named here.
    if let Err(error) = session.read_first_config() {
        session.tell(&error);
    }
    let lines = match Lines::start(machine::home().map(|home| home.join(HISTORY))) {
        Ok(lines) => lines,
        Err(error) => return session.tell(&error),
    };
    Console { candidates: Candidates::new(line::in_console()), session, lines }.talk().await
}

struct Console {
    session: Session,
    candidates: Candidates,
    lines: Lines,
}

impl Console {
    async fn talk(mut self) -> ExitCode {
        self.lines.prompt();
        loop {
            let heard = tokio::select! {
                biased;
                signal = self.session.ended() => {
                    self.lines.leave();
                    return ExitCode(128 + signal);
                }
                heard = self.lines.next() => heard,
            };
            match heard {
                Heard::Complete { text, at, reply } => {
                    let found = self.candidates.find(&self.session, &text, at).await;
                    // The reader is gone only when the program is about to end.
                    let _gone = reply.send(found);
                }
                Heard::Warning(warning) => self.session.style().warn(&warning),
                Heard::Interrupted => self.lines.prompt(),
                Heard::Line(text) => match self.carry_out_lines(&text).await {
                    Some(code) => return code,
                    None => self.lines.prompt(),
                },
                Heard::End => return ExitCode::DONE,
                Heard::Failed(cause) => {
                    let error = Error::new(ExitCode::FAILED, "cannot read the terminal").because(cause);
                    return self.session.tell(&error);
                }
            }
        }
    }

    /// Carries out what was typed, which may be several lines that were pasted; a code when that ends the console.
    async fn carry_out_lines(&mut self, text: &str) -> Option<ExitCode> {
        for text in text.lines() {
            self.session.forget_stop();
            let outcome = self.carry_out(text).await;
            self.candidates.forget();
            if let Some(signal) = self.session.asked_to_end() {
                return Some(ExitCode(128 + signal));
            }
            if outcome == Outcome::Left {
                return Some(ExitCode::DONE);
            }
            if self.session.asked_to_stop().is_some() {
                break;
            }
        }
        self.session.forget_stop();
        None
    }

    async fn carry_out(&mut self, text: &str) -> Outcome {
        if let Some(command) = text.trim_start().strip_prefix('!') {
            return Outcome::Ended(
                self.shell(command).await.unwrap_or_else(|error| self.session.tell(&error)),
            );
        }
        Outcome::Ended(match line::read(text, line::in_console()) {
            Ok(Said::Program(typed)) if typed.group == Some(Group::Experimental) => {
                self.session.tell(&from_the_shell(&typed.name, text))
            }
            Ok(said) => return carry_out(&mut self.session, said).await,
            Err(Unreadable::Quoting) => self.session.tell(&quoting()),
            Err(Unreadable::Usage(error)) => tell_usage(&error),
        })
    }

    /// Leaves the terminal to a shell that runs the command, and tells how that ended when it did not end well.
    async fn shell(&self, command: &str) -> Result<ExitCode, Error> {
        let shell = machine::variable("SHELL").unwrap_or_else(|| "/bin/sh".into());
        let program = Program::new(shell).arg("-c").arg(command);
        let status = self.session.hand_over(&program).await?;
        if !status.success() {
            report::err(&status.to_string());
        }
        Ok(ExitCode::DONE)
    }
}

/// What is refused here, and how to run it.
fn from_the_shell(name: &str, text: &str) -> Error {
    let typed = text.trim().strip_prefix("pg_staging ").unwrap_or(text.trim());
    Error::new(ExitCode::USAGE, format!("{name} is experimental, and no command of the console"))
        .hint(format!("run it from the shell: pg_staging {typed}, or here: !pg_staging {typed}"))
}
