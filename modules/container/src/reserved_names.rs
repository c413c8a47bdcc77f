//! Names of images that only this module uses.

use anyhow::{Result, ensure};

use crate::image::{ImageId, Reference};
use crate::name::Name;

/// The prefix of names that protect the images of projects from being removed as unused.
const KEPT: &str = "localhost/mender-kept/";

/// The prefix of the names that loaded images have until they get their own.
pub const LOADED: &str = "localhost/mender-loaded/";

/// The name that protects the image `id` of `project`.
///
/// # Errors
/// When it is too long for a reference.
pub fn kept(project: &Name, id: &ImageId) -> Result<Reference> {
    format!("{}{}", kept_prefix(project), id.short()).try_into()
}

/// The prefix of the names that protect the images of `project`.
pub fn kept_prefix(project: &Name) -> String {
    format!("{KEPT}{project}:")
}

/// The prefix of the names that the images of `project` have while they are loaded.
pub fn loaded_prefix(project: &Name) -> String {
    format!("{LOADED}{project}:")
}

/// The name that an archive for `project` gives the image with `key`: the digest of its manifest, or of the path of its
/// configuration.
pub fn loaded(project: &Name, key: &ImageId) -> String {
    format!("{}{key}", loaded_prefix(project))
}

/// Refuses the name of an artifact's image that is one of these.
///
/// # Errors
/// The name, and the remedy.
pub fn refuse(reference: &Reference) -> Result<()> {
    let is_reserved = [KEPT, LOADED].iter().any(|prefix| reference.as_ref().starts_with(prefix));
    ensure!(!is_reserved, "invalid meta-data: images: ref {reference}: reserved for this module: use another name");
    Ok(())
}
