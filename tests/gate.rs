//! A place in an SQL file at which a run waits until the test lets it on.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::stage::{Program, Site, wait_until};

/// How long a run may take to come to the gate.
const LIMIT: Duration = Duration::from_secs(120);

/// A gate in one of the files that the program sources. It is a pipe with a name: psql reads it, in a shell of its own,
/// and the reading lasts until the test closes the other end.
pub struct Gate {
    pipe: PathBuf,
}

/// A run that waits at a gate; dropping this lets it on.
#[must_use]
pub struct Waiting {
    _pipe: File,
}

impl Gate {
    /// A gate in a new file of that phase, `pre` or `post`, before the SQL in it.
    pub fn new(site: &Site<'_>, phase: &str, name: &str, sql: &str) -> Gate {
        let pipe = site.folder().join(format!("{phase}-{name}.gate"));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        site.add_sql(phase, name, &format!("\\set gate `cat '{}'`\n{sql}\n", pipe.display())).unwrap();
        Gate { pipe }
    }

    /// Waits until the run stands at the gate.
    #[track_caller]
    pub fn wait(&self, program: &mut Program) -> Waiting {
        let mut waiting = None;
        wait_until("the run to stand at the gate", LIMIT, || {
            waiting = self.reached();
            waiting.is_some() || !program.is_running().unwrap()
        })
        .unwrap();
        let said = || format!("it did not come to the gate:\n{}{}", program.stdout(), program.stderr());
        waiting.unwrap_or_else(|| panic!("{}", said()))
    }

    /// Whether a run stands at the gate.
    pub fn reached(&self) -> Option<Waiting> {
        // Opening it for writing without waiting fails for as long as nobody reads: fifo(7).
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let pipe = OpenOptions::new().write(true).custom_flags(nonblocking).open(&self.pipe).ok()?;
        Some(Waiting { _pipe: pipe })
    }

    /// Takes the gate away, for the runs that come.
    pub fn remove(self, site: &Site<'_>, phase: &str, name: &str) {
        let file = site.folder().join("sql").join(site.section()).join(phase).join(name);
        fs::remove_file(file).unwrap();
    }
}
