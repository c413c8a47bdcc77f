//! The scenarios, one file for each module.

mod container;
mod directory;
mod web_file;

use crate::Scenario;

/// Every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    web_file::SCENARIOS.iter().chain(directory::SCENARIOS).chain(container::SCENARIOS)
}

/// Whether `scenario` is for `machine`: a container engine is in the image of one board only.
pub fn is_for(scenario: &Scenario, machine: &str) -> bool {
    machine == container::MACHINE || container::SCENARIOS.iter().all(|other| other.name != scenario.name)
}
