//! One server process: started in a group of its own, guarded, waited for, signalled and stopped.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    error::{Doing, Result, StageError, cannot_run},
    scratch::{Scratch, tell},
};

/// The limit for a server to become ready, or to end: far beyond what a loaded machine needs.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// What every server refuses to start with when its port is taken; nginx, pgbouncer, PostgreSQL and sshd use the text of
/// the C library.
const PORT_TAKEN: &str = "Address already in use";

/// A running server process. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    kind: &'static str,
    child: Child,
    log: PathBuf,
    stop_signal: Signal,
    ended: bool,
    scratch: Arc<Scratch>,
}

impl Server {
    /// Starts the command with its output going to `log`; `stop_signal` is what ends it at once and in order.
    pub(super) fn spawn(
        scratch: &Arc<Scratch>,
        kind: &'static str,
        command: &mut Command,
        log: PathBuf,
        stop_signal: Signal,
    ) -> Result<Server> {
        let file = File::create(&log).doing(|| format!("create {}", log.display()))?;
        let stdout = file.try_clone().doing(|| format!("open {} twice", log.display()))?;
        command.stdout(stdout).stderr(file).process_group(0);
        let child = command.spawn().map_err(|source| cannot_run(command, source))?;
        scratch.guard(child.id(), stop_signal)?;
        Ok(Server { kind, child, log, stop_signal, ended: false, scratch: Arc::clone(scratch) })
    }

    /// Waits until `ready`. A server that ends meanwhile, or says that its port is taken, is an error.
    pub(super) fn wait_until_ready(&mut self, port: u16, mut ready: impl FnMut() -> bool) -> Result<()> {
        let (kind, limit) = (self.kind, LIMIT);
        let deadline = Instant::now() + limit;
        loop {
            let status = self.child.try_wait().doing(|| format!("wait for {kind}"))?;
            self.ended = status.is_some();
            // Looked at before the log, so that a server that says so and goes on is found out as well.
            let is_ready = !self.ended && ready();
            let log = self.log();
            if (is_ready || self.ended) && log.contains(PORT_TAKEN) {
                return Err(StageError::PortTaken { server: kind, port });
            }
            if let Some(status) = status {
                return Err(StageError::Ended { server: kind, status, log });
            }
            if is_ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(StageError::Late {
                    what: format!("{kind} to be ready"),
                    limit,
                    log: format!("\n{log}"),
                });
            }
            thread::sleep(PAUSE);
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Sends a signal, such as `Signal::STOP` and `Signal::CONT`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(self.child.id(), signal)
    }

    /// Ends the process and waits for its end; nothing if it has ended.
    pub fn stop(&mut self) -> Result<()> {
        self.stop_with(self.stop_signal)
    }

    /// Ends the process with a signal of the caller's choice and waits for its end.
    pub fn stop_with(&mut self, signal: Signal) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.signal(signal)?;
        // A stopped process hears nothing but KILL until it is continued.
        self.signal(Signal::CONT)?;
        let orderly = self.wait_for_end(LIMIT / 4);
        if orderly.is_err() {
            self.signal(Signal::KILL)?;
            self.wait_for_end(LIMIT)?;
        }
        self.scratch.forget(self.child.id())
    }

    fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = wait_for_exit(&mut self.child, self.kind, limit)?;
        self.ended = true;
        Ok(status)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tell(&error.to_string());
        }
    }
}

/// Looks at a condition until it holds; `what` completes "waited 30 s for …" when it does not within `limit`.
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() > deadline {
            return Err(StageError::Late { what: what.into(), limit, log: String::new() });
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Waits for a child's end.
pub(super) fn wait_for_exit(child: &mut Child, kind: &str, limit: Duration) -> Result<ExitStatus> {
    let mut status = None;
    wait_until(&format!("{kind} to end"), limit, || match child.try_wait() {
        Ok(result) => {
            status = result.map(Ok);
            status.is_some()
        }
        Err(error) => {
            status = Some(Err(error));
            true
        }
    })?;
    match status {
        Some(result) => result.doing(|| format!("wait for {kind}")),
        None => Err(StageError::Late { what: format!("{kind} to end"), limit, log: String::new() }),
    }
}

/// Sends a signal to a process that we started and have not yet waited for.
pub(super) fn send(pid: u32, signal: Signal) -> Result<()> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| StageError::Unfit(format!("{pid} is no process id")))?;
    kill_process(number, signal)
        .map_err(std::io::Error::from)
        .doing(|| format!("send signal {} to process {pid}", signal.as_raw()))
}
