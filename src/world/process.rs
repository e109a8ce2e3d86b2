//! The only file that starts programs.
//!
//! A program runs in a process group of its own, so that ^C on the terminal reaches us alone and all of it can be
//! ended at once. When we die, the kernel ends it (`PR_SET_PDEATHSIG`, prctl(2), which is bound to the thread that
//! started it: programs are started from the main thread). Should one survive all the same, it is recognised by pid,
//! start time and boot id.
//!
//! The exception is the program that the terminal is handed over to. It shares our process group, so that the control
//! keys reach it and a shell stops and continues us together, as system(3) would have it.

use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::ChildStdin;

use super::{Trouble, pause, within};

/// A process that a later one can recognise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Process id, and the id of its group.
    pub pid: u32,
    /// Clock ticks after boot at which it started: field 22 of `/proc/<pid>/stat` (proc(5)).
    pub start_time: u64,
    /// Which boot of the machine it belongs to.
    pub boot_id: String,
}

impl Identity {
    /// The process with this id, which is ours or our child: one that has ended and was not waited for counts.
    pub fn of(pid: u32) -> Result<Identity, Trouble> {
        let failed = |error: io::Error| Trouble::new(format!("cannot look at process {pid}")).because(error);
        let (_, start_time) = state_and_start(pid).map_err(failed)?;
        Ok(Identity { pid, start_time, boot_id: boot_id().map_err(failed)? })
    }

    /// Whether that process is still there.
    pub fn is_alive(&self) -> bool {
        let same_boot = boot_id().is_ok_and(|id| id == self.boot_id);
        let at_work = |(state, start): (char, u64)| !matches!(state, 'Z' | 'X') && start == self.start_time;
        same_boot && state_and_start(self.pid).is_ok_and(at_work)
    }

    /// Ends the process and its group when it is still there, and waits until it is gone.
    pub async fn end(&self) -> Result<bool, Trouble> {
        if !self.is_alive() {
            return Ok(false);
        }
        for signal in [Signal::TERM, Signal::KILL] {
            signal_group(self.pid, signal);
            for _ in 0..50 {
                if !self.is_alive() {
                    return Ok(true);
                }
                pause(Duration::from_millis(20)).await;
            }
        }
        Err(Trouble::new(format!("process {} of an earlier attempt does not end", self.pid))
            .hint(format!("end it by hand (kill -9 {}), then continue", self.pid)))
    }
}

/// The id of this boot of the machine.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Fields 3 and 22; the second field is the program's name in parentheses and may hold anything, so what counts comes
/// after the last `)`.
fn state_and_start(pid: u32) -> io::Result<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    let mut fields = after.split(' ');
    let state = fields.next().and_then(|field| field.chars().next());
    let start = fields.nth(18).and_then(|field| field.parse().ok());
    state.zip(start).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn signal_group(pid: u32, signal: Signal) {
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // That there is no such group any more is what is wanted.
    let _gone = group.map(|group| rustix::process::kill_process_group(group, signal));
}

/// A program to start.
#[derive(Debug, Clone, Default)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    limit: Option<Duration>,
    without_input: bool,
}

