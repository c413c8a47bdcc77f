//! The packages and paths that an update affects.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use mender_update_module::durable;

use crate::apt::get::Transaction;
use crate::checks::restorable;
use crate::configuration;
use crate::dpkg::database::{self, Database, Owners};
use crate::dpkg::diversions::Diversions;
use crate::dpkg::related_files;
use crate::dpkg::stanza::PackageKey;
use crate::paths::is_directory;
use crate::payload::deb::{Item, Kind};
use crate::payload::package::StagedPackage;

/// What an update affects.
#[derive(Default)]
pub struct Affected {
    /// The packages that change: those of the transaction, and those that lose a file to a package that
    /// replaces it.
    pub packages: BTreeSet<PackageKey>,
    /// The files that have to be copied because no package restores them, or not in time: configuration files, files
    /// of no package, dpkg's info files, and the configuration of dpkg and apt.
    pub copied: BTreeSet<PathBuf>,
    /// All paths, those of the previous packages and of the new ones, and the directories that they are in.
    pub paths: BTreeSet<PathBuf>,
    /// The directories among `paths` that no other package has: a rollback restores their times, too.
    pub exclusive: BTreeSet<PathBuf>,
}

/// What every path of the new packages is compared with.
struct Device<'a> {
    transaction: &'a Transaction,
    owners: Owners,
    diversions: &'a Diversions,
}

impl Affected {
    /// Finds what `transaction` affects.
    ///
    /// # Errors
    /// When a rollback could not restore a path: the path, the package, and the remedy.
    pub fn find(transaction: &Transaction, staged: &[StagedPackage], database: &Database) -> Result<Self> {
        let diversions = Diversions::read()?;
        let mut affected = Self { packages: transaction.packages().cloned().collect(), ..Self::default() };
        // The update configures unfinished packages even where it does not install them.
        for package in database.unfinished() {
            affected.packages.insert(package.key(&database.native)?);
        }
        affected.add_new_paths(transaction, staged, database, &diversions)?;
        let listed = affected.add_previous_packages(database, &diversions)?;
        for package in staged {
            affected.add_replaced_conffiles(package);
            check_replaced_directories(package, &listed, &diversions)?;
        }
        affected.exclusive = exclusive_directories(&listed, &affected.packages, database)?;
        affected.paths.extend(listed);
        affected.add_surroundings()?;
        affected.add_configuration()?;
        affected.paths.iter().try_for_each(|path| restorable::check_replaceable(path))?;
        Ok(affected)
    }

    fn add_new_paths(
        &mut self,
        transaction: &Transaction,
        staged: &[StagedPackage],
        database: &Database,
        diversions: &Diversions,
    ) -> Result<()> {
        let paths = staged.iter().flat_map(|package| {
            let both = |path| [path, diversions.installed_path(path, &package.key.name)];
            package.items.iter().flat_map(move |item| both(&item.path))
        });
        let device = Device { transaction, owners: database.owners(paths)?, diversions };
        for package in staged {
            restorable::check_conffiles(package)?;
            restorable::check_parents(package, staged, diversions)?;
            for item in &package.items {
                self.add_new_path(package, item, &device)?;
            }
        }
        Ok(())
    }

    /// Adds the path of `item` with what the device has there.
    fn add_new_path(&mut self, package: &StagedPackage, item: &Item, device: &Device) -> Result<()> {
        let installed = device.diversions.installed_path(&item.path, &package.key.name);
        self.paths.insert(installed.to_owned());
        let Some(found) = durable::metadata(installed)? else { return Ok(()) };
        let owners = device.owners_of(&item.path, installed);
        if owners.is_empty() && !found.is_dir() {
            restorable::check_copyable(package, installed, &found)?;
            self.copied.insert(installed.to_owned());
        }
        // Packages share directories. The same package for two architectures shares its files.
        let is_shared = found.is_dir() || (item.kind == Kind::Directory && installed.is_dir());
        for owner in owners.into_iter().filter(|owner| owner.name != package.key.name && !is_shared) {
            ensure!(
                device.transaction.packages().any(|key| key == owner)
                    || package.control.replaces(&owner.name)
                    || package.diverts,
                "package {} refused: it has the file {} of package {owner}, and neither replaces that \
                 package nor diverts the file",
                package.key,
                item.path.display()
            );
            self.packages.insert(owner.clone());
        }
        Ok(())
    }

