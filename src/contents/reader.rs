//! Which versions of pg_restore can load an archive into a server.
//!
//! An archive has the version of its format (`K_VERS_*` in pg_backup_archiver.h), which newer programs read and older ones
//! refuse. A pg_restore of PostgreSQL 17 or newer begins with `SET transaction_timeout` (`_doSetFixedOutputState` in
//! pg_backup_archiver.c), which is an error on older servers.

use super::{ArchiveVersion, Contents};

/// The first version whose pg_restore speaks to servers of its own age only.
const SETS_TRANSACTION_TIMEOUT: u32 = 17;

/// Major versions of pg_restore, for one archive and one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readers {
    /// Older ones cannot read the archive.
    pub oldest: u32,
    /// Newer ones cannot work on the server.
    pub newest: Option<u32>,
    /// The version of the pg_dump that wrote the archive: older ones than this may read it, and not know all that is in it.
    pub writer: Option<u32>,
}

impl Readers {
    /// For an archive, and a server of that major version, when that is known.
    #[must_use]
    pub fn of(contents: &Contents, server: Option<u32>) -> Self {
        let version = contents.archive_version();
        let since = |minor| version >= ArchiveVersion::new(1, minor, 0);
        let oldest = match () {
            () if since(16) => 17,
            () if since(15) => 16,
            () if since(14) => 12,
            () => 9,
        };
        let newest = server.filter(|server| *server < SETS_TRANSACTION_TIMEOUT);
        Self {
            oldest,
            newest: newest.map(|_| SETS_TRANSACTION_TIMEOUT - 1),
            writer: major(contents.dump_version()),
        }
    }

    /// Whether such a pg_restore can do it.
    #[must_use]
    pub fn fits(self, major: u32) -> bool {
        major >= self.oldest && self.newest.is_none_or(|newest| major <= newest)
    }

    /// Whether it was there when the archive was written.
    #[must_use]
    pub fn knows_all(self, major: u32) -> bool {
        self.writer.is_none_or(|writer| major >= writer)
    }

    /// Whether no version whatsoever can do it.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.newest.is_some_and(|newest| newest < self.oldest)
    }
}

/// The major version in what PostgreSQL's programs call themselves: `15.13 (Debian 15.13-0+deb12u1)`, `18beta1`, `9.6.24`.
#[must_use]
pub fn major(version: &str) -> Option<u32> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..digits)?.parse().ok()
}

/// Whether a psql that calls itself so has `\restrict`, which keeps commands of psql's own from a script: it came with the
/// mending of CVE-2025-8714, in these minor versions.
#[must_use]
pub fn psql_restricts(version: &str) -> bool {
    const SINCE: [(u32, u32); 5] = [(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)];
    let Some(major_version) = major(version) else { return false };
    let minor = version.split_once('.').and_then(|(_, rest)| major(rest)).unwrap_or_default();
    match SINCE.iter().find(|(since, _)| *since == major_version) {
        Some((_, since)) => minor >= *since,
        None => major_version >= 18,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_major_version_is_the_number_that_a_version_begins_with() {
        let cases = [
            ("15.13 (Debian 15.13-0+deb12u1)", Some(15)),
            ("18beta1", Some(18)),
            ("9.6.24", Some(9)),
            ("17", Some(17)),
            ("", None),
            ("devel", None),
        ];
        for (version, expected) in cases {
            assert_eq!(major(version), expected, "{version}");
        }
    }

    #[test]
    fn a_psql_restricts_scripts_since_a_minor_version_of_each_major_one() {
        for version in ["13.22", "15.14 (Debian 15.14-0+deb12u1)", "17.6", "18.0", "18rc1", "19devel"] {
            assert!(psql_restricts(version), "{version}");
        }
        for version in ["12.22", "13.21", "15.13", "17rc1", "17.5", "9.6.24", ""] {
            assert!(!psql_restricts(version), "{version}");
        }
    }

    #[test]
    fn the_archive_says_who_is_too_old_and_the_server_who_is_too_new() {
        let readers = Readers { oldest: 12, newest: Some(16), writer: Some(15) };
        let fits: Vec<u32> = (9..20).filter(|major| readers.fits(*major)).collect();
        assert_eq!(fits, [12, 13, 14, 15, 16]);
        assert!(!readers.knows_all(14) && readers.knows_all(15));
        assert!(!readers.is_none());
        assert!(Readers { oldest: 17, ..readers }.is_none());
        assert!(Readers { newest: None, ..readers }.fits(99));
    }
}