impl Program {
    /// The program at `path`, or of that name on `PATH`.
    pub fn new(path: impl Into<PathBuf>) -> Program {
        Program { path: path.into(), ..Program::default() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Program {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Program {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Program {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it in this folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Program {
        self.folder = Some(folder.into());
        self
    }

    /// Ends it when it takes longer than this.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Program {
        self.limit = Some(limit);
        self
    }

    /// Gives it nothing to read where it would be handed our standard input.
    #[must_use]
    pub fn without_input(mut self) -> Program {
        self.without_input = true;
        self
    }

    /// Its name, without folders.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// The command line, for people.
    pub fn line(&self) -> String {
        let words = [self.path.as_os_str().to_owned()].into_iter().chain(self.arguments.iter().cloned());
        let quoted = words.map(|word| {
            let word = word.to_string_lossy().into_owned();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Starts it, with nothing on its standard input.
    pub fn start(&self) -> Result<Running, Trouble> {
        self.start_on(Stdio::null())
    }

    /// Starts it, and gives what its standard input is written to.
    pub fn start_fed(&self) -> Result<(Running, Input), Trouble> {
        let mut running = self.start_on(Stdio::piped())?;
        let input = running.child.stdin.take();
        let input = input.ok_or_else(|| Trouble::new(format!("{} takes no input", self.name())))?;
        // A small pipe makes both ends wait for each other; that it cannot be larger is no harm.
        let _as_it_is = rustix::pipe::fcntl_setpipe_size(&input, PIPE);
        Ok((running, Input(input)))
    }

    fn start_on(&self, input: Stdio) -> Result<Running, Trouble> {
        let mut command = self.command();
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        end_with_us(&mut command, Signal::KILL);
        let child = self.spawn(&mut command)?;
        let pid = child.id().ok_or_else(|| Trouble::new(format!("{} ended at once", self.name())))?;
        Ok(Running { child, pid, name: self.name(), limit: self.limit, ended: false })
    }

    /// Hands our standard input, output and error over to it, and with them the terminal if we are on one, until it
    /// ends. SIGINT and SIGQUIT from the keyboard are for it, and must not end us meanwhile. `stop` ends it earlier.
    pub async fn hand_over(&self, stop: impl Future<Output = ()>) -> Result<ExitStatus, Trouble> {
        let modes = tcgetattr(io::stdin()).ok();
        let mut command = self.command();
        command.kill_on_drop(true);
        if self.without_input {
            command.stdin(Stdio::null());
        }
        // Not KILL: what reads lines puts the terminal's modes back first.
        end_with_us(&mut command, Signal::TERM);
        let mut child = self.spawn(&mut command)?;
        let failed =
            |error: io::Error| Trouble::new(format!("cannot wait for {}", self.name())).because(error);
        let ended = tokio::select! {
            status = child.wait() => Some(status.map_err(failed)?),
            () = stop => None,
        };
        let status = match ended {
            Some(status) => status,
            None => {
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
                // That it has ended meanwhile is what is wanted.
                let _gone = pid.map(|pid| rustix::process::kill_process(pid, Signal::TERM));
                child.wait().await.map_err(failed)?
            }
        };
        if let (Some(modes), Some(_)) = (modes, status.signal()) {
            put_back(&modes);
        }
        tracing::debug!("{} ended: {status}", self.name());
        Ok(status)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door to other programs")]
    fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.path);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    fn spawn(&self, command: &mut tokio::process::Command) -> Result<tokio::process::Child, Trouble> {
        tracing::debug!("running {}", self.line());
        command.spawn().map_err(|error| {
            let trouble = Trouble::new(format!("cannot run {}", self.path.display())).because(&error);
            match error.kind() {
                io::ErrorKind::NotFound => {
                    trouble.hint(format!("install it, or correct the path of {}", self.name()))
                }
                _ => trouble,
            }
        })
    }

    /// Runs it to its end; what it says is kept up to [`KEPT`] bytes each from standard output and error.
    pub async fn run(&self) -> Result<Ended, Trouble> {
        self.start()?.finish(|_| true).await
    }

    /// The same, with this on its standard input.
    pub async fn run_with(&self, input: &[u8]) -> Result<Ended, Trouble> {
        let (running, mut pipe) = self.start_fed()?;
        let feed = async move {
            // It need not read all of it.
            pipe.write(input)
                .await
                .map(|_| ())
                .map_err(|error| Trouble::new(format!("cannot write to {}", self.name())).because(error))
        };
        let ((), ended) = tokio::try_join!(feed, running.finish(|_| true))?;
        Ok(ended)
    }
}

/// Gives the terminal the modes it had before a program that was killed changed them; only where we are in its
/// foreground, since another's terminal is not ours to change.
fn put_back(modes: &Termios) {
    let ours = tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp());
    if ours {
        // A terminal that is gone has no modes.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Drain, modes);
    }
}

/// The kernel sends that signal to the program when the thread that started it ends, however that comes.
fn end_with_us(command: &mut tokio::process::Command, signal: Signal) {
    let parent = rustix::process::getpid();
    let in_child = move || {
        rustix::process::set_parent_process_death_signal(Some(signal))?;
        // We may have died before the call above: then our parent is not our starter any more.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes two system calls, prctl(2) and getppid(2), without
    // allocating or taking locks.
    #[expect(unsafe_code, reason = "std offers no safe way to set a death signal")]
    unsafe {
        command.pre_exec(in_child);
    }
}

/// What a pipe to a program holds, in bytes: as much as anybody may ask for by default (`fs.pipe-max-size`).
const PIPE: usize = 1 << 20;

/// How much of what a program says is kept, in bytes: its last.
pub const KEPT: usize = 4 << 20;

/// What a program reads from its standard input. Dropping it is the end of that.
#[derive(Debug)]
pub struct Input(ChildStdin);

impl Input {
    /// Writes all of this. Gives whether the program still reads.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        match self.0.write_all(bytes).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A program at work. Dropping it ends it and its group.
#[derive(Debug)]
pub struct Running {
    child: tokio::process::Child,
    pid: u32,
    name: String,
    limit: Option<Duration>,
    ended: bool,
}

/// A program that ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// The last it said on standard output.
    pub stdout: Vec<u8>,
    /// The last it said on standard error.
    pub stderr: Vec<u8>,
}

impl Ended {
    /// Standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// How it ended, in words.
    pub fn ending(&self) -> String {
        self.status.to_string()
    }
}

impl Running {
    /// What a later process recognises it by.
    pub fn identity(&self) -> Result<Identity, Trouble> {
        Identity::of(self.pid)
    }

    /// Waits for its end. `line` hears each line of its standard error as it comes, and says whether it is kept.
    pub async fn finish(mut self, mut line: impl FnMut(&str) -> bool) -> Result<Ended, Trouble> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let hear_out = async {
            let Some(mut stdout) = stdout else { return Ok(()) };
            let mut buffer = vec![0; 16 << 10];
            loop {
                match stdout.read(&mut buffer).await? {
                    0 => return Ok::<_, io::Error>(()),
                    read => keep(&mut out, buffer.get(..read).unwrap_or_default()),
                }
            }
        };
        let hear_errors = async {
            let Some(stderr) = stderr else { return Ok(()) };
            let mut reader = BufReader::new(stderr);
            let mut bytes = Vec::new();
            while (&mut reader).take(KEPT as u64).read_until(b'\n', &mut bytes).await? > 0 {
                if line(String::from_utf8_lossy(&bytes).trim_end()) {
                    keep(&mut errors, &bytes);
                }
                bytes.clear();
            }
            Ok::<_, io::Error>(())
        };
        let failed = |error| Trouble::new(format!("cannot hear from {}", self.name)).because(error);
        let status = {
            let mut hear = std::pin::pin!(async { tokio::try_join!(hear_out, hear_errors) });
            let wait = async {
                tokio::select! {
                    heard = &mut hear => heard.map(|_| None),
                    status = self.child.wait() => status.map(Some),
                }
            };
            match within(self.limit, wait).await {
                None => {
                    let limit = self.limit.unwrap_or_default().as_secs();
                    let trouble = Trouble::new(format!("{} did not end", self.name));
                    return Err(trouble.because(format!("it was ended after {limit} s")).transient(true));
                }
                Some(Err(error)) => return Err(failed(error)),
                Some(Ok(None)) => self.child.wait().await.map_err(failed)?,
                Some(Ok(Some(status))) => {
                    // What it started may hold its pipes open for as long as it likes.
                    if let Some(Err(error)) = within(Some(PIPES), hear).await {
                        return Err(failed(error));
                    }
                    status
                }
            }
        };
        self.ended = true;
        tracing::debug!("{} ended: {status}", self.name);
        Ok(Ended { status, stdout: out, stderr: errors })
    }
}

/// How long what a program said is waited for after its end.
const PIPES: Duration = Duration::from_secs(3);

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            signal_group(self.pid, Signal::KILL);
        }
    }
}

fn keep(kept: &mut Vec<u8>, more: &[u8]) {
    kept.extend_from_slice(more);
    if kept.len() > 2 * KEPT {
        kept.drain(..kept.len() - KEPT);
    }
}

/// Whether there is a program at `path` that we may run.
pub fn is_program(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}
