//! `cargo xtask engines`: the module container with real podman, docker, compose and systemd, on this machine.

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
    /// Runs this scenario only, or with one setup: install, install/docker; may be repeated [default: all]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Another executable of the module [default: ours is built]
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// Runs what `cargo xtask test` runs: each scenario with one setup, in turn
    #[arg(long)]
    everyday: bool,
    /// Lists the scenarios
    #[arg(long)]
    list: bool,
}

impl Engines {
    /// What `cargo xtask test` runs.
    pub fn everyday() -> Self {
        Self { everyday: true, ..Self::default() }
    }

    /// How many scenarios an everyday run leaves out.
    ///
    /// # Errors
    /// As [`engines::choose`], which refuses no empty choice.
    pub fn left_out() -> Result<usize> {
        let all = engines::choose(&[])?;
        Ok(all.len() - engines::sample(&all).len())
    }

    /// Makes what is missing, runs the scenarios, and says how many there were.
    ///
    /// # Errors
    /// When a scenario fails: each that did, and where it left everything.
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
            bail!("the scenarios cannot begin: {why}");
        }
        let suite = suite(sh, self.module)?;
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let played = side_by_side(cores, &chosen, |(scenario, setup)| suite.run(scenario, *setup));
        let failures: Vec<_> = played.into_iter().filter_map(Result::err).collect();
        let told: String = failures.iter().map(|error| format!("\n{error:#}")).collect();
        ensure!(failures.is_empty(), "{} of {} scenarios failed:{told}", failures.len(), chosen.len());
        Ok(format!("scenarios: {}", chosen.len()))
    }
}

/// Why the scenarios cannot be run by this user on this machine, if they cannot.
///
/// # Errors
/// On a host without dpkg.
pub fn obstacle(sh: &Shell) -> Result<Option<String>> {
    if !is_root()? {
        return Ok(Some("root is needed to boot systemd in namespaces: run this as root".to_owned()));
    }
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Some("its images are for x86_64: run this on amd64".to_owned()));
    }
    let mounts = "t=$(mktemp -d) && mount -t overlay overlay -o lowerdir=/etc:/usr \"$t\" && umount \"$t\" && \
                  mount -t cgroup2 cgroup2 \"$t\" && umount \"$t\" && rmdir \"$t\" && test -e /dev/loop-control";
    let tried = cmd!(sh, "unshare --pid --mount --uts --ipc --net --cgroup --fork sh -c {mounts}");
    if let Err(error) = step("namespaces, overlayfs, cgroup2 and loop devices", |step| run(step, tried)) {
        return Ok(Some(format!(
            "this kernel, or the container that this is run in, does not allow them: {error:#}"
        )));
    }
    needs().obstacle(sh)
}

/// What the scenarios need of this machine.
pub fn needs() -> Needs {
    Needs::packages(HOST_PACKAGES)
}

fn suite(sh: &Shell, module: Option<PathBuf>) -> Result<Suite> {
    let target = target(sh)?;
    packages::ensure(sh, HOST_PACKAGES)?;
    let system = system::ensure(sh)?;
    if module.is_none() {
        let build = cmd!(sh, "cargo build --locked --package container");
        step("the module", |step| run(step, build))?;
    }
    let server = server(sh, &target)?;
    Ok(Suite {
        system,
        module: module.unwrap_or_else(|| target.join("debug/container")),
        server: fs::read(&server).with_context(|| format!("reading {}", server.display()))?,
        directory: target.join("engines"),
    })
}

/// Where cargo builds.
fn target(sh: &Shell) -> Result<PathBuf> {
    let metadata = modules::metadata(sh)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?.into())
}

/// The server in the images, which have nothing but it.
fn server(sh: &Shell, target: &Path) -> Result<PathBuf> {
    let directory = target.join("static");
    let build =
        cmd!(sh, "cargo rustc --locked --package tiny-http --profile release --target-dir {directory}")
            .args(["--", "-C", "target-feature=+crt-static"]);
    step("the server in the images", |step| run(step, build))?;
    Ok(directory.join("release/tiny-http"))
}
