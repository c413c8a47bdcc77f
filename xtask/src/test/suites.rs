//! The suites.

use std::process::Command;

use anyhow::Result;
use host::command::run;
use host::status::step;
use qemu::Image;
use xshell::{Cmd, Shell, cmd};

use super::requirements::Requirements;
use super::{Lane, Level, Plan, privileges};
use crate::conformance::{self, Conformance};
use crate::crash::Crash;
use crate::debian::{self, Debian};
use crate::dist::Dist;
use crate::distribution::Distribution;
use crate::e2e::E2e;
use crate::engines::{self, Engines};
use crate::fuzz::{self, Fuzz};
use crate::layer::{self, Checkouts, Layer, levels};
use crate::mutants::Mutants;
use crate::needs::Needs;
use crate::power_loss::PowerLoss;
use crate::record::{Record, both};
use crate::summary::Summary;
use crate::{build, docs, new, target, test_output};

/// A test suite.
pub struct Suite {
    pub name: &'static str,
    /// The lowest level that has it.
    pub from: Level,
    pub lane: Lane,
    pub requirements: fn(&Plan, &Shell) -> Result<Requirements>,
    pub work: Work,
}

/// What a suite does.
#[derive(Clone, Copy)]
pub enum Work {
    /// Runs one suite and returns a summary.
    One(fn(&Plan, &Shell, &Record) -> Result<String>),
    /// Adds suites to the summary.
    Several(fn(&Plan, &Shell, &Summary) -> Result<()>),
}

/// All suites, in each lane in their order: those that `--within` may end early are last.
pub const SUITES: &[Suite] = &[
    // On a fresh machine unit tests take longer than this one, which conformance waits for.
    one("system: Debian", Level::Quick, Lane::Systems, needs_debian, |_, sh, _| debian::system(sh).map(done)),
    one("system: images", Level::Sample, Lane::Systems, needs_images, |_, sh, _| images(sh)),
    one("system: engines", Level::Sample, Lane::Systems, needs_engines, |_, sh, _| engines::system(sh).map(done)),
    one("format", Level::Quick, Lane::Host, nothing, |_, sh, _| quiet("format", cmd!(sh, "cargo fmt --check"))),
    one("lints", Level::Quick, Lane::Host, nothing, |_, sh, _| lints(sh)),
    one("documentation", Level::Quick, Lane::Host, nothing, |_, sh, _| documentation(sh)),
    one("dependencies", Level::Quick, Lane::Host, needs_cargo_deny, |_, sh, _| dependencies(sh)),
    one("unit tests", Level::Quick, Lane::Host, nothing, |_, sh, record| unit_tests(sh, record)),
    one("conformance", Level::Quick, Lane::Host, needs_strace, |_, sh, record| Conformance::default().run(sh, record)),
    one("crates", Level::Sample, Lane::Host, nothing, |_, sh, _| crates(sh)),
    one("library examples", Level::Sample, Lane::Host, needs_strace, examples),
    one("report in a browser", Level::Sample, Lane::Host, needs_browser, |_, sh, record| browser(sh, record)),
    one("documented commands", Level::Sample, Lane::Host, needs_mender_artifact, |_, sh, _| {
        docs::run_commands(sh, &[docs::Length::Seconds])
    }),
    one("tutorial", Level::Full, Lane::Host, needs_tutorial, |_, sh, _| {
        docs::run_commands(sh, &[docs::Length::Minutes])
    }),
    one("new module", Level::Full, Lane::Host, needs_strace, |_, sh, record| new::proof(sh, record)),
    one("fault injection", Level::Quick, Lane::Host, nothing, fault_injection),
    one("deb on Debian", Level::Full, Lane::Host, needs_debian, |_, sh, record| {
        privileges::record_skipped_storage(record, "deb")?;
        Debian::default().run(sh, record)
    }),
    one("engines", Level::Sample, Lane::Host, needs_engines, |plan, sh, record| engines(plan).run(sh, record)),
    one("fuzzing", Level::Full, Lane::Host, needs_fuzz, |_, sh, record| Fuzz::default().run(sh, record)),
    one("mutants", Level::Full, Lane::Host, needs_mutants, |plan, sh, record| mutants(plan).run(sh, record)),
    one("layer: generated files", Level::Quick, Lane::Packages, nothing, |_, sh, _| Layer::CHECK.run(sh)),
    one("dist", Level::Sample, Lane::Packages, needs_dist, |plan, sh, _| dist(plan).run(sh)),
    several("layer: prebuilt checksums", Level::Sample, nothing, |_, sh, summary| {
        layer::compare_prebuilt(sh, summary);
        Ok(())
    }),
    several("layer", Level::Quick, needs_layer, |_, sh, summary| levels::run(sh, &Checkouts::default(), None, summary)),
    one("end to end", Level::Sample, Lane::Packages, needs_machines, |plan, sh, record| e2e(plan).run(sh, record)),
    one("power loss", Level::Full, Lane::Packages, needs_power_loss, |_, sh, record| {
        PowerLoss::sample()?.run(sh, record)
    }),
];

