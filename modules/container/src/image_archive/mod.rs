//! An image archive that streams into the engine, with the names of its images replaced.
//!
//! An engine gives a loaded image every name in its archive, and takes the name from the image that had it: with
//! containerd's image store, an image that loses its last name is removed at once. So this module replaces the names
//! in the archive by names made of digests. They also identify the loaded images later: the ID that an engine gives
//! an image may be the digest of the configuration, of the manifest, or of an index.

pub mod configuration;
mod digests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::image::ImageId;
use crate::name::Name;
use crate::reserved_names;
use crate::tar::{BLOCK, Entry, EntryType, Reader, components, header, padding};
pub use digests::Digests;
use digests::{DIGESTS, below, digest};

/// The largest file that is parsed. Layers are larger, or are no JSON.
const JSON_MAX: u64 = 1 << 20;

/// The most links, which older archives use for layers, and their longest path.
const LINKS: usize = 1024;
const LINK_PATH: usize = 256;

/// An archive as `docker save` or `podman save` writes it. The engine reads it with the names replaced.
pub struct ImageArchive<'a, R> {
    entries: Reader<R>,
    project: &'a Name,
    /// The bytes that are returned next, from `at` on.
    pending: Vec<u8>,
    at: usize,
    /// The content of the current entry that is passed on unchanged, and the padding of its last block, in bytes.
    content: u64,
    padding: u64,
    ended: bool,
    digests: Digests,
    /// The lists of images that were read.
    lists: BTreeSet<String>,
    /// The paths of the configurations in `manifest.json`, with their spellings there.
    configurations: BTreeMap<String, String>,
    /// The parsed files, with their digests.
    files: BTreeMap<String, ImageId>,
    /// The entries that are neither files nor directories.
    links: BTreeSet<String>,
}

impl<'a, R: Read> ImageArchive<'a, R> {
    /// The archive that streams from `from`, with images for `project`.
    pub fn new(from: R, project: &'a Name) -> Self {
        Self {
            entries: Reader::new(from),
            project,
            pending: Vec::new(),
            at: 0,
            content: 0,
            padding: 0,
            ended: false,
            digests: Digests::default(),
            lists: BTreeSet::new(),
            configurations: BTreeMap::new(),
            files: BTreeMap::new(),
            links: BTreeSet::new(),
        }
    }

    /// Reads the rest of the archive, and returns the digests in it.
    pub fn finish(mut self) -> io::Result<Digests> {
        // An engine may stop reading after the last image.
        io::copy(&mut self, &mut io::sink())?;
        io::copy(&mut self.entries.into_inner(), &mut io::sink())?;
        Ok(self.digests)
    }

    fn advance(&mut self) -> Result<()> {
        self.pending.clear();
        self.at = 0;
        if self.padding > 0 {
            self.pending.resize(self.padding as usize, 0);
            self.padding = 0;
            return Ok(());
        }
        let Some(entry) = self.entries.next()? else { return self.end() };
        self.check_links(&entry)?;
        match entry.path.as_str() {
            "manifest.json" => self.replace(&entry, Self::rename_listed),
            "index.json" => self.replace(&entry, Self::rename_indexed),
            // The names again, for engines that do not know the two files above.
            "repositories" => Ok(()),
            _ if entry.entry_type == EntryType::File && entry.size <= JSON_MAX => self.parse(entry),
            _ => {
                self.content = entry.size;
                self.padding = padding(entry.size);
                self.pending = entry.raw;
                Ok(())
            }
        }
    }

