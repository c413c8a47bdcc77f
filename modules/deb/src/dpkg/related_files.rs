//! Files that dpkg and its helpers make beside the files of packages.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use mender_update_module::durable::NAME_MAX;

/// What dpkg, dpkg-maintscript-helper and maintainer scripts append to the name of a file.
const SUFFIXES: [&str; 7] =
    [".dpkg-new", ".dpkg-tmp", ".dpkg-old", ".dpkg-dist", ".dpkg-bak", ".dpkg-backup", ".dpkg-remove"];

/// How many of [`SUFFIXES`] dpkg itself uses while it installs a file.
const TEMPORARY: usize = 2;

/// The suffix of a file or directory that dpkg-maintscript-helper has moved away.
pub const BACKUP_SUFFIX: &str = ".dpkg-backup";

/// The directory that dpkg-maintscript-helper makes in a directory that it replaces by a symlink.
pub const HELPER_STAGING: &str = ".dpkg-staging-dir";

/// How many symlinks dpkg follows from a configuration file.
const SYMLINKS_MAX: usize = 25;

/// All paths beside `path` that dpkg and its helpers may make.
pub fn beside(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    with_suffixes(path, &SUFFIXES)
}

/// The paths beside `path` that dpkg uses while it installs it.
pub fn temporary(path: &Path) -> impl Iterator<Item = PathBuf> {
    with_suffixes(path, &SUFFIXES[..TEMPORARY])
}

fn with_suffixes(path: &Path, suffixes: &'static [&'static str]) -> impl Iterator<Item = PathBuf> + use<> {
    let whole = path.as_os_str().to_owned();
    let length = path.file_name().map_or(0, OsStr::len);
    // No file can have a longer name.
    let fits = move |suffix: &&&str| length + suffix.len() <= NAME_MAX;
    suffixes.iter().filter(fits).map(move |suffix| {
        let mut path = whole.clone();
        path.push(suffix);
        path.into()
    })
}

/// The configuration file `path`, what it leads to where it is a symlink, and all paths beside both.
pub fn of_conffile(path: &Path) -> Vec<PathBuf> {
    let target = Some(symlink_target(path)).filter(|target| target != path);
    let paths = [Some(path.to_owned()), target].into_iter().flatten();
    paths.flat_map(|path| beside(&path).chain([path.clone()]).collect::<Vec<_>>()).collect()
}

/// What `path` leads to over one symlink or more, whether or not that exists. dpkg follows configuration
/// files like this.
pub fn symlink_target(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    for _ in 0..SYMLINKS_MAX {
        let Ok(next) = fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(&target).join(next);
    }
    let canonical = target
        .parent()
        .zip(target.file_name())
        .and_then(|(parent, name)| Some(fs::canonicalize(parent).ok()?.join(name)).filter(|_| target != path));
    canonical.unwrap_or(target)
}
