//! The place of a tree: the directory that it is in, its name there, and the tree that Download has found.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{Destination, Dir, Identity};
use serde::{Deserialize, Serialize};

/// Where the tree is that an update replaces.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "Form")]
pub struct Place {
    parent: Destination,
    name: FileName,
    /// The tree that was there, if one was; unknown in a journal of version 0.1.0.
    found: Found,
}

#[derive(Serialize, Deserialize)]
enum Found {
    Tree(Identity),
    Nothing,
    Unknown,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Path(PathBuf),
    Whole { parent: Destination, name: FileName, found: Found },
}

impl TryFrom<Form> for Place {
    type Error = anyhow::Error;

    fn try_from(form: Form) -> Result<Self> {
        match form {
            Form::Whole { parent, name, found } => Ok(Self { parent, name, found }),
            Form::Path(path) => {
                let (parent, name) = split(&path)?;
                Ok(Self { parent: Destination::unrecorded(parent), name, found: Found::Unknown })
            }
        }
    }
}

impl Place {
    /// The place `path`, which has no symlinks.
    ///
    /// # Errors
    /// When a directory on the way cannot be opened, or the tree is none or must not be renamed.
    pub fn find(path: &Path) -> Result<Self> {
        let (parent, name) = split(path)?;
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

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.parent.path().join(&self.name)
    }

    /// The tree's name in its parent.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// Makes the directories that are missing above it, as [`Destination::make`].
    ///
    /// # Errors
    /// As there.
    pub fn make_parents(&mut self) -> Result<bool> {
        self.parent.make()
    }

    /// Removes these again, as [`Destination::remove_made`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_made(&self) -> Result<()> {
        self.parent.remove_made()
    }

    /// The directory that it is in; `None` where that was missing and this update has not made it.
    ///
    /// # Errors
    /// When another directory has its name by now.
    pub fn parent(&self) -> Result<Option<Dir>> {
        self.parent.open()
    }

    /// The same, where it has to be there.
    ///
    /// # Errors
    /// When it is missing, or another directory has its name by now.
    pub fn existing_parent(&self) -> Result<Dir> {
        self.parent()?.with_context(|| format!("{} is missing", self.parent.path().display()))
    }

    /// The tree that is there, if one is: the one that was found in Download.
    ///
    /// # Errors
    /// When it is another one by now, or one where none was, or must not be renamed.
    pub fn tree(&self) -> Result<Option<Dir>> {
        let Some(parent) = self.parent()? else { return Ok(None) };
        parent.require_changeable()?;
        let shown = self.path();
        if parent.kind(&self.name)?.is_none() {
            ensure!(
                !matches!(self.found, Found::Tree(_)),
                "{} is missing since the download: somebody has removed or renamed it; install again",
                shown.display()
            );
            return Ok(None);
        }
        let tree = parent.child(&self.name)?;
        tree.require_changeable()?;
        match &self.found {
            Found::Tree(found) => ensure!(
                found.is(&tree.identity()?),
                "{} refused: another directory has its name since the download: somebody has replaced it; put it back, or \
                 install again",
                shown.display()
            ),
            Found::Nothing => bail!(
                "{} is there since the download, and was not before: move it away, or install again",
                shown.display()
            ),
            Found::Unknown => {}
        }
        Ok(Some(tree))
    }
}

fn split(path: &Path) -> Result<(&Path, FileName)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{} cannot be a destination", path.display());
    };
    Ok((parent, FileName::new(name)?))
}
