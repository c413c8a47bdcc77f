//! Restores the packages with dpkg.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use mender_update_module::{durable, log};

use crate::backup::contents::PackageBackup;
use crate::dpkg::conffile_policy::conffile_options;
use crate::dpkg::database::{self, Database};
use crate::dpkg::diversions::Diversions;
use crate::dpkg::program;
use crate::dpkg::stanza::Stanza;
use crate::options::Conffiles;
use crate::paths::sha256;
use crate::rollback::comparison::compare;
use crate::rollback::source::Source;

/// What dpkg must accept in a rollback: between two consistent states it passes through inconsistent ones.
/// The previous packages get all their files, also those that dpkg is configured to leave out.
const FORCE: [&str; 8] = [
    "--force-depends",
    "--force-breaks",
    "--force-conflicts",
    "--force-overwrite",
    "--force-hold",
    "--force-downgrade",
    "--force-remove-reinstreq",
    "--path-include=*",
];

/// What replaces a maintainer script that fails.
const EMPTY_SCRIPT: &[u8] = b"#!/bin/sh\nexit 0\n";

/// The arguments of dpkg by action.
#[derive(Default)]
pub struct Actions {
    purge: Vec<String>,
    remove: Vec<String>,
    install: Vec<String>,
    unpack: Vec<String>,
}

impl Actions {
    pub fn install_any(&self) -> bool {
        !self.install.is_empty() || !self.unpack.is_empty()
    }
}

/// Decides what dpkg has to do with each package that the update may have changed.
pub fn decide_actions(source: &Source) -> Result<Actions> {
    let database = Database::read()?;
    let mut actions = Actions::default();
    for package in &source.backup.packages {
        let now = database.find(&package.key);
        if is_untouched(package, now, source) && has_previous_list(package, source)? {
            continue;
        }
        match (&package.deb, now) {
            (Some(_), _) if package.was_installed() => actions.install.push(verified_deb(package, source)?),
            (Some(_), _) => actions.unpack.push(verified_deb(package, source)?),
            (None, Some(now)) if package.stanza.is_some() => actions.remove.push(now.dpkg_name()?),
            (None, Some(now)) => actions.purge.push(now.dpkg_name()?),
            (None, None) => {}
        }
    }
    Ok(actions)
}

/// Whether the package is as before, or was restored completely. Two builds of the same version have the same
/// stanza, and count as changed.
fn is_untouched(package: &PackageBackup, now: Option<&Stanza>, source: &Source) -> bool {
    let version = package.stanza.as_ref().and_then(|stanza| stanza.field("Version"));
    let is_same_version =
        source.new.packages.iter().any(|new| new.key == package.key && Some(new.version.as_str()) == version);
    now == package.stanza.as_ref() && !is_same_version
}

/// Whether dpkg's list of the package's files is as before. It alone changes when another package takes a
/// file.
fn has_previous_list(package: &PackageBackup, source: &Source) -> Result<bool> {
    match package.stanza.as_ref().filter(|_| package.deb.is_some()) {
        Some(stanza) => {
            let list = database::info_file(stanza, "list")?;
            source.backup.files.is_unchanged(&list, &source.directory.files())
        }
        None => Ok(true),
    }
}

/// The path of the package's `.deb` in the backup.
///
/// # Errors
/// When its checksum differs from the journal.
fn verified_deb(package: &PackageBackup, source: &Source) -> Result<String> {
    let name = package
        .deb
        .as_ref()
        .with_context(|| format!("restoring package {} failed: the backup has no .deb of it", package.key))?;
    let path = source.directory.0.join(name);
    if let Some(expected) = &package.sha256 {
        ensure!(
            sha256(&path)? == *expected,
            "restoring package {} failed: {}: changed since the backup was made",
            package.key,
            path.display()
        );
    }
    Ok(path.to_string_lossy().into_owned())
}

/// Removes symlinks in the place of configuration files, because dpkg would delete their targets when it
/// purges the package. Previous ones are restored with the other files.
pub fn remove_conffile_symlinks(source: &Source) -> Result<()> {
    let database = Database::read()?;
    let packages = source.backup.packages.iter().filter_map(|package| database.find(&package.key));
    for (path, _) in packages.flat_map(Stanza::conffiles) {
        let is_symlink = durable::metadata(path)?.is_some_and(|found| found.is_symlink());
        if is_symlink && source.backup.files.contains(path) {
            durable::remove_file(path)?;
        }
    }
    Ok(())
}

