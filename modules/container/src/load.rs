//! The payload into its place: archives of images into the engine, definitions into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use update_module::durable::Dir;
use update_module::{FileName, Payload, Payloads, say};

use crate::definition::Definition;
use crate::engine::Engine;
use crate::image::{Image, ImageId};

/// The largest file of a definition: they are text.
const DEFINITION: u64 = 1 << 20;

/// What podman puts into its temporary folder while it loads an image: the archive, and its layers once more.
const COPIES: u64 = 2;

/// What is loaded, and how.
pub struct Loading<'a> {
    pub engine: &'a Engine,
    pub images: &'a [Image],
    pub definition: &'a Definition,
    /// Bytes that stay free.
    pub reserve: u64,
}

impl Loading<'_> {
    /// Takes every payload, and returns the definition's files.
    ///
    /// # Errors
    /// When an archive is not what the meta-data say, does not fit, or is missing, and for a file that nobody has named.
    pub fn take(&self, payloads: &mut Payloads) -> Result<BTreeMap<FileName, String>> {
        let mut files = BTreeMap::new();
        let mut present = self.present()?;
        for payload in payloads {
            let mut payload = payload?;
            let name = payload.name.clone();
            let ids: Vec<_> = self.images.iter().filter(|image| image.file.as_ref() == Some(&name)).collect();
            if self.definition.has(&name) {
                files.insert(name, text(&mut payload)?);
            } else if ids.is_empty() {
                bail!("the artifact has a file {name}, of which its meta-data know nothing");
            } else if ids.iter().all(|image| present.contains(&image.id)) {
                say(format_args!("{name}: the device has it already"));
                io::copy(&mut payload, &mut io::sink()).with_context(|| format!("reading {name}"))?;
            } else {
                self.load(&mut payload, &ids)?;
                present = self.present()?;
            }
        }
        for image in self.images {
            ensure!(
                present.contains(&image.id),
                "the image {} is not on the device, and not in the artifact{}: 'podman image inspect' on the machine \
                 that made it shows its ID",
                image.id,
                image.file.as_ref().map(|file| format!("'s file {file}")).unwrap_or_default()
            );
        }
        Ok(files)
    }

    fn present(&self) -> Result<BTreeSet<ImageId>> {
        Ok(self.engine.images()?.into_iter().map(|listed| listed.id).collect())
    }

    /// Lets one archive stream into the engine. Whatever else it brings than `images` is taken away again.
    fn load(&self, archive: &mut Payload, images: &[&Image]) -> Result<()> {
        self.check_space(archive.size, images)?;
        let name = archive.name.clone();
        let before = self.present()?;
        let loaded = self.engine.load(archive).with_context(|| format!("loading {name}"));
        let strangers = self.present()?.into_iter().filter(|id| !before.contains(id));
        for id in strangers.filter(|id| images.iter().all(|image| image.id != *id)) {
            say(format_args!(
                "{name} has the image {id}, of which the meta-data know nothing: taking it away"
            ));
            self.remove(&id)?;
        }
        loaded
    }

    fn remove(&self, id: &ImageId) -> Result<()> {
        let listed: Vec<_> = self.engine.images()?.into_iter().filter(|listed| listed.id == *id).collect();
        listed.into_iter().try_for_each(|listed| {
            self.engine.remove(&listed.reference.unwrap_or_else(|| id.to_string()), id)
        })
    }

    /// With what is known in advance: the space that the images take unpacked, and the size of their archive. Each
    /// filesystem is asked for what is written to it.
    fn check_space(&self, archive: Option<u64>, images: &[&Image]) -> Result<()> {
        let unpacked: u64 = images.iter().filter_map(|image| image.size).sum();
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

fn text(payload: &mut Payload) -> Result<String> {
    let name = payload.name.clone();
    let mut text = String::new();
    payload.take(DEFINITION + 1).read_to_string(&mut text).with_context(|| format!("reading {name}"))?;
    ensure!(text.len() as u64 <= DEFINITION, "{name} is longer than a definition may be, {DEFINITION} bytes");
    Ok(text)
}
