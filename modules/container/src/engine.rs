//! The container engine, podman or docker, run as a program. Only commands that both understand in the same way are
//! used.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{self, Dir};
use mender_update_module::{Program, log};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::container_status::ContainerStatus;
use crate::engine_kind::EngineKind;
use crate::image::{ImageId, Reference};
use crate::load_directory::LoadDirectory;
use crate::settings::{CommandLine, Settings};
use crate::unit::command_line;

/// The time limit for commands of the engine other than a load. On slow storage, its start takes half a minute.
const LIMIT: Duration = Duration::from_secs(300);

/// The directory for temporary files of a podman that does not report one.
const TMP_DIR: &str = "/var/tmp";

/// The name of containerd's image store among the properties of docker's storage.
const CONTAINERD: &str = "io.containerd.snapshotter";

/// The default directory of containerd's images.
const CONTAINERD_STORAGE: &str = "/var/lib/containerd";

/// The directories of programs if `PATH` is not set.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A container engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Engine {
    command: CommandLine,
    pub kind: EngineKind,
    /// The directory of its images.
    pub storage: PathBuf,
    /// The directory for its temporary files during a load. `None` for docker, whose service has its own directory
    /// and empties it when it starts, and in the journal of a version of this module without such a directory.
    #[serde(rename = "scratch", default)]
    pub load_directory: Option<LoadDirectory>,
    /// Docker with containerd's image store: an image that loses its last name is removed, and its ID is not the
    /// digest of its configuration.
    #[serde(default)]
    pub containerd: bool,
    load_seconds: u64,
}

/// An image in the engine's list, with one reference. An image with several references is listed several times.
#[derive(Debug, PartialEq, Eq)]
pub struct ListedImage {
    pub id: ImageId,
    /// `None` for an image without references. The engine lists one with a digest as `NAME:<none>`.
    pub reference: Option<String>,
}

/// The file system of an engine's images, since it was opened: the kernel reports a write that is lost later, even if
/// another program has synced the file system first.
pub struct Storage {
    path: PathBuf,
    /// `None` if it did not exist.
    directory: Option<Dir>,
}

impl Storage {
    /// Makes images and their names durable. podman does not sync the layers of an image: after a power loss without
    /// this, podman 5.4 lists the image, and cannot start a container of it (`readlink …/overlay/l: invalid argument`).
    ///
    /// # Errors
    /// When the storage fails.
    pub fn sync(&self) -> Result<()> {
        let synced = match &self.directory {
            Some(directory) => directory.sync_filesystem(),
            None if durable::exists(&self.path)? => Dir::open(&self.path).and_then(|made| made.sync_filesystem()),
            None => {
                log!("images not synced: {}, the engine's storage, is not on this device", self.path.display());
                Ok(())
            }
        };
        synced.context("making the engine's images durable failed")
    }
}

impl Engine {
    /// The engine in the settings, else podman, else docker.
    ///
    /// # Errors
    /// When none is installed, or its service does not run: with the remedy.
    pub fn choose(settings: &Settings) -> Result<Self> {
        let command = match &settings.engine {
            Some(command) => command.clone(),
            None => installed().context(
                "no container engine found: install podman or docker, or set engine in \
                 /etc/mender-modules/container.toml",
            )?,
        };
        let kind = if command.program.ends_with("docker") { EngineKind::Docker } else { EngineKind::Podman };
        let engine = Self {
            command,
            kind,
            storage: PathBuf::new(),
            load_directory: None,
            containerd: false,
            load_seconds: settings.load_seconds,
        };
        engine.with_directories(settings)
    }

    /// The file system of images and their names. Open it before the engine changes something there.
    ///
    /// # Errors
    /// When its directory exists and cannot be opened.
    pub fn open_storage(&self) -> Result<Storage> {
        let path = self.storage.clone();
        let directory = if durable::exists(&path)? { Some(Dir::open(&path)?) } else { None };
        Ok(Storage { path, directory })
    }

    /// An engine with default settings, for a check on another machine than the device. It is never run.
    pub fn assumed(kind: EngineKind) -> Self {
        let (program, storage) = match kind {
            EngineKind::Podman => ("podman", "/var/lib/containers/storage"),
            EngineKind::Docker => ("docker", "/var/lib/docker"),
        };
        Self {
            command: CommandLine { program: program.to_owned(), options: Vec::new() },
            kind,
            storage: storage.into(),
            load_directory: None,
            containerd: false,
            load_seconds: Settings::default().load_seconds,
        }
    }

