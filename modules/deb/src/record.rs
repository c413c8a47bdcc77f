//! The description of every path that an update touches, written before anything is changed: by it the rollback restores what
//! no package can hold, and finds out in the end whether everything is as it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use update_module::durable::{self, Attributes, Dir};
use update_module::{FileName, say};

use crate::form;
use crate::places;

/// One path, and what it was.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(with = "form")]
    path: PathBuf,
    was: Was,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Was {
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

/// A record that is on disk.
pub struct Record {
    path: PathBuf,
}

impl Record {
    /// The record in the file `path`, whether or not it exists.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Describes what is at each of `paths`, and writes that down. Of the directories, only those among `exclusive` have
    /// their times restored.
    ///
    /// # Errors
    /// When a path cannot be read, or has a further hard link that is none of `paths`: no rollback could restore that.
    pub fn write(&self, paths: &BTreeSet<PathBuf>, exclusive: &BTreeSet<PathBuf>) -> Result<()> {
        let writing = || format!("writing {}", self.path.display());
        let mut file = BufWriter::new(File::create(&self.path).with_context(writing)?);
        let mut linked: HashMap<(u64, u64), Linked> = HashMap::new();
        for path in paths {
            let mut was = Was::look(path)?;
            match (&mut was, durable::look_at(path)?) {
                (Was::Directory { times, .. }, _) => *times = exclusive.contains(path),
                (Was::File { link, .. }, Some(meta)) if meta.nlink() > 1 => {
                    let same =
                        linked.entry((meta.dev(), meta.ino())).or_insert_with(|| Linked::new(path, &meta));
                    same.found += 1;
                    *link = Some(same.first.clone()).filter(|first| first != path);
                }
                _ => {}
            }
            serde_json::to_writer(&mut file, &Entry { path: path.clone(), was }).with_context(writing)?;
            file.write_all(b"\n").with_context(writing)?;
        }
        for same in linked.values() {
            ensure!(
                same.found >= same.links,
                "{} has {} hard links, of which only {} belong to packages of this update, and a rollback could not restore \
                 the others: make it a file of its own (cp -a, then mv)",
                same.first.display(),
                same.links,
                same.found
            );
        }
        file.flush().with_context(writing)
    }

    /// The recorded paths.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn paths(&self) -> Result<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        self.each(|entry| {
            paths.insert(entry.path);
            Ok(())
        })?;
        Ok(paths)
    }

    /// Restores what dpkg follows or leaves alone when it installs the former packages: directories, symlinks to directories,
    /// and what has become one of these. `recorded` are the [`paths`](Self::paths).
    ///
    /// # Errors
    /// When a path cannot be changed.
    pub fn restore_structure(&self, recorded: &BTreeSet<PathBuf>) -> Result<()> {
        self.each(|Entry { path, was }| {
            let found = durable::look_at(&path)?;
            let (is_directory, is_symlink) = (
                found.as_ref().is_some_and(Metadata::is_dir),
                found.as_ref().is_some_and(Metadata::is_symlink),
            );
            let is_wrong = match &was {
                Was::Absent => false,
                Was::Directory { .. } => found.is_some() && !is_directory,
                Was::Symlink { target, to_directory: true, .. } => {
                    !is_symlink || fs::read_link(&path).is_ok_and(|now| now != *target)
                }
                Was::Symlink { .. } => is_directory,
                Was::File { .. } | Was::Node { .. } => is_directory || is_symlink,
            };
            if !is_wrong {
                return Ok(());
            }
            if is_directory {
                clear(&path, recorded)?;
            } else if !matches!(was, Was::Directory { .. }) {
                durable::remove_file(&path)?;
            }
            was.restore(&path).with_context(|| format!("restoring {}", path.display()))
        })
    }

    /// Gives every path what it was, as far as that is in the record: everything but the contents of files.
    ///
    /// # Errors
    /// When the record cannot be read. What cannot be restored is logged, and told by [`compare`](Self::compare).
    pub fn restore(&self) -> Result<()> {
        let mut directories = Vec::new();
        self.each(|Entry { path, was }| {
            if let Was::Directory { attributes, times: true } = &was {
                directories.push((path.clone(), attributes.clone()));
            }
            // The comparison in the end lists it.
            if let Err(error) = was.restore(&path) {
                say(format_args!("rollback: {}: {error:#}", path.display()));
            }
            Ok(())
        })?;
        // Times of directories last: everything in them changes those.
        for (path, attributes) in directories.iter().rev() {
            if durable::look_at(path)?.is_some_and(|found| found.is_dir()) {
                let directory = Dir::open(path)?;
                if directory.attributes()? != *attributes {
                    directory.set_attributes(attributes)?;
                }
            }
        }
        Ok(())
    }

    /// The paths that were absent and are there now, the innermost first, and what dpkg or a script of its helpers has left
    /// beside any path. `recorded` are the [`paths`](Self::paths).
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn appeared(&self, recorded: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>> {
        let mut appeared = Vec::new();
        self.each(|Entry { path, was }| {
            for beside in places::beside_any(&path).filter(|beside| !recorded.contains(beside)) {
                if durable::exists(&beside)? {
                    appeared.push(beside);
                }
            }
            let staging = path.join(STAGING);
            match was {
                Was::Absent if durable::exists(&path)? => appeared.push(path),
                Was::Directory { .. } if durable::exists(&staging)? => appeared.push(staging),
                _ => {}
            }
            Ok(())
        })?;
        appeared.reverse();
        Ok(appeared)
    }

    /// Compares every path with what it was.
    ///
    /// # Errors
    /// When the record or a path cannot be read.
    pub fn compare(&self) -> Result<Comparison> {
        let mut comparison = Comparison::default();
        self.each(|Entry { path, was }| {
            comparison.compared += 1;
            let is = Was::look(&path)?;
            if was == Was::Absent && matches!(is, Was::Directory { .. }) {
                comparison.left.push(path);
            } else if let Some(how) = was.differs(&is, &path)? {
                comparison.differences.insert(path, how);
            }
            Ok(())
        })?;
        Ok(comparison)
    }

    fn each(&self, mut take: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let reading = || format!("reading {}", self.path.display());
        let file = BufReader::new(File::open(&self.path).with_context(reading)?);
        for line in file.lines() {
            take(serde_json::from_str(&line.with_context(reading)?).with_context(reading)?)?;
        }
        Ok(())
    }
}

