//! The change of `directory`: one tree for another, by one exchange of two names.
//!
//! The new tree is staged as `new` in a folder beside the destination. The switch lets `new` and the destination change
//! places, so that `new` is the old tree then, whole and untouched, until it is forgotten or changes places again. Whether
//! an exchange that was cut has happened, the folders' inode numbers say: they are in the journal before it.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use update_module::durable::{self, Dir};
use update_module::{Change, FileName, say};

use crate::destination;
use crate::keep::{self, Pattern};
use crate::unpack;

/// Bytes of the payload read at a time: as many as a FIFO holds.
const READ: usize = 64 << 10;

/// The record of one update, complete enough to go on with in another process after a power cut.
#[derive(Serialize, Deserialize)]
pub struct Swap {
    destination: PathBuf,
    staging: PathBuf,
    keep: Vec<Pattern>,
    /// Bytes that stay free.
    reserve: u64,
    /// The archive, where it came before its destination was known.
    spooled: Option<PathBuf>,
    /// Set by `prepare`.
    switch: Option<Switch>,
}

/// What the switch does, as `prepare` found the destination.
#[derive(Serialize, Deserialize)]
struct Switch {
    /// Folders that the destination needs above it and that were not there, outermost first.
    make: Vec<PathBuf>,
    /// The new tree's folder.
    new_inode: u64,
    /// The old tree's, where there is one.
    old_inode: Option<u64>,
}

impl Swap {
    /// A swap of the tree at `destination`, as an artifact names it.
    ///
    /// # Errors
    /// When this destination is refused.
    pub fn plan(
        destination: &Path,
        datastore: &Path,
        keep: Vec<Pattern>,
        reserve: u64,
        spooled: Option<PathBuf>,
    ) -> Result<Self> {
        let destination = destination::resolve(destination, datastore)?;
        let staging = durable::beside(&destination, "directory")?;
        // A btrfs subvolume has a filesystem's identity of its own without being mounted.
        ensure!(
            !staging.starts_with(&destination),
            "the destination {} is on another filesystem than its parent, and cannot be replaced: name a folder in it",
            destination.display()
        );
        Ok(Self { destination, staging, keep, reserve, spooled, switch: None })
    }

    /// The archive in the work tree, where it came before its destination.
    pub fn spooled(&self) -> Option<&Path> {
        self.spooled.as_deref()
    }

    /// Makes the staging place with an empty new tree, closed to everybody else, and tries there whether this filesystem
    /// can do what the switch will need.
    ///
    /// # Errors
    /// When it cannot be made, or the filesystem cannot exchange two names.
    pub fn make_staging(&self) -> Result<()> {
        durable::remove_tree(&self.staging)?;
        let staging = Dir::make(&self.staging, 0o700)?;
        let (new, trial) = (new_name()?, FileName::new("trial")?);
        staging.make_child(&new, 0o700)?;
        staging.make_child(&trial, 0o700)?;
        staging.exchange(&new, &staging, &trial)?;
        durable::remove_empty_dir(&staging.path().join(&trial))
    }

    /// Unpacks the archive `from`, of `size` bytes where that is known, into the new tree.
    ///
    /// # Errors
    /// When it does not fit, is damaged, or has an entry that is refused.
    pub fn unpack(&mut self, from: impl Read, size: Option<u64>) -> Result<()> {
        let new = self.new_tree()?;
        if let Some(size) = size {
            new.check_space(size, self.reserve)?;
        }
        let report = unpack::unpack(BufReader::with_capacity(READ, from), self.new_tree()?, self.reserve)?;
        if !report.has_top {
            self.inherit_top(&new)?;
        }
        say(format_args!(
            "{} entries, {} bytes staged in {}",
            report.entries,
            report.bytes,
            self.staging.display()
        ));
        Ok(())
    }

    /// Gives a new tree whose archive says nothing of its top the owner and mode of the old one.
    fn inherit_top(&self, new: &Dir) -> Result<()> {
        if !durable::exists(&self.destination)? {
            return new.set_mode(0o755);
        }
        let mut attributes = Dir::open(&self.destination)?.attributes()?;
        attributes.modified = new.attributes()?.modified;
        new.set_attributes(&attributes)
    }

