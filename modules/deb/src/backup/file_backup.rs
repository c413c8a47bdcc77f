//! Copies of files that dpkg changes and no package restores: configuration files, files of no package, and
//! dpkg's info files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Attributes, Dir};
use mender_update_module::{FileName, log};
use serde::{Deserialize, Serialize};

use crate::path_json;
use crate::paths::remove_unless_directory;

/// Paths with their previous contents, in the order of the paths.
#[derive(Default, Serialize, Deserialize)]
pub struct FileBackup(Vec<PreviousPath>);

#[derive(Serialize, Deserialize)]
struct PreviousPath(#[serde(with = "path_json")] PathBuf, Previous);

#[derive(Serialize, Deserialize)]
enum Previous {
    #[serde(rename = "Nothing")]
    Absent,
    /// A file or symlink, with the name of the copy.
    #[serde(rename = "Kept")]
    Copied(FileName),
    #[serde(rename = "Folder")]
    Directory(Attributes),
}

impl FileBackup {
    /// Copies each of `paths` to `directory`, at most `limit` bytes in total, and leaves `reserve` bytes free there.
    /// Devices, pipes and sockets have no content to copy.
    ///
    /// # Errors
    /// When a path cannot be read, a copy cannot be written, or the copies exceed `limit`.
    pub fn create(paths: &BTreeSet<PathBuf>, directory: &Path, limit: u64, reserve: u64) -> Result<Self> {
        let mut entries = Vec::new();
        let mut size = 0_u64;
        for path in paths {
            let previous = match durable::metadata(path)? {
                None => Previous::Absent,
                Some(found) if found.is_dir() => Previous::Directory(Dir::open(path)?.attributes()?),
                Some(found) if found.is_file() || found.is_symlink() => {
                    size = size.saturating_add(found.len());
                    ensure!(
                        size <= limit,
                        "update refused: with {}, the copies of files that a rollback restores exceed \
                         {limit} bytes: move it away, or raise backup_mib",
                        path.display()
                    );
                    let name = FileName::new(entries.len().to_string())?;
                    durable::make_dirs(directory)?.check_space(found.len(), reserve)?;
                    durable::copy(path, &directory.join(&name))?;
                    Previous::Copied(name)
                }
                Some(_) => continue,
            };
            entries.push(PreviousPath(path.clone(), previous));
        }
        Ok(Self(entries))
    }

    pub fn contains(&self, path: &Path) -> bool {
        self.find(path).is_some()
    }

    /// Restores every path that differs from its copy in `directory`.
    pub fn restore(&self, directory: &Path) -> Result<()> {
        self.restore_those(directory, |_| true)
    }

    /// Restores every path that `is_wanted` and differs from its copy in `directory`.
    pub fn restore_those(&self, directory: &Path, is_wanted: impl Fn(&Path) -> bool) -> Result<()> {
        let mut wanted = self.0.iter().filter(|PreviousPath(path, _)| is_wanted(path));
        wanted.try_for_each(|PreviousPath(path, previous)| previous.restore(path, directory))
    }

    /// Restores every path that is absent now.
    pub fn restore_absent(&self, directory: &Path) -> Result<()> {
        for PreviousPath(path, previous) in &self.0 {
            if !durable::exists(path)? {
                previous.restore(path, directory)?;
            }
        }
        Ok(())
    }

    /// Whether the file `path` was copied, and is the same as its copy in `directory`.
    pub fn is_unchanged(&self, path: &Path, directory: &Path) -> Result<bool> {
        match self.find(path) {
            Some(Previous::Copied(name)) => durable::is_copy(&directory.join(name), path),
            _ => Ok(false),
        }
    }

    fn find(&self, path: &Path) -> Option<&Previous> {
        let index = self.0.binary_search_by(|PreviousPath(own, _)| own.as_path().cmp(path)).ok()?;
        Some(&self.0[index].1)
    }
}

impl Previous {
    fn restore(&self, path: &Path, directory: &Path) -> Result<()> {
        match self {
            Previous::Absent => remove_unless_directory(path),
            Previous::Copied(name) => restore_copy(&directory.join(name), path),
            Previous::Directory(attributes) => restore_directory(path, attributes),
        }
        .with_context(|| format!("restoring {} failed", path.display()))
    }
}

fn restore_copy(copy: &Path, path: &Path) -> Result<()> {
    if durable::is_copy(copy, path)? {
        return Ok(());
    }
    log!("rollback: restoring {} from its copy", path.display());
    durable::copy(copy, path)
}

fn restore_directory(path: &Path, attributes: &Attributes) -> Result<()> {
    if durable::exists(path)? {
        return Ok(());
    }
    durable::make_dirs(path)?.set_attributes(attributes)
}
