//! The host where pgbouncer runs: its pgbouncer.ini is read, and a new one is installed through `staging-client.sh`.
//!
//! A host of this machine's own name is this machine: then there is neither ssh nor scp. Otherwise both are the
//! system's own programs, so that `~/.ssh/config`, agents and jump hosts work; they never ask (BatchMode).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{Ended, Program, is_program};
use super::{Trouble, disk, machine};

/// A host that does not answer is not waited for for ever. ssh takes the first value it meets, so the user's own wins.
const PATIENCE: [&str; 6] =
    ["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"];

/// How long one call may take; the script itself gives up a minute or two before.
const LIMIT: Duration = Duration::from_secs(300);

/// How to reach the host, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Far {
    /// Its name, address, or a socket folder of this machine.
    pub host: String,
    /// Further options for ssh, in ssh's own spelling.
    pub ssh_options: Vec<String>,
    /// Whether the script runs under sudo.
    pub use_sudo: bool,
    /// The script, relative to the login folder or absolute.
    pub client_script: String,
    /// Path of pgbouncer.ini.
    pub pgbouncer_conf: PathBuf,
    /// Port of the pgbouncer that reads it.
    pub pgbouncer_port: u16,
    /// A folder of this machine that only we can enter, for files on their way; whoever made it removes it.
    pub folder: PathBuf,
}

impl Far {
    /// Whether the host is this machine.
    pub fn is_local(&self) -> bool {
        is_this_machine(&self.host)
    }

    /// pgbouncer.ini as it is now.
    pub async fn read_ini(&self) -> Result<Vec<u8>, Trouble> {
        if self.is_local() {
            return disk::read(&self.pgbouncer_conf)
                .map_err(|trouble| trouble.hint("check pgbouncer_conf, and that you may read that file"));
        }
        let copy = self.folder.join("pgbouncer.ini");
        let from = format!("{}:{}", self.scp_host(), self.pgbouncer_conf.display());
        let ended = self.scp().arg("--").arg(from).arg(&copy).run().await?;
        if !ended.status.success() {
            return Err(self.ssh_trouble(
                &format!("cannot copy {} from {}", self.pgbouncer_conf.display(), self.host),
                &ended,
            ));
        }
        let ini = disk::read(&copy)?;
        disk::remove_file(&copy)?;
        Ok(ini)
    }

    /// Has `staging-client.sh` install `upload`: a new pgbouncer.ini under the header line that the script asks for.
    /// On its way the file has the name `pgbouncer.<tag>.ini`, with a tag of letters and digits.
    pub async fn install_ini(&self, upload: &[u8], tag: &str) -> Result<(), Trouble> {
        let name = upload_name(tag);
        let file = self.folder.join(&name);
        disk::write_whole(&file, upload)?;
        let ran =
            if self.is_local() { self.run_here(&name).await } else { self.run_there(&name, &file).await };
        disk::remove_file(&file)?;
        let (program, ended) = ran?;
        self.judge(&program, &ended)
    }

    /// Removes what an interrupted [`install_ini`](Far::install_ini) with this tag may have left on its way.
    pub async fn discard_upload(&self, tag: &str) -> Result<(), Trouble> {
        let name = upload_name(tag);
        disk::remove_file(&self.folder.join(&name))?;
        if self.is_local() {
            return Ok(());
        }
        let ended = self.ssh().arg("--").arg(&self.host).args(["rm", "-f", "--"]).arg(&name).run().await?;
        if ended.status.success() {
            return Ok(());
        }
        Err(self.ssh_trouble(&format!("cannot remove {name} on {}", self.host), &ended))
    }

    /// The script, here or there, still without its arguments.
    pub(super) fn script(&self) -> Result<Program, Trouble> {
        if self.is_local() { self.script_here() } else { self.script_there() }
    }

    fn script_here(&self) -> Result<Program, Trouble> {
        let script = match machine::home() {
            Some(home) => home.join(&self.client_script),
            None => PathBuf::from(&self.client_script),
        };
        if !is_program(&script) {
            return Err(Trouble::new(format!("there is no program {}", script.display())).hint(
                "copy staging-client.sh there and make it executable, or set client_script to where it is",
            ));
        }
        let program = if self.use_sudo && !machine::is_root() {
            Program::new("sudo").arg("-n").arg("--").arg(script)
        } else {
            Program::new(script)
        };
        Ok(program.limit(LIMIT))
    }

    /// Words of a remote command are joined by ssh and read by a shell: those of ours are checked, numbers, or our own.
    fn script_there(&self) -> Result<Program, Trouble> {
        let script = shell_word(&self.client_script)?;
        let program = self.ssh().arg("--").arg(&self.host);
        Ok(if self.use_sudo { program.args(["sudo", "-n"]) } else { program }.arg(script))
    }

    async fn run_here(&self, name: &str) -> Result<(Program, Ended), Trouble> {
        let program = self.script()?.arg(name).arg(self.pgbouncer_port.to_string()).folder(&self.folder);
        let ended = program.run().await?;
        Ok((program, ended))
    }

