//! A project as it is on the device: a directory with the units of its services and a list of what they need.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Dir};
use mender_update_module::{FileName, log};
use serde::{Deserialize, Serialize};

use crate::image::{ImageId, Reference};
use crate::name::Name;

/// The list, in the project's directory, beside the units.
const LIST: &str = "project.json";

/// How names begin that keep images from being taken for unused.
pub const KEPT: &str = "localhost/mender-kept/";

/// The directory of the files that the artifact carries, in the project's.
pub const FILES: &str = "files";

/// What a project needs and runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its images: what units start, and what they were called.
    pub images: Vec<(ImageId, Reference)>,
    /// The engine's IDs of images that the artifact gave other IDs, by these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resolved: BTreeMap<ImageId, ImageId>,
    /// In the order in which they are started.
    pub services: Vec<Service>,
    /// Every unit file, those of networks and volumes that services pull in among them.
    pub units: Vec<FileName>,
    /// The pods that its units make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// The directory that it was read from.
    #[serde(skip)]
    pub directory: PathBuf,
}

/// A unit that is started, and its containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub unit: String,
    pub containers: Containers,
    /// It does something once and is well when that has succeeded.
    pub oneshot: bool,
}

/// How a service's containers are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Containers {
    Named(String),
    Labelled(String),
}

/// A file of a project: its name and content.
pub type File = (FileName, String);

impl Project {
    /// Writes the project with its `files` into the new directory `directory`, not durably yet.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path, files: &[File]) -> Result<()> {
        let list = serde_json::to_string_pretty(self).context("putting the project into JSON")?;
        for (name, content) in files.iter().chain([&(FileName::new(LIST)?, list)]) {
            durable::write_file(&directory.join(name), content.as_bytes())?;
        }
        Ok(())
    }

    /// The project in `directory`; one that runs nothing where there is none.
    ///
    /// # Errors
    /// When its list cannot be read.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(LIST);
        if !durable::exists(&path)? {
            return Ok(Self::default());
        }
        let text = read_own(&path)?;
        let project: Self = serde_json::from_slice(&text).with_context(|| {
            format!("{} was not written by this module: install the project again", path.display())
        })?;
        Ok(Self { directory: directory.to_owned(), ..project })
    }

    /// The names of the units that are started.
    pub fn started(&self) -> Vec<&str> {
        self.services.iter().map(|service| service.unit.as_str()).collect()
    }
}

/// The name that keeps the image `id` of project `name`.
///
/// # Errors
/// When it is too long for one.
pub fn keeper(name: &Name, id: &ImageId) -> Result<Reference> {
    format!("{}{}", keepers(name), id.short()).try_into()
}

/// How the names that keep images of project `name` begin.
pub fn keepers(name: &Name) -> String {
    format!("{KEPT}{name}:")
}

/// Reads `path`, a file of this module's that says what runs as root.
///
/// # Errors
/// When it, or its directory, is a symlink or may be written to by somebody else.
pub fn read_own(path: &Path) -> Result<Vec<u8>> {
    if let Some(directory) = path.parent() {
        check_own(directory)?;
    }
    check_own(path)?;
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Refuses a file or directory that is not this module's alone.
///
/// # Errors
/// When it is a symlink, or belongs to somebody else or may be written to by them.
pub fn check_own(path: &Path) -> Result<()> {
    let failed = || format!("looking at {}", path.display());
    let found = fs::symlink_metadata(path).with_context(failed)?;
    let me = fs::metadata("/proc/self").context("looking at /proc/self: is /proc mounted?")?.uid();
    ensure!(
        !found.is_symlink() && found.uid() == me && found.mode() & 0o022 == 0,
        "{} is a symlink, or somebody else may write to it: remove it, and install the project again",
        path.display()
    );
    Ok(())
}

/// The directory of all projects.
pub fn directory(state: &Path) -> PathBuf {
    state.join("projects")
}

/// The directory of project `name`.
pub fn of(state: &Path, name: &Name) -> PathBuf {
    directory(state).join(name.to_string())
}

/// Every project that is live.
///
/// # Errors
/// When one cannot be read: what it needs must not be taken for unused.
pub fn all(state: &Path) -> Result<Vec<Project>> {
    directories(state)?.iter().map(|directory| Project::read(directory)).collect()
}

/// Every project that is live and can be read: one that is damaged must not keep the others from starting.
///
/// # Errors
/// When their directory cannot be read.
pub fn readable(state: &Path) -> Result<Vec<Project>> {
    let mut projects = Vec::new();
    for directory in directories(state)? {
        match Project::read(&directory) {
            Ok(project) => projects.push(project),
            Err(error) => log!("not started: {error:#}"),
        }
    }
    Ok(projects)
}

/// The directories of projects; what else somebody has put beside them is not ours.
fn directories(state: &Path) -> Result<Vec<PathBuf>> {
    let directory = directory(state);
    if !durable::exists(&directory)? {
        return Ok(Vec::new());
    }
    let is_name = |name: &&FileName| {
        let text = name.as_ref().to_str().map(str::to_owned);
        text.is_some_and(|text| Name::try_from(text).is_ok())
    };
    let names = Dir::open(&directory)?.names()?;
    let mut directories: Vec<_> = names.iter().filter(is_name).map(|name| directory.join(name)).collect();
    // One that cannot be looked at stays: it is told of, and what it needs is not taken for unused.
    directories.retain(|directory| durable::exists(&directory.join(LIST)).unwrap_or(true));
    Ok(directories)
}
