//! The record of a package: the key of its inputs, the hashes of the package and of its SBOMs, the size of its
//! executable, and the name of the C library.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::cache;

/// The files of a package: the package itself, and its SBOMs.
pub type Files<'a> = [&'a Path; 3];

/// Whether `files` are unaltered and were made of the inputs with this key.
pub fn matches(target: &Path, files: Files, key: &str) -> bool {
    let recorded = fs::read_to_string(path(target, files[0]));
    recorded.is_ok_and(|recorded| line(key, files).is_ok_and(|line| recorded.starts_with(&line)))
}

/// What a package contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The size of its executable in bytes.
    pub size: u64,
    /// The name of the C library.
    pub libc: String,
}

/// Writes the record that `files`, a package with `content`, were made of the inputs with this key.
pub fn write(target: &Path, files: Files, key: &str, content: &Content) -> Result<()> {
    let path = path(target, files[0]);
    let record = format!("{}{} {}\n", line(key, files)?, content.size, content.libc);
    fs::write(&path, record).with_context(|| format!("writing {} failed", path.display()))
}

/// The line of a record whose package another work tree has built.
const RESTORED: &str = "from the cache\n";

/// Writes into the record of `deb` that the package comes from the cache.
pub fn mark_restored(target: &Path, deb: &Path) -> Result<()> {
    let path = path(target, deb);
    let mark = || -> io::Result<()> { File::options().append(true).open(&path)?.write_all(RESTORED.as_bytes()) };
    mark().with_context(|| format!("writing {} failed", path.display()))
}

/// Whether the package `deb` comes from the cache.
pub fn is_restored(target: &Path, deb: &Path) -> bool {
    fs::read_to_string(path(target, deb)).is_ok_and(|record| record.ends_with(RESTORED))
}

/// The content of `deb` in its record.
pub fn content(target: &Path, deb: &Path) -> Result<Content> {
    let path = path(target, deb);
    let recorded = fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
    let parse = || {
        let (size, libc) = recorded.lines().nth(1)?.split_once(' ')?;
        Some(Content { size: size.parse().ok()?, libc: libc.to_owned() })
    };
    parse().with_context(|| format!("invalid record: {}: remove it and run cargo xtask dist", path.display()))
}

fn line(key: &str, files: Files) -> Result<String> {
    let mut line = key.to_owned();
    for path in files {
        let content = fs::read(path).with_context(|| format!("reading {} failed", path.display()))?;
        line = format!("{line} {}", cache::sha256(&content));
    }
    Ok(line + "\n")
}

/// The path of the record of `deb` in the directory `target`.
pub fn path(target: &Path, deb: &Path) -> PathBuf {
    let name = deb.file_name().unwrap_or_default();
    target.join(name).with_extension("deb.made-of")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_or_altered_file_does_not_match() {
        let directory = tempfile::tempdir().unwrap();
        let files =
            ["a_1_arm64.deb", "a_1_arm64.spdx.json", "a_1_arm64.cdx.json"].map(|name| directory.path().join(name));
        let matches = |key| matches(directory.path(), files.each_ref().map(PathBuf::as_path), key);
        assert!(!matches("key"));
        for altered in &files {
            files.iter().for_each(|file| fs::write(file, "made").unwrap());
            let content = Content { size: 12, libc: "musl".into() };
            write(directory.path(), files.each_ref().map(PathBuf::as_path), "key", &content).unwrap();
            assert_eq!(super::content(directory.path(), &files[0]).unwrap(), content);
            assert!(matches("key") && !matches("other key"));
            fs::write(altered, "altered").unwrap();
            assert!(!matches("key"));
            fs::remove_file(altered).unwrap();
            assert!(!matches("key"));
        }
    }
}
