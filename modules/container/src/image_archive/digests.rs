//! The digests in an image archive, and the relations between them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::image::ImageId;

/// The most files that describe images, and the most digests that one of them may name.
pub const DIGESTS: usize = 256;

/// The levels of files below an index that are read: an index of indexes, of manifests, of configurations.
const LEVELS: usize = 3;

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
        let mut same = self.leaves(id);
        same.insert(id);
        // An index or manifest with only this image identifies it.
        let mut known = BTreeMap::new();
        let with_leaf = self.below.keys().map(|above| (above, self.only_leaf(above, LEVELS, &mut known)));
        let is_same = |leaf: Option<&ImageId>| leaf.is_some_and(|leaf| same.contains(leaf));
        let above: Vec<_> = with_leaf.filter(|(_, leaf)| is_same(*leaf)).map(|(above, _)| above).collect();
        same.into_iter().chain(above).cloned().collect()
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

    /// The configurations below `id`; `id` itself if nothing is below. Each file is visited once in a level, however
    /// many paths lead to it.
    fn leaves<'a>(&'a self, id: &'a ImageId) -> BTreeSet<&'a ImageId> {
        let (mut leaves, mut level) = (BTreeSet::new(), BTreeSet::from([id]));
        for _ in 0..LEVELS {
            let mut next = BTreeSet::new();
            for id in level {
                match self.below.get(id) {
                    Some(below) => next.extend(below),
                    None => drop(leaves.insert(id)),
                }
            }
            level = next;
        }
        leaves.extend(level);
        leaves
    }

    /// The configuration below `id`, as [`leaves`](Self::leaves), if there is only one. `known` has the result of every
    /// file and number of `levels` that was visited.
    fn only_leaf<'a>(
        &'a self,
        id: &'a ImageId,
        levels: usize,
        known: &mut BTreeMap<(&'a ImageId, usize), Option<&'a ImageId>>,
    ) -> Option<&'a ImageId> {
        let Some(below) = self.below.get(id).filter(|_| levels > 0) else { return Some(id) };
        if let Some(found) = known.get(&(id, levels)) {
            return *found;
        }
        let mut leaves = below.iter().map(|id| self.only_leaf(id, levels - 1, known));
        let first = leaves.next().flatten();
        let only = first.filter(|_| leaves.all(|leaf| leaf == first));
        known.insert((id, levels), only);
        only
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(level: usize, number: usize) -> ImageId {
        digest(format!("{level} {number}").as_bytes()).unwrap()
    }

    /// Each of `width` indexes of a level has all of the next level below it. The last level has nothing below it.
    fn all_below_all(levels: usize, width: usize) -> Digests {
        let next = |level: usize| (0..width).map(|number| id(level + 1, number)).collect::<BTreeSet<_>>();
        let ids = (0..levels - 1).flat_map(|level| (0..width).map(move |number| (level, id(level, number))));
        Digests { below: ids.map(|(level, id)| (id, next(level))).collect(), keys: BTreeMap::new() }
    }

    /// There are 256 to the power of 4 paths from the first level to the last: a visit of each would not end.
    #[test]
    fn each_file_is_visited_once_and_not_once_for_each_path_to_it() {
        let digests = all_below_all(4, DIGESTS);
        let leaves: BTreeSet<_> = (0..DIGESTS).map(|number| id(3, number)).collect();
        let same = digests.same(&id(0, 0));
        assert_eq!(same, leaves.into_iter().chain([id(0, 0)]).collect());
        assert_eq!(digests.same(&id(3, 0)), BTreeSet::from([id(3, 0)]), "an index of several images");
    }

    #[test]
    fn an_index_with_several_paths_to_one_image_identifies_it() {
        let mut digests = all_below_all(3, 2);
        digests.below.values_mut().for_each(|below| below.retain(|below| *below != id(2, 1)));
        let all: BTreeSet<_> = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)].map(|(level, number)| id(level, number)).into();
        for one in &all {
            assert_eq!(digests.same(one), all);
        }
    }

    #[test]
    fn the_fourth_level_is_taken_for_an_image() {
        let digests = all_below_all(6, 1);
        assert_eq!(
            digests.same(&id(3, 0)),
            (0..6).filter(|level| [0, 2, 3, 4, 5].contains(level)).map(|level| id(level, 0)).collect()
        );
    }
}
