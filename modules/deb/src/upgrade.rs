//! The update of `deb`: some packages for others, with everything that a rollback needs kept before.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Dir, Known};
use mender_update_module::{NeedsReboot, Trigger, Update, log};
use serde::{Deserialize, Serialize};

use crate::control::Key;
use crate::database::{self, Database};
use crate::former::{Folders, Former, New};
use crate::hooks::Hooks;
use crate::locks;
use crate::marks;
use crate::original;
use crate::plan::{self, Plan};
use crate::policy;
use crate::rollback::Rollback;
use crate::settings::{Reboot, Wishes};
use crate::shield::{self, Shield};
use crate::staged::{self, Staged};
use crate::tables::Tables;
use crate::touched::{self, Touched};

/// Where what packages and their scripts have written lies; often, all of it is one filesystem.
const WRITTEN: [&str; 4] = ["/", "/usr", "/etc", "/var"];

/// The record of one update, complete enough to go on with in another process after a power cut.
#[derive(Serialize, Deserialize)]
pub struct Upgrade {
    /// The module's folder, where the packages are staged, the old is kept, and those installed before are stored.
    folder: PathBuf,
    wishes: Wishes,
    /// The directory of the payload, once it is there: what has taken its name is refused.
    #[serde(default)]
    payload: Option<Known>,
}

/// What the activation and a rollback go by.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    former: Former,
    /// The directory of what is kept: what has taken its name is refused. A journal of version 0.1.0 may have none.
    #[serde(default)]
    kept: Option<Known>,
    /// The service to restart in the end: the one that the update runs in, where the update changes it.
    restart: Option<String>,
}

impl Upgrade {
    /// One in the module's folder `folder`.
    pub fn new(folder: PathBuf, wishes: Wishes) -> Self {
        Self { folder, wishes, payload: None }
    }

    /// Where its packages are staged.
    pub fn staging(&self) -> PathBuf {
        self.folder.join("staging")
    }

    /// Records which directory the payload is staged in.
    ///
    /// # Errors
    /// When somebody else may change what it is.
    pub fn note_staging(&mut self) -> Result<()> {
        self.payload = Some(Known::own(&self.staging())?);
        Ok(())
    }

    /// Bytes that stay free.
    pub fn reserve(&self) -> u64 {
        self.wishes.reserve
    }

    /// Whether it is to remove packages.
    pub fn removes(&self) -> bool {
        !self.wishes.remove.is_empty()
    }

    /// Where apt downloads to.
    fn downloads(&self) -> PathBuf {
        self.folder.join("download")
    }

    fn folders(&self) -> Folders {
        Folders { old: self.folder.join("old"), store: self.folder.join("store") }
    }

    /// The packages that it is to remove and that are there.
    fn removals(&self, database: &Database) -> Vec<Key> {
        let keys = self.wishes.remove.iter().map(|name| Key::of_apt(&name.0));
        keys.filter(|key| database.installed_version(key).is_some()).collect()
    }

    fn staged(&self, database: &Database) -> Result<Vec<Staged>> {
        require(self.payload.as_ref())?;
        staged::identify(&self.staging(), database)
    }

    /// Gives packages that were there before, and still are, their marks again: an update is nobody's wish for them. Those
    /// that apt has downloaded are there because others need them.
    fn keep_marks(former: &Former) -> Result<()> {
        let database = Database::read()?;
        let is_former =
            |new: &New| former.packages.iter().any(|package| package.key == new.key && package.deb.is_some());
        let downloaded = former.new.iter().flatten().filter(|new| new.downloaded && !is_former(new));
        let marks = former.marks().chain(downloaded.map(|new| (&new.key, true)));
        marks::set(marks.filter(|(key, _)| database.installed_version(key).is_some()))
    }

