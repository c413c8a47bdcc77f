//! The change of `container`: one project's folder for another, and what runs after it.
//!
//! Which version is live is decided by the folder alone, exchanged as `directory` does it. Units and containers follow
//! from that; images and tags are put in order at the end, when nobody can go back any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use update_module::durable::{self, Dir};
use update_module::{Change, FileName, Payloads, say};

use crate::definition::{Around, Definition};
use crate::engine::{Engine, Listed};
use crate::health::{self, Limits};
use crate::image::{Image, ImageId, Reference};
use crate::load::Loading;
use crate::name::Name;
use crate::project::{self, Project};
use crate::settings::{MetaData, Settings};
use crate::systemd::Systemd;

/// Where the units of the device itself lie. One of a project in `/run` would go before the one of its name there.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// The record of one update, complete enough to go on with in another process after a power cut.
#[derive(Serialize, Deserialize)]
pub struct Update {
    state: PathBuf,
    name: Name,
    definition: Definition,
    images: Vec<Image>,
    engine: Engine,
    systemd: Systemd,
    limits: Limits,
    reserve: u64,
    /// What every reference meant before that this update changes.
    tags_before: BTreeMap<Reference, Option<ImageId>>,
    /// Those of the images that were on the device before.
    there_before: BTreeSet<ImageId>,
    /// Set by `prepare`.
    switch: Option<Switch>,
}

/// The folders that change places, by their inode numbers.
#[derive(Serialize, Deserialize)]
struct Switch {
    new_inode: u64,
    old_inode: Option<u64>,
}

impl Update {
    /// An update as the artifact's meta-data tell it.
    ///
    /// # Errors
    /// When they contradict themselves, or the engine does not answer.
    pub fn plan(state: PathBuf, meta_data: MetaData, engine: Engine, settings: &Settings) -> Result<Self> {
        let MetaData { project: name, images, definition } = meta_data;
        definition.check()?;
        ensure!(!images.is_empty(), "the meta-data name no images");
        let listed = engine.images()?;
        let meant = |reference: &Reference| {
            let found = listed.iter().find(|listed| listed.reference.as_deref() == Some(reference.as_ref()));
            found.map(|listed| listed.id.clone())
        };
        let mut tags_before = BTreeMap::new();
        for image in &images {
            let keeper = keeper(&name, &image.id)?;
            tags_before.insert(image.reference.clone(), meant(&image.reference));
            tags_before.insert(keeper.clone(), meant(&keeper));
        }
        let is_here = |image: &&Image| listed.iter().any(|listed| listed.id == image.id);
        let there_before = images.iter().filter(is_here).map(|image| image.id.clone()).collect();
        let systemd = Systemd::of(settings);
        let limits = Limits::of(settings)?;
        let reserve = settings.reserve_mib << 20;
        let switch = None;
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
            switch,
        })
    }

    /// Loads the images and writes the project, durably, beside the one that is live.
    ///
    /// # Errors
    /// When the payload is not what the meta-data say, or does not fit.
    pub fn stage(&self, payloads: &mut Payloads) -> Result<()> {
        durable::remove_tree(&self.staging())?;
        let Self { name: project, engine, images, definition, .. } = self;
        let taken = Loading { engine, images, definition, reserve: self.reserve }.take(payloads);
        engine.tidy();
        let files = taken?;
        self.tag()?;
        let defined = definition.define(&Around { project, engine, images }, &files, &self.live())?;
        let project = Project {
            images: images.iter().map(|image| (image.id.clone(), image.reference.clone())).collect(),
            services: defined.services,
            units: defined.units.iter().map(|(name, _)| name.clone()).collect(),
            folder: PathBuf::new(),
        };
        self.check_units(&project)?;
        project.write(&self.staged(), &[defined.units, defined.files].concat())?;
        durable::make_dirs(&project::folder(&self.state))?.sync_filesystem()
    }

    /// Every image gets its reference, and a name of this module's that keeps it from being taken for one that nobody
    /// needs.
    fn tag(&self) -> Result<()> {
        for image in &self.images {
            self.engine.tag(&image.id, &image.reference)?;
            self.engine.tag(&image.id, &keeper(&self.name, &image.id)?)?;
        }
        Ok(())
    }

    /// A unit has one project, and is nobody else's.
    fn check_units(&self, new: &Project) -> Result<()> {
        for unit in &new.units {
            let theirs = UNITS.iter().map(|folder| Path::new(folder).join(unit)).find(|path| path.exists());
            if let Some(path) = theirs {
                bail!("{} is a unit of this device: give the project's another name", path.display());
            }
        }
        for other in project::all(&self.state)?.iter().filter(|other| other.folder != self.live()) {
            if let Some(unit) = new.units.iter().find(|unit| other.units.contains(unit)) {
                bail!(
                    "the unit {unit} is in the project {} too: give it another name",
                    other.folder.display()
                );
            }
        }
        Ok(())
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

    fn folders(&self) -> Result<(Dir, Dir, FileName)> {
        let name = FileName::new(self.name.to_string())?;
        Ok((Dir::open(&self.staging())?, Dir::open(&project::folder(&self.state))?, name))
    }

    fn prepared(&self) -> Result<&Switch> {
        self.switch.as_ref().context("the journal has no prepared switch")
    }

    /// Whether the folder of the new project is in its place.
    fn is_new_live(&self) -> Result<bool> {
        let Some(Switch { new_inode, .. }) = &self.switch else { return Ok(false) };
        Ok(inode(&self.live())? == Some(*new_inode))
    }

    /// Lets the folders change places: in one step, on the medium on return.
    fn exchange(&self) -> Result<()> {
        let (staging, live, name) = self.folders()?;
        match (self.prepared()?.old_inode, self.is_new_live()?) {
            (Some(_), _) => staging.exchange(&name, &live, &name)?,
            (None, false) => staging.rename_to_free(&name, &live, &name)?,
            (None, true) => live.rename_to_free(&name, &staging, &name)?,
        }
        live.sync()?;
        staging.sync()
    }
}

