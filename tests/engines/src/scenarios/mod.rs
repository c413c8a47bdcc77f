//! The scenarios.

mod compose;
mod names;
mod quadlet;
mod reasons;
mod updates;

use crate::{Scenario, Setup};

/// The engines, each with every way to keep images.
const ENGINES: &[Setup] = &[Setup::Podman, Setup::Docker, Setup::DockerContainerd];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    let all =
        [updates::SCENARIOS, names::SCENARIOS, reasons::SCENARIOS, compose::SCENARIOS, quadlet::SCENARIOS];
    all.into_iter().flatten()
}
