//! What a path is: to compare with what it was, and to restore it as far as no content is needed for that.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{self, Attributes, Dir};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::form;

/// What a path is or was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Was {
    Absent,
    File {
        attributes: Attributes,
        size: u64,
        sha256: String,
        /// Another recorded path of the same file.
        #[serde(with = "form::optional")]
        link: Option<PathBuf>,
    },
    Symlink {
        attributes: Attributes,
        #[serde(with = "form")]
        target: PathBuf,
        /// dpkg follows it then.
        to_directory: bool,
    },
    Directory {
        attributes: Attributes,
        /// Whether its times are restored: those of one that other packages have too are everybody's to change.
        times: bool,
    },
    /// A pipe, device or socket.
    Node {
        attributes: Attributes,
        kind: u32,
        device: u64,
    },
}

impl Was {
    pub fn look(path: &Path) -> Result<Self> {
        let Some(meta) = durable::look_at(path)? else { return Ok(Self::Absent) };
        let kind = meta.file_type();
        if kind.is_dir() {
            return Ok(Self::Directory { attributes: sorted(Dir::open(path)?.attributes()?), times: false });
        }
        if kind.is_file() {
            let (attributes, sha256) = (sorted(durable::attributes(path)?), sha256(path)?);
            return Ok(Self::File { attributes, size: meta.len(), sha256, link: None });
        }
        // None of the others can be opened for it; a symlink has no extended attributes of users.
        let attributes = Attributes {
            owner: meta.uid(),
            group: meta.gid(),
            mode: meta.mode() & 0o7777,
            modified: (meta.mtime(), meta.mtime_nsec()),
            extended: Vec::new(),
        };
        if kind.is_symlink() {
            let target =
                fs::read_link(path).with_context(|| format!("reading the symlink {}", path.display()))?;
            return Ok(Self::Symlink { attributes, target, to_directory: path.is_dir() });
        }
        let is_device = kind.is_char_device() || kind.is_block_device();
        let device = if is_device { meta.rdev() } else { 0 };
        Ok(Self::Node { attributes, kind: meta.mode() & !0o7777, device })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::File { .. } => "a file",
            Self::Symlink { .. } => "a symlink",
            Self::Directory { .. } => "a directory",
            Self::Node { .. } => "a pipe, device or socket",
        }
    }

    fn attributes(&self) -> Option<&Attributes> {
        match self {
            Self::Absent => None,
            Self::File { attributes, .. }
            | Self::Symlink { attributes, .. }
            | Self::Directory { attributes, .. }
            | Self::Node { attributes, .. } => Some(attributes),
        }
    }

    /// How `is`, what `path` is now, differs from this. Times of directories do not count.
    pub fn differs(&self, is: &Self, path: &Path) -> Result<Option<String>> {
        let how = match (self, is) {
            (Self::File { sha256, size, link, .. }, Self::File { sha256: now, size: size_now, .. }) => {
                if (sha256, size) != (now, size_now) {
                    Some("its content differs".to_owned())
                } else {
                    link.as_ref().map(|first| unlinked(first, path)).transpose()?.flatten()
                }
            }
            (Self::Symlink { target, .. }, Self::Symlink { target: now, .. }) => (target != now)
                .then(|| format!("it points to {} instead of {}", now.display(), target.display())),
            (Self::Node { kind, device, .. }, Self::Node { kind: now, device: device_now, .. }) => {
                ((kind, device) != (now, device_now)).then(|| "it is of another kind".to_owned())
            }
            (Self::Absent, Self::Absent) | (Self::Directory { .. }, Self::Directory { .. }) => None,
            _ => Some(format!("it was {} and is {}", self.name(), is.name())),
        };
        Ok(how.or_else(|| self.attributes().and_then(|was| attributes_differ(was, is))))
    }

    /// Makes `path` what it was, as far as no content is needed for that. A directory that is in the way goes if it is
    /// empty.
    pub fn restore(&self, path: &Path) -> Result<()> {
        let is = Self::look(path)?;
        if self.differs(&is, path)?.is_none() {
            return Ok(());
        }
        match (self, &is) {
            (Self::File { attributes, .. }, Self::File { attributes: now, .. }) => {
                remove_additional(path, attributes, now)?;
                durable::set_attributes(path, attributes)
            }
            (Self::Node { attributes, kind, device }, Self::Node { kind: now, device: device_now, .. })
                if (kind, device) == (now, device_now) =>
            {
                let (parent, name) = parts(path)?;
                Dir::open(parent)?.set_attributes_of_name(&name, attributes)
            }
            (Self::Directory { attributes, .. }, Self::Directory { attributes: now, .. }) => {
                remove_additional(path, attributes, now)?;
                Dir::open(path)?.set_attributes(&Attributes { modified: now.modified, ..attributes.clone() })
            }
            (Self::Directory { attributes, .. }, _) => {
                remove_in_the_way(path, &is)?;
                durable::make_dirs(path)?.set_attributes(attributes)
            }
            (Self::Symlink { attributes, target, .. }, _) => {
                remove_in_the_way(path, &is)?;
                let (parent, name) = parts(path)?;
                let parent = durable::make_dirs(parent)?;
                parent.symlink(&name, target)?;
                parent.set_attributes_of_name(&name, attributes)?;
                parent.sync()
            }
            // A file without its content: the copy or the package has that.
            _ => Ok(()),
        }
    }
}

