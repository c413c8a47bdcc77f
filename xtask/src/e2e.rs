//! `cargo xtask e2e`: the end-to-end scenarios on emulated Raspberry Pis.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use e2e::cost::Cost;
use e2e::{Scenario, Setup};
use host::pool::side_by_side;
use host::{cache, directory, packages};
use qemu::{Board, Image};
use test_report::{Case, Timeline, Verdict};
use xshell::Shell;

use crate::build;
use crate::dist::{self, Dist};
use crate::distribution::archive::is_update_module;
use crate::distribution::repository::{self, Repository};
use crate::distribution::signature::{self, Signer};
use crate::evidence;
use crate::needs::Needs;
use crate::record::Record;
use crate::target::{self, TARGETS, Target};

/// Runs the end-to-end scenarios: real client and packages on emulated Raspberry Pis
///
/// All of them take about 80 minutes on 2 cores, --sample about 4 minutes. Needs QEMU, and root once to build the
/// images.
#[derive(Args, Default)]
pub struct E2e {
    /// QEMU's name of a machine, raspi3b or raspi2b; may be repeated [default: all, in parallel]
    #[arg(long, value_name = "MACHINE", value_parser = target::board)]
    machine: Vec<&'static Board>,
    /// Runs these scenarios only [default: all]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Runs what `cargo xtask test` runs: an install, a rollback and a power loss on each machine, and in turn a
    /// deployment or a power loss of another module
    #[arg(long)]
    sample: bool,
    /// Chooses the scenario that takes turns in the sample
    #[arg(long, value_name = "N", requires = "sample", default_value_t, hide_default_value = true)]
    offset: u32,
    /// Replaces the client by the one in this directory: Debian packages of Mender 4, 5 or 6, for each machine
    #[arg(long, value_name = "DIR", conflicts_with = "write")]
    client: Option<PathBuf>,
    /// Replaces the client by test packages: client 3.4 with the command, packages and services of client 4
    #[arg(long, conflicts_with_all = ["client", "write"])]
    renamed_client: bool,
    /// Lists the scenarios and does not run them
    #[arg(long)]
    list: bool,
    /// Writes a table of the scenarios to docs/evidence
    #[arg(long, conflicts_with_all = ["machine", "scenarios", "sample"])]
    write: bool,
}

impl E2e {
    /// The command with which `cargo xtask test` runs scenarios: all, or with `sample` those of the sample,
    /// which start first in a run of all. `offset` chooses those that take turns in the sample.
    pub fn of(sample: bool, offset: u32) -> Self {
        Self { sample, offset, ..Self::default() }
    }

    /// The requirements of the chosen scenarios.
    pub fn needs(&self, sh: &Shell) -> Result<Needs> {
        let (targets, boards): (Vec<_>, Vec<_>) = self.chosen().into_iter().unzip();
        Ok(Needs::machines(&boards)?.and(Dist::of(&targets).needs(sh)?).and(Needs::packages(&host_packages())))
    }

    fn chosen(&self) -> Vec<(&'static Target, &'static Board)> {
        let rows = TARGETS.iter().filter_map(|target| Some((target, target.board.as_ref()?)));
        rows.filter(|(_, board)| self.machine.is_empty() || self.machine.contains(board)).collect()
    }

