//! A program on a terminal, as if somebody sat before it: what it shows is read, and what is typed reaches it.
//!
//! The terminal is a pseudo-terminal (pty(7)), and the program leads the session on it: control keys do what they do to
//! a user, and whoever reads from the background is stopped.

use std::{
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock},
    time::Duration,
};

use regex::bytes::Regex;
use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::Errno,
    process::{Signal, ioctl_tiocsctty, setsid},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcgetpgrp, tcsetwinsize},
};

use super::{
    Stage,
    error::{Doing, Result, StageError, cannot_run},
    scratch::{Scratch, tell},
    server::{send, wait_until},
};

/// How long a program may take to show something, or to end: far beyond the slowest.
const LIMIT: Duration = Duration::from_secs(120);

/// Rows and columns: wide enough that hardly a line is broken.
const SIZE: Winsize = Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };

/// What steers a terminal and is not text: CSI sequences, OSC sequences, other escapes, and bells.
static STEERING: LazyLock<std::result::Result<Regex, regex::Error>> = LazyLock::new(|| {
    Regex::new(r"(?-u)\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-Z\\^-~]|\x07")
});

/// A key that is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The end of a line.
    Enter,
    /// ^C: SIGINT to the foreground.
    Interrupt,
    /// ^D at the beginning of a line: the end of what is typed.
    EndOfInput,
    /// ^Z: SIGTSTP to the foreground.
    Suspend,
    /// ^\: SIGQUIT to the foreground.
    Quit,
    /// Completion.
    Tab,
    /// Arrow up: the line before.
    Up,
}

impl Key {
    fn bytes(self) -> &'static [u8] {
        match self {
            Key::Enter => b"\r",
            Key::Interrupt => b"\x03",
            Key::EndOfInput => b"\x04",
            Key::Suspend => b"\x1a",
            Key::Quit => b"\x1c",
            Key::Tab => b"\t",
            Key::Up => b"\x1b[A",
        }
    }
}

/// A terminal and the program on it. Dropping it kills the program.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    /// Our side: what is written here was typed, what is read here is shown.
    ours: OwnedFd,
    shown: Vec<u8>,
    /// Up to where what was shown has been waited for, without what steers.
    seen: usize,
    ended: bool,
    scratch: Arc<Scratch>,
}

impl Terminal {
    /// Starts the command with a new terminal as its standard input, output and error.
    pub fn start(stage: &Stage, mut command: Command) -> Result<Terminal> {
        let refused = |error: Errno| error.into();
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .and_then(|ours| grantpt(&ours).map(|()| ours))
            .and_then(|ours| unlockpt(&ours).map(|()| ours))
            .and_then(|ours| tcsetwinsize(&ours, SIZE).map(|()| ours))
            .and_then(|ours| fcntl_setfl(&ours, OFlags::NONBLOCK).map(|()| ours))
            .map_err(refused)
            .doing(|| "open a terminal".into())?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(&ours, flags).map_err(refused).doing(|| "open a terminal".into())?;
        let again = || theirs.try_clone().map(Stdio::from).doing(|| "open a terminal twice".into());
        command.stdin(again()?).stdout(again()?).stderr(again()?).env("TERM", "xterm");
        lead_session(&mut command);
        let child = command.spawn().map_err(|source| cannot_run(&command, source))?;
        // With `command` and `theirs` go our handles of their side: the program's end closes the terminal.
        drop(command);
        let scratch = Arc::clone(stage.scratch());
        scratch.guard(child.id(), Signal::KILL)?;
        Ok(Terminal { child, ours, shown: Vec::new(), seen: 0, ended: false, scratch })
    }

    /// The process id, also that of the session.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process group in the foreground, which control keys reach.
    pub fn foreground(&self) -> Result<u32> {
        let group = tcgetpgrp(&self.ours).map_err(Into::into).doing(|| "look at a terminal".into())?;
        Ok(group.as_raw_pid().unsigned_abs())
    }

    /// All that was shown so far, without colours and what else steers a terminal; lines end in `\r\n`.
    pub fn shown(&mut self) -> Result<String> {
        self.read_on()?;
        Ok(String::from_utf8_lossy(&self.text()?).into_owned())
    }

