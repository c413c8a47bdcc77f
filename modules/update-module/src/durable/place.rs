//! Where to stage: the same filesystem and the same mount as the destination, or a rename is impossible.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, StatxFlags};

/// `path` without symlinks: the part of it that exists resolved, the rest as it is.
///
/// # Errors
/// For a relative path, one with `..` in the part that does not exist, and a symlink that leads nowhere.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    if !path.is_absolute() {
        bail!("{} is not an absolute path", path.display());
    }
    let absent = absent_parents(path)?;
    let Some(first) = absent.first() else {
        return path.canonicalize().with_context(|| format!("resolving {}", path.display()));
    };
    let existing = first.parent().unwrap_or(first);
    let rest = path.strip_prefix(existing).unwrap_or(path);
    if rest.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        bail!("{} does not exist, so {} has no meaning", first.display(), path.display());
    }
    let existing = existing.canonicalize().with_context(|| format!("resolving {}", existing.display()))?;
    Ok(existing.join(rest))
}

/// The folders that have to be made for `path` to exist, outermost first; none where it exists.
///
/// # Errors
/// When a part of `path` cannot be looked at, or is a symlink that leads nowhere.
pub fn absent_parents(path: &Path) -> Result<Vec<PathBuf>> {
    let mut absent = Vec::new();
    for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
        match part.metadata() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("looking at {}", part.display())),
        }
        if part.is_symlink() {
            bail!("{} is a symlink that leads nowhere: make its target, or remove it", part.display());
        }
        absent.push(part.to_owned());
    }
    absent.reverse();
    Ok(absent)
}

/// A folder name next to `destination`, from which a rename into it works: `.<name>.<purpose>` beside it, or inside it
/// where the destination is a mount point. Below the first folder that exists, where `destination` does not.
///
/// # Errors
/// When the destination is the root, or cannot be looked at.
pub fn beside(destination: &Path, purpose: &str) -> Result<PathBuf> {
    let (Some(name), Some(parent)) = (destination.file_name(), destination.parent()) else {
        bail!("{} cannot be a destination", destination.display());
    };
    let absent = absent_parents(destination)?;
    let existing = match absent.first() {
        Some(first) => first.parent().unwrap_or(first),
        None if mount(destination)? != mount(parent)? => destination,
        None => parent,
    };
    Ok(existing.join(format!(".{}.{purpose}", name.to_string_lossy())))
}

/// The mount points at `path`, which has no symlinks, and below it.
///
/// # Errors
/// When the kernel's list of mounts cannot be read.
pub fn mounts_at_or_below(path: &Path) -> Result<Vec<PathBuf>> {
    let table = "/proc/self/mountinfo";
    let text = fs::read(table).with_context(|| format!("reading {table}: is /proc mounted?"))?;
    let points = text.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    Ok(points.map(unescape).filter(|point| point.starts_with(path)).collect())
}

/// A path as the kernel writes it into a table, with blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\').then(|| std::str::from_utf8(after.get(..3)?).ok()).flatten();
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                path.push(escaped);
                rest = &after[3..];
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(path).into()
}

/// What tells one mount from another: the device, and from Linux 5.8 on the mount's own number, for a bind mount has
/// the device of what it shows and refuses renames across its edge all the same.
fn mount(path: &Path) -> Result<(u32, u32, u64)> {
    let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
        .with_context(|| format!("looking at {}", path.display()))?;
    let told = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Ok((stat.stx_dev_major, stat.stx_dev_minor, if told { stat.stx_mnt_id } else { 0 }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_are_resolved_and_missing_parts_kept() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("data")).unwrap();
        symlink("data", real.join("www")).unwrap();
        symlink("nowhere", real.join("dangling")).unwrap();
        assert_eq!(resolve(&real.join("www")).unwrap(), real.join("data"));
        assert_eq!(resolve(&real.join("www/a b/c")).unwrap(), real.join("data/a b/c"));
        for bad in ["dangling", "dangling/x", "missing/../x"] {
            assert!(resolve(&real.join(bad)).is_err(), "{bad} was taken");
        }
        assert!(resolve(Path::new("relative")).is_err());
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape(b"/media/my\\040disk"), Path::new("/media/my disk"));
        assert_eq!(unescape(b"/a\\134b\\"), Path::new("/a\\b\\"));
        assert!(mounts_at_or_below(Path::new("/proc")).unwrap().contains(&PathBuf::from("/proc")));
        assert!(mounts_at_or_below(Path::new("/no/such/place")).unwrap().is_empty());
    }

    #[test]
    fn staging_is_beside_the_destination_or_below_what_exists() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("www")).unwrap();
        assert_eq!(beside(&real.join("www"), "m").unwrap(), real.join(".www.m"));
        assert_eq!(beside(&real.join("x/y/www"), "m").unwrap(), real.join(".www.m"));
        assert!(beside(Path::new("/"), "m").is_err());
        assert_eq!(beside(Path::new("/proc"), "m").unwrap(), Path::new("/proc/.proc.m"), "a mount point");
    }
}
