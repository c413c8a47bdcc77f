//! Operations on one path that several parts of the module need.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use mender_update_module::FileName;
use mender_update_module::durable::{self, Dir};
use sha2::{Digest, Sha256};

/// The names in `directory`; none where it does not exist.
pub fn names(directory: &Path) -> Result<Vec<FileName>> {
    if durable::exists(directory)? { Dir::open(directory)?.names() } else { Ok(Vec::new()) }
}

/// Removes `path`, unless it is absent or a directory.
pub fn remove_unless_directory(path: &Path) -> Result<()> {
    match durable::metadata(path)? {
        Some(found) if !found.is_dir() => durable::remove_file(path),
        _ => Ok(()),
    }
}

/// Whether `path` is a directory, and no symlink to one.
pub fn is_directory(path: &Path) -> Result<bool> {
    Ok(durable::metadata(path)?.is_some_and(|found| found.is_dir()))
}

/// The checksum of the regular file `path`, in hexadecimal digits.
pub fn sha256(path: &Path) -> Result<String> {
    let reading = || format!("reading {} failed", path.display());
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path).with_context(reading)?, &mut hash).with_context(reading)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_directories_themselves_are_directories() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("file"), "abc").unwrap();
        symlink("directory", path("symlink")).unwrap();
        let names: Vec<_> =
            names(directory.path()).unwrap().iter().map(|name| path(name.as_ref().to_str().unwrap())).collect();
        assert_eq!(names, ["directory", "file", "symlink"].map(path));
        assert!(super::names(&path("no such")).unwrap().is_empty());
        let found = ["directory", "file", "symlink", "no such"];
        assert_eq!(found.map(|name| is_directory(&path(name)).unwrap()), [true, false, false, false]);
        found.iter().for_each(|name| remove_unless_directory(&path(name)).unwrap());
        assert_eq!(found.map(|name| path(name).symlink_metadata().is_ok()), [true, false, false, false]);
    }

    #[test]
    fn a_checksum_is_that_of_the_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "abc").unwrap();
        assert_eq!(sha256(&path).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
