//! A file system whose storage loses writes.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// The size of the storage, in MiB.
const STORAGE: u64 = 16;

/// The size of the file system in it, in MiB. The repaired storage has twice as much.
const FILE_SYSTEM: u64 = 64;

/// An ext4 file system in a file on a tmpfs that has too little space for it: the kernel takes writes, and some fail
/// when they reach the storage. Unmounted when it is dropped.
pub struct FailingStorage {
    directory: TempDir,
    mounted: PathBuf,
}

impl FailingStorage {
    /// Mounts the file system at `mounted`, an existing directory.
    ///
    /// # Errors
    /// When this process may not mount, or the kernel has no loop device.
    pub fn mount(mounted: &Path) -> Result<Self> {
        let this = Self { directory: tempfile::tempdir()?, mounted: mounted.to_owned() };
        let storage = this.directory.path();
        let size = CString::new(format!("size={STORAGE}m"))?;
        mount("tmpfs", storage, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))
            .with_context(|| format!("mounting {} failed", storage.display()))?;
        let image = storage.join("image");
        File::create(&image)?.set_len(FILE_SYSTEM << 20)?;
        let features = ["-O", "^has_journal", "-E", "lazy_itable_init=1"];
        run(Command::new("mkfs.ext4").arg("-q").args(features).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).args([&image, mounted]))?;
        Ok(this)
    }

    /// The shell command that writes more to `file` than the storage has space for. It succeeds.
    pub fn writing_too_much(file: &Path) -> String {
        format!("head --bytes {}M /dev/zero >'{}'", 2 * STORAGE, file.display())
    }

    /// Writes more than the storage has space for, and waits until it has failed.
    ///
    /// # Errors
    /// When the kernel does not take the write, or the storage does.
    pub fn lose_a_write(&self) -> Result<()> {
        let mut file = File::create(self.mounted.join("lost"))?;
        let megabyte = vec![1; 1 << 20];
        (0..2 * STORAGE).try_for_each(|_| file.write_all(&megabyte)).context("writing failed")?;
        ensure!(file.sync_all().is_err(), "nothing was lost: the storage has space");
        Ok(())
    }

    /// Gives the storage space for all of the file system: later writes succeed.
    pub fn repair(&self) -> Result<()> {
        run(Command::new("sh").args(["-c", &self.repairing()]))
    }

    /// The shell command that does what [`repair`](Self::repair) does.
    pub fn repairing(&self) -> String {
        format!("mount --options remount,size={}m '{}'", 2 * FILE_SYSTEM, self.directory.path().display())
    }
}

impl Drop for FailingStorage {
    fn drop(&mut self) {
        for mounted in [&*self.mounted, self.directory.path()] {
            // Fails where it was not mounted.
            let _ = unmount(mounted, UnmountFlags::DETACH);
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting {program} failed"))?;
    ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
