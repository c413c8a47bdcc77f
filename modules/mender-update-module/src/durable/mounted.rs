//! File systems that tests mount.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::test_support::output;

/// A mount, until the value is dropped.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    /// Mounts with the `arguments` of mount(8) on `path`. `None` where that is not possible, with the reason.
    pub(super) fn on(path: &Path, arguments: &[&str]) -> Option<Self> {
        let mounted = output(Command::new("mount").args(arguments).arg(path)).unwrap();
        if !mounted.status.success() {
            eprintln!("skipped: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = output(Command::new("umount").arg(&self.0));
    }
}
