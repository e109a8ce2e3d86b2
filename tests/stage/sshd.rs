//! A real sshd, run by an unprivileged account, in which that account logs in to a scratch folder.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use rustix::process::Signal;

use super::{
    Etc, FAR, LOCAL, Stage,
    error::{Doing, Result, StageError, find_program, output_of},
    port::on_free_port,
    scratch::Scratch,
    server::Server,
};

const PROGRAMS: &[&str] = &["/usr/sbin/sshd", "/usr/local/sbin/sshd"];
const SFTP_SERVERS: &[&str] = &["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"];

/// Where the program's repository keeps the script that runs on a target host.
pub const CLIENT_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/staging-client.sh");

/// A running sshd on [`LOCAL`] and [`FAR`].
#[derive(Debug)]
pub struct Sshd {
    folder: PathBuf,
    port: u16,
    server: Server,
    scratch: Arc<Scratch>,
}

impl Sshd {
    /// Starts sshd, and makes sure that `ssh` and `scp` work.
    pub fn start(stage: &Stage) -> Result<Sshd> {
        Sshd::start_by(stage, |sshd| stage.scratch().account().command(sshd))
    }

    /// The same, where the account may run that one program as root, through sudo and without a password: among files of
    /// its own (mount_namespaces(7)), so that the machine's sudoers stay as they are. Takes root.
    ///
    /// With an `etc`, its sessions see that in the place of `/etc`.
    pub fn start_with_sudo(stage: &Stage, program: &Path, etc: Option<&Etc>) -> Result<Sshd> {
        let name = &stage.scratch().account().name;
        let rule = format!("{name} ALL=(root) NOPASSWD: {}", program.display());
        Sshd::start_by(stage, |sshd| {
            let mut command = etc.map_or_else(|| Command::new("unshare"), |etc| etc.command("unshare"));
            command.args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                include_str!("sshd_with_sudo.sh"),
                "sh",
            ]);
            command.arg(&rule).arg(name).arg(sshd);
            command
        })
    }

    fn start_by(stage: &Stage, command: impl Fn(PathBuf) -> Command) -> Result<Sshd> {
        let scratch = stage.scratch();
        let account = scratch.account();
        if account.shell.ends_with("nologin") || account.shell.ends_with("false") {
            return Err(StageError::Unfit(format!("{} cannot log in; run `make setup`", account.name)));
        }
        let folder = scratch.new_folder("ssh")?;
        scratch.make_folder(&folder.join("login"))?;
        let new_key = ["-q", "-t", "ed25519", "-N", "", "-C", "stage", "-f"];
        output_of(account.command("ssh-keygen").args(new_key).arg(folder.join("host_key")))?;
        // Ours, because the client wants a private key that belongs to who runs it.
        output_of(Command::new("ssh-keygen").args(new_key).arg(folder.join("client_key")))?;
        let client_key = read(&folder.join("client_key.pub"))?;
        scratch.write(&folder.join("authorized_keys"), client_key)?;
        let session = folder.join("session");
        scratch.write(&session, fill(include_str!("ssh_session.sh"), &folder))?;
        make_executable(&session)?;
        let sftp_server = find_program(SFTP_SERVERS)?;
        on_free_port(|port| {
            let configuration = fill(include_str!("sshd_config"), &folder)
                .replace("@PORT@", &port.to_string())
                .replace("@SFTP_SERVER@", &sftp_server.display().to_string());
            scratch.write(&folder.join("sshd_config"), configuration)?;
            let host_key = read(&folder.join("host_key.pub"))?;
            let known = [LOCAL, FAR].map(|host| format!("[{host}]:{port} {host_key}")).concat();
            scratch.write(&folder.join("known_hosts"), known)?;
            let mut command = command(find_program(PROGRAMS)?);
            command.current_dir(&folder).args(["-D", "-e", "-f"]).arg(folder.join("sshd_config"));
            let server =
                Server::spawn(scratch, "sshd", &mut command, folder.join("server.log"), Signal::TERM)?;
            let mut sshd = Sshd { folder: folder.clone(), port, server, scratch: Arc::clone(scratch) };
            let mut probe = sshd.ssh(LOCAL);
            probe.arg("true");
            sshd.server
                .wait_until_ready(port, || probe.output().is_ok_and(|output| output.status.success()))?;
            sshd.check_upload()?;
            Ok(sshd)
        })
    }

    /// Options for `ssh` and `scp` alike, all of them `-F` and `-o`, without spaces inside.
    pub fn ssh_options(&self) -> Vec<String> {
        let settings = [
            format!("Port={}", self.port),
            format!("User={}", self.user()),
            format!("IdentityFile={}", self.folder.join("client_key").display()),
            format!("UserKnownHostsFile={}", self.folder.join("known_hosts").display()),
            "GlobalKnownHostsFile=/dev/null".into(),
            "IdentitiesOnly=yes".into(),
            "IdentityAgent=none".into(),
            "StrictHostKeyChecking=yes".into(),
            "BatchMode=yes".into(),
        ];
        let mut options = vec!["-F".to_owned(), "/dev/null".to_owned()];
        options.extend(settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]));
        options
    }

    /// The port, on [`LOCAL`] and [`FAR`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The account to log in as, the only one that can.
    pub fn user(&self) -> &str {
        &self.scratch.account().name
    }

    /// The folder in which sessions and uploads begin; also their `$HOME`.
    pub fn login_folder(&self) -> PathBuf {
        self.folder.join("login")
    }

    /// The server's log.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The server process, to be stopped with a signal.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Puts the program's `staging-client.sh` into the login folder, as an administrator would.
    pub fn install_client_script(&self) -> Result<PathBuf> {
        let script = fs::read(CLIENT_SCRIPT).doing(|| format!("read {CLIENT_SCRIPT}"))?;
        let path = self.login_folder().join("staging-client.sh");
        self.scratch.write(&path, script)?;
        make_executable(&path)?;
        Ok(path)
    }

    /// An `ssh` to that address, still without the command to run there.
    pub fn ssh(&self, host: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ssh");
        command.args(self.ssh_options()).arg(host);
        command
    }

    /// Uploads a file into the login folder, through that address, under a name that may be another.
    pub fn scp(&self, from: &Path, host: &str, name: &str) -> Result<()> {
        let mut command = Command::new("scp");
        command.arg("-q").args(self.ssh_options()).arg(from).arg(format!("{host}:{name}"));
        output_of(&mut command).map(drop)
    }

    fn check_upload(&self) -> Result<()> {
        let sent = self.folder.join("known_hosts");
        self.scp(&sent, FAR, "upload-check")?;
        let arrived = self.login_folder().join("upload-check");
        if read(&sent)? != read(&arrived)? {
            return Err(StageError::Answer { what: "scp".into(), answer: "the upload differs".into() });
        }
        fs::remove_file(&arrived).doing(|| format!("remove {}", arrived.display()))
    }
}

fn fill(template: &str, folder: &Path) -> String {
    template.replace("@FOLDER@", &folder.display().to_string())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).doing(|| format!("read {}", path.display()))
}

fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).doing(|| format!("chmod {}", path.display()))
}
