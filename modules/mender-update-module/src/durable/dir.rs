//! An open directory and what can be done to one name in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{self, Advice, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::attributes::require_account;
use super::trust::changeable_itself;
use super::{Kind, Node, failed};
use crate::name::FileName;

/// An open directory. It stays the same directory even when somebody renames it meanwhile.
pub struct Dir {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl Dir {
    /// Opens the directory `path`.
    ///
    /// # Errors
    /// When it does not exist, is no directory, or may not be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, OFlags::empty())
    }

    /// Opens the directory `path`, an absolute path, component by component: no symlink anywhere on it is followed.
    ///
    /// # Errors
    /// When a component is missing, a symlink, or no directory.
    pub fn open_exact(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opening = |error: Errno| {
            let cause = match error {
                Errno::LOOP | Errno::NOTDIR => {
                    " (a part of it is a symlink, which is not followed, or no directory)"
                }
                _ => "",
            };
            format!("opening the directory {}{cause}", path.display())
        };
        let mut fd = fs::open("/", flags | OFlags::PATH, Mode::empty()).context("opening the directory /")?;
        for part in path.components() {
            match part {
                Component::RootDir => {}
                // O_PATH: to search a directory on the way takes no permission to read it.
                Component::Normal(name) => {
                    fd = fs::openat(&fd, name, flags | OFlags::PATH, Mode::empty())
                        .map_err(|error| anyhow::Error::new(error).context(opening(error)))?;
                }
                _ => bail!("{} is no absolute path without '..'", path.display()),
            }
        }
        let fd = fs::openat(&fd, ".", flags | OFlags::RDONLY, Mode::empty())
            .with_context(|| failed("opening the directory", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    fn open_with(path: &Path, more: OFlags) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | more;
        let fd =
            fs::open(path, flags, Mode::empty()).with_context(|| failed("opening the directory", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens the directory `name` in this one; a symlink of that name is not followed.
    ///
    /// # Errors
    /// When it is absent, no directory, or may not be opened.
    pub fn child(&self, name: &FileName) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = self.path.join(name);
        let fd = fs::openat(&self.fd, name.as_ref(), flags, Mode::empty()).map_err(|error| {
            let cause = match error {
                Errno::LOOP | Errno::NOTDIR => " (it is a symlink, which is not followed, or no directory)",
                _ => "",
            };
            anyhow::Error::new(error).context(format!("opening the directory {}{cause}", path.display()))
        })?;
        Ok(Self { fd, path })
    }

    /// Makes the directory `name` in this one, which must not be there yet, with exactly the permissions `mode`, and opens it.
    ///
    /// # Errors
    /// When `name` exists or cannot be made.
    pub fn make_child(&self, name: &FileName, mode: u32) -> Result<Self> {
        fs::mkdirat(&self.fd, name.as_ref(), Mode::RWXU)
            .with_context(|| failed("making the directory", &self.path.join(name)))?;
        let directory = self.child(name)?;
        directory.set_mode(mode)?;
        Ok(directory)
    }

    /// Makes the directory `path` with exactly the permissions `mode` where it is not there yet, and opens it.
    ///
    /// # Errors
    /// When its parent is missing, or it cannot be made or opened.
    pub fn make(path: &Path, mode: u32) -> Result<Self> {
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| failed("making the directory", path)),
        }
        // A symlink that somebody has put into its place is not followed.
        let directory = Self::open_with(path, OFlags::NOFOLLOW)?;
        directory.set_mode(mode)?;
        Ok(directory)
    }

    /// Sets this directory's permissions to exactly `mode`: those that mkdir gives are cut by the umask, which an updater does
    /// not choose.
    ///
    /// # Errors
    /// When this process may not.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        fs::fchmod(&self.fd, Mode::from_raw_mode(mode))
            .with_context(|| failed("setting the mode of", &self.path))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where this directory was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets `look` have one name in this directory after the other, without `.` and `..`, in the order of the file system.
    ///
    /// # Errors
    /// Those of `look`, and when the directory cannot be read.
    pub fn each_name(&self, mut look: impl FnMut(&FileName) -> Result<()>) -> Result<()> {
        let listing = || failed("listing the directory", &self.path);
        for entry in fs::Dir::read_from(&self.fd).with_context(listing)? {
            let entry = entry.with_context(listing)?;
            // `.` and `..` are no FileName; every other entry is.
            if let Ok(name) = FileName::new(OsStr::from_bytes(entry.file_name().to_bytes())) {
                look(&name)?;
            }
        }
        Ok(())
    }

    /// Refuses this directory unless it belongs to root, or to who runs this process, and nobody else may write to it.
    ///
    /// # Errors
    /// Who else may, and the remedy.
    pub fn require_private(&self) -> Result<()> {
        let stat = fs::fstat(&self.fd).with_context(|| failed("looking at", &self.path))?;
        match changeable_itself(&self.path, &stat) {
            Some(reason) => bail!("{} is not trusted: {reason}", self.path.display()),
            None => Ok(()),
        }
    }

    /// The names in this directory, without `.` and `..`, in the order of their bytes.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self) -> Result<Vec<FileName>> {
        let listing = || -> io::Result<Vec<FileName>> {
            let mut names = Vec::new();
            for entry in fs::Dir::read_from(&self.fd)? {
                // `.` and `..` are no FileName; every other entry is.
                names.extend(FileName::new(OsStr::from_bytes(entry?.file_name().to_bytes())));
            }
            names.sort();
            Ok(names)
        };
        listing().with_context(|| failed("listing the directory", &self.path))
    }

    /// What `name` stands for, itself and not where it may point; `None` where it is absent.
    ///
    /// # Errors
    /// When the directory cannot be searched.
    pub fn kind(&self, name: &FileName) -> Result<Option<Kind>> {
        match fs::statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Kind::Directory,
                FileType::RegularFile => Kind::File,
                _ => Kind::Other,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| failed("looking at", &self.path.join(name))),
        }
    }

    /// Makes a file that must not exist yet, 0600, open for writing.
    ///
    /// # Errors
    /// When `name` exists or cannot be made.
    pub fn create_file(&self, name: &FileName) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name.as_ref(), flags, Mode::RUSR | Mode::WUSR)
            .with_context(|| failed("making the file", &self.path.join(name)))?;
        Ok(File::from(fd))
    }

    /// Opens the file `name` for reading; a symlink of that name is not followed, and a FIFO not waited for.
    ///
    /// # Errors
    /// When it is absent, a symlink, or may not be opened.
    pub fn open_for_reading(&self, name: &FileName) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name.as_ref(), flags, Mode::empty())
            .with_context(|| failed("opening", &self.path.join(name)))?;
        Ok(File::from(fd))
    }

    /// Opens the regular file `name` for reading from the medium: what the page cache holds of it is dropped first, as
    /// far as it has been synced.
    ///
    /// # Errors
    /// When it is absent, a symlink, or may not be opened.
    pub fn open_from_medium(&self, name: &FileName) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name.as_ref(), flags, Mode::empty())
            .with_context(|| failed("opening", &self.path.join(name)))?;
        // Advice: where the kernel does not take it, the read is still correct.
        let _ = fs::fadvise(&fd, 0, None, Advice::DontNeed);
        Ok(File::from(fd))
    }

    /// Gives the file `file`, opened as `name`, its owner, group and permissions.
    ///
    /// # Errors
    /// When this process may not.
    pub fn give(&self, name: &FileName, file: &File, owner: u32, group: u32, mode: u32) -> Result<()> {
        let give = || -> io::Result<()> {
            require_account(owner, group)?;
            fs::fchown(file, Some(Uid::from_raw(owner)), Some(Gid::from_raw(group)))?;
            Ok(fs::fchmod(file, Mode::from_raw_mode(mode))?)
        };
        give().with_context(|| {
            format!("giving {} to {owner}:{group} with mode {mode:04o}", self.path.join(name).display())
        })
    }

    /// Gives the file `name` a second name in `into`; one that has it already is left as it is.
    ///
    /// # Errors
    /// When `name` is absent, immutable, or on a file system without hard links.
    pub fn link(&self, name: &FileName, into: &Dir) -> Result<()> {
        match self.try_link(name, into, name) {
            Err(Errno::EXIST) => Ok(()),
            linked => linked.with_context(|| {
                format!(
                    "keeping {} as a hard link in {} (an immutable file, a mount point, or a file system without hard links?)",
                    self.path.join(name).display(),
                    into.path.display()
                )
            }),
        }
    }

    /// Gives the file `name` the second name `new_name` in `into`, where that name must be free.
    ///
    /// # Errors
    /// As [`link`](Self::link), and when `new_name` exists.
    pub fn link_as(&self, name: &FileName, into: &Dir, new_name: &FileName) -> Result<()> {
        self.try_link(name, into, new_name).with_context(|| {
            format!(
                "making {} a hard link to {}",
                into.path.join(new_name).display(),
                self.path.join(name).display()
            )
        })
    }

    fn try_link(&self, name: &FileName, into: &Dir, new_name: &FileName) -> rustix::io::Result<()> {
        fs::linkat(&self.fd, name.as_ref(), &into.fd, new_name.as_ref(), AtFlags::empty())
    }

    /// Makes the symlink `name`, which must not be there yet, to `target`, which may be anything.
    ///
    /// # Errors
    /// When `name` exists or cannot be made.
    pub fn symlink(&self, name: &FileName, target: &Path) -> Result<()> {
        fs::symlinkat(target, &self.fd, name.as_ref())
            .with_context(|| failed("making the symlink", &self.path.join(name)))
    }

    /// Makes the FIFO or device file `name`, which must not be there yet: 0600 for now.
    ///
    /// # Errors
    /// When `name` exists, or this process may not.
    pub fn make_node(&self, name: &FileName, node: Node) -> Result<()> {
        let (kind, device) = match node {
            Node::Fifo => (FileType::Fifo, 0),
            Node::Character { major, minor } => (FileType::CharacterDevice, fs::makedev(major, minor)),
            Node::Block { major, minor } => (FileType::BlockDevice, fs::makedev(major, minor)),
        };
        fs::mknodat(&self.fd, name.as_ref(), kind, Mode::RUSR | Mode::WUSR, device)
            .with_context(|| failed("making the FIFO or device file", &self.path.join(name)))
    }

    /// Renames `name` to `new_name` in `into`, replacing what has that name there.
    ///
    /// # Errors
    /// When `name` is absent, `new_name` is a directory, or the two are on different mounts.
    pub fn rename(&self, name: &FileName, into: &Dir, new_name: &FileName) -> Result<()> {
        self.rename_with(name, into, new_name, RenameFlags::empty())
    }

    /// Renames `name` to `new_name` in `into`, where that name must be free.
    ///
    /// # Errors
    /// As [`rename`](Self::rename), and when `new_name` exists.
    pub fn rename_to_free(&self, name: &FileName, into: &Dir, new_name: &FileName) -> Result<()> {
        self.rename_with(name, into, new_name, RenameFlags::NOREPLACE)
    }

    /// Makes `name` and `other` in `into` change places, in one step: no moment sees one of them missing.
    ///
    /// # Errors
    /// When one is absent or a mount point, or the file system cannot: ext4, xfs, btrfs, f2fs, ubifs and tmpfs can.
    pub fn exchange(&self, name: &FileName, into: &Dir, other: &FileName) -> Result<()> {
        self.rename_with(name, into, other, RenameFlags::EXCHANGE)
            .context("exchanging two names (RENAME_EXCHANGE: can this file system do it?)")
    }

    fn rename_with(&self, name: &FileName, into: &Dir, new_name: &FileName, how: RenameFlags) -> Result<()> {
        fs::renameat_with(&self.fd, name.as_ref(), &into.fd, new_name.as_ref(), how).with_context(|| {
            format!("renaming {} to {}", self.path.join(name).display(), into.path.join(new_name).display())
        })
    }

    /// Removes the file `name`; one that is not there is fine.
    ///
    /// # Errors
    /// When it is a directory or may not be removed.
    pub fn remove(&self, name: &FileName) -> Result<()> {
        match fs::unlinkat(&self.fd, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).with_context(|| failed("removing", &self.path.join(name))),
        }
    }

    /// Returns when the names in this directory are durable.
    ///
    /// # Errors
    /// When the medium fails.
    pub fn sync(&self) -> Result<()> {
        fs::fsync(&self.fd).with_context(|| failed("syncing the directory", &self.path))
    }

    /// Returns when everything written to this directory's file system is durable: one flush, however many files.
    ///
    /// # Errors
    /// When the medium fails, or has failed since this directory was opened.
    pub fn sync_filesystem(&self) -> Result<()> {
        fs::syncfs(&self.fd).with_context(|| failed("syncing the file system of", &self.path))
    }
}
