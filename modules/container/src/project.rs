//! A project on the device: a directory with the units of its services, and a list of what they need.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{self, Dir};
use serde::{Deserialize, Serialize};

use crate::image::{ImageId, Reference};
use crate::name::Name;

/// The list, in the directory of the project, beside the units.
const LIST: &str = "project.json";

/// The directory of the artifact's files, in the directory of the project.
pub const FILES: &str = "files";

/// A project: its images, services and units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// The images that its units start, with the names that this module gave them.
    pub images: Vec<(ImageId, Reference)>,
    /// The engine's IDs of images that have other IDs in the artifact, by the latter.
    #[serde(rename = "resolved", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engine_ids: BTreeMap<ImageId, ImageId>,
    /// In the order in which they are started.
    pub services: Vec<Service>,
    /// Every unit file, including those of networks and volumes that services need.
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
    /// It does its work once, and is healthy when that has succeeded.
    pub oneshot: bool,
}

/// The containers of a service: one by its name, or all with a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Containers {
    Named(String),
    Labelled(String),
}

/// A file of a project: its name and content.
pub type File = (FileName, String);

impl Project {
    /// Writes the project with `files` into the new directory `directory`. The caller makes them durable.
    pub fn write(&self, directory: &Path, files: &[File]) -> Result<()> {
        let list = serde_json::to_string_pretty(self).context("serializing the project failed")?;
        for (name, content) in files.iter().chain([&(FileName::new(LIST)?, list)]) {
            durable::write_file(&directory.join(name), content.as_bytes())?;
        }
        Ok(())
    }

    /// The project in `directory`; an empty project if the directory has none.
    ///
    /// # Errors
    /// When the list cannot be read, or is not trusted.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(LIST);
        if !durable::exists(&path)? {
            return Ok(Self::default());
        }
        let text = read_trusted(&path)?;
        let project: Self = serde_json::from_slice(&text)
            .with_context(|| format!("invalid project file {}: install the project again", path.display()))?;
        Ok(Self { directory: directory.to_owned(), ..project })
    }

    /// Whether it is of the form `compose`.
    pub fn is_compose(&self) -> bool {
        self.services.iter().any(|service| matches!(service.containers, Containers::Labelled(_)))
    }

    /// The names of the units that are started.
    pub fn started(&self) -> Vec<&str> {
        self.services.iter().map(|service| service.unit.as_str()).collect()
    }
}

/// Reads the file `path`, which decides what runs as root.
///
/// # Errors
/// When the file or its directory is not trusted.
pub fn read_trusted(path: &Path) -> Result<Vec<u8>> {
    if let Some(directory) = path.parent() {
        require_trusted(directory)?;
    }
    require_trusted(path)?;
    fs::read(path).with_context(|| format!("reading {} failed", path.display()))
}

/// Refuses a file or directory that is a symlink, has another owner, or is writable for others.
///
/// # Errors
/// The path, and the remedy.
pub fn require_trusted(path: &Path) -> Result<()> {
    let reading = || format!("reading the owner of {} failed", path.display());
    let found = fs::symlink_metadata(path).with_context(reading)?;
    let own =
        fs::metadata("/proc/self").context("reading the owner of /proc/self failed: check that /proc is mounted")?;
    ensure!(
        !found.is_symlink() && found.uid() == own.uid() && found.mode() & 0o022 == 0,
        "{} is not trusted: it is a symlink, has another owner, or is writable for others: remove it, and install the \
         project again",
        path.display()
    );
    Ok(())
}

/// The directory of all active projects.
pub fn directory(state_directory: &Path) -> PathBuf {
    state_directory.join("projects")
}

/// The directory of the active version of `project`.
pub fn directory_of(state_directory: &Path, project: &Name) -> PathBuf {
    directory(state_directory).join(project.to_string())
}

/// Every active project.
///
/// # Errors
/// When one cannot be read: its images must not be removed as unused.
pub fn all(state_directory: &Path) -> Result<Vec<Project>> {
    directories(state_directory)?.iter().map(|directory| Project::read(directory)).collect()
}

/// Every active project, or why it cannot be read: a damaged one must not keep the others from being started.
///
/// # Errors
/// When the directory of projects cannot be read.
pub fn each(state_directory: &Path) -> Result<Vec<Result<Project>>> {
    Ok(directories(state_directory)?.iter().map(|directory| Project::read(directory)).collect())
}

/// The directories of projects. Other directories beside them are ignored.
fn directories(state_directory: &Path) -> Result<Vec<PathBuf>> {
    let directory = directory(state_directory);
    if !durable::exists(&directory)? {
        return Ok(Vec::new());
    }
    let is_name = |name: &&FileName| {
        let text = name.as_ref().to_str().map(str::to_owned);
        text.is_some_and(|text| Name::try_from(text).is_ok())
    };
    let names = Dir::open(&directory)?.names()?;
    let mut directories: Vec<_> = names.iter().filter(is_name).map(|name| directory.join(name)).collect();
    // One that cannot be read is included: the error is reported later, and its images are not removed as unused.
    directories.retain(|directory| durable::exists(&directory.join(LIST)).unwrap_or(true));
    Ok(directories)
}