const fn one(
    name: &'static str,
    from: Level,
    lane: Lane,
    requirements: fn(&Plan, &Shell) -> Result<Requirements>,
    work: fn(&Plan, &Shell, &Record) -> Result<String>,
) -> Suite {
    Suite { name, from, lane, requirements, work: Work::One(work) }
}

/// Suites of the layer.
const fn several(
    name: &'static str,
    from: Level,
    requirements: fn(&Plan, &Shell) -> Result<Requirements>,
    work: fn(&Plan, &Shell, &Summary) -> Result<()>,
) -> Suite {
    Suite { name, from, lane: Lane::Packages, requirements, work: Work::Several(work) }
}

fn nothing(_: &Plan, _: &Shell) -> Result<Requirements> {
    Ok(Requirements::default())
}

fn needs_debian(_: &Plan, _: &Shell) -> Result<Requirements> {
    Ok(Requirements { needs: debian::needs(), obstacle: debian::unavailable()? })
}

fn needs_engines(_: &Plan, sh: &Shell) -> Result<Requirements> {
    Ok(Requirements { needs: engines::needs(), obstacle: engines::unavailable(sh)? })
}

fn needs_fuzz(_: &Plan, sh: &Shell) -> Result<Requirements> {
    Ok(Requirements { needs: fuzz::needs(), obstacle: fuzz::unavailable(sh) })
}

fn needs_images(_: &Plan, _: &Shell) -> Result<Requirements> {
    Ok(Needs::machines(&target::boards().collect::<Vec<_>>())?.into())
}

fn needs_machines(plan: &Plan, sh: &Shell) -> Result<Requirements> {
    Ok(e2e(plan).needs(sh)?.into())
}

fn needs_power_loss(plan: &Plan, sh: &Shell) -> Result<Requirements> {
    if plan.is_limited {
        return Ok(without_limit("cargo xtask power-loss --count 2"));
    }
    Ok(PowerLoss::sample()?.needs(sh)?.into())
}

fn needs_mutants(plan: &Plan, sh: &Shell) -> Result<Requirements> {
    if plan.is_limited {
        return Ok(without_limit("cargo xtask mutants --sample 3"));
    }
    needs_debian(plan, sh)
}

/// A suite whose parts take many minutes each, so that it cannot end in a limited time.
fn without_limit(command: &str) -> Requirements {
    Requirements { obstacle: Some(format!("--within leaves it out: run {command}")), ..Requirements::default() }
}

fn needs_dist(plan: &Plan, sh: &Shell) -> Result<Requirements> {
    Ok(dist(plan).needs(sh)?.into())
}

/// Level 1 of the layer; the other levels are for checkouts, and say themselves what they need.
fn needs_layer(_: &Plan, _: &Shell) -> Result<Requirements> {
    Ok(Needs::packages(yocto::EVERYWHERE_PACKAGES).into())
}

fn needs_strace(_: &Plan, _: &Shell) -> Result<Requirements> {
    Ok(Needs::packages(conformance::HOST_PACKAGES).into())
}

fn needs_mender_artifact(_: &Plan, _: &Shell) -> Result<Requirements> {
    Ok(Needs::packages(e2e::HOST_PACKAGES).into())
}

fn needs_tutorial(_: &Plan, _: &Shell) -> Result<Requirements> {
    Ok(Needs::packages(&[e2e::HOST_PACKAGES, conformance::HOST_PACKAGES].concat()).into())
}

fn needs_browser(_: &Plan, _: &Shell) -> Result<Requirements> {
    Ok(Needs::packages(test_report::BROWSER_PACKAGES).into())
}

fn needs_cargo_deny(_: &Plan, _: &Shell) -> Result<Requirements> {
    let missing = "cargo-deny is not installed: run cargo install --locked cargo-deny";
    let obstacle = (!has_command("deny")).then(|| missing.to_owned());
    Ok(Requirements { obstacle, ..Requirements::default() })
}

/// The packages of this run: in a sample, those for the emulated machines.
fn dist(plan: &Plan) -> Distribution {
    Distribution::trial(match plan.level {
        Level::Full => Dist::default(),
        _ => Dist::of(&target::TARGETS.iter().filter(|target| target.board.is_some()).collect::<Vec<_>>()),
    })
}

