//! An archive of images on its way into the engine: what it calls its images is replaced by names of this module's.
//!
//! An engine gives a loaded image every name that its archive says, and takes it away from whatever had it: with
//! containerd's image store an image that loses its last name is gone at once. So an archive never gets to say names. The
//! ones that it gets are made of digests, and tell afterwards which of the engine's images is which: its image ID may be
//! the digest of the configuration, of the manifest, or of an index, as it likes.

mod digests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::image::ImageId;
use crate::name::Name;
use crate::tar::{BLOCK, Entry, Kind, Reader, components, header, padding};
pub use digests::Digests;
use digests::{below, digest};

/// The largest file that is looked into: those with layers are larger, or have nothing to say.
const JSON: u64 = 1 << 20;

/// The most files that are looked into and say something, and the most digests that one of them may name.
const TOLD: usize = 256;

/// The most links, which older archives have for layers, and their longest path.
const LINKS: usize = 1024;
const LINK: usize = 256;

/// How names begin that loaded images have until they get their own.
pub const LOADED: &str = "localhost/mender-loaded/";

/// The name that the archive of project `project` gives the image with `key`: the digest of its manifest, or of the path of
/// its configuration.
pub fn loaded_name(project: &Name, key: &ImageId) -> String {
    format!("{LOADED}{project}:{key}")
}

/// An archive as `docker save` or `podman save` writes it, with other names; read by the engine.
pub struct Archive<'a, R> {
    entries: Reader<R>,
    project: &'a Name,
    /// What is to be read before anything else.
    pending: Vec<u8>,
    at: usize,
    /// Content of the current entry that is passed on as it is, and what fills its last block.
    content: u64,
    padding: u64,
    ended: bool,
    told: Digests,
    seen: BTreeSet<String>,
    /// The paths of configurations that the archive's list names, and files with their digests.
    listed: BTreeSet<String>,
    files: BTreeMap<String, ImageId>,
    /// What is neither a file nor a directory.
    links: BTreeSet<String>,
}

impl<'a, R: Read> Archive<'a, R> {
    /// The archive that streams from `from`, with images of `project`.
    pub fn new(from: R, project: &'a Name) -> Self {
        Self {
            entries: Reader::new(from),
            project,
            pending: Vec::new(),
            at: 0,
            content: 0,
            padding: 0,
            ended: false,
            told: Digests::default(),
            seen: BTreeSet::new(),
            listed: BTreeSet::new(),
            files: BTreeMap::new(),
            links: BTreeSet::new(),
        }
    }

    /// Reads the rest, and returns what the archive has told.
    ///
    /// # Errors
    /// As those of reading it.
    pub fn finish(mut self) -> io::Result<Digests> {
        // An engine may end before it has read what is behind the last image.
        io::copy(&mut self, &mut io::sink())?;
        io::copy(&mut self.entries.into_inner(), &mut io::sink())?;
        Ok(self.told)
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
            // Names again, for engines that know nothing of the files above.
            "repositories" => Ok(()),
            _ if entry.kind == Kind::File && entry.size <= JSON => self.look_into(entry),
            _ => {
                self.content = entry.size;
                self.padding = padding(entry.size);
                self.pending = entry.raw;
                Ok(())
            }
        }
    }

    /// Refuses what would be written through a link to another place, such as over the list of images.
    fn check_links(&mut self, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        let through =
            path.match_indices('/').map(|(at, _)| &path[..at]).find(|above| self.links.contains(*above));
        if let Some(link) = through {
            bail!("the archive has {path:?}, which is below the link {link:?}");
        }
        if matches!(entry.kind, Kind::Other(_)) {
            ensure!(
                self.links.len() < LINKS && path.len() <= LINK,
                "the archive has more than {LINKS} links, or longer ones"
            );
            self.links.insert(path.clone());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.ended = true;
        ensure!(
            self.seen.contains("manifest.json") || self.seen.contains("index.json"),
            "the archive has neither manifest.json nor index.json: write it with 'podman save' or 'docker save'"
        );
        for path in &self.listed {
            let Some(config) = self.files.get(path) else {
                bail!(
                    "manifest.json names the configuration {path:?}, and the archive has no such file of at most {JSON} bytes"
                );
            };
            self.told.keys.entry(config.clone()).or_default().insert(digest(path.as_bytes())?);
        }
        self.pending = vec![0; 2 * BLOCK];
        Ok(())
    }

    /// Passes `entry` on with another content.
    fn replace(&mut self, entry: &Entry, rename: fn(&mut Self, &mut Value) -> Result<()>) -> Result<()> {
        let path = &entry.path;
        ensure!(self.seen.insert(path.clone()), "the archive has two files {path}");
        ensure!(entry.kind == Kind::File, "{path} in the archive is no regular file");
        ensure!(
            entry.size <= JSON,
            "{path} in the archive has {} bytes, at most {JSON} are read",
            entry.size
        );
        let content = self.content_of(entry)?;
        let mut json = serde_json::from_slice(&content).with_context(|| format!("{path} in the archive"))?;
        rename(self, &mut json).with_context(|| format!("{path} in the archive"))?;
        let content = json.to_string().into_bytes();
        self.pending = [&header(path, content.len())[..], &content].concat();
        self.pending.resize(self.pending.len() + padding(content.len() as u64) as usize, 0);
        Ok(())
    }

    fn content_of(&mut self, entry: &Entry) -> Result<Vec<u8>> {
        let mut content = vec![0; usize::try_from(entry.size)?];
        self.entries
            .read_exact(&mut content)
            .with_context(|| format!("reading {} in the archive", entry.path))?;
        Ok(content)
    }

    /// Docker's list of images: each gets one name, that of its configuration.
    fn rename_listed(&mut self, list: &mut Value) -> Result<()> {
        let images = list.as_array_mut().context("it is no list")?;
        ensure!(images.len() <= TOLD, "it lists {} images, at most {TOLD} are read", images.len());
        for image in images {
            let config = image["Config"].as_str().context("an image has no Config")?;
            let path = components(config.as_bytes())?;
            image["RepoTags"] = json!([loaded_name(self.project, &digest(path.as_bytes())?)]);
            self.listed.insert(path);
        }
        Ok(())
    }

    /// An OCI index: each manifest gets one name, that of its own digest.
    fn rename_indexed(&mut self, index: &mut Value) -> Result<()> {
        let manifests = index["manifests"].as_array_mut().context("it lists no manifests")?;
        ensure!(manifests.len() <= TOLD, "it lists {} manifests, at most {TOLD} are read", manifests.len());
        for manifest in manifests {
            let digest = manifest["digest"].as_str().context("a manifest has no digest")?;
            let name = loaded_name(self.project, &ImageId::try_from(digest.to_owned())?);
            ensure!(manifest.is_object(), "a manifest is no table");
            let annotations =
                json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
            manifest["annotations"] = annotations;
        }
        Ok(())
    }

    /// Passes a small file on as it is, and notes what it says of digests.
    fn look_into(&mut self, entry: Entry) -> Result<()> {
        let content = self.content_of(&entry)?;
        if content.first() == Some(&b'{') {
            let digest = digest(&content)?;
            ensure!(
                self.files.len() < TOLD * 4,
                "the archive has more than {} descriptions of images",
                TOLD * 4
            );
            let other = self.files.insert(entry.path.clone(), digest.clone());
            ensure!(other.is_none(), "the archive has two files {:?}", entry.path);
            let below = below(&content);
            if !below.is_empty() {
                self.told.below.insert(digest, below);
            }
        }
        self.pending = entry.raw;
        self.pending.extend_from_slice(&content);
        self.pending.resize(self.pending.len() + padding(entry.size) as usize, 0);
        Ok(())
    }
}

