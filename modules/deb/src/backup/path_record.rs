//! The record of every path that an update affects, with its state before anything is changed.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable;
use serde::{Deserialize, Serialize};

use crate::backup::path_state::PathState;
use crate::path_json;

/// A record on disk: one line of JSON for each path.
pub struct PathRecord(PathBuf);

/// One path with its previous state.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordedPath {
    #[serde(with = "path_json")]
    pub path: PathBuf,
    #[serde(rename = "was")]
    pub previous: PathState,
}

/// The recorded paths of one file with hard links.
struct HardLinks {
    first: PathBuf,
    total: u64,
    recorded: u64,
}

impl PathRecord {
    /// The record in the file `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn exists(&self) -> Result<bool> {
        durable::exists(&self.0)
    }

    /// Records the state of each of `paths`. A rollback restores the times of the directories in `exclusive`
    /// only.
    ///
    /// # Errors
    /// When a path cannot be read, or has a hard link that is not among `paths`, which a rollback
    /// could not restore.
    pub fn write(&self, paths: &BTreeSet<PathBuf>, exclusive: &BTreeSet<PathBuf>) -> Result<()> {
        let writing = || format!("writing {}", self.0.display());
        let mut file = BufWriter::new(File::create(&self.0).with_context(writing)?);
        let mut hard_links: HashMap<(u64, u64), HardLinks> = HashMap::new();
        for path in paths {
            let mut previous = PathState::read(path)?;
            match (&mut previous, durable::metadata(path)?) {
                (PathState::Directory { times, .. }, _) => *times = exclusive.contains(path),
                (PathState::File { link, .. }, Some(found)) if found.nlink() > 1 => {
                    let inode = (found.dev(), found.ino());
                    let links = hard_links.entry(inode).or_insert_with(|| HardLinks::new(path, &found));
                    links.recorded += 1;
                    *link = Some(links.first.clone()).filter(|first| first != path);
                }
                _ => {}
            }
            let entry = RecordedPath { path: path.clone(), previous };
            serde_json::to_writer(&mut file, &entry).with_context(writing)?;
            file.write_all(b"\n").with_context(writing)?;
        }
        hard_links.values().try_for_each(HardLinks::check_complete)?;
        file.flush().with_context(writing)
    }

    /// All recorded paths.
    pub fn paths(&self) -> Result<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        self.for_each(|entry| {
            paths.insert(entry.path);
            Ok(())
        })?;
        Ok(paths)
    }

    /// Calls `take` with every entry, in the order of the paths. The entries are read one by one, to bound
    /// the memory.
    pub fn for_each(&self, mut take: impl FnMut(RecordedPath) -> Result<()>) -> Result<()> {
        let reading = || format!("reading {} failed", self.0.display());
        let file = BufReader::new(File::open(&self.0).with_context(reading)?);
        for line in file.lines() {
            take(serde_json::from_str(&line.with_context(reading)?).with_context(reading)?)?;
        }
        Ok(())
    }
}

impl HardLinks {
    fn new(first: &Path, found: &Metadata) -> Self {
        Self { first: first.to_owned(), total: found.nlink(), recorded: 0 }
    }

    fn check_complete(&self) -> Result<()> {
        ensure!(
            self.recorded >= self.total,
            "update refused: {} has {} hard links, only {} of them belong to packages of this update, and a \
             rollback could not restore the others: make it a file of its own (cp -a, then mv)",
            self.first.display(),
            self.total,
            self.recorded
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::test_device::error;

    /// A directory with the files `a`, `b` and `c`, of which `a` and `b` are one file, and a record of them.
    fn linked() -> (TempDir, PathRecord) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a"), "1").unwrap();
        fs::hard_link(path("a"), path("b")).unwrap();
        fs::write(path("c"), "2").unwrap();
        let record = PathRecord::new(path("record"));
        (directory, record)
    }

    fn paths(directory: &TempDir, names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(|name| directory.path().join(name)).collect()
    }

    #[test]
    fn a_record_has_every_path_with_its_state() {
        let (directory, record) = linked();
        assert!(!record.exists().unwrap());
        fs::create_dir(directory.path().join("shared")).unwrap();
        let recorded = paths(&directory, &["", "a", "absent", "b", "c", "shared"]);
        record.write(&recorded, &paths(&directory, &[""])).unwrap();
        assert!(record.exists().unwrap());
        assert_eq!(record.paths().unwrap(), recorded);
        let mut states = Vec::new();
        record
            .for_each(|RecordedPath { path, previous }| {
                let state = match previous {
                    PathState::Directory { times, .. } => format!("directory {times}"),
                    PathState::File { link, size, .. } => format!("file {size} {}", link.is_some()),
                    other => format!("{other:?}"),
                };
                states.push(format!("{} {state}", path.strip_prefix(directory.path()).unwrap().display()));
                Ok(())
            })
            .unwrap();
        let expected = [
            " directory true",
            "a file 1 false",
            "absent Absent",
            "b file 1 true",
            "c file 1 false",
            "shared directory false",
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn a_hard_link_that_is_not_recorded_is_refused() {
        let (directory, record) = linked();
        let error = error(record.write(&paths(&directory, &["a", "c"]), &BTreeSet::new()));
        assert!(error.contains("/a has 2 hard links, only 1 of them"), "{error}");
    }

    #[test]
    fn an_error_ends_the_reading() {
        let (directory, record) = linked();
        record.write(&paths(&directory, &["a", "b"]), &BTreeSet::new()).unwrap();
        assert!(error(record.for_each(|entry| anyhow::bail!("{}", entry.path.display()))).ends_with("/a"));
        fs::write(directory.path().join("record"), "damaged\n").unwrap();
        assert!(error(record.paths()).contains("record"));
    }
}