    /// Adds what has to be copied of the packages that change. Returns the paths of these packages.
    fn add_previous_packages(&mut self, database: &Database, diversions: &Diversions) -> Result<BTreeSet<PathBuf>> {
        let mut listed = BTreeSet::new();
        for package in self.packages.iter().filter_map(|key| database.find(key)) {
            let name = package.required("Package")?;
            let paths = database::files_of(package)?;
            listed.extend(paths.iter().map(|path| diversions.installed_path(path, name).to_owned()));
            self.copied.extend(database::info_files(package)?);
            let conffiles = package.conffiles().map(|(path, _)| path);
            self.copied.extend(conffiles.flat_map(related_files::of_conffile));
        }
        Ok(listed)
    }

    fn add_replaced_conffiles(&mut self, package: &StagedPackage) {
        self.copied.extend(package.conffiles.iter().flat_map(|path| related_files::of_conffile(path)));
    }

    /// Adds the files of dpkg beside all paths, and the directories that the paths are in.
    fn add_surroundings(&mut self) -> Result<()> {
        self.paths.extend(self.copied.iter().cloned());
        for path in &self.paths {
            for beside in related_files::beside(path).filter(|beside| !self.paths.contains(beside)) {
                if durable::exists(&beside)? {
                    self.copied.insert(beside);
                }
            }
        }
        self.paths.extend(self.copied.iter().cloned());
        let parents: BTreeSet<_> = self.paths.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        self.paths.extend(parents);
        Ok(())
    }

    /// Adds the files of packages that configure dpkg or apt: a rollback restores them before it runs dpkg.
    fn add_configuration(&mut self) -> Result<()> {
        for path in self.paths.iter().filter(|path| configuration::contains(path)) {
            if durable::metadata(path)?.is_some_and(|found| found.is_file()) {
                self.copied.insert(path.clone());
            }
        }
        Ok(())
    }
}

impl Device<'_> {
    /// The packages whose file `path`, diverted or not, is installed under `installed`.
    fn owners_of(&self, path: &Path, installed: &Path) -> Vec<&PackageKey> {
        let of = |path: &Path| {
            let is_there = |owner: &&PackageKey| self.diversions.installed_path(path, &owner.name) == installed;
            self.owners.of(path).iter().filter(is_there).collect::<Vec<_>>()
        };
        let mut owners = of(path);
        if installed != path {
            owners.extend(of(installed));
        }
        owners
    }
}

fn check_replaced_directories(
    package: &StagedPackage,
    listed: &BTreeSet<PathBuf>,
    diversions: &Diversions,
) -> Result<()> {
    // dpkg leaves a directory alone where a package has a symlink.
    let replaces = |item: &&Item| !matches!(item.kind, Kind::Directory | Kind::Symlink);
    for item in package.items.iter().filter(replaces) {
        let installed = diversions.installed_path(&item.path, &package.key.name);
        restorable::check_replaced_directory(package, installed, listed)?;
    }
    Ok(())
}

