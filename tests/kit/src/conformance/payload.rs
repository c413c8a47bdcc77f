//! Payload directories: the artifact, the settings, and the device before and after the update, as data.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{MockClient, Snapshot};
use anyhow::{Context, Result, bail, ensure};

use crate::conformance::{files, layout};

/// A payload directory. [`Suite`](crate::Suite) describes its form.
pub struct Payload {
    settings: String,
    meta_data: Option<String>,
    files: Vec<(OsString, Vec<u8>)>,
    installed: Vec<Vec<u8>>,
    previous: Option<PathBuf>,
    new: Option<PathBuf>,
}

impl Payload {
    /// Reads `directory`; any part of it may be missing.
    ///
    /// # Errors
    /// When the directory is invalid: an unknown name, a file of the wrong type, settings or meta-data that cannot be
    /// parsed, or an update that would change this machine because no part names `@DEVICE@`.
    pub fn read(directory: &Path) -> Result<Self> {
        layout::check(directory)?;
        let tree = |name| Some(directory.join(name)).filter(|tree| tree.is_dir());
        let payload = Self {
            settings: text(&directory.join("settings.toml"), layout::check_toml)?.unwrap_or_default(),
            meta_data: text(&directory.join("meta-data.json"), layout::check_json)?,
            files: artifact(&directory.join("files"))?,
            installed: artifact(&directory.join("installed"))?.into_iter().map(|(_, package)| package).collect(),
            previous: tree("previous"),
            new: tree("new"),
        };
        ensure!(
            payload.stays_on_device(),
            "invalid payload directory {}: @DEVICE@ is not in settings.toml, meta-data.json or files/: the update \
             would change this machine: write each destination as @DEVICE@/PATH",
            directory.display()
        );
        Ok(payload)
    }

    /// Whether the update cannot change the machine that runs the suite: a part names the device, the device is a
    /// Debian system in which the module runs by chroot, or there is nothing to install.
    fn stays_on_device(&self) -> bool {
        let texts = [Some(self.settings.as_str()), self.meta_data.as_deref()].into_iter().flatten();
        let mut texts = texts.chain(self.files.iter().filter_map(|(_, content)| as_text(content)));
        let nothing = self.settings.trim().is_empty() && self.meta_data.is_none() && self.files.is_empty();
        self.needs_debian() || nothing || texts.any(|text| text.contains("@DEVICE@"))
    }

    /// What the suite cannot test because a part is missing, one line each.
    pub(crate) fn untested(&self) -> Vec<&'static str> {
        let new = (!self.has_new()).then_some("no new/: what an update installs is not compared");
        let previous =
            (!self.has_previous() && !self.needs_debian()).then_some("no previous/: every update is a first install");
        new.into_iter().chain(previous).collect()
    }

    /// Whether the content of the device after the update is given. Without it, nothing is compared.
    pub fn has_new(&self) -> bool {
        self.new.is_some()
    }

    /// Whether the content of the device before the update is given.
    pub fn has_previous(&self) -> bool {
        self.previous.is_some()
    }

    /// Whether the device is a Debian system, on which packages are installed.
    pub fn needs_debian(&self) -> bool {
        !self.installed.is_empty()
    }

    /// The artifact's files, with the words for `device` replaced.
    pub fn files(&self, device: &MockClient) -> Result<Vec<(OsString, Vec<u8>)>> {
        let mut files = self.files.clone();
        for (_, content) in &mut files {
            if let Some(text) = as_text(content) {
                *content = replace(text, device)?.into_bytes();
            }
        }
        Ok(files)
    }

    /// Writes the settings of the module `name`, whose executable is in the directory `beside`, to `device`, and sets
    /// the meta-data of its artifacts.
    pub fn set_up(&self, device: &mut MockClient, name: &str, beside: &Path) -> Result<()> {
        let settings = self.settings.replace("@BESIDE@", &beside.to_string_lossy());
        device.set(name, &replace(&settings, device)?)?;
        if let Some(meta_data) = &self.meta_data {
            device.set_meta_data(replace(meta_data, device)?);
        }
        Ok(())
    }

    /// Writes the previous version to `device`.
    pub fn put_previous(&self, device: &MockClient) -> Result<()> {
        if let Some(system) = device.system() {
            return system.install_packages(&self.installed);
        }
        if let Some(previous) = &self.previous {
            files::copy(previous, device.device())?;
        }
        files::age(device.device(), 0)
    }

    /// The content of the device after an update, if it is given: names, types and contents.
    pub(crate) fn new_contents(&self) -> Result<Option<Snapshot>> {
        self.new.as_ref().map(|new| Ok(Snapshot::of(new)?.below(new).contents())).transpose()
    }

    /// The directory that an update changes, relative to the device.
    pub(crate) fn destination(&self) -> Result<PathBuf> {
        let trees: Vec<&Path> = [&self.previous, &self.new].into_iter().flatten().map(PathBuf::as_path).collect();
        files::common_directory(&trees)
    }
}

