//! A file system whose storage loses writes.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs, syncfs};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::privileged::or_skipped;

/// The size of the storage, in MiB.
const STORAGE: u64 = 16;

/// The size of the file system in it, in MiB. The repaired storage has twice as much.
const FILE_SYSTEM: u64 = 64;

/// The size of its blocks in bytes: of a page, so that each of them takes space by itself.
const BLOCK: usize = 4096;

/// An ext4 file system in a file on a tmpfs that has too little space for it: the kernel takes writes, and some fail
/// when they reach the storage. Unmounted when it is dropped.
pub struct FailingStorage {
    directory: TempDir,
    mounted: PathBuf,
}

impl FailingStorage {
    /// Mounts the file system at `mounted`, an existing directory. Says why and returns `None` if this process may not
    /// mount, or the kernel has no loop device.
    pub fn mount(mounted: &Path) -> Option<Self> {
        or_skipped(Self::try_mount(mounted))
    }

    fn try_mount(mounted: &Path) -> Result<Self> {
        let this = Self { directory: tempfile::tempdir()?, mounted: mounted.to_owned() };
        let storage = this.directory.path();
        let size = CString::new(format!("size={STORAGE}m"))?;
        mount("tmpfs", storage, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))
            .with_context(|| format!("mounting {} failed", storage.display()))?;
        let image = this.image();
        File::create(&image)?.set_len(FILE_SYSTEM << 20)?;
        let features = ["-O", "^has_journal", "-E", "lazy_itable_init=1", "-b", &BLOCK.to_string()];
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

    /// Changes a file that begins with `content` to begin with `other`, in the storage alone: what the kernel has in
    /// memory stays.
    ///
    /// # Errors
    /// When not exactly one file begins with `content`, or it was not synced.
    pub fn damage(&self, content: &[u8], other: &[u8]) -> Result<()> {
        let number = self.only_block("begins with", content, |block| block.starts_with(content))?;
        Ok(File::options().write(true).open(self.image())?.write_all_at(other, number * BLOCK as u64)?)
    }

    /// Lets later writes of the block with `content` fail, for example of a directory with this name. The file system
    /// must not be used any more after such a write.
    ///
    /// # Errors
    /// When not exactly one block has `content`.
    pub fn refuse_writes_of(&self, content: &[u8]) -> Result<()> {
        syncfs(File::open(&self.mounted)?)?;
        let number = self.only_block("has", content, |block| {
            *block != [0; BLOCK] && block.windows(content.len()).any(|part| part == content)
        })?;
        // A later write of the block needs space again, which the storage does not have.
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(File::options().write(true).open(self.image())?, hole, number * BLOCK as u64, BLOCK as u64)?;
        let space = statvfs(self.directory.path())?;
        let used = (space.f_blocks - space.f_bfree) * space.f_frsize;
        run(Command::new("mount").arg(format!("--options=remount,size={used}")).arg(self.directory.path()))
    }

    /// The number of the only stored block for which `wanted` is true.
    fn only_block(&self, what: &str, content: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Result<u64> {
        let stored = fs::read(self.image())?;
        let found: Vec<_> = (0..).zip(stored.chunks(BLOCK)).filter(|(_, block)| wanted(block)).collect();
        let &[(number, _)] = &found[..] else {
            bail!("{} blocks instead of one: {what} {:?}", found.len(), String::from_utf8_lossy(content));
        };
        Ok(number)
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
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
