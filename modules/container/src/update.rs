//! The update of `container`: the exchange of one project's directory, and the stop and start of its units.
//!
//! The directory alone decides which version is active. Units and containers follow from it. Images and their names are
//! cleaned up at the end, when no rollback can follow.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Dir, DirectoryExchange, ExchangeNames, Known};
use mender_update_module::{StabilityWindow, Trigger, Update, first_error, log};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, ListedImage};
use crate::forms::Definition;
use crate::health;
use crate::image::{Image, ImageId, Reference};
use crate::load::EngineIds;
use crate::metadata::MetaData;
use crate::name::Name;
use crate::project::{self, Project, require_trusted};
use crate::reserved_names;
use crate::settings::Settings;
use crate::systemd::Systemd;
use crate::tags::Tags;

/// The record of one update. It has everything that another process needs to go on after a power loss.
#[derive(Serialize, Deserialize)]
pub struct ProjectUpdate {
    #[serde(rename = "state")]
    pub(crate) state_directory: PathBuf,
    #[serde(rename = "name")]
    pub(crate) project: Name,
    pub(crate) definition: Definition,
    pub(crate) images: Vec<Image>,
    pub(crate) engine: Engine,
    pub(crate) systemd: Systemd,
    #[serde(rename = "limits")]
    pub(crate) window: StabilityWindow,
    pub(crate) reserve: u64,
    /// The image of every name that this update changes, before it; `None` for a name that did not exist.
    pub(crate) tags_before: BTreeMap<Reference, Option<ImageId>>,
    /// The images that were on the device before.
    #[serde(rename = "there_before")]
    images_before: BTreeSet<ImageId>,
    /// The engine's IDs of the loaded images, by those of the artifact. A missing one is the same as in the artifact.
    #[serde(rename = "resolved", default)]
    pub(crate) engine_ids: EngineIds,
    /// The directories of the staged project and of the previous version, so that others with their names are refused.
    #[serde(rename = "new", default)]
    pub(crate) staged_directory: Option<Known>,
    #[serde(rename = "previous", default)]
    pub(crate) previous_directory: Option<Known>,
    /// The images of the previous version, with the names that this module gave them.
    #[serde(default)]
    pub(crate) previous_images: Vec<(ImageId, Reference)>,
}

/// What the activation goes by. In the journal, it is the field `switch` of the update.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    #[serde(rename = "switch")]
    exchange: DirectoryExchange,
}

impl ProjectUpdate {
    /// The update that `meta_data` describe.
    ///
    /// # Errors
    /// When the meta-data or the settings are invalid, the engine fails, or the file system of the state directory
    /// cannot exchange directories.
    pub fn new(state_directory: PathBuf, mut meta_data: MetaData, engine: Engine, settings: &Settings) -> Result<Self> {
        require_exchange(&state_directory)?;
        meta_data.check(engine.kind)?;
        let MetaData { project, images, definition } = meta_data;
        let listed = engine.images()?;
        let tags_before = tags_before(&project, &images, &listed)?;
        let images_before = listed.into_iter().map(|listed| listed.id).collect();
        Ok(Self {
            state_directory,
            project,
            definition,
            images,
            engine,
            systemd: Systemd::of(settings),
            window: health::window(settings),
            reserve: settings.reserve()?,
            tags_before,
            images_before,
            engine_ids: EngineIds::new(),
            staged_directory: None,
            previous_directory: None,
            previous_images: Vec::new(),
        })
    }

    /// The artifact's images, with the engine's IDs.
    pub(crate) fn images(&self) -> impl Iterator<Item = (&Reference, &ImageId)> {
        let engine_ids = &self.engine_ids;
        self.images.iter().map(|image| (&image.reference, engine_ids.get(&image.id).unwrap_or(&image.id)))
    }

