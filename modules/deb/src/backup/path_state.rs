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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;

    /// A directory with a path of each type.
    fn types() -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "abc").unwrap();
        fs::create_dir(path("directory")).unwrap();
        symlink("directory", path("to directory")).unwrap();
        symlink("file", path("to file")).unwrap();
        UnixListener::bind(path("socket")).unwrap();
        directory
    }

    fn read(directory: &TempDir, name: &str) -> PathState {
        PathState::read(&directory.path().join(name)).unwrap()
    }

    #[test]
    fn the_state_of_each_type_is_read() {
        let directory = types();
        assert_eq!(read(&directory, "absent"), PathState::Absent);
        assert!(matches!(read(&directory, "directory"), PathState::Directory { times: false, .. }));
        let PathState::File { size, sha256, link, .. } = read(&directory, "file") else { panic!("no file") };
        assert_eq!((size, &sha256[..8], link), (3, "ba7816bf", None));
        for (name, expected) in [("directory", true), ("file", false)] {
            let state = read(&directory, &format!("to {name}"));
            let PathState::Symlink { attributes, target, to_directory } = state else { panic!("no symlink") };
            assert_eq!((target.to_str(), to_directory, attributes.mode), (Some(name), expected, 0o777));
        }
    }

    #[test]
    fn nodes_have_their_type_and_a_device_has_its_number() {
        let directory = types();
        fs::set_permissions(directory.path().join("socket"), fs::Permissions::from_mode(0o1750)).unwrap();
        let PathState::Node { attributes, kind, device } = read(&directory, "socket") else { panic!("no node") };
        assert_eq!((attributes.mode, kind, device), (0o1750, 0o140_000, 0));
        let null = PathState::read(Path::new("/dev/null")).unwrap();
        let PathState::Node { kind, device, .. } = null else { panic!("no node") };
        assert_eq!((kind, device), (0o020_000, rustix::fs::makedev(1, 3)));
    }

    /// The difference between two states at a path of no importance.
    fn difference(before: &PathState, now: &PathState) -> String {
        before.difference(now, Path::new("/no/such/path")).unwrap().unwrap_or_default()
    }

    #[test]
    fn equal_states_do_not_differ_and_other_types_do() {
        let directory = types();
        let names = ["absent", "file", "to file", "directory", "socket"];
        for (name, shown) in names.iter().zip(["absent", "file", "symlink", "directory", "pipe, device or socket"]) {
            let state = read(&directory, name);
            assert_eq!(difference(&state, &state), "", "{name}");
            let other = if *name == "absent" { "file" } else { "absent" };
            let expected = format!("{shown} instead of {other}");
            assert_eq!(difference(&read(&directory, other), &state), expected);
        }
    }

    #[test]
    fn contents_targets_and_device_numbers_are_compared() {
        let directory = types();
        let before = read(&directory, "file");
        fs::write(directory.path().join("file"), "abd").unwrap();
        assert_eq!(difference(&before, &read(&directory, "file")), "content differs");
        let expected = "symlink to file instead of directory";
        assert_eq!(difference(&read(&directory, "to directory"), &read(&directory, "to file")), expected);
        let attributes = Attributes { owner: 0, group: 0, mode: 0, modified: (0, 0), extended: Vec::new() };
        let node = |device| PathState::Node { attributes: attributes.clone(), kind: 0o020_000, device };
        assert_eq!(difference(&node(1), &node(2)), "type or device number differs");
    }

    #[test]
    fn a_hard_link_is_compared_with_its_first_path() {
        let directory = types();
        let path = |name: &str| directory.path().join(name);
        fs::hard_link(path("file"), path("link")).unwrap();
        let mut before = read(&directory, "link");
        if let PathState::File { link, .. } = &mut before {
            *link = Some(path("file"));
        }
        let difference = || before.difference(&read(&directory, "link"), &path("link")).unwrap();
        assert_eq!(difference(), None);
        fs::remove_file(path("link")).unwrap();
        fs::copy(path("file"), path("link")).unwrap();
        assert_eq!(difference(), Some(format!("no longer a hard link to {}", path("file").display())));
    }

    #[test]
    fn attributes_are_compared_and_times_of_directories_are_not() {
        let attributes = Attributes { owner: 1, group: 2, mode: 0o755, modified: (3, 4), extended: Vec::new() };
        let file = |attributes: &Attributes| PathState::File {
            attributes: attributes.clone(),
            size: 0,
            sha256: String::new(),
            link: None,
        };
        let directory = |attributes: &Attributes| PathState::Directory { attributes: attributes.clone(), times: true };
        let extended = vec![("user.a".into(), b"1".to_vec())];
        for (now, of_file, of_directory) in [
            (Attributes { owner: 9, ..attributes.clone() }, "owner 9:2 instead of 1:2", "owner 9:2 instead of 1:2"),
            (Attributes { group: 9, ..attributes.clone() }, "owner 1:9 instead of 1:2", "owner 1:9 instead of 1:2"),
            (
                Attributes { mode: 0o4755, ..attributes.clone() },
                "mode 4755 instead of 0755",
                "mode 4755 instead of 0755",
            ),
            (Attributes { modified: (3, 5), ..attributes.clone() }, "modification time differs", ""),
            (Attributes { extended, ..attributes.clone() }, "extended attributes differ", "extended attributes differ"),
        ] {
            assert_eq!(difference(&file(&attributes), &file(&now)), of_file);
            assert_eq!(difference(&directory(&attributes), &directory(&now)), of_directory);
        }
    }

    #[test]
    fn extended_attributes_have_one_order() {
        let extended = ["b", "a"].map(|name| (OsString::from(name), Vec::new()));
        let attributes = Attributes { owner: 0, group: 0, mode: 0, modified: (0, 0), extended: extended.into() };
        let names: Vec<_> = sorted(attributes).extended.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
