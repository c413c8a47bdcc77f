//! The update of `web-file`: replaces one set of top-level files with another.
//!
//! The staging directory contains `new/`, the downloaded files, and `old/`, hard links to all files that the
//! activation replaces or removes. When `old/` is complete, and before the first name in the destination changes, it
//! is durably renamed to `kept/`. From then on, one rename restores a file in `kept/`, without copying. So at any
//! crash point the directories themselves tell how far an activation or a rollback went, name by name.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{Destination, Dir, Kind, Staging, Times};
use mender_update_module::{FileName, Payloads, Replaces, Trigger, Update, WorkTree, log, require_harmless};
use serde::{Deserialize, Serialize};

use crate::kept;
use crate::settings::{Mode, Settings};
use crate::staged::{self, RESERVE, Staged, Target};

/// One update, as it is stored in the journal.
#[derive(Serialize, Deserialize)]
pub struct FileSet {
    destination: Destination,
    staging: Staging,
    mode: Mode,
    owner: u32,
    group: u32,
    file_mode: u32,
    new: Vec<Staged>,
}

/// What activation and rollback need.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    #[serde(rename = "switch")]
    found: Found,
}

/// The destination as `prepare` found it.
#[derive(Serialize, Deserialize)]
struct Found {
    /// The times of the destination, if it existed.
    times: Option<Times>,
    /// The files that the activation replaces or removes, sorted: they get hard links in `old/`.
    #[serde(rename = "keep")]
    previous: Vec<FileName>,
}

impl FileSet {
    /// An update of the web root in `settings`.
    ///
    /// # Errors
    /// When the destination is refused or not a directory, there is not enough space, or an account does not exist.
    pub fn plan(settings: &Settings, tree: &WorkTree) -> Result<Self> {
        let destination = settings.destination().context("invalid settings")?;
        require_harmless(&destination.path(), Replaces::Files, tree)?;
        let (owner, group) = settings.ids().context("invalid settings")?;
        let staging = Staging::beside(&destination, "web-file")?;
        staging.parent()?.require_writable()?;
        staging.parent()?.check_space(0, RESERVE)?;
        destination.base().open()?.require_changeable()?;
        Ok(Self {
            destination,
            staging,
            mode: settings.mode,
            owner,
            group,
            file_mode: settings.file_mode.0,
            new: Vec::new(),
        })
    }

    /// Checks in the staging directory that the file system supports the activation.
    ///
    /// # Errors
    /// When it has no hard links, or the destination is on another mount.
    pub fn check_file_system(&self) -> Result<()> {
        let staging = self.staging.open()?;
        if let Some(destination) = self.destination.open()? {
            destination.require_same_mount(&staging)?;
        }
        let (file, second) = (FileName::new("file")?, FileName::new("second")?);
        drop(staging.create_file(&file)?);
        staging
            .link_as(&file, &staging, &second)
            .context("dest_dir refused: its file system has no hard links: set a directory on another one")?;
        staging.remove(&file)?;
        staging.remove(&second)
    }

    /// The number of staged files.
    pub fn len(&self) -> usize {
        self.new.len()
    }

    /// Writes the files of the payload to the staging directory.
    ///
    /// # Errors
    /// When a directory has the name of a file, a name is in the artifact twice, or a file cannot be written.
    pub fn stage(&mut self, payloads: &mut Payloads) -> Result<()> {
        // Opened once, and not for each of many files. What takes their place meanwhile is refused by `prepare`.
        let (destination, new) = (self.destination.open()?, self.staging.child(&new_name()?)?);
        let keeps_inodes = new.keeps_inodes()?;
        let target = Target { new, owner: self.owner, group: self.group, mode: self.file_mode, keeps_inodes };
        for payload in payloads {
            let payload = payload?;
            if let Some(destination) = &destination {
                refuse_directory(destination, &payload.name)?;
            }
            self.new.push(Staged::write(payload, &target)?);
        }
        Ok(())
    }

    /// Makes the staged files durable, reads them back, and compares.
    ///
    /// # Errors
    /// When the storage fails, or returns other data than was written.
    pub fn verify(&self) -> Result<()> {
        staged::verify(&self.new, &self.staging.child(&new_name()?)?)
    }

    fn is_new(&self, name: &FileName) -> bool {
        self.new.binary_search_by(|staged| staged.name.cmp(name)).is_ok()
    }

    /// The files in the destination that the activation replaces or removes.
    fn replaced_or_removed(&self, destination: &Dir) -> Result<Vec<FileName>> {
        let mut previous = Vec::new();
        for name in destination.names()? {
            let replaced = self.is_new(&name);
            if replaced {
                refuse_directory(destination, &name)?;
            }
            if replaced || (self.mode == Mode::Replace && destination.kind(&name)? == Some(Kind::File)) {
                previous.push(name);
            }
        }
        Ok(previous)
    }