pub fn remove_new(actions: &Actions) {
    run_dpkg("--purge", &actions.purge);
    run_dpkg("--remove", &actions.remove);
}

pub fn install_previous(actions: &Actions) {
    run_dpkg("--install", &actions.install);
    run_dpkg("--unpack", &actions.unpack);
}

pub fn reinstall(debs: &[String]) {
    run_dpkg("--install", debs);
}

/// Configures all unfinished packages, except those that were not configured before.
pub fn configure(source: &Source) -> Result<()> {
    let database = Database::read()?;
    let was_configured = |stanza: &&Stanza| {
        let package = stanza.key(&database.native).ok().and_then(|key| source.backup.package(&key));
        package.is_none_or(PackageBackup::was_installed)
    };
    let names: Vec<_> = database.unfinished().filter(was_configured).map(Stanza::dpkg_name).collect::<Result<_>>()?;
    run_dpkg("--configure", &names);
    Ok(())
}

fn run_dpkg(action: &str, arguments: &[String]) {
    if arguments.is_empty() {
        return;
    }
    let conffiles = conffile_options(Conffiles::Keep);
    let dpkg = program::change_under_lock("dpkg").args(FORCE).args(conffiles).arg(action).args(arguments);
    if let Err(error) = dpkg.run() {
        log!("rollback continues despite an error: {error:#}");
    }
}

/// The packages that are not in their previous state.
pub fn unrestored<'a>(source: &'a Source) -> Result<Vec<&'a PackageBackup>> {
    let database = Database::read()?;
    let is_restored = |package: &PackageBackup| {
        let now = database.find_known(&package.key);
        match (&package.stanza, now) {
            (None, None) => true,
            (Some(before), Some(now)) => is_same_state(before, now),
            // dpkg drops the entry of a removed package that leaves nothing. It and the info files are restored later.
            (Some(before), None) => !before.has_files(),
            (None, Some(_)) => false,
        }
    };
    Ok(source.backup.packages.iter().filter(|package| !is_restored(package)).collect())
}

fn is_same_state(before: &Stanza, now: &Stanza) -> bool {
    let is_same = |field| before.field(field) == now.field(field);
    let is_same_package = is_same("Version") && is_same("Architecture");
    if before.is_unpacked() {
        return now.has_files() && is_same_package;
    }
    before.state() == now.state() && (!before.is_installed() || (now.is_installed() && is_same_package))
}

/// Replaces the scripts that dpkg runs when it removes the `unrestored` packages by empty ones.
pub fn disable_scripts(unrestored: &[&PackageBackup]) -> Result<()> {
    let database = Database::read()?;
    for now in unrestored.iter().filter_map(|package| database.find(&package.key)) {
        for script in ["prerm", "postrm"] {
            let path = database::info_file(now, script)?;
            if durable::exists(&path)? {
                log!("maintainer script {} failed; retrying with it disabled", path.display());
                durable::rewrite_file(&path, EMPTY_SCRIPT)?;
            }
        }
    }
    Ok(())
}

/// Fails if there are `unrestored` packages.
pub fn check_restored(unrestored: &[&PackageBackup], source: &Source) -> Result<()> {
    let names: Vec<_> = unrestored.iter().map(|package| package.key.to_string()).collect();
    ensure!(
        names.is_empty(),
        "packages not restored: {}: see the log lines above and dpkg --audit for the \
         cause, repair them and roll back again, or remove {} to accept them",
        names.join(", "),
        source.journal().display()
    );
    Ok(())
}

/// The `.deb` files of the packages of which a file differs from the record.
pub fn with_wrong_files(source: &Source) -> Result<Vec<String>> {
    let Some(recorded) = &source.record else { return Ok(Vec::new()) };
    let differences = compare(&recorded.record)?.differences;
    if differences.is_empty() {
        return Ok(Vec::new());
    }
    let (database, diversions) = (Database::read()?, Diversions::read()?);
    let mut debs = Vec::new();
    for package in source.backup.packages.iter().filter(|package| package.deb.is_some()) {
        let Some(stanza) = database.find(&package.key) else { continue };
        let differs = |path: &PathBuf| differences.contains_key(diversions.installed_path(path, &package.key.name));
        if database::files_of(stanza)?.iter().any(differs) {
            debs.push(verified_deb(package, source)?);
        }
    }
    Ok(debs)
}

#[cfg(test)]
mod tests;
