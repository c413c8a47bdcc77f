//! Refuses what a rollback could not restore. Every message names the path or the package, and the remedy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{self, Dir};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::dpkg::database::Database;
use crate::dpkg::diversions::Diversions;
use crate::dpkg::related_files;
use crate::dpkg::stanza::Stanza;
use crate::paths::is_directory;
use crate::payload::deb::{Item, Kind};
use crate::payload::package::StagedPackage;

/// Refuses new essential packages, which dpkg would not remove.
pub fn check_removable(staged: &[StagedPackage], database: &Database) -> Result<()> {
    let is_new = |package: &&StagedPackage| !database.find(&package.key).is_some_and(Stanza::has_files);
    for package in staged.iter().filter(is_new) {
        ensure!(
            !package.control.is_essential(),
            "package {} refused: it is new and essential or protected, and dpkg would not remove it in a \
             rollback: install it by hand",
            package.key
        );
    }
    Ok(())
}

/// Refuses configuration files that are symlinks: dpkg follows them, and deletes the target when it purges
/// the package.
pub fn check_conffiles(package: &StagedPackage) -> Result<()> {
    require_regular_conffiles(&package.key.to_string(), &package.conffiles, &package.items)?;
    for conffile in &package.conffiles {
        ensure!(
            !is_directory(&related_files::symlink_target(conffile))?,
            "package {} refused: its configuration file {} is a directory on this device: move it away",
            package.key,
            conffile.display()
        );
    }
    Ok(())
}

/// Refuses `conffiles` that are something else than files among the `items` of the package `name`.
pub fn require_regular_conffiles(name: &str, conffiles: &[PathBuf], items: &[Item]) -> Result<()> {
    for conffile in conffiles {
        let kind = items.iter().find(|item| item.path == *conffile).map(|item| item.kind);
        ensure!(
            kind.is_none_or(|kind| kind == Kind::File),
            "package {name} refused: its configuration file {} is not a regular file, and a rollback would delete what \
             it leads to",
            conffile.display()
        );
    }
    Ok(())
}

/// Refuses files below a path that is no directory on this device and does not become one: dpkg would remove
/// the path, and fail.
pub fn check_parents(package: &StagedPackage, staged: &[StagedPackage], diversions: &Diversions) -> Result<()> {
    let becomes_directory = |path: &Path| {
        let items = staged.iter().flat_map(|package| &package.items);
        items.into_iter().any(|item| item.kind == Kind::Directory && item.path == path)
    };
    let mut seen = BTreeSet::new();
    for parent in package.items.iter().flat_map(|item| item.path.ancestors().skip(1)) {
        if !seen.insert(parent) || parent.is_dir() || !durable::exists(parent)? {
            continue;
        }
        ensure!(
            becomes_directory(parent) && diversions.installed_path(parent, &package.key.name) == parent,
            "package {} refused: it has files in {}, which is not a directory on this device: move it away",
            package.key,
            parent.display()
        );
    }
    Ok(())
}

/// Refuses a device, pipe or socket of no package, which cannot be copied.
pub fn check_copyable(package: &StagedPackage, path: &Path, found: &std::fs::Metadata) -> Result<()> {
    ensure!(
        found.is_file() || found.is_symlink(),
        "package {} refused: it has {}, which on this device is a pipe, device or socket of no package, and \
         a rollback could not restore it: remove it, or move it away",
        package.key,
        path.display()
    );
    Ok(())
}

/// Refuses a file of `package` where the device has a directory with more in it than the paths in `listed`,
/// those of the previous packages: dpkg deletes the directory with all its contents.
pub fn check_replaced_directory(package: &StagedPackage, path: &Path, listed: &BTreeSet<PathBuf>) -> Result<()> {
    if !is_directory(path)? {
        return Ok(());
    }
    if let Some(unlisted) = first_unlisted(path, listed)? {
        bail!(
            "package {} refused: it has {}, which on this device is a directory, and {} in it belongs to \
             none of the packages that change: move it away, because a rollback could not restore it",
            package.key,
            path.display(),
            unlisted.display()
        );
    }
    Ok(())
}

/// The first path below `directory` that is not in `listed`.
fn first_unlisted(directory: &Path, listed: &BTreeSet<PathBuf>) -> Result<Option<PathBuf>> {
    // The directory is closed before the next level is opened, so that depth needs no file descriptors.
    let names = Dir::open(directory)?.names()?;
    for name in names {
        let path = directory.join(&name);
        if !listed.contains(&path) {
            return Ok(Some(path));
        }
        // The depth is that of the packages' own paths.
        if is_directory(&path)? {
            if let Some(unlisted) = first_unlisted(&path, listed)? {
                return Ok(Some(unlisted));
            }
        }
    }
    Ok(None)
}

