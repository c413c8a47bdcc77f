//! `cargo xtask e2e`: the scenarios on the emulated Pis.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::Args;
use e2e::cost::Cost;
use e2e::{Scenario, Stage};
use host::packages;
use host::pool::side_by_side;
use qemu::{Board, Image};
use xshell::Shell;

use crate::dist::{self, Dist};
use crate::needs::Needs;
use crate::target::{self, TARGETS, Target};

/// Runs the end-to-end scenarios: real client, real packages, emulated Raspberry Pis
///
/// All of them take about 45 minutes on 2 cores, --everyday about 15. Needs QEMU, and root once to build the images.
#[derive(Args, Default)]
pub struct E2e {
    /// QEMU's name of a machine, raspi3b or raspi2b; may be repeated [default: all, side by side]
    #[arg(long, value_name = "MACHINE", value_parser = target::board)]
    machine: Vec<&'static Board>,
    /// Runs these scenarios only [default: all]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Runs what `cargo xtask test` runs: all but the slowest on raspi3b, one of each kind on raspi2b
    #[arg(long)]
    everyday: bool,
    /// Lists the scenarios
    #[arg(long)]
    list: bool,
}

impl E2e {
    /// What `cargo xtask test` plays.
    pub fn everyday() -> Self {
        Self { everyday: true, ..Self::default() }
    }

    /// The scenarios that an everyday run leaves out, by machine.
    ///
    /// # Errors
    /// As [`e2e::choose`], which refuses no empty choice.
    pub fn left_out() -> Result<String> {
        let scenarios = e2e::choose(&[])?;
        let boards = TARGETS.iter().filter_map(|target| target.board.as_ref());
        let left_out = boards.map(|board| {
            let rest = scenarios
                .iter()
                .filter(|scenario| scenario.is_for(board.machine) && !scenario.is_everyday(board.machine));
            let names: Vec<_> = rest.map(|scenario| scenario.name).collect();
            format!("{} of {}: {}", names.len(), board.machine, names.join(", "))
        });
        Ok(left_out.collect::<Vec<_>>().join("; "))
    }

    /// What it needs of this machine.
    ///
    /// # Errors
    /// When there is no place for a cache.
    pub fn needs(&self) -> Result<Needs> {
        let (targets, boards): (Vec<_>, Vec<_>) = self.chosen().into_iter().unzip();
        Ok(Needs::machines(&boards)?.and(Needs::dist(&targets)).and(Needs::packages(e2e::HOST_PACKAGES)))
    }

    fn chosen(&self) -> Vec<(&'static Target, &'static Board)> {
        let rows = TARGETS.iter().filter_map(|target| Some((target, target.board.as_ref()?)));
        rows.filter(|(_, board)| self.machine.is_empty() || self.machine.contains(board)).collect()
    }

    /// Makes packages and images where they are missing, plays the scenarios, and says how many there were.
    ///
    /// # Errors
    /// When a scenario fails: each that did, and where it left everything.
    pub fn run(self, sh: &Shell) -> Result<String> {
        let scenarios = e2e::choose(&self.scenarios)?;
        if self.list {
            let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or_default();
            scenarios.iter().for_each(|scenario| println!("{:<width$}  {}", scenario.name, scenario.says));
            return Ok(String::new());
        }
        let chosen = self.chosen();
        self.needs()?.provide(sh)?;
        let mut stages = stages(sh, &chosen)?;
        let on = |stage: &Stage| self.on(stage, &scenarios);
        save_devices(&mut stages, on)?;
        let failures = play(&stages, on);
        stages.iter_mut().try_for_each(Stage::forget_device)?;
        let tried: usize = stages.iter().map(|stage| on(stage).len()).sum();
        let told: String = failures.iter().map(|error| format!("\n{error:#}")).collect();
        ensure!(failures.is_empty(), "{} of {tried} scenarios failed:{told}", failures.len());
        let machines =
            stages.iter().map(|stage| format!("{} on {}", on(stage).len(), stage.image.board().machine));
        Ok(format!("scenarios: {}", machines.collect::<Vec<_>>().join(", ")))
    }

