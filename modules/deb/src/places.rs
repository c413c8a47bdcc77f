//! Files that dpkg changes and that nothing but a copy brings back: configuration files, what nobody's package has, and
//! dpkg's own files about a package.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Attributes, Dir};
use mender_update_module::{FileName, log};
use serde::{Deserialize, Serialize};

use crate::form;

/// What dpkg and the maintainer scripts of packages leave beside a configuration file.
const BESIDE: [&str; 7] =
    [".dpkg-new", ".dpkg-tmp", ".dpkg-old", ".dpkg-dist", ".dpkg-bak", ".dpkg-backup", ".dpkg-remove"];

/// The longest name of a file, in bytes.
const NAME_MAX: usize = 255;

/// Places, and what was there.
#[derive(Default, Serialize, Deserialize)]
pub struct Places(Vec<Place>);

#[derive(Serialize, Deserialize)]
struct Place(#[serde(with = "form")] PathBuf, Was);

#[derive(Serialize, Deserialize)]
enum Was {
    Nothing,
    /// A file or symlink, kept under this name.
    Kept(FileName),
    Folder(Attributes),
}

impl Places {
    /// Keeps what is at each of `paths` in `folder`, at most `limit` bytes.
    ///
    /// # Errors
    /// When something there cannot be read, its copy not be written, or all of it exceeds `limit`.
    pub fn keep(paths: &BTreeSet<PathBuf>, folder: &Path, limit: u64) -> Result<Self> {
        let mut places = Vec::new();
        let mut size = 0_u64;
        for path in paths {
            let was = match durable::look_at(path)? {
                None => Was::Nothing,
                Some(meta) if meta.is_dir() => Was::Folder(Dir::open(path)?.attributes()?),
                Some(meta) if meta.is_file() || meta.is_symlink() => {
                    size = size.saturating_add(meta.len());
                    ensure!(
                        size <= limit,
                        "{} and other files of no package would be replaced, and the copies for a rollback exceed {limit} \
                         bytes: move them away, or raise backup_mib",
                        path.display()
                    );
                    let name = FileName::new(places.len().to_string())?;
                    durable::copy(path, &folder.join(&name))?;
                    Was::Kept(name)
                }
                // A device, pipe or socket has nothing in it that could be kept.
                Some(_) => continue,
            };
            places.push(Place(path.clone(), was));
        }
        Ok(Self(places))
    }

    /// Whether `path` is one of them.
    pub fn has(&self, path: &Path) -> bool {
        self.find(path).is_some()
    }

    /// Makes every place what it was, from the copies in `folder`. Those that are so already are left alone.
    ///
    /// # Errors
    /// The place that cannot be made so.
    pub fn put_back(&self, folder: &Path) -> Result<()> {
        self.0.iter().try_for_each(|Place(path, was)| was.put_back(path, folder))
    }

    /// As [`put_back`](Self::put_back), for those places alone where nothing is now.
    ///
    /// # Errors
    /// As there.
    pub fn put_back_missing(&self, folder: &Path) -> Result<()> {
        for Place(path, was) in &self.0 {
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
        match self.find(path) {
            Some(Was::Kept(name)) => durable::is_copy(&folder.join(name), path),
            _ => Ok(false),
        }
    }

    /// They are in the order of their paths.
    fn find(&self, path: &Path) -> Option<&Was> {
        let at = self.0.binary_search_by(|Place(own, _)| own.as_path().cmp(path)).ok()?;
        Some(&self.0[at].1)
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
    let target = Some(target(path)).filter(|target| target != path);
    let names = [Some(path.to_owned()), target];
    names
        .into_iter()
        .flatten()
        .flat_map(|path| beside(&path, &BESIDE).chain([path.clone()]).collect::<Vec<_>>())
        .collect()
}

/// What `path` leads to where it is a symlink, or several, whether or not that exists: dpkg follows configuration files so.
pub fn target(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    for _ in 0..LINKS {
        let Ok(next) = fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(&target).join(next);
    }
    let canonical = target.parent().zip(target.file_name()).and_then(|(parent, name)| {
        Some(fs::canonicalize(parent).ok()?.join(name)).filter(|_| target != path)
    });
    canonical.unwrap_or(target)
}

/// How many symlinks dpkg follows from a configuration file.
const LINKS: usize = 25;

/// What dpkg and its helpers may leave beside `path`.
pub fn beside_any(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    beside(path, &BESIDE)
}

/// What dpkg calls `path` while it has not finished with it.
pub fn unfinished(path: &Path) -> impl Iterator<Item = PathBuf> {
    beside(path, &BESIDE[..2])
}

fn beside(path: &Path, suffixes: &'static [&'static str]) -> impl Iterator<Item = PathBuf> + use<> {
    let name: OsString = path.as_os_str().to_owned();
    let length = path.file_name().map_or(0, OsStr::len);
    // Nothing can have a longer name.
    let fits = move |suffix: &&&str| length + suffix.len() <= NAME_MAX;
    suffixes.iter().filter(fits).map(move |suffix| {
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
    log!("{} as it was before", path.display());
    durable::copy(copy, path)
}

fn put_back_folder(path: &Path, attributes: &Attributes) -> Result<()> {
    if durable::exists(path)? {
        return Ok(());
    }
    durable::make_dirs(path)?.set_attributes(attributes)
}
