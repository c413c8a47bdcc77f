//! The only place that creates, links, renames, removes and fsyncs: modules say what, this says how.
//!
//! Names from an artifact are [`FileName`]s, and everything here works on one name in an open folder ([`Dir`]):
//! no `..`, no absolute path and no symlink leads out of it.
//!
//! A name operation is atomic, but on the medium only once its folder has been synced ([`Dir::sync`]); content is
//! there once the file or its whole filesystem has been ([`Dir::sync_filesystem`]).

mod attributes;
mod dir;
mod kind;
mod place;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use attributes::{Attributes, Times};
pub use dir::Dir;
pub use kind::{Kind, Node};
pub use place::{absent_parents, beside, mounts_at_or_below, resolve};

use crate::name::FileName;

/// Replaces the file at `path` by one with `content`, or makes it; after a power cut it is the old or the new, whole.
/// Missing parents are made.
///
/// # Errors
/// The step that failed and its file; the old file is still there then.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let (folder, name) = split(path)?;
    let folder = make_dirs(folder)?;
    let mut partial_name = name.as_ref().as_os_str().to_owned();
    partial_name.push(".new");
    let partial_name = FileName::new(partial_name)?;
    folder.remove(&partial_name)?;
    let mut partial = folder.create_file(&partial_name)?;
    partial
        .write_all(content)
        .and_then(|()| partial.sync_all())
        .with_context(|| failed("writing", &folder.path().join(&partial_name)))?;
    folder.rename(&partial_name, &folder, &name)?;
    folder.sync()
}

/// Makes `folders`, outermost first, durably: 0755. [`remove_made`] takes them away again.
///
/// # Errors
/// The folder that cannot be made.
pub fn make_absent(folders: &[PathBuf]) -> Result<()> {
    for folder in folders {
        Dir::make(folder, 0o755)?;
        if let Some(parent) = folder.parent() {
            Dir::open(parent)?.sync()?;
        }
    }
    Ok(())
}

/// Removes folders that an update made, innermost first; one that somebody has put something into stays.
///
/// # Errors
/// The folder whose removal failed.
pub fn remove_made(made: &[PathBuf]) -> Result<()> {
    for folder in made.iter().rev() {
        remove_empty_dir(folder)?;
    }
    match made.first().and_then(|outermost| outermost.parent()) {
        Some(parent) => Dir::open(parent)?.sync(),
        None => Ok(()),
    }
}

/// Removes the file at `path`; one that is not there is fine.
///
/// # Errors
/// The step that failed and its file.
pub fn remove_file(path: &Path) -> Result<()> {
    let (folder, name) = split(path)?;
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => {
            let folder = Dir::open(folder)?;
            folder.remove(&name)?;
            folder.sync()
        }
    }
}

/// Opens the folder `path`, making it and its parents where they are missing: 0755, and on the medium on return.
///
/// # Errors
/// The folder that cannot be made or opened.
pub fn make_dirs(path: &Path) -> Result<Dir> {
    make_absent(&absent_parents(path)?)?;
    Dir::open(path)
}

/// Removes the folder `path` with all that is in it, following no symlink; one that is not there is fine.
///
/// # Errors
/// The folder whose removal failed; part of it may be gone.
pub fn remove_tree(path: &Path) -> Result<()> {
    absent_is_fine(fs::remove_dir_all(path)).with_context(|| failed("removing the folder", path))?;
    let parent = path.parent().unwrap_or(path);
    if parent.is_dir() { Dir::open(parent)?.sync() } else { Ok(()) }
}

/// Removes the folder `path` if it is empty; one that is not there, or that somebody has put something into, is left.
///
/// # Errors
/// The folder whose removal failed.
pub fn remove_empty_dir(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        done => absent_is_fine(done).with_context(|| failed("removing the empty folder", path)),
    }
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn split(path: &Path) -> Result<(&Path, FileName)> {
    let name = path.file_name().with_context(|| format!("{} has no file name", path.display()))?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder, FileName::new(name)?))
}

fn failed(operation: &str, path: &Path) -> String {
    format!("{operation} {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_half_written_one_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/parents/journal.json");
        write_file(&path, b"one").unwrap();
        fs::write(folder.path().join("missing/parents/journal.json.new"), "half").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove_file(&path).unwrap();
        remove_file(&path).unwrap();
        remove_file(Path::new("/no/such/folder/file")).unwrap();
    }

    #[test]
    fn only_an_empty_folder_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("user file"), "").unwrap();
        remove_empty_dir(&path).unwrap();
        assert!(path.exists());
        remove_tree(&path).unwrap();
        remove_tree(&path).unwrap();
        remove_empty_dir(&path).unwrap();
        assert!(!path.exists());
    }
}
