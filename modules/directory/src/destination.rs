//! Decides which directories an update may replace, before anything changes.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail, ensure};
use mender_update_module::durable;

/// The destination `path` with symlinks resolved. It is a directory, or does not exist.
///
/// | `path` is | result |
/// |---|---|
/// | relative, empty, `/`, `//`, `/.`, or has a `..` | refused |
/// | a symlink to a directory | the target is replaced, the symlink stays |
/// | a dangling symlink, or a file | refused |
/// | a mount point, or has one below it | refused: a mount point cannot be renamed |
/// | a directory with the Mender client's data in it | refused: the running update is in it |
/// | missing, also its parents | made; a rollback removes what was made |
/// | on another file system than the client's data, or contains spaces | accepted |
///
/// # Errors
/// When a row of the table refuses the path.
pub fn resolve(path: &Path, datastore: &Path) -> Result<PathBuf> {
    check_path(path)?;
    let destination = durable::resolve(path)?;
    ensure!(
        destination.file_name().is_some(),
        "destination {} refused: it leads to the root directory: name a directory below it",
        path.display()
    );
    refuse_mounts(&destination)?;
    ensure!(
        durable::metadata(&destination)?.is_none_or(|found| found.is_dir()),
        "destination {} refused: not a directory: move it away, or name another",
        destination.display()
    );
    // The client's data may not exist yet, for example in a test.
    let datastore = fs::canonicalize(datastore).unwrap_or_else(|_| datastore.to_owned());
    ensure!(
        !datastore.starts_with(&destination),
        "destination {} refused: it contains the Mender client's data in {}: name another directory",
        destination.display(),
        datastore.display()
    );
    Ok(destination)
}

/// Refuses `path` for what its text alone says.
///
/// # Errors
/// For a path that is relative, contains `..`, or is the root directory.
pub fn check_path(path: &Path) -> Result<()> {
    let shown = path.display();
    ensure!(path.is_absolute(), "destination {shown:?} refused: not an absolute path");
    ensure!(
        !path.components().any(|part| part == Component::ParentDir),
        "destination {shown} refused: it contains '..': give the path without it"
    );
    ensure!(
        path.file_name().is_some(),
        "destination {shown} refused: it is the root directory: name a directory below it"
    );
    Ok(())
}

/// Refuses `destination` if it is a mount point or has one below it.
pub fn refuse_mounts(destination: &Path) -> Result<()> {
    let shown = destination.display();
    match durable::mounts_at_or_below(destination)?.first() {
        None => Ok(()),
        Some(mount) if mount == destination => {
            bail!("destination {shown} refused: it is a mount point: name a directory in it")
        }
        Some(mount) => bail!(
            "destination {shown} refused: {} below it is a mount point: unmount it, or name another directory",
            mount.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refused(path: impl AsRef<Path>, words: &str) {
        let error = format!("{:#}", resolve(path.as_ref(), Path::new("/no/datastore")).unwrap_err());
        assert!(error.contains(words), "{:?}: {error}", path.as_ref());
    }

    #[test]
    fn every_form_of_the_root_directory_is_refused() {
        for root in ["/", "//", "/.", "/./", "///."] {
            refused(root, "root");
        }
        for odd in ["/etc/..", "/usr/../etc", "/..", "/srv/app/.."] {
            refused(odd, "'..'");
        }
        for odd in ["", "srv/app", "."] {
            refused(odd, "absolute");
        }
        refused("/proc", "mount point");
    }

    #[test]
    fn the_target_of_a_symlink_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        fs::create_dir_all(real.join("data/app")).unwrap();
        fs::write(real.join("file"), "").unwrap();
        for (name, target) in [("app", "data/app"), ("dangling", "nowhere"), ("root", "/"), ("to-file", "file")] {
            symlink(target, real.join(name)).unwrap();
        }
        let to = |name: &str| resolve(&real.join(name), &real.join("data/mender"));
        assert_eq!(to("app").unwrap(), real.join("data/app"));
        assert_eq!(to("app/").unwrap(), real.join("data/app"));
        assert_eq!(to("missing/a b").unwrap(), real.join("missing/a b"));
        refused(real.join("dangling"), "dangling symlink");
        refused(real.join("root"), "root");
        refused(real.join("to-file"), "not a directory");
        let error = format!("{:#}", to("data").unwrap_err());
        assert!(error.contains("client's data"), "{error}");
    }
}
