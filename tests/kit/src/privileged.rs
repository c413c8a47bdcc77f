//! What tests change as root: mounts, and attributes of files.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

/// A mounted file system. Unmounted when it is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a tmpfs at `path` with the `options` of mount(8). Creates the directory `path` if it is missing. Says why
    /// and returns `None` if this process may not mount, as root in many containers.
    ///
    /// # Panics
    /// When the directory cannot be created, or for any other error of the mount: those are errors of the test.
    pub fn tmpfs(path: &Path, options: &str) -> Option<Self> {
        Self::of_type("tmpfs", path, options, &[])
    }

    /// Mounts an overlay at `layers/merged`, of the directories `layers/lower` and `layers/upper`. Creates those that
    /// are missing. Says why and returns `None` if this process may not mount, or if the kernel refuses an overlay on
    /// this file system.
    ///
    /// # Panics
    /// As [`Mounted::tmpfs`].
    pub fn overlay(layers: &Path) -> Option<Self> {
        for name in ["lower", "upper", "work"] {
            fs::create_dir_all(layers.join(name)).expect("the directory of a layer can be created");
        }
        let directory = fs::File::open(layers).expect("the directory of the layers can be opened");
        // The kernel splits the options at commas and colons, which `layers` may contain.
        let shown = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let options = format!("lowerdir={shown}/lower,upperdir={shown}/upper,workdir={shown}/work");
        Self::of_type("overlay", &layers.join("merged"), &options, &[Errno::INVAL])
    }

    /// Mounts a file system of the type `name`. The errors `refused` are a reason to skip a test, too.
    fn of_type(name: &str, path: &Path, options: &str, refused: &[Errno]) -> Option<Self> {
        fs::create_dir_all(path).expect("the directory of a mount can be created");
        let options = CString::new(options).expect("options of a mount have no zero byte");
        Self::at(path, mount(name, path, name, MountFlags::empty(), Some(options.as_c_str())), refused)
    }

    /// Mounts `source` at `path`. Says why and returns `None` if this process may not mount.
    ///
    /// # Panics
    /// For any other error, which is one of the test.
    pub fn bind(source: &Path, path: &Path) -> Option<Self> {
        Self::at(path, mount_bind(source, path), &[])
    }

    /// Mounts `path` on itself. Says why and returns `None` if this process may not mount.
    pub fn on_itself(path: &Path) -> Option<Self> {
        Self::bind(path, path)
    }

    /// The mount at `path`, or `None` with the reason for an error that a system may give: one of `refused`, or that
    /// this process may not mount.
    ///
    /// # Panics
    /// For any other error, which is one of the test.
    fn at(path: &Path, mounted: rustix::io::Result<()>, refused: &[Errno]) -> Option<Self> {
        let may_be = |error| [Errno::PERM, Errno::ACCESS, Errno::NODEV].contains(error) || refused.contains(error);
        assert!(mounted.as_ref().map_or_else(may_be, |()| true), "mounting {} failed: {mounted:?}", path.display());
        let mounted = mounted.with_context(|| format!("mounting {} failed", path.display()));
        or_skipped(mounted.map(|()| Self(path.to_owned())))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::empty());
    }
}

/// Returns what a test needs, or says why this system cannot give it and returns `None`.
pub fn or_skipped<T>(needed: Result<T>) -> Option<T> {
    needed.inspect_err(|error| eprintln!("skipped: {error:#}")).ok()
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
