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

/// The limit of a health check that has to pass, in seconds: many times what a service or a container needs to start on
/// an emulated CPU. Less than the limit of the client's command and of a deployment.
const HEALTH_PASSES: u64 = 900;

/// The limit of a health check that has to fail, in seconds: the scenario waits all of it.
const HEALTH_FAILS: u64 = 20;

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

/// What `cargo xtask test` always runs: on each machine an install, a rollback and a power loss, in one scenario.
const SAMPLE: &[(&str, &str)] = &[("raspi3b", "power-loss-install"), ("raspi2b", "power-loss-install")];

/// A deployment in managed mode and power losses of other modules, of which the sample has one, on the faster machine.
/// A power loss of `container` takes longer than the whole sample.
const IN_TURN: &[(&str, &str)] =
    &[("raspi3b", "managed-web-file"), ("raspi3b", "deb-power-loss"), ("raspi3b", "directory-power-loss-install")];

/// Whether `scenario` is in the sample on `machine`. `offset` chooses one of the scenarios that take turns.
pub fn is_in_sample(scenario: &Scenario, machine: &str, offset: usize) -> bool {
    let turn = IN_TURN.get(offset % IN_TURN.len());
    SAMPLE.iter().chain(turn).any(|row| *row == (machine, scenario.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_of_the_sample_exist() {
        for (machine, name) in SAMPLE.iter().chain(IN_TURN) {
            let exists = all().any(|scenario| scenario.name == *name && runs_on(scenario, machine));
            assert!(exists, "no such scenario on {machine}: {name}");
        }
    }

    #[test]
    fn samples_in_a_row_have_a_power_loss_of_every_module_but_container() {
        let in_a_sample = |scenario: &Scenario| {
            let machines = SAMPLE.iter().map(|(machine, _)| *machine);
            let mut all = machines.flat_map(|machine| (7..7 + IN_TURN.len()).map(move |offset| (machine, offset)));
            all.any(|(machine, offset)| is_in_sample(scenario, machine, offset))
        };
        for (module, scenarios) in MODULES.iter().filter(|(module, _)| *module != container::MODULE) {
            let mut power_losses = scenarios.iter().filter(|scenario| scenario.name.contains("power-loss"));
            assert!(power_losses.any(in_a_sample), "{module}");
        }
    }

    #[test]
    fn every_sample_has_one_scenario_of_those_that_take_turns() {
        let size = |offset| {
            let on = |machine| all().filter(move |scenario| is_in_sample(scenario, machine, offset)).count();
            on("raspi3b") + on("raspi2b")
        };
        assert_eq!((0..5).map(size).collect::<Vec<_>>(), [SAMPLE.len() + 1; 5]);
    }
}