    fn existing(&self) -> Result<Dir> {
        self.destination.open()?.with_context(|| format!("no directory {}", self.destination.path().display()))
    }

    /// The directory of the previous files. A transaction of a build before the first release that was interrupted
    /// early has none.
    fn kept(&self) -> Result<Kept> {
        let (old, kept) = (old_name()?, kept_name()?);
        let staging = self.staging.open()?;
        let opening = || format!("opening the previous files in {} failed", staging.path().display());
        if staging.kind(&kept)?.is_some() {
            return self.staging.renamed_child(&old, &kept).map(Kept::Complete).with_context(opening);
        }
        let of_0_1_0 = self.staging.identity_of(&old).is_none();
        if of_0_1_0 && staging.kind(&old)?.is_none() {
            return Ok(Kept::Nothing);
        }
        self.staging.child(&old).map(Kept::Partial).with_context(opening)
    }
}

/// The directory with the hard links to the previous files.
enum Kept {
    Nothing,
    /// Some may be missing: nothing was activated, except by a build before the first release.
    Partial(Dir),
    /// Complete: the activation may have begun.
    Complete(Dir),
}

impl Kept {
    fn directory(&self) -> Option<&Dir> {
        match self {
            Self::Nothing => None,
            Self::Partial(directory) | Self::Complete(directory) => Some(directory),
        }
    }
}

impl Update for FileSet {
    type Prepared = Prepared;

    fn make_staging(&mut self) -> Result<()> {
        self.staging.create(&["new", "old"])
    }

    fn prepare(&mut self) -> Result<Prepared> {
        self.new.sort_by(|one, other| one.name.cmp(&other.name));
        let new = self.staging.child(&new_name()?)?;
        self.new.iter().try_for_each(|staged| staged.require(&new))?;
        self.kept()?;
        let (times, previous) = match self.destination.open_as_found()? {
            Some(destination) => {
                destination.require_same_mount(&new)?;
                destination.require_changeable()?;
                (Some(destination.times()?), self.replaced_or_removed(&destination)?)
            }
            None => (None, Vec::new()),
        };
        Ok(Prepared { found: Found { times, previous } })
    }

    fn make_destination(&mut self, _prepared: &Prepared) -> Result<bool> {
        self.destination.make()
    }

    fn kept_in(&self) -> Option<PathBuf> {
        Some(self.staging.path())
    }

    fn conflicts_with(&self, unrestored: &Self) -> bool {
        self.destination.path() == unrestored.destination.path()
    }

    fn activate(&self, prepared: &Prepared) -> Result<()> {
        let Found { previous, .. } = &prepared.found;
        let destination = self.existing()?;
        let new = self.staging.child(&new_name()?)?;
        let old = self.staging.child(&old_name()?)?;
        for name in previous {
            destination.link(name, &old)?;
        }
        old.sync()?;
        let staging = self.staging.open()?;
        staging.rename_to_free(&old_name()?, &staging, &kept_name()?)?;
        staging.sync()?;
        for Staged { name, .. } in &self.new {
            if kept::is_in(previous, name) {
                new.rename(name, &destination, name)?;
            } else {
                new.rename_to_free(name, &destination, name)?;
            }
        }
        let removed = previous.iter().filter(|name| !self.is_new(name));
        removed.clone().try_for_each(|name| destination.remove(name))?;
        new.sync()?;
        destination.sync()?;
        log!(
            "activated: {} files installed, {} removed in {}; {} previous files kept for a rollback",
            self.new.len(),
            removed.count(),
            destination.path().display(),
            previous.len()
        );
        Ok(())
    }

    fn roll_back(&self, prepared: &Prepared, _trigger: Trigger) -> Result<()> {
        let Found { times, previous } = &prepared.found;
        let kept_there = || format!("the previous files are in {}", self.staging.path().join("kept").display());
        let Some(destination) = self.destination.open().with_context(kept_there)? else {
            return self.destination.remove_made(); // interrupted before this update made it
        };
        // Before the first change: a rollback would fail in the middle, after it has removed new files.
        destination.require_same_mount(&self.staging.open()?).with_context(kept_there)?;
        let kept = self.kept()?;
        let activated = self.remove_new(&destination, previous)? || matches!(kept, Kept::Complete(_));
        kept::restore(previous, kept.directory(), &destination)?;
        kept::require_restored(previous, &destination, activated)?;
        self.require_new_removed(&destination, previous)?;
        if let Some(times) = times {
            destination.set_times(*times)?;
        }
        destination.sync()?;
        self.destination.remove_made()?;
        log!("rollback complete: {} files restored in {}", previous.len(), destination.path().display());
        Ok(())
    }

