//! The change of `container`: one project's directory for another, and what runs after it.
//!
//! Which version is live is decided by the directory alone, exchanged as `directory` does it. Units and containers follow
//! from that; images and tags are put in order at the end, when nobody can go back any more.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{self, Dir, Known};
use mender_update_module::{FileName, Payloads, Trigger, Update, log};
use serde::{Deserialize, Serialize};

use crate::carried::Carried;
use crate::conflicts::Claims;
use crate::definition::{Around, Definition};
use crate::engine::Engine;
use crate::health::{self, Limits};
use crate::image::{Image, ImageId, Reference};
use crate::load::{Loading, Resolved};
use crate::name::Name;
use crate::project::{self, FILES, KEPT, Project, check_own, keeper, keepers};
use crate::settings::{MetaData, Settings};
use crate::systemd::Systemd;
use crate::{archive, tags};

/// The most images of an artifact.
const IMAGES: usize = 100;

/// The record of one update, complete enough to go on with in another process after a power loss.
#[derive(Serialize, Deserialize)]
pub struct ProjectUpdate {
    state: PathBuf,
    pub(crate) name: Name,
    definition: Definition,
    images: Vec<Image>,
    pub(crate) engine: Engine,
    systemd: Systemd,
    limits: Limits,
    reserve: u64,
    /// What every reference meant before that this update changes.
    pub(crate) tags_before: BTreeMap<Reference, Option<ImageId>>,
    /// The images that were on the device before.
    pub(crate) there_before: BTreeSet<ImageId>,
    /// The engine's IDs of the artifact's images, known when they have been loaded. One that is missing is the artifact's.
    #[serde(default)]
    resolved: Resolved,
    /// The directory of the staged project, and that of the previous one: what has taken their names is refused.
    #[serde(default)]
    new: Option<Known>,
    #[serde(default)]
    previous: Option<Known>,
}

/// What the activation goes by. In the journal, it is the field `switch` of the update.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    switch: Switch,
}

/// The directories that change places, by their inode numbers.
#[derive(Serialize, Deserialize)]
struct Switch {
    new_inode: u64,
    old_inode: Option<u64>,
}

impl ProjectUpdate {
    /// An update as the artifact's meta-data tell it.
    ///
    /// # Errors
    /// When they contradict themselves, or the engine does not answer.
    pub fn plan(state: PathBuf, meta_data: MetaData, engine: Engine, settings: &Settings) -> Result<Self> {
        let MetaData { project: name, mut images, definition } = meta_data;
        definition.check()?;
        ensure!(!images.is_empty(), "the meta-data name no images");
        ensure!(
            images.len() <= IMAGES,
            "the meta-data name {} images, at most {IMAGES} are taken",
            images.len()
        );
        for image in &mut images {
            image.reference = image.reference.as_listed(engine.kind);
        }
        check_references(&images)?;
        let listed = engine.images()?;
        let meant = |reference: &Reference| {
            let found = listed.iter().find(|listed| listed.reference.as_deref() == Some(reference.as_ref()));
            found.map(|listed| listed.id.clone())
        };
        let named = images.iter().map(|image| image.reference.clone());
        let mut tags_before: BTreeMap<_, _> = named.map(|name| (name.clone(), meant(&name))).collect();
        let keepers = keepers(&name);
        for listed in &listed {
            if let Some(name) = listed.reference.as_ref().filter(|name| name.starts_with(&keepers)) {
                tags_before.insert(name.clone().try_into()?, Some(listed.id.clone()));
            }
        }
        let there_before = listed.into_iter().map(|listed| listed.id).collect();
        let systemd = Systemd::of(settings);
        let limits = Limits::of(settings)?;
        let reserve = settings.reserve_mib.checked_mul(1 << 20);
        let reserve = reserve.context("reserve_mib in /etc/mender-modules/container.toml is too large")?;
        Ok(Self {
            state,
            name,
            definition,
            images,
            engine,
            systemd,
            limits,
            reserve,
            tags_before,
            there_before,
            resolved: Resolved::new(),
            new: None,
            previous: None,
        })
    }

