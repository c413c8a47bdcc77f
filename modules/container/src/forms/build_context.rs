//! The input of a build: everything that a form needs to make units of a definition.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifact_files::ArtifactFiles;
use crate::engine::{Engine, ListedImage};
use crate::image::{ImageId, Reference};
use crate::name::Name;

/// The shortest time limit of systemd for the start of a unit, in seconds: an engine may need minutes after a boot.
const START_SECONDS: u64 = 300;

/// The project, engine, images and files for which units are built.
pub struct BuildContext<'a> {
    pub project: &'a Name,
    pub engine: &'a Engine,
    /// The engine's IDs of the artifact's images, by the names that the engine lists.
    pub images: &'a BTreeMap<Reference, ImageId>,
    /// The directories that an image declares as volumes.
    pub declared_volumes: &'a dyn Fn(&ImageId) -> Result<Vec<String>>,
    /// All images on the device.
    pub device_images: &'a [ListedImage],
    /// The images on the device that the definition uses and the artifact does not have.
    pub used_device_images: RefCell<BTreeSet<ImageId>>,
    /// The files of the artifact.
    pub files: &'a ArtifactFiles,
    /// The directory of these files when the project is active.
    pub files_directory: &'a Path,
    /// The time limit of the project's health check.
    pub health_limit: Duration,
}

impl BuildContext<'_> {
    /// The engine's ID of the image `reference`: the artifact's, else the one on the device.
    ///
    /// # Errors
    /// When neither has such an image.
    pub fn image(&self, reference: &str) -> Result<ImageId> {
        let has_tag = reference.rsplit('/').next().is_some_and(|name| name.contains([':', '@']));
        // As engines and compose providers complete a name without a tag.
        let reference = if has_tag { reference.to_owned() } else { format!("{reference}:latest") };
        let reference = Reference::try_from(reference)?.as_listed(self.engine.kind);
        if let Some(id) = self.images.get(&reference) {
            return Ok(id.clone());
        }
        let on_device = |listed: &&ListedImage| listed.reference.as_deref() == Some(reference.as_ref());
        let found = self.device_images.iter().find(on_device).with_context(|| {
            format!("image missing: {reference}: neither in the artifact nor on the device: add it to the artifact")
        })?;
        self.used_device_images.borrow_mut().insert(found.id.clone());
        Ok(found.id.clone())
    }

    /// The time limit of systemd for the start of a unit, in seconds: a slow start has to fail in the health check,
    /// with its message, and not before it.
    pub fn start_seconds(&self) -> u64 {
        self.health_limit.as_secs().max(START_SECONDS)
    }

    /// The path of the artifact's file or directory `path` when the project is active.
    pub fn file_path(&self, path: &str) -> Result<String> {
        let directory = self.files_directory;
        let path = if path.is_empty() { directory.to_owned() } else { directory.join(path) };
        Ok(path.to_str().context("invalid path of the project: not UTF-8")?.to_owned())
    }

    /// The name of a volume for the directory `target` of `service`, for which the definition names none. It is the
    /// same in every version, so that the data are kept.
    pub fn volume_name(&self, service: &str, target: &str) -> String {
        let mut name = format!("{}.{service}", self.project);
        for byte in target.bytes() {
            match byte {
                b'/' => name.push('.'),
                b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(byte.into()),
                _ => name += &format!("_{byte:02x}"),
            }
        }
        name
    }

    /// The directories that the image `id` declares as volumes, without those in `mounted`.
    pub fn unmounted_volumes(&self, id: &ImageId, mounted: &BTreeSet<String>) -> Result<Vec<String>> {
        let mut volumes = (self.declared_volumes)(id)?;
        volumes.retain(|path| !mounted.contains(path.trim_end_matches('/')));
        Ok(volumes)
    }
}
