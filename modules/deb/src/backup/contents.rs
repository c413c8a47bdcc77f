//! The backup: everything that a rollback needs, kept before anything is changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Dir};
use mender_update_module::{FileName, log};
use serde::{Deserialize, Serialize};

use crate::apt::get::Transaction;
use crate::apt::mark;
use crate::backup::deb_cache;
use crate::backup::directory::BackupDirectory;
use crate::backup::file_attributes::FileAttributes;
use crate::backup::file_backup::FileBackup;
use crate::backup::path_record::PathRecord;
use crate::backup::rebuild;
use crate::backup::tables::Tables;
use crate::checks::affected::Affected;
use crate::dpkg::database::Database;
use crate::dpkg::diversions::Diversions;
use crate::dpkg::stanza::{PackageKey, Stanza};
use crate::options::Options;
use crate::paths::sha256;
use crate::payload::package::StagedPackage;

/// The files by which a package requests a reboot.
const REBOOT_REQUESTS: [&str; 2] = ["/run/reboot-required", "/var/run/reboot-required"];

/// The part of the backup that is in the journal. The rest is in the [`BackupDirectory`].
#[derive(Serialize, Deserialize)]
pub struct Backup {
    pub packages: Vec<PackageBackup>,
    /// The packages that the update installs; `None` in journals of versions that did not record them.
    #[serde(default, rename = "new")]
    pub new_packages: Option<Vec<NewPackage>>,
    #[serde(rename = "places")]
    pub files: FileBackup,
    /// Symlinks in the place of directories, in journals of versions without a [`PathRecord`].
    #[serde(default, rename = "moved")]
    pub moved_directories: FileBackup,
    /// Extended attributes and times, in journals of versions without a [`PathRecord`].
    #[serde(default, rename = "extras")]
    pub attributes: FileAttributes,
    /// The request for a reboot from before the update.
    #[serde(rename = "reboot")]
    reboot_request: Option<RebootRequest>,
}

/// The previous state of one package.
#[derive(Serialize, Deserialize)]
pub struct PackageBackup {
    pub key: PackageKey,
    /// Its stanza in dpkg's database; `None` if dpkg did not know it.
    pub stanza: Option<Stanza>,
    /// The name of its `.deb` in the backup; `None` if the device had no files of it.
    pub deb: Option<FileName>,
    /// The checksum of the `.deb`; `None` in journals of versions that did not record it.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Whether it was marked as installed automatically.
    pub automatic: bool,
}

/// One package that the update installs.
#[derive(Serialize, Deserialize)]
pub struct NewPackage {
    pub key: PackageKey,
    pub version: String,
    /// Whether apt has downloaded it.
    #[serde(default)]
    pub downloaded: bool,
}

/// Inode and modification time of the file that requests a reboot.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct RebootRequest(u64, (i64, i64));

impl NewPackage {
    pub fn new(package: &StagedPackage) -> Result<Self> {
        let version = package.control.required("Version")?.to_owned();
        Ok(Self { key: package.key.clone(), version, downloaded: package.downloaded })
    }
}

impl PackageBackup {
    /// Whether the package was installed and configured.
    pub fn was_installed(&self) -> bool {
        self.stanza.as_ref().is_some_and(Stanza::is_installed)
    }
}

impl Backup {
    /// Writes the backup of `affected` to `directory`, durably.
    ///
    /// # Errors
    /// When something cannot be read or written, or a package is in a state that a rollback could
    /// not restore.
    pub fn create(
        affected: &Affected,
        staged: &[StagedPackage],
        database: &Database,
        directory: &BackupDirectory,
        deb_cache: &Path,
        options: &Options,
    ) -> Result<Self> {
        durable::remove_tree(&directory.0)?;
        durable::make_dirs(&directory.0)?;
        let dir = Dir::make(&directory.0, 0o700)?;
        check_space(affected, database, &dir, options.reserve)?;
        let packages = keep_packages(affected, database, deb_cache, &dir)?;
        let files = FileBackup::create(&affected.copied, &directory.files(), options.backup_size, options.reserve)?;
        PathRecord::new(directory.record()).write(&affected.paths, &affected.exclusive)?;
        Tables::read()?.write(&directory.tables_before())?;
        let new_packages = Some(staged.iter().map(NewPackage::new).collect::<Result<_>>()?);
        dir.sync_filesystem()?;
        Ok(Self {
            packages,
            new_packages,
            files,
            moved_directories: FileBackup::default(),
            attributes: FileAttributes::default(),
            reboot_request: reboot_request(),
        })
    }