    /// Builds missing packages and images, runs the scenarios, adds each to `record`, and returns their number.
    ///
    /// # Errors
    /// Scenarios failed. The error lists each with its cause and directory.
    pub fn run(self, sh: &Shell, record: &Record) -> Result<String> {
        let scenarios = e2e::choose(&self.scenarios)?;
        let chosen = self.chosen();
        if self.list {
            let machines: Vec<_> = chosen.iter().map(|(_, board)| board.machine).collect();
            print!("{}", self.listed(&machines, &scenarios));
            return Ok(String::new());
        }
        self.needs(sh)?.provide(sh)?;
        let _lock = lock(sh)?;
        let mut setups = setups(sh, &chosen)?;
        for setup in &mut setups {
            setup.replacement = self.replacement(sh, setup)?;
        }
        let of = |setup: &Setup| self.scenarios_of(setup, &scenarios);
        create_snapshots(&mut setups, of)?;
        let outcomes = self.run_all(&setups, of, record);
        self.record_left_out(&setups, &scenarios, record);
        let (count, table) = (outcomes.len(), report(&outcomes));
        let failures: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err()).collect();
        let (failed, errors): (_, String) =
            (failures.len(), failures.iter().map(|error| format!("\n{error:#}")).collect());
        outcomes.into_iter().for_each(|outcome| record.add(outcome.into_case()));
        setups.iter_mut().try_for_each(Setup::remove_snapshot)?;
        if self.write {
            evidence::write(sh, "e2e", "cargo xtask e2e --write", &table)?;
        }
        ensure!(failed == 0, "{failed} of {count} scenarios failed:{errors}");
        let machines = setups.iter().map(|setup| format!("{} on {}", of(setup).len(), setup.image.board().machine));
        let sample = if self.sample { format!("; sample: --offset {}", self.offset) } else { String::new() };
        Ok(format!("scenarios: {}{sample}", machines.collect::<Vec<_>>().join(", ")))
    }

    /// The client that replaces that of the image of `setup`.
    fn replacement(&self, sh: &Shell, setup: &Setup) -> Result<Option<e2e::Packages>> {
        let architecture = setup.image.board().architecture;
        let written = setup.directory.join("renamed-client");
        if self.renamed_client {
            directory::empty(&written)?;
            let name = format!("renaming client 3.4 for {architecture}");
            host::status::step(name, |step| e2e::write_renamed_client(sh, step, &written, architecture))?;
        }
        let directory = self.client.as_deref().or(self.renamed_client.then_some(written.as_path()));
        directory.map(|directory| e2e::Packages::find(sh, directory, architecture)).transpose()
    }

    /// The scenarios that run on the machine of `setup`.
    fn scenarios_of(&self, setup: &Setup, scenarios: &[&'static Scenario]) -> Vec<&'static Scenario> {
        let machine = setup.image.board().machine;
        scenarios.iter().copied().filter(|scenario| self.runs(machine, scenario)).collect()
    }

    fn runs(&self, machine: &str, scenario: &Scenario) -> bool {
        scenario.runs_on(machine) && (!self.sample || self.is_in_sample(machine, scenario))
    }

    fn is_in_sample(&self, machine: &str, scenario: &Scenario) -> bool {
        scenario.is_in_sample(machine, self.offset as usize)
    }

    /// A line for each of `scenarios` that runs on one of `machines`.
    fn listed(&self, machines: &[&str], scenarios: &[&Scenario]) -> String {
        let runs = |scenario: &Scenario| {
            let on = machines.iter().copied().filter(|machine| self.runs(machine, scenario));
            on.collect::<Vec<_>>().join(", ")
        };
        let rows = scenarios.iter().map(|scenario| (scenario.name, runs(scenario), scenario.description));
        let rows: Vec<_> = rows.filter(|(_, on, _)| !on.is_empty()).collect();
        let name = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
        let on = rows.iter().map(|(_, on, _)| on.len()).max().unwrap_or_default();
        rows.iter().map(|(scenario, machines, what)| format!("{scenario:<name$}  {machines:<on$}  {what}\n")).collect()
    }

    /// Runs the scenarios of all machines, as many in parallel as this host has cores, because an emulator uses one
    /// core.
    ///
    /// The sample is first: if the time ends before all have started, it has run.
    fn run_all(
        &self,
        setups: &[Setup],
        of: impl Fn(&Setup) -> Vec<&'static Scenario>,
        record: &Record,
    ) -> Vec<Outcome> {
        let all = setups.iter().flat_map(|setup| of(setup).into_iter().map(move |scenario| (setup, scenario)));
        let mut all: Vec<_> = all.collect();
        // The longest scenarios are the last in the list. They start first, so that none of them runs alone at the end.
        all.reverse();
        all.sort_by_key(|(setup, scenario)| !self.is_in_sample(setup.image.board().machine, scenario));
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let outcomes = side_by_side(cores, &all, |(setup, scenario)| {
            let machine = setup.image.board().machine;
            if record.skips(machine, scenario.name) {
                return None;
            }
            let begun = Instant::now();
            let mut timeline = Timeline::default();
            let result = setup.run(scenario, &mut timeline);
            Some(Outcome { machine, scenario, duration: begun.elapsed(), result, timeline })
        });
        outcomes.into_iter().flatten().collect()
    }

    /// Records the scenarios that are not in the sample as skipped.
    fn record_left_out(&self, setups: &[Setup], scenarios: &[&'static Scenario], record: &Record) {
        for machine in setups.iter().map(|setup| setup.image.board().machine).filter(|_| self.sample) {
            let runs = |scenario: &&&Scenario| scenario.runs_on(machine) && !self.is_in_sample(machine, scenario);
            scenarios
                .iter()
                .filter(runs)
                .for_each(|scenario| record.skipped(machine, scenario.name, "run cargo xtask e2e"));
        }
    }
}

/// The Debian packages that the host needs for the scenarios and for the APT repository.
pub fn host_packages() -> Vec<&'static str> {
    [e2e::HOST_PACKAGES, repository::TOOLS, signature::TOOLS].concat()
}

/// Runs `scenarios` on the board of `target` with `packages` instead of those in `dist/`, and returns the machine's
/// name.
pub fn run_with(
    sh: &Shell,
    target: &'static Target,
    packages: Vec<PathBuf>,
    scenarios: &[&str],
) -> Result<&'static str> {
    packages::ensure(sh, &host_packages())?;
    let board = target.board.as_ref();
    let board = board.with_context(|| format!("no emulated Pi for the architecture {}", target.debian))?;
    let _lock = lock(sh)?;
    let packages = copied(&packages, &machine_directory(sh, board))?;
    let setup = setup(sh, target, Image::ensure(sh, board)?, packages)?;
    let scenarios: Vec<_> = scenarios.iter().map(|&name| name.to_owned()).collect();
    e2e::choose(&scenarios)?.into_iter().try_for_each(|scenario| setup.run(scenario, &mut Timeline::default()))?;
    Ok(board.machine)
}

