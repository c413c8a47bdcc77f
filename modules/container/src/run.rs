//! The plain form: a service is one container, said in the meta-data; its unit is made here.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use mender_update_module::FileName;
use serde::{Deserialize, Serialize};

use crate::definition::{Around, Defined};
use crate::engine::{Kind, LABEL};
use crate::image::Reference;
use crate::mount::{self, Short, Source};
use crate::name::Name;
use crate::order;
use crate::project::{Containers, Service};
use crate::unit::command_line;

/// One service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// One of the artifact's images.
    image: Reference,
    /// Instead of the image's own.
    #[serde(default)]
    command: Vec<String>,
    /// As `--publish`.
    #[serde(default)]
    ports: Vec<String>,
    /// As `--volume`.
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// As `--network`.
    network: Option<String>,
    /// More options of the engine's `run`.
    #[serde(default)]
    options: Vec<String>,
    /// Services of the project that are started before this one.
    #[serde(default)]
    after: Vec<Name>,
    /// It does its work and ends.
    #[serde(default)]
    oneshot: bool,
    /// What it may take to stop.
    #[serde(default = "stop_seconds")]
    stop_seconds: u32,
}

fn stop_seconds() -> u32 {
    10
}

/// Makes the units of `services`.
///
/// # Errors
/// When a service names an image that is not the artifact's, or has words that no unit can have.
pub fn define(services: &BTreeMap<Name, Run>, around: &Around) -> Result<Defined> {
    ensure!(!services.is_empty(), "the table run has no service");
    let names: BTreeMap<_, String> = services.keys().map(|name| (name, name.to_string())).collect();
    let after = |run: &Run| run.after.iter().filter_map(|name| names.get(name).map(String::as_str)).collect();
    order::check(&services.iter().map(|(name, run)| (names[name].as_str(), after(run))).collect())?;
    let mut defined = Defined::default();
    for (name, run) in services {
        for before in &run.after {
            ensure!(
                services.contains_key(before),
                "the service {name} is to be started after {before}, which is none"
            );
        }
        let unit = unit_name(around.project, name);
        defined.containers.push(container_name(around.project, name));
        let text = run.unit(name, around).with_context(|| format!("the service {name}"))?;
        defined.services.push(Service {
            unit: unit.clone(),
            containers: Containers::Named(container_name(around.project, name)),
            oneshot: run.oneshot,
        });
        defined.units.push((FileName::new(unit)?, text));
    }
    Ok(defined)
}

/// No project or service has a dot in its name: no two services share a unit.
fn unit_name(project: &Name, service: &Name) -> String {
    format!("mender-{project}.{service}.service")
}

fn container_name(project: &Name, service: &Name) -> String {
    format!("{project}.{service}")
}

impl Run {
    fn unit(&self, name: &Name, around: &Around) -> Result<String> {
        let Around { project, engine, .. } = around;
        let container = container_name(project, name);
        let after: String =
            self.after.iter().map(|before| format!(" {}", unit_name(project, before))).collect();
        let head = format!(
            "[Unit]\nDescription={name} of the project {project}\nAfter=network.target{after}\n{}\
             # A device tries again for as long as it lives.\nStartLimitIntervalSec=0\n\n[Service]\n",
            engine.needs()?
        );
        let start = self.start(name, &container, around)?;
        let on = |words: &[&str]| {
            let engine = engine.words();
            command_line(&engine.iter().map(String::as_str).chain(words.iter().copied()).collect::<Vec<_>>())
        };
        let seconds = format!("--time={}", self.stop_seconds);
        let stop = match engine.kind {
            Kind::Podman => on(&["stop", "--ignore", &seconds, &container])?,
            Kind::Docker => on(&["stop", &seconds, &container])?,
        };
        let kind = match (self.oneshot, engine.kind) {
            (true, _) => "Type=oneshot\nRemainAfterExit=yes\n",
            (false, Kind::Podman) => "Type=notify\nNotifyAccess=all\nRestart=always\nRestartSec=2\n",
            (false, Kind::Docker) => "Type=exec\nRestart=always\nRestartSec=2\n",
        };
        let clear = on(&["rm", "--force", &container])?;
        // Podman replaces what a loss of power has left of that name; docker has to be told.
        let before = match engine.kind {
            Kind::Podman => String::new(),
            Kind::Docker => format!("ExecStartPre=-{clear}\n"),
        };
        Ok(format!(
            "{head}{kind}TimeoutStartSec=300\nTimeoutStopSec={}\n{before}ExecStart={start}\n\
             ExecStop=-{stop}\nExecStopPost=-{clear}\n",
            self.stop_seconds.saturating_add(60),
        ))
    }

    /// The command line that makes the container, of the image's ID: what a tag means may change.
    fn start(&self, service: &Name, container: &str, around: &Around) -> Result<String> {
        let Around { project, engine, .. } = around;
        let id = around.image(self.image.as_ref())?;
        let mut words = engine.words();
        words.extend(["run", "--name", container, "--rm", "--pull=never"].map(str::to_owned));
        words.push(format!("--label={LABEL}={project}"));
        if engine.kind == Kind::Podman {
            words.extend(["--replace", "--cgroups=no-conmon"].map(str::to_owned));
            if !self.oneshot {
                // conmon tells systemd that the container runs, and ends with it; podman itself need not stay.
                words.extend(["--detach", "--sdnotify=conmon"].map(str::to_owned));
            }
        }
        let mut mounted = option_targets(&self.options, around)?;
        let volumes = self.volumes.iter().map(|volume| self.volume(service, volume, &mut mounted, around));
        let mut volumes: Vec<_> = volumes.collect::<Result<_>>()?;
        for path in around.open_volumes(&id, &mounted)? {
            volumes.push(format!("{}:{path}", around.volume(&service.to_string(), &path)));
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

    /// The volume `text` as the engine is given it: one without a name gets one, and one that is carried its path.
    fn volume(
        &self,
        service: &Name,
        text: &str,
        mounted: &mut BTreeSet<String>,
        around: &Around,
    ) -> Result<String> {
        let short = Short::parse(text)?;
        mounted.insert(short.target.trim_end_matches('/').to_owned());
        let source = match mount::source(short.source, short.is_read_only(), around.carried)? {
            Source::Anonymous => around.volume(&service.to_string(), short.target),
            Source::Volume(source) | Source::Host(source) => source,
            Source::Carried(path) => around.path(&path)?,
        };
        let options = if short.options.is_empty() { String::new() } else { format!(":{}", short.options) };
        Ok(format!("{source}:{}{options}", short.target))
    }
}

/// Where the engine's `options` mount something. They are passed on as they are: paths in them have to be absolute.
fn option_targets(options: &[String], around: &Around) -> Result<BTreeSet<String>> {
    let mut targets = BTreeSet::new();
    for (option, value) in mount::options(options) {
        let said = mount::option(option, value, around.carried)
            .with_context(|| format!("the option {option} {value}"))?;
        targets.extend(said.map(|target| target.trim_end_matches('/').to_owned()));
    }
    Ok(targets)
}
