//! An open directory, and operations on names in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{self, Advice, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::attributes::require_account;
use super::trust::changeable_itself;
use super::{Kind, Node, failed};
use crate::log;
use crate::name::FileName;

/// Opens without following a symlink; programs do not inherit what is open.
pub(super) const NO_SYMLINK: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Opens a directory and nothing else.
pub(super) const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Opens a directory without following a symlink.
pub(super) const EXACT_DIRECTORY: OFlags = DIRECTORY.union(NO_SYMLINK);

/// Opens a directory, which needs no read permission, to look up names in it.
const LOOKUP: OFlags = EXACT_DIRECTORY.union(OFlags::PATH);

/// Makes a file that does not exist.
const NEW_FILE: OFlags = NO_SYMLINK.union(OFlags::WRONLY).union(OFlags::CREATE).union(OFlags::EXCL);

/// The largest number of directories that were moved aside beside each other.
const ASIDE_MAX: u32 = 100;

/// An open directory. It stays the same directory if its path changes.
///
/// ```
/// use mender_update_module::FileName;
/// use mender_update_module::durable::{Dir, Kind};
///
/// # let temporary = tempfile::tempdir()?;
/// let directory = Dir::open(temporary.path())?;
/// let name = FileName::new("app.conf")?;
/// directory.create_file(&name)?;
/// directory.sync()?;
/// assert_eq!(directory.kind(&name)?, Some(Kind::File));
/// # anyhow::Ok(())
/// ```
pub struct Dir {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl Dir {
    /// Opens the directory `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, DIRECTORY)
    }

