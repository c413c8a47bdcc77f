//! Entry points for fuzzing. Each returns an error for input that the module refuses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mender_update_module::{FileName, check_journal, fuzzing};
use serde_json::Value;

use crate::artifact_files::ArtifactFiles;
use crate::engine::Engine;
use crate::engine_kind::EngineKind;
use crate::forms::build_context::BuildContext;
use crate::forms::{compose, quadlet};
use crate::image::{ImageId, Reference};
use crate::image_archive::ImageArchive;
use crate::image_archive::configuration::images;
use crate::metadata::MetaData;
use crate::name::Name;
use crate::reserved_names::LOADED;
use crate::settings::Settings;
use crate::tar::Reader;
use crate::update::ProjectUpdate;

/// The project, its image, and the paths of the files in the artifact.
const PROJECT: &str = "shop";
const IMAGE: &str = "app:1";
const FILES: [&str; 2] = ["app.env", "conf/app.conf"];

/// Parses a journal.
pub fn journal(text: &[u8]) -> Result<()> {
    check_journal::<ProjectUpdate>(text).map(drop)
}

/// Parses the settings, and checks their values.
pub fn settings(text: &[u8]) -> Result<()> {
    fuzzing::settings::<Settings>(text)?.check()
}

/// Parses the meta-data, and builds the units of the form `run`, with each engine.
pub fn meta_data(text: &[u8]) -> Result<()> {
    let artifact = fuzzing::artifact(text)?;
    for kind in [EngineKind::Podman, EngineKind::Docker] {
        let mut meta_data: MetaData = artifact.meta_data()?.context("no meta-data")?;
        meta_data.check(kind)?;
        let images = meta_data.images.iter().map(|image| (image.reference.clone(), image.id.clone())).collect();
        let files = ArtifactFiles::named(&FILES);
        meta_data.definition.check_files(&context(&meta_data.project, &Engine::assumed(kind), &images, &files))?;
    }
    Ok(())
}

/// Builds the unit of a compose file, with each engine.
pub fn compose(text: &[u8]) -> Result<()> {
    let files = [(FileName::new("compose.yaml")?, std::str::from_utf8(text)?.to_owned())];
    for kind in [EngineKind::Podman, EngineKind::Docker] {
        with_context(kind, |context| compose::assemble(&files, &["web".to_owned()], context).map(drop))?;
    }
    Ok(())
}

/// Checks a quadlet of a container, and one of a volume.
pub fn quadlet(text: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(text)?;
    let check = |names: &[&str]| {
        let files = names.iter().map(|name| Ok((FileName::new(*name)?, text.to_owned())));
        let files = files.collect::<Result<Vec<_>>>()?;
        with_context(EngineKind::Podman, |context| quadlet::check(files, context))
    };
    let others = check(&["app.pod", "app.volume", "app.network"]);
    check(&["web.container"]).or(others)
}

/// Reads the files in a tar archive.
pub fn archive(from: &mut dyn Read) -> Result<()> {
    each_file(from, |_, _| Ok(()))
}

/// Reads the images in a tar archive, as the check of an artifact does.
pub fn list_images(from: &mut dyn Read) -> Result<()> {
    images(from).map(drop)
}

/// Reads a tar archive of images as it is passed on to the engine. No name of the archive may be in the result.
///
/// # Panics
/// When one is, or the result is no tar archive.
pub fn image_archive(from: &mut dyn Read) -> Result<()> {
    let project = Name::try_from(PROJECT.to_owned())?;
    let mut passed_on = Vec::new();
    ImageArchive::new(from, &project).read_to_end(&mut passed_on)?;
    let checked = each_file(&mut passed_on.as_slice(), |path, content| {
        let names = match path {
            "manifest.json" | "index.json" => names(&serde_json::from_slice(content)?),
            other => vec![other.to_owned()].into_iter().filter(|path| path == "repositories").collect(),
        };
        let replaced = names.iter().all(|name| name.starts_with(LOADED));
        ensure!(replaced, "{path} has the names {names:?}");
        Ok(())
    });
    assert!(checked.is_ok(), "{checked:?}");
    Ok(())
}

/// The names of images in `manifest.json` or `index.json`.
fn names(list: &Value) -> Vec<String> {
    let tags = |image: &Value| image["RepoTags"].as_array().cloned().unwrap_or_default();
    let annotations = |manifest: &Value| manifest["annotations"].as_object().cloned().unwrap_or_default();
    let listed = list.as_array().into_iter().flatten().flat_map(tags);
    let indexed = list["manifests"].as_array().into_iter().flatten().flat_map(annotations).map(|(_, name)| name);
    listed.chain(indexed).map(|name| name.as_str().map_or_else(|| name.to_string(), str::to_owned)).collect()
}

fn each_file(from: &mut dyn Read, mut take: impl FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
    let mut entries = Reader::new(from);
    while let Some(entry) = entries.next()? {
        let mut content = Vec::new();
        io::copy(&mut (&mut entries).take(entry.size), &mut content)?;
        take(&entry.path, &content)?;
    }
    Ok(())
}

fn with_context<T>(kind: EngineKind, work: impl FnOnce(&BuildContext) -> Result<T>) -> Result<T> {
    let reference = Reference::try_from(IMAGE.to_owned())?.as_listed(kind);
    let images = BTreeMap::from([(reference, ImageId::try_from("1".repeat(64))?)]);
    let (project, files) = (Name::try_from(PROJECT.to_owned())?, ArtifactFiles::named(&FILES));
    work(&context(&project, &Engine::assumed(kind), &images, &files))
}

fn context<'a>(
    project: &'a Name,
    engine: &'a Engine,
    images: &'a BTreeMap<Reference, ImageId>,
    files: &'a ArtifactFiles,
) -> BuildContext<'a> {
    BuildContext {
        project,
        engine,
        images,
        declared_volumes: &|_| Ok(vec!["/data".to_owned()]),
        device_images: &[],
        used_device_images: RefCell::default(),
        files,
        files_directory: Path::new("/projects/shop/files"),
        health_limit: Duration::ZERO,
    }
}