impl<R: Read> Read for Archive<'_, R> {
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

/// What the first bytes of a compressed file are, and who compresses so.
pub const COMPRESSED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];

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
        let mut archive = Archive::new(archive, &project);
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
    fn no_name_of_the_archive_reaches_the_engine() {
        let config = r#"{"config": {"Env": []}}"#;
        let id = digest(config);
        let list =
            format!(r#"[{{"Config": "{id}.json", "RepoTags": ["base:latest", "x:1"], "Layers": ["l"]}}]"#);
        let archive = tar(&[
            (&format!("{id}.json"), config.as_bytes()),
            ("l", &[7; 3000]),
            ("repositories", b"{\"base\": {}}"),
            ("./manifest.json", list.as_bytes()),
        ]);
        let (files, digests) = passed(&archive).unwrap();
        let list: Value = serde_json::from_str(&files["manifest.json"]).unwrap();
        let key = digest(&format!("{id}.json"));
        assert_eq!(list[0]["RepoTags"], json!([loaded_name(&project(), &key)]));
        assert_eq!(list[0]["Layers"], json!(["l"]));
        assert_eq!(files["l"].len(), 3000);
        assert!(!files.contains_key("repositories"));
        assert_eq!(digests.same(&id), BTreeSet::from([id.clone()]));
        assert_eq!(digests.keys(&id), BTreeSet::from([id, key]));
    }

    #[test]
    fn an_image_is_known_by_its_configuration_its_manifest_or_its_index() {
        let config = r#"{"config": {}}"#;
        let manifest = format!(r#"{{"config": {{"digest": "sha256:{}"}}, "layers": []}}"#, digest(config));
        let attestation = format!(
            r#"{{"digest": "sha256:{}", "annotations": {{"vnd.docker.reference.type": "x"}}}}"#,
            "0".repeat(64)
        );
        let index =
            format!(r#"{{"manifests": [{{"digest": "sha256:{}"}}, {attestation}]}}"#, digest(&manifest));
        let top = format!(
            r#"{{"manifests": [{{"digest": "sha256:{}", "annotations": {{"io.containerd.image.name": "base:latest"}}}}]}}"#,
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
    fn an_index_of_several_images_is_none_of_them() {
        let manifest = |config: &str| {
            format!(r#"{{"config": {{"digest": "sha256:{}"}}, "layers": []}}"#, digest(config))
        };
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
        assert!(fails(&[("manifest.json", b"{}")]).contains("no list"));
        let mut link = header("a", 0);
        link[156] = b'2';
        link[148..156].fill(b' ');
        let sum: u32 = link.iter().map(|byte| u32::from(*byte)).sum();
        link[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let through = [&link[..], &tar(&[("a/manifest.json", b"[]")])].concat();
        assert!(format!("{:#}", passed(&through).unwrap_err()).contains("below the link"));
        assert!(fails(&[("manifest.json", b"[1]")]).contains("no Config"));
        assert!(fails(&[("manifest.json", b"[{\"Config\": \"../x\"}]")]).contains("leads out"));
        let twice: [(&str, &[u8]); 3] =
            [("x", b"{}"), ("./x", b"{ }"), ("manifest.json", b"[{\"Config\": \"x\"}]")];
        assert!(fails(&twice).contains("two files"));
        assert!(fails(&[("index.json", b"{\"manifests\": [1]}")]).contains("digest"));
        assert!(fails(&[("manifest.json", "[".repeat(1 << 20).as_bytes())]).contains("recursion"));
        let long = format!("[{}]", vec!["1"; TOLD + 1].join(","));
        assert!(fails(&[("manifest.json", long.as_bytes())]).contains("at most"));
        let large = vec![b' '; (JSON + 1) as usize];
        assert!(fails(&[("manifest.json", &large)]).contains("at most"));
    }
}