    /// The engine with the directories that it reports.
    fn with_directories(mut self, settings: &Settings) -> Result<Self> {
        let fields = match self.kind {
            EngineKind::Podman => "{{.Store.GraphRoot}}\n{{.Store.ImageCopyTmpDir}}",
            EngineKind::Docker => "{{.DockerRootDir}}\n{{json .DriverStatus}}",
        };
        let output = self.output(["info", "--format", fields]).with_context(|| match self.kind {
            EngineKind::Docker if !is_program(&self.command.program) => {
                "docker not found: install docker-cli (Debian 13) or docker.io (Debian 12)"
            }
            EngineKind::Podman => "podman does not work: run 'podman info' to see why",
            EngineKind::Docker => "docker does not answer: start its service with 'systemctl start docker.service'",
        })?;
        let (storage, more) = output.trim_end().split_once('\n').unwrap_or((output.trim_end(), ""));
        self.storage = storage.into();
        if self.kind == EngineKind::Docker && more.contains(CONTAINERD) {
            self.containerd = true;
            // Docker does not report the storage of its containerd.
            let default = Path::new(CONTAINERD_STORAGE);
            self.storage = if default.is_dir() { default.to_owned() } else { self.storage };
        }
        ensure!(
            self.storage.is_absolute(),
            "unexpected output of the engine: storage {output:?}: not an absolute path"
        );
        if self.kind == EngineKind::Podman {
            let reported = if more.is_empty() { TMP_DIR } else { more };
            let tmp_dir = settings.tmp_dir.as_deref().unwrap_or(Path::new(reported));
            ensure!(
                tmp_dir.is_absolute(),
                "unexpected output of the engine: directory for temporary files {tmp_dir:?}: not an absolute path"
            );
            self.load_directory = Some(LoadDirectory::new_in(tmp_dir)?);
        }
        Ok(self)
    }

    /// The program and its options, for the command lines of a unit.
    pub fn words(&self) -> Vec<String> {
        self.command.clone().into()
    }

    /// The dependencies of a unit that runs the engine, as lines of its section `[Unit]`. While docker's service does
    /// not run, the unit fails, and systemd restarts it until the service runs again.
    ///
    /// # Errors
    /// When the path of the storage cannot be in a unit.
    pub fn unit_dependencies(&self) -> Result<String> {
        let storage = self.storage.to_str().context("invalid path of the engine's storage: not UTF-8")?;
        let mounts = format!("RequiresMountsFor={}\n", command_line(&[storage])?);
        Ok(match self.kind {
            EngineKind::Podman => mounts,
            EngineKind::Docker => format!("{mounts}Wants=docker.service\nAfter=docker.service\n"),
        })
    }

    fn program(&self, limit: Duration) -> Program {
        Program::new(&self.command.program, limit).args(&self.command.options)
    }

