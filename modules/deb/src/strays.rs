//! What an update leaves behind and nobody owns: removed in a rollback.

use std::path::PathBuf;

use anyhow::{Context, Result};
use mender_update_module::durable;

use crate::control::Key;
use crate::database::{self, Database, Diversions};
use crate::former::Former;
use crate::places;
use crate::staged::Staged;

/// Removes `paths`, which were absent before the update: directories after what is in them. A path of a package that the
/// update does not change stays, and so does what somebody has put into a directory.
///
/// # Errors
/// When one cannot be removed.
pub fn remove(paths: &[PathBuf], former: &Former) -> Result<()> {
    let owners = Database::read()?.owners(paths)?;
    let is_of_update = |owner: &Key| former.packages.iter().any(|package| package.key == *owner);
    for path in paths.iter().filter(|path| owners.of(path).iter().all(is_of_update)) {
        let Some(found) = durable::look_at(path)? else { continue };
        let is_backup = path.to_string_lossy().ends_with(".dpkg-backup");
        let removed = if !found.is_dir() {
            durable::remove_file(path)
        } else if is_backup && owners.of(path).is_empty() {
            // dpkg-maintscript-helper has renamed a directory of the former package, which is there again.
            durable::remove_tree(path)
        } else {
            durable::remove_empty_dir(path)
        };
        removed.context("removing what the update has left")?;
    }
    remove_info(former)
}

/// As [`remove`], for an update of which no record was written: what `staged` has and no package owns.
///
/// # Errors
/// As there.
pub fn remove_of(staged: &[Staged], former: &Former) -> Result<()> {
    let paths = staged.iter().flat_map(|package| package.items.iter().map(|item| &item.path));
    let (owners, diversions) = (Database::read()?.owners(paths)?, Diversions::read()?);
    for package in staged {
        let mut paths: Vec<_> = package.items.iter().map(|item| &item.path).collect();
        paths.sort();
        // Directories after what is in them.
        for path in paths.iter().rev() {
            let place = diversions.place(path, &package.key.name);
            places::unfinished(place).try_for_each(|half| places::remove_file(&half))?;
            if !owners.of(path).is_empty() || former.places.has(place) {
                continue;
            }
            let removed = if durable::look_at(place)?.is_some_and(|found| found.is_dir()) {
                durable::remove_empty_dir(place)
            } else {
                places::remove_file(place)
            };
            removed.context("removing what the update has left")?;
        }
    }
    for package in former.packages.iter().filter_map(|package| package.stanza.as_ref()) {
        for path in database::files_of(package)? {
            places::unfinished(&path).try_for_each(|half| places::remove_file(&half))?;
        }
    }
    remove_info(former)
}

/// Removes dpkg's files about former packages that these did not have.
fn remove_info(former: &Former) -> Result<()> {
    for package in former.packages.iter().filter_map(|package| package.stanza.as_ref()) {
        for path in database::info_files(package)?.iter().filter(|path| !former.places.has(path)) {
            places::remove_file(path)?;
        }
    }
    Ok(())
}