    /// Opens the directory at the absolute path `path`, component by component, without following symlinks.
    ///
    /// # Errors
    /// When a component does not exist, is a symlink, or is not a directory.
    pub fn open_exact(path: &Path) -> Result<Self> {
        ensure!(
            path.is_absolute() && !path.components().any(|part| part == Component::ParentDir),
            "invalid path {}: use an absolute path without '..'",
            path.display()
        );
        let opening = |error: Errno| {
            let cause = match error {
                Errno::LOOP | Errno::NOTDIR => " (a component is a symlink or not a directory)",
                _ => "",
            };
            format!("opening the directory {} failed{cause}", path.display())
        };
        let mut fd = fs::open("/", LOOKUP, Mode::empty()).context("opening the directory / failed")?;
        for part in path.components() {
            if let Component::Normal(name) = part {
                fd = fs::openat(&fd, name, LOOKUP, Mode::empty())
                    .map_err(|error| anyhow::Error::new(error).context(opening(error)))?;
            }
        }
        let fd =
            fs::openat(&fd, ".", DIRECTORY, Mode::empty()).with_context(|| failed("opening the directory", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    fn open_with(path: &Path, flags: OFlags) -> Result<Self> {
        let fd = fs::open(path, flags, Mode::empty()).with_context(|| failed("opening the directory", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens the directory `name` in this one, without following a symlink.
    pub fn child(&self, name: &FileName) -> Result<Self> {
        let path = self.path.join(name);
        let fd = fs::openat(&self.fd, name.as_ref(), EXACT_DIRECTORY, Mode::empty()).map_err(|error| {
            let cause = match error {
                Errno::LOOP | Errno::NOTDIR => " (a symlink or not a directory)",
                _ => "",
            };
            anyhow::Error::new(error).context(format!("opening the directory {} failed{cause}", path.display()))
        })?;
        Ok(Self { fd, path })
    }

    /// Makes the directory `name` with exactly the permissions `mode`, and opens it.
    ///
    /// # Errors
    /// When `name` exists, or cannot be made.
    pub fn make_child(&self, name: &FileName, mode: u32) -> Result<Self> {
        fs::mkdirat(&self.fd, name.as_ref(), Mode::RWXU)
            .with_context(|| failed("making the directory", &self.path.join(name)))?;
        let directory = self.child(name)?;
        directory.set_mode(mode)?;
        Ok(directory)
    }

    /// Opens the directory `path`, after making it with exactly the permissions `mode` if it does not exist.
    pub fn make(path: &Path, mode: u32) -> Result<Self> {
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| failed("making the directory", path)),
        }
        // Another process may have made a symlink of this name meanwhile.
        let directory = Self::open_with(path, EXACT_DIRECTORY)?;
        directory.set_mode(mode)?;
        Ok(directory)
    }

    /// Sets the permissions of this directory to exactly `mode`; mkdir(2) applies the umask.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        fs::fchmod(&self.fd, Mode::from_raw_mode(mode)).with_context(|| failed("setting the mode of", &self.path))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The path with which this directory was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `visit` for each name in this directory, without `.` and `..`, in the order of the file system.
    pub fn for_each_name(&self, mut visit: impl FnMut(&FileName) -> Result<()>) -> Result<()> {
        let listing = || failed("listing the directory", &self.path);
        for entry in fs::Dir::read_from(&self.fd).with_context(listing)? {
            let entry = entry.with_context(listing)?;
            // All entries but `.` and `..` are valid file names.
            if let Ok(name) = FileName::new(OsStr::from_bytes(entry.file_name().to_bytes())) {
                visit(&name)?;
            }
        }
        Ok(())
    }

    /// Refuses this directory if others than root and the user of this process may write to it.
    ///
    /// # Errors
    /// When others may, with the remedy.
    pub fn require_private(&self) -> Result<()> {
        let stat = fs::fstat(&self.fd).with_context(|| failed("reading", &self.path))?;
        match changeable_itself(&self.path, &stat) {
            Some(reason) => bail!("{} refused: not trusted: {reason}", self.path.display()),
            None => Ok(()),
        }
    }

    /// The names in this directory, without `.` and `..`, sorted by bytes.
    pub fn names(&self) -> Result<Vec<FileName>> {
        let listing = || -> io::Result<Vec<FileName>> {
            let mut names = Vec::new();
            for entry in fs::Dir::read_from(&self.fd)? {
                // All entries but `.` and `..` are valid file names.
                names.extend(FileName::new(OsStr::from_bytes(entry?.file_name().to_bytes())));
            }
            names.sort();
            Ok(names)
        };
        listing().with_context(|| failed("listing the directory", &self.path))
    }

    /// The type of the entry `name`, without following a symlink; `None` if it does not exist.
    pub fn kind(&self, name: &FileName) -> Result<Option<Kind>> {
        match fs::statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Kind::Directory,
                FileType::RegularFile => Kind::File,
                _ => Kind::Other,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| failed("reading", &self.path.join(name))),
        }
    }

    /// Makes the file `name` with mode 0600, open for writing.
    ///
    /// # Errors
    /// When `name` exists, or cannot be made.
    pub fn create_file(&self, name: &FileName) -> Result<File> {
        let fd = fs::openat(&self.fd, name.as_ref(), NEW_FILE, Mode::RUSR | Mode::WUSR)
            .with_context(|| failed("making the file", &self.path.join(name)))?;
        Ok(File::from(fd))
    }

    /// Opens the file `name` for reading, without following a symlink and without blocking on a FIFO.
    pub fn open_for_reading(&self, name: &FileName) -> Result<File> {
        let fd = fs::openat(&self.fd, name.as_ref(), NO_SYMLINK.union(OFlags::NONBLOCK), Mode::empty())
            .with_context(|| failed("opening", &self.path.join(name)))?;
        Ok(File::from(fd))
    }

    /// Opens the regular file `name` for reading from storage: its synced pages are dropped from the page cache.
    pub fn open_from_storage(&self, name: &FileName) -> Result<File> {
        let fd = fs::openat(&self.fd, name.as_ref(), NO_SYMLINK, Mode::empty())
            .with_context(|| failed("opening", &self.path.join(name)))?;
        // Only advice: if the kernel ignores it, the read is still correct.
        let _ = fs::fadvise(&fd, 0, None, Advice::DontNeed);
        Ok(File::from(fd))
    }

    /// Sets owner, group and permissions of the open file `file`, whose name is `name`.
    pub fn set_owner_and_mode(&self, name: &FileName, file: &File, owner: u32, group: u32, mode: u32) -> Result<()> {
        let set = || -> io::Result<()> {
            require_account(owner, group)?;
            fs::fchown(file, Some(Uid::from_raw(owner)), Some(Gid::from_raw(group)))?;
            Ok(fs::fchmod(file, Mode::from_raw_mode(mode))?)
        };
        set().with_context(|| {
            let path = self.path.join(name);
            format!("setting the owner {owner}:{group} and mode {mode:04o} of {} failed", path.display())
        })
    }

    /// Makes a hard link to the file `name`, with the same name, in `into`. A link that exists already stays.
    ///
    /// # Errors
    /// When `name` does not exist, is immutable, or is on a file system without hard links.
    pub fn link(&self, name: &FileName, into: &Dir) -> Result<()> {
        match self.try_link(name, into, name) {
            Err(Errno::EXIST) => Ok(()),
            linked => linked.with_context(|| {
                format!(
                    "making a hard link to {} in {} failed (an immutable file, a mount point, or a file system without hard \
                     links)",
                    self.path.join(name).display(),
                    into.path.display()
                )
            }),
        }
    }

    /// Makes the hard link `new_name` in `into` to the file `name`.
    ///
    /// # Errors
    /// As [`link`](Self::link), and when `new_name` exists.
    pub fn link_as(&self, name: &FileName, into: &Dir, new_name: &FileName) -> Result<()> {
        self.try_link(name, into, new_name).with_context(|| {
            format!(
                "making the hard link {} to {} failed",
                into.path.join(new_name).display(),
                self.path.join(name).display()
            )
        })
    }

    fn try_link(&self, name: &FileName, into: &Dir, new_name: &FileName) -> rustix::io::Result<()> {
        fs::linkat(&self.fd, name.as_ref(), &into.fd, new_name.as_ref(), AtFlags::empty())
    }

    /// Makes the symlink `name` to `target`.
    ///
    /// # Errors
    /// When `name` exists, or cannot be made.
    pub fn symlink(&self, name: &FileName, target: &Path) -> Result<()> {
        fs::symlinkat(target, &self.fd, name.as_ref())
            .with_context(|| failed("making the symlink", &self.path.join(name)))
    }

    /// Makes the FIFO or device file `name` with mode 0600.
    ///
    /// # Errors
    /// When `name` exists, or cannot be made.
    pub fn make_node(&self, name: &FileName, node: Node) -> Result<()> {
        let (kind, device) = match node {
            Node::Fifo => (FileType::Fifo, 0),
            Node::Character { major, minor } => (FileType::CharacterDevice, fs::makedev(major, minor)),
            Node::Block { major, minor } => (FileType::BlockDevice, fs::makedev(major, minor)),
        };
        fs::mknodat(&self.fd, name.as_ref(), kind, Mode::RUSR | Mode::WUSR, device)
            .with_context(|| failed("making the FIFO or device file", &self.path.join(name)))
    }

    /// Renames `name` to `new_name` in `into`, and replaces a file of that name.
    ///
    /// # Errors
    /// When `name` does not exist, `new_name` is a directory, or the directories are on different mounts.
    pub fn rename(&self, name: &FileName, into: &Dir, new_name: &FileName) -> Result<()> {
        self.rename_with(name, into, new_name, RenameFlags::empty())
    }

    /// Renames `name` to `new_name` in `into`, without replacing anything.
    ///
    /// # Errors
    /// As [`rename`](Self::rename), and when `new_name` exists.
    pub fn rename_to_free(&self, name: &FileName, into: &Dir, new_name: &FileName) -> Result<()> {
        self.rename_with(name, into, new_name, RenameFlags::NOREPLACE)
    }

    /// Renames the directory `name`, where the previous version has none, to the first free name of `NAME.aside-1`,
    /// `NAME.aside-2`, …, and logs that.
    ///
    /// # Errors
    /// When it cannot be renamed, or no name is free.
    pub fn move_aside(&self, name: &FileName) -> Result<()> {
        let path = self.path.join(name);
        let moving = || format!("moving {} aside failed: move it away by hand", path.display());
        let aside = self.free_name(name).with_context(moving)?;
        // Before the rename: after a power loss between them, nobody would say where the directory is.
        log!(
            "moving aside: {} to {}: the previous version has no directory there: check its content, and remove it",
            path.display(),
            self.path.join(&aside).display()
        );
        self.rename_to_free(name, self, &aside).with_context(moving)
    }

    /// The first free name of a directory that is moved aside.
    fn free_name(&self, name: &FileName) -> Result<FileName> {
        for number in 1..=ASIDE_MAX {
            let mut aside = name.as_ref().as_os_str().to_owned();
            aside.push(format!(".aside-{number}"));
            let aside = FileName::new(aside)?;
            if self.kind(&aside)?.is_none() {
                return Ok(aside);
            }
        }
        bail!("{ASIDE_MAX} others are beside it")
    }

    /// Exchanges `name` and `other` in `into` atomically.
    ///
    /// # Errors
    /// When one does not exist or is a mount point, or the file system does not support it. ext4, xfs, btrfs, f2fs,
    /// ubifs and tmpfs do.
    pub fn exchange(&self, name: &FileName, into: &Dir, other: &FileName) -> Result<()> {
        self.rename_with(name, into, other, RenameFlags::EXCHANGE)
            .context("exchanging two names failed (RENAME_EXCHANGE)")
    }

    fn rename_with(&self, name: &FileName, into: &Dir, new_name: &FileName, how: RenameFlags) -> Result<()> {
        let renamed = fs::renameat_with(&self.fd, name.as_ref(), &into.fd, new_name.as_ref(), how);
        let remedy = match renamed {
            Err(Errno::BUSY) => " (if a file system is mounted on one of them, unmount it)",
            // rename(2) returns it for project quotas and fscrypt policies as well.
            Err(Errno::XDEV) => {
                " (if they are on different mounts, unmount the file system that is mounted on one of them; if they have \
                 different project quotas or encryption policies, give them the same)"
            }
            _ => "",
        };
        renamed.with_context(|| {
            let (from, to) = (self.path.join(name), into.path.join(new_name));
            format!("renaming {} to {} failed{remedy}", from.display(), to.display())
        })
    }

    /// Removes the file `name`. A file that does not exist is not an error.
    ///
    /// # Errors
    /// When it is a directory, or cannot be removed.
    pub fn remove(&self, name: &FileName) -> Result<()> {
        match fs::unlinkat(&self.fd, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).with_context(|| failed("removing", &self.path.join(name))),
        }
    }

    /// Makes the names in this directory durable.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn sync(&self) -> Result<()> {
        fs::fsync(&self.fd).with_context(|| failed("syncing the directory", &self.path))
    }

    /// Makes everything on this directory's file system durable, with one flush.
    ///
    /// # Errors
    /// When the storage fails, or has failed since this directory was opened.
    pub fn sync_filesystem(&self) -> Result<()> {
        fs::syncfs(&self.fd).with_context(|| failed("syncing the file system of", &self.path))
    }
}

#[cfg(test)]
mod tests;
