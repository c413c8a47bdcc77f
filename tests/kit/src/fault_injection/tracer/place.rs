//! The object of a call: an inode, or a name in a directory, looked up from outside the process.

use std::fs::{self, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::libc::AT_FDCWD;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::tracee::Tracee;

/// A name in a directory, at the entry of a call.
#[derive(Debug)]
pub struct Name {
    /// The directory, without symlinks.
    pub directory: PathBuf,
    /// The name in it.
    pub name: String,
    /// The inode with that name at the entry of the call.
    pub before: Option<u64>,
}

/// An inode, by a path that leads to it.
#[derive(Debug)]
pub struct Target {
    /// The path, for messages.
    pub shown: PathBuf,
    /// The path for access: through `/proc` if the file is open.
    pub path: PathBuf,
}

impl Name {
    /// The name at `path`, relative to `directory`; `None` if that directory does not exist, and the call will fail.
    pub fn find(tracee: Tracee, directory: i32, path: &Path) -> Option<Self> {
        let path = absolute(tracee, directory, path);
        let name = path.file_name()?.to_str()?.to_owned();
        let directory = canonical(tracee, path.parent()?)?;
        let before = fs::symlink_metadata(directory.join(&name)).ok().map(|meta| meta.ino());
        Some(Self { directory, name, before })
    }

    /// The path.
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

impl Target {
    /// The inode at `path`, relative to `directory`.
    pub fn find(tracee: Tracee, directory: i32, path: &Path, follow: bool) -> Option<Self> {
        if path.as_os_str().is_empty() {
            return Self::open(tracee, directory);
        }
        let path = if follow {
            canonical(tracee, &absolute(tracee, directory, path))?
        } else {
            Name::find(tracee, directory, path)?.path()
        };
        Some(Self { shown: path.clone(), path })
    }

    /// The file or directory that is open as `fd`.
    pub fn open(tracee: Tracee, fd: i32) -> Option<Self> {
        let path = tracee.fd(fd);
        Some(Self { shown: fs::read_link(&path).ok()?, path })
    }

    /// Whether it is a file, directory or symlink below `directory`. Pipes keep nothing across a power loss.
    pub fn is_within(&self, directory: &Path) -> bool {
        let lasts = |meta: Metadata| meta.is_file() || meta.is_dir() || meta.is_symlink();
        self.shown.starts_with(directory) && self.metadata().is_ok_and(lasts)
    }

    /// The metadata.
    pub fn metadata(&self) -> Result<Metadata> {
        let through_proc = self.path.starts_with("/proc");
        let meta = if through_proc { fs::metadata(&self.path) } else { fs::symlink_metadata(&self.path) };
        Ok(meta?)
    }
}

/// A path of the process, translated for the tracer, with its symlinks: those of a process in a chroot are resolved
/// there.
fn absolute(tracee: Tracee, directory: i32, path: &Path) -> PathBuf {
    if let Ok(own) = path.strip_prefix("/proc/self") {
        return tracee.own().join(own);
    }
    match (directory, path.strip_prefix("/")) {
        (_, Ok(inside)) => tracee.root().unwrap_or_else(|_| "/".into()).join(inside),
        (AT_FDCWD, _) => tracee.cwd().join(path),
        _ => tracee.fd(directory).join(path),
    }
}

/// `path`, which is [`absolute`], without symlinks; `None` if it does not exist.
fn canonical(tracee: Tracee, path: &Path) -> Option<PathBuf> {
    let root = tracee.root().ok()?;
    if root == Path::new("/") {
        return path.canonicalize().ok();
    }
    // An open file or the working directory is looked up from outside; the rest of the path as the process sees it.
    let mut parts = path.strip_prefix(tracee.own()).map(Path::iter).ok();
    let (begin, rest) = match &mut parts {
        Some(parts) => {
            let magic = if parts.as_path().starts_with("fd") { 2 } else { 1 };
            let magic = parts.by_ref().take(magic).fold(tracee.own(), |path, part| path.join(part));
            (fs::read_link(magic).ok()?, parts.as_path())
        }
        None => (root.clone(), path.strip_prefix(&root).ok()?),
    };
    let inside = begin.strip_prefix(&root).ok()?.join(rest);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(&root, flags, Mode::empty()).ok()?;
    let inside = Path::new(".").join(inside);
    let found = openat2(&top, &inside, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()
}
