//! Files that dpkg changes and that nothing but a copy brings back: configuration files, what nobody's package has, and
//! dpkg's own files about a package.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use update_module::durable::{self, Attributes, Dir};
use update_module::{FileName, say};

/// What dpkg and the maintainer scripts of packages leave beside a configuration file.
const BESIDE: [&str; 7] =
    [".dpkg-new", ".dpkg-tmp", ".dpkg-old", ".dpkg-dist", ".dpkg-bak", ".dpkg-backup", ".dpkg-remove"];

/// Places, and what was there.
#[derive(Default, Serialize, Deserialize)]
pub struct Places(Vec<(PathBuf, Was)>);

#[derive(Serialize, Deserialize)]
enum Was {
    Nothing,
    /// A file or symlink, kept under this name.
    Kept(FileName),
    Folder(Attributes),
}

impl Places {
    /// Keeps what is at each of `paths` in `folder`.
    ///
    /// # Errors
    /// When something there cannot be read, or its copy not be written.
    pub fn keep(paths: BTreeSet<PathBuf>, folder: &Path) -> Result<Self> {
        let mut places = Vec::new();
        for path in paths {
            let Some(meta) = durable::look_at(&path)? else {
                places.push((path, Was::Nothing));
                continue;
            };
            if meta.is_dir() {
                let attributes = Dir::open(&path)?.attributes()?;
                places.push((path, Was::Folder(attributes)));
            } else if meta.is_file() || meta.is_symlink() {
                let name = FileName::new(places.len().to_string())?;
                durable::copy(&path, &folder.join(&name))?;
                places.push((path, Was::Kept(name)));
            }
            // A device, pipe or socket has nothing in it that could be kept.
        }
        Ok(Self(places))
    }

    /// Whether `path` is one of them.
    pub fn has(&self, path: &Path) -> bool {
        self.0.iter().any(|(own, _)| own == path)
    }

    /// Makes every place what it was, from the copies in `folder`. Those that are so already are left alone.
    ///
    /// # Errors
    /// The place that cannot be made so.
    pub fn put_back(&self, folder: &Path) -> Result<()> {
        self.0.iter().try_for_each(|(path, was)| was.put_back(path, folder))
    }

    /// As [`put_back`](Self::put_back), for those places alone where nothing is now.
    ///
    /// # Errors
    /// As there.
    pub fn put_back_missing(&self, folder: &Path) -> Result<()> {
        for (path, was) in &self.0 {
            if !durable::exists(path)? {
                was.put_back(path, folder)?;
            }
        }
        Ok(())
    }

    /// Whether `path` is one of them, and the file that was there is there again, or still.
    ///
    /// # Errors
    /// When it cannot be compared with its copy in `folder`.
    pub fn is_as_kept(&self, path: &Path, folder: &Path) -> Result<bool> {
        match self.0.iter().find(|(own, _)| own == path) {
            Some((_, Was::Kept(name))) => durable::is_copy(&folder.join(name), path),
            _ => Ok(false),
        }
    }
}

impl Was {
    fn put_back(&self, path: &Path, folder: &Path) -> Result<()> {
        match self {
            Was::Nothing => remove_file(path),
            Was::Kept(name) => put_back(&folder.join(name), path),
            Was::Folder(attributes) => put_back_folder(path, attributes),
        }
        .with_context(|| format!("putting {} back", path.display()))
    }
}

/// The configuration file `path` with all that may come to lie beside it, and what it leads to where it is a symlink.
pub fn around_conffile(path: &Path) -> Vec<PathBuf> {
    let target = fs::canonicalize(path).ok().filter(|target| target != path && path.is_symlink());
    let names = [Some(path.to_owned()), target];
    names
        .into_iter()
        .flatten()
        .flat_map(|path| beside(&path, &BESIDE).chain([path.clone()]).collect::<Vec<_>>())
        .collect()
}

/// What dpkg calls `path` while it has not finished with it.
pub fn unfinished(path: &Path) -> impl Iterator<Item = PathBuf> {
    beside(path, &BESIDE[..2])
}

fn beside<'a>(path: &Path, suffixes: &'a [&str]) -> impl Iterator<Item = PathBuf> + use<'a> {
    let name: OsString = path.as_os_str().to_owned();
    suffixes.iter().map(move |suffix| {
        let mut name = name.clone();
        name.push(suffix);
        name.into()
    })
}

/// Removes the file `path`, if there is one and it is no folder.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    match durable::look_at(path)? {
        Some(found) if !found.is_dir() => durable::remove_file(path),
        _ => Ok(()),
    }
}

fn put_back(copy: &Path, path: &Path) -> Result<()> {
    if durable::is_copy(copy, path)? {
        return Ok(());
    }
    say(format_args!("{} as it was before", path.display()));
    durable::copy(copy, path)
}

fn put_back_folder(path: &Path, attributes: &Attributes) -> Result<()> {
    if durable::exists(path)? {
        return Ok(());
    }
    durable::make_dirs(path)?.set_attributes(attributes)
}
