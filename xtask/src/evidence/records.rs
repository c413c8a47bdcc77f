//! A file of records, one line of JSON each: long proofs are run in parts, and each run adds to the file of the
//! earlier ones.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::Value;

/// A file of records, to which several threads add.
pub struct Records {
    file: Mutex<File>,
    path: PathBuf,
}

impl Records {
    /// Opens the file `path`, which is created if it does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {} failed", parent.display()))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("opening {} failed", path.display()))?;
        Ok(Self { file: Mutex::new(file), path: path.to_owned() })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record.
    pub fn add(&self, record: &Value) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{record}").with_context(|| format!("writing {} failed", self.path.display()))
    }

    /// All records, those of earlier runs first.
    pub fn all(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.path).with_context(|| format!("reading {} failed", self.path.display()))?;
        let records: std::result::Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        records.with_context(|| format!("reading {} failed", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_are_added_to_those_of_earlier_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/records.jsonl");
        for number in 0..2 {
            let records = Records::open(&path).unwrap();
            records.add(&json!({ "number": number })).unwrap();
            assert_eq!(records.all().unwrap().len(), number + 1);
        }
        fs::write(&path, "{\n").unwrap();
        let error = Records::open(&path).unwrap().all().unwrap_err();
        assert!(format!("{error:#}").contains("records.jsonl"), "{error:#}");
    }
}
