//! The staging directory of an update, on the file system of its destination.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{self, AtFlags};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::path::NAME_MAX;
use super::removal::{mount, remove_tree_in};
use super::{Destination, Dir, Identity, Kind, Known, failed, parent_and_name};
use crate::name::FileName;

/// The number of random bytes in the name of a staging directory, if the plain name exists.
const RANDOM: usize = 6;

/// The directory for the staged and the previous version of an update. It is private, and on the mount of the
/// destination, so that files can be renamed.
///
/// ```
/// use mender_update_module::FileName;
/// use mender_update_module::durable::{Destination, Staging};
///
/// # let temporary = tempfile::tempdir()?;
/// # let root = temporary.path().canonicalize()?;
/// # std::fs::create_dir(root.join("www"))?;
/// let destination = Destination::find(&root.join("www"))?;
/// let mut staging = Staging::beside(&destination, "my-module")?;
/// assert_eq!(staging.path(), root.join(".www.my-module"));
/// staging.create(&["new"])?; // in Update::make_staging
/// staging.child(&FileName::new("new")?)?.create_file(&FileName::new("index.html")?)?;
/// staging.remove()?;
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Staging {
    parent: Known,
    name: FileName,
    /// Whether `parent` is the destination: then its times are restored.
    inside: bool,
    made: Made,
}

/// The identities of the directories that were made.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Made {
    /// The journal has none: a directory of this name is empty, or of another program.
    No,
    /// The staging directory, and the directories in it with their names.
    Yes { itself: Identity, children: Vec<(FileName, Identity)> },
    /// A journal of a build before the first release does not say.
    Unknown,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Path(PathBuf),
    Whole { parent: Known, name: FileName, inside: bool, made: Made },
}

impl TryFrom<Stored> for Staging {
    type Error = anyhow::Error;

    fn try_from(stored: Stored) -> Result<Self> {
        match stored {
            Stored::Whole { parent, name, inside, made } => Ok(Self { parent, name, inside, made }),
            Stored::Path(path) => {
                let (parent, name) = parent_and_name(&path).context("invalid staging directory")?;
                Ok(Self { parent: Known::unrecorded(parent), name, inside: false, made: Made::Unknown })
            }
        }
    }
}

impl Staging {
    /// A staging directory of the module `purpose` for `destination`: `.<name>.<purpose>` beside it; or in it, if it
    /// is a mount point; or in the nearest existing directory above it. If the name exists, random characters follow
    /// it. It makes nothing.
    ///
    /// # Errors
    /// For the root directory, and when a directory cannot be read.
    pub fn beside(destination: &Destination, purpose: &str) -> Result<Self> {
        let path = destination.path();
        let (Some(name), Some(above)) = (path.file_name(), path.parent()) else {
            bail!("destination {} refused: it is the root directory: name a directory below it", path.display());
        };
        let base = destination.base().open()?;
        let (parent, inside) = if destination.existed() {
            let above = Dir::open_exact(above)?;
            if mount(&base)? == mount(&above)? { (above, false) } else { (base, true) }
        } else {
            (base, false)
        };
        let name = free_name(&parent, name.as_bytes(), purpose)?;
        Ok(Self { parent: Known::new(&parent)?, name, inside, made: Made::No })
    }

    /// The path of the staging directory.
    pub fn path(&self) -> PathBuf {
        self.parent.path().join(&self.name)
    }

    /// The parent directory.
    ///
    /// # Errors
    /// When the path leads to another directory now.
    pub fn parent(&self) -> Result<Dir> {
        self.parent.open()
    }

    /// Makes the staging directory, with the directories `children` in it, all private. Call it only in
    /// [`Update::make_staging`](crate::Update::make_staging), after which the library writes the journal.
    pub fn create(&mut self, children: &[&str]) -> Result<()> {
        let parent = self.parent.open()?;
        self.made = self.with_parent_times(&parent, || {
            let directory = self.make_in(&parent)?;
            let make = |name: &&str| {
                let name = FileName::new(*name)?;
                let child = directory.make_child(&name, 0o700)?;
                Ok((name, child.identity()?))
            };
            let children = children.iter().map(make).collect::<Result<Vec<_>>>()?;
            Ok(Made::Yes { itself: directory.identity()?, children })
        })?;
        Ok(())
    }

    fn make_in(&self, parent: &Dir) -> Result<Dir> {
        let directory = parent.make_child(&self.name, 0o700).context("making the staging directory failed")?;
        directory.require_private()?;
        directory.remove_acls()?; // those of the parent, which everything in it would inherit
        // A user with write access to the parent may have replaced it meanwhile.
        directory.for_each_name(|name| {
            bail!("staging directory {} refused: it contains {name}: install again", directory.path().display())
        })?;
        Ok(directory)
    }

