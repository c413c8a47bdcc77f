//! The system calls that change a directory, and the files that each of them changes.

#![expect(non_upper_case_globals, reason = "the names of libc: SYS_open and so on")]

use std::fmt;
use std::path::Path;

use anyhow::Result;
use nix::libc::{self, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_CREAT, O_NOFOLLOW, O_TRUNC};

use super::place::{Name, Target};
use super::tracee::Tracee;

/// Every call that [`Action::of`] knows, apart from `open` and `openat`, which count with some flags only. At other
/// calls a process does not stop. A recording fails if a call is missing here and changes the device.
pub const CALLS: &[i64] = {
    use libc::*;
    &[
        SYS_openat2,
        SYS_creat,
        SYS_write,
        SYS_writev,
        SYS_sendfile,
        SYS_pwrite64,
        SYS_pwritev,
        SYS_pwritev2,
        SYS_copy_file_range,
        SYS_splice,
        SYS_ioctl,
        SYS_truncate,
        SYS_ftruncate,
        SYS_fallocate,
        SYS_mkdir,
        SYS_mknod,
        SYS_mkdirat,
        SYS_mknodat,
        SYS_symlink,
        SYS_symlinkat,
        SYS_unlink,
        SYS_rmdir,
        SYS_unlinkat,
        SYS_rename,
        SYS_renameat,
        SYS_renameat2,
        SYS_link,
        SYS_linkat,
        SYS_fsync,
        SYS_fdatasync,
        SYS_syncfs,
        SYS_sync,
        SYS_chmod,
        SYS_fchmod,
        SYS_fchmodat,
        SYS_fchmodat2,
        SYS_chown,
        SYS_lchown,
        SYS_fchown,
        SYS_fchownat,
        SYS_utime,
        SYS_utimes,
        SYS_futimesat,
        SYS_utimensat,
        SYS_setxattr,
        SYS_lsetxattr,
        SYS_fsetxattr,
        SYS_removexattr,
        SYS_lremovexattr,
        SYS_fremovexattr,
    ]
};

/// What a call is going to change, or to read.
#[derive(Debug)]
pub enum Action {
    /// Open, list, read or look up: see [`reading`](super::reading).
    Read(Target),
    /// Open a file, making it if it does not exist, or truncating it.
    Open(Name),
    /// Make a directory, symlink or special file.
    Make(Name),
    /// Remove a name.
    Remove(Name),
    /// Rename, or exchange two names.
    Rename { from: Name, to: Name, exchange: bool },
    /// Give an inode one more name.
    Link { from: Target, to: Name },
    /// Write to an open file.
    Write { file: Target, fd: i32, at: Offset },
    /// Truncate or extend a file.
    Resize(Target),
    /// Change permissions.
    Mode(Target),
    /// Change owner and group.
    Owner(Target),
    /// Change times.
    Times(Target),
    /// Set or remove the extended attribute of this name.
    Attribute(Target, String),
    /// Make a file or directory durable.
    Sync(Target),
    /// Make everything on the file system of this file or directory durable.
    SyncFileSystem(Target),
    /// Make everything durable.
    SyncAll,
}

/// The offset of a write.
#[derive(Clone, Copy, Debug)]
pub enum Offset {
    /// At the file's position.
    Position,
    /// At this offset.
    At(u64),
    /// The whole file becomes a copy of another, as `cp` does on btrfs and xfs.
    Whole,
    /// At the offset in the process's memory at this address; the call advances it.
    Pointer(u64),
}

impl Action {
    /// The change of call `number` with `arguments` below `directory`; `None` if the call changes nothing there.
    pub fn of(tracee: Tracee, number: i64, arguments: [u64; 6], directory: &Path) -> Result<Option<Self>> {
        let action = Arguments { tracee, arguments }.action(number)?;
        Ok(action.filter(|action| action.is_within(directory)))
    }

    fn is_within(&self, directory: &Path) -> bool {
        match self {
            Self::Open(name) | Self::Make(name) | Self::Remove(name) => name.directory.starts_with(directory),
            Self::Rename { from, to, .. } => {
                from.directory.starts_with(directory) || to.directory.starts_with(directory)
            }
            Self::Link { to, .. } => to.directory.starts_with(directory),
            Self::Write { file: target, .. }
            | Self::Resize(target)
            | Self::Mode(target)
            | Self::Owner(target)
            | Self::Times(target)
            | Self::Attribute(target, _)
            | Self::Sync(target)
            | Self::SyncFileSystem(target)
            | Self::Read(target) => target.is_within(directory),
            Self::SyncAll => true,
        }
    }