impl Change for Update {
    fn prepare(&mut self) -> Result<()> {
        let new_inode = inode(&self.staged())?.context("the staged project is missing: download again")?;
        self.switch = Some(Switch { new_inode, old_inode: inode(&self.live())? });
        Ok(())
    }

    fn switch(&self) -> Result<()> {
        let old = Project::read(&self.live())?;
        self.systemd.stop(&old)?;
        self.systemd.withdraw(&old)?;
        self.exchange()?;
        let new = Project::read(&self.live())?;
        self.systemd.publish(&new)?;
        self.systemd.start(&new).inspect_err(|_| health::show(&new, &self.engine))?;
        health::wait(&new, &self.engine, &self.systemd, &self.limits)?;
        say(format_args!("the project {} runs, and is well", self.name));
        Ok(())
    }

    fn switch_back(&self) -> Result<()> {
        // Whatever is where: all that either version may have started has to end.
        let projects = [Project::read(&self.live())?, Project::read(&self.staged())?];
        let stopped: Vec<_> = projects.iter().map(|project| self.systemd.stop(project)).collect();
        let stopped: Result<()> = stopped.into_iter().collect();
        if stopped.is_ok() {
            projects.iter().try_for_each(|project| self.systemd.withdraw(project))?;
        }
        self.switch_back_at_boot()?;
        let old = Project::read(&self.live())?;
        self.systemd.publish(&old)?;
        self.systemd.start(&old)?;
        // The old is in its place, but the new may still run in its stead: only another try, or a boot, ends that.
        stopped.context("stopping the new version")
    }

    fn switch_back_at_boot(&self) -> Result<()> {
        if self.is_new_live()? {
            self.exchange()?;
        }
        let live = inode(&self.live())?;
        ensure!(
            live == self.prepared()?.old_inode,
            "{} is neither the old project nor the new: somebody has replaced it. Install the project again",
            self.live().display()
        );
        say(format_args!("the old version of {} is in its place", self.name));
        Ok(())
    }

    fn discard_at_boot(&self) -> Result<bool> {
        self.engine.tidy();
        Ok(false) // the engine's service may not run yet
    }

