//! What tests change as root: mounts, and attributes of files.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

/// A mounted file system. Unmounted when it is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a tmpfs at `path`, an existing directory, with the `options` of mount(8).
    ///
    /// # Errors
    /// When this process may not mount, as root in many containers.
    pub fn tmpfs(path: &Path, options: &str) -> Result<Self> {
        let options = CString::new(options)?;
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))
            .with_context(|| format!("mounting {} failed", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Mounts `path` on itself.
    ///
    /// # Errors
    /// When this process may not mount, as root in many containers.
    pub fn on_itself(path: &Path) -> Result<Self> {
        mount_bind(path, path).with_context(|| format!("mounting {} failed", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::empty());
    }
}

/// Changes an attribute of `path` with chattr(1). Says why and returns `false` if that fails: not every file system
/// supports it.
pub fn change_attribute(change: &str, path: &Path) -> bool {
    let failure = match Command::new("chattr").arg(change).arg(path).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("starting chattr failed: {error}"),
    };
    eprintln!("skipped: {failure}");
    false
}
