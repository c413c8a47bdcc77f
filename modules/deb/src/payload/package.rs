//! The packages in the staging directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{self, Dir};
use rustix::fs::statvfs;

use crate::dpkg::database::Database;
use crate::dpkg::stanza::{PackageKey, Stanza};
use crate::payload::deb::{self, Control, Item};

/// The limit of the control files and lists of configuration files of all packages together, in bytes.
const TEXTS_LIMIT: usize = 4 << 20;

/// One package that the update installs.
pub struct StagedPackage {
    pub path: PathBuf,
    pub key: PackageKey,
    pub control: Stanza,
    /// Its configuration files.
    pub conffiles: Vec<PathBuf>,
    /// Whether its `preinst` calls dpkg-divert.
    pub diverts: bool,
    /// Whether apt has downloaded it: it is not in the payload.
    pub downloaded: bool,
    /// Its files and directories, once [`read_items`] has run.
    pub items: Vec<Item>,
    /// The size of its files, once [`read_items`] has run.
    pub bytes: u64,
}

/// Identifies the packages in `directory`, and gives each file the package's real name.
///
/// # Errors
/// When a package is invalid, two are the same, or their control files exceed the limit.
pub fn identify(directory: &Path, database: &Database) -> Result<Vec<StagedPackage>> {
    let dir = Dir::open(directory)?;
    let mut staged: Vec<StagedPackage> = Vec::new();
    let mut texts = 0;
    for name in dir.names()? {
        let Control { stanza: control, conffiles, diverts } = deb::control(&directory.join(&name))?;
        texts += control.0.len() + conffiles.iter().map(|path| path.as_os_str().len()).sum::<usize>();
        ensure!(
            texts <= TEXTS_LIMIT,
            "invalid artifact: the control files of its packages have more than {TEXTS_LIMIT} bytes: split \
             the artifact"
        );
        let (key, real_name) = (control.key(&database.native)?, FileName::new(control.file_name()?)?);
        ensure!(
            staged.iter().all(|other| other.key != key),
            "invalid artifact: package {key} is there twice: keep one of them"
        );
        if real_name != name {
            dir.rename_to_free(&name, &dir, &real_name)?;
        }
        staged.push(StagedPackage {
            path: directory.join(&real_name),
            key,
            control,
            conffiles,
            diverts,
            downloaded: false,
            items: Vec::new(),
            bytes: 0,
        });
    }
    dir.sync()?;
    Ok(staged)
}

/// Reads the files and directories of the packages `staged`, at most `max_files` in total.
///
/// # Errors
/// When a package is invalid, there are more, or the files are larger than the free space of every
/// file system.
pub fn read_items(staged: &mut [StagedPackage], max_files: usize) -> Result<()> {
    let mut left = max_files;
    for package in staged {
        (package.items, package.bytes) = deb::items(&package.path, left, largest_free_space()?)
            .with_context(|| format!("package {} refused", package.key))?;
        left -= package.items.len();
    }
    Ok(())
}

/// The free bytes of the file system that has most of them.
fn largest_free_space() -> Result<u64> {
    let mounts = durable::mounts_at_or_below(Path::new("/"))?;
    let free = |mount: &PathBuf| Some(statvfs(mount).ok()?).map(|it| it.f_bavail.saturating_mul(it.f_frsize));
    Ok(mounts.iter().filter_map(free).max().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use mender_update_module_test::debian::Package;
    use tar::EntryType;

    use super::*;
    use crate::test_device::{build, database, deb_of, error, tar, write};

    #[test]
    fn packages_get_their_real_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        build(&Package::new("a", "1:1").conffile("/etc/a", "1").script("preinst", "dpkg-divert x"), path("1.deb"));
        build(&Package::new("b", "2"), path("b_2_all.deb"));
        let staged = identify(directory.path(), &database("")).unwrap();
        let [a, b] = &staged[..] else { panic!("{} packages", staged.len()) };
        assert_eq!([&a.path, &b.path], [&path("a_1%3a1_all.deb"), &path("b_2_all.deb")]);
        assert!(a.path.is_file() && b.path.is_file() && !path("1.deb").exists());
        assert_eq!((a.key.to_string(), a.conffiles.len(), a.diverts, b.diverts), ("a".into(), 1, true, false));
        build(&Package::new("b", "3"), path("c.deb"));
        assert!(error(identify(directory.path(), &database(""))).contains("package b is there twice"));
    }

    #[test]
    fn the_control_files_of_all_packages_have_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let conffiles = format!("/etc/{}\n", "x".repeat(122)).repeat(1000);
        let add = |number: usize| {
            let control = format!("Package: p{number}\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n");
            let control = [("control", control.as_bytes()), ("conffiles", conffiles.as_bytes())];
            let control = control.map(|(name, text)| (EntryType::Regular, name, text));
            write(directory.path().join(format!("{number:02}")), deb_of(&tar(&control), &tar(&[])));
        };
        (0..2).for_each(add);
        assert_eq!(identify(directory.path(), &database("")).unwrap().len(), 2);
        (2..33).for_each(add);
        assert_eq!(identify(directory.path(), &database("")).unwrap().len(), 33);
        add(33);
        assert!(error(identify(directory.path(), &database(""))).contains("4194304 bytes"));
    }

    #[test]
    fn all_packages_share_the_limit_of_files() {
        let directory = tempfile::tempdir().unwrap();
        // With the root and /srv.
        build(&Package::new("a", "1").file("/srv/a", "12"), directory.path().join("a.deb"));
        build(&Package::new("b", "1").file("/srv/b", "34").file("/srv/c", "56"), directory.path().join("b.deb"));
        let mut staged = identify(directory.path(), &database("")).unwrap();
        read_items(&mut staged, 7).unwrap();
        let sizes: Vec<_> = staged.iter().map(|package| (package.items.len(), package.bytes)).collect();
        assert_eq!(sizes, [(3, 2), (4, 4)]);
        assert!(error(read_items(&mut staged, 6)).contains("package b refused"));
    }
}
