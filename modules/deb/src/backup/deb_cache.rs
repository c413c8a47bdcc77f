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
    let (mut found, mut wanted) = (vec![0; BUFFER], vec![0; BUFFER]);
    let mut file = BufReader::new(file);
    loop {
        let length = read_full(expected, &mut wanted)?;
        if read_full(&mut file, &mut found)? != length || found[..length] != wanted[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

fn read_full(from: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
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
