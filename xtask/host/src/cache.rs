//! The user's cache folder. Every entry is keyed by a hash of what made it and may be deleted at any time.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Our folder in the user's cache: `$XDG_CACHE_HOME/mender-rust-modules`, else `~/.cache/mender-rust-modules`.
///
/// # Errors
/// When neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn folder() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(
            env::var_os("HOME").context("finding the cache folder: set HOME or XDG_CACHE_HOME")?,
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

/// The folder `kind/key` of the cache, made by `make` where it is not there yet.
///
/// `make` gets a temporary folder beside it, which is renamed when `make` has succeeded: an interrupted
/// attempt is never taken for complete, and its remains go with the next one.
///
/// # Errors
/// What `make` returns, or the folder that cannot be made, removed or renamed.
pub fn entry(kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let complete = folder()?.join(kind).join(key);
    if complete.exists() {
        return Ok(complete);
    }
    let partial = complete.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("making the cache folder {}", partial.display()))?;
    make(&partial)?;
    fs::rename(&partial, &complete)
        .with_context(|| format!("renaming {} to {}", partial.display(), complete.display()))?;
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(key([&b"ab"[..], b"c"]), key([&b"a"[..], b"bc"]));
        assert_eq!(key([&b"ab"[..]]), key([&b"ab"[..]]));
    }
}