/// Refuses what dpkg can neither replace nor restore: immutable files, and mount points in the place of
/// files.
pub fn check_replaceable(path: &Path) -> Result<()> {
    let Some(found) = durable::metadata(path)? else { return Ok(()) };
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .with_context(|| format!("examining {} failed", path.display()))?;
    let has = |attribute: StatxAttributes| stat.stx_attributes.contains(attribute);
    let shown = path.display();
    ensure!(
        !has(StatxAttributes::IMMUTABLE) && !has(StatxAttributes::APPEND),
        "update refused: {shown} is immutable, and neither the update nor a rollback could replace it: run \
         chattr -i -a {shown}"
    );
    ensure!(
        found.is_dir() || !has(StatxAttributes::MOUNT_ROOT),
        "update refused: {shown} is a mount point, and neither the update nor a rollback could replace it: \
         unmount it"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use mender_update_module_test::privileged::change_attribute;
    use rustix::mount::mount_bind;
    use tempfile::TempDir;

    use super::*;
    use crate::test_device::{database, error, installed, on_device, staged};

    fn path(directory: &TempDir, name: &str) -> PathBuf {
        directory.path().join(name)
    }

    /// The package `a` with these items.
    fn package(items: &[(&Path, Kind)]) -> StagedPackage {
        let items: Vec<_> = items.iter().map(|(path, kind)| (path.to_str().unwrap(), *kind)).collect();
        staged("a", "", &items)
    }

    #[test]
    fn only_new_essential_packages_are_refused() {
        let database =
            database(&(installed("a", "1") + "\nPackage: b\nStatus: install ok not-installed\nArchitecture: all"));
        let essential = |name| staged(name, "Essential: yes", &[]);
        check_removable(&[essential("a"), staged("c", "", &[])], &database).unwrap();
        assert!(error(check_removable(&[essential("a"), essential("b")], &database)).contains("package b refused"));
    }

    #[test]
    fn configuration_files_are_regular_files() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (path(&directory, "file"), path(&directory, "other"));
        let check = |kind| {
            let mut package = package(&[(&other, Kind::Symlink), (&file, kind)]);
            package.conffiles = vec![file.clone()];
            check_conffiles(&package)
        };
        check(Kind::File).unwrap();
        assert!(error(check(Kind::Symlink)).contains("file is not a regular file"));
        require_regular_conffiles("a", &[path(&directory, "no item")], &[]).unwrap();
        fs::create_dir(path(&directory, "real")).unwrap();
        symlink("real", &file).unwrap();
        assert!(error(check(Kind::File)).contains("file is a directory on this device"));
    }

    #[test]
    fn files_are_in_directories_or_in_what_becomes_one() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(path(&directory, "file"), "").unwrap();
        let (parent, below) = (path(&directory, "file"), path(&directory, "file/x"));
        let no_diversions = Diversions::parse(b"");
        let check = |items: &[(&Path, Kind)], diversions: &Diversions| {
            let package = package(items);
            check_parents(&package, std::slice::from_ref(&package), diversions)
        };
        let absent = path(&directory, "absent/directory/x");
        check(&[(&absent, Kind::File), (&path(&directory, "x"), Kind::File)], &no_diversions).unwrap();
        let becomes: [(&Path, Kind); 2] = [(&parent, Kind::Directory), (&below, Kind::File)];
        check(&becomes, &no_diversions).unwrap();
        let diverted = Diversions::parse(format!("{0}\n{0}.other\nb\n", parent.display()).as_bytes());
        let (below, other) = (below.as_path(), absent.as_path());
        for (items, diversions) in [
            (&[(below, Kind::File)][..], &no_diversions),
            (&[(below, Kind::File), (other, Kind::Directory)], &no_diversions),
            (&[(below, Kind::File), (&parent, Kind::File)], &no_diversions),
            (&becomes, &diverted),
        ] {
            assert!(error(check(items, diversions)).contains("file, which is not a directory"), "{items:?}");
        }
    }

    #[test]
    fn devices_of_no_package_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: &Path| check_copyable(&package(&[]), path, &path.symlink_metadata().unwrap());
        fs::write(path(&directory, "file"), "").unwrap();
        symlink("file", path(&directory, "symlink")).unwrap();
        check(&path(&directory, "file")).unwrap();
        check(&path(&directory, "symlink")).unwrap();
        assert!(error(check(Path::new("/dev/null"))).contains("/dev/null"));
    }

    #[test]
    fn replaced_directories_have_only_listed_paths() {
        let directory = tempfile::tempdir().unwrap();
        let top = path(&directory, "top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/c"), "").unwrap();
        let check = |names: &[&str]| {
            let listed = names.iter().map(|name| top.join(name)).collect();
            check_replaced_directory(&package(&[]), &top, &listed)
        };
        check(&["a", "a/b", "a/b/c"]).unwrap();
        assert!(error(check(&["a", "a/b"])).contains("/top/a/b/c in it"));
        assert!(error(check(&["a/b", "a/b/c"])).contains("/top/a in it"));
        check_replaced_directory(&package(&[]), &top.join("a/b/c"), &BTreeSet::new()).unwrap();
    }

    #[test]
    fn mount_points_in_the_place_of_files_and_immutable_files_are_refused() {
        on_device(|| {
            let [file, mounted, immutable] = ["/srv/file", "/srv/mounted", "/var/tmp/immutable"].map(Path::new);
            [file, mounted, immutable].iter().for_each(|path| fs::write(path, "").unwrap());
            mount_bind(file, mounted).unwrap();
            check_replaceable(file).unwrap();
            check_replaceable(Path::new("/srv")).unwrap();
            check_replaceable(Path::new("/srv/absent")).unwrap();
            assert!(error(check_replaceable(mounted)).contains("/srv/mounted is a mount point"));
            if change_attribute("+i", immutable) {
                let refused = error(check_replaceable(immutable));
                change_attribute("-i", immutable);
                assert!(refused.contains("chattr -i -a /var/tmp/immutable"), "{refused}");
            }
        });
    }
}
