//! A script: commands on standard input, one a line, each carried out before the next is read, up to the first that
//! fails.

use std::io::BufRead as _;

use super::line::{self, Unreadable};
use super::{Outcome, carry_out, quoting, tell_usage};
use crate::command::session::Session;
use crate::error::{Error, ExitCode};
use crate::report;

/// Runs the script.
pub(super) async fn run(mut session: Session) -> ExitCode {
    if let Err(error) = session.read_first_config().and_then(|()| session.listen(false)) {
        return session.tell(&error);
    }
    for number in 1_u64.. {
        let text = tokio::select! {
            biased;
            signal = session.stopped() => return ExitCode(128 + signal),
            text = next_line() => match text {
                Ok(Some(text)) => text,
                Ok(None) => break,
                Err(error) => return stopped_at(number, "", session.tell(&error)),
            },
        };
        match carry_out_line(&mut session, &text).await {
            Outcome::Left => break,
            Outcome::Ended(ExitCode::DONE) => {}
            Outcome::Ended(code) => return stopped_at(number, &text, code),
        }
        if let Some(signal) = session.asked_to_stop() {
            return stopped_at(number, &text, ExitCode(128 + signal));
        }
    }
    ExitCode::DONE
}

async fn carry_out_line(session: &mut Session, text: &str) -> Outcome {
    match line::read(text, line::language()) {
        Ok(said) => carry_out(session, said).await,
        Err(Unreadable::Quoting) => Outcome::Ended(session.tell(&quoting())),
        Err(Unreadable::Usage(error)) => Outcome::Ended(tell_usage(&error)),
    }
}

/// Reads a line as soon as it is there, without holding up anything else; `None` at the end.
async fn next_line() -> Result<Option<String>, Error> {
    let failed = |error| Error::new(ExitCode::USAGE, "the script cannot be read").because(error);
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|read| (read > 0).then_some(line))
    });
    read.await.map_err(std::io::Error::other).flatten().map_err(failed)
}

/// Names the line that ended the script.
fn stopped_at(number: u64, text: &str, code: ExitCode) -> ExitCode {
    let text = line::without_secrets(text);
    let text = if text.is_empty() { text } else { format!(": {text}") };
    report::err(&format!("stopped at line {number}{text}"));
    code
}
