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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn shown(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
        paths.into_iter().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn dpkgs_files_are_beside_a_path() {
        let all = ["new", "tmp", "old", "dist", "bak", "backup", "remove"].map(|kind| format!("/etc/a b.dpkg-{kind}"));
        assert_eq!(shown(beside(Path::new("/etc/a b"))), all);
        assert_eq!(shown(temporary(Path::new("/etc/a b"))), all[..2]);
    }

    #[test]
    fn no_file_has_a_name_that_is_too_long() {
        let path = |length| PathBuf::from(format!("/etc/{}", "x".repeat(length)));
        let number = |length| beside(&path(length)).count();
        assert_eq!([NAME_MAX - 12, NAME_MAX - 11, NAME_MAX - 9, NAME_MAX - 8].map(number), [7, 5, 4, 0]);
    }

    #[test]
    fn configuration_files_are_followed_over_symlinks() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        let path = |name: &str| root.join(name);
        fs::create_dir(path("real")).unwrap();
        symlink("real", path("linked")).unwrap();
        symlink("linked/second", path("first")).unwrap();
        symlink("no such file", path("real/second")).unwrap();
        assert_eq!(symlink_target(&path("first")), path("real/no such file"));
        // A path that is no symlink stays as it is, also in a directory that is one.
        assert_eq!(symlink_target(&path("linked/file")), path("linked/file"));
        assert_eq!(of_conffile(&path("linked/file")).len(), 8);
        let both = of_conffile(&path("first"));
        assert_eq!(both.len(), 16);
        for expected in ["first", "first.dpkg-old", "real/no such file", "real/no such file.dpkg-dist"] {
            assert!(both.contains(&path(expected)), "{expected}: {both:?}");
        }
    }
}
