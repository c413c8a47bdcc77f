//! An update of packages, as a transaction of the library.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{self, Dir, Known};
use mender_update_module::{NeedsReboot, Trigger, Update, log};
use serde::{Deserialize, Serialize};

use crate::apt::get::{self, Transaction};
use crate::apt::mark;
use crate::backup::contents::{Backup, NewPackage};
use crate::backup::deb_cache;
use crate::backup::path_record::PathRecord;
use crate::backup::tables::Tables;
use crate::checks::affected::Affected;
use crate::checks::{policy, restorable};
use crate::dpkg::database::{self, Database};
use crate::dpkg::hooks::Hooks;
use crate::dpkg::stanza::PackageKey;
use crate::dpkg::{lock, repair};
use crate::file_systems::FileSystems;
use crate::layout::ModuleDirectory;
use crate::options::{Options, Reboot};
use crate::payload::package::{self, StagedPackage};
use crate::restart_inhibitor::{self, RestartInhibitor};
use crate::rollback::source::{New, Recorded, Source};
use crate::rollback::{configuration, steps};

/// One update, as it is in the journal.
#[derive(Serialize, Deserialize)]
pub struct PackageUpdate {
    #[serde(rename = "folder")]
    directory: ModuleDirectory,
    #[serde(rename = "wishes")]
    options: Options,
    /// The identity of the staging directory, once it exists.
    #[serde(default, rename = "payload")]
    staging: Option<Known>,
}

/// What the activation and the rollback need.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    #[serde(rename = "former")]
    backup: Backup,
    /// The identity of the backup directory. A journal of a build before the first release may lack it.
    #[serde(default, rename = "kept")]
    backup_directory: Option<Known>,
    /// The administrator's commands around dpkg: the new version may break the configuration that has them. A journal
    /// of a build before the first release may lack them.
    #[serde(default)]
    hooks: Option<Hooks>,
    /// Whether the backup directory has a mark once the install has begun. A journal of a build before the first
    /// release may lack it.
    #[serde(default)]
    marks_begin: bool,
    /// The unit that this process runs in, if the update changes it and it has to restart.
    #[serde(rename = "restart")]
    restart_unit: Option<String>,
}

impl PackageUpdate {
    /// An update in the module's directory `directory`.
    pub fn new(directory: PathBuf, options: Options) -> Self {
        Self { directory: ModuleDirectory(directory), options, staging: None }
    }

    pub fn staging(&self) -> PathBuf {
        self.directory.staging()
    }

    /// Records the identity of the staging directory.
    ///
    /// # Errors
    /// When others than root may write to it.
    pub fn record_staging(&mut self) -> Result<()> {
        self.staging = Some(Known::own(&self.staging())?);
        Ok(())
    }

    /// The bytes that the update leaves free.
    pub fn reserve(&self) -> u64 {
        self.options.reserve
    }

    pub fn removes_packages(&self) -> bool {
        !self.options.remove.is_empty()
    }

    fn staged(&self, database: &Database) -> Result<Vec<StagedPackage>> {
        check_identity(self.staging.as_ref())?;
        package::identify(&self.staging(), database)
    }

    /// The installed packages that the artifact removes.
    fn removals(&self, database: &Database) -> Vec<PackageKey> {
        let names = self.options.remove.iter();
        let keys = names.map(|name| PackageKey::from_apt(&name.0).on_device(&database.native));
        keys.filter(|key| database.installed_version(key).is_some()).collect()
    }

    /// Checks the staged packages, finds out what apt would do, and lets it download what is missing. Returns
    /// all staged packages and apt's transaction.
    fn check_and_simulate(
        &self,
        mut staged: Vec<StagedPackage>,
        database: &Database,
    ) -> Result<(Vec<StagedPackage>, Transaction)> {
        let options = &self.options;
        policy::check_payload(&staged, database, options)?;
        restorable::check_removable(&staged, database)?;
        let removals = self.removals(database);
        let mut transaction = get::simulate(&staged, &removals, options, database)?;
        if options.network && self.download(&staged, &removals, &transaction, database)? {
            // The downloaded packages are checked like those of the payload, and installed with them.
            let of_payload: Vec<_> = staged.into_iter().map(|package| package.key).collect();
            staged = self.staged(database)?;
            for package in &mut staged {
                package.downloaded = !of_payload.contains(&package.key);
            }
            package::read_items(&mut staged, options.max_files)?;
            restorable::check_removable(&staged, database)?;
            transaction = get::simulate(&staged, &removals, options, database)?;
        }
        policy::check_transaction(&transaction, &staged, &removals, database)?;
        policy::check_repaired(&transaction, database)?;
        Ok((staged, transaction))
    }

