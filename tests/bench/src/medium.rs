//! The block device under a directory: synced, and asked what was written to it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{major, minor, syncfs};

/// What the kernel calls a sector, whatever the medium has.
const SECTOR: u64 = 512;

/// Written sectors' place in `/sys/dev/block/*/stat`, counted from 0.
const SECTORS_WRITTEN: usize = 6;

/// The file system that is measured.
pub struct Medium {
    directory: File,
    counters: PathBuf,
}

impl Medium {
    /// The one that `directory` lies on.
    pub fn of(directory: &Path) -> Result<Self> {
        let opened = File::open(directory).with_context(|| format!("opening {}", directory.display()))?;
        let device = opened.metadata().with_context(|| format!("looking at {}", directory.display()))?.dev();
        let counters = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
        Ok(Self { directory: opened, counters: counters.into() })
    }

    /// Brings everything written so far to the medium.
    pub fn sync(&self) -> Result<()> {
        syncfs(&self.directory).context("syncing the file system that is measured")
    }

    /// The bytes ever written to it, by anybody; none where no block device can be told, as on tmpfs or btrfs.
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
    fn the_seventh_counter_is_what_was_written() {
        let line =
            "   77236    26556  7037082    27978    31123    25197  5292208    14541        0     9476";
        assert_eq!(sectors(line), Some(5_292_208));
        assert_eq!(sectors(""), None);
    }
}
