//! The folder in which podman keeps its temporary files while it loads images.
//!
//! Podman copies an archive there before it looks at it. It removes the copy when it ends by itself; one that is killed, or
//! loses power, leaves it for ever, and nobody could tell it from somebody else's. So every update has a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mender_update_module::durable::{self, Dir};
use serde::{Deserialize, Serialize};

/// How its name begins.
const PREFIX: &str = "mender-update-module-container-";

/// Where the kernel tells a UUID that nobody else has.
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// The folder's path, in the record of an update: it is found again by that alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one in `tmp_dir`. Anybody may write to `/var/tmp`: a name that can be guessed could be taken, and with it every
    /// update be kept away.
    ///
    /// # Errors
    /// When the kernel tells no UUID.
    pub fn within(tmp_dir: &Path) -> Result<Self> {
        let uuid = fs::read_to_string(UUID).with_context(|| format!("reading {UUID}: is /proc mounted?"))?;
        Ok(Self(tmp_dir.join(format!("{PREFIX}{}", uuid.trim_end()))))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Opens the folder that it is in. One in the engine's `storage` is made where it is missing: so does podman, but not
    /// before it needs it.
    ///
    /// # Errors
    /// When there is none.
    pub fn parent(&self, storage: &Path) -> Result<Dir> {
        let parent = self.0.parent().unwrap_or(&self.0);
        let opened = if parent.starts_with(storage) { durable::make_dirs(parent) } else { Dir::open(parent) };
        opened.context(
            "the engine has no folder for temporary files: make it, or name another as tmp_dir in \
             /etc/mender-modules/container.toml",
        )
    }

    /// Makes it for the owner alone; for an update's further images it is there already. That what is used has been made
    /// here is only true where nobody else may write to the folder that it is in, or that has the sticky bit, as `/var/tmp`
    /// has: nobody can guess the name before, and nobody else can rename or remove the folder afterwards.
    ///
    /// # Errors
    /// When it cannot be made: with the remedy.
    pub fn make(&self) -> Result<()> {
        Dir::make(&self.0, 0o700).map(drop).context(
            "the engine's temporary files have no place: name another folder as tmp_dir in \
             /etc/mender-modules/container.toml",
        )
    }

    /// Removes it with all that is in it. One that is not there is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        durable::remove_tree(&self.0)
    }
}