    fn output<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        let output = self.program(LIMIT).args(arguments).output()?;
        String::from_utf8(output).context("unexpected output of the engine: not UTF-8")
    }

    fn run<const N: usize>(&self, arguments: [&str; N]) -> Result<()> {
        self.output(arguments).map(drop)
    }

    /// All images, once for every reference.
    pub fn images(&self) -> Result<Vec<ListedImage>> {
        let output = self.output(["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"])?;
        output.lines().filter(|line| !line.is_empty()).map(listed).collect()
    }

    /// Streams `archive` into the engine. The caller compares the lists of images to find the new ones, and calls
    /// [`remove_temporary_files`](Self::remove_temporary_files).
    pub fn load(&self, archive: &mut impl Read) -> Result<()> {
        let mut program = self.program(Duration::from_secs(self.load_seconds)).args(["load", "--quiet"]);
        if let Some(directory) = &self.load_directory {
            directory.make()?;
            program = program.env("TMPDIR", directory.path());
        }
        // The output has only names that this module gave the images.
        program.feed(archive).map(drop)
    }

    /// Removes the temporary files of loads. A failure is logged and does not fail the update: the files only take
    /// space.
    pub fn remove_temporary_files(&self) {
        if let Some(Err(error)) = self.load_directory.as_ref().map(LoadDirectory::remove) {
            log!("removing the engine's temporary files failed: {error:#}: remove them by hand");
        }
    }

    /// Gives the image `id` the name `reference`.
    pub fn tag(&self, id: &ImageId, reference: &Reference) -> Result<()> {
        self.run(["tag", &id.to_string(), reference.as_ref()])
    }

    /// Removes the name `reference` of the image `id`, and keeps the image, also if it has no other name. docker has no
    /// such command.
    pub fn untag(&self, id: &ImageId, reference: &Reference) -> Result<()> {
        self.run(["untag", &id.to_string(), reference.as_ref()])
    }

    /// Removes `name`, a reference to the image `id` or the ID itself. With its last reference the image is removed.
    /// An image that a container uses is kept, which is no error. Images without a name of which it is made are kept.
    pub fn remove(&self, name: &str, id: &ImageId) -> Result<()> {
        let Err(error) = self.run(["rmi", "--no-prune", name]) else { return Ok(()) };
        let filter = format!("ancestor={id}");
        // Podman lists the remains of an interrupted container only with this option.
        let external = (self.kind == EngineKind::Podman).then_some("--external");
        let list = self.program(LIMIT).args(["ps", "--all"]).args(external);
        let users = list.args(["--filter", &filter, "--format", "{{.Names}}"]).output()?;
        let users = String::from_utf8_lossy(&users);
        if users.trim().is_empty() {
            return Err(error.context(format!("removing the image {name} failed")));
        }
        log!("image kept: {name}: used by the containers {}", users.trim().replace('\n', " "));
        Ok(())
    }

    /// The names of all containers, running or not, or of those with `label`.
    pub fn containers(&self, label: Option<&str>) -> Result<Vec<String>> {
        let filter = label.map(|label| format!("--filter=label={label}"));
        let list = self.program(LIMIT).args(["ps", "--all"]).args(filter).args(["--format", "{{.Names}}"]);
        let output = list.output()?;
        Ok(String::from_utf8_lossy(&output).lines().map(str::to_owned).collect())
    }

    /// The names of podman's pods.
    pub fn pods(&self) -> Result<Vec<String>> {
        let output = self.output(["pod", "ps", "--format", "{{.Name}}"])?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// The status of the container `name`; `None` if it does not exist.
    pub fn container(&self, name: &str) -> Result<Option<ContainerStatus>> {
        // The engine would log an error about a container that does not exist, at every poll.
        if !self.has_container(name)? {
            return Ok(None);
        }
        let output = self.output(["container", "inspect", name])?;
        ContainerStatus::parse(&output)
            .with_context(|| format!("unexpected output of the engine about the container {name}"))
    }

    fn has_container(&self, name: &str) -> Result<bool> {
        Ok(self.containers(None)?.iter().any(|found| found == name))
    }

    /// The directories that the image `id` declares as volumes.
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
        let output = self.output(["image", "inspect", &id.to_string()])?;
        let images: Vec<Image> = serde_json::from_str(&output)
            .with_context(|| format!("unexpected output of the engine about the image {id}"))?;
        let configs = images.into_iter().filter_map(|image| image.config?.volumes);
        Ok(configs.flat_map(BTreeMap::into_keys).collect())
    }

    /// Shows the last log lines of the container `name` in the deployment log, if the container exists.
    pub fn show_log(&self, name: &str) {
        if !self.has_container(name).unwrap_or(false) {
            return;
        }
        log!("last log lines of the container {name}:");
        if let Err(error) = self.program(LIMIT).args(["logs", "--tail", "20", name]).run() {
            // It may have been removed meanwhile.
            log!("reading the log failed: container {name}: {error:#}");
        }
    }
}

/// Whether `program`, a path or a name in `PATH`, exists.
fn is_program(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH));
    // A path replaces the directory that it is joined to.
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn installed() -> Option<CommandLine> {
    let program = ["podman", "docker"].into_iter().find(|name| is_program(name))?.to_owned();
    Some(CommandLine { program, options: Vec::new() })
}

fn listed(line: &str) -> Result<ListedImage> {
    let Some((id, reference)) = line.split_once(' ') else {
        bail!("unexpected output of the engine: image {line:?}");
    };
    let is_named = !reference.starts_with("<none>");
    Ok(ListedImage { id: id.to_owned().try_into()?, reference: is_named.then(|| reference.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `Requires`, systemd would stop the units with docker, and would not start them again.
    #[test]
    fn units_start_docker_and_do_not_end_with_it() {
        let dependencies = Engine::assumed(EngineKind::Docker).unit_dependencies().unwrap();
        let mut lines = dependencies.lines().filter(|line| line.contains("docker.service"));
        assert_eq!((lines.next(), lines.next()), (Some("Wants=docker.service"), Some("After=docker.service")));
        assert_eq!(lines.next(), None);
        assert!(!Engine::assumed(EngineKind::Podman).unit_dependencies().unwrap().contains("docker"));
    }
}
