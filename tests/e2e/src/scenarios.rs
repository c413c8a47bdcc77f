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

/// What an everyday run plays on the other boards, one of each kind: the code is the same, its system calls are another
/// architecture's.
const EVERYDAY: &[&str] = &[
    "package",
    "install-rollback",
    "power-cut-install",
    "directory-official",
    "directory-power-cut-install",
    "deb-power-cut",
];

/// Whether an everyday run plays `scenario` on `machine`.
pub fn is_everyday(scenario: &Scenario, machine: &str) -> bool {
    machine == container::MACHINE || EVERYDAY.contains(&scenario.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_everyday_run_knows_its_scenarios() {
        for name in EVERYDAY {
            assert!(all().any(|scenario| scenario.name == *name), "there is no {name}");
        }
    }

    #[test]
    fn every_module_loses_power_every_day() {
        for (module, scenarios) in MODULES {
            let cut = |scenario: &&Scenario| scenario.name.contains("power-cut");
            let machines = ["raspi3b", "raspi2b"].into_iter();
            for machine in machines.filter(|machine| modules(machine).any(|other| other == *module)) {
                assert!(
                    scenarios.iter().filter(cut).any(|scenario| is_everyday(scenario, machine)),
                    "{module} on {machine}"
                );
            }
        }
    }
}
