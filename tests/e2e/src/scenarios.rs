//! The scenarios, one file for each module, and one for managed mode.

pub mod container;
mod deb;
mod destination;
mod directory;
mod diversion;
mod managed;
mod repository;
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
    MODULES.iter().flat_map(|(_, scenarios)| *scenarios).chain(managed::SCENARIOS)
}

/// The modules that have scenarios on `machine`.
pub fn modules(machine: &str) -> impl Iterator<Item = &'static str> {
    let any = move |scenarios: &[Scenario]| scenarios.iter().any(|scenario| runs_on(scenario, machine));
    MODULES.iter().filter(move |(_, scenarios)| any(scenarios)).map(|(module, _)| *module)
}

/// Whether `scenario` runs on `machine`. Only one board has an image with a container engine.
pub fn runs_on(scenario: &Scenario, machine: &str) -> bool {
    let needs_engine = scenario.name == managed::CONTAINER_SCENARIO
        || container::SCENARIOS.iter().any(|other| other.name == scenario.name);
    machine == container::MACHINE || !needs_engine
}

/// What `cargo xtask test` runs: on each machine an install, a rollback and a power loss, a power loss of every module,
/// and a deployment in managed mode.
const SAMPLE: &[(&str, &str)] = &[
    ("raspi3b", "install-rollback"),
    ("raspi3b", "power-loss-install"),
    ("raspi3b", "deb-power-loss"),
    ("raspi3b", "container-power-loss-install"),
    ("raspi3b", "managed-web-file"),
    ("raspi2b", "install-rollback"),
    ("raspi2b", "power-loss-install"),
    ("raspi2b", "directory-power-loss-install"),
];

/// Whether `scenario` is in the sample on `machine`.
pub fn is_in_sample(scenario: &Scenario, machine: &str) -> bool {
    SAMPLE.contains(&(machine, scenario.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_of_the_sample_exist() {
        for (machine, name) in SAMPLE {
            let exists = all().any(|scenario| scenario.name == *name && runs_on(scenario, machine));
            assert!(exists, "no such scenario on {machine}: {name}");
        }
    }

    #[test]
    fn the_sample_has_a_power_loss_of_every_module() {
        for (module, scenarios) in MODULES {
            let in_sample = |scenario: &Scenario| SAMPLE.iter().any(|(_, name)| *name == scenario.name);
            let mut power_losses = scenarios.iter().filter(|scenario| scenario.name.contains("power-loss"));
            assert!(power_losses.any(in_sample), "{module}");
        }
    }
}
