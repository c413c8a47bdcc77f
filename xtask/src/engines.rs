//! `cargo xtask engines`: tests the module `container` with real podman, docker, compose and systemd, on this machine.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use engines::{HOST_PACKAGES, Suite, system};
use host::command::run;
use host::pool::side_by_side;
use host::status::step;
use host::{cache, packages};
use xshell::{Shell, cmd};

use crate::build;
use crate::dist::modules;
use crate::needs::{Needs, is_root};
use crate::record::Record;

/// Runs container updates with real podman, docker and systemd in namespaces, as root
///
/// All scenarios take about 30 minutes on 2 cores, --sample about one. Needs amd64.
#[derive(Args, Default)]
pub struct Engines {
    /// Runs these scenarios only, with all setups (install) or with one (install/docker) [default: all]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Tests this executable [default: builds and tests the module of this work tree]
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// Runs what `cargo xtask test` runs: an install with podman and one with docker
    #[arg(long, conflicts_with = "scenarios")]
    sample: bool,
    /// Lists the scenarios and does not run them
    #[arg(long)]
    list: bool,
}

impl Engines {
    /// The command with which `cargo xtask test` runs scenarios.
    pub fn sample() -> Self {
        Self { sample: true, ..Self::default() }
    }

    /// Builds what is missing, runs the scenarios, and returns their number.
    ///
    /// # Errors
    /// Scenarios failed. The error lists each with its cause and directory.
    pub fn run(self, sh: &Shell, record: &Record) -> Result<String> {
        let chosen = engines::choose(&self.scenarios)?;
        let (sample, mut rest): (Vec<_>, Vec<_>) =
            chosen.into_iter().partition(|(scenario, setup)| scenario.is_in_sample(*setup));
        // The sample is first: if the time ends before all have started, it has run.
        let mut chosen = sample;
        if self.sample {
            let reason = "run cargo xtask engines";
            rest.iter().for_each(|(scenario, setup)| record.skipped(&setup.to_string(), scenario.name, reason));
        } else {
            engines::by_rounds(&mut rest);
            chosen.extend(rest);
        }
        if self.list {
            let line = |(scenario, setup): &(&engines::Scenario, _)| {
                format!("{:<36}  {}\n", format!("{}/{setup}", scenario.name), scenario.summary)
            };
            return Ok(chosen.iter().map(line).collect::<String>().trim_end().to_owned());
        }
        if let Some(why) = obstacle(sh)? {
            bail!("running the scenarios failed: {why}");
        }
        let target = modules::target_directory(&modules::metadata(sh)?)?.to_owned();
        let _lock = cache::lock(&target.join("engines.lock"))?;
        let suite = suite(sh, &target, self.module)?;
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let results = side_by_side(cores, &chosen, |(scenario, setup)| {
            let setup_name = setup.to_string();
            if record.skips(&setup_name, scenario.name) {
                return None;
            }
            let start = Instant::now();
            let result = suite.run(scenario, *setup);
            record.ended(&setup_name, scenario.name, &result, Some(start.elapsed()));
            Some(result)
        });
        let results: Vec<_> = results.into_iter().flatten().collect();
        let count = results.len();
        let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        let errors: String = failures.iter().map(|error| format!("\n{error:#}")).collect();
        ensure!(failures.is_empty(), "{} of {count} scenarios failed:{errors}", failures.len());
        Ok(format!("scenarios: {count}"))
    }
}

/// The reason why this user cannot run the scenarios on this machine; `None` if this user can.
pub fn obstacle(sh: &Shell) -> Result<Option<String>> {
    Ok(match unavailable(sh)? {
        Some(why) => Some(why),
        None => needs().obstacle(sh)?,
    })
}

/// The reason why no package helps this user to run the scenarios on this machine; `None` if this user can.
pub fn unavailable(sh: &Shell) -> Result<Option<String>> {
    // Several suites of a run ask, and the check mounts file systems.
    static KNOWN: OnceLock<Option<String>> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let checked = check_host(sh)?;
    Ok(KNOWN.get_or_init(|| checked).clone())
}

fn check_host(sh: &Shell) -> Result<Option<String>> {
    if !is_root()? {
        return Ok(Some("systemd in namespaces needs root: run the command as root".to_owned()));
    }
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Some("the images are for x86_64: run the command on amd64".to_owned()));
    }
    let mounts = "t=$(mktemp -d) && mount -t overlay overlay -o lowerdir=/etc:/usr \"$t\" && umount \"$t\" && \
                  mount -t cgroup2 cgroup2 \"$t\" && umount \"$t\" && rmdir \"$t\" && test -e /dev/loop-control";
    let check = cmd!(sh, "unshare --pid --mount --uts --ipc --net --cgroup --fork sh -c {mounts}");
    if let Err(error) = step("checking namespaces, overlayfs, cgroup2 and loop devices", |step| run(step, check)) {
        return Ok(Some(format!(
            "namespaces, overlayfs, cgroup2 and loop devices are not available: {error:#}: run the command on a kernel \
             that has them, and not in an unprivileged container"
        )));
    }
    Ok(None)
}

/// The directory of the Debian system with container engines. It is made if the cache does not have it.
pub fn system(sh: &Shell) -> Result<PathBuf> {
    system::ensure(sh)
}

/// The requirements of the scenarios.
pub fn needs() -> Needs {
    Needs::packages(HOST_PACKAGES)
}

/// The suite; its devices are below `target`.
fn suite(sh: &Shell, target: &Path, module: Option<PathBuf>) -> Result<Suite> {
    packages::ensure(sh, HOST_PACKAGES)?;
    let system = system::ensure(sh)?;
    let built = build::workspace(sh)?;
    let server = server(sh, target)?;
    Ok(Suite {
        system,
        module: module.unwrap_or_else(|| built.join("container")),
        generator: built.join("artifact-gen"),
        server: fs::read(&server).with_context(|| format!("reading {} failed", server.display()))?,
        directory: target.join("engines"),
    })
}

/// Builds the server that the test images contain, and nothing else, and returns its path.
fn server(sh: &Shell, target: &Path) -> Result<PathBuf> {
    let directory = target.join("static");
    let build = cmd!(sh, "cargo rustc --locked --package tiny-http --profile release --target-dir {directory}").args([
        "--",
        "-C",
        "target-feature=+crt-static",
    ]);
    step("building the server of the images", |step| run(step, build))?;
    Ok(directory.join("release/tiny-http"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_pages_have_the_number_of_scenarios_and_runs() {
        let all = engines::choose(&[]).unwrap();
        let scenarios = all.iter().map(|(scenario, _)| scenario.name).collect::<BTreeSet<_>>().len();
        let runs = all.len();
        let row = format!("| `cargo xtask engines` | {scenarios} scenarios, {runs} runs with all their engines |");
        assert!(include_str!("../../README.md").contains(&row), "README.md has no {row:?}");
        let sentence = format!(
            "`cargo xtask engines` runs {scenarios} scenarios, each with every engine that it is for: {runs} runs,"
        );
        assert!(
            include_str!("../../docs/compatibility.md").contains(&sentence),
            "compatibility.md has no {sentence:?}"
        );
    }
}