    /// Has apt download what `plan` installs and is not `staged`. False where that is nothing.
    fn download(&self, staged: &[Staged], asked: &[Key], plan: &Plan, database: &Database) -> Result<bool> {
        let is_staged = |key: &&Key| staged.iter().any(|package| package.key == **key);
        if plan.install.iter().all(|key| is_staged(&key)) {
            return Ok(false);
        }
        let place = self.downloads();
        durable::remove_tree(&place)?;
        durable::make_dirs(&place.join("partial"))?;
        plan::download(staged, asked, &self.wishes, database, &place)?;
        let (from, into) = (Dir::open(&place)?, Dir::open(&self.staging())?);
        for name in
            from.names()?.iter().filter(|name| name.as_ref().extension().is_some_and(|kind| kind == "deb"))
        {
            from.rename_to_free(name, &into, name)?;
        }
        into.sync_filesystem()?;
        durable::remove_tree(&place)?;
        Ok(true)
    }

    /// Makes sure that apt has done what it was to do: a setting of its own may have it do nothing, and succeed.
    fn check_installed(&self, staged: &[Staged], asked: &[Key]) -> Result<()> {
        let database = Database::read()?;
        for package in staged {
            let found = database.find(&package.key);
            let is_there = found.is_some_and(|found| {
                found.is_configured() && found.field("Version") == package.control.field("Version")
            });
            ensure!(
                is_there,
                "apt has succeeded, but package {} is {}: see the settings of apt (apt-config dump)",
                package.key,
                found.map_or("not-installed", |found| found.state())
            );
        }
        let left = asked.iter().find(|key| database.installed_version(key).is_some());
        ensure!(
            left.is_none(),
            "apt has succeeded, but did not remove {}",
            left.map(Key::to_string).unwrap_or_default()
        );
        Ok(())
    }

    fn restore(&self, Prepared { former, kept, .. }: &Prepared) -> Result<()> {
        let folders = self.folders();
        require(kept.as_ref()).context("the packages and files that are kept for the rollback")?;
        let rollback = || Rollback::new(former, &folders, self.wishes.lock_seconds);
        if let Some(new) = &former.new {
            // Nothing in it is needed any more, and the rollback may need the space.
            if let Err(error) = durable::remove_tree(&self.staging()) {
                log!("rollback continues despite an error: {error:#}");
            }
            return rollback()?.run(new, None);
        }
        // A version that recorded nothing began this update: what is new is in its packages.
        let mut staged = self.staged(&Database::read()?)?;
        staged::read_items(&mut staged, usize::MAX)?;
        let new = staged.iter().map(New::of).collect::<Result<Vec<_>>>()?;
        rollback()?.run(&new, Some(&staged))
    }
}

impl Update for Upgrade {
    type Prepared = Prepared;

    fn prepare(&mut self) -> Result<Prepared> {
        let wishes = &self.wishes;
        locks::wait_for_all(wishes.lock_seconds)?;
        // Before dpkg or apt read a package, it has to be within the limits.
        let mut staged = self.staged(&Database::read()?)?;
        staged::read_items(&mut staged, wishes.max_files)?;
        let hooks = Hooks::read()?;
        policy::repair(&hooks)?;
        let database = Database::read()?;
        policy::check_payload(&staged, &database, wishes)?;
        touched::check_removable(&staged, &database)?;
        let asked = self.removals(&database);
        let mut plan = plan::simulate(&staged, &asked, wishes, &database)?;
        if wishes.network && self.download(&staged, &asked, &plan, &database)? {
            // What apt has downloaded is looked at as the payload is, and installed with it.
            let of_payload: Vec<_> = staged.into_iter().map(|package| package.key).collect();
            staged = self.staged(&database)?;
            staged.iter_mut().for_each(|package| package.downloaded = !of_payload.contains(&package.key));
            staged::read_items(&mut staged, wishes.max_files)?;
            touched::check_removable(&staged, &database)?;
            plan = plan::simulate(&staged, &asked, wishes, &database)?;
        }
        policy::check_plan(&plan, &staged, &asked, &database)?;
        policy::check_repaired(&plan, &database)?;
        let touched = Touched::by(&plan, &staged, &database)?;
        hooks.check_writable(&touched.paths)?;
        let former = Former::keep(&touched, &staged, &database, &self.folders(), wishes)?;
        policy::check_space(&staged, wishes.reserve)?;
        let kept = Some(Known::own(&self.folders().old)?);
        let restart = shield::own_unit()?.filter(|unit| changes(&plan, &database, unit));
        Ok(Prepared { former, kept, restart })
    }

