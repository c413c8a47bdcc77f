//! The update of `web-file`: one set of top-level files for another.
//!
//! The staging directory holds `new/`, what was downloaded, and `old/`, a hard link to every file that the activation
//! replaces or removes. When it is complete, and before the first name in the destination changes, it becomes `kept/`, durably;
//! from then on a name that is in `kept/` can always be put back, by one rename and without copying. So the
//! directories themselves say how far an activation or a rollback has come, name by name, at any crash point.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{Destination, Dir, Kind, Staging, Times};
use mender_update_module::{FileName, Payload, Replaces, Trigger, Update, WorkTree, log, require_harmless};
use serde::{Deserialize, Serialize};

use crate::kept;
use crate::settings::{Mode, Settings};
use crate::staged::{self, RESERVE, Staged};

/// The record of one update, complete enough to go on with in another process after a power loss.
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

/// What the activation goes by. In the journal, it is the field `switch` of the update.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    switch: Switch,
}

/// What the activation does to the destination as `prepare` found it.
#[derive(Serialize, Deserialize)]
struct Switch {
    /// The destination's own times, where it was there.
    times: Option<Times>,
    /// Files that are replaced or removed: they get their second name in `old/`.
    keep: Vec<FileName>,
}

impl FileSet {
    /// An update of the web root that `settings` name.
    ///
    /// # Errors
    /// When the destination is refused or not a directory, space is short, or an account is unknown.
    pub fn plan(settings: &Settings, tree: &WorkTree) -> Result<Self> {
        let destination =
            Destination::find(&settings.dest_dir).context("dest_dir in the module's settings")?;
        require_harmless(&destination.path(), Replaces::Files, tree)?;
        let (owner, group) = settings.ids()?;
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

    /// Tries out in the staging directory what the activation will need.
    ///
    /// # Errors
    /// When the file system has no hard links, or no name can be moved from here to the destination.
    pub fn try_out(&self) -> Result<()> {
        let staging = self.staging.open()?;
        if let Some(destination) = self.destination.open()? {
            destination.require_same_mount(&staging)?;
        }
        let (file, second) = (FileName::new("file")?, FileName::new("second")?);
        drop(staging.create_file(&file)?);
        staging
            .link_as(&file, &staging, &second)
            .context("the file system of dest_dir cannot be used: name a directory on another one")?;
        staging.remove(&file)?;
        staging.remove(&second)
    }

    /// Whether no file has been staged.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty()
    }

    /// Writes one file of the payload to the staging directory, as it will be in the destination.
    ///
    /// # Errors
    /// When its name is taken by a directory or comes twice, space is short, or it cannot be written.
    pub fn stage(&mut self, payload: Payload) -> Result<()> {
        if let Some(destination) = self.destination.open()? {
            refuse_directory(&destination, &payload.name)?;
        }
        let new = self.staging.child(&new_name()?)?;
        self.new.push(Staged::write(payload, &new, self.owner, self.group, self.file_mode)?);
        Ok(())
    }

    /// Makes everything staged durable, reads it back, and compares.
    ///
    /// # Errors
    /// When the storage fails or returns something else than was written.
    pub fn verify(&self) -> Result<()> {
        staged::verify(&self.new, &self.staging.child(&new_name()?)?)
    }

    fn is_new(&self, name: &FileName) -> bool {
        self.new.binary_search_by(|staged| staged.name.cmp(name)).is_ok()
    }

    /// The files in the destination that the activation replaces or removes.
    fn to_keep(&self, destination: &Dir) -> Result<Vec<FileName>> {
        let mut keep = Vec::new();
        for name in destination.names()? {
            let replaced = self.is_new(&name);
            if replaced {
                refuse_directory(destination, &name)?;
            }
            if replaced || (self.mode == Mode::Replace && destination.kind(&name)? == Some(Kind::File)) {
                keep.push(name);
            }
        }
        Ok(keep)
    }

    fn existing(&self) -> Result<Dir> {
        self.destination.open()?.with_context(|| format!("{} is missing", self.destination.path().display()))
    }

    /// Where the previous files are kept; nowhere in a transaction of version 0.1.0 that was interrupted before it had made a
    /// directory for them.
    fn previous(&self) -> Result<Previous> {
        let (old, kept) = (old_name()?, kept_name()?);
        let staging = self.staging.open()?;
        let keeping = || format!("the previous files, which are kept in {}", staging.path().display());
        if staging.kind(&kept)?.is_some() {
            return self.staging.renamed_child(&old, &kept).map(Previous::Whole).with_context(keeping);
        }
        let of_0_1_0 = self.staging.identity_of(&old).is_none();
        if of_0_1_0 && staging.kind(&old)?.is_none() {
            return Ok(Previous::Nothing);
        }
        self.staging.child(&old).map(Previous::Partial).with_context(keeping)
    }
}

/// The directory of the previous files' second names.
enum Previous {
    Nothing,
    /// Some of them may be missing: nothing has been activated, unless by version 0.1.0.
    Partial(Dir),
    /// All of them were there when the activation began.
    Whole(Dir),
}