    /// Loads the images and writes the project, durably, beside the one that is live.
    ///
    /// # Errors
    /// When the payload is not what the meta-data say, or does not fit.
    pub fn stage(&mut self, payloads: &mut Payloads) -> Result<()> {
        durable::remove_tree(&self.staging())?;
        durable::make_dirs(&self.staged())?;
        let mut carried = Carried::new(self.staged().join(FILES), self.reserve);
        let taken = self.load(payloads, &mut carried);
        self.engine.tidy();
        self.resolved = taken?;
        self.tag()?;
        self.drop_loaded_names()?;
        self.define(&carried)?;
        self.new = Some(Known::own(&self.staged())?);
        self.previous = if durable::exists(&self.live())? { Some(Known::own(&self.live())?) } else { None };
        durable::make_dirs(&project::directory(&self.state))?.sync_filesystem()
    }

    fn load(&self, payloads: &mut Payloads, carried: &mut Carried) -> Result<Resolved> {
        let Self { name: project, engine, images, definition, reserve, .. } = self;
        let mut known = Resolved::new();
        for other in project::all(&self.state)? {
            known.extend(other.resolved);
        }
        Loading { project, engine, images, definition, reserve: *reserve, known }.take(payloads, carried)
    }

    /// The engine's ID of `image`.
    pub(crate) fn engine_id<'a>(&'a self, image: &'a Image) -> &'a ImageId {
        self.resolved.get(&image.id).unwrap_or(&image.id)
    }

    pub(crate) fn images(&self) -> impl Iterator<Item = (&Reference, &ImageId)> {
        self.images.iter().map(|image| (&image.reference, self.engine_id(image)))
    }

    /// Every image gets its reference, and a name of this module's that keeps it from being taken for one that nobody
    /// needs.
    fn tag(&self) -> Result<()> {
        for (reference, id) in self.images() {
            self.engine.tag(id, &keeper(&self.name, id)?)?;
            if let Some(Some(before)) = self.tags_before.get(reference).filter(|_| self.engine.containerd) {
                // It could not be given its name back, if that was its last.
                self.engine.tag(before, &keeper(&self.name, before)?)?;
            }
            self.engine.tag(id, reference)?;
        }
        Ok(())
    }

    /// The images of the new version, each with the name that it has got. One that had its name before, and not from this
    /// module, has got no other than the one that keeps it: nobody may take its own away later.
    fn names_given(&self) -> Result<Vec<(ImageId, Reference)>> {
        let projects = project::all(&self.state)?;
        let mut given = Vec::new();
        for (reference, id) in self.images() {
            let had_it = self.tags_before.get(reference).is_some_and(|before| before.as_ref() == Some(id));
            let is_ours = |(of, name): &(ImageId, Reference)| {
                of == id && name.as_listed(self.engine.kind) == *reference
            };
            let gave_it = projects.iter().any(|project| project.images.iter().any(is_ours));
            let name = if had_it && !gave_it { keeper(&self.name, id)? } else { reference.clone() };
            given.push((id.clone(), name));
        }
        Ok(given)
    }

    /// Makes the project's units and writes them.
    fn define(&self, carried: &Carried) -> Result<()> {
        let images = self.images().map(|(reference, id)| (reference.clone(), id.clone())).collect();
        let listed = self.engine.images()?;
        let around = Around {
            project: &self.name,
            engine: &self.engine,
            images: &images,
            listed: &listed,
            others: RefCell::default(),
            carried,
            directory: &self.live().join(FILES),
        };
        let defined = self.definition.define(&around)?;
        let others = around.others.into_inner();
        let mut needed = self.names_given()?;
        for (id, _) in others {
            let keeper = keeper(&self.name, &id)?;
            self.engine.tag(&id, &keeper)?;
            needed.push((id, keeper));
        }
        let project = Project {
            images: needed,
            resolved: self
                .resolved
                .iter()
                .filter(|(id, engine)| id != engine)
                .map(|(id, engine)| (id.clone(), engine.clone()))
                .collect(),
            services: defined.services,
            units: defined.units.iter().map(|(name, _)| name.clone()).collect(),
            pods: defined.pods,
            directory: PathBuf::new(),
        };
        let claims =
            Claims { new: &project, containers: &defined.containers, state: &self.state, live: &self.live() };
        claims.check(&self.name, &self.engine, &self.systemd)?;
        project.write(&self.staged(), &[defined.units, defined.files].concat())
    }

