//! What a module is given to install, and what is to come of it: data, one directory for each module.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use mock_client::{MockClient, Snapshot};

use crate::files;

/// A payload directory, described in `tests/conformance/payloads/README.md`.
pub struct Payload {
    settings: String,
    meta_data: Option<String>,
    files: Vec<(OsString, Vec<u8>)>,
    installed: Vec<Vec<u8>>,
    old: Option<PathBuf>,
    new: Option<PathBuf>,
}

impl Payload {
    /// Reads `directory`; any part of it may be missing.
    ///
    /// # Errors
    /// When a part that is there cannot be read.
    pub fn read(directory: &Path) -> Result<Self> {
        let tree = |name| Some(directory.join(name)).filter(|tree| tree.is_dir());
        Ok(Self {
            settings: text(&directory.join("settings.toml"))?.unwrap_or_default(),
            meta_data: text(&directory.join("meta-data.json"))?,
            files: artifact(&directory.join("files"))?,
            installed: artifact(&directory.join("installed"))?
                .into_iter()
                .map(|(_, package)| package)
                .collect(),
            old: tree("old"),
            new: tree("new"),
        })
    }

    /// Whether it says what must be on the device after an update. Where it does not, nothing is compared.
    pub fn says_what_is_new(&self) -> bool {
        self.new.is_some()
    }

    /// Whether it says what is on the device before an update.
    pub fn says_what_is_old(&self) -> bool {
        self.old.is_some()
    }

    /// Whether it has packages for a Debian system.
    pub fn needs_debian(&self) -> bool {
        !self.installed.is_empty()
    }

    /// The artifact's files, as they are for `device`.
    ///
    /// # Errors
    /// When the directory of `device` cannot be looked at.
    pub fn files(&self, device: &MockClient) -> Result<Vec<(OsString, Vec<u8>)>> {
        let mut files = self.files.clone();
        for (_, content) in &mut files {
            if let Ok(text) = std::str::from_utf8(content) {
                *content = replace(text, device)?.into_bytes();
            }
        }
        Ok(files)
    }

    /// Gives module `name`, whose executable is in the directory `beside`, its settings on `device`, and the artifacts for it
    /// their meta-data.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn set_up(&self, device: &mut MockClient, name: &str, beside: &Path) -> Result<()> {
        let settings = self.settings.replace("@BESIDE@", &beside.to_string_lossy());
        device.set(name, &replace(&settings, device)?)?;
        if let Some(meta_data) = &self.meta_data {
            device.set_meta_data(replace(meta_data, device)?);
        }
        Ok(())
    }

    /// Puts on `device` what is there before the update.
    ///
    /// # Errors
    /// When it cannot be written, or a package not be installed.
    pub fn put_old(&self, device: &MockClient) -> Result<()> {
        if let Some(system) = device.system() {
            return system.install_packages(&self.installed);
        }
        if let Some(old) = &self.old {
            files::copy(old, device.device())?;
        }
        files::age(device.device(), 0)
    }

    /// What must be on a device after an update, as far as that is said: names, types and contents.
    pub(crate) fn new_contents(&self) -> Result<Option<Snapshot>> {
        self.new.as_ref().map(|new| Ok(Snapshot::of(new)?.below(new).contents())).transpose()
    }

    /// The directory that an update changes, relative to the device.
    pub(crate) fn destination(&self) -> Result<PathBuf> {
        let trees: Vec<&Path> = [&self.old, &self.new].into_iter().flatten().map(PathBuf::as_path).collect();
        files::common_directory(&trees)
    }
}

/// The content of a file that may be missing.
fn text(path: &Path) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display())).map(Some)
}

/// The files in `directory`, where a directory `NAME.tar` stands for the archive of what is in it, and `NAME.deb` for the package.
fn artifact(directory: &Path) -> Result<Vec<(OsString, Vec<u8>)>> {
    let mut files = Vec::new();
    if !directory.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))? {
        let path = entry.with_context(|| format!("listing {}", directory.display()))?.path();
        let content = if path.is_dir() {
            pack(&path)?
        } else {
            fs::read(&path).with_context(|| format!("reading {}", path.display()))?
        };
        files.push((path.file_name().unwrap_or_default().to_owned(), content));
    }
    files.sort();
    Ok(files)
}

/// Packs what is in `directory`, by tar itself: that is what makes the payloads of Mender's own generators.
fn pack(directory: &Path) -> Result<Vec<u8>> {
    match directory.extension().and_then(OsStr::to_str) {
        Some("deb") => return package(directory),
        Some("tar") => {}
        _ => bail!(
            "{} is a directory: an artifact has files only; one that is to be packed is called NAME.tar or NAME.deb",
            directory.display()
        ),
    }
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--directory"]).args([directory, Path::new(".")]);
    run(tar)
}

/// The package of which `directory` is the tree, with the directory DEBIAN.
fn package(directory: &Path) -> Result<Vec<u8>> {
    let package = tempfile::NamedTempFile::new().context("making a file for a package")?;
    let mut dpkg_deb = Command::new("dpkg-deb");
    dpkg_deb.args(["--root-owner-group", "-Znone", "--build"]).args([directory, package.path()]);
    run(dpkg_deb)?;
    fs::read(package.path()).with_context(|| format!("reading the package made of {}", directory.display()))
}

/// What `command` writes to standard output.
fn run(mut command: Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// `text` with what only the device knows.
fn replace(text: &str, device: &MockClient) -> Result<String> {
    let me = fs::metadata(device.device()).context("looking at the device's directory")?;
    Ok(text
        .replace("@DEVICE@", &device.device().to_string_lossy())
        .replace("@UID@", &me.uid().to_string())
        .replace("@GID@", &me.gid().to_string()))
}
