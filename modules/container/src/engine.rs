//! The container engine, podman or docker, run as a program: what both understand in the same way.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::{Program, log};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::image::{ImageId, Reference};
use crate::scratch::Scratch;
use crate::settings::{CommandLine, Settings};
use crate::unit::command_line;

/// The longest that the engine may take to look at or name something: on a slow card, starting it takes half a minute.
const LIMIT: Duration = Duration::from_secs(300);

/// Where podman puts temporary files, if it does not say.
const TMP_DIR: &str = "/var/tmp";

/// The label of containers that units of this module make; its value is the project.
pub const LABEL: &str = "io.mender.update-module.project";

/// How docker calls containerd's image store among the properties of its storage.
const CONTAINERD: &str = "io.containerd.snapshotter";

/// Where containerd keeps images, if nobody has told it otherwise.
const CONTAINERD_STORAGE: &str = "/var/lib/containerd";

/// Where programs are looked for when there is no `PATH`.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Which of the two engines it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Podman,
    Docker,
}

/// A container engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Engine {
    command: CommandLine,
    pub kind: Kind,
    /// Where it keeps images.
    pub storage: PathBuf,
    /// Where it puts temporary files while it loads one. None for docker, whose service has a place of its own and clears it
    /// when it starts; and in the record of a version of this module that knew of no such place.
    #[serde(default)]
    pub scratch: Option<Scratch>,
    /// Docker with containerd's image store: an image that loses its last name is gone, and its ID is not the digest of its
    /// configuration.
    #[serde(default)]
    pub containerd: bool,
    load_seconds: u64,
}

/// An image that the engine has, and one reference to it; an image with several is listed several times.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: ImageId,
    /// None for one that has lost its last.
    pub reference: Option<String>,
}

impl Engine {
    /// The engine that the settings name, else podman, else docker; it has to answer.
    ///
    /// # Errors
    /// When there is none, or its service is down: with the remedy.
    pub fn choose(settings: &Settings) -> Result<Self> {
        let command = match &settings.engine {
            Some(command) => command.clone(),
            None => installed().context(
                "neither podman nor docker is installed: install one of them, or name it as engine in \
                 /etc/mender-modules/container.toml",
            )?,
        };
        let kind = if command.program.ends_with("docker") { Kind::Docker } else { Kind::Podman };
        let mut engine = Self {
            command,
            kind,
            storage: PathBuf::new(),
            scratch: None,
            containerd: false,
            load_seconds: settings.load_seconds,
        };
        let directories = match kind {
            Kind::Podman => "{{.Store.GraphRoot}}\n{{.Store.ImageCopyTmpDir}}",
            Kind::Docker => "{{.DockerRootDir}}\n{{json .DriverStatus}}",
        };
        let said = engine.says(["info", "--format", directories]).with_context(|| match kind {
            Kind::Podman => "podman does not work: see what 'podman info' says",
            Kind::Docker => {
                "docker does not answer: is its service running? 'systemctl start docker.service'"
            }
        })?;
        let (storage, more) = said.trim_end().split_once('\n').unwrap_or((said.trim_end(), ""));
        engine.storage = storage.into();
        if kind == Kind::Docker && more.contains(CONTAINERD) {
            engine.containerd = true;
            // Docker does not say where its containerd keeps images.
            let usual = Path::new(CONTAINERD_STORAGE);
            engine.storage = if usual.is_dir() { usual.to_owned() } else { engine.storage };
        }
        ensure!(
            engine.storage.is_absolute(),
            "the engine says that it keeps images in {said:?}, which is no path"
        );
        if kind == Kind::Podman {
            let said = if more.is_empty() { TMP_DIR } else { more };
            let tmp_dir = settings.tmp_dir.as_deref().unwrap_or(Path::new(said));
            ensure!(tmp_dir.is_absolute(), "tmp_dir is {tmp_dir:?}, which is no absolute path");
            engine.scratch = Some(Scratch::within(tmp_dir)?);
        }
        Ok(engine)
    }