    pub(crate) fn tags(&self) -> Tags<'_> {
        Tags {
            engine: &self.engine,
            project: &self.project,
            before: &self.tags_before,
            images_before: &self.images_before,
        }
    }

    /// The directory of the active version.
    pub(crate) fn active(&self) -> PathBuf {
        project::directory_of(&self.state_directory, &self.project)
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.state_directory.join("staging")
    }

    /// The directory of the new version before the activation, and of the previous version after it.
    pub(crate) fn staged(&self) -> PathBuf {
        self.staging().join(self.project.to_string())
    }

    /// Stops the units of `projects`, and removes them if all have stopped.
    fn end_units(&self, projects: &[Project]) -> Result<()> {
        first_error(projects.iter().map(|project| self.systemd.stop(project)))?;
        projects.iter().try_for_each(|project| self.systemd.remove(project))
    }

    /// Activates the directory of the previous version, and starts its units except at a boot, which starts them
    /// later. Units that do not start are no error: the previous version is restored, and the next update replaces it.
    fn restore(&self, prepared: &Prepared, trigger: Trigger) -> Result<()> {
        prepared.exchange.roll_back(self)?;
        log!("rollback: the previous version of the project {} is active", self.project);
        if trigger != Trigger::Boot {
            let previous = Project::read(&self.active())?;
            self.systemd.install(&previous)?;
            let started = SystemTime::now();
            // Twice: if systemctl itself has failed, systemd has not tried, and does not restart the units.
            let start = || self.systemd.start(&previous);
            if let Err(error) = start().or_else(|_| start()) {
                log!("starting the previous version failed: {error:#}; the rollback continues");
                health::show_logs(&previous, &self.engine, started);
            }
        }
        Ok(())
    }
}

impl ExchangeNames for ProjectUpdate {
    fn destination(&self) -> PathBuf {
        self.active()
    }

    fn staged(&self) -> PathBuf {
        self.staged()
    }

    fn open_parent(&self) -> Result<Option<Dir>> {
        let directory = project::directory(&self.state_directory);
        if durable::exists(&directory)? { Dir::open(&directory).map(Some) } else { Ok(None) }
    }

    fn open_staging(&self) -> Result<Dir> {
        Dir::open(&self.staging())
    }
}

impl Update for ProjectUpdate {
    type Prepared = Prepared;

    fn prepare(&mut self) -> Result<Prepared> {
        if let Some(staged) = &self.staged_directory {
            staged.open().and_then(|staged| staged.require_private()).context("staged project refused")?;
            match &self.previous_directory {
                Some(previous) => previous
                    .open()
                    .and_then(|previous| previous.require_private())
                    .context("previous version refused")?,
                None => ensure!(
                    !durable::exists(&self.active())?,
                    "{} was made after the download: install again",
                    self.active().display()
                ),
            }
        }
        let new_inode = inode(self.staged())?.context("staged project missing: install again")?;
        require_trusted(&self.staging())?;
        Ok(Prepared { exchange: DirectoryExchange::new(new_inode, inode(self.active())?) })
    }

    fn conflicts_with(&self, unrestored: &Self) -> bool {
        self.project == unrestored.project
    }

    fn activate(&self, prepared: &Prepared) -> Result<()> {
        let previous = Project::read(&self.active())?;
        self.systemd.stop(&previous)?;
        self.systemd.remove(&previous)?;
        prepared.exchange.activate(self)?;
        let new = Project::read(&self.active())?;
        self.systemd.install(&new)?;
        let started = SystemTime::now();
        self.systemd.start(&new).inspect_err(|_| health::show_logs(&new, &self.engine, started))?;
        health::wait(&new, &self.engine, &self.systemd, &self.window, started)?;
        log!("activated: the project {} runs and is healthy", self.project);
        Ok(())
    }

    fn roll_back(&self, prepared: &Prepared, trigger: Trigger) -> Result<()> {
        let projects = || -> Result<_> { Ok([Project::read(&self.active())?, Project::read(&self.staged())?]) };
        // After a boot no units are installed, and a damaged project must not keep the previous version from being
        // restored.
        let projects = if trigger == Trigger::Boot { projects().unwrap_or_default() } else { projects()? };
        // Units of both versions may run, however far the activation went, also in a recovery without a boot.
        // If they do not stop, the previous version is active, but units of the new one may still run: another attempt
        // or a boot ends them.
        let ended = self.end_units(&projects).context("stopping the new version failed");
        first_error([self.restore(prepared, trigger), ended])
    }

    fn discard_at_boot(&self) -> Result<bool> {
        self.engine.remove_temporary_files();
        Ok(false) // the engine's service may not run yet
    }

    fn discard(&self, prepared: Option<&Prepared>) -> Result<()> {
        let is_new_active = prepared.map(|prepared| prepared.exchange.is_active(self)).transpose()?;
        self.discard_at(if is_new_active == Some(true) { End::New } else { End::Previous })
    }

    fn discard_late(&self, _prepared: Option<&Prepared>) -> Result<()> {
        self.discard_at(End::Unknown) // names belong to the later update now
    }
}