    /// Whether a package has requested a reboot since the backup.
    pub fn is_reboot_requested(&self) -> bool {
        let now = reboot_request();
        now.is_some() && now != self.reboot_request
    }

    pub fn package(&self, key: &PackageKey) -> Option<&PackageBackup> {
        self.packages.iter().find(|package| package.key == *key)
    }

    /// The previous stanza of every package that changes.
    pub fn stanzas(&self) -> BTreeMap<PackageKey, Option<Stanza>> {
        self.packages.iter().map(|package| (package.key.clone(), package.stanza.clone())).collect()
    }

    /// Refuses an update of packages that another program has changed since the backup.
    pub fn check_unchanged(&self, database: &Database) -> Result<()> {
        for package in &self.packages {
            let now = database.find_known(&package.key);
            ensure!(
                now == package.stanza.as_ref(),
                "update refused: package {} was changed by another program after the backup: install the artifact again",
                package.key
            );
        }
        Ok(())
    }

    /// Refuses an update of which apt would change other packages than at the time of the backup, because another
    /// program has changed them since.
    pub fn check_covers(&self, transaction: &Transaction) -> Result<()> {
        let other = transaction.packages().find(|key| self.package(key).is_none());
        ensure!(
            other.is_none(),
            "update refused: apt would also change package {}, which another program has changed after the backup: \
             install the artifact again",
            other.map(ToString::to_string).unwrap_or_default()
        );
        Ok(())
    }

    /// The marks of the packages that were installed: true for automatic.
    pub fn marks(&self) -> impl Iterator<Item = (&PackageKey, bool)> {
        let installed = self.packages.iter().filter(|package| package.deb.is_some());
        installed.map(|package| (&package.key, package.automatic))
    }

    /// The packages that the update installs because others need them: they were not installed before, and
    /// apt has downloaded them.
    pub fn new_dependencies(&self) -> impl Iterator<Item = &PackageKey> {
        let was_installed = |key: &PackageKey| self.package(key).is_some_and(|package| package.deb.is_some());
        let new = self.new_packages.iter().flatten();
        new.filter(move |new| new.downloaded && !was_installed(&new.key)).map(|new| &new.key)
    }
}

fn check_space(affected: &Affected, database: &Database, dir: &Dir, reserve: u64) -> Result<()> {
    let previous = affected.packages.iter().filter_map(|key| database.find(key));
    let with_files = previous.filter(|package| package.has_files());
    let size = with_files.fold(0_u64, |size, package| size.saturating_add(package.installed_size()));
    dir.check_space(size, reserve).context("backing up the previous packages failed")
}

/// Writes the `.deb` of every package with files to `dir`.
fn keep_packages(affected: &Affected, database: &Database, deb_cache: &Path, dir: &Dir) -> Result<Vec<PackageBackup>> {
    let (diversions, automatic) = (Diversions::read()?, mark::automatic(database)?);
    let mut packages = Vec::new();
    for key in affected.packages.iter().cloned() {
        let stanza = database.find_known(&key).cloned();
        let with_files = stanza.as_ref().filter(|package| package.has_files());
        let deb = match with_files {
            Some(package) => {
                check_state(&key, package)?;
                Some(keep_deb(package, &diversions, deb_cache, dir)?)
            }
            None => None,
        };
        let sha256 = deb.as_ref().map(|name| sha256(&dir.path().join(name))).transpose()?;
        packages.push(PackageBackup { automatic: automatic.contains(&key), key, stanza, deb, sha256 });
    }
    Ok(packages)
}

fn check_state(key: &PackageKey, package: &Stanza) -> Result<()> {
    ensure!(
        package.is_installed() || package.is_unpacked(),
        "update refused: package {key} is {} ({}), and a rollback could not restore that: repair it \
         (apt-get --fix-broken install), then install again",
        package.state(),
        package.field("Status").unwrap_or_default()
    );
    Ok(())
}

/// Writes the `.deb` of an installed package to `dir`: the original one, or one rebuilt from the installed
/// files.
fn keep_deb(package: &Stanza, diversions: &Diversions, deb_cache: &Path, dir: &Dir) -> Result<FileName> {
    let name = FileName::new(package.file_name()?)?;
    if deb_cache::find(package, deb_cache, dir, &name)? {
        log!("backup of {name}: the original package");
    } else {
        log!("backup of {name}: rebuilt from the installed files");
        rebuild::rebuild(package, diversions, dir, &name)?;
    }
    Ok(name)
}

fn reboot_request() -> Option<RebootRequest> {
    let found = REBOOT_REQUESTS.iter().find_map(|path| fs::metadata(path).ok())?;
    Some(RebootRequest(found.ino(), (found.mtime(), found.mtime_nsec())))
}
