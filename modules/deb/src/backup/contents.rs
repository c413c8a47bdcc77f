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
    /// Its stanza in dpkg's database; `None` if dpkg did not know it, or only its selection.
    pub stanza: Option<Stanza>,
    /// Its stanza if dpkg knew only its selection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Stanza>,
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

    /// Its previous stanza, also if that had only its selection.
    pub fn any_stanza(&self) -> Option<&Stanza> {
        self.stanza.as_ref().or(self.selection.as_ref())
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
        self.packages.iter().map(|package| (package.key.clone(), package.any_stanza().cloned())).collect()
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
        let found = |is_known| database.find(&key).filter(|stanza| stanza.is_known() == is_known).cloned();
        let (stanza, selection) = (found(true), found(false));
        let with_files = stanza.as_ref().filter(|package| package.has_files());
        let deb = match with_files {
            Some(package) => {
                check_state(&key, package)?;
                Some(keep_deb(package, &diversions, deb_cache, dir)?)
            }
            None => None,
        };
        let sha256 = deb.as_ref().map(|name| sha256(&dir.path().join(name))).transpose()?;
        packages.push(PackageBackup { automatic: automatic.contains(&key), key, stanza, selection, deb, sha256 });
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mender_update_module_test::debian::Package;

    use super::*;
    use crate::payload::deb;
    use crate::test_device::{
        database, error, install, installed, names, on_device, options, staged, text, write, write_status,
    };

    /// A backup with these packages: key, stanza, and whether the device had files of it.
    fn backup(packages: &[(&str, Option<&str>, bool)]) -> Backup {
        let package = |(key, stanza, with_files): &(&str, Option<&str>, bool)| PackageBackup {
            key: PackageKey::from_apt(key),
            stanza: stanza.map(|stanza| Stanza(stanza.trim_end().into())),
            selection: None,
            deb: with_files.then(|| FileName::new("x.deb").unwrap()),
            sha256: None,
            automatic: key.starts_with("auto"),
        };
        Backup {
            packages: packages.iter().map(package).collect(),
            new_packages: None,
            files: FileBackup::default(),
            moved_directories: FileBackup::default(),
            attributes: FileAttributes::default(),
            reboot_request: None,
        }
    }

    #[test]
    fn packages_are_found_with_their_previous_state() {
        let (a, b) = (installed("a", "1"), installed("b", "1").replace("ok installed", "ok unpacked"));
        let backup = backup(&[("a", Some(&a), true), ("auto-b", Some(&b), true), ("new", None, false)]);
        let package = |name| backup.package(&PackageKey::from_apt(name)).map(PackageBackup::was_installed);
        assert_eq!(["a", "auto-b", "new", "other"].map(package), [Some(true), Some(false), Some(false), None]);
        let stanzas: Vec<_> = backup.stanzas().into_iter().map(|(key, it)| (key.name, it.is_some())).collect();
        assert_eq!(stanzas, [("a".into(), true), ("auto-b".into(), true), ("new".into(), false)]);
        let marks: Vec<_> = backup.marks().map(|(key, automatic)| (key.to_string(), automatic)).collect();
        assert_eq!(marks, [("a".into(), false), ("auto-b".into(), true)]);
    }

    #[test]
    fn changes_of_other_programs_after_the_backup_are_refused() {
        let status = [installed("a", "1"), installed("b", "1")].join("\n");
        let status = database(&status);
        backup(&[("a", Some(&installed("a", "1")), true), ("c", None, false)]).check_unchanged(&status).unwrap();
        for changed in [("a", Some(&installed("a", "2")[..]), true), ("b", None, false)] {
            assert!(error(backup(&[changed]).check_unchanged(&status)).contains(&format!("package {} was", changed.0)));
        }
        let transaction = |name| Transaction { remove: vec![PackageKey::from_apt(name)], ..Transaction::default() };
        let backup = backup(&[("a", None, false)]);
        backup.check_covers(&transaction("a")).unwrap();
        assert!(error(backup.check_covers(&transaction("b"))).contains("change package b"));
    }

    #[test]
    fn dependencies_are_new_downloaded_packages() {
        let mut backup = backup(&[("previous", Some(&installed("previous", "1")), true), ("known", None, false)]);
        assert_eq!(backup.new_dependencies().count(), 0);
        let new = |name, downloaded| NewPackage { downloaded, ..NewPackage::new(&staged(name, "", &[])).unwrap() };
        let names_of = [("payload", false), ("previous", true), ("known", true), ("unknown", true)];
        backup.new_packages = Some(names_of.into_iter().map(|(name, downloaded)| new(name, downloaded)).collect());
        assert_eq!(names(backup.new_dependencies()), ["known", "unknown"]);
        assert_eq!(new("payload", false).version, "2");
    }

    #[test]
    fn a_request_for_a_reboot_is_one_that_was_made_after_the_backup() {
        on_device(|| {
            let mut backup = backup(&[]);
            assert!(!backup.is_reboot_requested());
            write("/run/reboot-required", "");
            assert!(backup.is_reboot_requested());
            backup.reboot_request = reboot_request();
            assert!(!backup.is_reboot_requested());
            write("/run/other", "");
            fs::rename("/run/other", "/run/reboot-required").unwrap();
            assert!(backup.is_reboot_requested());
            fs::remove_file("/run/reboot-required").unwrap();
            assert!(!backup.is_reboot_requested());
        });
    }

    /// Writes the backup of an update that changes the packages `names`.
    fn create(names: &[&str]) -> Result<Backup> {
        let affected = Affected {
            packages: names.iter().map(|name| PackageKey::from_apt(name)).collect(),
            copied: ["/srv/user".into()].into(),
            paths: ["/srv/user".into(), "/srv/a".into()].into(),
            exclusive: BTreeSet::new(),
        };
        let (directory, cache) = (BackupDirectory("/var/data/old".into()), Path::new("/var/data/store"));
        Backup::create(&affected, &[staged("new", "", &[])], &Database::read()?, &directory, cache, &options())
    }

    #[test]
    fn a_backup_has_packages_files_paths_and_tables() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/srv/a", "of a"), Package::new("auto", "1").file("/srv/auto", "")]);
            write("/srv/user", "of no package");
            write("/var/data/old/leftover", "");
            write("/var/lib/apt/extended_states", "Package: auto\nArchitecture: all\nAuto-Installed: 1\n");
            let backup = create(&["a", "auto", "new"]).unwrap();
            let shown: Vec<_> = backup.packages.iter().map(|it| (it.key.to_string(), it.automatic)).collect();
            assert_eq!(shown, [("a".into(), false), ("auto".into(), true), ("new".into(), false)]);
            let [a, _, new] = &backup.packages[..] else { panic!("{shown:?}") };
            let deb = Path::new("/var/data/old/a_1_all.deb");
            assert_eq!(a.sha256, Some(sha256(deb).unwrap()));
            assert_eq!(deb::control(deb).unwrap().stanza.field("Version"), Some("1"));
            assert!(a.was_installed() && new.deb.is_none() && new.stanza.is_none());
            assert_eq!(names(backup.new_packages.iter().flatten().map(|new| &new.key)), ["new"]);
            assert_eq!(text("/var/data/old/places/0"), "of no package");
            assert_eq!(text("/var/data/old/record").lines().count(), 2);
            assert!(Tables::from_file(Path::new("/var/data/old/tables.before")).unwrap().is_some());
            assert!(!Path::new("/var/data/old/leftover").exists());
        });
    }

    #[test]
    fn a_backup_that_could_not_be_restored_or_does_not_fit_is_refused() {
        on_device(|| {
            let broken = installed("broken", "1").replace("ok installed", "ok half-installed");
            let large = installed("large", "1") + "Installed-Size: 8589934592\n";
            let gone = large.replace("large", "gone").replace("ok installed", "ok config-files");
            write_status(&[&broken, &large, &gone]);
            assert!(error(create(&["broken"])).contains("package broken is half-installed"));
            assert!(error(create(&["large"])).contains("8796093022208 bytes"));
            create(&["gone"]).unwrap();
        });
    }
}