    /// Whether the call may fail on a full file system.
    pub fn needs_space(&self) -> bool {
        match self {
            Self::Open(name) => name.before.is_none(),
            Self::Make(_) | Self::Link { .. } | Self::Write { .. } | Self::Resize(_) | Self::Attribute(..) => true,
            _ => false,
        }
    }

    /// Whether the call makes earlier changes durable, and may fail; sync(2) cannot.
    pub fn is_sync(&self) -> bool {
        matches!(self, Self::Sync(_) | Self::SyncFileSystem(_))
    }
}

/// The arguments of one call.
struct Arguments {
    tracee: Tracee,
    arguments: [u64; 6],
}

impl Arguments {
    fn action(&self, number: i64) -> Result<Option<Action>> {
        use libc::*;
        let action = match number {
            SYS_open => self.open(AT_FDCWD, 0, self.arguments[1])?,
            SYS_openat => self.open(self.fd(0), 1, self.arguments[2])?,
            SYS_openat2 => self.open(self.fd(0), 1, self.tracee.number(self.arguments[2])?)?,
            SYS_creat => self.open(AT_FDCWD, 0, O_CREAT as u64)?,
            SYS_write | SYS_writev | SYS_sendfile => self.write(0, Offset::Position),
            SYS_pwrite64 | SYS_pwritev | SYS_pwritev2 => self.write(0, Offset::At(self.arguments[3])),
            SYS_copy_file_range | SYS_splice if self.arguments[3] == 0 => self.write(2, Offset::Position),
            SYS_copy_file_range | SYS_splice => self.write(2, Offset::Pointer(self.arguments[3])),
            SYS_ioctl if self.arguments[1] == FICLONE => self.write(0, Offset::Whole),
            SYS_truncate => self.target(AT_FDCWD, 0, true)?.map(Action::Resize),
            SYS_ftruncate | SYS_fallocate => self.opened(0).map(Action::Resize),
            SYS_mkdir | SYS_mknod => self.name(AT_FDCWD, 0)?.map(Action::Make),
            SYS_mkdirat | SYS_mknodat => self.name(self.fd(0), 1)?.map(Action::Make),
            SYS_symlink => self.name(AT_FDCWD, 1)?.map(Action::Make),
            SYS_symlinkat => self.name(self.fd(1), 2)?.map(Action::Make),
            SYS_unlink | SYS_rmdir => self.name(AT_FDCWD, 0)?.map(Action::Remove),
            SYS_unlinkat => self.name(self.fd(0), 1)?.map(Action::Remove),
            SYS_rename => self.rename(AT_FDCWD, 0, AT_FDCWD, 1, 0)?,
            SYS_renameat => self.rename(self.fd(0), 1, self.fd(2), 3, 0)?,
            SYS_renameat2 => self.rename(self.fd(0), 1, self.fd(2), 3, self.arguments[4])?,
            SYS_link => self.link(AT_FDCWD, 0, AT_FDCWD, 1, 0)?,
            SYS_linkat => self.link(self.fd(0), 1, self.fd(2), 3, self.fd(4))?,
            SYS_fsync | SYS_fdatasync => self.opened(0).map(Action::Sync),
            SYS_syncfs => self.opened(0).map(Action::SyncFileSystem),
            SYS_sync => Some(Action::SyncAll),
            _ => self.attributes(number)?,
        };
        Ok(action)
    }

    fn attributes(&self, number: i64) -> Result<Option<Action>> {
        use libc::*;
        let action = match number {
            SYS_chmod => self.target(AT_FDCWD, 0, true)?.map(Action::Mode),
            SYS_fchmod => self.opened(0).map(Action::Mode),
            SYS_fchmodat => self.target(self.fd(0), 1, true)?.map(Action::Mode),
            SYS_fchmodat2 => self.target(self.fd(0), 1, self.follows(3))?.map(Action::Mode),
            SYS_chown => self.target(AT_FDCWD, 0, true)?.map(Action::Owner),
            SYS_lchown => self.target(AT_FDCWD, 0, false)?.map(Action::Owner),
            SYS_fchown => self.opened(0).map(Action::Owner),
            SYS_fchownat => self.target(self.fd(0), 1, self.follows(4))?.map(Action::Owner),
            SYS_utime | SYS_utimes => self.target(AT_FDCWD, 0, true)?.map(Action::Times),
            SYS_futimesat => self.target(self.fd(0), 1, true)?.map(Action::Times),
            SYS_utimensat if self.arguments[1] == 0 => self.opened(0).map(Action::Times),
            SYS_utimensat => self.target(self.fd(0), 1, self.follows(3))?.map(Action::Times),
            SYS_setxattr | SYS_removexattr => self.attribute(self.target(AT_FDCWD, 0, true)?)?,
            SYS_lsetxattr | SYS_lremovexattr => self.attribute(self.target(AT_FDCWD, 0, false)?)?,
            SYS_fsetxattr | SYS_fremovexattr => self.attribute(self.opened(0))?,
            _ => None,
        };
        Ok(action)
    }