/// The content of a file that may not exist. `check` sees it with the words of a device replaced, because `@UID@` and
/// `@GID@` may stand for numbers.
fn text(path: &Path, check: fn(&Path, &str) -> Result<()>) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
    check(path, &replace_words(&text, "@DEVICE@", 0, 0))?;
    Ok(Some(text))
}

/// The text of a file in which words are replaced. An archive is not text: a replacement would change its offsets.
fn as_text(content: &[u8]) -> Option<&str> {
    std::str::from_utf8(content).ok().filter(|text| !text.contains('\0'))
}

/// The files in `directory`; a directory `NAME.tar` becomes an archive of its content, `NAME.deb` a package.
fn artifact(directory: &Path) -> Result<Vec<(OsString, Vec<u8>)>> {
    let mut files = Vec::new();
    if !directory.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(directory).with_context(|| format!("listing {} failed", directory.display()))? {
        let path = entry.with_context(|| format!("listing {} failed", directory.display()))?.path();
        let content = if path.is_dir() {
            pack(&path)?
        } else {
            fs::read(&path).with_context(|| format!("reading {} failed", path.display()))?
        };
        files.push((path.file_name().unwrap_or_default().to_owned(), content));
    }
    files.sort();
    Ok(files)
}

/// Packs the content of `directory` with tar, as Mender's artifact generators do.
fn pack(directory: &Path) -> Result<Vec<u8>> {
    match directory.extension().and_then(OsStr::to_str) {
        Some("deb") => return package(directory),
        Some("tar") => {}
        _ => bail!(
            "invalid payload: {} is a directory: rename it to NAME.tar or NAME.deb to have it packed",
            directory.display()
        ),
    }
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--directory"]).args([directory, Path::new(".")]);
    run(tar)
}

/// The package of the tree `directory`, which has the directory `DEBIAN`.
fn package(directory: &Path) -> Result<Vec<u8>> {
    let package = tempfile::NamedTempFile::new().context("making a file for a package failed")?;
    let mut dpkg_deb = Command::new("dpkg-deb");
    dpkg_deb.args(["--root-owner-group", "-Znone", "--build"]).args([directory, package.path()]);
    run(dpkg_deb)?;
    fs::read(package.path()).with_context(|| format!("reading the package of {} failed", directory.display()))
}

/// The standard output of `command`.
fn run(mut command: Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("starting {command:?} failed"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Replaces the words for `device` in `text`.
fn replace(text: &str, device: &MockClient) -> Result<String> {
    let device_meta = fs::metadata(device.device()).context("reading the device's directory failed")?;
    Ok(replace_words(text, &device.device().to_string_lossy(), device_meta.uid(), device_meta.gid()))
}

fn replace_words(text: &str, device: &str, uid: u32, gid: u32) -> String {
    text.replace("@DEVICE@", device).replace("@UID@", &uid.to_string()).replace("@GID@", &gid.to_string())
}
