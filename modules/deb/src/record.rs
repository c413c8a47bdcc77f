//! The description of every path that an update touches, written before anything is changed: by it the rollback restores what
//! no package can hold, and finds out in the end whether everything is as it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Dir};
use mender_update_module::{FileName, log};
use serde::{Deserialize, Serialize};

use crate::form;
use crate::places;
use crate::was::{Was, parts};

/// One path, and what it was.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(with = "form")]
    path: PathBuf,
    was: Was,
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
                log!("rollback: {}: {error:#}", path.display());
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
    log!(
        "rollback: {} was no directory before this update: what somebody put into it is now in {}: move it where it belongs",
        path.display(),
        parent.path().join(&aside).display()
    );
    parent.sync()
}

/// As deep as the packages' own paths are.
fn remove_recorded(directory: &Path, recorded: &BTreeSet<PathBuf>) -> Result<()> {
    // The directory is closed before the next level is opened.
    let names = Dir::open(directory)?.names()?;
    for name in names {
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
