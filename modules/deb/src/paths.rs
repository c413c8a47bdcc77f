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