    async fn run_there(&self, name: &str, file: &Path) -> Result<(Program, Ended), Trouble> {
        let to = format!("{}:{name}", self.scp_host());
        let copied = self.scp().arg("--").arg(file).arg(to).run().await?;
        if !copied.status.success() {
            return Err(
                self.ssh_trouble(&format!("cannot copy the new pgbouncer.ini to {}", self.host), &copied)
            );
        }
        let program = self.script()?.arg(name).arg(self.pgbouncer_port.to_string());
        let ended = program.run().await?;
        Ok((program, ended))
    }

    /// What the script's exit code says; see its header.
    fn judge(&self, program: &Program, ended: &Ended) -> Result<(), Trouble> {
        let conf = self.pgbouncer_conf.display();
        let trouble = match ended.status.code() {
            Some(0) => return Ok(()),
            Some(3) => {
                Trouble::new(format!("{conf} on {} was changed by somebody else meanwhile", self.host))
                    .transient(true)
            }
            Some(4) => Trouble::new(format!(
                "pgbouncer on {} does not take the new {conf}; the old one is back",
                self.host
            ))
            .hint(format!(
                "mend what pgbouncer cannot read in {conf} (its log says which line), then try again"
            )),
            Some(5) => Trouble::new(format!(
                "pgbouncer on {}, port {} cannot be reached from there",
                self.host, self.pgbouncer_port
            ))
            .hint("start pgbouncer, or correct pgbouncer_port")
            .transient(true),
            Some(6) => Trouble::new(format!("another change of {conf} on {} is under way", self.host))
                .transient(true),
            _ => return Err(self.script_trouble(program, ended)),
        };
        Err(trouble.because(ended.errors()))
    }

    /// Why the script was not run, or failed in a way that says no more.
    pub(super) fn script_trouble(&self, program: &Program, ended: &Ended) -> Trouble {
        let trouble = match ended.status.code() {
            Some(255) if !self.is_local() => {
                return self.ssh_trouble(&format!("cannot run staging-client.sh on {}", self.host), ended);
            }
            Some(126 | 127) => Trouble::new(format!("cannot run {} on {}", self.client_script, self.host))
                .hint("copy staging-client.sh there and make it executable, or set client_script to where it is"),
            _ => Trouble::new(format!("staging-client.sh failed on {} ({})", self.host, ended.ending()))
                .hint(format!("run it by hand: {}", program.line())),
        };
        trouble.because(ended.errors())
    }

    /// Refused and timed-out connections pass; a refused key or an unknown host does not.
    fn ssh_trouble(&self, what: &str, ended: &Ended) -> Trouble {
        let said = ended.errors();
        let passing = [
            "Connection refused",
            "timed out",
            "Connection reset",
            "Connection closed",
            "closed by remote host",
            "not responding",
            "Broken pipe",
            "No route to host",
            "Network is unreachable",
            "Temporary failure in name resolution",
        ];
        // scp adds that the connection closed to whatever ssh says.
        let lasting = ["Permission denied", "Host key verification failed"];
        let is_there = |words: &[&str]| words.iter().any(|words| said.contains(words));
        Trouble::new(what).because(&said).transient(is_there(&passing) && !is_there(&lasting)).hint(format!(
            "check that this works: ssh {} {} true",
            self.ssh_options.join(" "),
            self.host
        ))
    }

    fn ssh(&self) -> Program {
        Program::new("ssh")
            .args(["-o", "BatchMode=yes"])
            .args(self.ssh_options.iter())
            .args(PATIENCE)
            .limit(LIMIT)
    }

    /// scp takes ssh's options but for these: its `-p` means something else, and it has no `-l user`. Not `-q`, which
    /// would keep from us why ssh failed; a meter is drawn on terminals only.
    fn scp(&self) -> Program {
        let mut words: Vec<OsString> = vec!["-o".into(), "BatchMode=yes".into()];
        let mut options = self.ssh_options.iter();
        while let Some(option) = options.next() {
            match (option.get(..2), option.get(2..)) {
                (Some("-p"), Some("")) => {
                    words.push("-P".into());
                    words.extend(options.next().map(Into::into));
                }
                (Some("-p"), Some(port)) => words.extend(["-P".into(), port.into()]),
                (Some("-l"), Some("")) => {
                    let user = options.next().cloned().unwrap_or_default();
                    words.extend(["-o".into(), format!("User={user}").into()]);
                }
                (Some("-l"), Some(user)) => words.extend(["-o".into(), format!("User={user}").into()]),
                _ => words.push(option.into()),
            }
        }
        Program::new("scp").args(words).args(PATIENCE).limit(LIMIT)
    }

    /// An IPv6 address needs brackets in front of scp's colon.
    fn scp_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// Whether a host's name means the machine that it is used on: a loopback name, or the folder of a unix socket.
pub fn is_this_machine(host: &str) -> bool {
    host.starts_with('/') || ["localhost", "127.0.0.1", "::1"].contains(&host)
}

fn upload_name(tag: &str) -> String {
    format!("pgbouncer.{tag}.ini")
}

/// A path that means the same to a shell as to us.
fn shell_word(path: &str) -> Result<&str, Trouble> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+@~".contains(c);
    if !path.is_empty() && !path.starts_with('-') && path.chars().all(plain) {
        return Ok(path);
    }
    Err(Trouble::new(format!("client_script '{path}' has characters that a shell would change"))
        .hint("use letters, digits and -_./+@~ only"))
}
