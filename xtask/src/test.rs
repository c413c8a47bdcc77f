//! `cargo xtask test`: all test suites, and a summary of their results.

use std::process::Command;

use anyhow::Result;
use clap::Args;
use host::command::{output, run};
use host::status::step;
use xshell::{Cmd, Shell, cmd};

use crate::conformance::{self, Conformance};
use crate::crash::Crash;
use crate::debian::{self, Debian};
use crate::dist::{Dist, modules};
use crate::docs;
use crate::e2e::E2e;
use crate::engines::{self, Engines};
use crate::layer::{self, Checkouts, Layer, levels};
use crate::needs::{Needs, is_root};
use crate::new;
use crate::summary::Summary;

/// Runs all suites: lints, unit tests, real packages, fault injection, conformance, engines, layer, emulated Pis
///
/// Takes about 45 minutes on 2 cores with images in the cache. Without root some suites are skipped; the summary names
/// them.
#[derive(Args)]
pub struct Test {
    /// Skips the suites that need QEMU
    #[arg(long)]
    quick: bool,
    /// Runs every scenario on every machine and with every engine, which takes another hour
    #[arg(long, conflicts_with = "quick")]
    every_scenario: bool,
}

impl Test {
    /// Runs every suite, also after one has failed.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let obstacles = self.obstacles(sh)?;
        let mut summary = Summary::default();
        summary.ended("format", quiet("format", cmd!(sh, "cargo fmt --check")));
        let lints = cmd!(sh, "cargo clippy --workspace --all-targets --locked -- --deny warnings");
        summary.ended("lints", quiet("lints", lints));
        let documentation = cmd!(sh, "cargo doc --workspace --no-deps --locked").env("RUSTDOCFLAGS", "--deny warnings");
        summary.ended("documentation", quiet("documentation", documentation));
        summary.ended("crates", crates(sh));
        if has_command("deny") {
            let check = cmd!(sh, "cargo deny --workspace check bans licenses sources");
            summary.ended("dependencies", quiet("dependencies", check));
        } else {
            summary.skipped("dependencies", "cargo-deny is not installed: cargo install --locked cargo-deny");
        }
        summary.ended("unit tests", unit_tests(sh));
        if !is_root()? {
            let reason = "owners, mounts and attributes of files need root: run the command as root";
            summary.skipped("unit tests of hostile devices (web-file, directory)", reason);
        }
        obstacles.unless(&mut summary, DEBIAN, || Debian::default().run(sh));
        obstacles.unless(&mut summary, ENGINES, || self.engines().run(sh));
        if !obstacles.has(ENGINES) && !self.every_scenario {
            let left_out = Engines::left_out()?;
            summary.skipped("engines, the rest", format!("run cargo xtask engines: {left_out} more"));
        }
        // Before fault injection of the project's modules: all of them write the same report, and the last one remains.
        summary.ended("new module", new::proof(sh));
        summary.ended("library examples", examples(sh));
        summary.ended("crash", Crash::default().run(sh));
        obstacles.unless(&mut summary, CONFORMANCE, || Conformance::default().run(sh));
        obstacles.unless(&mut summary, COMMANDS, || docs::run_commands(sh));
        obstacles
            .unless(&mut summary, DIST, || Dist::default().run(sh).map(|built| format!("{} packages", built.len())));
        summary.ended("layer: generated files", Layer::CHECK.run(sh));
        layer::compare_prebuilt(sh, &mut summary);
        levels::run(sh, &Checkouts::default(), None, &mut summary)?;
        obstacles.unless(&mut summary, END_TO_END, || self.end_to_end().run(sh));
        if !obstacles.has(END_TO_END) && !self.every_scenario {
            let left_out = E2e::left_out()?;
            summary.skipped("end to end, the rest", format!("run cargo xtask e2e: {left_out}"));
        }
        summary.close().map(drop)
    }

    fn engines(&self) -> Engines {
        if self.every_scenario { Engines::default() } else { Engines::everyday() }
    }

    fn end_to_end(&self) -> E2e {
        if self.every_scenario { E2e::default() } else { E2e::everyday() }
    }

    /// The reasons why suites cannot run on this host. Prints them, and installs the requirements of the other suites,
    /// before anything is built.
    fn obstacles(&self, sh: &Shell) -> Result<Obstacles> {
        let e2e = self.end_to_end().needs()?;
        let needs = [
            (CONFORMANCE, Needs::packages(conformance::HOST_PACKAGES)),
            (COMMANDS, Needs::packages(e2e::HOST_PACKAGES)),
            (DIST, Dist::default().needs()),
            (END_TO_END, if self.quick { Needs::default() } else { e2e }),
        ];
        let mut obstacles = vec![(DEBIAN, debian::obstacle(sh)?), (ENGINES, engines::obstacle(sh)?)];
        let mut all = if obstacles[0].1.is_none() { debian::needs() } else { Needs::default() };
        if obstacles[1].1.is_none() {
            all = all.and(engines::needs());
        }
        for (suite, needs) in needs {
            let quick = (suite == END_TO_END && self.quick).then(|| "--quick".to_owned());
            let obstacle = quick.map_or_else(|| needs.obstacle(sh), |reason| Ok(Some(reason)))?;
            if obstacle.is_none() {
                all = all.and(needs);
            }
            obstacles.push((suite, obstacle));
        }
        for (suite, reason) in obstacles.iter().filter_map(|(suite, reason)| Some((suite, reason.as_ref()?))) {
            println!("skipped on this host: {suite}: {reason}");
        }
        all.provide(sh)?;
        Ok(Obstacles(obstacles))
    }
}

