//! `cargo xtask fuzz`: runs parsers on inputs that libFuzzer makes.
//!
//! The targets are in `tests/fuzz-targets`, their executables and corpora in `fuzz/`.

mod outcome;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use host::cargo::cargo;
use host::command::{complete, run, shell_in};
use host::pool::side_by_side;
use host::status::step;
use host::{directory, packages};
use xshell::{Shell, cmd};

use crate::dist::tools;
use crate::evidence::{self, Records};
use crate::needs::Needs;
use crate::record::Record;
use outcome::{Outcome, table};

/// What the executables need on the host: libFuzzer is C++.
const HOST_PACKAGES: &[&str] = &["g++"];

/// The toolchain: the coverage that libFuzzer needs is not stable.
const TOOLCHAIN: &str = "nightly";

/// The variable with which rustup chooses a toolchain.
const CHOICE: &str = "RUSTUP_TOOLCHAIN";

/// The seconds for which a target runs, unless the command line says something else.
const SECONDS: u32 = 60;

/// The memory limit of a process in MiB. The shadow memory of AddressSanitizer is 400 MiB of it.
const MEMORY_MIB: u32 = 1024;

/// The limit of one allocation in MiB: no parser needs so much for an input of some KiB.
const ALLOCATION_MIB: u32 = 64;

/// The time limit for one input in seconds. Inputs take less than 10 ms; on a busy machine a process may not run for
/// some seconds.
const INPUT_SECONDS: u32 = 120;

/// The largest input in bytes: several headers of an archive with their contents.
const INPUT_BYTES: u32 = 8192;

/// Runs the parsers of untrusted input on mutated inputs, with libFuzzer
///
/// Takes a minute for each target. Needs a nightly Rust, which rustup installs, and cargo-fuzz, which is compiled on
/// first use. New inputs are kept in target/fuzz/corpus, from which the next run continues, those that crash in
/// target/fuzz/crashes.
#[derive(Args)]
pub struct Fuzz {
    /// Runs these targets only [default: all in fuzz/targets]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Runs each target for N seconds
    #[arg(long, value_name = "N", default_value_t = SECONDS, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// The number of targets that run in parallel
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    jobs: u32,
    /// Runs the targets once, on FILE, to reproduce a crash
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seconds", "jobs", "write"], requires = "targets")]
    input: Option<PathBuf>,
    /// Adds the run to docs/evidence/fuzz.jsonl, and writes the table of all runs beside it
    #[arg(long)]
    write: bool,
}

impl Default for Fuzz {
    fn default() -> Self {
        Self { targets: Vec::new(), seconds: SECONDS, jobs: 1, input: None, write: false }
    }
}

/// The name of the records and of the table.
const NAME: &str = "fuzz";