fn e2e(plan: &Plan) -> E2e {
    E2e::of(plan.level != Level::Full, plan.offset)
}

fn engines(plan: &Plan) -> Engines {
    if plan.level == Level::Full { Engines::default() } else { Engines::sample() }
}

/// The mutants of a run of all suites: each takes minutes.
const MUTANTS: u32 = 3;

fn mutants(plan: &Plan) -> Mutants {
    Mutants::sample(MUTANTS, plan.offset)
}

/// Faults of each kind in a sequence, in a sample.
const POINTS: u32 = 3;

/// The same in a run of all suites: with a time limit, and of the library's example.
const LIMITED_POINTS: u32 = 25;

fn fault_injection(plan: &Plan, sh: &Shell, record: &Record) -> Result<String> {
    let crash = match plan.level {
        Level::Quick => Crash::quick(plan.offset),
        Level::Sample => Crash::sample(POINTS, plan.offset),
        Level::Full if plan.is_limited => Crash::sample(LIMITED_POINTS, plan.offset),
        Level::Full => Crash::all(plan.offset),
    };
    crash.run(sh, record)
}

/// A suite that only passes or fails.
fn done<T>(_: T) -> String {
    String::new()
}

fn quiet(name: &str, command: Cmd) -> Result<String> {
    step(name, |step| run(step, command)).map(done)
}

fn lints(sh: &Shell) -> Result<String> {
    quiet("lints", cmd!(sh, "cargo clippy --workspace --all-targets --locked -- --deny warnings"))
}

fn documentation(sh: &Shell) -> Result<String> {
    let command = cmd!(sh, "cargo doc --workspace --no-deps --locked").env("RUSTDOCFLAGS", "--deny warnings");
    quiet("documentation", command)
}

fn dependencies(sh: &Shell) -> Result<String> {
    quiet("dependencies", cmd!(sh, "cargo deny --workspace check bans licenses sources"))
}

fn images(sh: &Shell) -> Result<String> {
    let images = Image::ensure_all(sh, &target::boards().collect::<Vec<_>>())?;
    Ok(images.iter().map(|image| image.board().machine).collect::<Vec<_>>().join(", "))
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

/// Runs conformance and a sample of faults with the library's example of a transactional module.
fn examples(plan: &Plan, sh: &Shell, record: &Record) -> Result<String> {
    let example = build::workspace(sh)?.join("examples/one-file");
    let payload = sh.current_dir().join("modules/mender-update-module/examples/payload");
    let conforms = Conformance::with(example.clone(), payload.clone()).run(sh, record)?;
    let points = if plan.level == Level::Full { LIMITED_POINTS } else { POINTS };
    Ok(format!("{conforms}; {}", Crash::with(&example, payload, points).run(sh, record)?))
}

/// The variable with the directory of the workspace's executables, for tests that would build them otherwise.
const EXECUTABLES: &str = "MENDER_TEST_EXECUTABLES";

/// Runs the unit tests, with cargo-nextest if it is installed, and the examples in the documentation.
fn unit_tests(sh: &Shell, record: &Record) -> Result<String> {
    let built = build::workspace(sh)?;
    let tests = if has_command("nextest") {
        cmd!(
            sh,
            "cargo nextest run --workspace --locked --no-fail-fast --color never --status-level all --failure-output final"
        )
    } else {
        cmd!(sh, "cargo test --workspace --locked --no-fail-fast --lib --bins --tests")
    };
    privileges::record_skipped(record)?;
    let tests = tests.env(EXECUTABLES, built);
    let tests = step("unit tests", |step| test_output::run(step, tests, record));
    let examples = cmd!(sh, "cargo test --workspace --locked --doc");
    let examples = step("examples in the documentation", |step| test_output::run(step, examples, record));
    both(tests, examples.map(drop))
}

/// Opens the report of a sample run in a headless browser.
fn browser(sh: &Shell, record: &Record) -> Result<String> {
    let lints = cmd!(sh, "cargo clippy --package test-report --test browser --locked -- --deny warnings");
    let tests = cmd!(sh, "cargo test --package test-report --test browser --locked");
    step("report in a browser", |step| {
        run(step, lints)?; // the lints of the workspace leave this test out
        test_output::run(step, tests, record)
    })
}

/// Whether the command `cargo NAME` is installed.
fn has_command(name: &str) -> bool {
    Command::new("cargo").args([name, "--version"]).output().is_ok_and(|output| output.status.success())
}