    /// Opens the staging directory.
    ///
    /// # Errors
    /// When it does not exist, was replaced, or others may write to it.
    pub fn open(&self) -> Result<Dir> {
        self.require(self.parent.open()?.child(&self.name)?)
    }

    /// Opens the directory `name` in the staging directory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn child(&self, name: &FileName) -> Result<Dir> {
        self.renamed_child(name, name)
    }

    /// Opens the directory that was made as `made`, and has the name `name` now.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn renamed_child(&self, made: &FileName, name: &FileName) -> Result<Dir> {
        let child = self.open()?.child(name)?;
        if let Some(identity) = self.identity_of(made) {
            ensure!(
                identity.is(&child.identity()?),
                "{} refused: it was replaced after the download: install again",
                child.path().display()
            );
        }
        Ok(child)
    }

    /// The identity of the directory that was made as `name`.
    pub fn identity_of(&self, name: &FileName) -> Option<&Identity> {
        let Made::Yes { children, .. } = &self.made else { return None };
        children.iter().find(|(child, _)| child == name).map(|(_, identity)| identity)
    }

    /// Removes the staging directory and everything in it, if it exists.
    ///
    /// # Errors
    /// When files cannot be removed, with the remedy; and when the directory was replaced.
    pub fn remove(&self) -> Result<()> {
        if !super::exists(self.parent.path())? {
            return Ok(());
        }
        let parent = self.parent.open()?;
        if parent.kind(&self.name)?.is_none() {
            return parent.sync(); // an interrupted call may have removed it without a sync
        }
        self.with_parent_times(&parent, || {
            if matches!(self.made, Made::No) {
                return remove_unused(&parent, &self.name);
            }
            remove_tree_in(&parent, &self.name, &self.require(parent.child(&self.name)?)?)
        })
    }

    /// Refuses `directory` if it is not the staging directory.
    fn require(&self, directory: Dir) -> Result<Dir> {
        directory.require_private()?;
        match &self.made {
            Made::Yes { itself, .. } => ensure!(
                itself.is(&directory.identity()?),
                "staging directory {} refused: it was replaced after the download: install again",
                directory.path().display()
            ),
            Made::No => {
                bail!("staging directory {} refused: it does not belong to this update", directory.path().display())
            }
            Made::Unknown => {}
        }
        Ok(directory)
    }

    /// Runs `work`, which makes or removes the staging directory, and restores the times of a destination that
    /// contains it.
    fn with_parent_times<T>(&self, parent: &Dir, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.inside {
            return work();
        }
        let times = parent.times()?;
        let done = work()?;
        parent.set_times(times)?;
        Ok(done)
    }
}

/// Removes the directory `name` in `parent` if it was made before a power loss and is not in the journal: it is
/// private, and contains only empty directories. Anything else stays.
fn remove_unused(parent: &Dir, name: &FileName) -> Result<()> {
    if parent.kind(name)? != Some(Kind::Directory) {
        return Ok(());
    }
    let directory = parent.child(name)?;
    let children = directory.names()?;
    let is_empty = |child: &FileName| -> Result<bool> {
        Ok(directory.kind(child)? == Some(Kind::Directory) && directory.child(child)?.names()?.is_empty())
    };
    for child in &children {
        if !is_empty(child)? {
            return Ok(());
        }
    }
    if directory.require_private().is_ok() {
        for child in &children {
            let _ = fs::unlinkat(&directory.fd, child.as_ref(), AtFlags::REMOVEDIR);
        }
        let _ = fs::unlinkat(&parent.fd, name.as_ref(), AtFlags::REMOVEDIR);
    }
    Ok(())
}

/// A free name in `parent`: the plain one, unless it exists.
fn free_name(parent: &Dir, destination: &[u8], purpose: &str) -> Result<FileName> {
    let name = |end: &str| {
        let end = format!(".{purpose}{end}");
        let room = NAME_MAX - 1 - end.len();
        let kept = &destination[..destination.len().min(room)];
        FileName::new(OsString::from_vec([b".", kept, end.as_bytes()].concat()))
    };
    let plain = name("")?;
    if parent.kind(&plain)?.is_none() {
        return Ok(plain);
    }
    let mut random = [0_u8; RANDOM];
    getrandom(&mut random, GetRandomFlags::empty())
        .with_context(|| failed("making a random name in", parent.path()))?;
    name(&random.iter().map(|byte| format!("{byte:02x}")).fold("-".to_owned(), |name, byte| name + &byte))
}

#[cfg(test)]
mod tests;