/// Removes the extended attributes that `path` has `now` and `was` without.
fn remove_additional(path: &Path, was: &Attributes, now: &Attributes) -> Result<()> {
    for (name, _) in now.extended.iter().filter(|(name, _)| !was.extended.iter().any(|(own, _)| own == name))
    {
        rustix::fs::lremovexattr(path, name.as_os_str()).with_context(|| {
            format!("removing the extended attribute {} of {}", name.to_string_lossy(), path.display())
        })?;
    }
    Ok(())
}

fn remove_in_the_way(path: &Path, is: &Was) -> Result<()> {
    match is {
        Was::Absent => Ok(()),
        Was::Directory { .. } => {
            durable::remove_empty_dir(path)?;
            ensure!(!durable::exists(path)?, "a directory is in its place, which is not empty");
            Ok(())
        }
        _ => durable::remove_file(path),
    }
}

fn unlinked(first: &Path, path: &Path) -> Result<Option<String>> {
    let inode = |path: &Path| anyhow::Ok(durable::look_at(path)?.map(|meta| (meta.dev(), meta.ino())));
    let same = inode(first)? == inode(path)?;
    Ok((!same).then(|| format!("it was the same file as {}", first.display())))
}

fn attributes_differ(was: &Attributes, is: &Was) -> Option<String> {
    let now = is.attributes()?;
    let mut how = Vec::new();
    if (was.owner, was.group) != (now.owner, now.group) {
        how.push(format!("owner {}:{} instead of {}:{}", now.owner, now.group, was.owner, was.group));
    }
    if was.mode != now.mode {
        how.push(format!("mode {:04o} instead of {:04o}", now.mode, was.mode));
    }
    if was.modified != now.modified && !matches!(is, Was::Directory { .. }) {
        how.push("another modification time".to_owned());
    }
    if was.extended != now.extended {
        how.push("other extended attributes".to_owned());
    }
    (!how.is_empty()).then(|| how.join(", "))
}

/// The kernel lists extended attributes in the order in which they were set.
fn sorted(mut attributes: Attributes) -> Attributes {
    attributes.extended.sort();
    attributes
}

pub fn parts(path: &Path) -> Result<(&Path, FileName)> {
    let (parent, name) = path.parent().zip(path.file_name()).context("the root cannot be replaced")?;
    Ok((parent, FileName::new(name)?))
}

/// The checksum of the regular file `path`.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let reading = || format!("reading {}", path.display());
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path).with_context(reading)?, &mut hash).with_context(reading)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