/// The directories among `listed` that belong to none but `packages`.
fn exclusive_directories(
    listed: &BTreeSet<PathBuf>,
    packages: &BTreeSet<PackageKey>,
    database: &Database,
) -> Result<BTreeSet<PathBuf>> {
    let mut directories = BTreeSet::new();
    for path in listed {
        if is_directory(path)? {
            directories.insert(path.clone());
        }
    }
    let owners = database.owners(&directories)?;
    let is_exclusive = |path: &PathBuf| owners.of(path).iter().all(|owner| packages.contains(owner));
    Ok(directories.into_iter().filter(is_exclusive).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use mender_update_module_test::debian::Package;
    use rustix::mount::mount_bind;

    use super::*;
    use crate::test_device::{error, install, installed, names, on_device, staged, write, write_list, write_status};

    const FILE: Kind = Kind::File;
    const DIRECTORY: Kind = Kind::Directory;

    /// What the installation of `staged` and the removal of `remove` affects.
    fn find(staged: &[StagedPackage], remove: &[&str]) -> Result<Affected> {
        let install = staged.iter().map(|package| package.key.clone()).collect();
        let remove = remove.iter().map(|name| PackageKey::from_apt(name)).collect();
        let transaction = Transaction { install, remove, configure: Vec::new() };
        Affected::find(&transaction, staged, &Database::read()?)
    }

    fn paths(of: &BTreeSet<PathBuf>, below: &str) -> Vec<String> {
        of.iter().filter(|path| path.starts_with(below)).map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_paths_of_previous_and_new_packages_are_affected() {
        on_device(|| {
            install(&[
                Package::new("a", "1").conffile("/etc/a.conf", "1").file("/srv/a/own", "1").file("/srv/both/a", "1"),
                Package::new("b", "1").file("/srv/both/b", "1"),
                Package::new("gone", "1").file("/srv/gone/x", "1"),
            ]);
            write("/srv/user/file", "of no package");
            write("/etc/a.conf.dpkg-dist", "of dpkg");
            write("/srv/a/own.dpkg-old", "of dpkg");
            write("/etc/apt/apt.conf", "");
            let mut new = staged(
                "a",
                "",
                &[
                    ("/srv/a", DIRECTORY),
                    ("/srv/a/own", FILE),
                    ("/srv/user", DIRECTORY),
                    ("/srv/user/file", FILE),
                    ("/srv/new/x", FILE),
                    ("/etc/new.conf", FILE),
                    ("/etc/apt/apt.conf", FILE),
                ],
            );
            new.conffiles = vec!["/etc/new.conf".into()];
            let affected = find(&[new], &["gone"]).unwrap();
            assert_eq!(names(&affected.packages), ["a", "gone"]);
            assert_eq!(paths(&affected.copied, "/srv"), ["/srv/a/own.dpkg-old", "/srv/user/file"]);
            let copied = ["/etc/a.conf", "/etc/a.conf.dpkg-dist", "/etc/apt/apt.conf", "/etc/new.conf.dpkg-new"];
            assert!(copied.iter().all(|path| affected.copied.contains(Path::new(path))), "{:?}", affected.copied);
            let info = paths(&affected.copied, "/var/lib/dpkg/info");
            let expected = ["a.conffiles", "a.list", "gone.list"].map(|name| format!("/var/lib/dpkg/info/{name}"));
            assert!(expected.iter().all(|path| info.contains(path)), "{info:?}");
            let expected = [
                "/srv",
                "/srv/a",
                "/srv/a/own",
                "/srv/a/own.dpkg-old",
                "/srv/both",
                "/srv/both/a",
                "/srv/gone",
                "/srv/gone/x",
                "/srv/new",
                "/srv/new/x",
                "/srv/user",
                "/srv/user/file",
            ];
            assert_eq!(paths(&affected.paths, "/srv"), expected);
            assert_eq!(paths(&affected.exclusive, "/srv"), ["/srv/a", "/srv/gone"]);
        });
    }

    #[test]
    fn the_configuration_of_a_package_is_copied() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/etc/dpkg/dpkg.cfg.d/a", "# 1")]);
            let affected = find(&[staged("a", "", &[("/etc/dpkg/dpkg.cfg.d/a", FILE)])], &[]).unwrap();
            assert!(affected.copied.contains(Path::new("/etc/dpkg/dpkg.cfg.d/a")));
            assert!(!affected.copied.contains(Path::new("/etc/dpkg/dpkg.cfg.d")));
        });
    }

    #[test]
    fn a_file_of_another_package_is_taken_only_by_one_that_replaces_it_or_diverts() {
        on_device(|| {
            install(&[Package::new("b", "1").file("/srv/b", "1")]);
            let new = |more: &str| staged("a", more, &[("/srv/b", FILE)]);
            let refused = error(find(&[new("")], &[]));
            assert!(refused.contains("package a refused") && refused.contains("/srv/b of package b"), "{refused}");
            let affected = find(&[new("Replaces: b")], &[]).unwrap();
            assert_eq!(
                (names(&affected.packages), paths(&affected.copied, "/srv").len()),
                (vec!["a".into(), "b".into()], 0)
            );
            let diverting = StagedPackage { diverts: true, ..new("") };
            assert_eq!(names(&find(&[diverting], &[]).unwrap().packages), ["a", "b"]);
            assert_eq!(names(&find(&[new("")], &["b"]).unwrap().packages), ["a", "b"]);
            // A directory in the place of the file does not share it.
            assert!(find(&[staged("a", "", &[("/srv/b", DIRECTORY)])], &[]).is_err());
        });
    }

    #[test]
    fn directories_are_shared_and_the_files_of_two_architectures() {
        on_device(|| {
            install(&[Package::new("b", "1").file("/srv/directory/x", "1")]);
            symlink("directory", "/srv/symlink").unwrap();
            let own = installed("b", "1").replace(": all", &format!(": {}", Database::read().unwrap().native));
            let foreign = installed("a", "1").replace(": all", ": other");
            write_status(&[&own, &foreign]);
            write_list("a", &["/srv/symlink", "/srv/same"]);
            write("/srv/same", "");
            let items = [("/srv/directory", Kind::Symlink), ("/srv/symlink", DIRECTORY), ("/srv/same", FILE)];
            assert_eq!(names(&find(&[staged("a", "", &items)], &[]).unwrap().packages), ["a"]);
            assert_eq!(names(&find(&[staged("c", "", &items[..2])], &[]).unwrap().packages), ["c"]);
        });
    }

    #[test]
    fn diverted_files_belong_to_the_package_with_the_target() {
        on_device(|| {
            write_status(&[&installed("b", "1"), &installed("d", "1")]);
            write_list("b", &["/srv/x.distrib"]);
            write_list("d", &["/srv/x"]);
            write("/var/lib/dpkg/diversions", "/srv/x\n/srv/x.distrib\nd\n");
            write("/srv/x", "");
            write("/srv/x.distrib", "");
            let new = |more| staged("a", more, &[("/srv/x", FILE)]);
            assert!(error(find(&[new("")], &[])).contains("of package b"));
            let affected = find(&[new("Replaces: b")], &[]).unwrap();
            assert_eq!(names(&affected.packages), ["a", "b"]);
            assert!(affected.paths.contains(Path::new("/srv/x.distrib")));
        });
    }

    #[test]
    fn unfinished_packages_are_affected() {
        on_device(|| {
            write_status(&[&installed("u", "1").replace("ok installed", "ok unpacked"), &installed("b", "1")]);
            assert_eq!(names(&find(&[], &[]).unwrap().packages), ["u"]);
        });
    }

    #[test]
    fn what_a_rollback_cannot_restore_is_refused() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/srv/a/x", "1")]);
            let file = || staged("a", "", &[("/srv/a", FILE)]);
            find(&[file()], &[]).unwrap();
            write("/srv/a/of the user", "");
            assert!(error(find(&[file()], &[])).contains("/srv/a/of the user in it"));
            find(&[staged("a", "", &[("/srv/a", Kind::Symlink)])], &[]).unwrap();
            fs::remove_dir_all("/srv/a").unwrap();
            write("/srv/a", "");
            assert!(
                error(find(&[staged("a", "", &[("/srv/a/x", FILE)])], &[]))
                    .contains("/srv/a, which is not a directory")
            );
            let conffile =
                StagedPackage { conffiles: vec!["/srv/c".into()], ..staged("a", "", &[("/srv/c", Kind::Symlink)]) };
            assert!(error(find(&[conffile], &[])).contains("/srv/c is not a regular file"));
            mount_bind("/srv/a", "/srv/a").unwrap();
            assert!(error(find(&[file()], &[])).contains("mount point"));
        });
    }
}
