//! Paths: symlinks, missing directories and mount points.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::trust;

/// The longest name of a file in Linux, in bytes.
pub const NAME_MAX: usize = 255;

/// The longest path in Linux, in bytes.
pub const PATH_MAX: usize = 4096;

/// The absolute `path` without symlinks. The part that does not exist stays as it is.
///
/// # Errors
/// For a relative path, a path with `..` in the part that does not exist, a dangling symlink, and a symlink that others
/// than root may have made.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    Ok(trust::follow(path)?.whole())
}

/// The missing directories of `path`, outermost first.
///
/// # Errors
/// When a component of `path` cannot be read, or is a dangling symlink.
pub fn absent_parents(path: &Path) -> Result<Vec<PathBuf>> {
    let mut absent = Vec::new();
    for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
        match part.metadata() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading {} failed", part.display())),
        }
        if part.is_symlink() {
            bail!("{} refused: dangling symlink: make its target, or remove it", part.display());
        }
        absent.push(part.to_owned());
    }
    absent.reverse();
    Ok(absent)
}

/// The mount points at and below `path`, which has no symlinks.
pub fn mounts_at_or_below(path: &Path) -> Result<Vec<PathBuf>> {
    let table = "/proc/self/mountinfo";
    let text = fs::read(table).with_context(|| format!("reading {table} failed"))?;
    let points = text.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    Ok(points.map(unescape).filter(|point| point.starts_with(path)).collect())
}

/// Decodes a path in a table of the kernel, which has spaces, tabs, newlines and backslashes as three octal digits.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_are_resolved_and_missing_parts_kept() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        fs::create_dir(real.join("data")).unwrap();
        symlink("data", real.join("www")).unwrap();
        symlink("nowhere", real.join("dangling")).unwrap();
        assert_eq!(resolve(&real.join("www")).unwrap(), real.join("data"));
        assert_eq!(resolve(&real.join("www/a b/c")).unwrap(), real.join("data/a b/c"));
        for bad in ["dangling", "dangling/x", "missing/../x"] {
            assert!(resolve(&real.join(bad)).is_err(), "{bad} was accepted");
        }
        assert!(resolve(Path::new("relative")).is_err());
    }

    #[test]
    fn missing_directories_are_listed_and_an_unreadable_path_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(absent_parents(&path("a/b")).unwrap(), [path("a"), path("a/b")]);
        assert_eq!(absent_parents(directory.path()).unwrap(), [] as [PathBuf; 0]);
        fs::write(path("file"), "").unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        for (refused, named) in [("file/x", "file/x"), ("dangling/x", "dangling")] {
            let error = format!("{:#}", absent_parents(&path(refused)).unwrap_err());
            assert!(error.contains(path(named).to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn escaped_mount_points_are_decoded() {
        assert_eq!(unescape(b"/media/my\\040disk"), Path::new("/media/my disk"));
        assert_eq!(unescape(b"/a\\134b\\"), Path::new("/a\\b\\"));
        assert!(mounts_at_or_below(Path::new("/proc")).unwrap().contains(&PathBuf::from("/proc")));
        assert!(mounts_at_or_below(Path::new("/no/such/directory")).unwrap().is_empty());
    }
}