const DEBIAN: &str = "debian";
const ENGINES: &str = "engines";
const CONFORMANCE: &str = "conformance";
const DIST: &str = "dist";
const COMMANDS: &str = "documented commands";
const END_TO_END: &str = "end to end";

/// Suites, each with the reason why it cannot run, if any.
struct Obstacles(Vec<(&'static str, Option<String>)>);

impl Obstacles {
    fn of(&self, suite: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == suite).and_then(|(_, reason)| reason.as_deref())
    }

    fn has(&self, suite: &str) -> bool {
        self.of(suite).is_some()
    }

    /// Runs `suite`, or adds it to the summary as skipped.
    fn unless(&self, summary: &mut Summary, suite: &'static str, run: impl FnOnce() -> Result<String>) {
        match self.of(suite) {
            Some(reason) => summary.skipped(suite, reason),
            None => summary.ended(suite, run()),
        }
    }
}

/// Runs a suite whose only result is whether it passes.
fn quiet(name: &str, command: Cmd) -> Result<String> {
    step(name, |step| run(step, command)).map(|_| String::new())
}

/// Packages the crates that are published, without uploading them.
fn crates(sh: &Shell) -> Result<String> {
    const PUBLISHED: [&str; 2] = ["mender-update-module", "mender-update-module-test"];
    for package in PUBLISHED {
        let command = cmd!(sh, "cargo publish --dry-run --no-verify --allow-dirty --locked --package {package}");
        step(format!("packaging {package}"), |step| run(step, command))?;
    }
    Ok(PUBLISHED.join(", "))
}

/// Runs conformance and a sample of crash points with the library's example of a transactional module.
fn examples(sh: &Shell) -> Result<String> {
    const PACKAGE: &str = "mender-update-module";
    /// The number of crash points in each sequence. The modules are tested with all of them.
    const POINTS: usize = 20;
    let build = cmd!(sh, "cargo build --locked --package {PACKAGE} --examples");
    step("building the examples of the library", |step| run(step, build))?;
    let metadata = modules::metadata(sh)?;
    let example = modules::target_directory(&metadata)?.join("debug/examples/one-file");
    let payload = sh.current_dir().join("modules").join(PACKAGE).join("examples/payload");
    let conforms = Conformance::with(example.clone(), payload.clone()).run(sh)?;
    Ok(format!("{conforms}; {}", Crash::with(&example, payload, POINTS).run(sh)?))
}

/// Runs the unit tests, with cargo-nextest if it is installed, and the examples in the documentation.
fn unit_tests(sh: &Shell) -> Result<String> {
    let tests = if has_command("nextest") {
        cmd!(
            sh,
            "cargo nextest run --workspace --locked --no-fail-fast --color never --status-level slow --failure-output final"
        )
    } else {
        cmd!(sh, "cargo test --workspace --locked --no-fail-fast --lib --bins --tests")
    };
    let tests = step("unit tests", |step| output(step, tests))?;
    step("examples in the documentation", |step| run(step, cmd!(sh, "cargo test --workspace --locked --doc")))?;
    let output = tests.stdout + &tests.stderr;
    let count =
        output.lines().map(str::trim).filter(|line| line.contains("tests run:") || line.starts_with("test result:"));
    Ok(count.collect::<Vec<_>>().join("; "))
}

/// Whether the command `cargo NAME` is installed.
fn has_command(name: &str) -> bool {
    Command::new("cargo").args([name, "--version"]).output().is_ok_and(|output| output.status.success())
}
