//! Digests in an archive of images, and what they say of each other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::TOLD;
use crate::image::ImageId;

/// What digests in an archive have to do with each other.
#[derive(Debug, Default)]
pub struct Digests {
    /// An index's manifests, and a manifest's configuration.
    pub(super) below: BTreeMap<ImageId, BTreeSet<ImageId>>,
    /// What names are made of, by the digests of configurations.
    pub(super) keys: BTreeMap<ImageId, BTreeSet<ImageId>>,
}

impl Digests {
    /// Every digest by which an engine may know the image that has the digest `id`, and no other image.
    pub fn same(&self, id: &ImageId) -> BTreeSet<ImageId> {
        let mut same = self.leaves(id, 3);
        same.insert(id.clone());
        // An index or manifest of this image alone is this image.
        let is_alone = |above: &&ImageId| {
            let leaves = self.leaves(above, 3);
            leaves.len() == 1 && leaves.iter().all(|leaf| same.contains(leaf))
        };
        let above: Vec<_> = self.below.keys().filter(is_alone).cloned().collect();
        same.extend(above);
        same
    }

    /// What the names are made of that an engine may have given the image with the digest `id`.
    pub fn keys(&self, id: &ImageId) -> BTreeSet<ImageId> {
        let mut keys = self.same(id);
        let of_paths: Vec<_> = keys.iter().filter_map(|id| self.keys.get(id)).flatten().cloned().collect();
        keys.extend(of_paths);
        keys
    }

    /// The configurations below `id`; itself, where there is nothing below.
    fn leaves(&self, id: &ImageId, depth: usize) -> BTreeSet<ImageId> {
        match self.below.get(id).filter(|_| depth > 0) {
            Some(below) => below.iter().flat_map(|id| self.leaves(id, depth - 1)).collect(),
            None => BTreeSet::from([id.clone()]),
        }
    }
}

/// The sha256 of `bytes`.
///
/// # Errors
/// Never: it is one.
pub fn digest(bytes: &[u8]) -> Result<ImageId> {
    format!("{:x}", Sha256::digest(bytes)).try_into()
}

/// The digests that a manifest or an index names, without those that only attest something of another.
pub fn below(content: &[u8]) -> BTreeSet<ImageId> {
    #[derive(serde::Deserialize)]
    struct Named {
        digest: String,
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    #[derive(serde::Deserialize)]
    struct Description {
        // Only a manifest has it in this form.
        #[serde(default)]
        layers: Option<Vec<serde::de::IgnoredAny>>,
        #[serde(default)]
        config: Option<Named>,
        #[serde(default)]
        manifests: Vec<Named>,
    }
    // Of an image's configuration it is nothing of the kind.
    let Ok(description) = serde_json::from_slice::<Description>(content) else { return BTreeSet::new() };
    let config = description.config.filter(|_| description.layers.is_some());
    let is_image = |named: &Named| !named.annotations.contains_key("vnd.docker.reference.type");
    let named = description.manifests.into_iter().filter(is_image).chain(config).take(TOLD);
    named.filter_map(|named| ImageId::try_from(named.digest).ok()).collect()
}
