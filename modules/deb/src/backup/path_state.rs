//! The state of a path: its type, attributes, and the checksum of its content.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mender_update_module::durable::{self, Attributes, Dir};
use serde::{Deserialize, Serialize};

use crate::path_json;
use crate::paths::sha256;

/// The state of a path.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathState {
    Absent,
    File {
        attributes: Attributes,
        size: u64,
        sha256: String,
        /// Another recorded path of the same file, a hard link.
        #[serde(with = "path_json::optional")]
        link: Option<PathBuf>,
    },
    Symlink {
        attributes: Attributes,
        #[serde(with = "path_json")]
        target: PathBuf,
        /// Whether it leads to a directory: dpkg follows it then.
        to_directory: bool,
    },
    Directory {
        attributes: Attributes,
        /// Whether a rollback restores its times: not if other packages have it, too, which may change them.
        times: bool,
    },
    /// A pipe, device or socket.
    Node {
        attributes: Attributes,
        kind: u32,
        device: u64,
    },
}

impl PathState {
    /// Reads the state of `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let Some(found) = durable::metadata(path)? else { return Ok(Self::Absent) };
        let kind = found.file_type();
        if kind.is_dir() {
            return Ok(Self::Directory { attributes: sorted(Dir::open(path)?.attributes()?), times: false });
        }
        if kind.is_file() {
            let (attributes, sha256) = (sorted(durable::attributes(path)?), sha256(path)?);
            return Ok(Self::File { attributes, size: found.len(), sha256, link: None });
        }
        // The other types cannot be opened to read extended attributes. A symlink has none of users.
        let attributes = Attributes {
            owner: found.uid(),
            group: found.gid(),
            mode: found.mode() & 0o7777,
            modified: (found.mtime(), found.mtime_nsec()),
            extended: Vec::new(),
        };
        if kind.is_symlink() {
            let target =
                fs::read_link(path).with_context(|| format!("reading the symlink {} failed", path.display()))?;
            return Ok(Self::Symlink { attributes, target, to_directory: path.is_dir() });
        }
        let is_device = kind.is_char_device() || kind.is_block_device();
        let device = if is_device { found.rdev() } else { 0 };
        Ok(Self::Node { attributes, kind: found.mode() & !0o7777, device })
    }

    /// Describes how `now`, the present state of `path`, differs from this state. Times of directories do not
    /// count.
    pub fn difference(&self, now: &Self, path: &Path) -> Result<Option<String>> {
        let difference = match (self, now) {
            (Self::File { sha256, size, link, .. }, Self::File { sha256: sha256_now, size: size_now, .. }) => {
                if (sha256, size) != (sha256_now, size_now) {
                    Some("content differs".to_owned())
                } else {
                    link.as_ref().map(|first| link_difference(first, path)).transpose()?.flatten()
                }
            }
            (Self::Symlink { target, .. }, Self::Symlink { target: target_now, .. }) => (target != target_now)
                .then(|| format!("symlink to {} instead of {}", target_now.display(), target.display())),
            (Self::Node { kind, device, .. }, Self::Node { kind: kind_now, device: device_now, .. }) => {
                ((kind, device) != (kind_now, device_now)).then(|| "type or device number differs".to_owned())
            }
            (Self::Absent, Self::Absent) | (Self::Directory { .. }, Self::Directory { .. }) => None,
            _ => Some(format!("{} instead of {}", now.type_name(), self.type_name())),
        };
        let of_attributes = || self.attributes().and_then(|attributes| attribute_difference(attributes, now));
        Ok(difference.or_else(of_attributes))
    }

    fn type_name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::File { .. } => "file",
            Self::Symlink { .. } => "symlink",
            Self::Directory { .. } => "directory",
            Self::Node { .. } => "pipe, device or socket",
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
}

fn link_difference(first: &Path, path: &Path) -> Result<Option<String>> {
    let inode = |path: &Path| anyhow::Ok(durable::metadata(path)?.map(|found| (found.dev(), found.ino())));
    let is_same = inode(first)? == inode(path)?;
    Ok((!is_same).then(|| format!("no longer a hard link to {}", first.display())))
}

fn attribute_difference(before: &Attributes, now: &PathState) -> Option<String> {
    let is_directory = matches!(now, PathState::Directory { .. });
    let now = now.attributes()?;
    let mut differences = Vec::new();
    if (before.owner, before.group) != (now.owner, now.group) {
        let (owner, group) = (before.owner, before.group);
        differences.push(format!("owner {}:{} instead of {owner}:{group}", now.owner, now.group));
    }
    if before.mode != now.mode {
        differences.push(format!("mode {:04o} instead of {:04o}", now.mode, before.mode));
    }
    if before.modified != now.modified && !is_directory {
        differences.push("modification time differs".to_owned());
    }
    if before.extended != now.extended {
        differences.push("extended attributes differ".to_owned());
    }
    (!differences.is_empty()).then(|| differences.join(", "))
}

/// The kernel lists extended attributes in the order in which they were set.
fn sorted(mut attributes: Attributes) -> Attributes {
    attributes.extended.sort();
    attributes
}
