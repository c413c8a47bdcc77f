//! The user's cache directory. The key of an entry is a hash of its inputs. Entries may be deleted at any time.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::command::{run, shell_in};
use crate::packages;
use crate::status::step;

/// The name of the project's directory in the user's cache directory.
pub const NAME: &str = "mender-rust-modules";

/// The project's cache directory: `$XDG_CACHE_HOME/mender-rust-modules`, or `~/.cache/mender-rust-modules`.
///
/// # Errors
/// Neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn directory() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => {
            PathBuf::from(env::var_os("HOME").context("no cache directory: set HOME or XDG_CACHE_HOME")?).join(".cache")
        }
    };
    Ok(base.join(NAME))
}

/// The key of `parts`: the hexadecimal sha256 of each part with its length, so that different lists have different
/// keys.
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

/// The directory `kind/key` of the cache. If it is missing, `make` makes it.
///
/// `make` gets a temporary directory, which is renamed after `make` succeeded. An interrupted attempt is therefore not
/// taken for complete, and the next one removes its remains. Another process that needs the same entry waits.
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
    remove_remains(&partial)?;
    crate::directory::empty(&partial).context("creating a temporary directory in the cache failed")?;
    make(&partial)?;
    fs::rename(&partial, &complete)
        .with_context(|| format!("renaming {} to {} failed", partial.display(), complete.display()))?;
    Ok(complete)
}

/// Removes what an interrupted attempt has left in the directory `partial`. Programs that it started with sudo leave
/// files of root.
fn remove_remains(partial: &Path) -> Result<()> {
    match crate::directory::remove(partial) {
        Err(_) if packages::may_be_root() => {
            let sh = shell_in("/")?;
            step("removing the remains of an interrupted attempt", |step| {
                // Not what is mounted there, such as the host's /proc.
                run(
                    step,
                    packages::as_root(&sh, "rm")?.args(["--recursive", "--force", "--one-file-system"]).arg(partial),
                )
            })
            .map(drop)
        }
        result => result.with_context(|| {
            format!("the remains of an interrupted attempt are in the way: run sudo rm -r {}", partial.display())
        }),
    }
}

/// Whether the cache has the entry `kind/key`.
pub fn has(kind: &str, key: &str) -> Result<bool> {
    Ok(directory()?.join(kind).join(key).exists())
}

/// Creates the file `path` and locks it until it is dropped. Waits while another process has the lock. The kernel
/// unlocks the file when its process ends.
pub fn lock(path: &Path) -> Result<File> {
    let context = || format!("locking {}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(context)?;
    }
    let file = File::create(path).with_context(context)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        step(format!("waiting for the lock {}", path.display()), |_| flock(&file, FlockOperation::LockExclusive))
            .with_context(context)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("entry.lock");
        let held = lock(&path).unwrap();
        let other = File::open(&path).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(held);
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok());
    }

    #[test]
    fn keys_depend_on_the_boundaries_of_parts() {
        assert_ne!(key([&b"ab"[..], b"c"]), key([&b"a"[..], b"bc"]));
        assert_eq!(key([&b"ab"[..]]), key([&b"ab"[..]]));
    }
}
