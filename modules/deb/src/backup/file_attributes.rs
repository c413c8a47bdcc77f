//! Extended attributes and times of files, as journals of versions without a
//! [`PathRecord`](crate::backup::path_record::PathRecord) have them. This version can roll back their
//! updates.

use std::path::PathBuf;

use anyhow::Result;
use mender_update_module::durable::{self, Attributes, Dir};
use serde::{Deserialize, Serialize};

use crate::paths::is_directory;

/// Files and directories with their attributes.
#[derive(Default, Serialize, Deserialize)]
pub struct FileAttributes {
    files: Vec<(PathBuf, Attributes)>,
    #[serde(rename = "folders")]
    directories: Vec<(PathBuf, Attributes)>,
}

impl FileAttributes {
    /// Restores the attributes of the files and directories that exist. dpkg may be configured to leave some
    /// out.
    pub fn restore(&self) -> Result<()> {
        for (path, attributes) in &self.files {
            let is_file = durable::metadata(path)?.is_some_and(|found| found.is_file());
            if is_file && durable::attributes(path)? != *attributes {
                durable::set_attributes(path, attributes)?;
            }
        }
        for (path, attributes) in &self.directories {
            if is_directory(path)? {
                Dir::open(path)?.set_attributes(attributes)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn attributes_of_what_exists_are_restored() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("directory")).unwrap();
        let changed = |before: Attributes| Attributes { mode: 0o700, modified: (1, 2), ..before };
        let of_directory = || Dir::open(&path("directory")).unwrap().attributes().unwrap();
        let file = changed(durable::attributes(&path("file")).unwrap());
        let files = ["file", "absent", "directory"].map(|name| (path(name), file.clone()));
        let directories = ["directory", "absent"].map(|name| (path(name), changed(of_directory())));
        let attributes = FileAttributes { files: files.into(), directories: directories.clone().into() };
        attributes.restore().unwrap();
        assert_eq!((durable::attributes(&path("file")).unwrap(), of_directory()), (file, directories[0].1.clone()));
    }
}
