//! The names of images in the engine: restored or removed when an update ends.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use mender_update_module::log;

use crate::engine::{Engine, ListedImage};
use crate::engine_kind::EngineKind;
use crate::image::{ImageId, Reference};
use crate::name::Name;
use crate::project::Project;
use crate::reserved_names;

/// The names that one update changes, as they were before it.
pub struct Tags<'a> {
    pub engine: &'a Engine,
    pub project: &'a Name,
    /// The image of every name that the update changes; `None` for a name that did not exist.
    pub before: &'a BTreeMap<Reference, Option<ImageId>>,
    /// All images that were on the device.
    pub images_before: &'a BTreeSet<ImageId>,
}

impl Tags<'_> {
    /// Gives every name the image that it had before.
    pub fn restore(&self) -> Result<()> {
        let mut listed = self.engine.images()?;
        let kept_prefix = reserved_names::kept_prefix(self.project);
        let new_kept_names: Vec<_> = listed
            .iter()
            .filter_map(|image| image.reference.clone())
            .filter(|reference| reference.starts_with(&kept_prefix))
            .filter_map(|name| Reference::try_from(name).ok())
            .filter(|name| !self.before.contains_key(name))
            .collect();
        let before = self.before.iter().map(|(reference, image)| (reference, image.as_ref()));
        for (reference, before) in before.chain(new_kept_names.iter().map(|name| (name, None))) {
            let reference = reference.as_listed(self.engine.kind);
            let current = listed.iter().position(|image| image.reference.as_deref() == Some(reference.as_ref()));
            let exists = |id: &ImageId| listed.iter().any(|image| image.id == *id);
            match (before, current) {
                (Some(before), current)
                    if current.is_none_or(|current| listed[current].id != *before) && exists(before) =>
                {
                    self.engine.tag(before, &reference)?;
                    // The other image has one name less: the next one may be its last.
                    listed = self.engine.images()?;
                }
                (None, Some(current)) => {
                    if !self.is_last_name_of_earlier_image(&listed[current], &listed) {
                        self.engine.remove(reference.as_ref(), &listed[current].id)?;
                        listed.remove(current);
                    } else if self.engine.kind == EngineKind::Podman {
                        // Without this, the image would be removed with its last name. It had none before.
                        self.engine.untag(&listed[current].id, &reference)?;
                        listed[current].reference = None;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the names that images have only while they are loaded. An image without another name is removed with it.
    pub fn remove_loaded_names(&self) -> Result<()> {
        let mut listed = self.engine.images()?;
        let is_loaded = |name: &String| name.starts_with(reserved_names::LOADED);
        while let Some(at) = listed.iter().position(|image| image.reference.as_ref().is_some_and(is_loaded)) {
            let is_last = self.is_last_name_of_earlier_image(&listed[at], &listed);
            // An image may have several of them: the next one may be its last name.
            let image = listed.remove(at);
            let name = image.reference.unwrap_or_default();
            if is_last {
                log!(
                    "image name kept: {name}: the image {} was on the device before and has no other name",
                    image.id.short()
                );
            } else {
                self.engine.remove(&name, &image.id)?;
            }
        }
        Ok(())
    }

    /// Whether `image` was on the device before the update and is listed by its last name: without it, the image
    /// would be removed.
    fn is_last_name_of_earlier_image(&self, image: &ListedImage, listed: &[ListedImage]) -> bool {
        self.images_before.contains(&image.id) && listed.iter().filter(|other| other.id == image.id).count() == 1
    }

    /// Removes those of `candidates` that none of `projects` needs, by their names in `given` and those that this
    /// update gave them. A name that an image had before this update, and that no version of the project gave it, is
    /// not this module's to remove: the image is kept.
    pub fn prune(
        &self,
        candidates: &BTreeSet<ImageId>,
        given: &[(ImageId, Reference)],
        projects: &[Project],
    ) -> Result<()> {
        let Self { engine, project, .. } = self;
        let needed = Needed::by(projects, engine)?;
        for id in candidates {
            let of_image = given.iter().filter(|(of, _)| of == id).map(|(_, reference)| reference);
            let changed = self.before.iter().filter(|(_, before)| before.as_ref() != Some(id)).map(|(name, _)| name);
            let given = of_image.chain(changed).map(|name| name.as_listed(engine.kind));
            let given: BTreeSet<_> = given.chain([reserved_names::kept(project, id)?]).collect();
            let is_removable = |listed: &ListedImage| {
                listed
                    .reference
                    .as_deref()
                    .is_none_or(|name| given.iter().any(|given| given.as_ref() == name) && !needed.has_name(name))
            };
            let listed = engine.images()?.into_iter().filter(|listed| listed.id == *id);
            let (removable, others): (Vec<_>, Vec<_>) = listed.partition(is_removable);
            let is_needed = needed.images.contains(id);
            if is_needed || !others.is_empty() {
                log!("image kept: {}: a project needs it, or it has another name", id.short());
            }
            if others.is_empty() && is_needed {
                continue; // these are its last names
            }
            for listed in removable {
                engine.remove(listed.reference.as_deref().unwrap_or(&id.to_string()), id)?;
            }
        }
        self.remove_unneeded_kept_names(&needed)
    }

    fn remove_unneeded_kept_names(&self, needed: &Needed) -> Result<()> {
        let prefix = reserved_names::kept_prefix(self.project);
        let listed = self.engine.images()?;
        for image in &listed {
            let Some(name) = image.reference.as_deref().filter(|name| name.starts_with(&prefix)) else {
                continue;
            };
            let is_new = !self.before.keys().any(|before| before.as_ref() == name);
            // docker cannot remove the last name of an image without the image.
            let is_kept = is_new && self.is_last_name_of_earlier_image(image, &listed);
            if !needed.has_name(name) && !is_kept {
                self.engine.remove(name, &image.id)?;
            }
        }
        Ok(())
    }
}

/// The images that projects need, and all their names.
struct Needed {
    images: BTreeSet<ImageId>,
    names: BTreeSet<Reference>,
}

impl Needed {
    fn by(projects: &[Project], engine: &Engine) -> Result<Self> {
        let mut needed = Self { images: BTreeSet::new(), names: BTreeSet::new() };
        for project in projects {
            let name = project.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = Name::try_from(name)?;
            for (id, reference) in &project.images {
                needed.names.extend([reference.as_listed(engine.kind), reserved_names::kept(&name, id)?]);
                needed.images.insert(id.clone());
            }
        }
        Ok(needed)
    }

    fn has_name(&self, name: &str) -> bool {
        self.names.iter().any(|needed| needed.as_ref() == name)
    }
}
