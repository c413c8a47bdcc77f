//! The directory in which podman keeps its temporary files while it loads images.
//!
//! Podman copies an archive there before it reads it. It removes the copy when it exits by itself. A podman that is
//! killed or loses power leaves the copy for ever, and its name does not show its origin. So every update has its own
//! directory, which this module removes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mender_update_module::durable::{self, Dir};
use serde::{Deserialize, Serialize};

/// The prefix of its name.
const PREFIX: &str = "mender-update-module-container-";

/// The file in which the kernel generates a random UUID.
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// The path of the directory. It is in the journal, so that a later call finds the directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadDirectory(PathBuf);

impl LoadDirectory {
    /// A new directory in `tmp_dir`, not made yet. Its name cannot be guessed: every user may write to `/var/tmp`,
    /// and one who takes the name in advance would block every update.
    ///
    /// # Errors
    /// When the kernel generates no UUID.
    pub fn new_in(tmp_dir: &Path) -> Result<Self> {
        let uuid = fs::read_to_string(UUID)
            .with_context(|| format!("reading a random UUID failed: {UUID}: check that /proc is mounted"))?;
        Ok(Self(tmp_dir.join(format!("{PREFIX}{}", uuid.trim_end()))))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Opens the parent directory. A missing one in the engine's `storage` is made: podman makes it, too, but only
    /// when it first needs it.
    ///
    /// # Errors
    /// When the parent directory is missing: with the remedy.
    pub fn parent(&self, storage: &Path) -> Result<Dir> {
        let parent = self.0.parent().unwrap_or(&self.0);
        let opened = if parent.starts_with(storage) { durable::make_dirs(parent) } else { Dir::open(parent) };
        opened.context(
            "the directory for the engine's temporary files cannot be used: make it, or set tmp_dir in \
             /etc/mender-modules/container.toml to another directory",
        )
    }

    /// Makes the directory, for root only. For the second image of an update it exists already. It is certain to be
    /// this module's if only root may write to the parent directory, or that has the sticky bit, as `/var/tmp` has:
    /// the name cannot be guessed in advance, and no other user can rename or remove the directory later.
    ///
    /// # Errors
    /// When it cannot be made: with the remedy.
    pub fn make(&self) -> Result<()> {
        Dir::make(&self.0, 0o700).map(drop).context(
            "making a directory for the engine's temporary files failed: set tmp_dir in \
             /etc/mender-modules/container.toml to another directory",
        )
    }

    /// Removes the directory with its content, if it exists.
    pub fn remove(&self) -> Result<()> {
        durable::remove_tree(&self.0)
    }
}