/// Measures the cost of a container update, on the machine whose image has a container engine.
pub fn cost(sh: &Shell) -> Result<Cost> {
    packages::ensure(sh, &host_packages())?;
    let is_it = |(_, board): &(&Target, &Board)| board.machine == e2e::CONTAINER_MACHINE;
    let rows = TARGETS.iter().filter_map(|target| Some((target, target.board.as_ref()?)));
    let _lock = lock(sh)?;
    let setups = setups(sh, &rows.filter(is_it).collect::<Vec<_>>())?;
    e2e::cost::measure(setups.first().context("no machine has a container engine")?)
}

/// Locks the directories of all machines of this work tree, until the value is dropped: their cards are in it.
pub fn lock(sh: &Shell) -> Result<File> {
    cache::lock(&sh.current_dir().join("target/e2e.lock"))
}

/// The setups of the `chosen` machines.
pub fn setups(sh: &Shell, chosen: &[(&'static Target, &'static Board)]) -> Result<Vec<Setup>> {
    let targets: Vec<_> = chosen.iter().map(|(target, _)| *target).collect();
    let built = Dist::of(&targets).run(sh)?;
    let of = |target: &'static Target| {
        let packages = built.iter().filter(move |(of, _)| *of == target).map(|(_, deb)| deb.clone());
        packages.filter(|deb| is_update_module(deb)).collect::<Vec<_>>()
    };
    // Before images are built, which takes minutes.
    let packages = chosen.iter().map(|(target, board)| copied(&of(target), &machine_directory(sh, board)));
    let packages = packages.collect::<Result<Vec<_>>>()?;
    let images = Image::ensure_all(sh, &chosen.iter().map(|(_, board)| *board).collect::<Vec<_>>())?;
    let setups = targets.iter().zip(images).zip(packages);
    setups.map(|((target, image), packages)| setup(sh, target, image, packages)).collect()
}

/// The directory of the scenarios of `board`.
fn machine_directory(sh: &Shell, board: &Board) -> PathBuf {
    sh.current_dir().join("target/e2e").join(board.machine)
}

