//! Other versions of PostgreSQL than the system's, as `versions.sh` brings them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{
    cluster::system_bin,
    error::{Result, StageError, output_of},
    scratch::Scratch,
};

/// Where `versions.sh` puts them: a folder for each major version.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/postgresql");

/// All that packages are known for, besides the system's.
const KNOWN: &[u32] = &[13, 14, 16, 17, 18];

/// One version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// Its major version.
    pub major: u32,
    /// The folder with its programs.
    pub bin: PathBuf,
    /// Whether pg_dump, pg_restore and psql are among them.
    pub has_clients: bool,
}

/// Those that are here, oldest first, the system's among them.
#[derive(Clone, Debug)]
pub struct Versions(pub Vec<Postgres>);

impl Versions {
    /// Looks for them. They are copied into `scratch` where the account that servers run as cannot reach them.
    pub fn find(scratch: &Scratch) -> Result<Versions> {
        let all = within_reach(Path::new(FOLDER), scratch)?;
        let system = system_bin()?;
        let mut found = vec![Postgres { major: major_of(&system)?, bin: system, has_clients: true }];
        for major in KNOWN {
            let folder = all.join(major.to_string());
            if folder.join("complete").exists() {
                // The account that servers run as may not be able to follow links in our own folders.
                let bin = std::fs::canonicalize(folder.join("bin"));
                let bin = bin.map_err(|error| StageError::Unfit(format!("{}: {error}", folder.display())))?;
                let has_clients = bin.join("pg_dump").exists();
                found.push(Postgres { major: *major, bin, has_clients });
            }
        }
        found.sort_by_key(|postgres| postgres.major);
        Ok(Versions(found))
    }

    /// One of them.
    pub fn get(&self, major: u32) -> Result<&Postgres> {
        self.0.iter().find(|postgres| postgres.major == major).ok_or_else(|| {
            StageError::Unfit(format!(
                "PostgreSQL {major} is not here; run `make versions`, or tests/stage/versions.sh {major}"
            ))
        })
    }

    /// A `PATH` on which the programs of all of them are, behind those of the system.
    pub fn path(&self, majors: &[u32]) -> String {
        let theirs = self.0.iter().filter(|postgres| majors.contains(&postgres.major));
        let mut folders = vec!["/usr/bin".to_owned(), "/bin".to_owned()];
        folders.extend(theirs.map(|postgres| postgres.bin.display().to_string()));
        folders.join(":")
    }
}

/// The folder, or a copy of it: a checkout may lie in a folder that is closed to others.
fn within_reach(folder: &Path, scratch: &Scratch) -> Result<PathBuf> {
    let is_open = |folder: &Path| folder.metadata().is_ok_and(|data| data.permissions().mode() & 0o001 != 0);
    if !folder.exists() || folder.ancestors().all(is_open) {
        return Ok(folder.to_owned());
    }
    let copy = scratch.path().join("postgresql");
    output_of(std::process::Command::new("cp").arg("--archive").arg(folder).arg(&copy))?;
    Ok(copy)
}

fn major_of(bin: &Path) -> Result<u32> {
    let said = output_of(std::process::Command::new(bin.join("postgres")).arg("--version"))?;
    let version = said.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok());
    version.ok_or(StageError::Answer { what: "postgres --version".into(), answer: said })
}
