//! Restores what the update has changed in the tables of dpkg and apt.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use mender_update_module::{durable, log};

use crate::apt::mark;
use crate::backup::tables::{Change, STAT_OVERRIDES, Tables};
use crate::backup::{state_files, table_text};
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
    let path = path_of(table_text::to_bytes(from));
    if let Some((to, _)) = now.and_then(target_and_owner) {
        // A file of the new version, while the previous file is at the target.
        if source.is_recorded(&path) && durable::exists(&to)? {
            durable::remove_file(&path)?;
        }
        let rename = if durable::exists(&path)? { "--no-rename" } else { "--rename" };
        program::change_under_lock("dpkg-divert").args([rename, "--remove"]).arg(&path).run()?;
    }
    if let Some((to, package)) = before.and_then(target_and_owner) {
        let divert = program::change_under_lock("dpkg-divert");
        let divert = if package == ":" { divert.arg("--local") } else { divert.arg("--package").arg(package) };
        divert.args(["--no-rename", "--divert"]).arg(to).arg("--add").arg(path).run()?;
    }
    Ok(())
}

fn target_and_owner(value: &str) -> Option<(PathBuf, OsString)> {
    let mut target = table_text::to_bytes(value);
    let space = target.iter().rposition(|byte| *byte == b' ')?;
    let owner = target.split_off(space + 1);
    target.pop();
    Some((path_of(target), OsString::from_vec(owner)))
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
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
    let line = |(path, attributes): (&String, &String)| {
        [&table_text::to_bytes(attributes), &b" "[..], &table_text::to_bytes(path), b"\n"].concat()
    };
    let text: Vec<u8> = overrides.iter().flat_map(line).collect();
    durable::rewrite_file(Path::new(STAT_OVERRIDES), &text)
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
