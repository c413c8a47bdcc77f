//! What files of packages have beside their content that no package can hold: extended attributes, such as capabilities
//! and access control lists, and times to the nanosecond. And the times of folders, which change with what is in them.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use update_module::durable::{self, Attributes, Dir};

use crate::control::Stanza;
use crate::database::{self, Database, Diversions};

/// Files and folders with all that they have, as far as that is more than a package can hold.
#[derive(Default, Serialize, Deserialize)]
pub struct Extras {
    files: Vec<(PathBuf, Attributes)>,
    folders: Vec<(PathBuf, Attributes)>,
}

impl Extras {
    /// Those of `packages`; folders that others have too are everybody's to change.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn keep(packages: &[&Stanza], database: &Database, diversions: &Diversions) -> Result<Self> {
        let files = packages.iter().map(|package| database::files_of(package)).collect::<Result<Vec<_>>>()?;
        let owners = database.owners(files.iter().flatten())?;
        let mut extras = Self::default();
        for (package, files) in packages.iter().zip(files) {
            let name = package.required("Package")?;
            for path in files {
                let place = diversions.place(&path, name);
                let Some(meta) = durable::look_at(place)? else { continue };
                if meta.is_dir() && owners.of(&path).len() == 1 {
                    extras.folders.push((place.to_owned(), Dir::open(place)?.attributes()?));
                } else if meta.is_file() {
                    let attributes = durable::attributes(place)?;
                    if meta.mtime_nsec() != 0 || !attributes.extended.is_empty() {
                        extras.files.push((place.to_owned(), attributes));
                    }
                }
            }
        }
        Ok(extras)
    }

    /// Gives files and folders what they had, as far as they are there again: dpkg may be told to leave some out.
    ///
    /// # Errors
    /// The one that cannot be given it.
    pub fn put_back(&self) -> Result<()> {
        for (path, attributes) in &self.files {
            let is_there = durable::look_at(path)?.is_some_and(|found| found.is_file());
            if is_there && durable::attributes(path)? != *attributes {
                durable::set_attributes(path, attributes)?;
            }
        }
        for (path, attributes) in &self.folders {
            if durable::look_at(path)?.is_some_and(|found| found.is_dir()) {
                Dir::open(path)?.set_attributes(attributes)?;
            }
        }
        Ok(())
    }
}