    /// Refuses an entry below a link: the engine might write it to another path, such as that of the list of images.
    fn check_links(&mut self, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        let through = path.match_indices('/').map(|(at, _)| &path[..at]).find(|above| self.links.contains(*above));
        if let Some(link) = through {
            bail!("unsupported archive: {path:?} is below the link {link:?}");
        }
        if matches!(entry.entry_type, EntryType::Other(_)) {
            ensure!(
                self.links.len() < LINKS && path.len() <= LINK_PATH,
                "unsupported archive: more than {LINKS} links, or a link's path is longer than {LINK_PATH} bytes"
            );
            self.links.insert(path.clone());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.ended = true;
        ensure!(
            self.lists.contains("manifest.json") || self.lists.contains("index.json"),
            "not an image archive: it has neither manifest.json nor index.json: write it with 'podman save' or 'docker \
             save'"
        );
        for path in self.configurations.keys() {
            let Some(config) = self.files.get(path) else {
                bail!(
                    "damaged archive: manifest.json names the configuration {path:?}: no such file of at most \
                     {JSON_MAX} bytes"
                );
            };
            self.digests.keys.entry(config.clone()).or_default().insert(digest(path.as_bytes())?);
        }
        self.pending = vec![0; 2 * BLOCK];
        Ok(())
    }

    /// Passes `entry` on with its content changed by `rename`.
    fn replace(&mut self, entry: &Entry, rename: fn(&mut Self, &mut Value) -> Result<()>) -> Result<()> {
        let path = &entry.path;
        ensure!(self.lists.insert(path.clone()), "unsupported archive: two files {path}");
        ensure!(entry.entry_type == EntryType::File, "unsupported archive: {path} is not a regular file");
        ensure!(entry.size <= JSON_MAX, "unsupported archive: {path} has {} bytes, more than {JSON_MAX}", entry.size);
        let content = self.content_of(entry)?;
        let invalid = || format!("invalid {path} in the archive");
        let mut json = serde_json::from_slice(&content).with_context(invalid)?;
        rename(self, &mut json).with_context(invalid)?;
        let content = json.to_string().into_bytes();
        self.pending = [&header(path, content.len())[..], &content].concat();
        self.pending.resize(self.pending.len() + padding(content.len() as u64) as usize, 0);
        Ok(())
    }

    fn content_of(&mut self, entry: &Entry) -> Result<Vec<u8>> {
        let mut content = vec![0; usize::try_from(entry.size)?];
        self.entries
            .read_exact(&mut content)
            .with_context(|| format!("reading {} in the archive failed", entry.path))?;
        Ok(content)
    }

    /// Gives each image in docker's list one name, made of the path of its configuration.
    fn rename_listed(&mut self, list: &mut Value) -> Result<()> {
        let images = list.as_array_mut().context("not a list")?;
        ensure!(images.len() <= DIGESTS, "{} images, more than {DIGESTS}", images.len());
        for image in images {
            let spelling = image["Config"].as_str().context("an image has no Config")?.to_owned();
            let path = components(spelling.as_bytes())?;
            image["RepoTags"] = json!([reserved_names::loaded(self.project, &digest(path.as_bytes())?)]);
            let other = self.configurations.insert(path, spelling.clone());
            // An engine may find two files: the second image would take the name of the first.
            ensure!(other.is_none_or(|other| other == spelling), "two spellings of the path {spelling:?}");
        }
        Ok(())
    }

    /// Gives each manifest in an OCI index one name, made of its digest.
    fn rename_indexed(&mut self, index: &mut Value) -> Result<()> {
        let manifests = index.get_mut("manifests").and_then(Value::as_array_mut).context("no list of manifests")?;
        ensure!(manifests.len() <= DIGESTS, "{} manifests, more than {DIGESTS}", manifests.len());
        for manifest in manifests {
            let digest = manifest["digest"].as_str().context("a manifest has no digest")?;
            let name = reserved_names::loaded(self.project, &ImageId::try_from(digest.to_owned())?);
            ensure!(manifest.is_object(), "a manifest is not a table");
            let annotations = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
            manifest["annotations"] = annotations;
        }
        Ok(())
    }

    /// Passes a small file on unchanged, and records the digests in it.
    fn parse(&mut self, entry: Entry) -> Result<()> {
        let content = self.content_of(&entry)?;
        if content.first() == Some(&b'{') {
            let digest = digest(&content)?;
            ensure!(
                self.files.len() < DIGESTS * 4,
                "unsupported archive: more than {} files that describe images",
                DIGESTS * 4
            );
            let other = self.files.insert(entry.path.clone(), digest.clone());
            ensure!(other.is_none(), "unsupported archive: two files {:?}", entry.path);
            let below = below(&content);
            if !below.is_empty() {
                self.digests.below.insert(digest, below);
            }
        }
        self.pending = entry.raw;
        self.pending.extend_from_slice(&content);
        self.pending.resize(self.pending.len() + padding(entry.size) as usize, 0);
        Ok(())
    }
}

impl<R: Read> Read for ImageArchive<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let pending = &self.pending[self.at..];
            if !pending.is_empty() {
                let length = pending.len().min(buffer.len());
                buffer[..length].copy_from_slice(&pending[..length]);
                self.at += length;
                return Ok(length);
            }
            if self.content > 0 {
                let length = buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
                let read = self.entries.read(&mut buffer[..length])?;
                self.content -= read as u64;
                return Ok(read);
            }
            if self.ended {
                return Ok(0);
            }
            self.advance().map_err(|error| io::Error::other(format!("{error:#}")))?;
        }
    }
}