    fn activate(&self, prepared: &Prepared) -> Result<()> {
        let database = Database::read()?;
        let (staged, asked) = (self.staged(&database)?, self.removals(&database));
        let shield = Shield::raise()?;
        let done = plan::carry_out(&staged, &asked, &self.wishes, &database)
            .and_then(|()| self.check_installed(&staged, &asked))
            .and_then(|()| database::sweep(self.wishes.lock_seconds))
            .and_then(|()| Self::keep_marks(&prepared.former))
            .and_then(|()| Tables::read()?.write(&self.folders().tables_after()));
        shield.lower();
        done?;
        sync()
    }

    fn roll_back(&self, prepared: &Prepared, _trigger: Trigger) -> Result<()> {
        let shield =
            Shield::raise().inspect_err(|error| log!("rollback continues despite an error: {error:#}"));
        let done = self.restore(prepared);
        shield.into_iter().for_each(Shield::lower);
        done?;
        sync()
    }

    fn discard_at_boot(&self) -> Result<bool> {
        durable::remove_tree(&self.staging())?; // none of it is installed
        Ok(true)
    }

    fn discard(&self, _prepared: Option<&Prepared>) -> Result<()> {
        let Folders { old, store } = self.folders();
        // The store only saves the next update some work.
        if let Err(error) = original::keep_installed(&self.staging(), &store, self.wishes.store) {
            log!("the packages are not kept for the next update's rollback: {error:#}");
        }
        durable::remove_tree(&self.staging())?;
        durable::remove_tree(&self.downloads())?;
        durable::remove_tree(&old)
    }

    fn needs_reboot(&self, prepared: &Prepared) -> Result<NeedsReboot> {
        let wanted = self.wishes.reboot == Reboot::Automatic || prepared.former.wants_reboot();
        Ok(if wanted { NeedsReboot::Automatic } else { NeedsReboot::No })
    }

    fn ended(&self, prepared: Option<&Prepared>) {
        let restart = prepared.and_then(|prepared| prepared.restart.as_ref());
        restart.into_iter().for_each(|unit| shield::restart_later(unit));
    }
}

/// Refuses a directory that somebody has replaced since it was recorded; a journal of version 0.1.0 has none.
fn require(directory: Option<&Known>) -> Result<()> {
    let Some(known) = directory else { return Ok(()) };
    known.open()?.require_private()
}

/// Whether `plan` changes the package that `unit` belongs to.
fn changes(plan: &Plan, database: &Database, unit: &str) -> bool {
    let Ok(file) = shield::unit_file(unit) else { return false };
    let packages = plan.keys().filter_map(|key| database.find(key));
    let files = packages.filter_map(|package| database::files_of(package).ok()).flatten();
    files.into_iter().any(|path| path.file_name() == file.file_name() && is_same(&path, &file))
}

fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().is_some_and(|one| other.canonicalize().ok() == Some(one))
}

/// Returns when all that was written is on the medium: dpkg sees to its own files, scripts do not.
fn sync() -> Result<()> {
    WRITTEN.iter().try_for_each(|folder| Dir::open(Path::new(folder))?.sync_filesystem())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use mender_update_module::check_journal;

    use super::*;

    /// A package may be upgraded while an update is pending: journals of released versions are read for ever.
    #[test]
    fn journals_of_released_versions_are_read() {
        let journals = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals");
        let mut read = Vec::new();
        for version in fs::read_dir(journals).unwrap() {
            for journal in fs::read_dir(version.unwrap().path()).unwrap() {
                let text = fs::read_to_string(journal.unwrap().path()).unwrap();
                let mut phases = vec![check_journal::<Upgrade>(text.as_bytes()).unwrap()];
                for (written, other) in
                    [("Switched", "Switching"), ("RolledBack", "RollingBack"), ("Staged", "Staging")]
                {
                    let text = text.replace(&format!("\"{written}\""), &format!("\"{other}\""));
                    phases.push(check_journal::<Upgrade>(text.as_bytes()).unwrap());
                }
                read.extend(phases);
            }
        }
        read.sort();
        read.dedup();
        assert_eq!(
            read,
            ["Activating", "Active", "Committed", "RolledBack", "RollingBack", "Staged", "Staging"]
        );
    }
}
