//! The check of an artifact before it is packed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use mender_update_module::{ArtifactContent, PayloadFile};

use crate::artifact_files::ArtifactFiles;
use crate::engine::Engine;
pub use crate::engine_kind::EngineKind;
use crate::forms::build_context::BuildContext;
pub use crate::image::{ImageId, Reference};
use crate::image_archive::ImageArchive;
pub use crate::image_archive::configuration::{ArchivedImage, images};
use crate::load::{Role, require};
use crate::metadata::{self, MetaData};
pub use crate::name::Name;
use crate::project::FILES;

/// What an artifact would install.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// The project.
    pub project: String,
    /// The images in the artifact.
    pub images: Vec<ArchivedImage>,
    /// The names of images that are not in the artifact: the device has to have them.
    pub missing: Vec<String>,
    /// The paths of the device that the definition names. Sorted.
    pub host_paths: BTreeSet<String>,
}

/// Checks `content` as Download does on a device with the engine `kind`, as far as that does not depend on the device.
/// Files of archives are unpacked in the directory `scratch`.
///
/// # Errors
/// What every such device would refuse, and the remedy.
pub fn check(content: &ArtifactContent, kind: EngineKind, scratch: &Path) -> Result<Checked> {
    content.check_common()?;
    let mut meta_data: MetaData = content.meta_data()?.context(metadata::MISSING)?;
    meta_data.check(kind)?;
    let MetaData { project, images: expected, definition } = &meta_data;
    let mut files = ArtifactFiles::new(scratch.join(FILES), 0);
    let mut archived: BTreeMap<ImageId, ArchivedImage> = BTreeMap::new();
    let mut present = BTreeSet::new();
    for file in &content.files {
        match Role::of(&file.name, expected, definition)? {
            Role::Archive => files.unpack(&file.name, &mut file.open()?)?,
            Role::Definition => files.receive(&file.name, &mut file.open()?)?,
            Role::Images(wanted) => {
                let archive = Archive::read(file, project)?;
                let found = wanted.iter().filter(|image| archive.digests.has(&image.id));
                present.extend(found.map(|image| image.id.clone()));
                archived.extend(archive.images.into_iter().map(|image| (image.id.clone(), image)));
            }
        }
    }
    for image in expected.iter().filter(|image| image.file.is_some()) {
        require(image, present.contains(&image.id))?;
    }
    let ids = expected.iter().map(|image| (image.reference.clone(), image.id.clone())).collect();
    let volumes = |id: &ImageId| Ok(archived.get(id).map(|image| image.volumes.clone()).unwrap_or_default());
    definition.check_files(&BuildContext {
        project,
        engine: &Engine::assumed(kind),
        images: &ids,
        declared_volumes: &volumes,
        device_images: &[],
        used_device_images: RefCell::default(),
        files: &files,
        files_directory: Path::new("/var/lib/mender/update-modules/container/projects/files"),
        health_limit: Duration::ZERO,
    })?;
    let missing = expected.iter().filter(|image| !present.contains(&image.id));
    Ok(Checked {
        project: project.to_string(),
        missing: missing.map(|image| image.reference.to_string()).collect(),
        images: archived.into_values().collect(),
        host_paths: files.host_paths(),
    })
}

/// An archive of images.
struct Archive {
    digests: crate::image_archive::Digests,
    images: Vec<ArchivedImage>,
}

impl Archive {
    fn read(file: &PayloadFile, project: &Name) -> Result<Self> {
        let read = || {
            let mut content = file.open()?;
            let images = images(BufReader::new(&mut content))?;
            content.seek(SeekFrom::Start(0))?;
            let digests = ImageArchive::new(BufReader::new(&mut content), project).finish()?;
            anyhow::Ok(Self { digests, images })
        };
        read().with_context(|| format!("loading {} failed", file.name))
    }
}
