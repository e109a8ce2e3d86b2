//! Who and where we are: user, host, process, home, time zone.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Trouble, disk, process};

/// Login name of the effective user, or its number when it has no name.
pub fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    line.and_then(|line| line.split(':').next()).map_or_else(|| uid.to_string(), str::to_owned)
}

/// Whether we run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The host's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// This process, so that a later one can recognise it.
pub fn this_process() -> Result<process::Identity, Trouble> {
    process::Identity::of(std::process::id())
}

/// The home folder, as `HOME` tells.
pub fn home() -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from)
}

/// Where the journal is when nothing says otherwise: `/var/lib/pg_staging` for root, else `pg_staging` in the XDG
/// state folder (XDG Base Directory Specification).
pub fn default_journal() -> Result<PathBuf, Trouble> {
    if is_root() {
        return Ok(PathBuf::from("/var/lib/pg_staging"));
    }
    let state = variable("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    state
        .or_else(|| home().map(|home| home.join(".local/state")))
        .map(|state| state.join("pg_staging"))
        .ok_or_else(|| {
            Trouble::new("cannot tell where the journal is: HOME is not set")
                .hint("name its folder with --journal DIR")
        })
}

/// The configuration file when `-c` names none: `$PG_STAGING_CONFIG`, else the first of the two usual places that
/// exists, else the first.
pub fn default_config() -> PathBuf {
    if let Some(named) = variable("PG_STAGING_CONFIG") {
        return PathBuf::from(named);
    }
    let usual = ["/etc/hm-tools/pg_staging.ini", "/etc/pg_staging/pg_staging.ini"].map(PathBuf::from);
    let [first, _] = &usual;
    usual.iter().find(|path| disk::exists(path)).unwrap_or(first).clone()
}

/// An environment variable that is set to something.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
