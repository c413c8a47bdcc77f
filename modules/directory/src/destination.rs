//! Which directories may be replaced, decided before anything is touched.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable;

/// The destination that `path` means, with symlinks resolved: a directory, or the absent name of one.
///
/// | `path` is | so |
/// |---|---|
/// | relative, empty, `/`, `//`, `/.`, or has a `..` | refused |
/// | a symlink to a directory | the directory that it leads to is replaced, the symlink stays |
/// | a symlink that leads nowhere, or a file | refused |
/// | a mount point, or has one below it | refused: a mount point cannot be renamed, and what is mounted is not the tree's |
/// | a directory that holds the Mender client's data | refused: it would carry the update under way off |
/// | missing, its parents too | made; a rollback removes what was made |
/// | on another file system than the client's data, or with blanks in it | nothing special |
///
/// # Errors
/// The row of the table above that refuses it, and what to do instead.
pub fn resolve(path: &Path, datastore: &Path) -> Result<PathBuf> {
    let shown = path.display();
    ensure!(path.is_absolute(), "the destination {shown:?} is not an absolute path");
    ensure!(
        !path.components().any(|part| part == Component::ParentDir),
        "the destination {shown} has a '..' in it: name the directory that it means"
    );
    ensure!(
        path.file_name().is_some(),
        "the destination {shown} is the root of the system: name a directory below it"
    );
    let destination = durable::resolve(path).context("the artifact's destination")?;
    ensure!(
        destination.file_name().is_some(),
        "the destination {shown} leads to the root of the system: name a directory below it"
    );
    refuse_mounts(&destination)?;
    if destination.exists() && !destination.is_dir() {
        bail!("the destination {} is not a directory: move it away, or name another", destination.display());
    }
    // The client's data need not be there yet, in a test say.
    let datastore = fs::canonicalize(datastore).unwrap_or_else(|_| datastore.to_owned());
    ensure!(
        !datastore.starts_with(&destination),
        "the destination {} holds the Mender client's own data in {}: name a directory beside it",
        destination.display(),
        datastore.display()
    );
    Ok(destination)
}

/// Refuses `destination` if it is a mount point or has one below it.
pub fn refuse_mounts(destination: &Path) -> Result<()> {
    let shown = destination.display();
    match durable::mounts_at_or_below(destination)?.first() {
        None => Ok(()),
        Some(mount) if mount == destination => {
            bail!(
                "the destination {shown} is a mount point, which cannot be replaced: name a directory in it"
            )
        }
        Some(mount) => bail!(
            "something is mounted on {}, below the destination {shown}: unmount it, or name another directory",
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
    fn roots_in_disguise_are_refused() {
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
    fn symlinks_lead_to_what_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        fs::create_dir_all(real.join("data/app")).unwrap();
        fs::write(real.join("file"), "").unwrap();
        for (name, target) in
            [("app", "data/app"), ("dangling", "nowhere"), ("root", "/"), ("to-file", "file")]
        {
            symlink(target, real.join(name)).unwrap();
        }
        let to = |name: &str| resolve(&real.join(name), &real.join("data/mender"));
        assert_eq!(to("app").unwrap(), real.join("data/app"));
        assert_eq!(to("app/").unwrap(), real.join("data/app"));
        assert_eq!(to("missing/a b").unwrap(), real.join("missing/a b"));
        refused(real.join("dangling"), "leads nowhere");
        refused(real.join("root"), "root");
        refused(real.join("to-file"), "not a directory");
        let error = format!("{:#}", to("data").unwrap_err());
        assert!(error.contains("client's own data"), "{error}");
    }
}
