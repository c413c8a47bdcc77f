//! The form `compose`: one unit runs the compose provider for the whole project.

mod check;
mod model;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use mender_update_module::{FileName, Program};
use serde_json::{Map, json};

use super::build_context::BuildContext;
use super::built_project::BuiltProject;
use crate::image::{ImageId, Reference};
use crate::labels;
use crate::project::{Containers, File, Service};
use crate::reserved_names;
use crate::unit::command_line;
use model::Model;

/// The time limit of the compose provider for an answer.
const LIMIT: Duration = Duration::from_secs(120);

/// The variable that keeps podman from logging which provider it runs.
const QUIET: &str = "PODMAN_COMPOSE_WARNING_LOGS";

/// The compose file that this module adds as the last one, so that it overrides the others.
const IMAGES: &str = "images.json";

/// Builds the unit for the compose `files`, of which `profiles` are active.
///
/// The files are not changed. An additional one gives each service its image, by a name that only this module uses
/// and that the unit assigns to the image's ID before each start; forbids pulling; and names the volumes that images
/// declare.
///
/// # Errors
/// When a file cannot be run or rolled back, or no provider is installed.
pub fn build(files: &[File], profiles: &[String], context: &BuildContext) -> Result<BuiltProject> {
    let built = assemble(files, profiles, context)?;
    validate_with_provider(&paths(files)?, profiles, context)?;
    Ok(built)
}

/// As [`build`], without the compose provider.
///
/// # Errors
/// When a file cannot be run or rolled back.
pub fn assemble(files: &[File], profiles: &[String], context: &BuildContext) -> Result<BuiltProject> {
    let model = Model::of(files, context.files)?;
    model.check_order()?;
    let (images, ids) = images_file(&model, profiles, context)?;
    let images = (FileName::new(IMAGES)?, images);
    let unit = unit(&paths(files)?, profiles, &ids, context)?;
    // No service of the form `run` has a dot in its name, and neither has a unit of the Mender client.
    let name = format!("mender-{}.compose.service", context.project);
    Ok(BuiltProject {
        services: vec![Service {
            unit: name.clone(),
            containers: Containers::Labelled(format!("{}={}", labels::COMPOSE_PROJECT, context.project)),
            oneshot: false,
        }],
        units: vec![(FileName::new(name)?, unit)],
        files: vec![images],
        containers: model.container_names(),
        pods: Vec::new(),
    })
}

/// The names of the compose `files`.
fn paths(files: &[File]) -> Result<Vec<&str>> {
    files.iter().map(|(name, _)| name.as_ref().to_str().context("invalid name of a compose file: not UTF-8")).collect()
}

/// The additional compose file, and the images in it by their names.
fn images_file(
    model: &Model,
    profiles: &[String],
    context: &BuildContext,
) -> Result<(String, BTreeMap<Reference, ImageId>)> {
    let (mut services, mut volumes, mut ids) = (Map::new(), Map::new(), BTreeMap::new());
    for (name, service) in model.services() {
        let image = model.image(name).and_then(|reference| context.image(&reference));
        let id = match image {
            Ok(id) => id,
            // A service that does not run needs no image. If a file `.env` makes the provider run it, nothing is
            // pulled.
            Err(_) if !service.is_active(profiles) => {
                services.insert(name.clone(), json!({"pull_policy": "never"}));
                continue;
            }
            Err(error) => return Err(error.context(format!("service {name:?} refused"))),
        };
        let kept_name = reserved_names::kept(context.project, &id)?;
        let mut mounts = Vec::new();
        for path in context.unmounted_volumes(&id, &service.targets)? {
            let volume = context.volume_name(name, &path);
            mounts.push(json!({"type": "volume", "source": volume, "target": path}));
            volumes.insert(volume.clone(), json!({"name": volume}));
        }
        let mut overrides = json!({"image": kept_name, "pull_policy": "never"});
        if !mounts.is_empty() {
            overrides["volumes"] = mounts.into();
        }
        services.insert(name.clone(), overrides);
        ids.insert(kept_name, id);
    }
    let mut file = json!({"services": services});
    if !volumes.is_empty() {
        file["volumes"] = volumes.into();
    }
    Ok((serde_json::to_string_pretty(&file)?, ids))
}

/// Runs the provider to validate the files, so that invalid ones are refused in Download.
fn validate_with_provider(paths: &[&str], profiles: &[String], context: &BuildContext) -> Result<()> {
    let words = context.engine.words();
    let compose = || Program::new(&words[0], LIMIT).env(QUIET, "false").args(&words[1..]).arg("compose");
    compose().arg("version").run().context(
        "compose provider not found: install docker-compose or podman-compose (with podman 4.7 or later), or write the \
         project as run or quadlet",
    )?;
    let staged = context.files.directory();
    let files = paths.iter().flat_map(|path| ["--file".into(), staged.join(path)]);
    let profiles = profiles.iter().flat_map(|profile| ["--profile", profile]);
    let project = context.project.to_string();
    compose()
        .args(["--project-name", &project])
        .args(profiles)
        .args(files)
        .arg("config")
        .output()
        .map(drop)
        .context("compose files refused by the compose provider: see its message above")
}

fn unit(
    paths: &[&str],
    profiles: &[String],
    ids: &BTreeMap<Reference, ImageId>,
    context: &BuildContext,
) -> Result<String> {
    let BuildContext { project, engine, files_directory, .. } = context;
    let words = engine.words();
    let engine_command =
        |more: &[&str]| command_line(&words.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>());
    let images = files_directory.with_file_name(IMAGES);
    let paths = paths.iter().map(|path| files_directory.join(path)).chain([images]);
    let paths = paths.map(|path| path.to_str().map(str::to_owned).context("invalid path of a compose file: not UTF-8"));
    let paths: Vec<_> = paths.collect::<Result<_>>()?;
    let name = project.to_string();
    let mut compose = vec!["compose", "--project-name", &name];
    compose.extend(profiles.iter().flat_map(|profile| ["--profile", profile.as_str()]));
    compose.extend(paths.iter().flat_map(|path| ["--file", path.as_str()]));
    let mut text = format!(
        "[Unit]\nDescription=The project {project}\nAfter=network.target\n{}StartLimitIntervalSec=0\n\n\
         [Service]\nType=exec\nRestart=always\nRestartSec=2\nTimeoutStartSec={}\n\
         TimeoutStopSec=120\nEnvironment={QUIET}=false\n\
         # docker-compose exits with 1 when its containers are stopped. If SIGTERM comes then, it exits with 130, or \
         with 2 (a panic of 2.26).\n\
         SuccessExitStatus=1 2 130\n",
        engine.unit_dependencies()?,
        context.start_seconds(),
    );
    for (reference, id) in ids {
        text += &format!("ExecStartPre={}\n", engine_command(&["tag", &id.to_string(), reference.as_ref()])?);
    }
    // Containers of another version, left by a power loss, must not be taken for this version's.
    let down = engine_command(&[&compose[..], &["down", "--remove-orphans"]].concat())?;
    text += &format!("ExecStartPre=-{down}\n");
    let up = engine_command(&[&compose[..], &["up", "--no-build", "--force-recreate"]].concat())?;
    text += &format!("ExecStart={up}\n");
    // Twice: before systemd sends SIGTERM, which podman would forward to containers that have their own stop signal;
    // and after it, for containers that the provider was still starting. Without --volumes, so that data are kept.
    let down = engine_command(&[&compose[..], &["down"]].concat())?;
    text += &format!("ExecStop=-{down}\nExecStopPost=-{down}\n");
    Ok(text)
}