    /// Downloads the packages of `transaction` that are not `staged` to the staging directory. Returns false
    /// if there are none.
    fn download(
        &self,
        staged: &[StagedPackage],
        removals: &[PackageKey],
        transaction: &Transaction,
        database: &Database,
    ) -> Result<bool> {
        let is_staged = |key: &PackageKey| staged.iter().any(|package| package.key == *key);
        if transaction.install.iter().all(is_staged) {
            return Ok(false);
        }
        let downloads = self.directory.downloads();
        durable::remove_tree(&downloads)?;
        durable::make_dirs(&downloads.join("partial"))?;
        get::download(staged, removals, &self.options, database, &downloads)?;
        let (from, into) = (Dir::open(&downloads)?, Dir::open(&self.staging())?);
        for name in from.names()? {
            if name.as_ref().extension().is_some_and(|extension| extension == "deb") {
                from.rename_to_free(&name, &into, &name)?;
            }
        }
        into.sync_filesystem()?;
        durable::remove_tree(&downloads)?;
        Ok(true)
    }

    fn install(&self, backup: &Backup) -> Result<()> {
        let frontend = lock::take(lock::FRONTEND, self.options.lock_seconds)?;
        let database = Database::read()?;
        backup.check_unchanged(&database)?;
        database::check_finished()?;
        let (staged, removals) = (self.staged(&database)?, self.removals(&database));
        backup.check_covers(&get::simulate(&staged, &removals, &self.options, &database)?)?;
        durable::write_file(&self.directory.backup().begun(), b"")?;
        let inhibitor = RestartInhibitor::acquire()?;
        // apt takes it itself.
        drop(frontend);
        let installed = get::install(&staged, &removals, &self.options, &database)
            .and_then(|()| check_installed(&staged, &removals))
            .and_then(|()| get::check_configuration(&self.options))
            .and_then(|()| database::remove_unpacked_control_files(self.options.lock_seconds))
            .and_then(|()| set_marks(backup))
            .and_then(|()| Tables::read()?.write(&self.directory.backup().tables_after()));
        inhibitor.release();
        installed
    }

    fn restore(&self, prepared: &Prepared) -> Result<()> {
        check_identity(prepared.backup_directory.as_ref()).context("opening the backup failed")?;
        if prepared.marks_begin && !durable::exists(&self.directory.backup().begun())? {
            log!("rollback: the install had not begun, and has changed nothing");
            return Ok(());
        }
        let backup = &prepared.backup;
        if let Some(packages) = &backup.new_packages {
            // The rollback does not need the staged packages, and may need their space.
            if let Err(error) = durable::remove_tree(&self.staging()) {
                log!("rollback continues despite an error: {error:#}");
            }
            return self.roll_back_to(prepared, New { packages, staged: None });
        }
        // A version that recorded no new packages began this update: they are in the staging directory.
        let mut staged = self.staged(&Database::read()?)?;
        package::read_items(&mut staged, usize::MAX)?;
        let packages = staged.iter().map(NewPackage::new).collect::<Result<Vec<_>>>()?;
        self.roll_back_to(prepared, New { packages: &packages, staged: Some(&staged) })
    }

    fn roll_back_to(&self, prepared: &Prepared, new: New) -> Result<()> {
        let (backup, lock_seconds) = (&prepared.backup, self.options.lock_seconds);
        let frontend = lock::take(lock::FRONTEND, lock_seconds)?;
        let directory = self.directory.backup();
        let record = Recorded::read(&directory)?;
        let paths = record.iter().flat_map(|recorded| &recorded.paths);
        let written = FileSystems::open(paths.map(PathBuf::as_path))?;
        restore_configuration(prepared, || configuration::restore(backup, &directory, record.as_ref()));
        let source = Source::read(backup, directory, new, record, frontend, lock_seconds)?;
        steps::roll_back(&source)?;
        written.sync()
    }
}

impl Update for PackageUpdate {
    type Prepared = Prepared;

    fn prepare(&mut self) -> Result<Prepared> {
        let options = &self.options;
        // Other package managers wait until the backup is complete.
        let _frontend = lock::take_frontend(options.lock_seconds)?;
        // The limits are checked before dpkg or apt read a package.
        let mut staged = self.staged(&Database::read()?)?;
        package::read_items(&mut staged, options.max_files)?;
        let hooks = Hooks::read()?;
        repair::complete_interrupted_run(&hooks)?;
        let database = Database::read()?;
        let (staged, transaction) = self.check_and_simulate(staged, &database)?;
        let affected = Affected::find(&transaction, &staged, &database)?;
        hooks.check_writable(&affected.paths)?;
        let directory = self.directory.backup();
        let deb_cache = self.directory.deb_cache();
        let backup = Backup::create(&affected, &staged, &database, &directory, &deb_cache, options)?;
        policy::check_space(&staged, options.reserve)?;
        let backup_directory = Some(Known::own(&directory.0)?);
        let own_unit = restart_inhibitor::own_unit()?;
        let restart_unit = own_unit.filter(|unit| changes_unit(&transaction, &database, unit));
        Ok(Prepared { backup, backup_directory, hooks: Some(hooks), marks_begin: true, restart_unit })
    }

