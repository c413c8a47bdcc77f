//! The scenarios, one file for each module.

pub mod container;
mod deb;
mod directory;
mod takeover;
mod web_file;

use crate::Scenario;

/// Every module, and its scenarios.
const MODULES: &[(&str, &[Scenario])] = &[
    (web_file::MODULE, web_file::SCENARIOS),
    (directory::MODULE, directory::SCENARIOS),
    (deb::MODULE, deb::SCENARIOS),
    (container::MODULE, container::SCENARIOS),
];

/// Every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    MODULES.iter().flat_map(|(_, scenarios)| *scenarios)
}

/// The modules that there are scenarios of on `machine`.
pub fn modules(machine: &str) -> impl Iterator<Item = &'static str> {
    let any = move |scenarios: &[Scenario]| scenarios.iter().any(|scenario| is_for(scenario, machine));
    MODULES.iter().filter(move |(_, scenarios)| any(scenarios)).map(|(module, _)| *module)
}

/// Whether `scenario` is for `machine`: a container engine is in the image of one board only.
pub fn is_for(scenario: &Scenario, machine: &str) -> bool {
    machine == container::MACHINE || container::SCENARIOS.iter().all(|other| other.name != scenario.name)
}
