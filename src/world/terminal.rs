//! The terminal we sit on: whether there is one, its modes, and an answer typed on it.

use std::io::{self, IsTerminal as _};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::Trouble;

/// Whether somebody can type on standard input.
pub fn is_attended() -> bool {
    io::stdin().is_terminal()
}

/// How a terminal treats what is typed, to be put back.
#[derive(Debug)]
pub struct Modes(Termios);

impl Modes {
    /// Those of standard input, as they are now; `None` when it is no terminal.
    pub fn now() -> Option<Modes> {
        tcgetattr(rustix::stdio::stdin()).ok().map(Modes)
    }

    /// Puts them back from under a line editor, which also has pastes marked, and begins a new line. A terminal that is
    /// gone needs none of it.
    pub fn restore(&self) {
        let stdin = rustix::stdio::stdin();
        let _gone = tcsetattr(stdin, OptionalActions::Now, &self.0);
        let _gone = rustix::io::write(stdin, b"\x1b[?2004l\r\n");
    }
}

/// Waits for a line to be typed on standard input, without holding up anything else; empty at the end of what is
/// typed. When the caller does not wait any longer, nothing is read.
pub async fn answer() -> Result<String, Trouble> {
    let failed = |error: io::Error| Trouble::new("cannot read what is typed").because(error);
    let (given_up, _waiting) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let read = tokio::task::spawn_blocking(move || read_line(&given_up)).await;
    read.map_err(io::Error::other).flatten().map_err(failed)
}

/// A line of the terminal, which gives it whole; nothing once the other end of `given_up` is closed.
fn read_line(given_up: &OwnedFd) -> io::Result<String> {
    let stdin = rustix::stdio::stdin();
    loop {
        let mut wait = [PollFd::from_borrowed_fd(stdin, PollFlags::IN), PollFd::new(given_up, PollFlags::IN)];
        match poll(&mut wait, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [typed, gone] = &wait;
        if !gone.revents().is_empty() {
            return Ok(String::new());
        }
        if !typed.revents().is_empty() {
            let mut line = [0; 4096];
            let read = rustix::io::read(stdin, &mut line)?;
            return Ok(String::from_utf8_lossy(line.get(..read).unwrap_or_default()).into_owned());
        }
    }
}
