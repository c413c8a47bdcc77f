//! Conflicts of names that a new version would take from the device or another project.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::FileName;
use mender_update_module::durable;

use crate::engine::Engine;
use crate::engine_kind::EngineKind;
use crate::labels;
use crate::name::Name;
use crate::project::{self, Containers, Project};
use crate::systemd::Systemd;

/// The directories of the device's own units. A project's unit in `/run` would override one of the same name.
const UNITS: [&str; 6] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator",
    "/run/systemd/transient",
];

/// The names that a new version of a project uses.
pub struct Claims<'a> {
    pub new: &'a Project,
    /// The names of its containers.
    pub containers: &'a [String],
    pub state_directory: &'a Path,
    /// The directory of the previous version. It need not exist.
    pub active: &'a Path,
}

impl Claims<'_> {
    /// Refuses a name that something else uses.
    ///
    /// # Errors
    /// The name, what uses it, and the remedy.
    pub fn check(&self, name: &Name, engine: &Engine, systemd: &Systemd) -> Result<()> {
        let previous = Project::read(self.active)?;
        self.check_units(&previous, systemd)?;
        let mut seen = BTreeSet::new();
        if let Some(duplicate) = self.containers.iter().find(|name| !seen.insert(*name)) {
            bail!("duplicate container name: {duplicate}: use another name for one of them");
        }
        let users = self.users_compose_containers(name, &previous, engine)?;
        if let Some(container) = users.first().filter(|_| self.new.is_compose()) {
            bail!(
                "compose project name in use: {name}: by the container {container}, which this module has not started: \
                 use another name, or remove the containers of that project"
            );
        }
        self.check_containers(name, &previous, &users, engine)?;
        self.check_pods(&previous, engine)
    }

    /// The containers of a user's compose project of the same name, which compose would stop and remove. None if the
    /// previous version is a compose project: unexpected labels must not block its updates.
    fn users_compose_containers(&self, name: &Name, previous: &Project, engine: &Engine) -> Result<BTreeSet<String>> {
        let mut users = BTreeSet::new();
        let is_concerned = self.new.is_compose() || !self.containers.is_empty();
        if previous.is_compose() || !is_concerned {
            return Ok(users);
        }
        // podman-compose resolves symlinks.
        let resolved = fs::canonicalize(self.state_directory)
            .with_context(|| format!("resolving {} failed", self.state_directory.display()))?;
        let own = [self.active.to_owned(), project::directory_of(&resolved, name)];
        for label in labels::of_compose_project(&name.to_string()) {
            for container in engine.containers(Some(&label))? {
                // One that was removed meanwhile is of no concern.
                let Some(status) = engine.container(&container)? else { continue };
                let directory = status.labels.get(labels::COMPOSE_DIRECTORY).map(Path::new);
                // Those that an interrupted first install has left are of this module.
                if directory.is_none_or(|directory| !own.iter().any(|own| directory.starts_with(own))) {
                    users.insert(container);
                }
            }
        }
        Ok(users)
    }

    fn check_units(&self, previous: &Project, systemd: &Systemd) -> Result<()> {
        for unit in &self.new.units {
            let found = UNITS.iter().map(|directory| Path::new(directory).join(unit)).find(|path| path.exists());
            if let Some(path) = found {
                bail!("unit name in use: {}: a unit of this device: use another name", path.display());
            }
        }
        for other in project::all(self.state_directory)?.iter().filter(|other| other.directory != self.active) {
            if let Some(unit) = self.new.units.iter().find(|unit| other.units.contains(unit)) {
                bail!("unit name in use: {unit}: by the project {}: use another name", other.directory.display());
            }
        }
        let is_new = |unit: &&FileName| !previous.units.contains(unit);
        for unit in self.new.units.iter().filter(is_new) {
            let path = systemd.unit_path(unit);
            ensure!(
                !durable::exists(&path)?,
                "unit name in use: {}: not a unit of this project: use another name",
                path.display()
            );
        }
        Ok(())
    }

    fn check_containers(
        &self,
        name: &Name,
        previous: &Project,
        users: &BTreeSet<String>,
        engine: &Engine,
    ) -> Result<()> {
        if self.containers.is_empty() {
            return Ok(());
        }
        let all = engine.containers(None)?;
        let mut own: BTreeSet<_> = previous
            .services
            .iter()
            .filter_map(|service| match &service.containers {
                Containers::Named(name) => Some(name.clone()),
                Containers::Labelled(_) => None,
            })
            .collect();
        for label in labels::of_project(&name.to_string()) {
            own.extend(engine.containers(Some(&label))?.into_iter().filter(|name| !users.contains(name)));
        }
        let taken = self.containers.iter().find(|name| all.contains(name) && !own.contains(*name));
        if let Some(taken) = taken {
            bail!(
                "container name in use: {taken}: not a container of this project: use another name, or \
                 remove that container"
            );
        }
        Ok(())
    }

    fn check_pods(&self, previous: &Project, engine: &Engine) -> Result<()> {
        if self.new.pods.is_empty() || engine.kind == EngineKind::Docker {
            return Ok(());
        }
        let all = engine.pods()?;
        let taken = self.new.pods.iter().find(|name| all.contains(name) && !previous.pods.contains(name));
        if let Some(taken) = taken {
            bail!("pod name in use: {taken}: not a pod of this project: use another name, or remove that pod");
        }
        Ok(())
    }
}