/// What has come of a comparison.
#[derive(Default)]
pub struct Comparison {
    /// How many paths were compared.
    pub compared: usize,
    /// Those that are not what they were, and how they differ.
    pub differences: BTreeMap<PathBuf, String>,
    /// Directories that the update has made, and that could not be removed because somebody has put something into them.
    pub left: Vec<PathBuf>,
}

/// The recorded names of one file.
struct Linked {
    first: PathBuf,
    links: u64,
    found: u64,
}

impl Linked {
    fn new(first: &Path, meta: &Metadata) -> Self {
        Self { first: first.to_owned(), links: meta.nlink(), found: 0 }
    }
}

impl Was {
    fn look(path: &Path) -> Result<Self> {
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
    fn differs(&self, is: &Self, path: &Path) -> Result<Option<String>> {
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
    fn restore(&self, path: &Path) -> Result<()> {
        let is = Self::look(path)?;
        if self.differs(&is, path)?.is_none() {
            return Ok(());
        }
        match (self, &is) {
            (Self::File { attributes, .. }, Self::File { .. }) => durable::set_attributes(path, attributes),
            (Self::Directory { attributes, .. }, Self::Directory { attributes: now, .. }) => {
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

/// Removes the `recorded` paths from the directory `path`, which was none, and moves aside what anybody else has put into it.
fn clear(path: &Path, recorded: &BTreeSet<PathBuf>) -> Result<()> {
    remove_recorded(path, recorded)?;
    durable::remove_empty_dir(path)?;
    if !durable::exists(path)? {
        return Ok(());
    }
    let (parent, name) = parts(path)?;
    let parent = Dir::open(parent)?;
    let mut aside = name.as_ref().as_os_str().to_owned();
    aside.push(".mender-aside");
    let aside = FileName::new(aside)?;
    parent.rename_to_free(&name, &parent, &aside)?;
    say(format_args!(
        "rollback: {} was no directory before this update: what somebody put into it is now in {}: move it where it belongs",
        path.display(),
        parent.path().join(&aside).display()
    ));
    parent.sync()
}

/// As deep as the packages' own paths are.
fn remove_recorded(directory: &Path, recorded: &BTreeSet<PathBuf>) -> Result<()> {
    for name in Dir::open(directory)?.names()? {
        let path = directory.join(&name);
        if !recorded.contains(&path) && name.as_ref() != Path::new(STAGING) {
            continue;
        }
        if durable::look_at(&path)?.is_some_and(|found| found.is_dir()) {
            remove_recorded(&path, recorded)?;
            durable::remove_empty_dir(&path)?;
        } else {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What dpkg-maintscript-helper has in a directory that it replaces by a symlink.
const STAGING: &str = ".dpkg-staging-dir";

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

fn parts(path: &Path) -> Result<(&Path, FileName)> {
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
