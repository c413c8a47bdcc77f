//! The form for compose: one unit that runs the provider for the whole project.

mod check;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use mender_update_module::{FileName, Program};
use serde_json::{Map, json};

use crate::definition::{Around, Defined};
use crate::engine::LABEL;
use crate::image::{ImageId, Reference};
use crate::project::{Containers, File, Service, keeper};
use crate::unit::command_line;
use model::Model;

/// The longest that the provider may take to say something.
const LIMIT: Duration = Duration::from_secs(120);

/// The variable by which podman says nothing of the provider that it starts.
const QUIET: &str = "PODMAN_COMPOSE_WARNING_LOGS";

/// The compose file that is made here and comes last: what it says of a service counts.
const IMAGES: &str = "images.json";

/// The label that docker-compose and podman-compose give every container.
const COMPOSE_LABEL: &str = "com.docker.compose.project";

/// Makes the unit for the compose `files`, of which `profiles` are active.
///
/// The files stay as they are. A further one gives each service its image by a name that only this module uses, and that
/// the unit makes mean the ID before each start; forbids pulling; and gives volumes that images declare a name.
///
/// # Errors
/// When a file is not what can be run and rolled back here, or there is no provider.
pub fn define(files: &[File], profiles: &[String], around: &Around) -> Result<Defined> {
    let model = Model::of(files, around.carried)?;
    model.check_order()?;
    let (images, ids) = images_file(&model, profiles, around)?;
    let paths = files
        .iter()
        .map(|(name, _)| name.as_ref().to_str().context("the name of a compose file is not UTF-8"));
    let paths: Vec<_> = paths.collect::<Result<_>>()?;
    let images = (FileName::new(IMAGES)?, images);
    ask_provider(&paths, profiles, around)?;
    let unit = unit(&paths, profiles, &ids, around)?;
    // No service has a dot in its name, and neither has a unit of the Mender client.
    let name = format!("mender-{}.compose.service", around.project);
    Ok(Defined {
        services: vec![Service {
            unit: name.clone(),
            containers: Containers::Labelled(format!("{COMPOSE_LABEL}={}", around.project)),
            oneshot: false,
        }],
        units: vec![(FileName::new(name)?, unit)],
        files: vec![images],
        containers: model.container_names(),
        pods: Vec::new(),
    })
}

/// The additional compose file, and the images in it by their names.
fn images_file(
    model: &Model,
    profiles: &[String],
    around: &Around,
) -> Result<(String, BTreeMap<Reference, ImageId>)> {
    let (mut services, mut volumes, mut ids) = (Map::new(), Map::new(), BTreeMap::new());
    for (name, service) in model.services() {
        let image = model.image(name).and_then(|reference| around.image(&reference));
        let id = match image {
            Ok(id) => id,
            // It does not run.
            Err(_) if !service.is_active(profiles) => continue,
            Err(error) => return Err(error.context(format!("the service {name:?}"))),
        };
        let keeper = keeper(around.project, &id)?;
        let mut mounts = Vec::new();
        for path in around.open_volumes(&id, &service.targets)? {
            let volume = around.volume(name, &path);
            mounts.push(json!({"type": "volume", "source": volume, "target": path}));
            volumes.insert(volume.clone(), json!({"name": volume}));
        }
        let mut override_ = json!({"image": keeper, "pull_policy": "never"});
        if !mounts.is_empty() {
            override_["volumes"] = mounts.into();
        }
        services.insert(name.clone(), override_);
        ids.insert(keeper, id);
    }
    let mut file = json!({"services": services});
    if !volumes.is_empty() {
        file["volumes"] = volumes.into();
    }
    Ok((serde_json::to_string_pretty(&file)?, ids))
}

/// Has the provider read the files: what it does not take is to fail the download.
fn ask_provider(paths: &[&str], profiles: &[String], around: &Around) -> Result<()> {
    let words = around.engine.words();
    // Podman would say each time which provider it starts.
    let compose = || Program::new(&words[0], LIMIT).env(QUIET, "false").args(&words[1..]).arg("compose");
    compose().arg("version").run().context(
        "the artifact has a compose file, and the engine no provider for it: install docker-compose or podman-compose \
         (podman knows them from 4.7 on), or write the project as run or quadlet",
    )?;
    let staged = around.carried.directory();
    let files = paths.iter().flat_map(|path| ["--file".into(), staged.join(path)]);
    let profiles = profiles.iter().flat_map(|profile| ["--profile", profile]);
    let project = around.project.to_string();
    compose()
        .args(["--project-name", &project])
        .args(profiles)
        .args(files)
        .arg("config")
        .output()
        .map(drop)
        .context("the compose provider does not take the compose files: see its message above")
}

fn unit(
    paths: &[&str],
    profiles: &[String],
    ids: &BTreeMap<Reference, ImageId>,
    around: &Around,
) -> Result<String> {
    let Around { project, engine, directory, .. } = around;
    let words = engine.words();
    let on = |more: &[&str]| {
        command_line(&words.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let images = directory.with_file_name(IMAGES);
    let paths = paths.iter().map(|path| directory.join(path)).chain([images]);
    let paths =
        paths.map(|path| path.to_str().map(str::to_owned).context("the path of a compose file is not UTF-8"));
    let paths: Vec<_> = paths.collect::<Result<_>>()?;
    let name = project.to_string();
    let mut compose = vec!["compose", "--project-name", &name];
    compose.extend(profiles.iter().flat_map(|profile| ["--profile", profile.as_str()]));
    compose.extend(paths.iter().flat_map(|path| ["--file", path.as_str()]));
    let mut text = format!(
        "[Unit]\nDescription=The project {project}\nAfter=network.target\n{}StartLimitIntervalSec=0\n\n\
         [Service]\nType=exec\nRestart=always\nRestartSec=2\nTimeoutStartSec=300\nTimeoutStopSec=120\n\
         Environment={QUIET}=false\n\
         # So docker-compose ends when its containers are stopped; 2 where SIGTERM comes in that moment (a panic of 2.26).\n\
         SuccessExitStatus=1 2\n",
        engine.needs()?
    );
    for (reference, id) in ids {
        text += &format!("ExecStartPre={}\n", on(&["tag", &id.to_string(), reference.as_ref()])?);
    }
    // What a power loss has left of another version must not be taken for this one's.
    text += &format!("ExecStartPre=-{}\n", on(&[&compose[..], &["down", "--remove-orphans"]].concat())?);
    text +=
        &format!("ExecStart={}\n", on(&[&compose[..], &["up", "--no-build", "--force-recreate"]].concat())?);
    // Twice: before systemd sends SIGTERM, which podman would hand on to containers that have a stop signal of their own; and
    // after it, for what a provider that was still starting them has left. Without --volumes: data stay.
    let down = on(&[&compose[..], &["down"]].concat())?;
    text += &format!("ExecStop=-{down}\nExecStopPost=-{down}\n");
    Ok(text)
}

/// Labels by which this project's own containers are known: those that this module's units give, and the provider's.
pub fn labels(project: &str) -> [String; 2] {
    [format!("{LABEL}={project}"), format!("{COMPOSE_LABEL}={project}")]
}

/// The names in `text`, a list or the keys of a table.
fn names(value: &serde_json::Value) -> BTreeSet<String> {
    match value {
        serde_json::Value::Array(list) => {
            list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
        }
        serde_json::Value::Object(table) => table.keys().cloned().collect(),
        serde_json::Value::String(name) => BTreeSet::from([name.clone()]),
        _ => BTreeSet::new(),
    }
}
