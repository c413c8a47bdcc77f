//! The scenarios, one file for each module.

pub mod container;
mod deb;
mod directory;
mod takeover;
mod web_file;

use crate::Scenario;

/// Every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    let files = [web_file::SCENARIOS, directory::SCENARIOS, deb::SCENARIOS, container::SCENARIOS];
    files.into_iter().flatten()
}

/// Whether `scenario` is for `machine`: a container engine is in the image of one board only.
pub fn is_for(scenario: &Scenario, machine: &str) -> bool {
    machine == container::MACHINE || container::SCENARIOS.iter().all(|other| other.name != scenario.name)
}
