//! Restores what the update has changed in the tables of dpkg and apt.

use std::path::Path;

use anyhow::Result;
use mender_update_module::{durable, log};

use crate::apt::mark;
use crate::backup::state_files;
use crate::backup::tables::{Change, STAT_OVERRIDES, Tables};
use crate::dpkg::lock;
use crate::dpkg::program;
use crate::dpkg::stanza::PackageKey;
use crate::rollback::source::Source;
use crate::rollback::table_changes::TableChanges;

/// Restores diversions and stat overrides, which dpkg applies when it installs the previous packages.
pub fn restore_paths(source: &Source) -> Result<()> {
    let Some(changes) = &source.tables else { return Ok(()) };
    let now = Tables::read()?;
    for change in changes.of_update(|tables| &tables.diversions, &now) {
        restore_diversion(change, source)?;
    }
    restore_stat_overrides(changes, &now, source.lock_seconds)
}

/// The values are `TARGET OWNER`.
fn restore_diversion(Change { key: from, before, now }: Change, source: &Source) -> Result<()> {
    log!("rollback: restoring the diversion of {from}");
    let path = Path::new(from);
    if let Some((to, _)) = now.and_then(|now| now.rsplit_once(' ')) {
        // A file of the new version, while the previous file is at the target.
        if source.is_recorded(path) && durable::exists(Path::new(to))? {
            durable::remove_file(path)?;
        }
        let rename = if durable::exists(path)? { "--no-rename" } else { "--rename" };
        program::change_under_lock("dpkg-divert").args([rename, "--remove", from]).run()?;
    }
    if let Some((to, package)) = before.and_then(|before| before.rsplit_once(' ')) {
        let owner = if package == ":" { ["--local", "--no-rename"] } else { ["--package", package] };
        program::change_under_lock("dpkg-divert")
            .args(owner)
            .args(["--no-rename", "--divert", to, "--add", from])
            .run()?;
    }
    Ok(())
}

/// Writes dpkg's file, because dpkg-statoverride would change the file modes, too.
fn restore_stat_overrides(changes: &TableChanges, now: &Tables, lock_seconds: u64) -> Result<()> {
    let changes = changes.of_update(|tables| &tables.overrides, now);
    if changes.is_empty() {
        return Ok(());
    }
    let mut overrides = now.overrides.clone();
    for Change { key: path, before, .. } in changes {
        log!("rollback: restoring the stat override of {path}");
        match before {
            Some(before) => drop(overrides.insert(path.to_owned(), before.to_owned())),
            None => drop(overrides.remove(path)),
        }
    }
    let _lock = lock::take(lock::DATABASE, lock_seconds)?;
    let text: String = overrides.iter().map(|(path, attributes)| format!("{attributes} {path}\n")).collect();
    durable::rewrite_file(Path::new(STAT_OVERRIDES), text.as_bytes())
}

/// Restores alternatives, enabled units, marks and selections.
pub fn restore_others(source: &Source) -> Result<()> {
    let Some(changes) = &source.tables else { return Ok(()) };
    let now = Tables::read()?;
    restore_state_files(changes, &now)?;
    restore_marks(changes, &now)?;
    restore_selections(changes, &now)
}

fn restore_state_files(changes: &TableChanges, now: &Tables) -> Result<()> {
    let files = changes.of_update(|tables| &tables.state_files, now);
    let (previous, new): (Vec<_>, Vec<_>) = files.into_iter().partition(|change| change.before.is_some());
    // New files are removed from the innermost outwards, previous ones restored from the outermost inwards.
    for change in new.iter().rev().chain(&previous) {
        state_files::restore(Path::new(change.key), change.before)?;
    }
    Ok(())
}

fn restore_marks(changes: &TableChanges, now: &Tables) -> Result<()> {
    let is_installed = |name: &str| now.states.get(name).is_some_and(|state| state.starts_with("installed"));
    let marks: Vec<_> = changes
        .of_update(|tables| &tables.automatic, now)
        .into_iter()
        .filter(|change| is_installed(change.key))
        .map(|change| (PackageKey::from_apt(change.key), change.before.is_some()))
        .collect();
    mark::set(marks.iter().map(|(key, automatic)| (key, *automatic)))
}

fn restore_selections(changes: &TableChanges, now: &Tables) -> Result<()> {
    let selections: String = changes
        .of_update(|tables| &tables.selections, now)
        .into_iter()
        .filter_map(|Change { key: name, before, now }| now.and(before).map(|before| format!("{name} {before}\n")))
        .collect();
    if selections.is_empty() {
        return Ok(());
    }
    program::change_under_lock("dpkg").arg("--set-selections").feed(&mut selections.as_bytes())?;
    Ok(())
}
