//! `cargo xtask engines`: tests the module `container` with real podman, docker, compose and systemd, on this machine.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use engines::{HOST_PACKAGES, Suite, system};
use host::command::run;
use host::packages;
use host::pool::side_by_side;
use host::status::step;
use xshell::{Shell, cmd};

use crate::dist::modules;
use crate::needs::{Needs, is_root};

/// Runs container updates with real podman, docker and systemd in namespaces, as root
///
/// All scenarios take about 30 minutes on 2 cores, --everyday about 10. Needs amd64.
#[derive(Args, Default)]
pub struct Engines {
    /// Runs these scenarios only, with all setups (install) or with one (install/docker) [default: all]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Tests this executable [default: builds and tests the module of this work tree]
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// Runs what `cargo xtask test` runs: each scenario with one setup, chosen in turn
    #[arg(long)]
    everyday: bool,
    /// Lists the scenarios and does not run them
    #[arg(long)]
    list: bool,
}

impl Engines {
    /// The command with which `cargo xtask test` runs scenarios.
    pub fn everyday() -> Self {
        Self { everyday: true, ..Self::default() }
    }

    /// The number of scenarios that are not everyday ones.
    pub fn left_out() -> Result<usize> {
        let all = engines::choose(&[])?;
        Ok(all.len() - engines::sample(&all).len())
    }

    /// Builds what is missing, runs the scenarios, and returns their number.
    ///
    /// # Errors
    /// Scenarios failed. The error lists each with its cause and directory.
    pub fn run(self, sh: &Shell) -> Result<String> {
        let mut chosen = engines::choose(&self.scenarios)?;
        if self.everyday {
            chosen = engines::sample(&chosen);
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
        let suite = suite(sh, self.module)?;
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let results = side_by_side(cores, &chosen, |(scenario, setup)| suite.run(scenario, *setup));
        let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        let errors: String = failures.iter().map(|error| format!("\n{error:#}")).collect();
        ensure!(failures.is_empty(), "{} of {} scenarios failed:{errors}", failures.len(), chosen.len());
        Ok(format!("scenarios: {}", chosen.len()))
    }
}

/// The reason why this user cannot run the scenarios on this machine; `None` if this user can.
pub fn obstacle(sh: &Shell) -> Result<Option<String>> {
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
    needs().obstacle(sh)
}

/// The requirements of the scenarios.
pub fn needs() -> Needs {
    Needs::packages(HOST_PACKAGES)
}

fn suite(sh: &Shell, module: Option<PathBuf>) -> Result<Suite> {
    let target = modules::target_directory(&modules::metadata(sh)?)?.to_owned();
    packages::ensure(sh, HOST_PACKAGES)?;
    let system = system::ensure(sh)?;
    if module.is_none() {
        let build = cmd!(sh, "cargo build --locked --package container");
        step("building the module", |step| run(step, build))?;
    }
    let server = server(sh, &target)?;
    Ok(Suite {
        system,
        module: module.unwrap_or_else(|| target.join("debug/container")),
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
