//! What a module is given to install: data, one folder for each module.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use mock_client::{MockClient, PayloadFile};

/// The files of an artifact and the settings of the device it is for.
pub struct Payload {
    settings: String,
    files: Vec<(OsString, Vec<u8>)>,
}

impl Payload {
    /// Reads `settings.toml` and `files/` of `folder`; either may be missing.
    ///
    /// # Errors
    /// When a file that is there cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let settings = folder.join("settings.toml");
        let settings = if settings.exists() {
            fs::read_to_string(&settings).with_context(|| format!("reading {}", settings.display()))?
        } else {
            String::new()
        };
        let mut files = Vec::new();
        let content = folder.join("files");
        if content.exists() {
            for entry in fs::read_dir(&content).with_context(|| format!("listing {}", content.display()))? {
                let entry = entry?;
                let file =
                    fs::read(entry.path()).with_context(|| format!("reading {}", entry.path().display()))?;
                files.push((entry.file_name(), file));
            }
        }
        files.sort();
        Ok(Self { settings, files })
    }

    /// The artifact's files.
    pub fn files(&self) -> Vec<PayloadFile<'_>> {
        self.files.iter().map(|(name, content)| (name.as_os_str(), content.as_slice())).collect()
    }

    /// Writes the settings of module `name` to `device`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn set_up(&self, device: &MockClient, name: &str) -> Result<()> {
        let me = fs::metadata(device.device()).context("looking at the device's folder")?;
        let settings = self
            .settings
            .replace("@DEVICE@", &device.device().to_string_lossy())
            .replace("@UID@", &me.uid().to_string())
            .replace("@GID@", &me.gid().to_string());
        device.set(name, &settings)
    }
}
