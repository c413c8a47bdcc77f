//! Disposable disks on top of an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use host::command::run;
use host::status::Step;

use crate::image::Image;
use crate::partition;

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

    /// Fails unless e2fsck finds no error in the file systems of the card, which no machine may use. Needs no root, and
    /// changes nothing.
    pub fn check_file_systems(&self, step: &Step) -> Result<()> {
        let raw = self.path.with_extension("raw");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-q", "-O", "raw"]).arg(&self.path).arg(&raw);
        run(step, convert).with_context(|| format!("converting {} failed", self.path.display()))?;
        let checked = [partition::ROOT, partition::DATA].iter().try_for_each(|partition| {
            let mut check = Command::new("/usr/sbin/e2fsck");
            check.args(["-f", "-n"]).arg(format!("{}?offset={}", raw.display(), partition.start));
            run(step, check).map(drop)
        });
        fs::remove_file(&raw).with_context(|| format!("removing {} failed", raw.display()))?;
        checked.context("a file system of the card is damaged")
    }

    /// The qcow2 file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