    /// Waits until this text is shown, after what was waited for before; an error if the terminal is left without it.
    pub fn wait_until_it_shows(&mut self, text: &str) -> Result<()> {
        let mut found = Ok(None);
        let mut open = Ok(true);
        wait_until(&format!("the terminal to show {text:?}"), LIMIT, || {
            open = self.read_on();
            found = self.find(text);
            !matches!((&found, &open), (Ok(None), Ok(true)))
        })
        .map_err(|error| self.with_shown(error))?;
        match (found?, open?) {
            (Some(end), _) => {
                self.seen = end;
                Ok(())
            }
            (None, _) => Err(StageError::Answer {
                what: format!("a terminal that should have shown {text:?}"),
                answer: self.shown()?,
            }),
        }
    }

    /// Types text.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.type_bytes(text.as_bytes())
    }

    /// Types a line, and Enter.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        self.send(line)?;
        self.press(Key::Enter)
    }

    /// Presses a key.
    pub fn press(&mut self, key: Key) -> Result<()> {
        self.type_bytes(key.bytes())
    }

    /// Sends the program a signal that comes from elsewhere than the keyboard.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(self.child.id(), signal)
    }

    /// Waits for the end of the program, and until nobody has the terminal open any more. Gives its exit code, or 128
    /// and the signal's number, and all that was shown.
    pub fn wait(mut self) -> Result<(i32, String)> {
        let mut status = Ok(None);
        let mut open = Ok(true);
        wait_until("a program to leave its terminal", LIMIT, || {
            // In this order: what it says as its last is read after its end.
            status = self.child.try_wait();
            open = self.read_on();
            !matches!((&status, &open), (Ok(None), Ok(_)) | (Ok(_), Ok(true)))
        })
        .map_err(|error| self.with_shown(error))?;
        open?;
        let status = status.doing(|| "wait for a program on a terminal".into())?;
        self.ended = true;
        self.scratch.forget(self.child.id())?;
        // What a shell would say.
        let code = status.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        Ok((code.unwrap_or_default(), self.shown()?))
    }

    /// Reads what there is to read; whether there can be more.
    fn read_on(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.ours, &mut buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => self.shown.extend(buffer.iter().take(read)),
                Err(Errno::AGAIN) => return Ok(true),
                // Nobody has the other side open: pty(7).
                Err(Errno::IO) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()).doing(|| "read from a terminal".into()),
            }
        }
    }

    fn type_bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.ours, bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                // Its input is full; it may wait until what it shows is read.
                Err(Errno::AGAIN) => {
                    self.read_on()?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()).doing(|| "type on a terminal".into()),
            }
        }
        Ok(())
    }

    /// What was shown, without what steers, and without an escape sequence that is not all here.
    fn text(&self) -> Result<Vec<u8>> {
        let steering = STEERING.as_ref().map_err(|error| StageError::Unfit(error.to_string()))?;
        let text = steering.replace_all(&self.shown, &b""[..]);
        let whole = text.iter().position(|byte| *byte == 0x1b).unwrap_or(text.len());
        Ok(text.get(..whole).unwrap_or_default().to_vec())
    }

    /// Where the next occurrence of `text` ends.
    fn find(&self, text: &str) -> Result<Option<usize>> {
        let shown = self.text()?;
        let unseen = shown.get(self.seen..).unwrap_or_default();
        let at = unseen.windows(text.len().max(1)).position(|window| window == text.as_bytes());
        Ok(at.map(|at| self.seen + at + text.len()))
    }

    fn with_shown(&self, error: StageError) -> StageError {
        match error {
            StageError::Late { what, limit, .. } => {
                let shown = String::from_utf8_lossy(&self.shown).escape_debug().to_string();
                StageError::Late { what, limit, log: format!("; shown so far: {shown}") }
            }
            other => other,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let killed = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = killed {
            tell(&format!("cannot kill a program on a terminal: {error}"));
        }
    }
}

/// The command leads a session of its own, whose terminal is its standard input.
fn lead_session(command: &mut Command) {
    let in_child = || {
        setsid()?;
        ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes two system calls, setsid(2) and ioctl(2), without
    // allocating or taking locks.
    #[expect(unsafe_code, reason = "std offers no safe way to lead a session")]
    unsafe {
        command.pre_exec(in_child);
    }
}
