//! What is known of an open directory itself: space, identity, mount, times and attributes.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use rustix::fs::{self, AtFlags, IFlags, Mode, OFlags};
use rustix::io::Errno;

use super::removal::mount;
use super::{Attributes, Dir, Times, failed};
use crate::name::FileName;

impl Dir {
    /// Free space on this directory's file system, in bytes.
    fn free_bytes(&self) -> Result<u64> {
        let space = fs::fstatvfs(&self.fd).with_context(|| failed("asking for free space in", &self.path))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Fails early, with the figures, where writing `bytes` would leave less than `reserve` bytes free here.
    ///
    /// # Errors
    /// When it would, or the file system does not tell.
    pub fn check_space(&self, bytes: u64, reserve: u64) -> Result<()> {
        let free = self.free_bytes()?;
        ensure!(
            bytes.saturating_add(reserve) <= free,
            "{bytes} bytes are to be written to {}, which has {free} free, of which {reserve} stay in reserve: \
             free some space",
            self.path.display()
        );
        Ok(())
    }

    /// Refuses a directory on a file system that is read-only, or that holds no files, as proc and sysfs do not.
    ///
    /// # Errors
    /// Which of the two, and the remedy.
    pub fn require_writable(&self) -> Result<()> {
        let found = fs::fstatvfs(&self.fd).with_context(|| failed("asking for free space in", &self.path))?;
        let shown = self.path.display();
        ensure!(
            !found.f_flag.contains(fs::StatVfsMountFlags::RDONLY),
            "destination refused: {shown}: its file system is read-only: remount it, or name another directory"
        );
        ensure!(
            found.f_blocks > 0,
            "destination refused: {shown}: its file system holds no files (proc, sysfs): name another directory"
        );
        Ok(())
    }

    /// Whether this directory and `other` share one file system's space, as far as their device numbers say. On btrfs every
    /// subvolume has a number of its own, so two that share their space count as two file systems: a check of space that then
    /// asks each for its own part passes although both parts together may not fit, and it is the write that fails.
    ///
    /// # Errors
    /// When one of them cannot be looked at.
    pub fn is_on_filesystem_of(&self, other: &Dir) -> Result<bool> {
        let device = |directory: &Dir| {
            anyhow::Ok(
                fs::fstat(&directory.fd).with_context(|| failed("looking at", &directory.path))?.st_dev,
            )
        };
        Ok(device(self)? == device(other)?)
    }

    /// The number that the file system knows `name` by, a symlink not followed; `None` where it is absent.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn inode_of(&self, name: &FileName) -> Result<Option<u64>> {
        match fs::statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| failed("looking at", &self.path.join(name))),
        }
    }

    /// Refuses a directory whose names root cannot change either, for it has the attribute `immutable` or `append only`.
    ///
    /// # Errors
    /// The attribute, and the remedy.
    pub fn require_changeable(&self) -> Result<()> {
        // Not every file system has attributes.
        let attributes = fs::ioctl_getflags(&self.fd).unwrap_or(IFlags::empty());
        ensure!(
            !attributes.intersects(IFlags::IMMUTABLE | IFlags::APPEND),
            "{} has the attribute immutable or append only: clear it with 'chattr -ia'",
            self.path.display()
        );
        Ok(())
    }

    /// Refuses `other` if it is on another mount: no name can be moved or linked from here to there.
    ///
    /// # Errors
    /// When it is, and when one of the two cannot be looked at.
    pub fn require_same_mount(&self, other: &Dir) -> Result<()> {
        ensure!(
            mount(self)? == mount(other)?,
            "something is mounted on {} or above it since the download: unmount it, or install again",
            other.path.display()
        );
        Ok(())
    }

    /// Opens this directory once more.
    ///
    /// # Errors
    /// When it may not be opened.
    pub fn reopen(&self) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, ".", flags, Mode::empty())
            .with_context(|| failed("opening the directory", &self.path))?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// Opens the directory that this one is in, if that is `expected`, as [`place`](Self::place) returned it: somebody may have
    /// moved this one elsewhere.
    ///
    /// # Errors
    /// When it is another one, or may not be opened.
    pub fn up(&self, expected: (u64, u64)) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = self.path.parent().unwrap_or(&self.path).to_owned();
        let fd = fs::openat(&self.fd, "..", flags, Mode::empty())
            .with_context(|| failed("opening the directory", &path))?;
        let above = Self { fd, path };
        ensure!(
            above.place()? == expected,
            "{} was moved by somebody else: end what changes the tree during the update",
            self.path.display()
        );
        Ok(above)
    }

    /// The device and inode of this directory, as long as the device is not booted.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn place(&self) -> Result<(u64, u64)> {
        let stat = fs::fstat(&self.fd).with_context(|| failed("looking at", &self.path))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// The number that the file system knows this directory by, under whatever name.
    ///
    /// # Errors
    /// When the directory cannot be looked at.
    pub fn inode(&self) -> Result<u64> {
        Ok(fs::fstat(&self.fd).with_context(|| failed("looking at", &self.path))?.st_ino)
    }

    /// This directory's own times.
    ///
    /// # Errors
    /// When the directory cannot be looked at.
    pub fn times(&self) -> Result<Times> {
        let stat = fs::fstat(&self.fd).with_context(|| failed("looking at", &self.path))?;
        Ok(Times {
            accessed: (stat.st_atime as _, stat.st_atime_nsec as _),
            modified: (stat.st_mtime as _, stat.st_mtime_nsec as _),
        })
    }

    /// Sets this directory's own times.
    ///
    /// # Errors
    /// When this process may not.
    pub fn set_times(&self, times: Times) -> Result<()> {
        fs::futimens(&self.fd, &times.timestamps())
            .with_context(|| failed("setting the times of", &self.path))
    }

    /// Gives this directory itself `attributes`.
    ///
    /// # Errors
    /// When this process may not, or the file system cannot hold them.
    pub fn set_attributes(&self, attributes: &Attributes) -> Result<()> {
        attributes
            .set_on(&self.fd)
            .with_context(|| failed("giving its owner, mode and attributes to", &self.path))
    }

    /// Gives the file `file`, opened as `name`, `attributes`.
    ///
    /// # Errors
    /// As [`set_attributes`](Self::set_attributes).
    pub fn set_attributes_of_file(
        &self,
        name: &FileName,
        file: &File,
        attributes: &Attributes,
    ) -> Result<()> {
        attributes
            .set_on(file)
            .with_context(|| failed("giving its owner, mode and attributes to", &self.path.join(name)))
    }

    /// Gives `name`, a symlink, FIFO or device file that cannot be opened for it, `attributes`.
    ///
    /// # Errors
    /// As [`set_attributes`](Self::set_attributes).
    pub fn set_attributes_of_name(&self, name: &FileName, attributes: &Attributes) -> Result<()> {
        attributes
            .set_at(&self.fd, name.as_ref())
            .with_context(|| failed("giving its owner, mode and attributes to", &self.path.join(name)))
    }

    /// What this directory is beside what is in it.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn attributes(&self) -> Result<Attributes> {
        Attributes::of(&self.fd).with_context(|| failed("reading owner, mode and attributes of", &self.path))
    }
}
