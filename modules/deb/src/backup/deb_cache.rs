//! The cache of `.deb` files of installed packages, and apt's cache.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use mender_update_module::durable::{self, Dir};
use mender_update_module::{FileName, log};

use crate::dpkg::database::{self, Database};
use crate::dpkg::program;
use crate::dpkg::stanza::Stanza;
use crate::paths::names;
use crate::payload::deb;

/// Bytes that are compared at a time.
const BUFFER: usize = 16 << 10;

/// apt's cache of downloaded packages.
const APT_CACHE: &str = "/var/cache/apt/archives";

/// Puts the `.deb` of the installed package `package` into `directory` as `name`, from `cache` or apt's
/// cache. Returns false where neither has it, or a file of the package was changed since it was installed.
pub fn find(package: &Stanza, cache: &Path, directory: &Dir, name: &FileName) -> Result<bool> {
    let candidates = [cache, Path::new(APT_CACHE)].map(|directory| directory.join(name));
    let mut candidates = candidates.into_iter().filter(|path| is_trusted(path)).peekable();
    if candidates.peek().is_none() || !is_unchanged(package)? {
        return Ok(false);
    }
    // A damaged candidate is skipped: the package can be rebuilt.
    let Some(deb) = candidates.find(|path| is_original(path, package).unwrap_or(false)) else {
        return Ok(false);
    };
    if deb.starts_with(cache) {
        Dir::open(cache)?.link(name, directory)?;
    } else {
        durable::copy(&deb, &directory.path().join(name))?;
    }
    Ok(true)
}

/// Whether `path` is a regular file that only root can write.
fn is_trusted(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file() && found.uid() == 0 && found.mode() & 0o022 == 0)
}

/// Whether no file of the package, except configuration files, was changed or removed since it was installed.
fn is_unchanged(package: &Stanza) -> Result<bool> {
    let (status, output) = program::query("dpkg").args(["--verify", &package.dpkg_name()?]).answer()?;
    // It exits with 1 when a file differs: `??5?????? c /etc/a`, where c stands for a configuration file.
    let is_complete = matches!(status.code(), Some(0 | 1));
    let output = String::from_utf8_lossy(&output);
    Ok(is_complete && output.lines().all(|line| line.get(10..12) == Some("c ")))
}

/// Whether the package was installed from `deb`, and not from another build of the same version: scripts and
/// checksums of all files are the same.
fn is_original(deb: &Path, package: &Stanza) -> Result<bool> {
    let (mut has_checksums, mut is_same) = (false, true);
    deb::each_control_file(deb, |kind, _, content| {
        has_checksums |= kind == "md5sums";
        if kind != "control" {
            is_same &= has_content(&database::info_file(package, kind)?, content)?;
        }
        Ok(())
    })?;
    let control = deb::control(deb)?.stanza;
    let mut fields = ["Package", "Version", "Architecture"].iter();
    Ok(has_checksums && is_same && fields.all(|field| control.field(field) == package.field(field)))
}

/// Whether the file `path` exists with the content `expected`.
fn has_content(path: &Path, expected: &mut dyn Read) -> Result<bool> {
    let Ok(file) = File::open(path) else { return Ok(false) };
    let mut file = BufReader::new(file);
    let (mut found, mut wanted) = (Vec::with_capacity(BUFFER), Vec::with_capacity(BUFFER));
    loop {
        read_block(expected, &mut wanted)?;
        read_block(&mut file, &mut found)?;
        if found != wanted {
            return Ok(false);
        }
        if wanted.is_empty() {
            return Ok(true);
        }
    }
}

/// Reads the next [`BUFFER`] bytes, or fewer at the end.
fn read_block(from: &mut dyn Read, block: &mut Vec<u8>) -> Result<()> {
    block.clear();
    from.take(BUFFER as u64).read_to_end(block)?;
    Ok(())
}

