//! The update of `directory`: replaces one tree with another, by one exchange of two names.
//!
//! The new tree is staged as `new` in a directory beside the destination. The activation exchanges `new` and the
//! destination, so that `new` is the unchanged previous tree afterwards, until it is discarded or rolled back. The
//! journal has the inode numbers of both before the exchange: they tell whether an interrupted exchange has happened.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{Destination, Dir, DirectoryExchange, ExchangeNames, Staging};
use mender_update_module::{FileName, Replaces, Trigger, Update, WorkTree, log, require_harmless};
use serde::{Deserialize, Serialize};

use crate::destination;
use crate::keep::{self, Pattern};
use crate::location::Location;
use crate::settings::UnknownXattrs;
use crate::unpack;

/// The size of a read from the payload, in bytes: the capacity of a FIFO.
const READ: usize = 65_536;

/// One update, as it is stored in the journal.
#[derive(Serialize, Deserialize)]
pub struct Swap {
    destination: Location,
    staging: Staging,
    keep: Vec<Pattern>,
    /// The space that stays free, in bytes.
    reserve: u64,
    #[serde(default)]
    unknown_xattrs: UnknownXattrs,
    /// The archive in the work tree, if it came before `dest_dir`.
    spooled: Option<PathBuf>,
}

/// What activation and rollback need.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    #[serde(rename = "switch")]
    exchange: DirectoryExchange,
}

/// The options of an update from settings and meta-data.
pub struct Options {
    /// The paths of the previous tree that are kept.
    pub keep: Vec<Pattern>,
    /// The space that stays free, in bytes.
    pub reserve: u64,
    /// What happens to extended attributes that Linux does not support.
    pub unknown_xattrs: UnknownXattrs,
}

impl Swap {
    /// An update of the tree at `destination`.
    ///
    /// # Errors
    /// When the destination is refused.
    pub fn plan(destination: &Path, tree: &WorkTree, options: Options, spooled: Option<PathBuf>) -> Result<Self> {
        let path = destination::resolve(destination, tree.datastore())?;
        require_harmless(&path, Replaces::Tree, tree)?;
        let location = Location::find(&path)?;
        let staging = Staging::beside(&Destination::find(&path)?, "directory")?;
        // A btrfs subvolume has a device number of its own, and is not a mount point.
        ensure!(
            !staging.path().starts_with(&path),
            "destination {} refused: it is on another file system than its parent: name a directory in it",
            path.display()
        );
        let parent = staging.parent()?;
        parent
            .require_exchange("name a directory on another file system")
            .with_context(|| format!("destination {} refused", path.display()))?;
        parent.require_writable()?;
        parent.check_space(0, options.reserve)?;
        let Options { keep, reserve, unknown_xattrs } = options;
        Ok(Self { destination: location, staging, keep, reserve, unknown_xattrs, spooled })
    }

    /// Checks in the staging directory that the file system can exchange two names.
    pub fn check_exchange(&self) -> Result<()> {
        self.staging.open()?.check_exchange(&new_name()?)
    }

    /// The archive in the work tree, if it came before `dest_dir`.
    pub fn spooled(&self) -> Option<&Path> {
        self.spooled.as_deref()
    }

    /// Unpacks the archive `from` into the new tree. `size` is its length in bytes, if it is known.
    ///
    /// # Errors
    /// When the archive does not fit, is damaged, or has an entry that is refused.
    pub fn unpack(&mut self, from: impl Read, size: Option<u64>) -> Result<()> {
        let new = self.new_tree()?;
        new.check_space(size.unwrap_or(0), self.reserve)?;
        let from = BufReader::with_capacity(READ, from);
        let report = unpack::unpack(from, self.new_tree()?, self.reserve, self.unknown_xattrs)?;
        if !report.has_top {
            self.inherit_top(&new)?;
        }
        log!("staged: {} entries, {} bytes in {}", report.entries, report.bytes, self.staging.path().display());
        Ok(())
    }

