//! An `/etc` of one's own, for programs that believe what root alone can write there.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Stage,
    error::{Doing, Result, output_of},
};

/// Puts the folder `$1` in the place of `/etc`, for this program and what it starts.
const BIND: &str = "mount --bind \"$1\" /etc && shift && exec \"$@\"";

/// A copy of the machine's `/etc`, which is seen in its place by what is started through it (mount_namespaces(7)).
#[derive(Debug)]
pub struct Etc {
    folder: PathBuf,
}

impl Etc {
    /// Makes the copy; `None` where this process may not show others files of its own, which takes root.
    pub fn new(stage: &Stage) -> Result<Option<Etc>> {
        let folder = stage.scratch().new_folder("etc")?.join("etc");
        let etc = Etc { folder: "/etc".into() };
        let mut tried = etc.command("true");
        if !tried.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        output_of(Command::new("cp").arg("-a").arg("/etc").arg(&folder))?;
        Ok(Some(Etc { folder }))
    }

    /// Writes a file, named from `/etc`.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> Result<PathBuf> {
        let path = self.folder.join(name);
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).doing(|| format!("make {}", parent.display()))?;
        fs::write(&path, text).doing(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .doing(|| format!("chmod {}", path.display()))?;
        Ok(path)
    }

    /// The copy.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program that sees the copy, still without its arguments.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", BIND, "sh"]).arg(&self.folder);
        command.arg(program);
        command
    }

    /// Writes a program to `path` that runs another one so that it sees the copy.
    pub fn write_wrapper(&self, path: &Path, program: &Path) -> Result<()> {
        let text = format!(
            "#!/bin/sh\nexec unshare --mount --propagation private sh -c '{BIND}' sh '{}' '{}' \"$@\"\n",
            self.folder.display(),
            program.display()
        );
        fs::write(path, text).doing(|| format!("write {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .doing(|| format!("chmod {}", path.display()))
    }
}
