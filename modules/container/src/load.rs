//! The payload into its place: archives of images into the engine, the definition and its files into the staging directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::Dir;
use mender_update_module::{Payload, Payloads, log};

use crate::archive::{Archive, COMPRESSED, Digests, loaded_name};
use crate::carried::Carried;
use crate::definition::Definition;
use crate::engine::{Engine, Listed};
use crate::image::{Image, ImageId};
use crate::name::Name;

/// What podman puts into its temporary folder while it loads an image: the archive, and its layers once more.
const COPIES: u64 = 2;

/// What is loaded, and how.
pub struct Loading<'a> {
    pub project: &'a Name,
    pub engine: &'a Engine,
    pub images: &'a [Image],
    pub definition: &'a Definition,
    /// Bytes that stay free.
    pub reserve: u64,
    /// The engine's IDs of images that this module has loaded before, by the IDs of their artifacts.
    pub known: BTreeMap<ImageId, ImageId>,
}

/// The engine's IDs of an artifact's images, by the IDs that the artifact gives.
pub type Resolved = BTreeMap<ImageId, ImageId>;

impl Loading<'_> {
    /// Takes every payload: images into the engine, the rest into `carried`.
    ///
    /// # Errors
    /// When an archive is not what the meta-data say, does not fit, or is missing, and for a file that nobody has named.
    pub fn take(&self, payloads: &mut Payloads, carried: &mut Carried) -> Result<Resolved> {
        let mut resolved = self.present(&self.engine.images()?);
        for payload in payloads {
            let mut payload = payload?;
            let name = payload.name.clone();
            let images: Vec<_> =
                self.images.iter().filter(|image| image.file.as_ref() == Some(&name)).collect();
            if self.definition.archive() == Some(&name) {
                carried.unpack(&name, &mut payload)?;
            } else if self.definition.has(&name) {
                carried.take(&name, &mut payload)?;
            } else if images.is_empty() {
                bail!("the artifact has a file {name}, of which its meta-data know nothing");
            } else if images.iter().all(|image| resolved.contains_key(&image.id)) {
                log!("{name}: the device has it already");
                io::copy(&mut payload, &mut io::sink()).with_context(|| format!("reading {name}"))?;
            } else {
                resolved.extend(self.load(&mut payload, &images)?);
            }
        }
        for Image { id, file, .. } in self.images {
            let file = file.as_ref().map(|file| format!("'s file {file}")).unwrap_or_default();
            ensure!(
                resolved.contains_key(id),
                "the image {id} is not on the device, and not in the artifact{file}: give the ID that 'podman image \
                 inspect' or 'docker image inspect' shows on the machine that made it"
            );
        }
        Ok(resolved)
    }

    /// Those of the images that are on the device.
    fn present(&self, listed: &[Listed]) -> Resolved {
        let is_here = |id: &ImageId| listed.iter().any(|listed| listed.id == *id);
        let ids = self.images.iter().map(|image| &image.id);
        let found = ids.filter_map(|id| {
            let known = self.known.get(id).filter(|known| is_here(known));
            Some((id.clone(), known.or_else(|| is_here(id).then_some(id))?.clone()))
        });
        found.collect()
    }

    /// Lets one archive stream into the engine, and tells which images came of it. Whatever else it brings than `images` is
    /// taken away again.
    fn load(&self, archive: &mut Payload, images: &[&Image]) -> Result<Resolved> {
        self.check_space(archive.size, images)?;
        let name = archive.name.clone();
        let before: BTreeSet<_> = self.engine.images()?.into_iter().map(|listed| listed.id).collect();
        let loaded = self.feed(archive).with_context(|| format!("loading {name}"));
        let listed = self.engine.images()?;
        let digests = loaded.as_ref().ok();
        let resolved: Resolved = images
            .iter()
            .filter_map(|image| Some((image.id.clone(), self.found(&image.id, digests?, &listed)?)))
            .collect();
        let is_stranger =
            |id: &&ImageId| !before.contains(id) && !resolved.values().any(|known| known == *id);
        let strangers: BTreeSet<_> = listed.iter().map(|listed| &listed.id).filter(is_stranger).collect();
        for id in strangers {
            log!("{name} has the image {id}, of which the meta-data know nothing: taking it away");
            self.remove(id, &listed)?;
        }
        loaded?;
        log!("{name}: loaded");
        Ok(resolved)
    }

    fn feed(&self, archive: &mut Payload) -> Result<Digests> {
        let mut first = [0; 6];
        let mut length = 0;
        while length < first.len() {
            match archive.read(&mut first[length..])? {
                0 => break,
                read => length += read,
            }
        }
        let first = &first[..length];
        if let Some((_, by)) = COMPRESSED.iter().find(|(magic, _)| first.starts_with(magic)) {
            bail!(
                "it is compressed with {by}: decompress it, and have mender-artifact compress the artifact itself"
            );
        }
        let mut archive = Archive::new(first.chain(archive), self.project);
        self.engine.load(&mut archive)?;
        archive.finish().context("reading the rest")
    }

    /// The engine's ID of the image that the artifact gives the ID `id`.
    fn found(&self, id: &ImageId, digests: &Digests, listed: &[Listed]) -> Option<ImageId> {
        let same = digests.same(id);
        let names: Vec<_> = digests.keys(id).iter().map(|key| loaded_name(self.project, key)).collect();
        let is_named = |listed: &&Listed| names.iter().any(|name| listed.reference.as_deref() == Some(name));
        let is_it = |listed: &&Listed| same.contains(&listed.id);
        listed.iter().find(is_named).or_else(|| listed.iter().find(is_it)).map(|listed| listed.id.clone())
    }

    fn remove(&self, id: &ImageId, listed: &[Listed]) -> Result<()> {
        listed.iter().filter(|listed| listed.id == *id).try_for_each(|listed| {
            let name = listed.reference.clone().unwrap_or_else(|| id.to_string());
            self.engine.remove(&name, id)
        })
    }

    /// With what is known in advance: the space that the images take unpacked, and the size of their archive. Each
    /// filesystem is asked for what is written to it.
    fn check_space(&self, archive: Option<u64>, images: &[&Image]) -> Result<()> {
        let sizes = images.iter().filter_map(|image| image.size);
        let unpacked = sizes.fold(0, u64::saturating_add);
        let archive = archive.unwrap_or(unpacked);
        let storage = self.engine.storage.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let storage = Dir::open(storage)?;
        let kept = unpacked.max(archive);
        let Some(scratch) = &self.engine.scratch else { return storage.check_space(kept, self.reserve) };
        let (tmp_dir, copies) = (scratch.parent(&self.engine.storage)?, archive.saturating_mul(COPIES));
        if tmp_dir.is_on_filesystem_of(&storage)? {
            return storage.check_space(kept.saturating_add(copies), self.reserve);
        }
        storage.check_space(kept, self.reserve)?;
        tmp_dir.check_space(copies, self.reserve)
    }
}
