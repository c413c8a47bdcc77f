//! Disposable disks on top of an image.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use host::command::run;
use host::status::Step;

use crate::image::Image;

/// A disposable disk: what a machine has changed on top of an image. It survives power losses.
pub struct Overlay {
    path: PathBuf,
}

impl Overlay {
    /// Makes an overlay of `image` as the file `path`. An existing file is replaced.
    pub fn create(step: &Step, image: &Image, path: &Path) -> Result<Self> {
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image.card()).arg(path);
        run(step, command).with_context(|| format!("creating the disk overlay {} failed", path.display()))?;
        Ok(Self::at(path))
    }

    /// The overlay in the existing file `path`.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The qcow2 file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
