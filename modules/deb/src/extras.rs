//! Extended attributes and times of files, as journals hold them that were written before there was a
//! [`Record`](crate::record::Record): an update that such a version began is rolled back by this one.

use std::path::PathBuf;

use anyhow::Result;
use mender_update_module::durable::{self, Attributes, Dir};
use serde::{Deserialize, Serialize};

/// Files and directories with all that they have, as far as that is more than a package can hold.
#[derive(Default, Serialize, Deserialize)]
pub struct Extras {
    files: Vec<(PathBuf, Attributes)>,
    folders: Vec<(PathBuf, Attributes)>,
}

impl Extras {
    /// Gives files and directories what they had, as far as they are there again: dpkg may be told to leave some out.
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
