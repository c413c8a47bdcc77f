//! The artifact's meta-data.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

use crate::engine_kind::EngineKind;
use crate::forms::Definition;
use crate::image::Image;
use crate::name::Name;
use crate::reserved_names;

/// The most images of an artifact.
const IMAGES: usize = 100;

/// What is refused of an artifact without meta-data.
pub const MISSING: &str = "invalid artifact: no meta-data: name a project, its images, and what it runs";

/// The artifact's meta-data. Unknown keys are ignored: other programs may use them.
#[derive(Debug, Deserialize)]
pub struct MetaData {
    /// The project that is replaced. Other projects are not changed.
    pub project: Name,
    /// The images that the project runs.
    pub images: Vec<Image>,
    /// What the project runs, in exactly one form.
    #[serde(flatten)]
    pub definition: Definition,
}

impl MetaData {
    /// Checks the definition and the images, and gives every image its name as the engine `kind` lists it.
    ///
    /// # Errors
    /// What is invalid, and the remedy.
    pub fn check(&mut self, kind: EngineKind) -> Result<()> {
        let images = &mut self.images;
        self.definition.check()?;
        ensure!(!images.is_empty(), "invalid meta-data: images: no images: add those that the project runs");
        ensure!(images.len() <= IMAGES, "invalid meta-data: images: {} images, more than {IMAGES}", images.len());
        for image in images.iter_mut() {
            image.reference = image.reference.as_listed(kind);
        }
        check_references(images)
    }
}

/// Refuses reserved names, and names with several IDs.
fn check_references(images: &[Image]) -> Result<()> {
    let mut ids = BTreeMap::new();
    for Image { reference, id, .. } in images {
        reserved_names::refuse(reference)?;
        if let Some(other) = ids.insert(reference, id).filter(|other| *other != id) {
            bail!(
                "invalid meta-data: images: ref {reference} has two IDs, {other} and {id}: use one name for each image"
            );
        }
    }
    Ok(())
}
