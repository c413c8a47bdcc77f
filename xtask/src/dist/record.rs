//! The record of a package: the key of its inputs, and the hashes of the package and of its SBOM.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::cache;

/// Whether `deb` and `sbom` are unaltered and were made of the inputs with this key.
pub fn matches(target: &Path, deb: &Path, sbom: &Path, key: &str) -> bool {
    let recorded = fs::read_to_string(path(target, deb));
    recorded.is_ok_and(|recorded| line(key, deb, sbom).is_ok_and(|line| line == recorded))
}

/// Writes the record that `deb` and `sbom` were made of the inputs with this key.
pub fn write(target: &Path, deb: &Path, sbom: &Path, key: &str) -> Result<()> {
    let path = path(target, deb);
    fs::write(&path, line(key, deb, sbom)?).with_context(|| format!("writing {} failed", path.display()))
}

fn line(key: &str, deb: &Path, sbom: &Path) -> Result<String> {
    let hash = |path: &Path| {
        let content = fs::read(path).with_context(|| format!("reading {} failed", path.display()))?;
        anyhow::Ok(cache::sha256(&content))
    };
    Ok(format!("{key} {} {}\n", hash(deb)?, hash(sbom)?))
}

fn path(target: &Path, deb: &Path) -> PathBuf {
    let name = deb.file_name().unwrap_or_default();
    target.join(name).with_extension("deb.made-of")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_or_altered_file_does_not_match() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["a_1_arm64.deb", "a_1_arm64.spdx.json"].map(|name| directory.path().join(name));
        let matches = |key| matches(directory.path(), &files[0], &files[1], key);
        assert!(!matches("key"));
        for altered in &files {
            files.iter().for_each(|file| fs::write(file, "made").unwrap());
            write(directory.path(), &files[0], &files[1], "key").unwrap();
            assert!(matches("key") && !matches("other key"));
            fs::write(altered, "altered").unwrap();
            assert!(!matches("key"));
            fs::remove_file(altered).unwrap();
            assert!(!matches("key"));
        }
    }
}
