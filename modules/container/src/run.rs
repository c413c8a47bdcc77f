//! The plain form: a service is one container, said in the meta-data; its unit is made here.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use update_module::FileName;

use crate::definition::{Around, Defined};
use crate::engine::{Engine, Kind};
use crate::image::{ImageId, Reference};
use crate::name::Name;
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
    let mut defined = Defined::default();
    for (name, run) in services {
        for before in &run.after {
            ensure!(
                services.contains_key(before),
                "the service {name} is to be started after {before}, which is none"
            );
        }
        let unit = unit_name(around.project, name);
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
        let start = self.start(&container, around.image(&self.image)?, engine)?;
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
    fn start(&self, container: &str, id: &ImageId, engine: &Engine) -> Result<String> {
        let mut words = engine.words();
        words.extend(["run", "--name", container, "--rm", "--pull=never"].map(str::to_owned));
        if engine.kind == Kind::Podman {
            words.extend(["--replace", "--cgroups=no-conmon"].map(str::to_owned));
            if !self.oneshot {
                // conmon tells systemd that the container runs, and ends with it; podman itself need not stay.
                words.extend(["--detach", "--sdnotify=conmon"].map(str::to_owned));
            }
        }
        let mut option = |name: &str, value: &str| words.push(format!("--{name}={value}"));
        self.ports.iter().for_each(|port| option("publish", port));
        self.volumes.iter().for_each(|volume| option("volume", volume));
        self.env.iter().for_each(|(name, value)| option("env", &format!("{name}={value}")));
        self.network.iter().for_each(|network| option("network", network));
        words.extend(self.options.iter().cloned());
        words.push(id.to_string());
        words.extend(self.command.iter().cloned());
        command_line(&words)
    }
}
