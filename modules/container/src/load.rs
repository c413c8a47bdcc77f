//! Loading of the payload: image archives into the engine, all other files into the staging directory.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{Dir, SpaceChecked};
use mender_update_module::{FileName, Payload, Payloads, log};

use crate::artifact_files::ArtifactFiles;
use crate::engine::{Engine, ListedImage};
use crate::engine_kind::EngineKind;
use crate::forms::Definition;
use crate::image::{Image, ImageId};
use crate::image_archive::{Digests, ImageArchive, refuse_compressed};
use crate::name::Name;
use crate::reserved_names;

/// The factor of an archive's size that podman needs in its temporary directory: the archive, and its layers once more.
const COPIES: u64 = 2;

/// The same for docker, which unpacks an archive in a temporary directory of its storage.
const DOCKER_COPIES: u64 = 1;

/// The engine's IDs of images, by the IDs that the artifact gives them.
pub type EngineIds = BTreeMap<ImageId, ImageId>;

/// What a payload file is.
pub enum Role<'a> {
    /// A tar archive with files of the project.
    Archive,
    /// A file of the definition.
    Definition,
    /// An archive with these images.
    Images(Vec<&'a Image>),
}

impl<'a> Role<'a> {
    /// The role of the payload file `name` in an artifact with `images` and `definition`.
    ///
    /// # Errors
    /// When the meta-data do not name it.
    pub fn of(name: &FileName, images: &'a [Image], definition: &Definition) -> Result<Self> {
        if definition.archive() == Some(name) {
            return Ok(Self::Archive);
        }
        if definition.has(name) {
            return Ok(Self::Definition);
        }
        let images: Vec<_> = images.iter().filter(|image| image.file.as_ref() == Some(name)).collect();
        ensure!(!images.is_empty(), "unexpected file in the artifact: {name}: name it in the meta-data, or remove it");
        Ok(Self::Images(images))
    }
}

/// Refuses an image that was not found.
pub fn require(Image { id, file, .. }: &Image, is_found: bool) -> Result<()> {
    let file = file.as_ref().map(|file| format!("'s file {file}")).unwrap_or_default();
    ensure!(
        is_found,
        "image missing: {id}: neither on the device nor in the artifact{file}: use the ID that 'podman image inspect' or \
         'docker image inspect' shows where the image was made"
    );
    Ok(())
}

/// A loader for the payload of one artifact.
pub struct Loader<'a> {
    pub project: &'a Name,
    pub engine: &'a Engine,
    pub images: &'a [Image],
    pub definition: &'a Definition,
    /// The bytes that stay free.
    pub reserve: u64,
    /// The engine's IDs of images that earlier updates loaded.
    pub known: EngineIds,
}

