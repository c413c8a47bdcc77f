//! Directories of this machine's: emptied, removed, listed, and files written into them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Makes the directory `path`, with nothing in it.
///
/// # Errors
/// When something in it cannot be removed, or it cannot be made.
pub fn empty(path: &Path) -> Result<()> {
    remove(path)?;
    fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))
}

/// Removes the directory `path` with all that is in it; one that is not there is fine.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("removing {}", path.display())),
    }
}

/// What is directly in the directory `path`, sorted.
///
/// # Errors
/// When it cannot be read.
pub fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("listing {}", path.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).with_context(context)? {
        entries.push(entry.with_context(context)?.path());
    }
    entries.sort();
    Ok(entries)
}

/// Every file below the directory `path`, sorted. Links to directories are followed.
///
/// # Errors
/// When a directory cannot be read.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in entries(path)? {
        if entry.is_dir() {
            files.extend(self::files(&entry)?);
        } else {
            files.push(entry);
        }
    }
    Ok(files)
}

/// Writes the file `path`, and makes the directories above it.
///
/// # Errors
/// When one of them cannot be made, or it cannot be written.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