    fn forget(&self) -> Result<()> {
        self.engine.tidy();
        let kept = Project::read(&self.staged())?;
        let mut candidates: BTreeSet<_> = kept.images.iter().map(|(id, _)| id.clone()).collect();
        if !self.is_new_live()? {
            self.restore_tags()?;
            candidates.extend(self.images.iter().map(|image| image.id.clone()));
            candidates.retain(|id| !self.there_before.contains(id));
        }
        // It only takes space: no later update may have to wait for it.
        if let Err(error) = self.prune(&candidates, &kept).or_else(|_| self.prune(&candidates, &kept)) {
            say(format_args!("an image that nobody needs is left, remove it by hand: {error:#}"));
        }
        durable::remove_tree(&self.staging())
    }
}

impl Update {
    /// Gives every reference the meaning that it had before the update.
    fn restore_tags(&self) -> Result<()> {
        let mut listed = self.engine.images()?;
        for (reference, before) in &self.tags_before {
            let now = listed.iter().position(|image| image.reference.as_deref() == Some(reference.as_ref()));
            let is_here = |id: &ImageId| listed.iter().any(|image| image.id == *id);
            match (before, now) {
                (Some(before), now) if now.is_none_or(|now| listed[now].id != *before) && is_here(before) => {
                    self.engine.tag(before, reference)?;
                }
                (None, Some(now)) if self.may_lose_tag(&listed[now], &listed) => {
                    self.engine.remove(reference.as_ref(), &listed[now].id)?;
                    listed.remove(now);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Not the last one of an image that was there before: it would go with it.
    fn may_lose_tag(&self, image: &Listed, listed: &[Listed]) -> bool {
        !self.there_before.contains(&image.id)
            || listed.iter().filter(|other| other.id == image.id).count() > 1
    }

    /// Removes those of `candidates` that no project needs, by the names that `kept` and this module have given them. One
    /// that has other names is somebody's.
    fn prune(&self, candidates: &BTreeSet<ImageId>, kept: &Project) -> Result<()> {
        let (needed, names) = needed(&project::all(&self.state)?)?;
        for id in candidates {
            let given = kept.images.iter().filter(|(of, _)| of == id).map(|(_, reference)| reference.clone());
            let given: BTreeSet<_> =
                given.chain(self.tags_before.keys().cloned()).chain([keeper(&self.name, id)?]).collect();
            let is_ours = |listed: &Listed| {
                let name = listed.reference.as_deref();
                name.is_none_or(|name| {
                    given.iter().any(|given| given.as_ref() == name)
                        && names.iter().all(|other| other.as_ref() != name)
                })
            };
            let listed = self.engine.images()?.into_iter().filter(|listed| listed.id == *id);
            let (ours, others): (Vec<_>, Vec<_>) = listed.partition(is_ours);
            if needed.contains(id) || !others.is_empty() {
                say(format_args!("the image {} stays: it is needed, or has another name", id.short()));
            }
            if others.is_empty() && needed.contains(id) {
                continue; // its last names
            }
            for listed in ours {
                self.engine.remove(listed.reference.as_deref().unwrap_or(&id.to_string()), id)?;
            }
        }
        Ok(())
    }
}

/// The images that `projects` need, and all the names that keep them.
fn needed(projects: &[Project]) -> Result<(BTreeSet<ImageId>, BTreeSet<Reference>)> {
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for project in projects {
        let name = project.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = Name::try_from(name)?;
        for (id, reference) in &project.images {
            names.extend([reference.clone(), keeper(&name, id)?]);
            ids.insert(id.clone());
        }
    }
    Ok((ids, names))
}

/// The name that keeps the image `id` of project `name`.
fn keeper(name: &Name, id: &ImageId) -> Result<Reference> {
    format!("localhost/mender-kept/{name}:{}", id.short()).try_into()
}

/// The inode number of the folder `path`, `None` where it is absent.
fn inode(path: &Path) -> Result<Option<u64>> {
    if durable::exists(path)? { Dir::open(path)?.inode().map(Some) } else { Ok(None) }
}
