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
