//! Operations on directories of the host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Creates the empty directory `path`. Existing content is removed.
pub fn empty(path: &Path) -> Result<()> {
    remove(path)?;
    fs::create_dir_all(path).with_context(|| format!("creating {} failed", path.display()))
}

/// Removes the directory `path` with its content, if it exists.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("removing {} failed", path.display())),
    }
}

/// The paths of the entries of the directory `path`, sorted.
pub fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("listing {}", path.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).with_context(context)? {
        entries.push(entry.with_context(context)?.path());
    }
    entries.sort();
    Ok(entries)
}

/// The paths of all files below the directory `path`, sorted. Symlinks to directories are followed.
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

/// Writes the file `path`. Creates its missing parent directories.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory).with_context(|| format!("creating {} failed", directory.display()))?;
    fs::write(path, content).with_context(|| format!("writing {} failed", path.display()))
}