impl Fuzz {
    /// Runs the targets, prints a table, and returns a summary.
    ///
    /// # Errors
    /// When a target crashes, exceeds a limit, or cannot be built.
    pub fn run(self, sh: &Shell, record: &Record) -> Result<String> {
        let targets = self.targets(sh)?;
        packages::ensure(sh, HOST_PACKAGES)?;
        install_toolchain(sh)?;
        let executables = build(sh)?;
        if let Some(input) = &self.input {
            return self.reproduce(sh, &executables, &sh.current_dir().join(input));
        }
        let directory = sh.current_dir();
        let open = || anyhow::Ok((Records::open(&directory.join("docs/evidence/fuzz.jsonl"))?, evidence::commit(sh)?));
        let records = self.write.then(open).transpose()?;
        let outcomes = side_by_side(self.jobs as usize, &targets, |target| {
            if record.skips("fuzz", target) {
                return Ok(None);
            }
            let (sh, start) = (shell_in(&directory)?, Instant::now());
            let outcome = step(format!("fuzz: {target}"), |_| self.fuzz(&sh, &executables, target))?;
            record.ended("fuzz", target, &outcome.result(), Some(start.elapsed()));
            if let Some((records, commit)) = &records {
                records.add(&outcome.json(commit))?;
            }
            Ok(Some(outcome))
        });
        let outcomes: Vec<_> = outcomes.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        println!("{}", table(&outcomes));
        if let Some((records, _)) = records {
            evidence::write(sh, NAME, &self.command(), &outcome::markdown(&records.all()?))?;
        }
        let crashes: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.result().err()).collect();
        if !crashes.is_empty() {
            let crashes: Vec<_> = crashes.iter().map(|error| format!("{error:#}")).collect();
            bail!("{} of {} targets failed:\n{}", crashes.len(), outcomes.len(), crashes.join("\n"));
        }
        let runs: u64 = outcomes.iter().map(|outcome| outcome.runs).sum();
        Ok(format!("{} targets, {runs} runs", outcomes.len()))
    }

    /// The targets of the command line; all if it has none.
    fn targets(&self, sh: &Shell) -> Result<Vec<String>> {
        let files = directory::entries(&sh.current_dir().join("fuzz/targets"))?;
        let name = |file: &PathBuf| Some(file.file_stem()?.to_str()?.to_owned());
        let known: Vec<_> = files.iter().filter_map(name).collect();
        for target in &self.targets {
            ensure!(known.contains(target), "no target {target}: use one of {}", known.join(", "));
        }
        Ok(if self.targets.is_empty() { known } else { self.targets.clone() })
    }

    /// The command that makes the page.
    fn command(&self) -> String {
        let targets: String = self.targets.iter().map(|target| format!(" {target}")).collect();
        format!("cargo xtask fuzz{targets} --seconds {} --jobs {} --write", self.seconds, self.jobs)
    }

    fn fuzz(&self, sh: &Shell, executables: &Path, target: &str) -> Result<Outcome> {
        let here = sh.current_dir();
        let (found, crashes) = (here.join("target/fuzz/corpus").join(target), here.join("target/fuzz/crashes"));
        let crashes = crashes.join(target);
        for directory in [&found, &crashes] {
            sh.create_dir(directory).with_context(|| format!("creating {} failed", directory.display()))?;
        }
        // The shell prints the processor time of the program, which the Rust library cannot read.
        let mut command = cmd!(sh, "sh -c")
            .arg("\"$@\"; status=$?; times >&2; exit $status")
            .arg("sh")
            .arg(executables.join(target))
            // The first corpus gets the new inputs.
            .args([found, here.join("fuzz/corpus").join(target)])
            .arg(format!("-artifact_prefix={}/", crashes.display()))
            .args(limits())
            .arg(format!("-max_len={INPUT_BYTES}"))
            .arg(format!("-max_total_time={}", self.seconds))
            .arg("-print_final_stats=1");
        command = command.env("ASAN_OPTIONS", SANITIZER_OPTIONS);
        let (output, result) = step(format!("running {target}"), |step| complete(step, command))?;
        Ok(Outcome::of(target, &output.stderr, result))
    }

    /// Runs the targets on `input` alone.
    fn reproduce(&self, sh: &Shell, executables: &Path, input: &Path) -> Result<String> {
        for target in &self.targets {
            let executable = executables.join(target);
            let command = cmd!(sh, "{executable} {input}").args(limits()).env("ASAN_OPTIONS", SANITIZER_OPTIONS);
            step(format!("{target} on {}", input.display()), |step| run(step, command))?;
        }
        Ok("no crash".to_owned())
    }
}

/// As cargo-fuzz sets it: an executable has several copies of some symbols of Rust.
const SANITIZER_OPTIONS: &str = "detect_odr_violation=0";

fn limits() -> [String; 3] {
    [
        format!("-rss_limit_mb={MEMORY_MIB}"),
        format!("-malloc_limit_mb={ALLOCATION_MIB}"),
        format!("-timeout={INPUT_SECONDS}"),
    ]
}

/// The requirements on the host.
pub fn needs() -> Needs {
    Needs::packages(HOST_PACKAGES)
}

/// Installs a nightly Rust if it is missing, and returns the reason if that fails.
pub fn unavailable(sh: &Shell) -> Option<String> {
    install_toolchain(sh).err().map(|error| {
        let error = format!("{error:#}");
        error.lines().next().unwrap_or_default().to_owned()
    })
}

/// Installs a nightly Rust with rustup if it is missing.
fn install_toolchain(sh: &Shell) -> Result<()> {
    if host_triple(sh).is_ok() {
        return Ok(());
    }
    println!("installing a nightly Rust for fuzzing: rustup toolchain install {TOOLCHAIN} --profile minimal");
    step(format!("rustup toolchain install {TOOLCHAIN}"), |step| {
        run(step, cmd!(sh, "rustup toolchain install {TOOLCHAIN} --profile minimal --no-self-update"))
    })
    .with_context(|| {
        format!(
            "no {TOOLCHAIN} Rust: install rustup, or check the network and run rustup toolchain install {TOOLCHAIN}"
        )
    })
    .map(drop)
}

/// The host's triple, in the words of the nightly Rust.
fn host_triple(sh: &Shell) -> Result<String> {
    let version = cmd!(sh, "rustc --version --verbose").env(CHOICE, TOOLCHAIN).quiet().ignore_stderr().read()?;
    ensure!(version.contains("nightly"), "rustc is not a nightly one");
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("no host in the output of rustc --version --verbose")
}

/// Builds all executables, and returns their directory.
fn build(sh: &Shell) -> Result<PathBuf> {
    let cargo_fuzz = tools::cargo_fuzz(sh)?;
    let results = sh.current_dir().join("target/fuzz/build");
    step("building the fuzz targets", |step| {
        let build = cmd!(sh, "{cargo_fuzz} build --fuzz-dir fuzz --target-dir {results}");
        // The variable names the cargo that runs this program, which is not the nightly one.
        cargo(step, build.env(CHOICE, TOOLCHAIN).env_remove("CARGO"))
    })
    .context("building the fuzz targets failed")?;
    Ok(results.join(host_triple(sh)?).join("release"))
}