/// The first bytes of compressed files, and the programs that write them.
const COMPRESSED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];

/// Refuses an archive whose first bytes are `first` if it is compressed.
pub fn refuse_compressed(first: &[u8]) -> Result<()> {
    if let Some((_, program)) = COMPRESSED.iter().find(|(magic, _)| first.starts_with(magic)) {
        bail!("compressed with {program}: decompress it, and let mender-artifact compress the artifact instead");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> Name {
        Name::try_from("shop".to_owned()).unwrap()
    }

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (path, content) in files {
            archive.extend_from_slice(&header(path, content.len()));
            archive.extend_from_slice(content);
            archive.resize(archive.len() + padding(content.len() as u64) as usize, 0);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }

    fn passed(archive: &[u8]) -> Result<(BTreeMap<String, String>, Digests)> {
        let project = project();
        let mut archive = ImageArchive::new(archive, &project);
        let mut out = Vec::new();
        archive.read_to_end(&mut out)?;
        let mut reader = Reader::new(out.as_slice());
        let mut files = BTreeMap::new();
        while let Some(entry) = reader.next()? {
            let mut content = String::new();
            (&mut reader).take(entry.size).read_to_string(&mut content)?;
            files.insert(entry.path, content);
        }
        Ok((files, archive.finish()?))
    }

    fn digest(content: &str) -> ImageId {
        super::digest(content.as_bytes()).unwrap()
    }

    #[test]
    fn names_in_the_archive_do_not_reach_the_engine() {
        let config = r#"{"config": {"Env": []}}"#;
        let id = digest(config);
        let list = format!(r#"[{{"Config": "{id}.json", "RepoTags": ["base:latest", "x:1"], "Layers": ["l"]}}]"#);
        let archive = tar(&[
            (&format!("{id}.json"), config.as_bytes()),
            ("l", &[7; 3000]),
            ("repositories", b"{\"base\": {}}"),
            ("./manifest.json", list.as_bytes()),
        ]);
        let (files, digests) = passed(&archive).unwrap();
        let list: Value = serde_json::from_str(&files["manifest.json"]).unwrap();
        let key = digest(&format!("{id}.json"));
        assert_eq!(list[0]["RepoTags"], json!([reserved_names::loaded(&project(), &key)]));
        assert_eq!(list[0]["Layers"], json!(["l"]));
        assert_eq!(files["l"].len(), 3000);
        assert!(!files.contains_key("repositories"));
        assert_eq!(digests.same(&id), BTreeSet::from([id.clone()]));
        assert_eq!(digests.keys(&id), BTreeSet::from([id, key]));
    }

    #[test]
    fn an_image_is_identified_by_its_configuration_manifest_or_index() {
        let config = r#"{"config": {}}"#;
        let manifest = format!(r#"{{"config": {{"digest": "sha256:{}"}}, "layers": []}}"#, digest(config));
        let attestation = format!(
            r#"{{"digest": "sha256:{}", "annotations": {{"vnd.docker.reference.type": "x"}}}}"#,
            "0".repeat(64)
        );
        let index = format!(r#"{{"manifests": [{{"digest": "sha256:{}"}}, {attestation}]}}"#, digest(&manifest));
        let top = format!(
            r#"{{"manifests": [{{"digest": "sha256:{}",
                "annotations": {{"io.containerd.image.name": "base:latest"}}}}]}}"#,
            digest(&index)
        );
        let archive = tar(&[
            ("a", config.as_bytes()),
            ("b", manifest.as_bytes()),
            ("c", index.as_bytes()),
            ("index.json", top.as_bytes()),
        ]);
        let (files, digests) = passed(&archive).unwrap();
        assert!(!files["index.json"].contains("base") && files["index.json"].contains("mender-loaded/shop:"));
        let all = BTreeSet::from([digest(config), digest(&manifest), digest(&index)]);
        for id in &all {
            assert_eq!(digests.same(id), all);
        }
    }

    #[test]
    fn an_index_of_several_images_identifies_none_of_them() {
        let manifest =
            |config: &str| format!(r#"{{"config": {{"digest": "sha256:{}"}}, "layers": []}}"#, digest(config));
        let [one, other] = ["{ }", "{  }"].map(manifest);
        let index = format!(
            r#"{{"manifests": [{{"digest": "sha256:{}"}}, {{"digest": "sha256:{}"}}]}}"#,
            digest(&one),
            digest(&other)
        );
        let archive = tar(&[
            ("b", one.as_bytes()),
            ("c", other.as_bytes()),
            ("d", index.as_bytes()),
            ("index.json", b"{\"manifests\": []}"),
        ]);
        let (_, digests) = passed(&archive).unwrap();
        assert_eq!(digests.same(&digest("{ }")), BTreeSet::from([digest("{ }"), digest(&one)]));
    }

    #[test]
    fn hostile_archives_are_refused() {
        let fails = |files: &[(&str, &[u8])]| format!("{:#}", passed(&tar(files)).unwrap_err());
        let id = "0".repeat(64);
        let list = format!(r#"[{{"Config": "{id}.json"}}]"#);
        assert!(fails(&[("x", b"")]).contains("neither"));
        assert!(fails(&[("manifest.json", b"[]"), ("./manifest.json", b"[]")]).contains("two files"));
        assert!(fails(&[("manifest.json", list.as_bytes())]).contains("no such file"));
        assert!(fails(&[("manifest.json", b"{}")]).contains("not a list"));
        let mut link = header("a", 0);
        link[156] = b'2';
        link[148..156].fill(b' ');
        let sum: u32 = link.iter().map(|byte| u32::from(*byte)).sum();
        link[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let through = [&link[..], &tar(&[("a/manifest.json", b"[]")])].concat();
        assert!(format!("{:#}", passed(&through).unwrap_err()).contains("below the link"));
        assert!(fails(&[("manifest.json", b"[1]")]).contains("no Config"));
        assert!(fails(&[("manifest.json", b"[{\"Config\": \"../x\"}]")]).contains("leads out"));
        let spellings = b"[{\"Config\": \"x\"}, {\"Config\": \"./x\"}]";
        assert!(fails(&[("x", b"{}"), ("manifest.json", spellings)]).contains("two spellings"));
        let twice: [(&str, &[u8]); 3] = [("x", b"{}"), ("./x", b"{ }"), ("manifest.json", b"[{\"Config\": \"x\"}]")];
        assert!(fails(&twice).contains("two files"));
        assert!(fails(&[("index.json", b"{\"manifests\": [1]}")]).contains("digest"));
        for index in ["[]", "7", "null", "{}"] {
            assert!(fails(&[("index.json", index.as_bytes())]).contains("no list of manifests"), "{index}");
        }
        assert!(fails(&[("manifest.json", "[".repeat(1 << 20).as_bytes())]).contains("recursion"));
        let long = format!("[{}]", vec!["1"; DIGESTS + 1].join(","));
        assert!(fails(&[("manifest.json", long.as_bytes())]).contains("more than"));
        let large = vec![b' '; (JSON_MAX + 1) as usize];
        assert!(fails(&[("manifest.json", &large)]).contains("more than"));
    }
}
