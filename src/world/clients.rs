//! The pg_restores that are installed on this machine.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::process::{Program, is_program};

const NAME: &str = "pg_restore";

/// Where Debian and its relatives have one folder for each major version.
const BY_VERSION: &str = "/usr/lib/postgresql";

/// An installed pg_restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Where.
    pub path: PathBuf,
    /// What it says: `15.13 (Debian 15.13-0+deb12u1)`.
    pub version: String,
}

/// The pg_restore at `configured`, those in Debian's folders, and those on `PATH`, in this order and each once; those that do
/// not run are left out.
pub async fn pg_restores(configured: &Path) -> Vec<Installed> {
    let mut seen = Vec::new();
    let mut installed = Vec::new();
    for path in std::iter::once(configured.to_path_buf()).chain(elsewhere()) {
        let Ok(real) = fs::canonicalize(&path) else { continue };
        if seen.contains(&real) || !is_program(&path) {
            continue;
        }
        seen.push(real);
        if let Some(version) = version(&path).await {
            installed.push(Installed { path, version });
        }
    }
    installed
}

fn elsewhere() -> impl Iterator<Item = PathBuf> {
    let folders = fs::read_dir(BY_VERSION).into_iter().flatten().flatten();
    let mut by_version: Vec<PathBuf> = folders.map(|folder| folder.path().join("bin").join(NAME)).collect();
    by_version.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join(NAME)).collect();
    by_version.into_iter().chain(on_path.into_iter().filter(|path| is_itself(path)))
}

/// Debian's `/usr/bin/pg_restore` is a link to `pg_wrapper`, which takes any of those in its folders.
fn is_itself(path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|real| real.file_name() == Some(OsStr::new(NAME)))
}

/// What a client program says of its version: what follows `pg_restore (PostgreSQL)`. None when it does not run.
pub async fn version(path: &Path) -> Option<String> {
    let ended =
        Program::new(path).arg("--version").run().await.ok().filter(|ended| ended.status.success())?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let (_, version) = said.trim().split_once(") ")?;
    Some(version.to_owned())
}
