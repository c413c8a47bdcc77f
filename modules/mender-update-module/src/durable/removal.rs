//! Removes directory trees of any depth, with a constant number of file descriptors and constant memory.
//!
//! Nested directories are first renamed to the top of the tree. So the removal never descends more than two levels,
//! and after an interruption, the next removal continues.

use std::ops::RangeFrom;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{self, AtFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;

use super::{Dir, exists, failed, parent_and_name};
use crate::name::FileName;

/// The largest number of passes over a tree: another program may add files to it for ever.
const PASSES: u32 = 1 << 20;

/// The largest number of names in a message.
const LISTED: usize = 5;

/// Removes the directory `path` and everything in it, without following symlinks and without entering mounts. A
/// directory that does not exist is not an error.
///
/// # Errors
/// When files cannot be removed, with the remedy. Everything else is removed.
pub fn remove_tree(path: &Path) -> Result<()> {
    let (parent, name) = parent_and_name(path)?;
    if !exists(path)? {
        return if exists(parent)? { Dir::open(parent)?.sync() } else { Ok(()) };
    }
    let parent = Dir::open(parent)?;
    remove_tree_in(&parent, &name, &parent.child(&name)?)
}

/// As [`remove_tree`], for the open directory `tree`, which is `name` in `parent`.
pub(super) fn remove_tree_in(parent: &Dir, name: &FileName, tree: &Dir) -> Result<()> {
    let mut removal = Removal { root: tree, mount: mount(tree)?, fresh: 0.., left: Vec::new(), changed: false };
    removal.run()?;
    match fs::unlinkat(&parent.fd, name.as_ref(), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => parent.sync(),
        Err(error) => Err(error).with_context(|| failed("removing the directory", tree.path())),
    }
}

struct Removal<'a> {
    root: &'a Dir,
    mount: Mount,
    /// The numbers in the next names for directories that are renamed to the top.
    fresh: RangeFrom<u64>,
    /// The names that could not be removed in this pass, with the errors.
    left: Vec<(PathBuf, Errno)>,
    /// Whether a name was removed or renamed in this pass.
    changed: bool,
}

impl Removal<'_> {
    fn run(&mut self) -> Result<()> {
        for _ in 0..PASSES {
            (self.changed, self.left) = (false, Vec::new());
            self.root.for_each_name(|name| self.remove(self.root, name).map(drop))?;
            if !self.changed {
                return if self.left.is_empty() { Ok(()) } else { self.report() };
            }
        }
        bail!("removing {} failed: another program adds files to it: stop that program", self.root.path().display())
    }

    fn report(&self) -> Result<()> {
        let shown: Vec<String> = self.left.iter().map(|(path, error)| format!("{}: {error}", path.display())).collect();
        bail!(
            "removing {} failed: {}: clear attributes with chattr -ia, unmount file systems below it, and remove the directory",
            self.root.path().display(),
            shown.join(", ")
        )
    }

    /// Removes `name`, or renames it to the top.
    fn remove(&mut self, parent: &Dir, name: &FileName) -> Result<()> {
        match fs::unlinkat(&parent.fd, name.as_ref(), AtFlags::empty()) {
            Ok(()) => self.changed = true,
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if self.is_directory(parent, name)? => self.directory(parent, name)?,
            Err(error) => self.leave(parent, name, error),
        }
        Ok(())
    }

    fn is_directory(&self, parent: &Dir, name: &FileName) -> Result<bool> {
        Ok(parent.kind(name)? == Some(super::Kind::Directory))
    }

    fn directory(&mut self, parent: &Dir, name: &FileName) -> Result<()> {
        if std::ptr::eq(parent, self.root) {
            return self.top(name);
        }
        while let Some(number) = self.fresh.next() {
            let fresh = FileName::new(format!("discard-{number}"))?;
            match fs::renameat_with(&parent.fd, name.as_ref(), &self.root.fd, fresh.as_ref(), RenameFlags::NOREPLACE) {
                Ok(()) => self.changed = true,
                Err(Errno::EXIST) => continue,
                Err(error) => self.leave(parent, name, error),
            }
            break;
        }
        Ok(())
    }

    /// Empties and removes the directory `name` at the top.
    fn top(&mut self, name: &FileName) -> Result<()> {
        let directory = self.root.child(name)?;
        if mount(&directory)? != self.mount {
            self.leave(self.root, name, Errno::BUSY);
            return Ok(());
        }
        directory.for_each_name(|below| self.remove(&directory, below))?;
        match fs::unlinkat(&self.root.fd, name.as_ref(), AtFlags::REMOVEDIR) {
            Ok(()) => self.changed = true,
            Err(error) => self.leave_directory(name, error),
        }
        Ok(())
    }

    /// Records that the directory `name` at the top could not be removed.
    fn leave_directory(&mut self, name: &FileName, error: Errno) {
        match error {
            Errno::NOENT => {}
            // The names in it are recorded already.
            Errno::NOTEMPTY | Errno::EXIST if !self.left.is_empty() => {}
            // Another program adds files to it, or the file system does not list all of its names.
            error => self.leave(self.root, name, error),
        }
    }

    fn leave(&mut self, parent: &Dir, name: &FileName, error: Errno) {
        if self.left.len() < LISTED {
            self.left.push((parent.path().join(name), error));
        }
    }
}