/// The version that was active at the end of an update.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Names get the images that they had before the update.
    Previous,
    New,
    /// A later update was staged since.
    Unknown,
}

impl ProjectUpdate {
    /// Removes what the update has staged and kept.
    fn discard_at(&self, end: End) -> Result<()> {
        let storage = self.engine.open_storage()?;
        self.engine.remove_temporary_files();
        self.tags().remove_loaded_names()?;
        if end == End::Previous {
            self.tags().restore()?;
            // An image that was kept with its last name may have its own name again.
            self.tags().remove_loaded_names()?;
        }
        let is_own = self.has_own_staged_directory()?;
        let discarded = if is_own { Project::read(&self.staged())? } else { Project::default() };
        // An earlier attempt that failed may have removed the staged project, and a power loss after it brought its
        // images back: the record has them too.
        let given = [discarded.images, self.previous_images.clone()].concat();
        let mut candidates: BTreeSet<_> = given.iter().map(|(id, _)| id.clone()).collect();
        let is_earlier = |id: &ImageId| self.images_before.contains(id);
        if end != End::New {
            candidates.extend(self.images().map(|(_, id)| id.clone()).filter(|id| !is_earlier(id)));
        }
        if end == End::Previous {
            candidates.retain(|id| !is_earlier(id));
        }
        // An unused image only takes space: a failure must not block the next update.
        let projects = project::all(&self.state_directory)?;
        let prune = || self.tags().prune(&candidates, &given, &projects);
        if let Err(error) = prune().or_else(|_| prune()) {
            log!("removing an unused image failed: {error:#}: remove it by hand");
        }
        // Before the record of the names is removed.
        storage.sync()?;
        if is_own {
            durable::remove_tree(&self.staged())?;
        }
        // Another project may have its previous version beside it, which could not be restored.
        durable::remove_empty_dir(&self.staging())?;
        Dir::open(&self.state_directory)?.sync()
    }

    /// Whether the directory in the staging directory is of this update, and not the previous version of a later one of
    /// the same project, which could not be restored.
    fn has_own_staged_directory(&self) -> Result<bool> {
        let recorded: Vec<_> = [&self.staged_directory, &self.previous_directory].into_iter().flatten().collect();
        if recorded.is_empty() || !durable::exists(&self.staged())? {
            return Ok(true); // the download did not come so far that it was recorded
        }
        let found = Dir::open(&self.staged())?;
        for known in recorded {
            if known.is(&found)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Refuses a file system on which the exchange of two versions cannot be rolled back after a power loss.
fn require_exchange(state_directory: &Path) -> Result<()> {
    for directory in [state_directory, &project::directory(state_directory)] {
        if durable::exists(directory)? {
            Dir::open(directory)?
                .require_exchange("move the client's data to another file system")
                .with_context(|| format!("data directory {} refused", directory.display()))?;
        }
    }
    Ok(())
}

/// The images that `listed` has for the names that an update of `project` to `images` changes.
fn tags_before(
    project: &Name,
    images: &[Image],
    listed: &[ListedImage],
) -> Result<BTreeMap<Reference, Option<ImageId>>> {
    let current = |reference: &Reference| {
        let found = listed.iter().find(|listed| listed.reference.as_deref() == Some(reference.as_ref()));
        found.map(|listed| listed.id.clone())
    };
    let names = images.iter().map(|image| image.reference.clone());
    let mut tags: BTreeMap<_, _> = names.map(|name| (name.clone(), current(&name))).collect();
    let kept_prefix = reserved_names::kept_prefix(project);
    for listed in listed {
        if let Some(name) = listed.reference.as_ref().filter(|name| name.starts_with(&kept_prefix)) {
            tags.insert(name.clone().try_into()?, Some(listed.id.clone()));
        }
    }
    Ok(tags)
}

/// The inode number of the directory `path`; `None` if it does not exist.
fn inode(path: PathBuf) -> Result<Option<u64>> {
    if durable::exists(&path)? { Dir::open(&path)?.inode().map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use mender_update_module::check_journal;

    use super::*;

    /// A package may be upgraded while an update is pending: journals of released versions are read for ever.
    #[test]
    fn journals_of_released_versions_are_read() {
        let phases =
            mender_update_module_test::released_journals(env!("CARGO_MANIFEST_DIR"), check_journal::<ProjectUpdate>)
                .unwrap();
        let all = ["Activating", "Active", "Committed", "RolledBack", "RollingBack", "Staged", "Staging"];
        assert_eq!(phases, all);
    }
}
