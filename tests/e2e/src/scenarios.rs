//! The scenarios, one file for each module.

pub mod container;
mod deb;
mod destination;
mod directory;
mod diversion;
mod web_file;

use crate::Scenario;

/// Every module and its scenarios.
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

/// The modules that have scenarios on `machine`.
pub fn modules(machine: &str) -> impl Iterator<Item = &'static str> {
    let any = move |scenarios: &[Scenario]| scenarios.iter().any(|scenario| runs_on(scenario, machine));
    MODULES.iter().filter(move |(_, scenarios)| any(scenarios)).map(|(module, _)| *module)
}

/// Whether `scenario` runs on `machine`. Only one board has an image with a container engine.
pub fn runs_on(scenario: &Scenario, machine: &str) -> bool {
    machine == container::MACHINE || container::SCENARIOS.iter().all(|other| other.name != scenario.name)
}

/// The everyday scenarios of the other boards, one of each kind: the code is the same, and the system calls of another
/// architecture are tested.
const EVERYDAY: &[&str] = &[
    "package",
    "install-rollback",
    "power-loss-install",
    "directory-official",
    "directory-power-loss-install",
    "deb-power-loss",
];

/// Whether `scenario` is an everyday scenario on `machine`.
pub fn is_everyday(scenario: &Scenario, machine: &str) -> bool {
    machine == container::MACHINE || EVERYDAY.contains(&scenario.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyday_scenarios_exist() {
        for name in EVERYDAY {
            assert!(all().any(|scenario| scenario.name == *name), "no such scenario: {name}");
        }
    }

    #[test]
    fn every_module_has_an_everyday_power_loss() {
        for (module, scenarios) in MODULES {
            let is_power_loss = |scenario: &&Scenario| scenario.name.contains("power-loss");
            let machines = ["raspi3b", "raspi2b"].into_iter();
            for machine in machines.filter(|machine| modules(machine).any(|other| other == *module)) {
                assert!(
                    scenarios.iter().filter(is_power_loss).any(|scenario| is_everyday(scenario, machine)),
                    "{module} on {machine}"
                );
            }
        }
    }
}
