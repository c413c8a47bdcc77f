//! The generator for `container`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use clap::Args;
use container::artifact::{EngineKind, Name, Reference, check};
use mender_update_module::ArtifactContent;
use serde_json::{Map, Value, json};

use super::definition::DefinitionOptions;
use super::export::{Engine, Exported, export};
use super::{Checked, Draft, Generator, Item, is_named, renamed};
use crate::options::Options;
use crate::payload_name::{distinct, mapped};

/// Makes an artifact for the module container: one project with its images
///
/// An IMAGE is the name of an image of podman or docker on this machine, or the file of an archive that 'podman save'
/// or 'docker save' has written. What runs is given by --run, --compose or --quadlet.
///
/// Example: container-artifact-gen -n shop-2 -t raspberrypi3 --project shop --run --publish 80:8080 localhost/shop:2
#[derive(Args, Debug)]
pub struct Container {
    /// Images of the project
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    #[command(flatten)]
    options: Options,
    /// Name of the project: a to z, digits and hyphens
    #[arg(long, value_name = "NAME")]
    project: String,
    #[command(flatten)]
    definition: DefinitionOptions,
    /// Path of the device that the project may use; may be repeated. It includes the paths below it
    #[arg(long, value_name = "PATH")]
    host_path: Vec<String>,
    /// Engine that has the images [default: podman, else docker]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<Engine>,
    /// Engine of the devices: quadlets need podman
    #[arg(long, value_name = "ENGINE", default_value = "podman")]
    device_engine: Engine,
}

impl Generator for Container {
    const MODULE: &'static str = "container";
    const META_DATA_KEYS: &'static [&'static str] =
        &["project", "images", "run", "compose", "profiles", "quadlet", "archive"];
    const HEALTH_CHECK: Option<&'static str> = Some("every unit and container runs");

    fn options(&self) -> &Options {
        &self.options
    }

    fn draft(&self, tmp: &Path) -> Result<Draft> {
        let project = Name::try_from(self.project.clone())?;
        self.definition.require_valid()?; // before images are exported, which takes minutes
        let mut files = Vec::new();
        let mut images: BTreeMap<String, Value> = BTreeMap::new();
        for name in &self.images {
            let exported = export(name, self.engine, tmp)?;
            let file = exported.path.file_name().map(|name| mapped(&name.to_string_lossy())).unwrap_or_default();
            let file = distinct(file, |name| is_named(&files, name));
            for (reference, entry) in entries(&exported, &file)? {
                if images.insert(reference.clone(), entry).is_some() {
                    bail!("image {reference} twice: name it once");
                }
            }
            files.push(renamed(&exported.path, &file, tmp)?);
        }
        let names: Vec<_> = images.keys().cloned().collect();
        let (definition, more) = self.definition.build(&names, &files, &self.options.output(), tmp)?;
        let mut own = Map::new();
        own.insert("project".to_owned(), json!(project));
        own.insert("images".to_owned(), images.into_values().collect());
        own.extend(definition);
        // The small files first: a device then refuses a definition before it loads images.
        let files = more.into_iter().chain(files).collect();
        let content = ArtifactContent { meta_data: self.options.meta_data(own)?, files };
        Ok(Draft { content, software_filesystem: Some(project.to_string()), ..Draft::default() })
    }

    fn check(&self, draft: &Draft, scratch: &Path) -> Result<Checked> {
        let kind = match self.device_engine {
            Engine::Podman => EngineKind::Podman,
            Engine::Docker => EngineKind::Docker,
        };
        let checked = check(&draft.content, kind, scratch)?;
        for path in &checked.host_paths {
            let is_below = |allowed: &String| Path::new(path).starts_with(allowed);
            ensure!(!path.split('/').any(|part| part == ".."), "path {path} refused: write it without ..");
            ensure!(
                self.host_path.iter().any(is_below),
                "path of the device refused: the definition names {path}, which is not in the artifact: use a named volume, \
                 add the file with --archive, or, if devices have the path, give it with --host-path"
            );
        }
        let name = |image: &container::artifact::ArchivedImage| {
            image.references.first().cloned().unwrap_or_else(|| image.id.to_string())
        };
        let item = |image: &container::artifact::ArchivedImage| {
            Item::Image(name(image), image.architecture.clone(), image.variant.clone())
        };
        for image in &checked.images {
            ensure!(image.os == "linux", "image {} refused: it is for {}: build it for Linux", name(image), image.os);
        }
        let shown = |image: &container::artifact::ArchivedImage| {
            let platform = [image.architecture.as_str(), image.variant.as_str()].join("/");
            format!("{} {} {}", name(image), platform.trim_end_matches('/'), image.id)
        };
        let mut facts =
            vec![("project", vec![checked.project.clone()]), ("images", checked.images.iter().map(shown).collect())];
        if !checked.host_paths.is_empty() {
            facts.push(("host paths", checked.host_paths.iter().cloned().collect()));
        }
        Ok(Checked { architectures: checked.images.iter().map(item).collect(), facts, ..Checked::default() })
    }
}

/// The images of `exported`, in the payload file `file`, as the meta-data describe them, by their names.
fn entries(exported: &Exported, file: &str) -> Result<Vec<(String, Value)>> {
    let mut entries = Vec::new();
    for (name, image) in &exported.images {
        let reference = Reference::try_from(name.clone())?;
        let mut entry = json!({"file": file, "ref": reference, "id": format!("sha256:{}", image.id)});
        if let Some(size) = exported.size {
            entry["size"] = json!(size);
        }
        entries.push((name.clone(), entry));
    }
    Ok(entries)
}
