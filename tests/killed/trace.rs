//! Where to kill: the system calls of an undisturbed run, as strace tells them, and the same command run again up to one
//! of them.
//!
//! Usually strace follows the program's first thread only. That is the one that records events, starts children and
//! talks to servers, in the same order each time, so that "the third `fdatasync`" is the same moment in every run. For
//! what other threads do to the journal's database, it follows all, and minds the database's files only. The signal comes
//! when the call is entered: it has no effect any more.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fmt, fs,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::stage::{Outcome, Program, Site};

/// The calls that are worth dying at: those that change something, and those that wait for an answer.
const CALLS: &str = "pwrite64,sync_file_range,fdatasync,fsync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,\
                     ftruncate,connect,sendto,sendmsg,clone,clone3,vfork,kill,pidfd_send_signal,flock,epoll_wait,\
                     waitid,wait4";

/// What strace minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watch {
    /// What the first thread does.
    FirstThread,
    /// What any thread does to the files of the journal's database.
    Database,
}

/// A moment in a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    watch: Watch,
    /// The system call.
    call: String,
    /// Which of its kind, counted from 1.
    nth: usize,
}

impl Point {
    /// Whether fewer than `count` calls of its kind came before.
    pub(super) fn is_among_the_first(&self, count: usize) -> bool {
        self.nth <= count
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.watch == Watch::Database { " on the database" } else { "" };
        write!(f, "{} {}{place}", self.call, self.nth)
    }
}

/// Whether strace is there and may trace.
pub fn can_trace() -> bool {
    let tried =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        println!("not tested: strace is missing, or may not trace here");
    }
    can
}

/// Runs the command to its end and gives all moments in it, in order.
pub(super) fn record(site: &Site<'_>, watch: Watch, arguments: &[&str]) -> (Outcome, Vec<Point>) {
    let log = site.folder().join("strace");
    let mut command = traced(site, &log, &watch.options(site), arguments);
    let outcome = site.spawn_command(&mut command).unwrap().wait().unwrap();
    (outcome, points(watch, &fs::read_to_string(&log).unwrap()))
}

/// Runs the command up to that moment, where it is killed; its group with it. A command that ends before gives its own
/// code.
pub(super) fn run_up_to(site: &Site<'_>, arguments: &[&str], point: &Point) -> Outcome {
    let Point { watch, call, nth } = point;
    let inject = ["-e".to_owned(), format!("inject={call}:signal=KILL:when={nth}")];
    let options = [watch.options(site), inject.into()].concat();
    let mut command = traced(site, Path::new("/dev/null"), &options, arguments);
    let program = site.spawn_command(&mut command).unwrap();
    let group = i32::try_from(program.pid()).ok().and_then(Pid::from_raw).unwrap();
    let outcome = program.wait().unwrap();
    // Usually nobody is left in it.
    let _ = kill_process_group(group, Signal::KILL);
    outcome
}

impl Watch {
    fn options(self, site: &Site<'_>) -> Vec<String> {
        let calls = format!("trace={CALLS}");
        match self {
            Watch::FirstThread => vec!["-e".into(), calls],
            Watch::Database => {
                let mut options = vec!["-f".into(), "--seccomp-bpf".into(), "-e".into(), calls];
                for file in ["sled", "sled/db", "sled/conf", "sled.head", "sled.lock"] {
                    options.extend(["-P".into(), site.journal().join(file).display().to_string()]);
                }
                options
            }
        }
    }
}

fn traced(site: &Site<'_>, log: &Path, options: &[impl AsRef<OsStr>], arguments: &[&str]) -> Command {
    let wanted = site.command(arguments);
    let mut command = Command::new("strace");
    command.env_clear().envs(wanted.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(site.folder()).stdin(Stdio::null());
    command.args(["-qq", "-e", "signal=none"]).args(options);
    command.arg("-o").arg(log).arg("--").arg(wanted.get_program()).args(wanted.get_args());
    command
}

fn points(watch: Watch, log: &str) -> Vec<Point> {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    let mut all: Vec<Point> = Vec::new();
    for line in log.lines() {
        // With several threads, each line begins with the number of one.
        let of_all = (watch == Watch::Database).then(|| line.split_once(' ')).flatten();
        let (thread, line) = of_all.unwrap_or(("", line));
        let Some((call, _)) = line.trim_start().split_once('(') else { continue };
        if !call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let nth = seen.entry((thread, call)).or_default();
        *nth += 1;
        let point = Point { watch, call: call.to_owned(), nth: *nth };
        if watch == Watch::FirstThread || !all.contains(&point) {
            all.push(point);
        }
    }
    // Between two looks at what came in nothing happens that could be seen: the first and the last of several will do.
    let waits = |point: Option<&Point>| point.is_some_and(|point| point.call == "epoll_wait");
    let place = |at: usize| at.checked_sub(1).and_then(|before| all.get(before));
    let is_worth = |at: usize| !(waits(all.get(at)) && waits(place(at)) && waits(all.get(at + 1)));
    (0..all.len()).filter(|at| is_worth(*at)).map(|at| all[at].clone()).collect()
}

/// The command, with a second's delay before whatever it starts executes that program.
pub(super) fn delayed(site: &Site<'_>, arguments: &[&str], program: &str) -> Command {
    let options = [
        "-f",
        "--seccomp-bpf",
        "-P",
        program,
        "-e",
        "trace=execve",
        "-e",
        "inject=execve:delay_enter=1000000",
    ];
    traced(site, Path::new("/dev/null"), &options, arguments)
}

/// Kills what strace was started for, not strace: what its tracees have started lives on, and strace with it.
pub(super) fn kill_tracee(strace: &Program) {
    let parent_of = |pid: &str| -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(1)?.to_owned())
    };
    let entries =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let strace = strace.pid().to_string();
    let tracee =
        entries.filter(|name| parent_of(name).as_ref() == Some(&strace)).find_map(|name| name.parse().ok());
    kill_process(tracee.and_then(Pid::from_raw).unwrap(), Signal::KILL).unwrap();
}

/// How often each call occurs, for people.
pub(super) fn summary(points: &[Point]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for point in points {
        *counts.entry(&point.call).or_default() += 1;
    }
    let words: Vec<String> = counts.into_iter().map(|(call, count)| format!("{call} {count}")).collect();
    words.join(", ")
}
