//! The state of an open directory: space, identity, mount, times and attributes.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use rustix::fs::{self, AtFlags, IFlags, Mode};
use rustix::io::Errno;

use super::attributes::remove_acls;
use super::dir::DIRECTORY;
use super::removal::mount;
use super::{Attributes, Dir, Times, failed};
use crate::name::FileName;

impl Dir {
    /// The free space on this directory's file system, in bytes.
    fn free_bytes(&self) -> Result<u64> {
        let space = fs::fstatvfs(&self.fd).with_context(|| failed("reading the free space of", &self.path))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Checks that `bytes` bytes can be written here and leave `reserve` bytes free.
    ///
    /// # Errors
    /// When they cannot, with the sizes.
    pub fn check_space(&self, bytes: u64, reserve: u64) -> Result<()> {
        let free = self.free_bytes()?;
        ensure!(
            bytes.saturating_add(reserve) <= free,
            "not enough space in {}: {bytes} bytes needed, {free} free, of which {reserve} stay free: free some space",
            self.path.display()
        );
        Ok(())
    }

    /// Refuses a directory on a read-only file system, or on one without files, such as proc and sysfs.
    ///
    /// # Errors
    /// When it is on one, with the remedy.
    pub fn require_writable(&self) -> Result<()> {
        let found = fs::fstatvfs(&self.fd).with_context(|| failed("reading the free space of", &self.path))?;
        let shown = self.path.display();
        ensure!(
            !found.f_flag.contains(fs::StatVfsMountFlags::RDONLY),
            "destination {shown} refused: read-only file system: remount it, or name another directory"
        );
        ensure!(
            found.f_blocks > 0,
            "destination {shown} refused: a file system without files (proc, sysfs): name another directory"
        );
        Ok(())
    }

    /// Removes the ACLs that this directory has inherited, so that nothing in it inherits them.
    pub(super) fn remove_acls(&self) -> Result<()> {
        remove_acls(&self.fd).with_context(|| failed("removing the ACLs of", &self.path))
    }

    /// Whether this directory and `other` have the same device number. On btrfs, subvolumes with different numbers
    /// share their space: a check of each one's space may pass although both together do not fit, and then the write
    /// fails.
    pub fn is_on_filesystem_of(&self, other: &Dir) -> Result<bool> {
        let device = |directory: &Dir| {
            anyhow::Ok(fs::fstat(&directory.fd).with_context(|| failed("reading", &directory.path))?.st_dev)
        };
        Ok(device(self)? == device(other)?)
    }

    /// The inode number of `name`, without following a symlink; `None` if it does not exist.
    pub fn inode_of(&self, name: &FileName) -> Result<Option<u64>> {
        match fs::statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| failed("reading", &self.path.join(name))),
        }
    }

    /// Refuses a directory with the attribute immutable or append-only, in which even root cannot change names.
    ///
    /// # Errors
    /// When it has one, with the remedy.
    pub fn require_changeable(&self) -> Result<()> {
        // Not every file system supports these attributes.
        let attributes = fs::ioctl_getflags(&self.fd).unwrap_or(IFlags::empty());
        ensure!(
            !attributes.intersects(IFlags::IMMUTABLE | IFlags::APPEND),
            "{} refused: immutable or append-only: run chattr -ia on it",
            self.path.display()
        );
        Ok(())
    }

    /// Refuses `other` if it is on another mount, to which files cannot be renamed or linked.
    ///
    /// # Errors
    /// When it is on another mount.
    pub fn require_same_mount(&self, other: &Dir) -> Result<()> {
        ensure!(
            mount(self)? == mount(other)?,
            "{} refused: {} is on another mount: unmount the file system that is mounted on one of them",
            self.path.display(),
            other.path.display()
        );
        Ok(())
    }

    /// Refuses a file system on which a [`DirectoryExchange`](super::DirectoryExchange) cannot be rolled back after a
    /// power loss: overlayfs, vfat and exfat, whose inode numbers change with a boot. On overlayfs, a directory of a
    /// lower layer cannot be renamed either. `remedy` ends the message.
    ///
    /// # Errors
    /// When it is on one.
    pub fn require_exchange(&self, remedy: &str) -> Result<()> {
        ensure!(self.keeps_inodes()?, "overlayfs, vfat and exfat cannot exchange directories: {remedy}");
        Ok(())
    }

    /// Checks that the file system can exchange two names: the directory `name` in this directory, and one that it
    /// makes and removes.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_exchange(&self, name: &FileName) -> Result<()> {
        let trial = FileName::new("trial")?;
        self.make_child(&trial, 0o700)?;
        self.exchange(name, self, &trial)?;
        // Undo the exchange: the caller may know the directory by its inode number.
        self.exchange(name, self, &trial)?;
        super::remove_empty_dir(&self.path.join(&trial))
    }

    /// Opens this directory again.
    pub fn reopen(&self) -> Result<Self> {
        let fd = fs::openat(&self.fd, ".", DIRECTORY, Mode::empty())
            .with_context(|| failed("opening the directory", &self.path))?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// Opens the parent directory, which has to be `expected`, a result of
    /// [`device_and_inode`](Self::device_and_inode).
    ///
    /// # Errors
    /// When it is another directory, because this one was moved.
    pub fn up(&self, expected: (u64, u64)) -> Result<Self> {
        let path = self.path.parent().unwrap_or(&self.path).to_owned();
        let fd = fs::openat(&self.fd, "..", DIRECTORY, Mode::empty())
            .with_context(|| failed("opening the directory", &path))?;
        let above = Self { fd, path };
        ensure!(
            above.device_and_inode()? == expected,
            "{} refused: another program moved it: stop programs that change the tree during an update",
            self.path.display()
        );
        Ok(above)
    }

    /// The numbers of device and inode, which are valid until the next boot.
    pub fn device_and_inode(&self) -> Result<(u64, u64)> {
        let stat = fs::fstat(&self.fd).with_context(|| failed("reading", &self.path))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// The inode number.
    pub fn inode(&self) -> Result<u64> {
        Ok(fs::fstat(&self.fd).with_context(|| failed("reading", &self.path))?.st_ino)
    }

    /// The times of this directory.
    pub fn times(&self) -> Result<Times> {
        let stat = fs::fstat(&self.fd).with_context(|| failed("reading", &self.path))?;
        Ok(Times {
            accessed: (stat.st_atime as _, stat.st_atime_nsec as _),
            modified: (stat.st_mtime as _, stat.st_mtime_nsec as _),
        })
    }

    /// Sets the times of this directory.
    pub fn set_times(&self, times: Times) -> Result<()> {
        fs::futimens(&self.fd, &times.timestamps()).with_context(|| failed("setting the times of", &self.path))
    }

    /// Sets the attributes of this directory.
    ///
    /// # Errors
    /// When the process has no permission, or the file system does not support an attribute.
    pub fn set_attributes(&self, attributes: &Attributes) -> Result<()> {
        attributes.set_on(&self.fd).with_context(|| failed("setting the attributes of", &self.path))
    }

    /// Sets the attributes of the open file `file`, whose name is `name`.
    pub fn set_attributes_of_file(&self, name: &FileName, file: &File, attributes: &Attributes) -> Result<()> {
        attributes.set_on(file).with_context(|| failed("setting the attributes of", &self.path.join(name)))
    }

    /// Sets the attributes of `name`, a symlink, FIFO or device file, which cannot be opened.
    pub fn set_attributes_of_name(&self, name: &FileName, attributes: &Attributes) -> Result<()> {
        attributes
            .set_at(&self.fd, name.as_ref())
            .with_context(|| failed("setting the attributes of", &self.path.join(name)))
    }

    /// The attributes of this directory.
    pub fn attributes(&self) -> Result<Attributes> {
        Attributes::of(&self.fd).with_context(|| failed("reading the attributes of", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;

    use super::*;

    #[test]
    fn a_directory_that_was_moved_leads_up_to_no_other_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std_fs::create_dir_all(path("a/b")).unwrap();
        std_fs::create_dir(path("other")).unwrap();
        let above = Dir::open(&path("a")).unwrap().device_and_inode().unwrap();
        let below = Dir::open(&path("a/b")).unwrap();
        assert_eq!(below.up(above).unwrap().device_and_inode().unwrap(), above);
        std_fs::rename(path("a/b"), path("other/b")).unwrap();
        let error = format!("{:#}", below.up(above).map(drop).unwrap_err());
        assert!(error.contains("another program moved it"), "{error}");
    }
}
