//! The form `run`: a service in the meta-data is one container. This module writes its unit.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use mender_update_module::FileName;
use serde::{Deserialize, Serialize};

use super::build_context::BuildContext;
use super::built_project::BuiltProject;
use crate::engine_kind::EngineKind;
use crate::image::Reference;
use crate::labels;
use crate::mount::{self, Short, Source};
use crate::name::Name;
use crate::project::{Containers, Service};
use crate::start_order;
use crate::unit::command_line;

/// One service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    image: Reference,
    /// Replaces the command of the image.
    #[serde(default)]
    command: Vec<String>,
    /// Values of `--publish`.
    #[serde(default)]
    ports: Vec<String>,
    /// Values of `--volume`.
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// The value of `--network`.
    network: Option<String>,
    /// Other options of the engine's `run`.
    #[serde(default)]
    options: Vec<String>,
    /// Services of the project that are started before this one.
    #[serde(default)]
    after: Vec<Name>,
    /// Whether it does its work once and ends.
    #[serde(default)]
    oneshot: bool,
    /// The time limit for its stop, in seconds.
    #[serde(default = "stop_seconds")]
    stop_seconds: u32,
}

fn stop_seconds() -> u32 {
    10
}

/// Builds the units of `services`.
///
/// # Errors
/// For a missing image or dependency, a refused mount, and a word that no unit can have.
pub fn build(services: &BTreeMap<Name, Run>, context: &BuildContext) -> Result<BuiltProject> {
    ensure!(!services.is_empty(), "invalid meta-data: run: no services: add one");
    check_order(services)?;
    let mut built = BuiltProject::default();
    for (name, run) in services {
        let (unit, container) = (unit_name(context.project, name), container_name(context.project, name));
        let text = run.unit(name, context).with_context(|| format!("service {name} refused"))?;
        built.services.push(Service {
            unit: unit.clone(),
            containers: Containers::Named(container.clone()),
            oneshot: run.oneshot,
        });
        built.containers.push(container);
        built.units.push((FileName::new(unit)?, text));
    }
    Ok(built)
}

fn check_order(services: &BTreeMap<Name, Run>) -> Result<()> {
    for (name, run) in services {
        for before in &run.after {
            ensure!(
                services.contains_key(before),
                "invalid meta-data: run: service {name}: after {before}: no such service"
            );
        }
    }
    let names: BTreeMap<_, String> = services.keys().map(|name| (name, name.to_string())).collect();
    let after = |run: &Run| run.after.iter().filter_map(|name| names.get(name).map(String::as_str)).collect();
    start_order::check(&services.iter().map(|(name, run)| (names[name].as_str(), after(run))).collect())
}

/// No project or service has a dot in its name, so no two services share a unit.
fn unit_name(project: &Name, service: &Name) -> String {
    format!("mender-{project}.{service}.service")
}

fn container_name(project: &Name, service: &Name) -> String {
    format!("{project}.{service}")
}

impl Run {
    fn unit(&self, name: &Name, context: &BuildContext) -> Result<String> {
        let BuildContext { project, engine, .. } = context;
        let container = container_name(project, name);
        let after: String = self.after.iter().map(|before| format!(" {}", unit_name(project, before))).collect();
        let head = format!(
            "[Unit]\nDescription={name} of the project {project}\nAfter=network.target{after}\n{}\
             # No limit: a device has to restart its services for as long as it runs.\nStartLimitIntervalSec=0\n\n\
             [Service]\n",
            engine.unit_dependencies()?
        );
        let start = self.start(name, &container, context)?;
        let engine_command = |words: &[&str]| {
            let engine = engine.words();
            command_line(&engine.iter().map(String::as_str).chain(words.iter().copied()).collect::<Vec<_>>())
        };
        let seconds = format!("--time={}", self.stop_seconds);
        let stop = match engine.kind {
            EngineKind::Podman => engine_command(&["stop", "--ignore", &seconds, &container])?,
            EngineKind::Docker => engine_command(&["stop", &seconds, &container])?,
        };
        let service_type = match (self.oneshot, engine.kind) {
            (true, _) => "Type=oneshot\nRemainAfterExit=yes\n",
            (false, EngineKind::Podman) => "Type=notify\nNotifyAccess=all\nRestart=always\nRestartSec=2\n",
            (false, EngineKind::Docker) => "Type=exec\nRestart=always\nRestartSec=2\n",
        };
        let remove = engine_command(&["rm", "--force", &container])?;
        // A power loss may have left a container of that name. Podman replaces it by itself.
        let start_pre = match engine.kind {
            EngineKind::Podman => String::new(),
            EngineKind::Docker => format!("ExecStartPre=-{remove}\n"),
        };
        Ok(format!(
            "{head}{service_type}TimeoutStartSec={}\nTimeoutStopSec={}\n{start_pre}ExecStart={start}\n\
             ExecStop=-{stop}\nExecStopPost=-{remove}\n",
            context.start_seconds(),
            self.stop_seconds.saturating_add(60),
        ))
    }

