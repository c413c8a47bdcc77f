//! What an update would take from somebody else: units, containers and pods of the same name.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use mender_update_module::FileName;
use mender_update_module::durable;

use crate::compose;
use crate::engine::{Engine, Kind};
use crate::name::Name;
use crate::project::{self, Containers, Project};
use crate::systemd::Systemd;

/// Where the units of the device itself lie. One of a project in `/run` would go before the one of its name there.
const UNITS: [&str; 6] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator",
    "/run/systemd/transient",
];

/// What a new version of a project takes for itself.
pub struct Claims<'a> {
    pub new: &'a Project,
    /// The names of its containers.
    pub containers: &'a [String],
    pub state: &'a Path,
    /// Where the version before is, if there is one.
    pub live: &'a Path,
}

impl Claims<'_> {
    /// Refuses what has an owner.
    ///
    /// # Errors
    /// When it has: who it is.
    pub fn check(&self, name: &Name, engine: &Engine, systemd: &Systemd) -> Result<()> {
        let old = Project::read(self.live)?;
        self.check_units(&old, systemd)?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.containers.iter().find(|name| !seen.insert(*name)) {
            bail!("the container name {twice} is given twice: give each container a name of its own");
        }
        self.check_containers(name, &old, engine)?;
        self.check_pods(&old, engine)
    }

    fn check_units(&self, old: &Project, systemd: &Systemd) -> Result<()> {
        for unit in &self.new.units {
            let theirs =
                UNITS.iter().map(|directory| Path::new(directory).join(unit)).find(|path| path.exists());
            if let Some(path) = theirs {
                bail!("{} is a unit of this device: give the project's another name", path.display());
            }
        }
        for other in project::all(self.state)?.iter().filter(|other| other.directory != self.live) {
            if let Some(unit) = self.new.units.iter().find(|unit| other.units.contains(unit)) {
                bail!(
                    "the unit {unit} is in the project {} too: give it another name",
                    other.directory.display()
                );
            }
        }
        let is_new = |unit: &&FileName| !old.units.contains(unit);
        for unit in self.new.units.iter().filter(is_new) {
            let path = systemd.unit_path(unit);
            ensure!(
                !durable::exists(&path)?,
                "{} is a unit of somebody else's: give the project's another name",
                path.display()
            );
        }
        Ok(())
    }

    fn check_containers(&self, name: &Name, old: &Project, engine: &Engine) -> Result<()> {
        if self.containers.is_empty() {
            return Ok(());
        }
        let all = engine.containers(None)?;
        let mut own: BTreeSet<_> = old
            .services
            .iter()
            .filter_map(|service| match &service.containers {
                Containers::Named(name) => Some(name.clone()),
                Containers::Labelled(_) => None,
            })
            .collect();
        for label in compose::labels(&name.to_string()) {
            own.extend(engine.containers(Some(&label))?);
        }
        if let Some(taken) = self.containers.iter().find(|name| all.contains(name) && !own.contains(*name)) {
            bail!(
                "the container {taken} is somebody else's: give the project's container another name, or remove that one"
            );
        }
        Ok(())
    }

    fn check_pods(&self, old: &Project, engine: &Engine) -> Result<()> {
        if self.new.pods.is_empty() || engine.kind == Kind::Docker {
            return Ok(());
        }
        let all = engine.pods()?;
        if let Some(taken) = self.new.pods.iter().find(|name| all.contains(name) && !old.pods.contains(name))
        {
            bail!(
                "the pod {taken} is somebody else's: give the project's pod another name, or remove that one"
            );
        }
        Ok(())
    }
}
