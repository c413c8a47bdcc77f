//! The rollback, from wherever the install or an earlier rollback was interrupted: the former packages, exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::{durable, log};

use crate::control::Stanza;
use crate::database::{self, Database, Diversions};
use crate::dpkg;
use crate::former::{Folders, Former, New, Package};
use crate::hooks::Hooks;
use crate::locks;
use crate::marks;
use crate::plan;
use crate::record::Record;
use crate::settings::Conffiles;
use crate::staged::Staged;
use crate::strays;
use crate::tables::{Others, Tables};
use crate::was;

/// What dpkg has to overlook in a rollback: between two states that fit together it passes through some that do not. What
/// the previous packages had on the device they get again, whatever dpkg is told to leave out of packages.
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

/// How many differences are listed.
const LISTED: usize = 20;

/// One rollback, with what was kept for it.
pub struct Rollback<'a> {
    pub former: &'a Former,
    pub folders: &'a Folders,
    pub lock_seconds: u64,
    /// What the record says, and the paths in it; `None` for an update that a version without records began.
    record: Option<(Record, BTreeSet<PathBuf>)>,
    /// dpkg's tables before the install.
    before: Option<Tables>,
    /// What others have changed in them since.
    others: Option<Others>,
    hooks: Hooks,
}

impl<'a> Rollback<'a> {
    /// Reads what was kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(former: &'a Former, folders: &'a Folders, lock_seconds: u64) -> Result<Self> {
        let record =
            folders.record()?.map(|record| record.paths().map(|paths| (record, paths))).transpose()?;
        let before = Tables::from_file(&folders.tables_before())?;
        let others = Others::of(folders)?;
        Ok(Self { former, folders, lock_seconds, record, before, others, hooks: Hooks::read()? })
    }

    /// Restores the former packages in the place of `new`, and verifies that everything recorded is as it was.
    ///
    /// # Errors
    /// When another package manager does not end, or something is not as it was: a list of what.
    pub fn run(&self, new: &[New], staged: Option<&[Staged]>) -> Result<()> {
        let frontend = locks::take(locks::FRONTEND, self.lock_seconds)?;
        drop(locks::take(locks::DATABASE, self.lock_seconds)?);
        database::settle()?;
        let restored = self.hooks.around(|| self.restore(new, staged));
        drop(frontend);
        restored?;
        marks::set(self.former.marks())?;
        if let Some(before) = &self.before {
            before.restore(self.others.as_ref())?;
        }
        self.verify()
    }

    fn restore(&self, new: &[New], staged: Option<&[Staged]>) -> Result<()> {
        self.attempt(new)?;
        let mut left = missing(self.former, &Database::read()?);
        if !left.is_empty() {
            silence_scripts(&left)?;
            self.attempt(new)?;
            left = missing(self.former, &Database::read()?);
        }
        let names = || left.iter().map(|package| package.key.to_string()).collect::<Vec<_>>().join(", ");
        ensure!(
            left.is_empty(),
            "these packages are not what they were: {}: see the lines above for the reason, and dpkg --audit: repair them and roll \
             back again, or remove {} to accept them",
            names(),
            self.folders.old.with_file_name("journal.json").display()
        );
        database::sweep(self.lock_seconds)?;
        marks::sweep()?;
        self.restore_files(staged)?;
        let incomplete = self.incomplete()?;
        if !incomplete.is_empty() {
            self.dpkg("--install", &incomplete);
            self.restore_files(staged)?;
        }
        database::put_back(&self.former.stanzas(), self.lock_seconds)
    }

    /// Has dpkg do what is missing. That it complains is no failure: what counts is how the packages are in the end.
    fn attempt(&self, new: &[New]) -> Result<()> {
        let database = Database::read()?;
        let (mut purge, mut remove) = (Vec::new(), Vec::new());
        let (mut install, mut unpack) = (Vec::new(), Vec::new());
        for package in &self.former.packages {
            let now = database.find(&package.key);
            if is_untouched(package, now, new) && self.has_its_files(package)? {
                continue;
            }
            match (&package.deb, now) {
                (Some(_), _) if package.stanza.as_ref().is_some_and(Stanza::is_installed) => {
                    install.push(self.deb(package)?);
                }
                (Some(_), _) => unpack.push(self.deb(package)?),
                (None, Some(now)) if package.stanza.is_some() => remove.push(now.dpkg_name()?),
                (None, Some(now)) => purge.push(now.dpkg_name()?),
                (None, None) => {}
            }
        }
        self.unlink_conffiles(&database)?;
        // What is new goes first: it may hold files and conflicts that keep the former packages away.
        self.dpkg("--purge", &purge);
        self.dpkg("--remove", &remove);
        if let Some(before) = &self.before {
            let is_recorded =
                |path: &Path| self.record.as_ref().is_some_and(|(_, paths)| paths.contains(path));
            before.restore_paths(self.others.as_ref(), is_recorded, self.lock_seconds)?;
        }
        if !install.is_empty() || !unpack.is_empty() {
            self.hooks.reopen();
            if let Some((record, paths)) = &self.record {
                record.restore_structure(paths)?;
            }
            // dpkg leaves a symlink in the place of a directory alone, but makes a directory where nothing is.
            self.former.moved.put_back_missing(&self.folders.moved())?;
        }
        self.dpkg("--install", &install);
        self.dpkg("--unpack", &unpack);
        // Those that were not configured before are not to be configured now.
        let before = |stanza: &&Stanza| {
            let key = stanza.key(&database.native).ok();
            let former = self.former.packages.iter().find(|package| Some(&package.key) == key.as_ref());
            former.is_none_or(|package| package.stanza.as_ref().is_some_and(Stanza::is_installed))
        };
        let now = Database::read()?;
        let unfinished: Vec<_> =
            now.unfinished().filter(before).map(Stanza::dpkg_name).collect::<Result<_>>()?;
        self.dpkg("--configure", &unfinished);
        self.hooks.reopen();
        Ok(())
    }

    fn deb(&self, package: &Package) -> Result<String> {
        let name = package.deb.as_ref().with_context(|| format!("package {} has no .deb", package.key))?;
        let path = self.folders.old.join(name);
        if let Some(sha256) = &package.sha256 {
            ensure!(
                was::sha256(&path)? == *sha256,
                "{} is not what was kept before the update: it cannot be used to restore package {}",
                path.display(),
                package.key
            );
        }
        Ok(path.to_string_lossy().into_owned())
    }

    fn dpkg(&self, verb: &str, what: &[String]) {
        if what.is_empty() {
            return;
        }
        let conffiles = plan::conffile_options(Conffiles::Keep);
        if let Err(error) = dpkg::dpkg().args(FORCE).args(conffiles).arg(verb).args(what).run() {
            log!("rollback: {error:#}");
        }
    }

    /// Removes symlinks in the places of configuration files: dpkg follows them, and a purge would delete what they lead to.
    /// Those that were there before are restored with the other copies.
    fn unlink_conffiles(&self, database: &Database) -> Result<()> {
        let packages = self.former.packages.iter().filter_map(|package| database.find(&package.key));
        for (path, _) in packages.flat_map(Stanza::conffiles) {
            let path = Path::new(path);
            if durable::look_at(path)?.is_some_and(|found| found.is_symlink()) && self.former.places.has(path)
            {
                durable::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Restores what dpkg does not: what was there without being a package's, and what no package can hold.
    fn restore_files(&self, staged: Option<&[Staged]>) -> Result<()> {
        self.hooks.reopen();
        match (&self.record, staged) {
            (Some((record, paths)), _) => strays::remove(&record.appeared(paths)?, self.former)?,
            (None, Some(staged)) => strays::remove_of(staged, self.former)?,
            (None, None) => {}
        }
        self.former.places.put_back(&self.folders.places())?;
        self.former.extras.put_back()?;
        self.record.as_ref().map_or(Ok(()), |(record, _)| record.restore())
    }

    /// The `.deb` files of those packages of which a file is not what it was.
    fn incomplete(&self) -> Result<Vec<String>> {
        let Some((record, _)) = &self.record else { return Ok(Vec::new()) };
        let differences = record.compare()?.differences;
        if differences.is_empty() {
            return Ok(Vec::new());
        }
        let (owners, diversions) = (Database::read()?, Diversions::read()?);
        let mut debs = Vec::new();
        for package in self.former.packages.iter().filter(|package| package.deb.is_some()) {
            let Some(stanza) = owners.find(&package.key) else { continue };
            let has = |path: &PathBuf| differences.contains_key(diversions.place(path, &package.key.name));
            if database::files_of(stanza)?.iter().any(has) {
                debs.push(self.deb(package)?);
            }
        }
        Ok(debs)
    }

    /// Whether the package has not lost a file to another: that changes dpkg's list of its files, and nothing else.
    fn has_its_files(&self, package: &Package) -> Result<bool> {
        match package.stanza.as_ref().filter(|_| package.deb.is_some()) {
            Some(stanza) => {
                let list = database::info_file(stanza, "list")?;
                self.former.places.is_as_kept(&list, &self.folders.places())
            }
            None => Ok(true),
        }
    }

    /// Compares everything with what was recorded.
    fn verify(&self) -> Result<()> {
        let (Some((record, _)), Some(before)) = (&self.record, &self.before) else {
            log!(
                "rollback done: an earlier version of this module began the update and recorded nothing to verify it with"
            );
            return Ok(());
        };
        let compared = record.compare()?;
        for path in &compared.left {
            log!("{} is not empty, and was left: remove it if nobody needs it", path.display());
        }
        let paths = compared.differences.iter();
        let mut differences: Vec<_> = paths.map(|(path, how)| format!("{}: {how}", path.display())).collect();
        differences.extend(before.differences(self.others.as_ref())?);
        let now = Database::read()?;
        let stanzas: BTreeMap<_, _> = now.all().collect();
        for package in &self.former.packages {
            if stanzas.get(&package.key).copied() != package.stanza.as_ref() {
                differences.push(format!("package {}: dpkg's entry differs", package.key));
            }
        }
        if differences.is_empty() {
            log!(
                "rollback complete: {} packages and {} paths verified",
                self.former.packages.len(),
                compared.compared
            );
            return Ok(());
        }
        let more = differences.len().saturating_sub(LISTED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        bail!(
            "rollback incomplete: {} differences: {}{more}: repair them and roll back again, or remove {} to accept them",
            differences.len(),
            differences[..differences.len().min(LISTED)].join("; "),
            self.folders.old.with_file_name("journal.json").display()
        )
    }
}

/// Whether nothing has happened to `package`, or everything to restore it. A stanza cannot tell one build of a version from
/// another.
fn is_untouched(package: &Package, now: Option<&Stanza>, new: &[New]) -> bool {
    let version = package.stanza.as_ref().and_then(|stanza| stanza.field("Version"));
    let same_version = new.iter().any(|new| new.key == package.key && Some(new.version.as_str()) == version);
    now == package.stanza.as_ref() && !same_version
}

/// The packages that are not in their former state.
fn missing<'a>(former: &'a Former, database: &Database) -> Vec<&'a Package> {
    let is_missing = |package: &&Package| {
        let now = database.find(&package.key).filter(|now| now.state() != "not-installed");
        match (&package.stanza, now) {
            (None, None) => false,
            (Some(before), Some(now)) => {
                let same = |field| before.field(field) == now.field(field);
                let same_package = same("Version") && same("Architecture");
                if before.is_unpacked() {
                    return !(now.has_files() && same_package);
                }
                before.state() != now.state()
                    || (before.is_installed() && !(now.is_installed() && same_package))
            }
            _ => true,
        }
    };
    former.packages.iter().filter(is_missing).collect()
}

/// The last resort: scripts of the new packages that fail when they are to go are replaced by ones that do nothing.
fn silence_scripts(packages: &[&Package]) -> Result<()> {
    let database = Database::read()?;
    for now in packages.iter().filter_map(|package| database.find(&package.key)) {
        for script in ["prerm", "postrm"] {
            let path = database::info_file(now, script)?;
            if durable::exists(&path)? {
                log!("{} fails, and would keep the former package away: running without it", path.display());
                durable::rewrite_file(&path, b"#!/bin/sh\nexit 0\n")?;
            }
        }
    }
    Ok(())
}
