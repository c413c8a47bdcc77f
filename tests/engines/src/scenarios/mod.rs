//! The scenarios.

mod updates;

use crate::{Scenario, Setup};

/// The engines, each with every way to keep images.
const ENGINES: &[Setup] = &[Setup::Podman, Setup::Docker, Setup::DockerContainerd];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    updates::SCENARIOS.iter()
}
