//! The user's cache directory. Every entry is keyed by a hash of what made it and may be deleted at any time.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::status::step;

/// Our directory in the user's cache: `$XDG_CACHE_HOME/mender-rust-modules`, else `~/.cache/mender-rust-modules`.
///
/// # Errors
/// When neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn directory() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(
            env::var_os("HOME").context("finding the cache directory: set HOME or XDG_CACHE_HOME")?,
        )
        .join(".cache"),
    };
    Ok(base.join("mender-rust-modules"))
}

/// The hexadecimal sha256 of `parts`, each with its length, so that no two lists share a key.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// The hexadecimal sha256 of `content`, as `sha256sum` prints it.
pub fn sha256(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}

/// The directory `kind/key` of the cache, made by `make` where it is not there yet.
///
/// `make` gets a temporary directory beside it, which is renamed when `make` has succeeded: an interrupted
/// attempt is never taken for complete, and its remains go with the next one. Another process that wants the
/// same entry waits for the first.
///
/// # Errors
/// What `make` returns, or the directory that cannot be made, locked, removed or renamed.
pub fn entry(kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let complete = directory()?.join(kind).join(key);
    if complete.exists() {
        return Ok(complete);
    }
    let _lock = lock(&complete.with_extension("lock"))?;
    if complete.exists() {
        return Ok(complete);
    }
    let partial = complete.with_extension("partial");
    crate::directory::empty(&partial).context("making a place in the cache directory")?;
    make(&partial)?;
    fs::rename(&partial, &complete)
        .with_context(|| format!("renaming {} to {}", partial.display(), complete.display()))?;
    Ok(complete)
}

/// Whether the cache has the entry `kind/key`.
///
/// # Errors
/// As [`directory`].
pub fn has(kind: &str, key: &str) -> Result<bool> {
    Ok(directory()?.join(kind).join(key).exists())
}

/// The file `path`, locked for this process until it is dropped; the kernel unlocks it for one that was killed.
///
/// # Errors
/// When the file or its directory cannot be made, or the file system knows no locks.
pub fn lock(path: &Path) -> Result<File> {
    let context = || format!("locking {}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(context)?;
    }
    let file = File::create(path).with_context(context)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        step(format!("waiting for whoever has {}", path.display()), |_| {
            flock(&file, FlockOperation::LockExclusive)
        })
        .with_context(context)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("entry.lock");
        let held = lock(&path).unwrap();
        let other = File::open(&path).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(held);
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok());
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(key([&b"ab"[..], b"c"]), key([&b"a"[..], b"bc"]));
        assert_eq!(key([&b"ab"[..]]), key([&b"ab"[..]]));
    }
}
