//! All scenarios.

mod artifact_gen;
mod client_unit;
mod compose;
mod names;
mod quadlet;
mod reasons;
mod recovery_unit;
mod updates;

use crate::{Scenario, Setup};

/// The engines, with each of their image stores.
const ENGINES: &[Setup] = &[Setup::Podman, Setup::Docker, Setup::DockerContainerd];

/// All scenarios.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    let all = [
        updates::SCENARIOS,
        names::SCENARIOS,
        reasons::SCENARIOS,
        compose::SCENARIOS,
        quadlet::SCENARIOS,
        artifact_gen::SCENARIOS,
        client_unit::SCENARIOS,
        recovery_unit::SCENARIOS,
    ];
    all.into_iter().flatten()
}
