//! The images in an archive: their names, platforms and volumes, for programs that make artifacts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::digests::{DIGESTS, digest};
use super::{JSON_MAX, refuse_compressed};
use crate::image::ImageId;
use crate::tar::{EntryType, Reader, components};

/// The length of the longest magic number of compressed files.
const MAGIC: u64 = 6;

/// An image in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedImage {
    /// The digest of its configuration, which is its ID.
    pub id: ImageId,
    /// Its names with tags. An archive in OCI's format may have none.
    pub references: Vec<String>,
    /// The architecture in Go's notation, such as `arm64`; empty if the archive does not say.
    pub architecture: String,
    /// The variant of the architecture, such as `v7`; empty if there is only one.
    pub variant: String,
    /// The operating system.
    pub os: String,
    /// The directories that it declares as volumes.
    pub volumes: Vec<String>,
}

/// The part of an image's configuration that is used.
#[derive(Deserialize)]
struct Configuration {
    architecture: String,
    #[serde(default)]
    variant: String,
    os: String,
    #[serde(default)]
    config: Option<Running>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Running {
    #[serde(default)]
    volumes: Option<BTreeMap<String, Value>>,
}

/// An image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

/// Reads the images in the archive `from`, as `podman save` or `docker save` writes it.
///
/// # Errors
/// When the archive is damaged, is no archive of images, or has no `manifest.json`.
pub fn images(mut from: impl Read) -> Result<Vec<ArchivedImage>> {
    let mut first = Vec::new();
    (&mut from).take(MAGIC).read_to_end(&mut first).context("reading the archive failed")?;
    refuse_compressed(&first)?;
    let mut entries = Reader::new(first.chain(from));
    let mut found: BTreeMap<String, (ImageId, Configuration)> = BTreeMap::new();
    let mut listed: Option<Vec<Listed>> = None;
    while let Some(entry) = entries.next()? {
        if entry.entry_type != EntryType::File || entry.size > JSON_MAX {
            continue;
        }
        let mut content = Vec::new();
        (&mut entries).take(entry.size).read_to_end(&mut content).context("reading the archive failed")?;
        if entry.path == "manifest.json" {
            listed = Some(serde_json::from_slice(&content).context("invalid manifest.json in the archive")?);
        } else if let Ok(configuration) = serde_json::from_slice(&content) {
            ensure!(found.len() < DIGESTS, "unsupported archive: more than {DIGESTS} images");
            found.insert(entry.path, (digest(&content)?, configuration));
        }
    }
    let listed = listed.context(
        "not an image archive: it has no manifest.json: write it with 'podman save' or 'docker save', not with \
         --format oci-archive",
    )?;
    let mut images = Vec::new();
    let mut seen = BTreeSet::new();
    for Listed { config, repo_tags } in listed {
        let path = components(config.as_bytes())?;
        let (id, configuration) =
            found.get(&path).with_context(|| format!("damaged archive: no configuration {path:?} of an image"))?;
        if seen.insert(id.clone()) {
            let volumes = configuration.config.as_ref().and_then(|running| running.volumes.as_ref());
            images.push(ArchivedImage {
                id: id.clone(),
                references: repo_tags.unwrap_or_default(),
                architecture: configuration.architecture.clone(),
                variant: configuration.variant.clone(),
                os: configuration.os.clone(),
                volumes: volumes.into_iter().flat_map(BTreeMap::keys).cloned().collect(),
            });
        }
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{header, padding};

    fn tar(files: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (path, content) in files {
            archive.extend_from_slice(&header(path, content.len()));
            archive.extend_from_slice(content.as_bytes());
            archive.resize(archive.len() + padding(content.len() as u64) as usize, 0);
        }
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    const CONFIG: &str = r#"{"architecture": "arm", "variant": "v7", "os": "linux",
                             "config": {"Volumes": {"/data": {}}}}"#;

    #[test]
    fn images_are_listed_with_their_platform_and_volumes() {
        let list = r#"[{"Config": "c.json", "RepoTags": ["app:1"], "Layers": []}]"#;
        let images = images(tar(&[("c.json", CONFIG), ("layer", "x"), ("manifest.json", list)]).as_slice()).unwrap();
        let [image] = &images[..] else { panic!("{images:?}") };
        assert_eq!(image.id, digest(CONFIG.as_bytes()).unwrap());
        assert_eq!((image.references.clone(), image.volumes.clone()), (vec!["app:1".into()], vec!["/data".into()]));
        assert_eq!((&*image.os, &*image.architecture, &*image.variant), ("linux", "arm", "v7"));
    }

    #[test]
    fn what_is_no_image_archive_is_refused() {
        for (archive, expected) in [
            (tar(&[("index.json", "{}")]), "no manifest.json"),
            (tar(&[("manifest.json", r#"[{"Config": "c.json"}]"#)]), "no configuration"),
            (tar(&[("manifest.json", "[1]")]), "invalid manifest.json"),
            (b"text".to_vec(), "not a tar archive"),
            (b"\x1f\x8b\x08 and more".to_vec(), "compressed with gzip: decompress it"),
        ] {
            let error = format!("{:#}", images(archive.as_slice()).unwrap_err());
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
