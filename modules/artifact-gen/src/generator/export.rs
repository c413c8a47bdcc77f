//! Images of a container engine, exported to archives, and archives that exist already.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use container::artifact::{ArchivedImage, Reference, images};

use crate::command::{Words, is_installed};
use crate::payload_name::distinct;
use crate::progress::step;

/// An engine of the workstation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// podman
    Podman,
    /// docker
    Docker,
}

impl Engine {
    /// The first engine that is installed.
    ///
    /// # Errors
    /// When none is.
    fn installed() -> Result<Self> {
        let all = [Self::Podman, Self::Docker];
        all.into_iter()
            .find(|engine| is_installed(engine.program().as_ref()))
            .context("no container engine found: install podman or docker, or give archives of images as files")
    }

    fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }
}

/// The endings of files that define what runs, and the option of each: a file after an option without a value is taken
/// for an archive of images.
const DEFINITIONS: [(&[&str], &str); 3] = [
    (&["json"], "--run="),
    (&["yaml", "yml"], "--compose "),
    (&["container", "pod", "volume", "network"], "--quadlet "),
];

/// An archive with its images.
pub struct Exported {
    /// Its path.
    pub path: PathBuf,
    /// The names of its images with tags, and the images.
    pub images: BTreeMap<String, ArchivedImage>,
    /// The unpacked size of its image in bytes, if an engine said it.
    pub size: Option<u64>,
}

/// The archive `name`, if it is a file; otherwise the image `name` of `engine`, exported to a file in `tmp`.
///
/// # Errors
/// When it is neither, or the engine fails.
pub fn export(name: &str, engine: Option<Engine>, tmp: &Path) -> Result<Exported> {
    let path = Path::new(name);
    if path.is_file() {
        return archive(path);
    }
    ensure!(may_be_image(name, path.is_dir()), "image {name:?} refused: neither a file nor the name of an image");
    ensure!(
        !looks_like_a_file(name),
        "archive {name} not found: give the path of an archive, or the name of an image such as localhost/app:1"
    );
    let reference = with_tag(name)?;
    let engine = engine.map_or_else(Engine::installed, Ok)?;
    let program = engine.program();
    let inspect = Words::new(program).args(["image", "inspect", "--format", "{{.Size}}", &reference]);
    let size = match inspect.output(tmp) {
        Ok(size) => size,
        Err(error) => {
            // Not only of images: without its service, docker says it of everything.
            Words::new(program).args(["info"]).output(tmp).with_context(|| {
                format!("{program} does not answer: install it or start its service, or choose with --engine")
            })?;
            let missing =
                format!("image {reference} not found by {program}: build or pull it there, or choose with --engine");
            return Err(error.context(missing));
        }
    };
    let directory = tmp.join("images");
    fs::create_dir_all(&directory).with_context(|| format!("creating {} failed", directory.display()))?;
    let name = distinct(format!("{}.tar", file_name(&reference)), |name| directory.join(name).exists());
    let path = directory.join(name);
    let save = Words::new(program).args(["save", "--output"]).args([&path]).args([&reference]);
    step(&format!("exporting {reference} with {program}"), Some(&path), || save.output(tmp))
        .with_context(|| format!("exporting {reference} failed"))?;
    let mut found = read(&path)?;
    ensure!(found.len() == 1, "exporting {reference} failed: {} images in the archive instead of one", found.len());
    // Podman and docker write other names into an archive than the user gave.
    let images = found.drain(..).map(|image| (reference.clone(), image)).collect();
    Ok(Exported { path, images, size: size.trim().parse().ok() })
}

fn archive(path: &Path) -> Result<Exported> {
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    if let Some((_, option)) = DEFINITIONS.iter().find(|(endings, _)| endings.contains(&ending)) {
        bail!("archive {0} refused: it is a definition: give it as {option}{0}", path.display());
    }
    let mut named = BTreeMap::new();
    for image in read(path)? {
        let Some(name) = image.references.first() else {
            bail!(
                "archive {} refused: its image {} has no name: tag the image, and save it by that name",
                path.display(),
                image.id
            );
        };
        named.insert(name.clone(), image);
    }
    Ok(Exported { path: path.to_owned(), images: named, size: None })
}

fn read(path: &Path) -> Result<Vec<ArchivedImage>> {
    let reading = || format!("reading the archive {} failed", path.display());
    let file = File::open(path).with_context(reading)?;
    images(BufReader::new(file)).with_context(reading)
}

/// Whether `name` is meant as a file, and not as an image.
fn looks_like_a_file(name: &str) -> bool {
    name.starts_with(['/', '.']) || [".tar", ".tar.gz", ".tgz", ".oci"].iter().any(|end| name.ends_with(end))
}

/// `name` with the tag that engines complete.
fn with_tag(name: &str) -> Result<String> {
    let has_tag = name.rsplit('/').next().is_some_and(|name| name.contains([':', '@']));
    let reference = if has_tag { name.to_owned() } else { format!("{name}:latest") };
    Reference::try_from(reference.clone())?;
    Ok(reference)
}

/// Whether `name` may be that of an image. A directory may have the same name, such as the one of its Containerfile.
fn may_be_image(name: &str, is_directory: bool) -> bool {
    !name.starts_with('-') && (!is_directory || with_tag(name).is_ok())
}

/// `reference` as the name of a file.
fn file_name(reference: &str) -> String {
    crate::payload_name::mapped(reference.rsplit('/').next().unwrap_or(reference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_get_a_tag_and_a_file_name() {
        assert_eq!(with_tag("localhost/shop").unwrap(), "localhost/shop:latest");
        assert_eq!(with_tag("localhost:5000/shop:2").unwrap(), "localhost:5000/shop:2");
        assert!(with_tag("Shop").is_err() && with_tag("a@sha256:0").is_err());
        assert_eq!(file_name("localhost:5000/shop:2"), "shop-2");
        assert!(may_be_image("shop", true) && may_be_image("shop", false) && !may_be_image("-shop", false));
        assert!(!may_be_image("./shop", true) && !may_be_image("/srv/shop/", true));
        assert!(looks_like_a_file("./x") && looks_like_a_file("app.tar") && !looks_like_a_file("shop:2"));
    }
}
