//! What a rollback reads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::backup::contents::{Backup, NewPackage};
use crate::backup::directory::BackupDirectory;
use crate::backup::path_record::PathRecord;
use crate::dpkg::hooks::Hooks;
use crate::dpkg::lock::Lock;
use crate::payload::package::StagedPackage;
use crate::rollback::table_changes::TableChanges;

/// The backup with everything else that a rollback reads.
pub struct Source<'a> {
    pub backup: &'a Backup,
    pub directory: BackupDirectory,
    pub new: New<'a>,
    /// The recorded paths; `None` if a version without records began the update.
    pub record: Option<Recorded>,
    /// What has changed in the tables of dpkg and apt; `None` if a version without records began the update.
    pub tables: Option<TableChanges>,
    pub hooks: Hooks,
    pub lock_seconds: u64,
    /// Other package managers wait from before the tables are read until everything is verified.
    _frontend: Lock,
}

/// The packages that the update installs.
pub struct New<'a> {
    pub packages: &'a [NewPackage],
    /// The staged packages; only where a version without records began the update.
    pub staged: Option<&'a [StagedPackage]>,
}

/// The record, and the paths in it.
pub struct Recorded {
    pub record: PathRecord,
    pub paths: BTreeSet<PathBuf>,
}

impl<'a> Source<'a> {
    /// Reads the tables and the hooks, with dpkg and apt. `record` is that in `directory`, and `frontend` is dpkg's
    /// frontend lock.
    ///
    /// # Errors
    /// When the backup cannot be read, or dpkg or apt fails.
    pub fn read(
        backup: &'a Backup,
        directory: BackupDirectory,
        new: New<'a>,
        record: Option<Recorded>,
        frontend: Lock,
        lock_seconds: u64,
    ) -> Result<Self> {
        let tables = TableChanges::read(backup, &directory)?;
        Ok(Self { backup, directory, new, record, tables, hooks: Hooks::read()?, lock_seconds, _frontend: frontend })
    }

    pub fn is_recorded(&self, path: &Path) -> bool {
        self.record.as_ref().is_some_and(|recorded| recorded.paths.contains(path))
    }

    /// The journal, which an administrator may remove to accept an incomplete rollback.
    pub fn journal(&self) -> PathBuf {
        self.directory.0.with_file_name("journal.json")
    }
}

impl Recorded {
    /// Reads the record in `directory`; `None` if a version without records began the update.
    pub fn read(directory: &BackupDirectory) -> Result<Option<Self>> {
        let record = PathRecord::new(directory.record());
        if !record.exists()? {
            return Ok(None);
        }
        let paths = record.paths()?;
        Ok(Some(Self { record, paths }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::payload::deb::Kind;
    use crate::test_device::{back_up, backup_directory, on_device, source, staged};

    #[test]
    fn a_backup_may_have_no_record() {
        on_device(|| {
            let backup = back_up(&[staged("a", "", &[("/srv/a", Kind::File)])], &[]);
            let is_recorded = |path: &str| source(&backup).is_recorded(Path::new(path));
            assert!(is_recorded("/srv/a") && !is_recorded("/srv/b"));
            assert_eq!(source(&backup).journal(), Path::new("/var/data/journal.json"));
            let recorded = Recorded::read(&backup_directory()).unwrap().unwrap();
            assert_eq!(recorded.paths, recorded.record.paths().unwrap());
            fs::remove_file("/var/data/old/record").unwrap();
            assert!(Recorded::read(&backup_directory()).unwrap().is_none());
            assert!(!is_recorded("/srv/a"));
        });
    }
}