    fn live(&self) -> PathBuf {
        project::of(&self.state, &self.name)
    }

    fn staging(&self) -> PathBuf {
        self.state.join("staging")
    }

    /// The new project before the switch, the old one after it.
    fn staged(&self) -> PathBuf {
        self.staging().join(self.name.to_string())
    }

    fn directories(&self) -> Result<(Dir, Dir, FileName)> {
        let name = FileName::new(self.name.to_string())?;
        Ok((Dir::open(&self.staging())?, Dir::open(&project::directory(&self.state))?, name))
    }

    /// Whether the directory of the new project is in its place.
    fn is_new_live(&self, prepared: &Prepared) -> Result<bool> {
        Ok(inode(&self.live())? == Some(prepared.switch.new_inode))
    }

    /// Lets the directories change places: in one step, durable on return.
    fn exchange(&self, prepared: &Prepared) -> Result<()> {
        let (staging, live, name) = self.directories()?;
        match (prepared.switch.old_inode, self.is_new_live(prepared)?) {
            (Some(_), _) => staging.exchange(&name, &live, &name)?,
            (None, false) => staging.rename_to_free(&name, &live, &name)?,
            (None, true) => live.rename_to_free(&name, &staging, &name)?,
        }
        live.sync()?;
        staging.sync()
    }
}

impl Update for ProjectUpdate {
    type Prepared = Prepared;

    fn prepare(&mut self) -> Result<Prepared> {
        if let Some(new) = &self.new {
            new.open().and_then(|new| new.require_private()).context("the staged project")?;
            match &self.previous {
                Some(previous) => {
                    previous.open().and_then(|old| old.require_private()).context("the previous version")?;
                }
                None => ensure!(
                    !durable::exists(&self.live())?,
                    "{} is there since the download, and was not before: install again",
                    self.live().display()
                ),
            }
        }
        let new_inode = inode(&self.staged())?.context("the staged project is missing: download again")?;
        check_own(&self.staging())?;
        Ok(Prepared { switch: Switch { new_inode, old_inode: inode(&self.live())? } })
    }

    fn conflicts_with(&self, unrestored: &Self) -> bool {
        self.name == unrestored.name
    }

    fn activate(&self, prepared: &Prepared) -> Result<()> {
        let old = Project::read(&self.live())?;
        self.systemd.stop(&old)?;
        self.systemd.withdraw(&old)?;
        self.exchange(prepared)?;
        let new = Project::read(&self.live())?;
        self.systemd.publish(&new)?;
        let started = SystemTime::now();
        self.systemd.start(&new).inspect_err(|_| health::show(&new, &self.engine, started))?;
        health::wait(&new, &self.engine, &self.systemd, &self.limits, started)?;
        log!("the project {} runs and is healthy", self.name);
        Ok(())
    }

    fn roll_back(&self, prepared: &Prepared, trigger: Trigger) -> Result<()> {
        if trigger == Trigger::Boot {
            return self.restore_directory(prepared);
        }
        // Whatever is where: all that either version may have started has to end.
        let projects = [Project::read(&self.live())?, Project::read(&self.staged())?];
        let stopped: Vec<_> = projects.iter().map(|project| self.systemd.stop(project)).collect();
        let stopped: Result<()> = stopped.into_iter().collect();
        if stopped.is_ok() {
            projects.iter().try_for_each(|project| self.systemd.withdraw(project))?;
        }
        self.restore_directory(prepared)?;
        let old = Project::read(&self.live())?;
        self.systemd.publish(&old)?;
        self.systemd.start(&old)?;
        // The old is in its place, but the new may still run in its stead: only another try, or a boot, ends that.
        stopped.context("stopping the new version")
    }

