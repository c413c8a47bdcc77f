//! `cargo xtask mutants`: changes the code in small ways, one at a time, and checks that the tests notice.

mod isolation;
mod outcomes;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use host::cargo::cargo;
use host::directory;
use host::status::{Step, step};
use xshell::{Cmd, Shell, cmd};

use crate::debian;
use crate::dist::tools;
use crate::evidence::{self, Records};
use crate::record::Record;
use isolation::{UNSHARE, isolation};
use outcomes::Outcomes;

/// The packages whose code is mutated.
const PACKAGES: [&str; 5] = ["mender-update-module", "web-file", "directory", "container", DEB];

/// The package whose tests need a Debian system.
const DEB: &str = "deb";

/// The packages with the tests of the library, of the test kit with its examples, and of the modules.
const OF_MODULES: &str = "mender-update-module,mender-update-module-test,web-file,directory,container";

/// The packages with all tests but those of `deb`.
const ALL_TESTS: &str = "mender-update-module,mender-update-module-test,web-file,directory,container,crash";

/// The memory of all processes of a mutant in KiB: a mutant that removes a limit may take all of the machine's.
const MEMORY_KIB: u32 = 12 << 20;

/// The shortest time limit of the tests on a mutant in seconds. A mutant that hangs is found, too.
const LIMIT_SECONDS: u32 = 900;

/// The limit of processor time of each process in seconds. A mutant with an endless loop ends there, long before the
/// time limit; no program of the tests, and no compiler run, takes a quarter of it.
const PROCESSOR_SECONDS: u32 = 240;

/// Changes the code in small ways, one at a time, and checks that the tests notice
///
/// The unit tests of its crate run on each mutant, then the tests of its module (for the library, of all modules), then
/// conformance and a few faults of every kind, on those that are not noticed yet; on those of deb the tests on a Debian
/// system, as root. Takes about ten seconds for each mutant on 2 idle cores, and minutes for one that the unit tests do
/// not notice; there are more than 3000. A mutant that no test notices is an error: write a test, or exclude it
/// in .cargo/mutants.toml with the reason.
#[derive(Args)]
pub struct Mutants {
    /// Tries N mutants, evenly spread [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Shifts the sample by N
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    offset: u32,
    /// Tries the mutants of this file only; may be repeated
    #[arg(long, value_name = "PATH")]
    file: Vec<String>,
    /// Tries only mutants without a record in docs/evidence/mutants.jsonl
    #[arg(long)]
    untried: bool,
    /// Runs the unit tests of the mutant's crate only, and records nothing of those that they do not notice
    #[arg(long)]
    unit_tests: bool,
    /// The number of mutants that are tried in parallel
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    jobs: u32,
    /// Adds the outcomes to docs/evidence/mutants.jsonl, and writes the table of all runs beside it
    #[arg(long)]
    write: bool,
}

/// The name of the records and of the table.
const NAME: &str = "mutants";

/// The tests that run on each mutant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tests {
    /// The unit tests of the crate of the mutant: most mutants are found by them, in seconds.
    Unit,
    /// All tests of the module of the mutant.
    OfModule,
    /// All tests of the library, the test kit and the modules, without those of `deb`: for mutants of the library.
    OfModules,
    /// All tests but those of `deb`, with conformance and thinned fault injection.
    All,
    /// Those of `deb` on a Debian system.
    Debian,
}

impl Mutants {
    /// At most `sample` mutants, shifted by `offset`.
    pub fn sample(sample: u32, offset: u32) -> Self {
        Self {
            sample: Some(sample),
            offset,
            file: Vec::new(),
            untried: false,
            unit_tests: false,
            jobs: 1,
            write: false,
        }
    }

    /// Tries the mutants, prints a table, and returns a summary.
    ///
    /// # Errors
    /// When a mutant is not noticed, or the tests fail without one.
    pub fn run(self, sh: &Shell, _record: &Record) -> Result<String> {
        self.run_with(sh, &tools::cargo_mutants(sh)?)
    }