impl Loader<'_> {
    /// Loads every payload file: images into the engine, all others into `files`.
    ///
    /// # Errors
    /// When an image is missing, is not as the meta-data describe it, or does not fit, and for a file that the
    /// meta-data do not name.
    pub fn load(&self, payloads: &mut Payloads, files: &mut ArtifactFiles) -> Result<EngineIds> {
        let mut ids = self.present(&self.engine.images()?);
        for payload in payloads {
            let mut payload = payload?;
            let name = payload.name.clone();
            match Role::of(&name, self.images, self.definition)? {
                Role::Archive => files.unpack(&name, &mut payload)?,
                Role::Definition => files.receive(&name, &mut payload)?,
                Role::Images(images) if images.iter().all(|image| ids.contains_key(&image.id)) => {
                    log!("image already on the device: {name} skipped");
                    io::copy(&mut payload, &mut io::sink()).with_context(|| format!("reading {name} failed"))?;
                }
                Role::Images(images) => ids.extend(self.load_archive(&mut payload, &images)?),
            }
        }
        self.require_all(&ids)?;
        Ok(ids)
    }

    fn require_all(&self, ids: &EngineIds) -> Result<()> {
        self.images.iter().try_for_each(|image| require(image, ids.contains_key(&image.id)))
    }

    /// The artifact's images that are on the device.
    fn present(&self, listed: &[ListedImage]) -> EngineIds {
        let is_present = |id: &ImageId| listed.iter().any(|listed| listed.id == *id);
        let ids = self.images.iter().map(|image| &image.id);
        let found = ids.filter_map(|id| {
            let known = self.known.get(id).filter(|known| is_present(known));
            Some((id.clone(), known.or_else(|| is_present(id).then_some(id))?.clone()))
        });
        found.collect()
    }

    /// Streams one archive into the engine, and returns the engine's IDs of `images`. Any other image in the archive is
    /// removed again. An image that another program adds to the engine meanwhile is kept.
    fn load_archive(&self, archive: &mut Payload, images: &[&Image]) -> Result<EngineIds> {
        let sizes = images.iter().filter_map(|image| image.size);
        let unpacked = sizes.fold(0, u64::saturating_add);
        let size = archive.size.unwrap_or(unpacked);
        self.check_space(unpacked.max(size), size.saturating_mul(self.copies()))?;
        let name = archive.name.clone();
        let before: BTreeSet<_> = self.engine.images()?.into_iter().map(|listed| listed.id).collect();
        let loaded = self.stream(archive).with_context(|| format!("loading {name} failed"));
        let listed = self.engine.images()?;
        let digests = loaded.as_ref().ok();
        let ids: EngineIds = images
            .iter()
            .filter_map(|image| Some((image.id.clone(), self.find(&image.id, digests?, &listed)?)))
            .collect();
        let prefix = reserved_names::loaded_prefix(self.project);
        // Each image in the archive has a name of this module. Nothing else identifies those of an archive that could
        // not be read to its end.
        let is_of_archive = |image: &ListedImage| match &image.reference {
            Some(name) => name.starts_with(&prefix),
            None => digests.is_some_and(|digests| digests.has(&image.id)),
        };
        let is_expected = |id: &ImageId| before.contains(id) || ids.values().any(|expected| expected == id);
        for image in listed.iter().filter(|image| is_of_archive(image) && !is_expected(&image.id)) {
            let id = &image.id;
            // An archive that could not be read to its end may have been loaded: the error is logged later.
            if loaded.is_ok() {
                log!("unexpected image in {name}: {id}: not in the meta-data; removing it");
            }
            self.engine.remove(image.reference.as_deref().unwrap_or(&id.to_string()), id)?;
        }
        loaded?;
        log!("image loaded: {name}");
        Ok(ids)
    }

    /// How often the engine copies an archive before it stores the images.
    fn copies(&self) -> u64 {
        match self.engine.kind {
            EngineKind::Podman => COPIES,
            EngineKind::Docker => DOCKER_COPIES,
        }
    }

    fn stream(&self, archive: &mut Payload) -> Result<Digests> {
        let mut first = [0; 6];
        let mut length = 0;
        while length < first.len() {
            match archive.read(&mut first[length..])? {
                0 => break,
                read => length += read,
            }
        }
        let first = &first[..length];
        refuse_compressed(first)?;
        // A client older than 4.0 announces no size.
        let is_unchecked = Cell::new(archive.size.is_none());
        // While the engine reads the archive, it makes the first copy, and has written what came before this block.
        let content = SpaceChecked::new(first.chain(archive), |block, total| {
            let copies = total.saturating_mul(self.copies() - 1).saturating_add(block);
            if is_unchecked.get() { self.check_space(total, copies) } else { Ok(()) }
        });
        let mut archive = ImageArchive::new(content, self.project);
        self.engine.load(&mut archive)?;
        // The engine has written all that it needs. What is left of the archive is not written.
        is_unchecked.set(false);
        archive.finish().context("reading the rest of the archive failed")
    }

    /// The engine's ID of the image with the ID `id` in the artifact.
    fn find(&self, id: &ImageId, digests: &Digests, listed: &[ListedImage]) -> Option<ImageId> {
        let same = digests.same(id);
        let names: Vec<_> = digests.keys(id).iter().map(|key| reserved_names::loaded(self.project, key)).collect();
        let has_name = |listed: &&ListedImage| names.iter().any(|name| listed.reference.as_deref() == Some(name));
        let has_digest = |listed: &&ListedImage| same.contains(&listed.id);
        let found = listed.iter().find(has_name).or_else(|| listed.iter().find(has_digest));
        found.map(|listed| listed.id.clone())
    }

    /// Checks the space on each file system for what will be written to it, in bytes: the unpacked images, `stored`,
    /// and the copies of their archive, `copies`.
    fn check_space(&self, stored: u64, copies: u64) -> Result<()> {
        let storage = self.engine.storage.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let storage = Dir::open(storage)?;
        let Some(directory) = &self.engine.load_directory else {
            return storage.check_space(stored.saturating_add(copies), self.reserve);
        };
        let tmp_dir = directory.parent(&self.engine.storage)?;
        if tmp_dir.is_on_filesystem_of(&storage)? {
            return storage.check_space(stored.saturating_add(copies), self.reserve);
        }
        storage.check_space(stored, self.reserve)?;
        tmp_dir.check_space(copies, self.reserve)
    }
}
