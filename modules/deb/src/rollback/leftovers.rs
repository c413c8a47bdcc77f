//! Removes new files that no package has after the rollback.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mender_update_module::durable;

use crate::backup::contents::Backup;
use crate::dpkg::database::{self, Database};
use crate::dpkg::diversions::Diversions;
use crate::dpkg::related_files::{self, BACKUP_SUFFIX};
use crate::dpkg::stanza::{PackageKey, Stanza};
use crate::paths::{is_directory, remove_unless_directory};
use crate::payload::package::StagedPackage;

/// Removes `paths`, which were absent before the update, directories after what is in them. Paths of packages
/// that the update does not change stay, and so do directories that are not empty.
pub fn remove(paths: &[PathBuf], backup: &Backup) -> Result<()> {
    let owners = Database::read()?.owners(paths)?;
    let is_of_update = |owner: &PackageKey| backup.package(owner).is_some();
    for path in paths.iter().filter(|path| owners.of(path).iter().all(is_of_update)) {
        let is_helper_backup = path.to_string_lossy().ends_with(BACKUP_SUFFIX);
        if is_helper_backup && owners.of(path).is_empty() && is_directory(path)? {
            // dpkg-maintscript-helper has moved a directory of the previous package there, which is restored.
            durable::remove_tree(path).with_context(|| removing(path))?;
        } else {
            remove_path(path)?;
        }
    }
    remove_new_info_files(backup)
}

/// Does the same for an update without a record: removes the files of `staged` that no package has.
pub fn remove_unrecorded(staged: &[StagedPackage], backup: &Backup) -> Result<()> {
    let paths = staged.iter().flat_map(|package| package.items.iter().map(|item| &item.path));
    let (owners, diversions) = (Database::read()?.owners(paths)?, Diversions::read()?);
    for package in staged {
        let mut paths: Vec<_> = package.items.iter().map(|item| &item.path).collect();
        paths.sort();
        // Directories come after what is in them.
        for path in paths.iter().rev() {
            let installed = diversions.installed_path(path, &package.key.name);
            remove_temporary(installed)?;
            if owners.of(path).is_empty() && !backup.files.contains(installed) {
                remove_path(installed)?;
            }
        }
    }
    for package in previous_stanzas(backup) {
        database::files_of(package)?.iter().try_for_each(|path| remove_temporary(path))?;
    }
    remove_new_info_files(backup)
}

/// Removes `path`, unless it is a directory that is not empty.
fn remove_path(path: &Path) -> Result<()> {
    let removed = if is_directory(path)? { durable::remove_empty_dir(path) } else { remove_unless_directory(path) };
    removed.with_context(|| removing(path))
}

fn removing(path: &Path) -> String {
    format!("removing {}, which the update has made", path.display())
}

/// Removes the files that dpkg uses while it installs `path`.
fn remove_temporary(path: &Path) -> Result<()> {
    related_files::temporary(path).try_for_each(|path| remove_unless_directory(&path))
}

/// Removes the info files of previous packages that these did not have, and those of new packages, which dpkg does
/// not know any more.
fn remove_new_info_files(backup: &Backup) -> Result<()> {
    let mut found = Database::read()?.orphaned_info_files(backup.packages.iter().map(|package| &package.key))?;
    for package in previous_stanzas(backup) {
        found.extend(database::info_files(package)?);
    }
    found.iter().filter(|path| !backup.files.contains(path)).try_for_each(|path| remove_unless_directory(path))
}

fn previous_stanzas(backup: &Backup) -> impl Iterator<Item = &Stanza> {
    backup.packages.iter().filter_map(|package| package.stanza.as_ref())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mender_update_module_test::debian::Package;
    use rustix::mount::{MountFlags, mount, mount_remount};

    use super::*;
    use crate::payload::deb::Kind;
    use crate::test_device::{back_up, error, install, on_device, staged, write, write_list};

    fn exist<const N: usize>(paths: [&str; N]) -> [bool; N] {
        paths.map(|path| Path::new(path).exists())
    }

    #[test]
    fn only_paths_of_the_update_are_removed() {
        on_device(|| {
            install(&[Package::new("a", "1"), Package::new("z", "1")]);
            let backup = back_up(&[staged("a", "", &[])], &[]);
            for path in
                ["/srv/new", "/srv/of-a", "/srv/of-z", "/srv/full/x", "/srv/d.dpkg-backup/x", "/srv/a.dpkg-backup/x"]
            {
                write(path, "");
            }
            fs::create_dir("/srv/empty").unwrap();
            write_list("a", &["/srv/of-a", "/srv/a.dpkg-backup"]);
            write_list("z", &["/srv/of-z"]);
            let paths = [
                "/srv/new",
                "/srv/of-a",
                "/srv/of-z",
                "/srv/full",
                "/srv/empty",
                "/srv/d.dpkg-backup",
                "/srv/a.dpkg-backup",
                "/srv/absent",
            ];
            remove(&paths.map(PathBuf::from), &backup).unwrap();
            assert_eq!(exist(paths), [false, false, true, true, false, false, true, false]);
            mount("tmpfs", "/srv/full", "tmpfs", MountFlags::empty(), None).unwrap();
            write("/srv/full/file", "");
            mount_remount("/srv/full", MountFlags::RDONLY, "").unwrap();
            assert!(
                error(remove(&["/srv/full/file".into()], &backup))
                    .contains("removing /srv/full/file, which the update")
            );
        });
    }

    #[test]
    fn new_info_files_are_removed() {
        on_device(|| {
            install(&[Package::new("a", "1").script("prerm", "exit 0")]);
            let backup = back_up(&[staged("a", "", &[]), staged("new", "", &[])], &[]);
            let names =
                ["a.list", "a.prerm", "a.postinst", "new.list"].map(|name| format!("/var/lib/dpkg/info/{name}"));
            for path in &names[2..] {
                write(path, "");
            }
            remove(&[], &backup).unwrap();
            assert_eq!(names.each_ref().map(|path| Path::new(path).exists()), [true, true, false, false]);
        });
    }

    #[test]
    fn without_a_record_the_files_of_the_new_packages_are_removed() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/srv/a/x", "1")]);
            write("/srv/a/user", "");
            let items = [
                ("/srv/a", Kind::Directory),
                ("/srv/a/user", Kind::File),
                ("/srv/a/x", Kind::File),
                ("/srv/new", Kind::Directory),
                ("/srv/new/y", Kind::File),
            ];
            let staged = [staged("a", "", &items)];
            let backup = back_up(&staged, &[]);
            let new = ["/srv/new/y", "/srv/new/y.dpkg-new", "/srv/a/x.dpkg-tmp", "/var/lib/dpkg/info/a.prerm"];
            new.iter().for_each(|path| write(path, ""));
            write_list("a", &["/srv/a/x"]);
            remove_unrecorded(&staged, &backup).unwrap();
            assert_eq!(exist(new), [false; 4]);
            assert_eq!(exist(["/srv/new", "/srv/a/x", "/srv/a/user"]), [false, true, true]);
            write("/srv/b.dpkg-tmp", "");
            write_list("a", &["/srv/b"]);
            remove_unrecorded(&[], &backup).unwrap();
            assert_eq!(exist(["/srv/b.dpkg-tmp"]), [false], "of the previous package");
        });
    }
}
