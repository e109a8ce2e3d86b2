//! Each thing that can go wrong has its exit code, its words and its mend, and leaves nothing behind but the journal.

mod backup;
mod run;
mod target;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::stage::{Serving, Site, SiteOptions, Stage};

const DAY: &str = "20261121";

fn stage() -> &'static Stage {
    Stage::shared().unwrap()
}

/// A site of its own on the shared stage, where what passes by itself is not waited for long.
fn site() -> Site<'static> {
    impatient(&SiteOptions::default())
}

/// The same, with backups on a server that misbehaves as planned.
fn rude_site() -> Site<'static> {
    impatient(&SiteOptions { serving: Serving::Rude, ..SiteOptions::default() })
}

/// The same, reached over ssh.
fn far_site() -> Site<'static> {
    impatient(&SiteOptions { over_ssh: true, ..SiteOptions::default() })
}

fn impatient(options: &SiteOptions) -> Site<'static> {
    let mut site = Site::new(stage(), options).unwrap();
    site.set("retry_limit", "1s").unwrap();
    site
}

/// A file system of its own, mounted on a folder; taken away when this is dropped.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts it, with a size as mount(8) reads it; `None` where this process may not mount anything.
    pub fn mount(folder: &Path, size: &str) -> Option<SmallDisk> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "tmpfs"]).arg(folder);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("not tested: this account may not mount a file system");
        }
        mounted.then(|| SmallDisk { folder: folder.to_path_buf() })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a program that a failed test left behind may still stand in it.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.folder.display());
        }
    }
}
