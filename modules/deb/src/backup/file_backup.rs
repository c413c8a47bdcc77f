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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;
    use crate::test_device::error;

    /// Files of every kind, and a directory for the copies.
    struct Kinds(TempDir);

    impl Kinds {
        fn make() -> Self {
            let kinds = Self(tempfile::tempdir().unwrap());
            fs::write(kinds.path("file"), "12").unwrap();
            symlink("file", kinds.path("symlink")).unwrap();
            fs::create_dir(kinds.path("directory")).unwrap();
            UnixListener::bind(kinds.path("socket")).unwrap();
            kinds
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn create(&self, limit: u64) -> Result<FileBackup> {
            let paths = ["absent", "directory", "file", "socket", "symlink"].map(|name| self.path(name)).into();
            FileBackup::create(&paths, &self.path("copies"), limit, 0)
        }
    }

    #[test]
    fn files_symlinks_and_directories_are_restored() {
        let kinds = Kinds::make();
        // A symlink is as long as its target.
        assert!(error(kinds.create(5)).contains("symlink"));
        let (backup, copies) = (kinds.create(6).unwrap(), kinds.path("copies"));
        let contains = |name: &str| backup.contains(&kinds.path(name));
        assert!(["absent", "directory", "file", "symlink"].into_iter().all(contains));
        assert!(!contains("socket") && !contains("other"));
        let is_unchanged = |name: &str| backup.is_unchanged(&kinds.path(name), &copies).unwrap();
        let names = ["file", "symlink", "directory", "absent", "other"];
        assert_eq!(names.map(is_unchanged), [true, true, false, false, false]);
        fs::write(kinds.path("file"), "34").unwrap();
        assert!(!is_unchanged("file"));
        fs::remove_file(kinds.path("symlink")).unwrap();
        fs::write(kinds.path("absent"), "").unwrap();
        fs::remove_dir(kinds.path("directory")).unwrap();
        backup.restore_those(&copies, |path| path == kinds.path("symlink")).unwrap();
        assert!(is_unchanged("symlink") && !is_unchanged("file"));
        backup.restore(&copies).unwrap();
        assert!(is_unchanged("file") && kinds.path("directory").is_dir() && !kinds.path("absent").exists());
    }

    #[test]
    fn a_directory_is_made_with_its_previous_attributes() {
        let kinds = Kinds::make();
        let directory = kinds.path("directory");
        let mut attributes = Dir::open(&directory).unwrap().attributes().unwrap();
        attributes.mode = 0o711;
        restore_directory(&directory, &attributes).unwrap();
        assert_ne!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o711, "one that exists stays as it is");
        fs::remove_dir(&directory).unwrap();
        restore_directory(&directory, &attributes).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o711);
    }

    #[test]
    fn only_absent_paths_are_restored_where_that_is_asked_for() {
        let kinds = Kinds::make();
        let (backup, copies) = (kinds.create(6).unwrap(), kinds.path("copies"));
        fs::write(kinds.path("file"), "34").unwrap();
        fs::remove_file(kinds.path("symlink")).unwrap();
        backup.restore_absent(&copies).unwrap();
        assert_eq!(fs::read(kinds.path("symlink")).unwrap(), b"34");
    }

    #[test]
    fn a_file_that_is_the_same_is_not_copied_again() {
        let kinds = Kinds::make();
        let (backup, copies) = (kinds.create(6).unwrap(), kinds.path("copies"));
        let inode = || fs::metadata(kinds.path("file")).unwrap().ino();
        let before = inode();
        backup.restore(&copies).unwrap();
        assert_eq!(inode(), before);
    }
}
