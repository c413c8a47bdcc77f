//! Mender Update Module `container`: runs applications as containers, with podman or docker.
//!
//! Each project has one directory with its systemd units, in which every image is given by its ID. An update
//! exchanges that directory, stops the previous units, and starts the new ones. The engine keeps the images of both
//! versions until the end. Units are written to `/run` at every boot, after the recovery, so that a boot never starts
//! a half-installed version.
//!
//! An update goes through these files:
//!
//! 1. `load` streams the images into the engine, with the names in the archive replaced (`image_archive`).
//! 2. `forms` builds units from the definition, in one of three forms: `run`, `quadlet` or `compose`.
//! 3. `conflicts` refuses names that something else on the device uses.
//! 4. `update` exchanges the directories, and has `systemd` stop and start the units.
//! 5. `health` waits until the new version is healthy.
//! 6. `tags` restores or removes names of images.

pub mod artifact;
mod artifact_files;
mod conflicts;
mod container_status;
mod engine;
mod engine_kind;
mod forms;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod image;
mod image_archive;
mod labels;
mod load;
mod load_directory;
mod metadata;
mod mount;
mod name;
mod project;
mod reserved_names;
mod settings;
mod stage;
mod start_order;
mod systemd;
mod tags;
mod tar;
mod unit;
mod update;
mod yaml;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use mender_update_module::{InTransactions, Payloads, Transactional, WorkTree};

use engine::Engine;
use metadata::MetaData;
use settings::Settings;
use systemd::Systemd;
use update::ProjectUpdate;

struct Container;

impl Transactional for Container {
    const NAME: &'static str = "container";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    type Update = ProjectUpdate;

    fn check_settings(&self, file: &Path) -> Result<()> {
        mender_update_module::settings::check::<Settings>(file)?
            .check()
            .with_context(|| format!("invalid settings in {}", file.display()))
    }

    fn plan(&self, tree: &WorkTree, _payloads: &mut Payloads) -> Result<ProjectUpdate> {
        let settings = Settings::load(Self::NAME)?;
        let meta_data: MetaData = tree.meta_data()?.context(metadata::MISSING)?;
        let engine = Engine::choose(&settings)?;
        ProjectUpdate::new(tree.state_directory(Self::NAME), meta_data, engine, &settings)
    }

    fn stage(&self, update: &mut ProjectUpdate, payloads: &mut Payloads) -> Result<()> {
        update.stage(payloads)
    }

    fn booted(&self, tree: &WorkTree) -> Result<()> {
        let settings = Settings::at_boot(Self::NAME)?;
        let projects = project::each(&tree.state_directory(Self::NAME))?;
        Systemd::of(&settings).start_at_boot(projects)
    }
}

/// Runs the module: the `main` of its executable.
pub fn main() -> ExitCode {
    mender_update_module::run(InTransactions(Container))
}
