//! `cargo xtask power-loss`: devices lose power at many moments of updates, and have to settle in exactly the previous
//! or the new version.

mod table;
mod unsynced;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use e2e::Setup;
use e2e::power_loss::{self, Point, SUBJECTS};
use host::pool::side_by_side;
use qemu::Board;
use serde_json::{Value, json};
use test_report::Verdict;
use xshell::Shell;

use crate::dist::Dist;
use crate::evidence::Records;
use crate::needs::Needs;
use crate::record::{Record, case};
use crate::target::{self, TARGETS, Target};
use crate::{e2e as scenarios, evidence};

/// Makes emulated devices lose power during updates, and checks which version is active after it
///
/// A point takes 1 to 3 minutes. Each is added to target/power-loss/power-loss.jsonl, so that a run with --first
/// continues an earlier one; the table has all of them. Needs QEMU, and root once to build the images.
#[derive(Args)]
pub struct PowerLoss {
    /// The number of points of each module
    #[arg(long, value_name = "N", default_value_t = 8)]
    count: u32,
    /// The number of the first point
    #[arg(long, value_name = "N", default_value_t)]
    first: u32,
    /// QEMU's name of the machine
    #[arg(long, value_name = "MACHINE", value_parser = target::board, default_value = "raspi3b")]
    machine: &'static Board,
    /// Uses this module only; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// The number of devices that run in parallel
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    jobs: u32,
    /// Runs web-file without any sync, and fails unless that makes points bad, which are not with all syncs
    #[arg(long, conflicts_with_all = ["module", "first", "write"])]
    negative_control: bool,
    /// Adds the points to docs/evidence/power-loss.jsonl, and writes the table beside it
    #[arg(long)]
    write: bool,
}

/// The name of the record and of the table.
const NAME: &str = "power-loss";

impl PowerLoss {
    /// The points of `cargo xtask test --full`: two of each module.
    pub fn sample() -> Result<Self> {
        Ok(Self {
            count: 2,
            first: 0,
            machine: target::board("raspi3b")?,
            module: Vec::new(),
            jobs: 2,
            negative_control: false,
            write: false,
        })
    }

    fn target(&self) -> Result<&'static Target> {
        let target = TARGETS.iter().find(|target| target.board.as_ref() == Some(self.machine));
        target.with_context(|| format!("no target has the machine {}", self.machine.machine))
    }

    /// The requirements of the points.
    pub fn needs(&self, sh: &Shell) -> Result<Needs> {
        let needs = Needs::machines(&[self.machine])?.and(Dist::of(&[self.target()?]).needs(sh)?);
        Ok(needs.and(Needs::packages(&scenarios::host_packages())))
    }

    /// Runs the points, adds them to `record` and to the file of records, and returns a summary.
    ///
    /// # Errors
    /// A point is bad or failed. In a negative control: as [`table::negative_control`].
    pub fn run(self, sh: &Shell, record: &Record) -> Result<String> {
        let points = self.points()?; // refuses an unknown module before anything is installed or built
        self.needs(sh)?.provide(sh)?;
        let target = self.target()?;
        let _lock = scenarios::lock(sh)?;
        let executable = self.negative_control.then(|| unsynced::web_file(sh, target)).transpose()?;
        let mut setup = scenarios::setups(sh, &[(target, self.machine)])?.pop().context("no setup of the machine")?;
        // In a negative control every point runs with and without syncs: only their absence may make it bad.
        let executables: Vec<_> = [None].into_iter().chain(executable.as_ref().map(Some)).collect();
        let points: Vec<_> = points.iter().flat_map(|point| executables.iter().map(move |it| (point, *it))).collect();
        if points.len() >= scenarios::SNAPSHOT_SCENARIOS {
            setup.snapshot = setup.create_power_loss_snapshot()?;
        }
        let records = Records::open(&self.path(sh))?;
        let commit = evidence::commit(sh)?;
        let outcomes = side_by_side(self.jobs as usize, &points, |(point, executable)| {
            let (group, name) = (point.subject.module, format!("point {}", point.number));
            if record.skips(group, &name) {
                return Ok(None);
            }
            let mut line = line(&setup, point, *executable);
            line["commit"] = json!(commit);
            if self.negative_control {
                line["synced"] = json!(executable.is_none());
            }
            records.add(&line)?;
            record.add(case(group, &name, verdict(&line)));
            Ok(Some(line))
        });
        setup.remove_snapshot()?;
        let outcomes = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
        let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
        if self.negative_control {
            return table::negative_control(&outcomes);
        }
        let bad = outcomes.iter().filter(|line| table::is_bad(line)).count();
        self.write_table(sh, &records)?;
        ensure!(bad == 0, "{bad} of {} points are bad: see {}", outcomes.len(), records.path().display());
        Ok(format!("points without a bad one: {}", outcomes.len()))
    }

    /// The file to which the records are added.
    fn path(&self, sh: &Shell) -> PathBuf {
        let directory = sh.current_dir().join(if self.write { "docs/evidence" } else { "target/power-loss" });
        let name = if self.negative_control { "negative-control" } else { NAME };
        directory.join(name).with_extension("jsonl")
    }

    /// The chosen points.
    fn points(&self) -> Result<Vec<Point>> {
        if self.negative_control {
            return power_loss::negative_control(self.count);
        }
        let known = power_loss::modules(self.machine.machine);
        if let Some(unknown) = self.module.iter().find(|module| !known.contains(&module.as_str())) {
            bail!("no module {unknown} on {}: use one of {}", self.machine.machine, known.join(", "));
        }
        let is_chosen = |module: &str| self.module.is_empty() || self.module.iter().any(|chosen| chosen == module);
        let subjects: Vec<_> = SUBJECTS
            .into_iter()
            .filter(|subject| known.contains(&subject.module) && is_chosen(subject.module))
            .collect();
        // Number by number, so that an interrupted run has points of every module.
        let numbers = self.first..self.first.saturating_add(self.count);
        Ok(numbers.flat_map(|number| subjects.iter().map(move |subject| Point::new(subject, number))).collect())
    }

    /// Writes the table of all `records`.
    fn write_table(&self, sh: &Shell, records: &Records) -> Result<()> {
        let table = table::markdown(&records.all()?);
        println!("{table}");
        if self.write { evidence::write(sh, NAME, &self.command(), &table) } else { Ok(()) }
    }

    /// The command that makes the page.
    fn command(&self) -> String {
        let module: String = self.module.iter().map(|module| format!(" --module {module}")).collect();
        let machine = self.machine.machine;
        format!(
            "cargo xtask power-loss --count {} --first {} --machine {machine}{module} --write",
            self.count, self.first
        )
    }
}

/// The record of `point`, also if it fails.
fn line(setup: &Setup, point: &Point, executable: Option<&PathBuf>) -> Value {
    match setup.lose_power(point, executable) {
        Ok(record) => record.json(),
        Err(error) => json!({
            "number": point.number,
            "machine": setup.image.board().machine,
            "module": point.subject.module,
            "mode": format!("{:?}", point.mode).to_lowercase(),
            "moment": point.moment.name(),
            "verdict": "error",
            "reason": format!("{error:#}"),
        }),
    }
}

fn verdict(line: &Value) -> Verdict {
    if table::is_bad(line) { Verdict::Failed(line.to_string()) } else { Verdict::Passed(line.to_string()) }
}
