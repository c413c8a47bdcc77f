//! Restores the directories, and the symlinks to directories, before dpkg installs the previous packages:
//! dpkg follows these or leaves them alone.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mender_update_module::durable::{self, Dir, parent_and_name};

use crate::backup::path_record::RecordedPath;
use crate::backup::path_state::PathState;
use crate::dpkg::related_files::HELPER_STAGING;
use crate::paths::is_directory;
use crate::rollback::path_restore;
use crate::rollback::source::{Recorded, Source};

/// Restores directories, symlinks to directories, and paths that have become one of these.
pub fn restore(source: &Source) -> Result<()> {
    if let Some(recorded) = &source.record {
        recorded.record.for_each(|entry| restore_entry(&entry, recorded))?;
    }
    // dpkg makes a directory where nothing is, and leaves a symlink alone.
    source.backup.moved_directories.restore_absent(&source.directory.moved_directories())
}

/// Restores one entry of [`restore`].
pub fn restore_entry(RecordedPath { path, previous }: &RecordedPath, recorded: &Recorded) -> Result<()> {
    let found = durable::metadata(path)?;
    let is_directory = found.as_ref().is_some_and(Metadata::is_dir);
    let is_symlink = found.as_ref().is_some_and(Metadata::is_symlink);
    let is_wrong = match previous {
        PathState::Absent => false,
        PathState::Directory { .. } => found.is_some() && !is_directory,
        PathState::Symlink { target, to_directory: true, .. } => {
            !is_symlink || fs::read_link(path).is_ok_and(|now| now != *target)
        }
        PathState::Symlink { .. } => is_directory,
        PathState::File { .. } | PathState::Node { .. } => is_directory || is_symlink,
    };
    if !is_wrong {
        return Ok(());
    }
    if is_directory {
        remove_directory(path, &recorded.paths)?;
    } else if !matches!(previous, PathState::Directory { .. }) {
        durable::remove_file(path)?;
    }
    path_restore::restore(path, previous).with_context(|| format!("restoring {} failed", path.display()))
}

/// Removes the directory `path` with the paths in it that are in `recorded`. If there are others, it is moved
/// aside instead.
fn remove_directory(path: &Path, recorded: &BTreeSet<PathBuf>) -> Result<()> {
    remove_recorded(path, recorded)?;
    durable::remove_empty_dir(path)?;
    if !durable::exists(path)? {
        return Ok(());
    }
    let (parent, name) = parent_and_name(path)?;
    let parent = Dir::open(parent)?;
    parent.move_aside(&name)?;
    parent.sync()
}

/// Removes the paths below `directory` that are in `recorded`. The depth is that of the packages' own paths.
fn remove_recorded(directory: &Path, recorded: &BTreeSet<PathBuf>) -> Result<()> {
    // The directory is closed before the next level is opened, so that depth needs no file descriptors.
    let names = Dir::open(directory)?.names()?;
    for name in names {
        let path = directory.join(&name);
        if !recorded.contains(&path) && name.as_ref() != Path::new(HELPER_STAGING) {
            continue;
        }
        if is_directory(&path)? {
            remove_recorded(&path, recorded)?;
            durable::remove_empty_dir(&path)?;
        } else {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}