    fn open(&self, directory: i32, path: usize, flags: u64) -> Result<Option<Action>> {
        let flags = flags as i32;
        if flags & (O_CREAT | O_TRUNC) == 0 {
            return Ok(None);
        }
        if flags & O_NOFOLLOW == 0 {
            // Through a symlink: the target is truncated.
            if let Some(Target { shown, .. }) = self.target(directory, path, true)? {
                return Ok(Name::find(self.tracee, AT_FDCWD, &shown).map(Action::Open));
            }
        }
        Ok(self.name(directory, path)?.map(Action::Open))
    }

    fn write(&self, fd: usize, at: Offset) -> Option<Action> {
        let number = self.fd(fd);
        self.opened(fd).map(|file| Action::Write { file, fd: number, at })
    }

    fn rename(&self, old: i32, path: usize, new: i32, new_path: usize, flags: u64) -> Result<Option<Action>> {
        let exchange = flags as u32 & libc::RENAME_EXCHANGE != 0;
        let (from, to) = (self.name(old, path)?, self.name(new, new_path)?);
        Ok(from.zip(to).map(|(from, to)| Action::Rename { from, to, exchange }))
    }

    fn link(&self, old: i32, path: usize, new: i32, new_path: usize, flags: i32) -> Result<Option<Action>> {
        let from = self.target(old, path, flags & libc::AT_SYMLINK_FOLLOW != 0)?;
        Ok(from.zip(self.name(new, new_path)?).map(|(from, to)| Action::Link { from, to }))
    }

    fn attribute(&self, target: Option<Target>) -> Result<Option<Action>> {
        let Some(target) = target else { return Ok(None) };
        let name = self.tracee.text(self.arguments[1])?.to_string_lossy().into_owned();
        Ok(Some(Action::Attribute(target, name)))
    }

    fn name(&self, directory: i32, path: usize) -> Result<Option<Name>> {
        let path = self.tracee.text(self.arguments[path])?;
        Ok(Name::find(self.tracee, directory, path.as_ref()))
    }

    fn target(&self, directory: i32, path: usize, follow: bool) -> Result<Option<Target>> {
        let path = self.tracee.text(self.arguments[path])?;
        Ok(Target::find(self.tracee, directory, path.as_ref(), follow))
    }

    fn opened(&self, fd: usize) -> Option<Target> {
        Target::open(self.tracee, self.fd(fd))
    }

    fn fd(&self, index: usize) -> i32 {
        self.arguments[index] as i32
    }

    fn follows(&self, flags: usize) -> bool {
        self.fd(flags) & AT_SYMLINK_NOFOLLOW == 0
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |name: &Name| name.path().display().to_string();
        match self {
            Self::Open(name) => write!(formatter, "open {}", show(name)),
            Self::Make(name) => write!(formatter, "make {}", show(name)),
            Self::Remove(name) => write!(formatter, "remove {}", show(name)),
            Self::Rename { from, to, exchange: true } => {
                write!(formatter, "exchange {} and {}", show(from), show(to))
            }
            Self::Rename { from, to, .. } => write!(formatter, "rename {} to {}", show(from), show(to)),
            Self::Link { from, to } => write!(formatter, "link {} as {}", from.shown.display(), show(to)),
            Self::Write { file, .. } => write!(formatter, "write {}", file.shown.display()),
            Self::Resize(target) => write!(formatter, "resize {}", target.shown.display()),
            Self::Mode(target) => write!(formatter, "chmod {}", target.shown.display()),
            Self::Owner(target) => write!(formatter, "chown {}", target.shown.display()),
            Self::Times(target) => write!(formatter, "set times of {}", target.shown.display()),
            Self::Attribute(target, name) => {
                write!(formatter, "attribute {name} of {}", target.shown.display())
            }
            Self::Sync(target) => write!(formatter, "sync {}", target.shown.display()),
            Self::SyncFileSystem(target) => {
                write!(formatter, "sync the file system of {}", target.shown.display())
            }
            Self::SyncAll => write!(formatter, "sync everything"),
            Self::Read(target) => write!(formatter, "read {}", target.shown.display()),
        }
    }
}
