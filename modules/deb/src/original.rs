//! The `.deb` files of installed packages that the device still has: those that this module installed before, and
//! those in apt's cache.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use mender_update_module::durable::{self, Dir};
use mender_update_module::{FileName, log};

use crate::contents;
use crate::control::Stanza;
use crate::database::{self, Database};
use crate::dpkg;
use crate::staged::names;

/// Bytes that are compared at a time.
const PIECE: usize = 16 << 10;

/// Where apt keeps what it has downloaded.
const CACHE: &str = "/var/cache/apt/archives";

/// Puts the `.deb` of the installed package `package` into `folder` as `name`, from `store` or apt's cache. False where
/// neither has it, or the package's files are no longer those of its `.deb`.
///
/// # Errors
/// When it is there and cannot be copied.
pub fn find(package: &Stanza, store: &Path, folder: &Dir, name: &FileName) -> Result<bool> {
    let candidates = [store, Path::new(CACHE)].map(|place| place.join(name));
    let mut candidates = candidates.into_iter().filter(|path| is_trusted(path)).peekable();
    if candidates.peek().is_none() || !is_as_packaged(package)? {
        return Ok(false);
    }
    // One that is damaged is no candidate, and no reason to fail: the package can be rebuilt.
    let Some(deb) = candidates.find(|path| is_its_deb(path, package).unwrap_or(false)) else {
        return Ok(false);
    };
    if deb.starts_with(store) {
        Dir::open(store)?.link(name, folder)?;
    } else {
        durable::copy(&deb, &folder.path().join(name))?;
    }
    Ok(true)
}

/// Whether `path` is a regular file that only root can have written.
fn is_trusted(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|found| found.is_file() && found.uid() == 0 && found.mode() & 0o022 == 0)
}

/// Whether nobody has changed or removed a file of the package, configuration files apart, since it was installed.
fn is_as_packaged(package: &Stanza) -> Result<bool> {
    let (status, said) = dpkg::look("dpkg").args(["--verify", &package.dpkg_name()?]).answer()?;
    // It exits with 1 when something differs: `??5?????? c /etc/a`, where the c is for a configuration file.
    let told = matches!(status.code(), Some(0 | 1));
    Ok(told && String::from_utf8_lossy(&said).lines().all(|line| line.get(10..12) == Some("c ")))
}

/// Whether the package was installed from `deb`, and not from another build with the same version: their checksums of
/// every file, and their scripts, are the same.
fn is_its_deb(deb: &Path, package: &Stanza) -> Result<bool> {
    let (mut has_checksums, mut same) = (false, true);
    contents::each_member(deb, |kind, _, content| {
        has_checksums |= kind == "md5sums";
        if kind != "control" {
            same &= is_content(&database::info_file(package, kind)?, content)?;
        }
        Ok(())
    })?;
    let control = contents::control(deb)?.description;
    let mut fields = ["Package", "Version", "Architecture"].iter();
    Ok(has_checksums && same && fields.all(|field| control.field(field) == package.field(field)))
}

/// Whether the file `path` is there and has exactly the content `expected`, compared piece by piece.
fn is_content(path: &Path, expected: &mut dyn Read) -> Result<bool> {
    let Ok(file) = File::open(path) else { return Ok(false) };
    let (mut own, mut other) = (vec![0; PIECE], vec![0; PIECE]);
    let mut file = BufReader::new(file);
    loop {
        let length = read_full(expected, &mut other)?;
        if read_full(&mut file, &mut own)? != length || own[..length] != other[..length] {
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

/// Makes `store` hold those packages of it and of `staging` that are installed now, as far as they fit into `limit` bytes.
///
/// # Errors
/// When the store cannot be written.
pub fn keep_installed(staging: &Path, store: &Path, limit: u64) -> Result<()> {
    let installed: BTreeSet<PathBuf> = Database::read()?.file_names_of_installed();
    let is_installed = |name: &FileName| installed.contains(name.as_ref());
    let (old, new) = (names(store)?, names(staging)?);
    if old.is_empty() && (limit == 0 || !new.iter().any(is_installed)) {
        return Ok(());
    }
    let folder = durable::make_dirs(store)?;
    folder.set_mode(0o700)?;
    for name in old.iter().filter(|name| !is_installed(name)) {
        folder.remove(name)?;
    }
    if let Some(staging) = staging.is_dir().then(|| Dir::open(staging)).transpose()? {
        new.iter()
            .filter(|name| is_installed(name))
            .try_for_each(|name| staging.rename(name, &folder, name))?;
    }
    shrink(&folder, limit)?;
    folder.sync()
}

/// Removes the largest until the rest fits.
fn shrink(store: &Dir, limit: u64) -> Result<()> {
    let size = |name: &FileName| fs::metadata(store.path().join(name)).map_or(0, |meta| meta.len());
    let mut packages: Vec<_> = store.names()?.into_iter().map(|name| (size(&name), name)).collect();
    packages.sort();
    let mut total = packages.iter().fold(0_u64, |sum, (size, _)| sum.saturating_add(*size));
    while let Some((size, name)) = packages.pop().filter(|_| total > limit) {
        log!("{name} is not kept for the next update's rollback: store_mib is full");
        store.remove(&name)?;
        total = total.saturating_sub(size);
    }
    Ok(())
}