    /// The words that a unit starts it with.
    pub fn words(&self) -> Vec<String> {
        self.command.clone().into()
    }

    /// The lines of a unit's section `[Unit]` that it needs.
    ///
    /// # Errors
    /// When the path of its storage cannot be in a unit.
    pub fn needs(&self) -> Result<String> {
        let storage = self.storage.to_str().context("the path of the engine's storage is not UTF-8")?;
        let mounts = format!("RequiresMountsFor={}\n", command_line(&[storage])?);
        Ok(match self.kind {
            Kind::Podman => mounts,
            Kind::Docker => format!("{mounts}Requires=docker.service\nAfter=docker.service\n"),
        })
    }

    fn program(&self, limit: Duration) -> Program {
        Program::new(&self.command.program, limit).args(&self.command.options)
    }

    fn says<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        let said = self.program(LIMIT).args(arguments).output()?;
        String::from_utf8(said).context("the engine's answer is not UTF-8")
    }

    fn does<const N: usize>(&self, arguments: [&str; N]) -> Result<()> {
        self.says(arguments).map(drop)
    }

    /// All images, with every reference.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn images(&self) -> Result<Vec<Listed>> {
        let said = self.says(["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"])?;
        said.lines().filter(|line| !line.is_empty()).map(listed).collect()
    }

    /// Lets `archive` stream into the engine. What it brings is whatever is listed then and was not before. Temporary files
    /// are left for [`tidy`](Self::tidy).
    ///
    /// # Errors
    /// When it is damaged, does not fit, or does not come to its end.
    pub fn load(&self, archive: &mut impl Read) -> Result<()> {
        let mut program = self.program(Duration::from_secs(self.load_seconds)).args(["load", "--quiet"]);
        if let Some(scratch) = &self.scratch {
            scratch.make()?;
            program = program.env("TMPDIR", scratch.path());
        }
        // It tells names that this module has given the images for now.
        program.feed(archive).map(drop)
    }

    /// Removes what loads have left of temporary files, or says that it cannot: they only take space, and are no reason to
    /// fail an update.
    pub fn tidy(&self) {
        if let Some(Err(error)) = self.scratch.as_ref().map(Scratch::remove) {
            log!("temporary files of the engine are left, remove them by hand: {error:#}");
        }
    }

    /// Makes `reference` mean the image `id`.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn tag(&self, id: &ImageId, reference: &Reference) -> Result<()> {
        self.does(["tag", &id.to_string(), reference.as_ref()])
    }

    /// Takes `name`, a reference to the image `id` or the ID itself, away; with its last reference the image goes. One that
    /// a container needs stays, and that is no error.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn remove(&self, name: &str, id: &ImageId) -> Result<()> {
        let Err(error) = self.does(["rmi", name]) else { return Ok(()) };
        let filter = format!("ancestor={id}");
        // What a cut has left of a container is none to podman, unless it is asked for.
        let external = (self.kind == Kind::Podman).then_some("--external");
        let list = self.program(LIMIT).args(["ps", "--all"]).args(external);
        let users = list.args(["--filter", &filter, "--format", "{{.Names}}"]).output()?;
        let users = String::from_utf8_lossy(&users);
        if users.trim().is_empty() {
            return Err(error.context(format!("removing the image {name}")));
        }
        log!("the image {name} stays, these containers need it: {}", users.replace('\n', " "));
        Ok(())
    }

    /// The names of containers, running or not: of those with the label `label`, or of all.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn containers(&self, label: Option<&str>) -> Result<Vec<String>> {
        let filter = label.map(|label| format!("--filter=label={label}"));
        let list = self.program(LIMIT).args(["ps", "--all"]).args(filter).args(["--format", "{{.Names}}"]);
        let said = list.output()?;
        Ok(String::from_utf8_lossy(&said).lines().map(str::to_owned).collect())
    }

    /// The names of podman's pods.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn pods(&self) -> Result<Vec<String>> {
        let said = self.says(["pod", "ps", "--format", "{{.Name}}"])?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// How the container `name` is; `None` where there is none.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn container(&self, name: &str) -> Result<Option<ContainerState>> {
        // It is not asked about one that is not there: it would complain of that in the log, at every poll.
        if !self.containers(None)?.iter().any(|found| found == name) {
            return Ok(None);
        }
        let said = self.says(["container", "inspect", name])?;
        let found: Vec<Inspected> = serde_json::from_str(&said)
            .with_context(|| format!("what the engine tells of the container {name}"))?;
        let found = found.into_iter().next();
        Ok(found.map(|Inspected { id, restarts, state }| ContainerState {
            incarnation: format!("{id} {restarts}"),
            status: state.status,
            exit_code: state.exit_code,
            health: state
                .health
                .map(|health| health.status)
                .filter(|status| !matches!(&**status, "" | "none")),
        }))
    }

    /// The directories that the image `id` declares as volumes.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn declared_volumes(&self, id: &ImageId) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Image {
            config: Option<Config>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Config {
            volumes: Option<BTreeMap<String, Value>>,
        }
        let said = self.says(["image", "inspect", &id.to_string()])?;
        let images: Vec<Image> = serde_json::from_str(&said)
            .with_context(|| format!("what the engine tells of the image {id}"))?;
        let configs = images.into_iter().filter_map(|image| image.config?.volumes);
        Ok(configs.flat_map(BTreeMap::into_keys).collect())
    }

    /// Shows the last log lines of the container `name` in the deployment log, where there is one.
    pub fn show_log(&self, name: &str) {
        if !self.containers(None).is_ok_and(|containers| containers.iter().any(|found| found == name)) {
            return;
        }
        log!("the last log lines of the container {name}:");
        if let Err(error) = self.program(LIMIT).args(["logs", "--tail", "20", name]).run() {
            // It may have ended, and be gone, in this moment.
            log!("reading the log failed: container {name}: {error:#}");
        }
    }
}