/// The mount of a directory: its device and, since Linux 5.8, its mount ID; before, that is 0.
#[derive(PartialEq, Eq)]
pub(super) struct Mount {
    device: (u32, u32),
    id: u64,
}

/// The mount of the directory `dir`.
pub(super) fn mount(dir: &Dir) -> Result<Mount> {
    let stat = fs::statx(&dir.fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    let stat = stat.with_context(|| failed("reading", dir.path()))?;
    Ok(Mount { device: (stat.stx_dev_major, stat.stx_dev_minor), id: stat.stx_mnt_id })
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;

    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::super::mounted::Mounted;
    use super::*;

    /// A limit of open files that the other tests of this process do not reach.
    const FILES: u64 = 512;

    #[test]
    fn a_tree_deeper_than_the_limit_of_open_files_is_removed() {
        // The limit of the machine may be so high that no tree exceeds it.
        let limit = getrlimit(Resource::Nofile);
        let files = limit.current.unwrap_or(FILES).min(FILES);
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum }).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep");
        std_fs::create_dir(&path).unwrap();
        let mut here = Dir::open(&path).unwrap();
        for level in 0..files + 100 {
            let name = FileName::new(format!("{level}")).unwrap();
            here.create_file(&FileName::new("file").unwrap()).unwrap();
            here = here.make_child(&name, 0o700).unwrap();
        }
        remove_tree(&path).unwrap();
        assert!(!path.exists());
        remove_tree(&path).unwrap();
        remove_tree(Path::new("/no/such/tree")).unwrap();
    }

    #[test]
    fn symlinks_and_awkward_names_are_removed_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tree");
        std_fs::create_dir_all(path.join("a/discard-0/x")).unwrap();
        std_fs::create_dir_all(path.join("discard-0")).unwrap();
        std_fs::create_dir(directory.path().join("outside")).unwrap();
        std_fs::write(directory.path().join("outside/kept"), "").unwrap();
        std::os::unix::fs::symlink("../../outside", path.join("a/link")).unwrap();
        std_fs::write(path.join("a/-rf\n"), "").unwrap();
        remove_tree(&path).unwrap();
        assert!(!path.exists() && directory.path().join("outside/kept").exists());
        std::os::unix::fs::symlink("outside", &path).unwrap();
        assert!(remove_tree(&path).is_err(), "a symlink is not a tree");
        assert!(directory.path().join("outside/kept").exists());
    }

    #[test]
    fn a_mounted_file_system_is_reported_and_its_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tree");
        let points = [path.join("uploads"), path.join("a/b")];
        let mut mounted = Vec::new();
        for point in &points {
            std_fs::create_dir_all(point).unwrap();
            let Some(mount) = Mounted::on(point, &["-t", "tmpfs", "tmpfs"]) else { return };
            std_fs::write(point.join("photo"), "").unwrap();
            mounted.push(mount);
        }
        std_fs::write(path.join("a/file"), "").unwrap();
        let error = format!("{:#}", remove_tree(&path).unwrap_err());
        assert!(points.iter().all(|point| point.join("photo").exists()), "{error}");
        assert!(error.contains("uploads: ") && error.contains("unmount"), "{error}");
        assert!(!path.join("a/file").exists());
        drop(mounted);
        remove_tree(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn files_that_cannot_be_removed_are_named_and_everything_else_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tree");
        std_fs::create_dir_all(path.join("below")).unwrap();
        let below = (1..LISTED + 2).map(|number| path.join(format!("below/immutable-{number}")));
        let paths: Vec<_> = below.chain([path.join("immutable-0")]).collect();
        let files: Vec<_> = paths.iter().map(|path| std_fs::File::create(path).unwrap()).collect();
        std_fs::write(path.join("below/other"), "").unwrap();
        let set = |file: &std_fs::File, immutable| {
            let flags = ioctl_getflags(file)?;
            ioctl_setflags(file, if immutable { flags | IFlags::IMMUTABLE } else { flags - IFlags::IMMUTABLE })
        };
        let immutable: rustix::io::Result<()> = files.iter().try_for_each(|file| set(file, true));
        let removed = remove_tree(&path);
        let left = paths.iter().filter(|path| path.exists()).count();
        let others = path.join("below/other").exists();
        for file in &files {
            let _ = set(file, false);
        }
        if let Err(error) = immutable {
            return eprintln!("skipped: no immutable files: {error}");
        }
        let error = format!("{:#}", removed.unwrap_err());
        assert_eq!(error.matches("/immutable-").count(), LISTED, "{error}");
        assert!(error.contains("chattr") && !error.contains("not empty"), "{error}");
        assert!(left == files.len() && !others, "{left}: {error}");
        remove_tree(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_is_not_empty_is_named_unless_its_files_are() {
        let directory = tempfile::tempdir().unwrap();
        let (root, name) = (Dir::open(directory.path()).unwrap(), FileName::new("below").unwrap());
        for error in [Errno::NOTEMPTY, Errno::EXIST] {
            let mut removal =
                Removal { root: &root, mount: mount(&root).unwrap(), fresh: 0.., left: Vec::new(), changed: false };
            removal.leave_directory(&name, Errno::NOENT);
            assert!(removal.left.is_empty());
            removal.leave_directory(&name, error);
            removal.leave_directory(&name, error);
            assert_eq!(removal.left, [(directory.path().join("below"), error)]);
            let message = removal.report().unwrap_err().to_string();
            assert!(message.contains("/below: ") && message.contains("remove the directory"), "{message}");
        }
    }

    #[test]
    fn a_mount_is_another_one_also_of_the_same_directory() {
        let directory = tempfile::tempdir().unwrap();
        let [below, point] = ["below", "point"].map(|name| directory.path().join(name));
        [&below, &point].into_iter().for_each(|path| std_fs::create_dir(path).unwrap());
        let of = |path: &Path| mount(&Dir::open(path).unwrap()).unwrap();
        assert!(of(&below) == of(directory.path()) && of(Path::new("/proc")) != of(directory.path()));
        let Some(_mounted) = Mounted::on(&point, &["--bind", below.to_str().unwrap()]) else { return };
        if of(&point).id == 0 {
            return eprintln!("skipped: this kernel has no mount IDs in statx(2)");
        }
        assert!(of(&point) != of(&below), "a bind mount");
    }
}
