//! The update of `directory`: one tree for another, by one exchange of two names.
//!
//! The new tree is staged as `new` in a directory beside the destination. The activation lets `new` and the destination change
//! places, so that `new` is the previous tree then, whole and untouched, until it is discarded or changes places again. Whether
//! an interrupted exchange has happened, the directories' inode numbers say: they are in the journal before it.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{self, Destination, Dir, Staging};
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
    switch: Switch,
}

/// What the activation does, as `prepare` found the destination.
#[derive(Serialize, Deserialize)]
struct Switch {
    /// The new tree's directory.
    new_inode: u64,
    /// The previous tree's, where there is one.
    old_inode: Option<u64>,
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
        Ok(Prepared { switch: Switch { new_inode: new.inode()?, old_inode } })
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
        let Switch { old_inode, .. } = &prepared.switch;
        let parent = self.destination.existing_parent()?;
        let (name, staging) = (self.destination.name(), self.staging.open()?);
        let shown = self.destination.path();
        if let Some(inode) = old_inode {
            let kept = keep::carry_over(parent.child(name)?, self.new_tree()?, &self.keep)?;
            staging.exchange(&new_name()?, &parent, name)?;
            if staging.inode_of(&new_name()?)? != Some(*inode) {
                staging.exchange(&new_name()?, &parent, name)?;
                bail!("{}: somebody has replaced it during the update: install again", shown.display());
            }
            log!("activated: the new tree in {}; {kept} files kept", shown.display());
        } else {
            staging.rename_to_free(&new_name()?, &parent, name)?;
            log!("activated: the new tree in {}, where none was", shown.display());
        }
        parent.sync()?;
        staging.sync()
    }

    fn roll_back(&self, prepared: &Prepared, _trigger: Trigger) -> Result<()> {
        let Switch { new_inode, old_inode } = &prepared.switch;
        let shown = self.destination.path();
        let looking = || format!("looking at the destination {}", shown.display());
        let live = self.destination.inode().with_context(looking)?;
        if live == Some(*new_inode) {
            self.remove_new(*old_inode)?;
        } else if live.is_none() && old_inode.is_some() {
            self.put_back(*old_inode)?;
        } else if live != *old_inode {
            bail!(
                "{} is neither the previous tree nor the new one: somebody has replaced it. The previous tree is kept in \
                 {}: move {0} away, and rename that to it",
                shown.display(),
                self.staging.path().join("new").display()
            );
        }
        let live = self.destination.inode().with_context(looking)?;
        ensure!(live == *old_inode, "rollback incomplete: {}: it is not the previous tree", shown.display());
        self.destination.remove_made()?;
        log!("rollback complete: the previous tree in {}", shown.display());
        Ok(())
    }

    fn discard(&self, _prepared: Option<&Prepared>) -> Result<()> {
        self.staging.remove()
    }
}

impl Swap {
    /// Takes the new tree out of the destination, and puts the previous one, `old_inode`, into its place if there was one.
    fn remove_new(&self, old_inode: Option<u64>) -> Result<()> {
        let (parent, name) = (self.destination.existing_parent()?, self.destination.name());
        let staging = self.staging.open()?;
        if old_inode.is_some() {
            let kept = staging.inode_of(&new_name()?)?;
            ensure!(
                kept == old_inode,
                "{} is not the previous tree: somebody has replaced it",
                self.staging.path().join("new").display()
            );
            staging.exchange(&new_name()?, &parent, name)?;
        } else {
            parent.rename_to_free(name, &staging, &new_name()?)?;
        }
        parent.sync()?;
        staging.sync()
    }

    /// Puts the previous tree back into a destination that somebody has removed meanwhile.
    fn put_back(&self, old_inode: Option<u64>) -> Result<()> {
        let staging = self.staging.open()?;
        if staging.inode_of(&new_name()?)? != old_inode {
            bail!(
                "{} is missing, and the previous tree is not in {}",
                self.destination.path().display(),
                self.staging.path().display()
            );
        }
        let parent = self.destination.existing_parent()?;
        staging.rename_to_free(&new_name()?, &parent, self.destination.name())?;
        parent.sync()?;
        staging.sync()
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
