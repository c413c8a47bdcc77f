//! The journal: one durable record of how far a change has come.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::durable;

/// One JSON file that outlives the work tree and every power cut: it holds the record written last, whole.
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal `journal.json` in `folder`, which need not exist yet.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("journal.json") }
    }

    /// The record written last, `None` where there is none.
    ///
    /// # Errors
    /// When the journal cannot be read, or is not what this version of the module writes.
    pub fn read<R: DeserializeOwned>(&self) -> Result<Option<R>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", self.path.display())),
        };
        let record = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} was not written by this version of the module: see what it says of the interrupted update, \
                 put its destination in order, and remove it",
                self.path.display()
            )
        })?;
        Ok(Some(record))
    }

    /// Replaces the record; on the medium on return.
    ///
    /// # Errors
    /// When it cannot be written; the record before is still there then.
    pub fn write<R: Serialize>(&self, record: &R) -> Result<()> {
        let text = serde_json::to_vec(record).context("putting the journal's record into JSON")?;
        durable::write_file(&self.path, &text)
    }

    /// Removes the record; on the medium on return.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        durable::remove_file(&self.path)
    }
}
