//! The location of the tree: its parent directory, its name, and the tree that Download found there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{Destination, Dir, Identity, parent_and_name};
use serde::{Deserialize, Serialize};

/// The location of the tree that an update replaces.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Location {
    parent: Destination,
    name: FileName,
    /// The tree that Download found.
    found: Found,
}

#[derive(Serialize, Deserialize)]
enum Found {
    Tree(Identity),
    Nothing,
    /// A journal of a build before the first release does not say.
    Unknown,
}

/// The forms in the journal; `Path` is that of builds before the first release.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Path(PathBuf),
    Whole { parent: Destination, name: FileName, found: Found },
}

impl TryFrom<Stored> for Location {
    type Error = anyhow::Error;

    fn try_from(stored: Stored) -> Result<Self> {
        match stored {
            Stored::Whole { parent, name, found } => Ok(Self { parent, name, found }),
            Stored::Path(path) => {
                let (parent, name) = parent_and_name(&path)?;
                Ok(Self { parent: Destination::unrecorded(parent), name, found: Found::Unknown })
            }
        }
    }
}

impl Location {
    /// The location `path`, which has no symlinks.
    ///
    /// # Errors
    /// When a directory on the way cannot be opened, or the tree is not a directory or cannot be renamed.
    pub fn find(path: &Path) -> Result<Self> {
        let (parent, name) = parent_and_name(path)?;
        let parent = Destination::find(parent)?;
        let mut found = Found::Nothing;
        if let Some(above) = parent.open()? {
            above.require_changeable()?;
            if above.kind(&name)?.is_some() {
                let tree = above.child(&name)?;
                tree.require_changeable()?;
                found = Found::Tree(tree.identity()?);
            }
        }
        Ok(Self { parent, name, found })
    }

    /// The path of the tree.
    pub fn path(&self) -> PathBuf {
        self.parent.path().join(&self.name)
    }

    /// The tree's name in its parent.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// Makes the missing parent directories, as [`Destination::make`].
    pub fn make_parents(&mut self) -> Result<bool> {
        self.parent.make()
    }

    /// Removes the parent directories that this update made, as [`Destination::remove_made`].
    pub fn remove_made(&self) -> Result<()> {
        self.parent.remove_made()
    }

    /// The parent directory; `None` if it does not exist and this update has not made it.
    ///
    /// # Errors
    /// When the path leads to another directory now.
    pub fn parent(&self) -> Result<Option<Dir>> {
        self.parent.open()
    }

    /// As [`parent`](Self::parent), for a directory that has to exist.
    ///
    /// # Errors
    /// When it does not exist, or the path leads to another directory now.
    pub fn existing_parent(&self) -> Result<Dir> {
        self.parent()?.with_context(|| format!("no directory {}", self.parent.path().display()))
    }

    /// The tree that Download found, if it found one.
    ///
    /// # Errors
    /// When another tree is there now, the tree cannot be renamed, or another program has made a missing parent.
    pub fn tree(&self) -> Result<Option<Dir>> {
        let Some(parent) = self.parent.open_as_found()? else { return Ok(None) };
        parent.require_changeable()?;
        let shown = self.path();
        if parent.kind(&self.name)?.is_none() {
            ensure!(
                !matches!(self.found, Found::Tree(_)),
                "destination {} refused: it was removed or renamed after the download: install again",
                shown.display()
            );
            return Ok(None);
        }
        let tree = parent.child(&self.name)?;
        tree.require_changeable()?;
        match &self.found {
            Found::Tree(found) => ensure!(
                found.is(&tree.identity()?),
                "destination {} refused: it was replaced after the download: restore it, or install again",
                shown.display()
            ),
            Found::Nothing => bail!(
                "destination {} refused: it was made after the download: move it away, or install again",
                shown.display()
            ),
            Found::Unknown => {}
        }
        Ok(Some(tree))
    }
}
