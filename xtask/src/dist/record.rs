//! What `dist` remembers of a package it has made: the key of its inputs and the hash of the file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::cache;

/// Whether `deb` is the very file that was made of the inputs with this key.
pub fn holds(target: &Path, deb: &Path, key: &str) -> bool {
    let (Ok(recorded), Ok(content)) = (fs::read_to_string(path(target, deb)), fs::read(deb)) else {
        return false;
    };
    recorded == line(key, &content)
}

/// Remembers that `deb` was made of the inputs with this key.
pub fn write(target: &Path, deb: &Path, key: &str) -> Result<()> {
    let content = fs::read(deb).with_context(|| format!("reading the new package {}", deb.display()))?;
    let path = path(target, deb);
    fs::write(&path, line(key, &content)).with_context(|| format!("writing {}", path.display()))
}

fn line(key: &str, content: &[u8]) -> String {
    format!("{key} {}\n", cache::sha256(content))
}

fn path(target: &Path, deb: &Path) -> PathBuf {
    let name = deb.file_name().unwrap_or_default();
    target.join(name).with_extension("deb.made-of")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_or_altered_package_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let deb = folder.path().join("a_1_arm64.deb");
        assert!(!holds(folder.path(), &deb, "key"));
        fs::write(&deb, "made").unwrap();
        write(folder.path(), &deb, "key").unwrap();
        assert!(holds(folder.path(), &deb, "key"));
        assert!(!holds(folder.path(), &deb, "other key"));
        fs::write(&deb, "altered").unwrap();
        assert!(!holds(folder.path(), &deb, "key"));
        fs::remove_file(&deb).unwrap();
        assert!(!holds(folder.path(), &deb, "key"));
    }
}