/// What both engines tell of a container, among much else.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(rename = "RestartCount", default)]
    restarts: i64,
    state: State,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    exit_code: i64,
    /// Docker leaves it out where there is no health check; podman then says nothing in it, and before 4 called it so.
    #[serde(alias = "Healthcheck", default)]
    health: Option<Health>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(default)]
    status: String,
}

/// What the engine tells of a container.
#[derive(Debug)]
pub struct ContainerState {
    /// Changes whenever it is made or started again.
    pub incarnation: String,
    pub status: String,
    pub exit_code: i64,
    /// None where it has no health check.
    pub health: Option<String>,
}

fn installed() -> Option<CommandLine> {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH));
    let is_there =
        |name: &&str| env::split_paths(&path).any(|directory: PathBuf| is_file(&directory.join(name)));
    let program = ["podman", "docker"].into_iter().find(is_there)?.to_owned();
    Some(CommandLine { program, options: Vec::new() })
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

fn listed(line: &str) -> Result<Listed> {
    let Some((id, reference)) = line.split_once(' ') else {
        bail!("the engine lists an image as {line:?}");
    };
    let named = !reference.contains("<none>");
    Ok(Listed { id: id.to_owned().try_into()?, reference: named.then(|| reference.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_answers_are_understood_with_and_without_a_health_check() {
        let state = |text: &str| serde_json::from_str::<Inspected>(text).unwrap().state;
        let docker =
            state(r#"{"Id": "1", "RestartCount": 0, "State": {"Status": "running", "ExitCode": 0}}"#);
        assert!(docker.health.is_none());
        let podman = r#"{"Id": "1", "RestartCount": 0, "State": {"Status": "exited", "ExitCode": 3, "Health": {"Status": ""}}}"#;
        assert_eq!((state(podman).health.unwrap().status.as_str(), state(podman).exit_code), ("", 3));
    }
}
