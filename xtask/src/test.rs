//! `cargo xtask test`: everything that says whether the work tree is sound, and a closing summary.

use std::process::Command;

use anyhow::Result;
use clap::Args;
use host::command::{output, run};
use host::packages;
use host::status::step;
use xshell::{Cmd, Shell, cmd};

use crate::conformance::Conformance;
use crate::crash::Crash;
use crate::debian::{self, Debian};
use crate::dist::Dist;
use crate::e2e::E2e;
use crate::engines::{self, Engines};
use crate::layer::{Layer, tiers};
use crate::new;
use crate::summary::Summary;

/// Format, lints, unit tests, real packages, every cut, conformance, the scenarios with real container engines, and those on the
/// emulated Pis.
#[derive(Args)]
pub struct Test {
    /// Leave out everything that needs QEMU.
    #[arg(long)]
    quick: bool,
    /// Play every scenario on every machine, which takes half an hour more
    #[arg(long, conflicts_with = "quick")]
    every_scenario: bool,
}

impl Test {
    /// Runs every suite, the later ones even when an earlier one has failed.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let mut summary = Summary::default();
        summary.ended("format", quiet("format", cmd!(sh, "cargo fmt --check")));
        let lints = cmd!(sh, "cargo clippy --workspace --all-targets --locked -- --deny warnings");
        summary.ended("lints", quiet("lints", lints));
        let documentation =
            cmd!(sh, "cargo doc --workspace --no-deps --locked").env("RUSTDOCFLAGS", "--deny warnings");
        summary.ended("documentation", quiet("documentation", documentation));
        summary.ended("unit tests", unit_tests(sh));
        match debian::obstacle(sh)? {
            Some(why) => summary.skipped("debian", why),
            None => summary.ended("debian", Debian::default().run(sh)),
        }
        match engines::obstacle(sh)? {
            Some(why) => summary.skipped("engines", why),
            None if self.every_scenario => summary.ended("engines", Engines::default().run(sh)),
            None => {
                summary.ended("engines", Engines::everyday().run(sh));
                let left_out = Engines::left_out()?;
                let why =
                    format!("cargo xtask engines runs the {left_out} that an everyday run leaves out, too");
                summary.skipped("engines, the rest", why);
            }
        }
        summary.ended("new module", new::proof(sh)); // before crash, whose report is to be that of our own modules
        summary.ended("crash", Crash::default().run(sh));
        summary.ended("conformance", Conformance::default().run(sh));
        summary.ended("dist", Dist::default().run(sh).map(|built| format!("{} packages", built.len())));
        summary.ended("layer: generated files", Layer::CHECK.run(sh));
        tiers::run(sh, None, &mut summary)?;
        self.end_to_end(sh, &mut summary)?;
        summary.close().map(drop)
    }
}

impl Test {
    fn end_to_end(&self, sh: &Shell, summary: &mut Summary) -> Result<()> {
        let needed = [qemu::PACKAGES, e2e::HOST_PACKAGES].concat();
        let obstacle = if self.quick { Some("--quick".to_owned()) } else { packages::obstacle(sh, &needed)? };
        match obstacle {
            Some(why) => summary.skipped("end to end", why),
            None if self.every_scenario => summary.ended("end to end", E2e::default().run(sh)),
            None => {
                summary.ended("end to end", E2e::everyday().run(sh));
                let left_out = E2e::left_out()?;
                summary.skipped("end to end, the rest", format!("cargo xtask e2e plays it: {left_out}"));
            }
        }
        Ok(())
    }
}

/// A suite that shows nothing but whether it passes.
fn quiet(name: &str, command: Cmd) -> Result<String> {
    step(name, |step| run(step, command)).map(|_| String::new())
}

/// Unit tests, by cargo-nextest where it is installed, and the documentation's examples.
fn unit_tests(sh: &Shell) -> Result<String> {
    let tests = if has_nextest() {
        cmd!(sh, "cargo nextest run --workspace --locked --color never --status-level slow")
    } else {
        cmd!(sh, "cargo test --workspace --locked --lib --bins --tests")
    };
    let tests = step("unit tests", |step| output(step, tests))?;
    step("documentation's examples", |step| run(step, cmd!(sh, "cargo test --workspace --locked --doc")))?;
    let said = tests.stdout + &tests.stderr;
    let count = said
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("tests run:") || line.starts_with("test result:"));
    Ok(count.collect::<Vec<_>>().join("; "))
}

fn has_nextest() -> bool {
    Command::new("cargo").args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}
