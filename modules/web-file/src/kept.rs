//! The previous files: each has a hard link in `kept/` before its name in the destination changes.

use anyhow::{Result, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{Dir, Kind};

/// The largest number of files in a message.
const LISTED: usize = 10;

/// Whether `name` is in `previous`, which is sorted.
pub fn is_in(previous: &[FileName], name: &FileName) -> bool {
    previous.binary_search(name).is_ok()
}

/// Restores the files of `previous` that have a link in `kept`. A file without one has not changed, or is restored
/// already.
///
/// # Errors
/// When a file cannot be restored, or is another one afterwards.
pub fn restore(previous: &[FileName], kept: Option<&Dir>, destination: &Dir) -> Result<()> {
    let Some(kept) = kept else { return Ok(()) };
    for name in previous {
        let inode = kept.inode_of(name)?;
        if inode.is_none() {
            continue;
        }
        if destination.kind(name)? == Some(Kind::Directory) {
            destination.move_aside(name)?;
        }
        kept.rename(name, destination, name)?;
        ensure!(
            destination.inode_of(name)? == inode,
            "{}/{name}: another program replaced it meanwhile",
            destination.path().display()
        );
    }
    Ok(())
}

/// Checks that all of `previous` are in `destination`. If nothing was `activated`, another program removed a missing
/// file before the update changed anything.
///
/// # Errors
/// When files are missing.
pub fn require_restored(previous: &[FileName], destination: &Dir, activated: bool) -> Result<()> {
    let mut missing = Vec::new();
    for name in previous.iter().filter(|_| activated) {
        if destination.kind(name)?.is_none() {
            missing.push(name.to_string());
        }
    }
    ensure!(
        missing.is_empty(),
        "{}: {} of {} previous files are missing: {}",
        destination.path().display(),
        missing.len(),
        previous.len(),
        missing[..missing.len().min(LISTED)].join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(names: &[&str]) -> Vec<FileName> {
        names.iter().map(|name| FileName::new(*name).unwrap()).collect()
    }

    #[test]
    fn files_with_a_link_are_restored_and_missing_ones_are_named() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        for directory in ["kept", "destination/a"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        for file in ["kept/a", "kept/b", "destination/b", "destination/c"] {
            fs::write(path(file), file).unwrap();
        }
        let (kept, destination) = (Dir::open(&path("kept")).unwrap(), Dir::open(&path("destination")).unwrap());
        let previous = names(&["a", "b", "c", "gone"]);
        restore(&previous, None, &destination).unwrap();
        assert!(path("destination/a").is_dir());
        restore(&previous, Some(&kept), &destination).unwrap();
        let content = |name: &str| fs::read_to_string(path("destination").join(name)).unwrap();
        assert_eq!(["a", "b", "c"].map(content), ["kept/a", "kept/b", "destination/c"]);
        assert!(is_in(&previous, &previous[1]) && !is_in(&previous, &names(&["x"])[0]));
        require_restored(&previous[..3], &destination, true).unwrap();
        require_restored(&previous, &destination, false).unwrap();
        let error = require_restored(&previous, &destination, true).unwrap_err().to_string();
        assert!(error.contains("1 of 4 previous files are missing: \"gone\""), "{error}");
    }
}
