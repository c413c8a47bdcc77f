//! The digests in an image archive, and the relations between them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::image::ImageId;

/// The most files that describe images, and the most digests that one of them may name.
pub const DIGESTS: usize = 256;

/// The relations between the digests in an archive.
#[derive(Debug, Default)]
pub struct Digests {
    /// The manifests of an index, and the configuration of a manifest.
    pub(super) below: BTreeMap<ImageId, BTreeSet<ImageId>>,
    /// The keys of names, by the digests of configurations.
    pub(super) keys: BTreeMap<ImageId, BTreeSet<ImageId>>,
}

impl Digests {
    /// Every digest that an engine may use as the ID of the image with the digest `id`, and of no other image.
    pub fn same(&self, id: &ImageId) -> BTreeSet<ImageId> {
        let mut same = self.leaves(id, 3);
        same.insert(id.clone());
        // An index or manifest with only this image identifies it.
        let is_only = |above: &&ImageId| {
            let leaves = self.leaves(above, 3);
            leaves.len() == 1 && leaves.iter().all(|leaf| same.contains(leaf))
        };
        let above: Vec<_> = self.below.keys().filter(is_only).cloned().collect();
        same.extend(above);
        same
    }

    /// The keys of the names that an engine may have given the image with the digest `id`.
    pub fn keys(&self, id: &ImageId) -> BTreeSet<ImageId> {
        let mut keys = self.same(id);
        let of_paths: Vec<_> = keys.iter().filter_map(|id| self.keys.get(id)).flatten().cloned().collect();
        keys.extend(of_paths);
        keys
    }

    /// Whether the archive has an image with the digest `id`.
    pub fn has(&self, id: &ImageId) -> bool {
        self.keys.contains_key(id) || self.below.iter().any(|(above, below)| above == id || below.contains(id))
    }

    /// The configurations below `id`; `id` itself if nothing is below.
    fn leaves(&self, id: &ImageId, depth: usize) -> BTreeSet<ImageId> {
        match self.below.get(id).filter(|_| depth > 0) {
            Some(below) => below.iter().flat_map(|id| self.leaves(id, depth - 1)).collect(),
            None => BTreeSet::from([id.clone()]),
        }
    }
}

/// The sha256 of `bytes`.
pub fn digest(bytes: &[u8]) -> Result<ImageId> {
    format!("{:x}", Sha256::digest(bytes)).try_into()
}

/// The digests in a manifest or an index, without those of attestations.
pub fn below(content: &[u8]) -> BTreeSet<ImageId> {
    #[derive(serde::Deserialize)]
    struct Named {
        digest: String,
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    #[derive(serde::Deserialize)]
    struct Description {
        // Only a manifest has them as a list.
        #[serde(default)]
        layers: Option<Vec<serde::de::IgnoredAny>>,
        #[serde(default)]
        config: Option<Named>,
        #[serde(default)]
        manifests: Vec<Named>,
    }
    // The configuration of an image has no digests in this form.
    let Ok(description) = serde_json::from_slice::<Description>(content) else { return BTreeSet::new() };
    let config = description.config.filter(|_| description.layers.is_some());
    let is_image = |named: &Named| !named.annotations.contains_key("vnd.docker.reference.type");
    let named = description.manifests.into_iter().filter(is_image).chain(config).take(DIGESTS);
    named.filter_map(|named| ImageId::try_from(named.digest).ok()).collect()
}
