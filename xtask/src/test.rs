//! `cargo xtask test`: the test suites, and a summary of their results.

mod charts;
mod privileges;
mod report;
mod requirements;
mod suites;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use host::command::shell_in;
use xshell::{Shell, cmd};

use crate::record::NO_TIME;
use crate::summary::{Summary, caught};
use requirements::Obstacles;
use suites::{SUITES, Suite, Work};

/// Runs the test suites in samples, from lints to updates on emulated Raspberry Pis
///
/// Takes 8 to 25 minutes on 2 idle cores, --quick 5 to 12, --full 90 or more; the first run also builds images. Suites
/// that cannot run are named in the summary. The report is target/test-report/index.html, with JUnit XML beside it.
#[derive(Args)]
pub struct Test {
    /// Runs lints, unit tests, conformance, one fault in each sequence, and level 1 of the layer
    #[arg(long)]
    quick: bool,
    /// Runs all suites: every scenario on every machine and engine, all faults of web-file and directory, a sample of
    /// those of container and deb, three mutants, and two power losses of each module. With --within: at most 25
    /// faults of each kind in a sequence, no mutants, and no suite power loss
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Starts no suite and no scenario after MINUTES; what has started usually ends within 15 minutes
    #[arg(long, value_name = "MINUTES")]
    within: Option<u32>,
}

/// How much is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// What needs neither QEMU nor container engines, in samples.
    Quick,
    /// Samples of the suites.
    Sample,
    /// All suites.
    Full,
}

/// What the suites of this run have in common.
struct Plan {
    level: Level,
    /// Shifts the samples of fault injection and of scenarios. It depends on the commit, so that each tries other
    /// points.
    offset: u32,
    /// Whether the time is limited: all faults would take most of it.
    is_limited: bool,
}

/// Suites that run one after another. Lanes run in parallel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Builds the systems that suites run on. Most of that is waiting for the network and for dpkg.
    Systems,
    /// Suites on this host.
    Host,
    /// Packages, and what needs them.
    Packages,
}

const LANES: &[Lane] = &[Lane::Systems, Lane::Host, Lane::Packages];

impl Test {
    /// Runs the suites, also after one has failed.
    ///
    /// # Errors
    /// A suite failed, the requirements of this run cannot be installed, or the report cannot be written.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let plan = Plan { level: self.level(), offset: offset(sh), is_limited: self.within.is_some() };
        let limit = self.within.map(|minutes| Duration::from_secs(60 * u64::from(minutes)));
        let run = report::Started::now(sh, self.command())?;
        let summary = Summary::new(limit);
        let start = Instant::now();
        let (obstacles, provided) = Obstacles::find(sh, &plan)?;
        if let Err(error) = provided {
            summary.ended("requirements", start, Err(error));
        }
        thread::scope(|scope| {
            for lane in LANES {
                let (here, plan, obstacles, summary) = (sh.current_dir(), &plan, &obstacles, &summary);
                scope.spawn(move || match shell_in(here) {
                    Ok(sh) => {
                        let of_lane = SUITES.iter().filter(|suite| suite.lane == *lane);
                        of_lane.for_each(|suite| suite.run_or_skip(&sh, plan, obstacles, summary));
                    }
                    Err(error) => summary.ended(format!("{lane:?}"), Instant::now(), Err(error)),
                });
            }
        });
        let (suites, result) = summary.close();
        let written = run.write(sh, suites);
        if let (Err(failed), Err(error)) = (&result, &written) {
            return Err(anyhow!("{failed:#}; {error:#}"));
        }
        result.and(written)
    }

    fn level(&self) -> Level {
        match (self.quick, self.full) {
            (true, _) => Level::Quick,
            (_, true) => Level::Full,
            _ => Level::Sample,
        }
    }

    fn command(&self) -> String {
        let options = [(self.quick, " --quick"), (self.full, " --full")];
        let options: String = options.iter().filter(|(is_set, _)| *is_set).map(|(_, option)| *option).collect();
        let within = self.within.map(|minutes| format!(" --within {minutes}")).unwrap_or_default();
        format!("cargo xtask test{options}{within}")
    }
}

impl Suite {
    fn run_or_skip(&self, sh: &Shell, plan: &Plan, obstacles: &Obstacles, summary: &Summary) {
        if let Some(reason) = self.left_out(plan.level).or_else(|| obstacles.of(self.name)) {
            return summary.skipped(self.name, reason);
        }
        match self.work {
            Work::One(run) => summary.run(self.name, |record| run(plan, sh, record)),
            Work::Several(_) if summary.is_over() => summary.skipped(self.name, NO_TIME),
            Work::Several(run) => {
                let start = Instant::now();
                if let Err(error) = caught(|| run(plan, sh, summary)) {
                    summary.ended(self.name, start, Err(error));
                }
            }
        }
    }

    /// The reason for which the suite is not part of a run at `level`, if it is not.
    fn left_out(&self, level: Level) -> Option<String> {
        let command = if self.from == Level::Full {
            "run cargo xtask test --full"
        } else {
            "run cargo xtask test without --quick"
        };
        (level < self.from).then(|| command.to_owned())
    }
}

/// The offset of this commit; 0 outside a git work tree.
fn offset(sh: &Shell) -> u32 {
    let commit = cmd!(sh, "git rev-parse HEAD").quiet().ignore_stderr().read().unwrap_or_default();
    u32::from_str_radix(commit.get(..4).unwrap_or_default(), 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_a_name_of_its_own() {
        let mut names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SUITES.len());
    }

    #[test]
    fn a_suite_that_is_left_out_has_a_reason() {
        let suite = SUITES.iter().find(|suite| suite.name == "end to end").unwrap();
        assert_eq!(suite.left_out(Level::Quick).as_deref(), Some("run cargo xtask test without --quick"));
        assert_eq!(suite.left_out(Level::Sample), None);
        let suite = SUITES.iter().find(|suite| suite.name == "fuzzing").unwrap();
        assert_eq!(suite.left_out(Level::Quick).as_deref(), Some("run cargo xtask test --full"));
    }

    #[test]
    fn a_scenario_that_hangs_ends_within_the_limit_of_ci() {
        let minutes = |number: u64| Duration::from_secs(60 * number);
        let (_, within) = include_str!("../../.ci/run").rsplit_once("--within ").unwrap();
        let within = minutes(within.trim().parse().unwrap());
        // The build of xtask took 5.5 minutes on a busy machine; the journal is read for the report.
        let (build, journal) = (minutes(6), minutes(2));
        assert!(build + within + e2e::SCENARIO.duration() + journal <= minutes(90), "{within:?}");
    }

    #[test]
    fn the_command_line_is_shown_with_its_options() {
        let test = Test { quick: false, full: true, within: Some(60) };
        assert_eq!(test.command(), "cargo xtask test --full --within 60");
    }
}
