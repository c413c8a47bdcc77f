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
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

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

    fn example() -> (tempfile::TempDir, Dir) {
        let directory = tempfile::tempdir().unwrap();
        let opened = Dir::open(directory.path()).unwrap();
        (directory, opened)
    }

    #[test]
    fn space_is_enough_or_the_sizes_are_named() {
        let (_directory, opened) = example();
        opened.check_space(1, 0).unwrap();
        opened.check_space(0, 1 << 10).unwrap();
        // Other programs write to the file system meanwhile, but not the half of it.
        let half = opened.free_bytes().unwrap() / 2;
        opened.check_space(half, 0).unwrap();
        for (bytes, reserve) in [(4 * half, 0), (0, 4 * half), (3 * half / 2, 3 * half / 2), (u64::MAX, u64::MAX)] {
            let error = opened.check_space(bytes, reserve).unwrap_err().to_string();
            assert!(error.contains(&format!("{bytes} bytes needed")) && error.contains("free some space"), "{error}");
        }
    }

    #[test]
    fn another_file_system_is_recognized() {
        let (directory, opened) = example();
        let proc = Dir::open(Path::new("/proc")).unwrap();
        let below = Dir::make(&directory.path().join("below"), 0o700).unwrap();
        assert!(opened.is_on_filesystem_of(&below).unwrap() && !opened.is_on_filesystem_of(&proc).unwrap());
        opened.require_same_mount(&below).unwrap();
        let error = opened.require_same_mount(&proc).unwrap_err().to_string();
        assert!(error.contains("/proc is on another mount"), "{error}");
        opened.require_writable().unwrap();
        let error = proc.require_writable().unwrap_err().to_string();
        assert!(error.contains("destination /proc refused"), "{error}");
        opened.require_changeable().unwrap();
    }

    #[test]
    fn a_directory_in_which_names_cannot_change_is_refused() {
        for flag in [IFlags::IMMUTABLE, IFlags::APPEND] {
            let (_directory, opened) = example();
            let before = fs::ioctl_getflags(&opened.fd);
            let set = before.and_then(|flags| fs::ioctl_setflags(&opened.fd, flags | flag));
            if let Err(error) = set {
                return eprintln!("skipped: no immutable directories: {error}");
            }
            let refused = opened.require_changeable();
            fs::ioctl_setflags(&opened.fd, before.unwrap()).unwrap();
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("refused: immutable or append-only: run chattr -ia"), "{error}");
        }
    }

    #[test]
    fn the_numbers_of_a_directory_are_those_of_the_kernel() {
        let (directory, opened) = example();
        let name = |name: &str| FileName::new(name).unwrap();
        let meta = std_fs::metadata(directory.path()).unwrap();
        assert_eq!(opened.device_and_inode().unwrap(), (meta.dev(), meta.ino()));
        assert_eq!(opened.inode().unwrap(), meta.ino());
        std_fs::write(directory.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", directory.path().join("link")).unwrap();
        for entry in ["file", "link"] {
            let inode = std_fs::symlink_metadata(directory.path().join(entry)).unwrap().ino();
            assert_eq!(opened.inode_of(&name(entry)).unwrap(), Some(inode), "{entry}");
        }
        assert_eq!(opened.inode_of(&name("absent")).unwrap(), None);
        assert!(opened.inode_of(&name(&"x".repeat(300))).is_err());
        assert_eq!(opened.reopen().unwrap().device_and_inode().unwrap(), (meta.dev(), meta.ino()));
    }

    #[test]
    fn the_exchange_is_tried_without_a_trace() {
        let (directory, opened) = example();
        let name = FileName::new("active").unwrap();
        assert!(opened.check_exchange(&name).is_err(), "no such directory");
        std_fs::remove_dir(directory.path().join("trial")).unwrap();
        let active = opened.make_child(&name, 0o700).unwrap().inode().unwrap();
        opened.check_exchange(&name).unwrap();
        assert_eq!(opened.inode_of(&name).unwrap(), Some(active));
        assert_eq!(opened.names().unwrap(), [name]);
    }

    #[test]
    fn attributes_and_times_are_set() {
        let (directory, opened) = example();
        let [file, link] = ["file", "link"].map(|name| FileName::new(name).unwrap());
        let of_file = opened.create_file(&file).unwrap();
        opened.symlink(&link, Path::new("file")).unwrap();
        let times = Times { accessed: (3, 4), modified: (5, 6) };
        opened.set_times(times).unwrap();
        assert_eq!(opened.times().unwrap(), times);
        let attributes = Attributes { mode: 0o750, modified: (7, 8), ..opened.attributes().unwrap() };
        opened.set_attributes(&attributes).unwrap();
        opened.set_attributes_of_file(&file, &of_file, &attributes).unwrap();
        opened.set_attributes_of_name(&link, &attributes).unwrap();
        assert_eq!(opened.times().unwrap(), Times { accessed: (3, 4), modified: (7, 8) });
        assert_eq!(opened.attributes().unwrap(), attributes);
        for (name, mode) in [("file", 0o750), ("link", 0o777)] {
            let found = std_fs::symlink_metadata(directory.path().join(name)).unwrap();
            assert_eq!((found.mode() & 0o7777, found.mtime(), found.mtime_nsec()), (mode, 7, 8), "{name}");
        }
    }
}
