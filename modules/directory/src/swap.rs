//! The update of `directory`: one tree for another, by one exchange of two names.
//!
//! The new tree is staged as `new` in a directory beside the destination. The activation lets `new` and the destination change
//! places, so that `new` is the previous tree then, whole and untouched, until it is discarded or changes places again. Whether
//! an interrupted exchange has happened, the directories' inode numbers say: they are in the journal before it.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use mender_update_module::durable::{self, Destination, Dir, DirectoryExchange, ExchangeNames, Staging};
use mender_update_module::{FileName, Replaces, Trigger, Update, WorkTree, log, require_harmless};
use serde::{Deserialize, Serialize};

use crate::destination;
use crate::keep::{self, Pattern};
use crate::place::Place;
use crate::settings::UnknownXattrs;
use crate::unpack;

/// Bytes of the payload read at a time: as many as a FIFO holds.
const READ: usize = 64 << 10;

/// The record of one update, complete enough to go on with in another process after a power loss.
#[derive(Serialize, Deserialize)]
pub struct Swap {
    destination: Place,
    staging: Staging,
    keep: Vec<Pattern>,
    /// Bytes that stay free.
    reserve: u64,
    #[serde(default)]
    unknown_xattrs: UnknownXattrs,
    /// The archive, where it came before its destination was known.
    spooled: Option<PathBuf>,
}

/// What the activation goes by. In the journal, it is the field `switch` of the update.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    #[serde(rename = "switch")]
    exchange: DirectoryExchange,
}

/// What the device and the artifact say of an update, beside its destination.
pub struct Options {
    /// What is carried over.
    pub keep: Vec<Pattern>,
    /// Bytes that stay free.
    pub reserve: u64,
    /// What becomes of extended attributes that Linux does not know.
    pub unknown_xattrs: UnknownXattrs,
}

impl Swap {
    /// A swap of the tree at `destination`, as an artifact names it.
    ///
    /// # Errors
    /// When this destination is refused.
    pub fn plan(
        destination: &Path,
        tree: &WorkTree,
        options: Options,
        spooled: Option<PathBuf>,
    ) -> Result<Self> {
        let path = destination::resolve(destination, tree.datastore())?;
        require_harmless(&path, Replaces::Tree, tree)?;
        let place = Place::find(&path)?;
        let staging = Staging::beside(&Destination::find(&path)?, "directory")?;
        // A btrfs subvolume has a file system's identity of its own without being mounted.
        ensure!(
            !staging.path().starts_with(&path),
            "the destination {} is on another file system than its parent, and cannot be replaced: name a directory in it",
            path.display()
        );
        let parent = staging.parent()?;
        // A directory of a lower layer cannot be renamed; one of the upper layer, as in a trial, can.
        ensure!(
            parent.keeps_inodes()?,
            "the destination {} is on overlayfs, vfat or exfat, where a directory cannot be exchanged and found again: name \
             one on another file system",
            path.display()
        );
        parent.require_writable()?;
        parent.check_space(0, options.reserve)?;
        let Options { keep, reserve, unknown_xattrs } = options;
        Ok(Self { destination: place, staging, keep, reserve, unknown_xattrs, spooled })
    }

    /// Tries out in the staging directory whether this file system can do what the activation will need.
    ///
    /// # Errors
    /// When it cannot exchange two names.
    pub fn try_out(&self) -> Result<()> {
        let (staging, trial) = (self.staging.open()?, FileName::new("trial")?);
        staging.make_child(&trial, 0o700)?;
        staging.exchange(&new_name()?, &staging, &trial)?;
        // Once more, for the journal knows which of the two is the new tree's.
        staging.exchange(&new_name()?, &staging, &trial)?;
        durable::remove_empty_dir(&staging.path().join(&trial))
    }

    /// The archive in the work tree, where it came before its destination.
    pub fn spooled(&self) -> Option<&Path> {
        self.spooled.as_deref()
    }