    /// The command line that starts the container. It has the ID of the image, because a tag may get another image.
    fn start(&self, service: &Name, container: &str, context: &BuildContext) -> Result<String> {
        let BuildContext { project, engine, .. } = context;
        let id = context.image(self.image.as_ref())?;
        let mut words = engine.words();
        words.extend(["run", "--name", container, "--rm", "--pull=never"].map(str::to_owned));
        words.push(format!("--label={}={project}", labels::PROJECT));
        if engine.kind == EngineKind::Podman {
            words.extend(["--replace", "--cgroups=no-conmon"].map(str::to_owned));
            if !self.oneshot {
                // conmon notifies systemd of the start, and ends with the container; podman itself exits.
                words.extend(["--detach", "--sdnotify=conmon"].map(str::to_owned));
            }
        }
        let mut mounted = option_targets(&self.options, context)?;
        let volumes = self.volumes.iter().map(|volume| volume_value(service, volume, &mut mounted, context));
        let mut volumes: Vec<_> = volumes.collect::<Result<_>>()?;
        for path in context.unmounted_volumes(&id, &mounted)? {
            volumes.push(format!("{}:{path}", context.volume_name(&service.to_string(), &path)));
        }
        let mut option = |name: &str, value: &str| words.push(format!("--{name}={value}"));
        self.ports.iter().for_each(|port| option("publish", port));
        volumes.iter().for_each(|volume| option("volume", volume));
        self.env.iter().for_each(|(name, value)| option("env", &format!("{name}={value}")));
        self.network.iter().for_each(|network| option("network", network));
        words.extend(self.options.iter().cloned());
        words.push(id.to_string());
        words.extend(self.command.iter().cloned());
        command_line(&words)
    }
}

/// The volume `text` for the engine: with a name if it has none, and with the path of a file of the artifact.
fn volume_value(service: &Name, text: &str, mounted: &mut BTreeSet<String>, context: &BuildContext) -> Result<String> {
    let short = Short::parse(text)?;
    mounted.insert(short.target.trim_end_matches('/').to_owned());
    let source = match mount::source(short.source, short.is_read_only(), context.files)? {
        Source::Anonymous => context.volume_name(&service.to_string(), short.target),
        Source::Volume(source) | Source::Host(source) => source,
        Source::Artifact(path) => context.file_path(&path)?,
    };
    let options = if short.options.is_empty() { String::new() } else { format!(":{}", short.options) };
    Ok(format!("{source}:{}{options}", short.target))
}

/// The mount targets in the engine's `options`. The options are passed on unchanged, so paths in them have to be
/// absolute.
fn option_targets(options: &[String], context: &BuildContext) -> Result<BTreeSet<String>> {
    let mut targets = BTreeSet::new();
    for (option, value) in mount::options(options) {
        let target = mount::option(option, value, context.files).with_context(|| format!("option {option} {value}"))?;
        targets.extend(target.map(|target| target.trim_end_matches('/').to_owned()));
    }
    Ok(targets)
}
