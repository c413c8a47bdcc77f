//! The engine's names of images, put in order when an update has ended.

use std::collections::BTreeSet;

use anyhow::Result;
use mender_update_module::log;

use crate::engine::{Engine, Listed};
use crate::image::{ImageId, Reference};
use crate::name::Name;
use crate::project::{Project, keeper, keepers};
use crate::update::ProjectUpdate;

/// Gives every reference the meaning that it had before `update`.
///
/// # Errors
/// When the engine fails.
pub fn restore(update: &ProjectUpdate) -> Result<()> {
    let ProjectUpdate { engine, tags_before, name, .. } = update;
    let mut listed = engine.images()?;
    let keepers = keepers(name);
    let current = listed.iter().filter_map(|image| image.reference.clone());
    let kept = current
        .filter(|reference| reference.starts_with(&keepers))
        .filter_map(|name| Reference::try_from(name).ok());
    let kept: Vec<_> = kept.filter(|name| !tags_before.contains_key(name)).collect();
    let before = tags_before.iter().map(|(reference, before)| (reference, before.as_ref()));
    for (reference, before) in before.chain(kept.iter().map(|name| (name, None))) {
        let reference = reference.as_listed(engine.kind);
        let now = listed.iter().position(|image| image.reference.as_deref() == Some(reference.as_ref()));
        let is_here = |id: &ImageId| listed.iter().any(|image| image.id == *id);
        match (before, now) {
            (Some(before), now) if now.is_none_or(|now| listed[now].id != *before) && is_here(before) => {
                engine.tag(before, &reference)?;
            }
            (None, Some(now)) if !is_last_of_others(update, &listed[now], &listed) => {
                engine.remove(reference.as_ref(), &listed[now].id)?;
                listed.remove(now);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether `image` is listed by the last name of an image that was there before `update`: it would go with it.
pub fn is_last_of_others(update: &ProjectUpdate, image: &Listed, listed: &[Listed]) -> bool {
    update.there_before.contains(&image.id) && listed.iter().filter(|other| other.id == image.id).count() == 1
}

/// Removes those of `candidates` that none of `projects` needs, by the names that `kept` and this module have given them.
/// One that has other names is somebody's.
///
/// # Errors
/// When the engine fails.
pub fn prune(
    update: &ProjectUpdate,
    candidates: &BTreeSet<ImageId>,
    kept: &Project,
    projects: &[Project],
) -> Result<()> {
    let ProjectUpdate { engine, .. } = update;
    let (needed, names) = needed(projects, engine)?;
    for id in candidates {
        let given = kept.images.iter().filter(|(of, _)| of == id).map(|(_, reference)| reference);
        let given = given.chain(update.tags_before.keys()).map(|name| name.as_listed(engine.kind));
        let given: BTreeSet<_> = given.chain([keeper(&update.name, id)?]).collect();
        let is_ours = |listed: &Listed| {
            let name = listed.reference.as_deref();
            name.is_none_or(|name| {
                given.iter().any(|given| given.as_ref() == name)
                    && names.iter().all(|other| other.as_ref() != name)
            })
        };
        let listed = engine.images()?.into_iter().filter(|listed| listed.id == *id);
        let (ours, others): (Vec<_>, Vec<_>) = listed.partition(is_ours);
        if needed.contains(id) || !others.is_empty() {
            log!("the image {} stays: it is needed, or has another name", id.short());
        }
        if others.is_empty() && needed.contains(id) {
            continue; // its last names
        }
        for listed in ours {
            engine.remove(listed.reference.as_deref().unwrap_or(&id.to_string()), id)?;
        }
    }
    sweep(update, &names)
}

/// Removes the names by which this module has kept images of this project that it needs no more.
fn sweep(update: &ProjectUpdate, names: &BTreeSet<Reference>) -> Result<()> {
    let keepers = keepers(&update.name);
    for listed in update.engine.images()? {
        let Some(name) = listed.reference.as_deref().filter(|name| name.starts_with(&keepers)) else {
            continue;
        };
        if names.iter().all(|needed| needed.as_ref() != name) {
            update.engine.remove(name, &listed.id)?;
        }
    }
    Ok(())
}

/// The images that `projects` need, and all the names that keep them.
fn needed(projects: &[Project], engine: &Engine) -> Result<(BTreeSet<ImageId>, BTreeSet<Reference>)> {
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for project in projects {
        let name = project.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = Name::try_from(name)?;
        for (id, reference) in &project.images {
            names.extend([reference.as_listed(engine.kind), keeper(&name, id)?]);
            ids.insert(id.clone());
        }
    }
    Ok((ids, names))
}
