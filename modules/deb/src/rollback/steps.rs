//! The order of the steps of a rollback.

use anyhow::Result;

use crate::apt::mark;
use crate::dpkg::database;
use crate::dpkg::lock;
use crate::rollback::source::Source;
use crate::rollback::{files, packages, structure, tables, verification};

/// Restores the backup, and verifies that everything recorded is as it was.
///
/// # Errors
/// When another package manager holds a lock for too long, a package cannot be restored, or
/// something differs: the list of differences.
pub fn roll_back(source: &Source) -> Result<()> {
    drop(lock::take(lock::DATABASE, source.lock_seconds)?);
    database::merge_updates()?;
    source.hooks.run_around(|| restore(source))?;
    mark::set(source.backup.marks())?;
    tables::restore_others(source)?;
    verification::verify(source)
}

/// Restores packages, then files, then dpkg's database.
fn restore(source: &Source) -> Result<()> {
    restore_packages(source)?;
    let mut unrestored = packages::unrestored(source)?;
    if !unrestored.is_empty() {
        packages::disable_scripts(&unrestored)?;
        restore_packages(source)?;
        unrestored = packages::unrestored(source)?;
    }
    packages::check_restored(&unrestored, source)?;
    database::remove_unpacked_control_files(source.lock_seconds)?;
    mark::remove_unfinished_lists()?;
    restore_files(source)?;
    let incomplete = packages::with_wrong_files(source)?;
    if !incomplete.is_empty() {
        packages::reinstall(&incomplete);
        restore_files(source)?;
    }
    database::restore_stanzas(&source.backup.stanzas(), source.lock_seconds)
}

/// Makes dpkg remove the new packages and install the previous ones. Errors of dpkg are only logged:
/// [`restore`] checks the result.
fn restore_packages(source: &Source) -> Result<()> {
    let actions = packages::decide_actions(source)?;
    packages::remove_conffile_symlinks(source)?;
    // The new packages first: their files and conflicts may keep the previous ones from being installed.
    packages::remove_new(&actions);
    tables::restore_paths(source)?;
    if actions.install_any() {
        source.hooks.repeat_before();
        structure::restore(source)?;
    }
    packages::install_previous(&actions);
    packages::configure(source)?;
    source.hooks.repeat_before();
    Ok(())
}

fn restore_files(source: &Source) -> Result<()> {
    source.hooks.repeat_before();
    files::restore(source)
}
