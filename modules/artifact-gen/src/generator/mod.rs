//! One generator for each module.

pub mod container;
pub mod deb;
mod definition;
pub mod directory;
mod export;
pub mod web_file;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::{ArtifactContent, FileName, PayloadFile};

use crate::options::Options;
use crate::platform::{Architecture, Devices};

/// A generator of artifacts for one module.
pub trait Generator {
    /// The module's name, which is the payload type.
    const MODULE: &'static str;

    /// The keys that the module reads from the meta-data, besides those of every module.
    const META_DATA_KEYS: &'static [&'static str];

    /// The health check of an artifact that has none of its own, for the summary.
    const HEALTH_CHECK: Option<&'static str> = None;

    /// The common options.
    fn options(&self) -> &Options;

    /// Makes the payload and the meta-data. Files that are made are in the directory `tmp`.
    ///
    /// # Errors
    /// What is wrong with the input, or failed.
    fn draft(&self, tmp: &Path) -> Result<Draft>;

    /// Checks the payload with the code of the module. Files that are unpacked are in the directory `scratch`.
    ///
    /// # Errors
    /// What a device would refuse.
    fn check(&self, draft: &Draft, scratch: &Path) -> Result<Checked>;
}

/// An artifact that is not packed yet.
#[derive(Default)]
pub struct Draft {
    /// Its payload and meta-data.
    pub content: ArtifactContent,
    /// The first part of the key of the software version, unless the options have one.
    pub software_filesystem: Option<String>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// What the check of a draft found.
#[derive(Default)]
pub struct Checked {
    /// What has an architecture.
    pub architectures: Vec<Item>,
    /// What is special to the module, for the summary.
    pub facts: Vec<(&'static str, Vec<String>)>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A package or an image.
pub enum Item {
    /// A package: its name and its architecture.
    Package(String, String),
    /// An image: its name, its architecture and its variant.
    Image(String, String, String),
}

impl Item {
    /// Refuses an item that the devices do not run.
    ///
    /// # Errors
    /// Its name, and the remedy.
    pub fn require(&self, devices: &Devices) -> Result<()> {
        match self {
            Self::Package(name, of) => {
                devices.require(&format!("package {name}"), of, |device: Architecture| device.runs_package(of))
            }
            Self::Image(name, of, variant) => {
                let shown = if variant.is_empty() { of.clone() } else { format!("{of}/{variant}") };
                devices.require(&format!("image {name}"), &shown, |device| device.runs_image(of, variant))
            }
        }
    }
}

/// The payload file with the content of `path`, a regular file, under its own name.
///
/// # Errors
/// When it does not exist, or is a directory.
fn payload_file(path: &Path) -> Result<PayloadFile> {
    let found = fs::metadata(path).with_context(|| format!("reading {} failed", path.display()))?;
    ensure!(found.is_file(), "{} refused: not a regular file", path.display());
    let name = path.file_name().with_context(|| format!("{} refused: no file name", path.display()))?;
    Ok(PayloadFile { name: FileName::new(name)?, path: path.to_owned() })
}

/// The payload file with the content of `path` under the name `name`: mender-artifact packs a file under its own name,
/// so it gets a link in `tmp`.
///
/// # Errors
/// When `path` does not exist, or the link cannot be made.
fn renamed(path: &Path, name: &str, tmp: &Path) -> Result<PayloadFile> {
    let target = fs::canonicalize(path).with_context(|| format!("reading {} failed", path.display()))?;
    let directory = tmp.join("payload");
    fs::create_dir_all(&directory).with_context(|| format!("creating {} failed", directory.display()))?;
    let link = directory.join(name);
    symlink(&target, &link).with_context(|| format!("linking {} to {} failed", link.display(), target.display()))?;
    Ok(PayloadFile { name: FileName::new(OsString::from(name))?, path: link })
}

/// Refuses an artifact `output` that is written into the directory `tree`, whose content is archived: the next artifact
/// would have this one in its payload.
///
/// # Errors
/// When it is, or when a path cannot be read.
fn require_outside(output: &Path, tree: &Path) -> Result<()> {
    let resolved = |path: &Path| fs::canonicalize(path).with_context(|| format!("reading {} failed", path.display()));
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(
        !resolved(parent)?.starts_with(resolved(tree)?),
        "writing {} refused: it is in the directory {}, which is archived: name another file with --output-path",
        output.display(),
        tree.display()
    );
    Ok(())
}

/// Whether one of `files` has this name.
fn is_named(files: &[PayloadFile], name: &str) -> bool {
    files.iter().any(|file| file.name.as_ref() == Path::new(name))
}

/// Writes `content` to the payload file `name` in `tmp`.
fn made(name: &str, content: &[u8], tmp: &Path) -> Result<PayloadFile> {
    let path = place(name, tmp)?;
    fs::write(&path, content).with_context(|| format!("writing {} failed", path.display()))?;
    Ok(PayloadFile { name: FileName::new(OsString::from(name))?, path })
}

/// The path of a payload file `name` that is made in `tmp`. Links to the user's files are in another directory: what is
/// written here must not reach them.
fn place(name: &str, tmp: &Path) -> Result<PathBuf> {
    let directory = tmp.join("made");
    fs::create_dir_all(&directory).with_context(|| format!("creating {} failed", directory.display()))?;
    Ok(directory.join(name))
}