    fn activate(&self, prepared: &Prepared) -> Result<()> {
        let recorded = PathRecord::new(self.directory.backup().record()).paths()?;
        let written = FileSystems::open(recorded.iter().map(PathBuf::as_path))?;
        written.log_earlier_errors();
        self.install(&prepared.backup)?;
        written.sync()
    }

    fn roll_back(&self, prepared: &Prepared, _trigger: Trigger) -> Result<()> {
        let inhibitor =
            RestartInhibitor::acquire().inspect_err(|error| log!("rollback continues despite an error: {error:#}"));
        let restored = self.restore(prepared);
        inhibitor.into_iter().for_each(RestartInhibitor::release);
        restored
    }

    fn discard(&self, _prepared: Option<&Prepared>) -> Result<()> {
        let (staging, cache) = (self.staging(), self.directory.deb_cache());
        // Without the cache, the next update rebuilds the packages.
        if let Err(error) = deb_cache::keep_installed(&staging, &cache, self.options.cache_size) {
            log!("keeping the packages for the next update failed: {error:#}");
        }
        durable::remove_tree(&staging)?;
        durable::remove_tree(&self.directory.downloads())?;
        durable::remove_tree(&self.directory.backup().0)
    }

    fn needs_reboot(&self, prepared: &Prepared) -> Result<NeedsReboot> {
        let needed = self.options.reboot == Reboot::Automatic || prepared.backup.is_reboot_requested();
        Ok(if needed { NeedsReboot::Automatic } else { NeedsReboot::No })
    }

    fn ended(&self, prepared: Option<&Prepared>) {
        if let Some(unit) = prepared.and_then(|prepared| prepared.restart_unit.as_ref()) {
            restart_inhibitor::restart_later(unit);
        }
    }
}

/// Calls `restore`, which restores the configuration of dpkg and apt. Errors are only logged: without the
/// configuration, the rollback fails at the first call of dpkg or apt.
fn restore_configuration(prepared: &Prepared, restore: impl Fn() -> Result<()>) {
    let Err(error) = restore() else { return };
    log!("rollback continues despite an error: {error:#}");
    // The file system may be read-only, and the administrator's commands make it writable.
    let read = Hooks::read().ok();
    let Some(hooks) = read.as_ref().or(prepared.hooks.as_ref()) else { return };
    if let Err(error) = hooks.run_around(restore) {
        log!("rollback continues despite an error: {error:#}");
    }
}

/// Refuses a directory that was replaced since its identity was recorded.
fn check_identity(directory: Option<&Known>) -> Result<()> {
    let Some(known) = directory else { return Ok(()) };
    known.open()?.require_private()
}

/// Checks the result of apt, which a setting can make do nothing and succeed.
fn check_installed(staged: &[StagedPackage], removals: &[PackageKey]) -> Result<()> {
    let database = Database::read().context("checking dpkg's configuration after the install failed")?;
    for package in staged {
        let found = database.find(&package.key);
        let is_installed = found
            .is_some_and(|found| found.is_configured() && found.field("Version") == package.control.field("Version"));
        ensure!(
            is_installed,
            "installing package {} failed: apt has succeeded, and the package is {}: check apt's settings \
             (apt-config dump)",
            package.key,
            found.map_or("not-installed", |found| found.state())
        );
    }
    if let Some(key) = removals.iter().find(|key| database.installed_version(key).is_some()) {
        bail!(
            "removing package {key} failed: apt has succeeded, and the package is installed: check apt's \
             settings (apt-config dump)"
        );
    }
    Ok(())
}

/// Restores the marks of the packages that were installed before, because apt has marked them as installed
/// manually, and marks new dependencies as installed automatically.
fn set_marks(backup: &Backup) -> Result<()> {
    let database = Database::read()?;
    let marks = backup.marks().chain(backup.new_dependencies().map(|key| (key, true)));
    mark::set(marks.filter(|(key, _)| database.installed_version(key).is_some()))
}

/// Whether `transaction` changes the package that `unit` belongs to.
fn changes_unit(transaction: &Transaction, database: &Database, unit: &str) -> bool {
    restart_inhibitor::unit_file(unit).is_ok_and(|file| changes_file(transaction, database, &file))
}

/// Whether `transaction` changes the package that `file` belongs to.
fn changes_file(transaction: &Transaction, database: &Database, file: &Path) -> bool {
    let packages = transaction.packages().filter_map(|key| database.find(key));
    let files = packages.filter_map(|package| database::files_of(package).ok()).flatten();
    files.into_iter().any(|path| path.file_name() == file.file_name() && is_same_file(&path, file))
}

fn is_same_file(path: &Path, other: &Path) -> bool {
    path.canonicalize().ok().is_some_and(|path| other.canonicalize().ok() == Some(path))
}

#[cfg(test)]
mod tests;