    fn discard_at_boot(&self) -> Result<bool> {
        self.engine.tidy();
        Ok(false) // the engine's service may not run yet
    }

    fn discard(&self, prepared: Option<&Prepared>) -> Result<()> {
        self.engine.tidy();
        self.drop_loaded_names()?;
        let kept = Project::read(&self.staged())?;
        let mut candidates: BTreeSet<_> = kept.images.iter().map(|(id, _)| id.clone()).collect();
        let is_new_live = prepared.map(|prepared| self.is_new_live(prepared)).transpose()?;
        if is_new_live != Some(true) {
            tags::restore(self)?;
            candidates.extend(self.images().map(|(_, id)| id.clone()));
            candidates.retain(|id| !self.there_before.contains(id));
        }
        // It only takes space: no later update may have to wait for it.
        let projects = project::all(&self.state)?;
        let prune = || tags::prune(self, &candidates, &kept, &projects);
        if let Err(error) = prune().or_else(|_| prune()) {
            log!("removing an image that nothing needs failed: {error:#}: remove it by hand");
        }
        durable::remove_tree(&self.staging())
    }
}

impl ProjectUpdate {
    /// Puts the directory of the previous version into its place; what runs is the caller's concern.
    fn restore_directory(&self, prepared: &Prepared) -> Result<()> {
        if self.is_new_live(prepared)? {
            self.exchange(prepared)?;
        }
        let live = inode(&self.live())?;
        ensure!(
            live == prepared.switch.old_inode,
            "{} is neither the previous project nor the new one: was replaced: install the project again",
            self.live().display()
        );
        log!("the previous version of {} is in its place", self.name);
        Ok(())
    }

    /// Removes the names that images have only while they are loaded. An image that a load has left without another goes
    /// with its name.
    fn drop_loaded_names(&self) -> Result<()> {
        let listed = self.engine.images()?;
        for image in &listed {
            let Some(name) = image.reference.as_deref().filter(|name| name.starts_with(archive::LOADED))
            else {
                continue;
            };
            if tags::is_last_of_others(self, image, &listed) {
                log!("the image {} keeps the name {name}: it was here before, without one", image.id.short());
            } else {
                self.engine.remove(name, &image.id)?;
            }
        }
        Ok(())
    }
}

/// Refuses names that mean several images, and those that this module uses for itself.
fn check_references(images: &[Image]) -> Result<()> {
    let mut ids = BTreeMap::new();
    for Image { reference, id, .. } in images {
        let name = reference.as_ref();
        let reserved = [KEPT, archive::LOADED].iter().any(|prefix| name.starts_with(prefix));
        ensure!(!reserved, "the ref {reference} is one of this module's own: give the image another name");
        if let Some(other) = ids.insert(reference, id).filter(|other| *other != id) {
            bail!("the ref {reference} has two IDs, {other} and {id}: give each image a name of its own");
        }
    }
    Ok(())
}

/// The inode number of the directory `path`, `None` where it is absent.
fn inode(path: &Path) -> Result<Option<u64>> {
    if durable::exists(path)? { Dir::open(path)?.inode().map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use mender_update_module::check_journal;

    use super::*;

    /// A package may be upgraded while an update is pending: journals of released versions are read for ever.
    #[test]
    fn journals_of_released_versions_are_read() {
        let phases =
            mock_client::released_journals(env!("CARGO_MANIFEST_DIR"), check_journal::<ProjectUpdate>)
                .unwrap();
        let all = ["Activating", "Active", "Committed", "RolledBack", "RollingBack", "Staged", "Staging"];
        assert_eq!(phases, all);
    }
}
