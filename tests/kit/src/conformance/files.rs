//! Directory trees on the mock device: copied, and given unusual times and attributes.

use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, setxattr, utimensat};
use rustix::io::Errno;

/// The modification time of the previous version: long before any test, so that new files differ.
const LONG_AGO: i64 = 1_234_567_890;

/// Copies the content of `from` to `to`: directories, regular files with their permissions, symlinks.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for (path, meta) in below(from)? {
        let copy = to.join(path.strip_prefix(from)?);
        let parent = copy.parent().unwrap_or(to);
        let copied = if meta.is_dir() {
            fs::create_dir_all(&copy)
        } else if meta.is_symlink() {
            fs::create_dir_all(parent).and_then(|()| symlink(fs::read_link(&path)?, &copy))
        } else {
            fs::create_dir_all(parent).and_then(|()| fs::copy(&path, &copy).map(drop))
        };
        copied.with_context(|| format!("copying {} to {} failed", path.display(), copy.display()))?;
    }
    Ok(())
}

/// Sets the modification time of `directory` and everything in it to [`LONG_AGO`] plus `nanoseconds`.
pub fn age(directory: &Path, nanoseconds: i64) -> Result<()> {
    let then = Timespec { tv_sec: LONG_AGO, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: then, last_modification: then };
    for (path, _) in below(directory)? {
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("setting the times of {} failed", path.display()))?;
    }
    Ok(())
}

/// Gives every regular file in `directory` attributes that a careless copy loses: permissions that no umask makes, an
/// extended attribute where the file system supports them, and times with nanoseconds.
pub fn set_unusual_attributes(directory: &Path) -> Result<()> {
    for (path, _) in below(directory)?.iter().filter(|(_, meta)| meta.is_file()) {
        fs::set_permissions(path, Permissions::from_mode(0o604))
            .with_context(|| format!("setting the permissions of {} failed", path.display()))?;
        match setxattr(path, "user.origin", b"factory", XattrFlags::empty()) {
            Err(Errno::NOTSUP) => {}
            set => set.with_context(|| format!("setting an attribute of {} failed", path.display()))?,
        }
    }
    age(directory, 987_654_321)
}

/// The deepest directory that contains all regular files and symlinks of `trees`, relative to each of them.
pub fn common_directory(trees: &[&Path]) -> Result<PathBuf> {
    let mut directories = Vec::new();
    for tree in trees {
        for (path, _) in below(tree)?.iter().filter(|(_, meta)| !meta.is_dir()) {
            directories.extend(path.strip_prefix(tree)?.parent().map(Path::to_owned));
        }
    }
    let common = |one: PathBuf, other: PathBuf| {
        one.components().zip(other.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    };
    Ok(directories.into_iter().reduce(common).unwrap_or_default())
}

/// `directory` and everything in it, each directory after its content.
pub fn below(directory: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    let context = || format!("reading {} failed", directory.display());
    for entry in fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let meta = fs::symlink_metadata(&path).with_context(|| format!("reading {} failed", path.display()))?;
        if meta.is_dir() {
            found.extend(below(&path)?);
        } else {
            found.push((path, meta));
        }
    }
    found.push((directory.to_owned(), fs::symlink_metadata(directory).with_context(context)?));
    Ok(found)
}