    /// Those of `scenarios` that are played on the machine of `stage`.
    fn on(&self, stage: &Stage, scenarios: &[&'static Scenario]) -> Vec<&'static Scenario> {
        let machine = stage.image.board().machine;
        let played = |scenario: &&Scenario| {
            scenario.is_for(machine) && (!self.everyday || scenario.is_everyday(machine))
        };
        scenarios.iter().copied().filter(played).collect()
    }
}

/// Plays `scenarios` on the board of `target` with `packages` in the place of those of `dist/`, and returns its name.
///
/// # Errors
/// When one fails, or there is no such machine.
pub fn play_with(
    sh: &Shell,
    target: &'static Target,
    packages: Vec<PathBuf>,
    scenarios: &[&str],
) -> Result<&'static str> {
    packages::ensure(sh, e2e::HOST_PACKAGES)?;
    let board = target.board.as_ref();
    let board = board.with_context(|| format!("there is no emulated Pi for {}", target.debian))?;
    let stage = stage(sh, target, Image::ensure(sh, board)?, packages)?;
    let scenarios: Vec<_> = scenarios.iter().map(|&name| name.to_owned()).collect();
    e2e::choose(&scenarios)?.into_iter().try_for_each(|scenario| stage.play(scenario))?;
    Ok(board.machine)
}

/// Measures what an update of a container costs, on the machine whose image has an engine.
///
/// # Errors
/// When the update fails, or the machine does.
pub fn cost(sh: &Shell) -> Result<Cost> {
    packages::ensure(sh, e2e::HOST_PACKAGES)?;
    let is_it = |(_, board): &(&Target, &Board)| board.machine == e2e::CONTAINER_MACHINE;
    let rows = TARGETS.iter().filter_map(|target| Some((target, target.board.as_ref()?)));
    let stages = stages(sh, &rows.filter(is_it).collect::<Vec<_>>())?;
    e2e::cost::measure(stages.first().context("no machine has a container engine")?)
}

/// Everything that the scenarios on the `chosen` machines need.
fn stages(sh: &Shell, chosen: &[(&'static Target, &'static Board)]) -> Result<Vec<Stage>> {
    let targets: Vec<_> = chosen.iter().map(|(target, _)| *target).collect();
    let built = Dist::of(&targets).run(sh)?;
    let images = Image::ensure_all(sh, &chosen.iter().map(|(_, board)| *board).collect::<Vec<_>>())?;
    let of = |target: &'static Target| {
        built.iter().filter(move |(of, _)| *of == target).map(|(_, deb)| deb.clone()).collect()
    };
    targets.iter().zip(images).map(|(target, image)| stage(sh, target, image, of(target))).collect()
}

fn stage(sh: &Shell, target: &'static Target, image: Image, packages: Vec<PathBuf>) -> Result<Stage> {
    let directory = sh.current_dir().join("target/e2e").join(image.board().machine);
    Ok(Stage { server: dist::test_server(sh, target)?, image, packages, directory, saved: None })
}

/// Saves a device with the packages for every machine that more than one scenario is played on: it pays from the second.
fn save_devices(stages: &mut [Stage], on: impl Fn(&Stage) -> Vec<&'static Scenario> + Sync) -> Result<()> {
    let pays = |stage: &Stage| on(stage).len() > 1;
    let save = |stage: &Stage| if pays(stage) { stage.save_device() } else { Ok(None) };
    let saved = side_by_side(stages.len(), stages, save);
    for (stage, saved) in stages.iter_mut().zip(saved) {
        stage.saved = saved?;
    }
    Ok(())
}

/// Plays the scenarios on all machines, as many side by side as this machine has cores: an emulator is busy with one. Returns
/// the errors of those that failed.
fn play(stages: &[Stage], on: impl Fn(&Stage) -> Vec<&'static Scenario>) -> Vec<anyhow::Error> {
    let all = stages.iter().flat_map(|stage| on(stage).into_iter().map(move |scenario| (stage, scenario)));
    let mut all: Vec<_> = all.collect();
    // The longest come last in the list. Begun last, one of them would be alone on the machine in the end.
    all.reverse();
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let played = side_by_side(cores, &all, |(stage, scenario)| stage.play(scenario));
    played.into_iter().filter_map(Result::err).collect()
}