    fn discard(&self, _prepared: Option<&Prepared>) -> Result<()> {
        self.staging.remove()
    }
}

impl FileSet {
    /// Moves new files from the destination back to the staging directory, and returns whether any file was
    /// activated. While a file is still staged, a file of its name in the destination is not of this update. Files
    /// are moved and not removed, because freeing a large file takes time, which Cleanup has.
    fn remove_new(&self, destination: &Dir, previous: &[FileName]) -> Result<bool> {
        let new = self.staging.child(&new_name()?)?;
        let mut activated = false;
        for file in &self.new {
            let name = &file.name;
            let staged = new.kind(name)?.is_some();
            activated |= !staged;
            if staged || destination.kind(name)? != Some(Kind::File) {
                continue;
            }
            if kept::is_in(previous, name) {
                // The rename that restores the previous file would free the new one, unless it has another link.
                let _ = destination.link(name, &new);
            } else if file.is(destination.inode_of(name)?) && destination.rename_to_free(name, &new, name).is_err() {
                destination.remove(name)?;
            }
        }
        new.sync()?;
        Ok(activated)
    }

    /// Checks that no new file is left in the destination.
    fn require_new_removed(&self, destination: &Dir, previous: &[FileName]) -> Result<()> {
        let is_left = |file: &&Staged| -> Result<bool> {
            let inode = destination.inode_of(&file.name)?;
            Ok(inode.is_some() && file.inode == inode && !kept::is_in(previous, &file.name))
        };
        for file in &self.new {
            ensure!(!is_left(&file)?, "{}/{}: it is the new file", destination.path().display(), file.name);
        }
        Ok(())
    }
}

fn refuse_directory(destination: &Dir, name: &FileName) -> Result<()> {
    if destination.kind(name)? == Some(Kind::Directory) {
        bail!(
            "update refused: {name} is a file in the artifact, and a directory in {}: rename one of them",
            destination.path().display()
        );
    }
    Ok(())
}

/// The downloaded files, in the staging directory.
fn new_name() -> Result<FileName> {
    FileName::new("new")
}

/// The previous files, in the staging directory, while they are being linked.
fn old_name() -> Result<FileName> {
    FileName::new("old")
}

/// The previous files, in the staging directory, when all are linked.
fn kept_name() -> Result<FileName> {
    FileName::new("kept")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use mender_update_module::check_journal;

    use super::*;

    /// A package may be upgraded while an update is pending: journals of released versions are read for ever.
    #[test]
    fn journals_of_released_versions_are_read() {
        let phases =
            mender_update_module_test::released_journals(env!("CARGO_MANIFEST_DIR"), check_journal::<FileSet>).unwrap();
        let all = ["Activating", "Active", "Committed", "RolledBack", "RollingBack", "Staged", "Staging"];
        assert_eq!(phases, all);
    }

    /// An update in `top` with two empty files, which are not in the staging directory yet.
    fn file_set(top: &Path) -> FileSet {
        let www = top.canonicalize().unwrap().join("www");
        fs::create_dir(&www).unwrap();
        let destination = Destination::find(&www).unwrap();
        let mut staging = Staging::beside(&destination, "web-file").unwrap();
        staging.create(&["new"]).unwrap();
        let mut new: BTreeMap<String, Vec<Staged>> = toml::from_str("new = [{name = 'a'}, {name = 'b'}]").unwrap();
        let new = new.remove("new").unwrap();
        FileSet { destination, staging, mode: Mode::Add, owner: 0, group: 0, file_mode: 0o644, new }
    }

    #[test]
    fn a_file_that_is_longer_than_what_was_written_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let files = file_set(top.path());
        fs::write(files.staging.path().join("new/a"), "more").unwrap();
        let error = format!("{:#}", files.verify().unwrap_err());
        assert!(error.contains("storage failed"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_staged_any_more_was_activated() {
        let top = tempfile::tempdir().unwrap();
        let files = file_set(top.path());
        let staged = files.staging.path().join("new");
        let destination = files.destination.open().unwrap().unwrap();
        for (left, expected) in [(&["a", "b"][..], false), (&["a"], true), (&["b"], true), (&[], true)] {
            left.iter().for_each(|name| fs::write(staged.join(name), "").unwrap());
            assert_eq!(files.remove_new(&destination, &[]).unwrap(), expected, "{left:?}");
            left.iter().for_each(|name| fs::remove_file(staged.join(name)).unwrap());
        }
    }
}