    /// Brings everything staged to the medium.
    ///
    /// # Errors
    /// When the medium fails.
    pub fn complete(&self) -> Result<()> {
        Dir::open(&self.staging)?.sync_filesystem()
    }

    fn new_tree(&self) -> Result<Dir> {
        Dir::open(&self.staging)?.child(&new_name()?)
    }

    fn prepared(&self) -> Result<&Switch> {
        self.switch.as_ref().context("the journal has no prepared switch")
    }

    /// The folder that the destination is in, and its name there.
    fn place(&self) -> Result<(Dir, FileName)> {
        let (Some(parent), Some(name)) = (self.destination.parent(), self.destination.file_name()) else {
            bail!("{} cannot be a destination", self.destination.display());
        };
        Ok((Dir::open(parent)?, FileName::new(name)?))
    }
}

impl Change for Swap {
    fn prepare(&mut self) -> Result<()> {
        destination::refuse_mounts(&self.destination)?;
        let mut make = durable::absent_parents(&self.destination)?;
        make.pop(); // the destination itself, where anything is missing
        let new_inode = self.new_tree()?.inode()?;
        let old_inode = inode(&self.destination)?;
        self.switch = Some(Switch { make, new_inode, old_inode });
        Ok(())
    }

    fn switch(&self) -> Result<()> {
        let Switch { make, old_inode, .. } = self.prepared()?;
        durable::make_absent(make)?;
        let (parent, name) = self.place()?;
        let staging = Dir::open(&self.staging)?;
        if old_inode.is_some() {
            let kept = keep::carry_over(parent.child(&name)?, self.new_tree()?, &self.keep)?;
            staging.exchange(&new_name()?, &parent, &name)?;
            say(format_args!(
                "the new tree is live in {}, {kept} files are kept",
                self.destination.display()
            ));
        } else {
            staging.rename_to_free(&new_name()?, &parent, &name)?;
            say(format_args!("the new tree is live in {}, where none was", self.destination.display()));
        }
        parent.sync()?;
        staging.sync()
    }

    fn switch_back(&self) -> Result<()> {
        let Switch { make, new_inode, old_inode } = self.prepared()?;
        let live = inode(&self.destination)?;
        if live == Some(*new_inode) {
            self.take_back(old_inode.is_some())?;
        } else if live.is_none() && old_inode.is_some() {
            self.put_back()?;
        } else if live != *old_inode {
            bail!(
                "{} is neither the old tree nor the new: somebody has replaced it. The old tree is kept in {}: \
                 put in order what you need, then remove that folder and the module's journal",
                self.destination.display(),
                self.staging.display()
            );
        }
        durable::remove_made(make)?;
        say(format_args!("the old is back in {}", self.destination.display()));
        Ok(())
    }

    fn forget(&self) -> Result<()> {
        durable::remove_tree(&self.staging)
    }
}

impl Swap {
    /// Takes the new tree out of the destination, and puts the old one into its place if there is `an_old`.
    fn take_back(&self, an_old: bool) -> Result<()> {
        let (parent, name) = self.place()?;
        let staging = Dir::open(&self.staging)?;
        if an_old {
            staging.exchange(&new_name()?, &parent, &name)?;
        } else {
            parent.rename_to_free(&name, &staging, &new_name()?)?;
        }
        parent.sync()?;
        staging.sync()
    }

    /// Puts the old tree back into a destination that somebody has removed meanwhile.
    fn put_back(&self) -> Result<()> {
        let staging = Dir::open(&self.staging)?;
        if inode(&self.staging.join(new_name()?))? != self.prepared()?.old_inode {
            bail!(
                "{} is missing, and the old tree is not in {}",
                self.destination.display(),
                self.staging.display()
            );
        }
        let (parent, name) = self.place()?;
        staging.rename_to_free(&new_name()?, &parent, &name)?;
        parent.sync()?;
        staging.sync()
    }
}

/// What the tree that is not live is called in the staging place: the new one before the switch, the old one after.
fn new_name() -> Result<FileName> {
    FileName::new("new")
}

/// The inode number of the folder `path`, `None` where it is absent.
fn inode(path: &Path) -> Result<Option<u64>> {
    if durable::exists(path)? { Dir::open(path)?.inode().map(Some) } else { Ok(None) }
}
