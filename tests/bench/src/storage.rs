//! The block device under a directory: syncs its file system, and reads the number of written bytes.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{major, minor, syncfs};

/// The kernel's unit of these counters, whatever sector size the block device has.
const SECTOR: u64 = 512;

/// The index of the number of written sectors in `/sys/dev/block/*/stat`.
const SECTORS_WRITTEN: usize = 6;

/// The file system that is measured.
pub struct Storage {
    directory: File,
    counters: PathBuf,
}

impl Storage {
    /// The file system of `directory`.
    pub fn of(directory: &Path) -> Result<Self> {
        let opened = File::open(directory).with_context(|| format!("opening {} failed", directory.display()))?;
        let metadata =
            opened.metadata().with_context(|| format!("reading the metadata of {} failed", directory.display()))?;
        let device = metadata.dev();
        let counters = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
        Ok(Self { directory: opened, counters: counters.into() })
    }

    /// Writes all cached data of the file system to the storage.
    pub fn sync(&self) -> Result<()> {
        syncfs(&self.directory).context("syncing the measured file system failed")
    }

    /// The number of bytes that all programs ever wrote to the block device; `None` if the file system has no block
    /// device of its own, as on tmpfs and btrfs.
    pub fn written(&self) -> Option<u64> {
        sectors(&fs::read_to_string(&self.counters).ok()?).map(|sectors| sectors * SECTOR)
    }
}

fn sectors(counters: &str) -> Option<u64> {
    counters.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seventh_counter_is_written_sectors() {
        let line = "   77236    26556  7037082    27978    31123    25197  5292208    14541        0     9476";
        assert_eq!(sectors(line), Some(5_292_208));
        assert_eq!(sectors(""), None);
    }
}
