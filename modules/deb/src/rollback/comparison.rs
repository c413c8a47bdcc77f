//! Compares the device with the record of paths.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use crate::backup::path_record::{PathRecord, RecordedPath};
use crate::backup::path_state::PathState;

/// The result of a comparison.
#[derive(Default)]
pub struct Comparison {
    /// The number of paths that were compared.
    pub compared: usize,
    /// The paths that differ from the record, each with a description.
    pub differences: BTreeMap<PathBuf, String>,
    /// Directories that were absent, and now have files of other programs in them.
    pub not_empty: Vec<PathBuf>,
}

/// Compares every path in `record` with its previous state.
pub fn compare(record: &PathRecord) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    record.for_each(|RecordedPath { path, previous }| {
        comparison.compared += 1;
        let now = PathState::read(&path)?;
        if previous == PathState::Absent && matches!(now, PathState::Directory { .. }) {
            comparison.not_empty.push(path);
        } else if let Some(difference) = previous.difference(&now, &path)? {
            comparison.differences.insert(path, difference);
        }
        Ok(())
    })?;
    Ok(comparison)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn paths_that_differ_are_found_and_directories_of_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("changed"), "1").unwrap();
        fs::write(path("same"), "1").unwrap();
        fs::create_dir(path("directory")).unwrap();
        let record = PathRecord::new(path("record"));
        let paths = ["absent", "changed", "directory", "new", "new directory", "same"].map(path).into();
        record.write(&paths, &[].into()).unwrap();
        fs::write(path("changed"), "2").unwrap();
        fs::write(path("new"), "").unwrap();
        fs::create_dir(path("new directory")).unwrap();
        let Comparison { compared, differences, not_empty } = compare(&record).unwrap();
        assert_eq!((compared, not_empty), (6, vec![path("new directory")]));
        let expected = [(path("changed"), "content differs".into()), (path("new"), "file instead of absent".into())];
        assert_eq!(differences, expected.into());
    }
}
