//! The directory of the backup. Its names are those of builds before the first release, whose pending updates this
//! version can roll back.

use std::path::PathBuf;

/// The directory that the backup of one update is in.
pub struct BackupDirectory(pub PathBuf);

impl BackupDirectory {
    /// The directory of the copies of files.
    pub fn files(&self) -> PathBuf {
        self.0.join("places")
    }

    /// The directory of the symlinks in the place of directories, which versions without a record have kept.
    pub fn moved_directories(&self) -> PathBuf {
        self.0.join("moved")
    }

    /// The record of every path that the update affects.
    pub fn record(&self) -> PathBuf {
        self.0.join("record")
    }

    /// The mark that the install has begun.
    pub fn begun(&self) -> PathBuf {
        self.0.join("begun")
    }

    /// The tables of dpkg and apt before the install.
    pub fn tables_before(&self) -> PathBuf {
        self.0.join("tables.before")
    }

    /// The tables of dpkg and apt at the end of the install.
    pub fn tables_after(&self) -> PathBuf {
        self.0.join("tables.after")
    }

    /// The tables of dpkg and apt at the beginning of the rollback.
    pub fn tables_at_rollback(&self) -> PathBuf {
        self.0.join("tables.rollback")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_versions_have_the_same_names() {
        let own = BackupDirectory("/data/deb/old".into());
        let paths = [
            own.files(),
            own.moved_directories(),
            own.record(),
            own.begun(),
            own.tables_before(),
            own.tables_after(),
            own.tables_at_rollback(),
        ];
        let names = ["places", "moved", "record", "begun", "tables.before", "tables.after", "tables.rollback"];
        assert_eq!(paths, names.map(|name| own.0.join(name)));
    }
}
