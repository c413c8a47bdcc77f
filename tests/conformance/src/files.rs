//! Trees of files on a played device: put there, made old, made peculiar.

use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, setxattr, utimensat};
use rustix::io::Errno;

/// When everything old was last written: long before any test, so that what is made anew is told from it.
const LONG_AGO: i64 = 1_234_567_890;

/// Copies what is in `from` to `to`: directories, regular files with their permissions, symbolic links.
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
        copied.with_context(|| format!("copying {} to {}", path.display(), copy.display()))?;
    }
    Ok(())
}

/// Makes `directory` and everything in it last written [`LONG_AGO`] and `nanoseconds`.
pub fn age(directory: &Path, nanoseconds: i64) -> Result<()> {
    let then = Timespec { tv_sec: LONG_AGO, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: then, last_modification: then };
    for (path, _) in below(directory)? {
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("setting the times of {}", path.display()))?;
    }
    Ok(())
}

/// Gives every regular file in `directory` what a careless copy loses: permissions that no umask makes, an extended
/// attribute where the file system knows them, and times to the nanosecond.
pub fn make_peculiar(directory: &Path) -> Result<()> {
    for (path, _) in below(directory)?.iter().filter(|(_, meta)| meta.is_file()) {
        fs::set_permissions(path, Permissions::from_mode(0o604))
            .with_context(|| format!("setting the permissions of {}", path.display()))?;
        match setxattr(path, "user.origin", b"factory", XattrFlags::empty()) {
            Err(Errno::NOTSUP) => {}
            set => set.with_context(|| format!("setting an attribute of {}", path.display()))?,
        }
    }
    age(directory, 987_654_321)
}

/// The deepest directory that has all regular files and links of `trees` in it, relative to each of them.
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

/// `directory` and everything in it, each directory after what it has in it.
fn below(directory: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    let context = || format!("looking at {}", directory.display());
    for entry in fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let meta = fs::symlink_metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
        if meta.is_dir() {
            found.extend(below(&path)?);
        } else {
            found.push((path, meta));
        }
    }
    found.push((directory.to_owned(), fs::symlink_metadata(directory).with_context(context)?));
    Ok(found)
}