/// The setup of one machine, with `packages`, which are its own copies.
fn setup(sh: &Shell, target: &'static Target, image: Image, packages: Vec<PathBuf>) -> Result<Setup> {
    let directory = machine_directory(sh, image.board());
    let repository = directory.join("apt");
    let time = dist::epoch(sh)?;
    let made = Repository {
        directory: &repository,
        architectures: [target.debian].into(),
        packages: packages.iter().map(PathBuf::as_path).collect(),
        url: repository::URL,
        time: &time,
    };
    made.make(sh, &Signer::throw_away(sh, &time)?)?;
    let generator = build::workspace(sh)?.join("artifact-gen");
    Ok(Setup {
        generator,
        server: dist::test_server(sh, target)?,
        image,
        packages,
        repository,
        directory,
        replacement: None,
        snapshot: None,
    })
}

/// Copies `packages` below the directory `of_machine`, so that the scenarios of an hour install the same ones: `cargo
/// xtask dist` replaces those in `dist/`.
fn copied(packages: &[PathBuf], of_machine: &Path) -> Result<Vec<PathBuf>> {
    let directory = &of_machine.join("packages");
    directory::empty(directory)?;
    let copy = |package: &PathBuf| {
        let copy = directory.join(package.file_name().unwrap_or_default());
        fs::copy(package, &copy).with_context(|| format!("copying {} failed", package.display()))?;
        Ok(copy)
    };
    packages.iter().map(copy).collect()
}

/// The number of scenarios on a machine from which creating a snapshot takes less time than it saves: see
/// `qemu::Snapshot`.
pub const SNAPSHOT_SCENARIOS: usize = 6;

/// Creates a snapshot for every machine that runs at least [`SNAPSHOT_SCENARIOS`] scenarios.
fn create_snapshots(setups: &mut [Setup], of: impl Fn(&Setup) -> Vec<&'static Scenario> + Sync) -> Result<()> {
    let create = |setup: &Setup| {
        if of(setup).len() < SNAPSHOT_SCENARIOS { Ok(None) } else { setup.create_snapshot() }
    };
    let snapshots = side_by_side(setups.len(), setups, create);
    for (setup, snapshot) in setups.iter_mut().zip(snapshots) {
        setup.snapshot = snapshot?;
    }
    Ok(())
}

/// The outcome of a scenario on a machine.
struct Outcome {
    machine: &'static str,
    scenario: &'static Scenario,
    duration: Duration,
    result: Result<()>,
    timeline: Timeline,
}

impl Outcome {
    /// The outcome as a case of the report.
    fn into_case(self) -> Case {
        Case {
            group: self.machine.to_owned(),
            name: self.scenario.name.to_owned(),
            description: self.scenario.description.to_owned(),
            verdict: Verdict::from(&self.result),
            duration: Some(self.duration),
            timeline: Some(self.timeline),
        }
    }
}

/// A table of the outcomes, in the order of the list of scenarios.
fn report(outcomes: &[Outcome]) -> String {
    let mut rows: Vec<_> = outcomes.iter().rev().collect();
    rows.sort_by_key(|outcome| outcome.machine);
    let row = |outcome: &&Outcome| {
        let Outcome { machine, scenario: Scenario { name, description, .. }, duration, result, .. } = outcome;
        let verdict = if result.is_ok() { "passed" } else { "FAILED" };
        format!("| {machine} | {name} | {description} | {verdict} | {} |\n", duration.as_secs())
    };
    let rows: String = rows.iter().map(row).collect();
    format!(
        "# End-to-end scenarios\n\nThe real client 3.4.0 on emulated Raspberry Pis. Durations are in seconds, without KVM.\n\n\
         | machine | scenario | what it does | result | s |\n|---|---|---|---|--:|\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_machines_of_the_chosen_scenarios() {
        let all = e2e::choose(&[]).unwrap();
        let full = E2e::default().listed(&["raspi3b", "raspi2b"], &all);
        let line = |list: &str, name: &str| list.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        assert!(line(&full, "container-install").unwrap().contains(" raspi3b "), "{full}");
        assert!(line(&full, "install-commit").unwrap().contains("raspi3b, raspi2b"), "{full}");
        let sample = E2e::of(true, 0).listed(&["raspi2b"], &all);
        assert!(line(&sample, "container-install").is_none() && sample.lines().count() < full.lines().count());
    }
}
