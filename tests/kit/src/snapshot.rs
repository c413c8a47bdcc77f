//! Snapshots of a directory: every name, content and attribute that an update may change, to be compared exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::mem;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FileType, lgetxattr, llistxattr};

/// A directory with everything in it, at one moment.
///
/// ```
/// use mender_update_module_test::Snapshot;
///
/// # fn main() -> anyhow::Result<()> {
/// let directory = tempfile::tempdir()?;
/// let before = Snapshot::of(directory.path())?;
/// std::fs::write(directory.path().join("added"), "text")?;
/// let after = Snapshot::of(directory.path())?.without_directory_times();
/// assert_eq!(after.differences(&before.without_directory_times()), [directory.path().join("added")]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Entry>);

/// One entry: everything but inode number, link count and change time, which no rollback can restore.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    content: Vec<u8>,
    attributes: BTreeMap<OsString, Vec<u8>>,
}

impl Snapshot {
    /// The snapshot of `root` and everything in it. If `root` does not exist, the snapshot is empty.
    pub fn of(root: &Path) -> Result<Self> {
        let mut entries = BTreeMap::new();
        if fs::symlink_metadata(root).is_ok() {
            add(root, &mut entries).with_context(|| format!("taking a snapshot of {} failed", root.display()))?;
        }
        Ok(Self(entries))
    }

    /// Adds `text` as if it were a file called `name`, for facts that are not in files.
    #[must_use]
    pub fn with_text(mut self, name: &str, text: impl Into<Vec<u8>>) -> Self {
        let (owner, modified, attributes) = ((0, 0), (0, 0), BTreeMap::new());
        let mode = FileType::RegularFile.as_raw_mode();
        self.0.insert(name.into(), Entry { mode, owner, modified, content: text.into(), attributes });
        self
    }

    /// Adds all entries of `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The text that was added as `name`, or the content of the file `name`.
    pub fn text(&self, name: &Path) -> Option<String> {
        self.0.get(name).map(|entry| String::from_utf8_lossy(&entry.content).into_owned())
    }

    /// The paths at which this snapshot and `other` differ.
    pub fn differences<'a>(&'a self, other: &'a Self) -> Vec<&'a Path> {
        let paths: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differs = |path: &&PathBuf| self.0.get(*path) != other.0.get(*path);
        paths.into_iter().filter(differs).map(PathBuf::as_path).collect()
    }

    /// The paths at which this snapshot and `other` differ, for a message.
    pub(crate) fn shown_differences(&self, other: &Self) -> String {
        let shown = |path: &Path| if path == Path::new("") { ".".to_owned() } else { path.display().to_string() };
        self.differences(other).into_iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    /// Makes paths relative to `directory`, to compare two directories.
    pub fn below(self, directory: &Path) -> Self {
        let relative = |path: PathBuf| path.strip_prefix(directory).map(Path::to_owned).unwrap_or(path);
        Self(self.0.into_iter().map(|(path, entry)| (relative(path), entry)).collect())
    }

    /// Drops modification times, for files whose times are not known in advance.
    pub fn without_times(mut self) -> Self {
        for entry in self.0.values_mut() {
            entry.modified = (0, 0);
        }
        self
    }

    /// Drops the modification times of directories: a staging directory that is made and removed changes the time of
    /// its parent.
    pub fn without_directory_times(mut self) -> Self {
        for entry in self.0.values_mut().filter(|entry| FileType::from_raw_mode(entry.mode).is_dir()) {
            entry.modified = (0, 0);
        }
        self
    }

    /// Drops directories, and files whose names end with `ending`.
    pub fn files_except(mut self, ending: &str) -> Self {
        let is_directory = |entry: &Entry| FileType::from_raw_mode(entry.mode).is_dir();
        self.0.retain(|path, entry| !is_directory(entry) && !path.to_string_lossy().ends_with(ending));
        self
    }

    /// Replaces `path` in contents with a fixed word, for files that contain the path of their device.
    pub fn with_device_path_masked(mut self, path: &Path) -> Self {
        let path = path.as_os_str().as_encoded_bytes();
        for entry in self.0.values_mut() {
            while let Some(at) = entry.content.windows(path.len()).position(|window| window == path) {
                entry.content.splice(at..at + path.len(), *b"@DEVICE@");
            }
        }
        self
    }

    /// Drops everything but names, types and contents.
    pub fn contents(mut self) -> Self {
        for entry in self.0.values_mut() {
            let mode = FileType::from_raw_mode(entry.mode).as_raw_mode();
            let content = mem::take(&mut entry.content);
            *entry = Entry { mode, owner: (0, 0), modified: (0, 0), content, attributes: BTreeMap::new() };
        }
        self
    }

    /// Drops the paths for which `unwanted` is true.
    #[must_use]
    pub fn without(mut self, unwanted: impl Fn(&Path) -> bool) -> Self {
        self.0.retain(|path, _| !unwanted(path));
        self
    }

    /// Keeps only `directory` and everything in it.
    #[must_use]
    pub fn within(self, directory: &Path) -> Self {
        self.without(|path| !path.starts_with(directory))
    }

    /// Drops `directory` and everything in it.
    pub fn except(mut self, directory: &Path) -> Self {
        self.0.retain(|path, _| !path.starts_with(directory));
        self
    }
}

fn add(path: &Path, entries: &mut BTreeMap<PathBuf, Entry>) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let content = if meta.is_symlink() {
        fs::read_link(path)?.into_os_string().into_vec()
    } else if meta.is_file() {
        fs::read(path)?
    } else {
        Vec::new()
    };
    let entry = Entry {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        modified: (meta.mtime(), meta.mtime_nsec()),
        content,
        attributes: attributes(path)?,
    };
    entries.insert(path.to_owned(), entry);
    if meta.is_dir() {
        for found in fs::read_dir(path)? {
            add(&found?.path(), entries)?;
        }
    }
    Ok(())
}

/// The extended attributes, including ACLs and capabilities.
fn attributes(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let length = llistxattr(path, &mut names)?;
    names.truncate(length);
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = OsString::from_vec(name.to_vec());
            let mut value = vec![0; 64 << 10];
            let length = lgetxattr(path, &name, &mut value)?;
            value.truncate(length);
            Ok((name, value))
        })
        .collect()
}