    /// Unpacks the archive `from`, of `size` bytes where that is known, into the new tree.
    ///
    /// # Errors
    /// When it does not fit, is damaged, or has an entry that is refused.
    pub fn unpack(&mut self, from: impl Read, size: Option<u64>) -> Result<()> {
        let new = self.new_tree()?;
        new.check_space(size.unwrap_or(0), self.reserve)?;
        let from = BufReader::with_capacity(READ, from);
        let report = unpack::unpack(from, self.new_tree()?, self.reserve, self.unknown_xattrs)?;
        if !report.has_top {
            self.inherit_top(&new)?;
        }
        log!(
            "{} entries, {} bytes staged in {}",
            report.entries,
            report.bytes,
            self.staging.path().display()
        );
        Ok(())
    }

    /// Gives a new tree whose archive says nothing of its top the owner and mode of the previous one.
    fn inherit_top(&self, new: &Dir) -> Result<()> {
        let Some(tree) = self.destination.tree()? else { return new.set_mode(0o755) };
        let mut attributes = tree.attributes()?;
        attributes.modified = new.attributes()?.modified;
        new.set_attributes(&attributes)
    }

    /// Makes everything staged durable.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn complete(&self) -> Result<()> {
        self.staging.open()?.sync_filesystem()
    }

    /// The new tree, as long as it is staged.
    fn new_tree(&self) -> Result<Dir> {
        self.staging.child(&new_name()?)
    }
}

impl Update for Swap {
    type Prepared = Prepared;

    fn make_staging(&mut self) -> Result<()> {
        self.staging.create(&["new"])
    }

    fn prepare(&mut self) -> Result<Prepared> {
        destination::refuse_mounts(&self.destination.path())?;
        let new = self.new_tree()?;
        let old = self.destination.tree()?;
        if let Some(parent) = self.destination.parent()? {
            parent.require_same_mount(&self.staging.open()?)?;
        }
        let old_inode = old.map(|old| old.inode()).transpose()?;
        Ok(Prepared { exchange: DirectoryExchange::new(new.inode()?, old_inode) })
    }

    fn make_destination(&mut self, _prepared: &Prepared) -> Result<bool> {
        self.destination.make_parents()
    }

    fn kept_in(&self) -> Option<PathBuf> {
        Some(self.staging.path())
    }

    fn conflicts_with(&self, unrestored: &Self) -> bool {
        let (one, other) = (self.destination.path(), unrestored.destination.path());
        one.starts_with(&other) || other.starts_with(&one)
    }

    fn activate(&self, prepared: &Prepared) -> Result<()> {
        let shown = self.destination.path();
        if prepared.exchange.has_previous() {
            let previous = self.destination.existing_parent()?.child(self.destination.name())?;
            let kept = keep::carry_over(previous, self.new_tree()?, &self.keep)?;
            prepared.exchange.activate(self)?;
            log!("activated: the new tree in {}; {kept} files kept", shown.display());
        } else {
            prepared.exchange.activate(self)?;
            log!("activated: the new tree in {}, where none was", shown.display());
        }
        Ok(())
    }

    fn roll_back(&self, prepared: &Prepared, _trigger: Trigger) -> Result<()> {
        prepared.exchange.roll_back(self)?;
        self.destination.remove_made()?;
        log!("rollback complete: the previous tree in {}", self.destination.path().display());
        Ok(())
    }

    fn discard(&self, _prepared: Option<&Prepared>) -> Result<()> {
        self.staging.remove()
    }
}

impl ExchangeNames for Swap {
    fn destination(&self) -> PathBuf {
        self.destination.path()
    }

    fn staged(&self) -> PathBuf {
        self.staging.path().join("new")
    }

    fn open_parent(&self) -> Result<Option<Dir>> {
        self.destination.parent()
    }

    fn open_staging(&self) -> Result<Dir> {
        self.staging.open()
    }
}

/// What the tree that is not active is called in the staging directory: the new one before the activation, the previous one
/// after.
fn new_name() -> Result<FileName> {
    FileName::new("new")
}

#[cfg(test)]
mod tests {
    use mender_update_module::check_journal;

    use super::*;

    /// A package may be upgraded while an update is pending: journals of released versions are read for ever.
    #[test]
    fn journals_of_released_versions_are_read() {
        let phases =
            mock_client::released_journals(env!("CARGO_MANIFEST_DIR"), check_journal::<Swap>).unwrap();
        let all = ["Activating", "Active", "Committed", "RolledBack", "RollingBack", "Staged", "Staging"];
        assert_eq!(phases, all);
    }
}
