//! Restores the configuration of dpkg and apt, because the new version may have broken it. The first step of a
//! rollback: it runs no program.

use std::path::PathBuf;

use anyhow::Result;
use mender_update_module::{durable, first_error};

use crate::backup::contents::Backup;
use crate::backup::directory::BackupDirectory;
use crate::backup::path_state::PathState;
use crate::configuration;
use crate::dpkg::database::Database;
use crate::dpkg::stanza::PackageKey;
use crate::paths::remove_unless_directory;
use crate::rollback::source::Recorded;
use crate::rollback::{path_restore, structure};

/// Restores what the update has changed in the configuration. Attributes of files and empty directories are left to
/// the other steps.
pub fn restore(backup: &Backup, directory: &BackupDirectory, record: Option<&Recorded>) -> Result<()> {
    // A part that fails must not keep the others from being restored.
    let files = backup.files.restore_those(&directory.files(), configuration::contains);
    let recorded = record.map_or(Ok(()), |recorded| remove_new(&restore_recorded(recorded)?, backup));
    first_error([files, recorded])
}

/// Restores directories and symlinks. Returns the new files.
fn restore_recorded(recorded: &Recorded) -> Result<Vec<PathBuf>> {
    let mut new = Vec::new();
    recorded.record.for_each(|entry| {
        if !configuration::contains(&entry.path) {
            return Ok(());
        }
        structure::restore_entry(&entry, recorded)?;
        match &entry.previous {
            PathState::Symlink { .. } => path_restore::restore(&entry.path, &entry.previous)?,
            PathState::Absent if durable::exists(&entry.path)? => new.push(entry.path),
            _ => {}
        }
        Ok(())
    })?;
    Ok(new)
}

/// Removes the files `new`, except those that packages outside the update have now.
fn remove_new(new: &[PathBuf], backup: &Backup) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let owners = Database::read_without_dpkg()?.owners(new)?;
    let is_of_update = |owner: &PackageKey| backup.packages.iter().any(|package| package.key.name == owner.name);
    let of_update = new.iter().filter(|path| owners.of(path).iter().all(is_of_update));
    of_update.into_iter().try_for_each(|path| remove_unless_directory(path))
}
