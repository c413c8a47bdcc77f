//! The module's own directory, below the client's data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::backup::directory::BackupDirectory;

/// The module's directory, which the journal is in.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModuleDirectory(pub PathBuf);

impl ModuleDirectory {
    /// The packages of the payload, and those that apt has downloaded for it.
    pub fn staging(&self) -> PathBuf {
        self.0.join("staging")
    }

    /// The directory that apt downloads to.
    pub fn downloads(&self) -> PathBuf {
        self.0.join("download")
    }

    /// The packages that this module installed before.
    pub fn deb_cache(&self) -> PathBuf {
        self.0.join("store")
    }

    pub fn backup(&self) -> BackupDirectory {
        BackupDirectory(self.0.join("old"))
    }
}