    /// As [`Mutants::run`], with the cargo-mutants at the path `program`.
    fn run_with(&self, sh: &Shell, program: &Path) -> Result<String> {
        let (unshare, isolation) = (UNSHARE, isolation()?);
        cmd!(sh, "{unshare} {isolation...} true").quiet().run().context(
            "starting processes in a namespace of their own failed: run as root, or allow namespaces of users",
        )?;
        let path = sh.current_dir().join("docs/evidence/mutants.jsonl");
        let commit = evidence::commit(sh)?;
        let names = self.names(sh, program, &path)?;
        let all = names.len() as u32;
        let shards = self.sample.map_or(1, |sample| all.div_ceil(sample));
        let shard = format!("{}/{shards}", self.offset % shards);
        let mut outcomes = Outcomes::default();
        let mut completed = step(format!("mutants, part {shard} of {all}"), |step| {
            let spread = ["--shard", &shard, "--sharding", "round-robin"].map(str::to_owned);
            let named = if self.untried { only(names.iter().map(String::as_str)) } else { Vec::new() };
            let chosen = [self.chosen(), named, spread.to_vec()].concat();
            self.try_mutants(sh, step, program, Tests::Unit, &chosen, &mut outcomes)
        });
        if !self.unit_tests {
            completed = completed.and_then(|()| self.try_missed(sh, program, &commit, &mut outcomes));
        }
        println!("{}", outcomes.table());
        if self.write && !outcomes.0.is_empty() {
            // Tests that did not run may notice what the others do not.
            let partial = self.unit_tests || completed.is_err();
            let final_ones = if partial { outcomes.without_missed() } else { outcomes.clone() };
            self.write(sh, program, &path, &commit, &final_ones)?;
        }
        completed?;
        let missed: Vec<_> = outcomes.missed().collect();
        ensure!(
            missed.is_empty(),
            "{} mutants are not noticed: write a test, or exclude them in .cargo/mutants.toml with the reason:\n{}",
            missed.len(),
            missed.join("\n")
        );
        Ok(outcomes.to_string())
    }

    /// The names of the mutants of which a sample is tried.
    fn names(&self, sh: &Shell, program: &Path, records: &Path) -> Result<Vec<String>> {
        for file in &self.file {
            let of_file = listed(sh, program, &[packages(), vec!["--file".to_owned(), file.clone()]].concat())?;
            ensure!(
                !of_file.is_empty(),
                "no mutants in {file}: name a file below modules/*/src that .cargo/mutants.toml does not exclude"
            );
        }
        let mut names = listed(sh, program, &self.chosen())?;
        if self.untried && records.exists() {
            let tried = Outcomes::of_records(&Records::open(records)?.all()?);
            names.retain(|name| !tried.0.contains_key(name));
        }
        ensure!(!names.is_empty(), "every mutant has a record in {}: omit --untried", records.display());
        let obstacle = if names.iter().any(|name| Part::of(name) == Part::Deb) { debian::obstacle(sh)? } else { None };
        if let Some(why) = obstacle {
            bail!("trying mutants of deb failed: {why}; or choose other files with --file");
        }
        Ok(names)
    }

    /// Adds `outcomes` of the sources of `commit` to the file `records`, and writes the page.
    fn write(&self, sh: &Shell, program: &Path, records: &Path, commit: &str, outcomes: &Outcomes) -> Result<()> {
        let records = Records::open(records)?;
        outcomes.json(commit).iter().try_for_each(|record| records.add(record))?;
        let of_code = listed(sh, program, &packages())?;
        let sums = Outcomes::of_records(&records.all()?).of(&of_code);
        let page = format!("{PREFACE}{} of {} mutants were tried.\n\n{}", sums.0.len(), of_code.len(), sums.table());
        evidence::write(sh, NAME, &self.command(), &page)
    }

    /// Runs more tests on the mutants that the unit tests have not noticed, as long as the sources are those of
    /// `commit`: cargo-mutants copies them for every stage.
    fn try_missed(&self, sh: &Shell, program: &Path, commit: &str, outcomes: &mut Outcomes) -> Result<()> {
        let stages = [
            (Tests::OfModule, &[Part::Module][..], "the tests of their module"),
            (Tests::OfModules, &[Part::Library], "the tests of all modules"),
            (Tests::All, &[Part::Module, Part::Library], "all tests"),
            (Tests::Debian, &[Part::Deb], "the tests on a Debian system"),
        ];
        for (tests, parts, text) in stages {
            let names: Vec<_> = outcomes.missed().filter(|name| parts.contains(&Part::of(name))).collect();
            if names.is_empty() {
                continue;
            }
            evidence::require_unchanged(sh, commit)?;
            let title = format!("{} of these mutants with {text}", names.len());
            let chosen = [self.chosen(), only(names.into_iter())].concat();
            step(title, |step| self.try_mutants(sh, step, program, tests, &chosen, outcomes))?;
        }
        Ok(())
    }

    /// Runs `tests` on the mutants of the options `chosen`, and adds their outcomes to `outcomes`.
    ///
    /// # Errors
    /// When cargo-mutants ended before it had tried all of them, too: the outcomes of the others are added.
    fn try_mutants(
        &self,
        sh: &Shell,
        step: &Step,
        program: &Path,
        tests: Tests,
        chosen: &[String],
        outcomes: &mut Outcomes,
    ) -> Result<()> {
        let output = sh.current_dir().join("target/mutants");
        directory::empty(&output)?;
        let mut mutants = self.limited(sh, program, &output, tests, chosen)?;
        if tests == Tests::Debian {
            mutants = mutants.env(debian::SYSTEM, debian::system(sh)?);
        }
        // cargo-mutants fails if a mutant is missed, too.
        let result = cargo(step, mutants).context("cargo-mutants failed: see target/mutants/mutants.out/log");
        let directory = output.join("mutants.out");
        let complete = Outcomes::read(&directory).and_then(|new| {
            let complete = new.require_all(&directory);
            outcomes.replace(new);
            complete
        });
        complete.or_else(|error| result.and(Err(error)))
    }

