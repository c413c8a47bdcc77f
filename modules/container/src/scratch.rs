//! The folder in which podman keeps its temporary files while it loads an image.
//!
//! Podman copies an archive there before it looks at it. It removes the copy when it ends by itself; one that is killed, or
//! loses power, leaves it for ever, and nobody could tell it from somebody else's. So every load has a folder of its own.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use update_module::FileName;
use update_module::durable::{self, Dir};

/// What it is called.
const NAME: &str = "mender-update-module-container";

/// The folder's path, in the record of an update: it is found again though the setting has changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// The one in `tmp_dir`.
    pub fn within(tmp_dir: &Path) -> Self {
        Self(tmp_dir.join(NAME))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Opens the folder that it is in.
    ///
    /// # Errors
    /// When there is none.
    pub fn parent(&self) -> Result<Dir> {
        let parent = self.0.parent().unwrap_or(&self.0);
        Dir::open(parent).context(
            "the engine has no folder for temporary files: make it, or name another as tmp_dir in \
             /etc/mender-modules/container.toml",
        )
    }

    /// Makes it anew. Whoever may write to the folder that it is in may have put anything into its place, a link to
    /// somewhere else: that goes, and what is used has been made here, for the owner alone.
    ///
    /// # Errors
    /// When what is in its place cannot be removed, or comes back.
    pub fn make(&self) -> Result<()> {
        self.remove()?;
        self.parent()?.make_child(&FileName::new(NAME)?, 0o700).map(drop)
    }

    /// Removes it with all that is in it, or whatever is in its place. One that is not there is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        match self.0.symlink_metadata() {
            Ok(found) if found.is_dir() => durable::remove_tree(&self.0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => durable::remove_file(&self.0),
        }
    }
}
