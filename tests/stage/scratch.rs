//! The folder of a stage, the account its servers run as, and the guardian that ends both when we are gone.

use std::{
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::Signal;

use super::{
    error::{Doing, Result, StageError, cannot_run, output_of},
    lock,
};

const GUARDIAN: &str = include_str!("guardian.sh");

/// A unix socket's path has at most 107 bytes, and `/bouncer-99/.s.PGSQL.65535` and the like come after the folder.
const LONGEST_FOLDER: usize = 60;

/// The unprivileged account that servers run as: ourselves, or when we are root, `postgres` or else `nobody`.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its login shell.
    pub shell: PathBuf,
    uid: u32,
    gid: u32,
    is_us: bool,
}

impl Account {
    /// Chooses the account.
    pub fn choose() -> Result<Account> {
        let us = rustix::process::geteuid();
        if !us.is_root() {
            return Account::look_up(&us.as_raw().to_string(), true);
        }
        Account::look_up("postgres", false).or_else(|_| Account::look_up("nobody", false))
    }

    fn look_up(key: &str, is_us: bool) -> Result<Account> {
        let line = output_of(Command::new("getent").args(["passwd", key]))?;
        let fields: Vec<&str> = line.trim_end().split(':').collect();
        let [name, _, uid, gid, _, _, shell] = fields[..] else {
            return Err(StageError::Answer { what: format!("getent passwd {key}"), answer: line });
        };
        let number = |text: &str| {
            text.parse().map_err(|_| StageError::Answer { what: "an id".into(), answer: text.into() })
        };
        Ok(Account { name: name.into(), shell: shell.into(), uid: number(uid)?, gid: number(gid)?, is_us })
    }

    /// A command that runs as this account, with none of our environment but `PATH`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C.UTF-8").env("TZ", "UTC").stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if !self.is_us {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives a file or folder to this account.
    pub fn own(&self, path: &Path) -> Result<()> {
        if self.is_us {
            return Ok(());
        }
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .doing(|| format!("give {} to {}", path.display(), self.name))
    }
}

/// The folder of one stage; it is removed, and whoever runs in it is ended, when this is dropped or our process ends.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    account: Account,
    numbers: AtomicU32,
    guardian: Mutex<Guardian>,
}

#[derive(Debug)]
struct Guardian {
    process: Child,
    // An Option, so that drop can close it and then wait.
    commands: Option<ChildStdin>,
}

impl Scratch {
    /// Makes the folder, under `$TMPDIR` if that is fit for sockets and for the account, else under `/tmp`.
    pub fn create() -> Result<Scratch> {
        let account = Account::choose()?;
        let base = base_folder(&account)?;
        let folder = tempfile::Builder::new()
            .prefix("stage-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(&base)
            .doing(|| format!("make a folder in {}", base.display()))?;
        // The guardian removes the folder, also when we no longer can.
        let guardian = Guardian::start(folder.path())?;
        let folder = folder.keep();
        account.own(&folder)?;
        Ok(Scratch { folder, account, numbers: AtomicU32::new(1), guardian: Mutex::new(guardian) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The account that owns the folder and runs the servers.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Makes a new folder `<kind>-<number>` that the account owns.
    pub fn new_folder(&self, kind: &str) -> Result<PathBuf> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{kind}-{number}"));
        self.make_folder(&path)?;
        Ok(path)
    }

    /// Makes a folder at that path, owned by the account.
    pub fn make_folder(&self, path: &Path) -> Result<()> {
        fs::create_dir(path).doing(|| format!("make {}", path.display()))?;
        self.account.own(path)
    }

    /// Writes a file that the account owns.
    pub fn write(&self, path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
        fs::write(path, content).doing(|| format!("write {}", path.display()))?;
        self.account.own(path)
    }

    /// Has a process ended with `signal` when we are gone.
    pub(super) fn guard(&self, pid: u32, signal: Signal) -> Result<()> {
        // A process that is gone already needs no guard.
        let Some(born) = born(pid) else { return Ok(()) };
        let signal = match signal {
            Signal::QUIT => "QUIT",
            Signal::KILL => "KILL",
            _ => "TERM",
        };
        self.tell_guardian(&format!("guard {pid} {born} {signal}"))
    }

    /// Takes a process that has ended off the guardian's list.
    pub(super) fn forget(&self, pid: u32) -> Result<()> {
        self.tell_guardian(&format!("forget {pid}"))
    }

    fn tell_guardian(&self, line: &str) -> Result<()> {
        match &mut lock(&self.guardian).commands {
            Some(commands) => writeln!(commands, "{line}").doing(|| "tell the guardian of the stage".into()),
            None => Ok(()),
        }
    }
}

impl Guardian {
    fn start(folder: &Path) -> Result<Guardian> {
        let mut command = Command::new("sh");
        command.args(["-c", GUARDIAN, "guardian"]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own, out of reach of a ^C and of whoever ends our group.
        let mut process = command.process_group(0).spawn().map_err(|source| cannot_run(&command, source))?;
        let commands = process.stdin.take();
        Ok(Guardian { process, commands })
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.commands.take();
        if let Err(error) = self.process.wait() {
            tell(&format!("the guardian of the stage was lost: {error}"));
        }
    }
}

/// Says on stderr what went wrong where no error can be returned.
pub(super) fn tell(message: &str) {
    // Nobody is left to hear that stderr is closed.
    let _ = writeln!(std::io::stderr(), "stage: {message}");
}

/// When a process was started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`, see proc(5).
fn born(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, numbers) = stat.rsplit_once(") ")?;
    numbers.split(' ').nth(19)?.parse().ok()
}

fn base_folder(account: &Account) -> Result<PathBuf> {
    let fits = |base: &PathBuf| {
        let enter =
            account.command("sh").args(["-c", "cd \"$1\"", "sh"]).arg(base).stderr(Stdio::null()).status();
        base.as_os_str().len() <= LONGEST_FOLDER && enter.is_ok_and(|status| status.success())
    };
    [std::env::temp_dir(), PathBuf::from("/tmp")]
        .into_iter()
        .find(fits)
        .ok_or_else(|| StageError::Unfit(format!("{} cannot enter $TMPDIR or /tmp", account.name)))
}