impl Previous {
    fn directory(&self) -> Option<&Dir> {
        match self {
            Self::Nothing => None,
            Self::Partial(directory) | Self::Whole(directory) => Some(directory),
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
        self.previous()?;
        let (times, keep) = match self.destination.open()? {
            Some(destination) => {
                destination.require_same_mount(&new)?;
                destination.require_changeable()?;
                (Some(destination.times()?), self.to_keep(&destination)?)
            }
            None => (None, Vec::new()),
        };
        Ok(Prepared { switch: Switch { times, keep } })
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
        let Switch { keep, .. } = &prepared.switch;
        let destination = self.existing()?;
        let new = self.staging.child(&new_name()?)?;
        let old = self.staging.child(&old_name()?)?;
        for name in keep {
            destination.link(name, &old)?;
        }
        old.sync()?;
        let staging = self.staging.open()?;
        staging.rename_to_free(&old_name()?, &staging, &kept_name()?)?;
        staging.sync()?;
        for Staged { name, .. } in &self.new {
            if kept::is_in(keep, name) {
                new.rename(name, &destination, name)?;
            } else {
                new.rename_to_free(name, &destination, name)?;
            }
        }
        for name in keep.iter().filter(|name| !self.is_new(name)) {
            destination.remove(name)?;
        }
        new.sync()?;
        destination.sync()?;
        log!("activated: {} files in {}", self.new.len(), destination.path().display());
        Ok(())
    }

    fn roll_back(&self, prepared: &Prepared, _trigger: Trigger) -> Result<()> {
        let Switch { times, keep } = &prepared.switch;
        let destination = self.destination.open().with_context(|| {
            format!("the previous files are kept in {}", self.staging.path().join("kept").display())
        })?;
        let Some(destination) = destination else {
            return self.destination.remove_made(); // interrupted before it was made
        };
        let previous = self.previous()?;
        let activated = self.remove_new(&destination, keep)? || matches!(previous, Previous::Whole(_));
        kept::put_back(keep, previous.directory(), &destination)?;
        kept::require_back(keep, &destination, activated)?;
        self.require_new_gone(&destination, keep)?;
        if let Some(times) = times {
            destination.set_times(*times)?;
        }
        destination.sync()?;
        self.destination.remove_made()?;
        log!("rollback complete: {} files restored in {}", keep.len(), destination.path().display());
        Ok(())
    }

    fn discard(&self, _prepared: Option<&Prepared>) -> Result<()> {
        self.staging.remove()
    }
}

impl FileSet {
    /// Takes from the destination what was not there before, and returns whether anything had been activated. A file still
    /// staged never came there: one of that name in the destination is somebody else's. It goes back to where it was staged,
    /// because to free the space of a large file takes a while, and belongs to Cleanup.
    fn remove_new(&self, destination: &Dir, keep: &[FileName]) -> Result<bool> {
        let new = self.staging.child(&new_name()?)?;
        let mut activated = false;
        for file in &self.new {
            let name = &file.name;
            let staged = new.kind(name)?.is_some();
            activated |= !staged;
            if staged || destination.kind(name)? != Some(Kind::File) {
                continue;
            }
            if kept::is_in(keep, name) {
                // Its name is the previous file's again in a moment; without a second one it would be freed then.
                let _ = destination.link(name, &new);
            } else if file.is(destination.inode_of(name)?)
                && destination.rename_to_free(name, &new, name).is_err()
            {
                destination.remove(name)?;
            }
        }
        new.sync()?;
        Ok(activated)
    }

    /// Refuses to call a rollback complete while one of the new files still has its name.
    fn require_new_gone(&self, destination: &Dir, keep: &[FileName]) -> Result<()> {
        let is_there = |file: &&Staged| -> Result<bool> {
            let inode = destination.inode_of(&file.name)?;
            Ok(inode.is_some() && file.inode == inode && !kept::is_in(keep, &file.name))
        };
        for file in &self.new {
            ensure!(
                !is_there(&file)?,
                "rollback incomplete: {}: the new file {} is still there",
                destination.path().display(),
                file.name
            );
        }
        Ok(())
    }
}

fn refuse_directory(destination: &Dir, name: &FileName) -> Result<()> {
    if destination.kind(name)? == Some(Kind::Directory) {
        bail!(
            "the artifact has a file {name}, which is a directory in {}: nothing was changed; rename one of them",
            destination.path().display()
        );
    }
    Ok(())
}

/// What was downloaded, in the staging directory.
fn new_name() -> Result<FileName> {
    FileName::new("new")
}

/// What the activation replaces or removes, in the staging directory, until all of it is there.
fn old_name() -> Result<FileName> {
    FileName::new("old")
}

/// The same, when all of it is there.
fn kept_name() -> Result<FileName> {
    FileName::new("kept")
}

#[cfg(test)]
mod tests {
    use mender_update_module::check_journal;

    use super::*;

    /// A package may be upgraded while an update is pending: journals of released versions are read for ever.
    #[test]
    fn journals_of_released_versions_are_read() {
        let phases =
            mock_client::released_journals(env!("CARGO_MANIFEST_DIR"), check_journal::<FileSet>).unwrap();
        let all = ["Activating", "Active", "Committed", "RolledBack", "RollingBack", "Staged", "Staging"];
        assert_eq!(phases, all);
    }
}