/// Keeps the packages of `cache` and of `staging` that are installed now in `cache`, up to `limit` bytes, and
/// removes the others from it.
pub fn keep_installed(staging: &Path, cache: &Path, limit: u64) -> Result<()> {
    let installed: BTreeSet<PathBuf> = Database::read()?.deb_names_of_installed();
    let is_installed = |name: &FileName| installed.contains(name.as_ref());
    let (cached, staged) = (names(cache)?, names(staging)?);
    if cached.is_empty() && (limit == 0 || !staged.iter().any(is_installed)) {
        return Ok(());
    }
    let directory = durable::make_dirs(cache)?;
    directory.set_mode(0o700)?;
    for name in cached.iter().filter(|name| !is_installed(name)) {
        directory.remove(name)?;
    }
    if let Some(staging) = staging.is_dir().then(|| Dir::open(staging)).transpose()? {
        for name in staged.iter().filter(|name| is_installed(name)) {
            staging.rename(name, &directory, name)?;
        }
    }
    shrink(&directory, limit)?;
    directory.sync()
}

/// Removes the largest packages until the rest fits.
fn shrink(cache: &Dir, limit: u64) -> Result<()> {
    let size = |name: &FileName| fs::metadata(cache.path().join(name)).map_or(0, |found| found.len());
    let mut packages: Vec<_> = cache.names()?.into_iter().map(|name| (size(&name), name)).collect();
    packages.sort();
    let mut total = packages.iter().fold(0_u64, |sum, (size, _)| sum.saturating_add(*size));
    while let Some((size, name)) = packages.pop().filter(|_| total > limit) {
        log!("{name} not kept for the next update: the cache is larger than store_mib");
        cache.remove(&name)?;
        total = total.saturating_sub(size);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use mender_update_module_test::debian::Package;

    use super::*;
    use crate::dpkg::stanza::PackageKey;
    use crate::test_device::{build, install, installed, on_device, write, write_status};

    fn package() -> Package {
        Package::new("a", "1").file("/srv/a", "1").conffile("/etc/a", "1").script("postinst", "exit 0").checksums()
    }

    /// Installs [`package`], and looks for its `.deb`, which is `deb`.
    fn found(deb: &Package, directory: &str, change: impl FnOnce()) -> bool {
        install(&[package()]);
        let path = Path::new(directory).join("a_1_all.deb");
        build(deb, &path);
        change();
        durable::remove_tree(Path::new("/var/backup")).unwrap();
        let backup = durable::make_dirs(Path::new("/var/backup")).unwrap();
        let database = Database::read().unwrap();
        let stanza = database.find(&PackageKey::from_apt("a")).unwrap();
        let found = find(stanza, Path::new("/var/cache/own"), &backup, &FileName::new("a_1_all.deb").unwrap()).unwrap();
        assert_eq!(fs::read("/var/backup/a_1_all.deb").is_ok_and(|deb| deb == fs::read(&path).unwrap()), found);
        fs::remove_file(path).unwrap();
        found
    }

    #[test]
    fn the_original_package_is_found_in_both_caches() {
        on_device(|| {
            assert!(found(&package(), "/var/cache/own", || ()));
            assert!(found(&package(), APT_CACHE, || ()));
            assert!(!found(&package(), "/var/cache/other", || ()));
            assert!(found(&package(), APT_CACHE, || fs::write("/etc/a", "of the administrator").unwrap()));
            assert!(!found(&package(), APT_CACHE, || fs::write("/srv/a", "changed").unwrap()));
        });
    }

    #[test]
    fn another_build_of_the_same_version_is_not_the_original() {
        on_device(|| {
            let of = |package: &Package| found(package, APT_CACHE, || ());
            let script =
                Package::new("a", "1").file("/srv/a", "1").conffile("/etc/a", "1").script("postinst", "exit 1");
            assert!(!of(&script.checksums()));
            assert!(!of(&package().script("prerm", "exit 0")));
            assert!(!of(&package().file("/srv/b", "1").checksums()));
            let version =
                Package::new("a", "2").file("/srv/a", "1").conffile("/etc/a", "1").script("postinst", "exit 0");
            assert!(!of(&version.checksums()));
            assert!(of(&package()));
        });
    }

    #[test]
    fn a_package_without_checksums_is_not_recognized() {
        on_device(|| {
            let package = Package::new("a", "1").file("/srv/a", "1");
            install(std::slice::from_ref(&package));
            build(&package, "/var/a.deb");
            let database = Database::read().unwrap();
            let stanza = database.find(&PackageKey::from_apt("a")).unwrap();
            assert!(!is_original(Path::new("/var/a.deb"), stanza).unwrap());
        });
    }

    #[test]
    fn only_files_of_root_are_trusted() {
        on_device(|| {
            let path = Path::new("/srv/file");
            for (mode, owner, expected) in
                [(0o644, 0, true), (0o755, 0, true), (0o664, 0, false), (0o646, 0, false), (0o644, 1, false)]
            {
                fs::write(path, "").unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
                chown(path, Some(owner), None).unwrap();
                assert_eq!(is_trusted(path), expected, "{mode:o} {owner}");
            }
            chown(path, Some(0), None).unwrap();
            symlink(path, "/srv/symlink").unwrap();
            fs::set_permissions("/srv", fs::Permissions::from_mode(0o755)).unwrap();
            let others = ["/srv/symlink", "/srv", "/srv/absent"].map(Path::new);
            assert_eq!(others.map(is_trusted), [false; 3]);
        });
    }

    #[test]
    fn contents_are_compared_to_their_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let long = vec![7; 2 * BUFFER + 1];
        fs::write(&path, &long).unwrap();
        let has = |content: &[u8]| has_content(&path, &mut &content[..]).unwrap();
        assert!(has(&long));
        assert!(
            !has(&long[1..]) && !has(&[&long[..], b"x"].concat()) && !has(&[&long[1..], b"x"].concat()) && !has(b"")
        );
        let (begin, end) = long.split_at(10);
        assert!(has_content(&path, &mut begin.chain(end)).unwrap(), "in two parts");
        assert!(!has_content(&directory.path().join("absent"), &mut &b""[..]).unwrap());
    }

    /// The names in `directory`.
    fn listed(directory: &Path) -> Vec<String> {
        let names = names(directory).unwrap();
        names.iter().map(|name| name.as_ref().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn packages_that_are_installed_now_are_kept() {
        on_device(|| {
            write_status(&[&installed("a", "1"), &installed("b", "1"), &installed("c", "1")]);
            let (staging, cache) = (Path::new("/var/staging"), Path::new("/var/store"));
            for name in ["a_1_all.deb", "other_1_all.deb"] {
                write(staging.join(name), "12");
            }
            keep_installed(staging, cache, 0).unwrap();
            assert!(!cache.exists());
            keep_installed(Path::new("/var/absent"), cache, 100).unwrap();
            assert!(!cache.exists());
            keep_installed(staging, cache, 100).unwrap();
            assert_eq!((listed(cache), listed(staging)), (vec!["a_1_all.deb".into()], vec!["other_1_all.deb".into()]));
            write(cache.join("b_1_all.deb"), "123");
            write(cache.join("b_0_all.deb"), "");
            write(cache.join("c_1_all.deb"), "1");
            keep_installed(Path::new("/var/absent"), cache, 6).unwrap();
            assert_eq!(listed(cache), ["a_1_all.deb", "b_1_all.deb", "c_1_all.deb"]);
            keep_installed(staging, cache, 5).unwrap();
            assert_eq!(listed(cache), ["a_1_all.deb", "c_1_all.deb"]);
            keep_installed(staging, cache, 0).unwrap();
            assert_eq!(listed(cache), [""; 0]);
        });
    }
}