    /// Copies owner and mode from the top of the previous tree, if the archive has no entry for the top.
    fn inherit_top(&self, new: &Dir) -> Result<()> {
        let Some(tree) = self.destination.tree()? else { return new.set_mode(0o755) };
        let mut attributes = tree.attributes()?;
        attributes.modified = new.attributes()?.modified;
        new.set_attributes(&attributes)
    }

    /// Opens the staging directory, for the sync after the last write. It has to be open before the first: Linux does
    /// not report the loss of a write to a descriptor that is opened after another program has seen it.
    pub fn open_storage(&self) -> Result<Dir> {
        self.staging.open()
    }

    /// The new tree, before the activation.
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
        let previous = self.destination.tree()?;
        if let Some(parent) = self.destination.parent()? {
            parent.require_same_mount(&self.staging.open()?)?;
        }
        let previous_inode = previous.map(|previous| previous.inode()).transpose()?;
        Ok(Prepared { exchange: DirectoryExchange::new(new.inode()?, previous_inode) })
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
            log!("activated: new tree in {}; {kept} files kept from the previous one", shown.display());
        } else {
            prepared.exchange.activate(self)?;
            log!("activated: new tree in {}; no previous one", shown.display());
        }
        Ok(())
    }

    fn roll_back(&self, prepared: &Prepared, _trigger: Trigger) -> Result<()> {
        prepared.exchange.roll_back(self)?;
        self.destination.remove_made()?;
        log!("rollback complete: previous tree in {}", self.destination.path().display());
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

/// The name of the inactive tree in the staging directory: the new one before the activation, the previous one after
/// it.
fn new_name() -> Result<FileName> {
    FileName::new("new")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::process::Command;

    use mender_update_module::check_journal;
    use mender_update_module_test::failing_storage::FailingStorage;

    use super::*;

    /// An empty archive, at whose end a write is lost. Another program sees the error first.
    struct LosesAWrite<'a>(&'a FailingStorage, &'a Path, io::Take<io::Repeat>);

    impl Read for LosesAWrite<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.2.read(buffer)?;
            if count == 0 {
                self.0.lose_a_write().unwrap();
                self.0.repair().unwrap();
                assert!(!Command::new("sync").arg("--file-system").arg(self.1).status()?.success());
            }
            Ok(count)
        }
    }

    #[test]
    fn a_write_that_is_lost_while_another_program_syncs_fails_the_download() {
        let directory = tempfile::tempdir().unwrap();
        let mounted = directory.path().canonicalize().unwrap().join("srv");
        std::fs::create_dir(&mounted).unwrap();
        let Some(storage) = FailingStorage::mount(&mounted) else { return };
        let tree = WorkTree::new(directory.path().join("modules/v3/payloads/0000/tree"));
        let options = Options { keep: Vec::new(), reserve: 0, unknown_xattrs: UnknownXattrs::default() };
        let mut swap = Swap::plan(&mounted.join("app"), &tree, options, None).unwrap();
        swap.make_staging().unwrap();
        let opened = swap.open_storage().unwrap();
        let archive = LosesAWrite(&storage, &mounted, io::repeat(0).take(1024));
        assert!(swap.unpack(archive, None).unwrap_err().to_string().contains("no entry"));
        let error = format!("{:#}", opened.sync_filesystem().unwrap_err());
        assert!(error.contains("syncing the file system"), "{error}");
    }

    /// A package may be upgraded while an update is pending: journals of released versions are read for ever.
    #[test]
    fn journals_of_released_versions_are_read() {
        let phases =
            mender_update_module_test::released_journals(env!("CARGO_MANIFEST_DIR"), check_journal::<Swap>).unwrap();
        let all = ["Activating", "Active", "Committed", "RolledBack", "RollingBack", "Staged", "Staging"];
        assert_eq!(phases, all);
    }
}