    /// cargo-mutants with the options `chosen`, all limits and these tests. A shell sets the limits of each process.
    fn limited<'a>(
        &self,
        sh: &'a Shell,
        program: &Path,
        output: &Path,
        tests: Tests,
        chosen: &[String],
    ) -> Result<Cmd<'a>> {
        let limit = LIMIT_SECONDS.to_string();
        let packages: &[&str] = match tests {
            Tests::OfModules => &["--test-package", OF_MODULES],
            Tests::All => &["--test-package", ALL_TESTS],
            Tests::Unit | Tests::OfModule | Tests::Debian => &[],
        };
        // The proofs of the package crash are ignored by cargo test.
        let chosen_tests: &[&str] = match tests {
            Tests::Unit => &["--lib", "--locked"],
            Tests::OfModule | Tests::OfModules | Tests::All => {
                &["--lib", "--bins", "--tests", "--locked", "--", "--include-ignored"]
            }
            Tests::Debian => &["--test", "debian", "--locked"],
        };
        // Nobody debugs a mutant, and without debug information the tests are linked faster.
        Ok(cmd!(sh, "sh -c")
            .env("CARGO_PROFILE_DEV_DEBUG", "none")
            .arg(format!("ulimit -v {MEMORY_KIB} && ulimit -t {PROCESSOR_SECONDS} && exec \"$@\""))
            .arg("sh")
            .arg(UNSHARE)
            .args(isolation()?)
            .args([program.as_os_str(), "mutants".as_ref()])
            .args(["--no-times", "--colors", "never", "--minimum-test-timeout", &limit])
            .args(["--jobs", &self.jobs.to_string()])
            .args(["--output".as_ref(), output.as_os_str()])
            .args(packages)
            .args(chosen)
            .arg("--")
            .args(chosen_tests))
    }

    /// The options that choose mutants.
    fn chosen(&self) -> Vec<String> {
        let files = self.file.iter().flat_map(|file| ["--file".to_owned(), file.clone()]);
        packages().into_iter().chain(files).collect()
    }

    /// The command that does the same again.
    fn command(&self) -> String {
        let sample = self.sample.map(|sample| format!(" --sample {sample}")).unwrap_or_default();
        let offset = if self.offset > 0 { format!(" --offset {}", self.offset) } else { String::new() };
        let files: String = self.file.iter().map(|file| format!(" --file {file}")).collect();
        let untried = if self.untried { " --untried" } else { "" };
        let unit_tests = if self.unit_tests { " --unit-tests" } else { "" };
        let write = if self.write { " --write" } else { "" };
        format!("cargo xtask mutants{sample}{offset}{files}{untried}{unit_tests}{write}")
    }
}

/// The options that choose the mutants of all packages.
fn packages() -> Vec<String> {
    PACKAGES.iter().flat_map(|package| ["--package".to_owned(), (*package).to_owned()]).collect()
}

/// The names of the mutants that the options `chosen` choose.
fn listed(sh: &Shell, program: &Path, chosen: &[String]) -> Result<Vec<String>> {
    let listed = cmd!(sh, "{program} mutants --list").args(chosen).quiet().read();
    Ok(listed.context("listing the mutants failed")?.lines().map(str::to_owned).collect())
}

/// The options that choose the mutants with these names, in arguments of some KiB: Linux limits one to 128 KiB.
fn only<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: Vec<_> = names.map(regex_of).collect();
    names.chunks(100).flat_map(|names| ["--re".to_owned(), names.join("|")]).collect()
}

/// The part of the code that a mutant changes: it decides which tests may notice it.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// The library, which the tests of all modules run.
    Library,
    /// The module `deb`, with tests that need a Debian system.
    Deb,
    /// Another module.
    Module,
}

impl Part {
    /// The part of the mutant `name`, which begins with its file.
    fn of(name: &str) -> Self {
        match name.split('/').nth(1) {
            Some("mender-update-module") => Self::Library,
            Some(DEB) => Self::Deb,
            _ => Self::Module,
        }
    }
}

/// A regular expression that matches `name` and nothing else.
fn regex_of(name: &str) -> String {
    let escaped: String = name
        .chars()
        .flat_map(|character| {
            let special = r"\.+*?()|[]{}^$#&-~".contains(character);
            special.then_some('\\').into_iter().chain([character])
        })
        .collect();
    format!("^{escaped}$")
}

const PREFACE: &str = "# Mutants

Small changes of the code, one at a time, each of which has to make a test fail. [Testing](../develop/testing.md#mutants)
describes the command. The outcome of every mutant is in [mutants.jsonl](mutants.jsonl), with the commit of its run.
The table has the last outcome of each mutant of this code; the command above is that of the last run. What is left
out, and why, is in `.cargo/mutants.toml`.

";

#[cfg(test)]
mod tests;
