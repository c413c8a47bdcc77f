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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_have_the_names_of_version_0_1_0() {
        let own = ModuleDirectory("/data/deb".into());
        let paths = [own.staging(), own.downloads(), own.deb_cache(), own.backup().0];
        assert_eq!(paths, ["staging", "download", "store", "old"].map(|name| own.0.join(name)));
    }
}
