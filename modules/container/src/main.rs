//! Mender Update Module `container`: runs applications as containers, with podman or docker.
//!
//! What is live is decided by one directory for each project: systemd units in which every image is given by its ID. An
//! update exchanges that directory, as `directory` does, and lets systemd stop the old units and start the new. Images are
//! kept by the engine, side by side, until the end. Units are put into `/run` at every boot, after recovery: a boot
//! never starts what a power loss left half-way.

mod archive;
mod carried;
mod compose;
mod conflicts;
mod definition;
mod engine;
mod health;
mod image;
mod load;
mod mount;
mod name;
mod order;
mod project;
mod quadlet;
mod run;
mod scratch;
mod settings;
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
use settings::{MetaData, Settings};
use systemd::Systemd;
use update::ProjectUpdate;

struct Container;

impl Transactional for Container {
    const NAME: &'static str = "container";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    type Update = ProjectUpdate;

    fn check_settings(&self, file: &Path) -> Result<()> {
        mender_update_module::settings::check::<Settings>(file)
    }

    fn plan(&self, tree: &WorkTree, _payloads: &mut Payloads) -> Result<ProjectUpdate> {
        let settings: Settings = mender_update_module::settings::load(Self::NAME)?;
        let meta_data: MetaData = tree
            .meta_data()?
            .context("the artifact has no meta-data: it has to name a project, its images, and what runs")?;
        let engine = Engine::choose(&settings)?;
        ProjectUpdate::plan(tree.state_directory(Self::NAME), meta_data, engine, &settings)
    }

    fn stage(&self, update: &mut ProjectUpdate, payloads: &mut Payloads) -> Result<()> {
        update.stage(payloads)
    }

    fn booted(&self, tree: &WorkTree) -> Result<()> {
        let settings: Settings = mender_update_module::settings::load(Self::NAME)?;
        Systemd::of(&settings).start_at_boot(&project::readable(&tree.state_directory(Self::NAME))?)
    }
}

fn main() -> ExitCode {
    mender_update_module::run(InTransactions(Container))
}
