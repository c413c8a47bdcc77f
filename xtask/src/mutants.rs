//! `cargo xtask mutants`: changes the code in small ways, one at a time, and checks that the tests notice.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use host::cargo::cargo;
use host::status::step;
use serde_json::Value;
use xshell::{Cmd, Shell, cmd};

use crate::dist::tools;
use crate::evidence;
use crate::record::Record;

/// The packages whose code is mutated. The tests of all of them, conformance and thinned fault injection run on each
/// mutant.
const PACKAGES: [&str; 4] = ["mender-update-module", "web-file", "directory", "container"];

/// The packages with the tests.
const TESTS: &str = "mender-update-module,web-file,directory,container,crash";

/// The memory of all processes of a mutant in KiB: a mutant that removes a limit may take all of the machine's.
const MEMORY_KIB: u32 = 12 << 20;

/// The shortest time limit of the tests on a mutant in seconds. A mutant that hangs is found, too.
const LIMIT_SECONDS: u32 = 900;

/// Changes the code in small ways, one at a time, and checks that the tests notice
///
/// Takes about two minutes for each mutant on 2 idle cores; there are more than a thousand. A mutant that no test
/// notices is an error: write a test, or exclude it in .cargo/mutants.toml with the reason.
#[derive(Args, Default)]
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
    /// Writes the result to docs/evidence too
    #[arg(long)]
    write: bool,
}

/// The results that cargo-mutants writes.
#[derive(Default)]
struct Outcomes {
    total: u64,
    caught: u64,
    missed: u64,
    timeout: u64,
    unviable: u64,
}

impl Mutants {
    /// At most `sample` mutants, shifted by `offset`.
    pub fn sample(sample: u32, offset: u32) -> Self {
        Self { sample: Some(sample), offset, ..Self::default() }
    }

    /// Tries the mutants, prints a table, and returns a summary.
    ///
    /// # Errors
    /// When a mutant is not noticed, or the tests fail without one.
    pub fn run(self, sh: &Shell, _record: &Record) -> Result<String> {
        let program = tools::cargo_mutants(sh)?;
        let listed = cmd!(sh, "{program} mutants --list").args(self.chosen()).quiet().read();
        let all = listed.context("listing the mutants failed")?.lines().count() as u32;
        ensure!(all > 0, "no mutants in {}: name a file below modules/*/src", self.file.join(", "));
        let shards = self.sample.map_or(1, |sample| all.div_ceil(sample));
        let shard = format!("{}/{shards}", self.offset % shards);
        let output = sh.current_dir().join("target/mutants");
        sh.create_dir(&output).with_context(|| format!("creating {} failed", output.display()))?;
        let result = step(format!("mutants, part {shard} of {all}"), |step| {
            cargo(
                step,
                limited(sh, &program, &output, &[self.chosen(), vec!["--shard".to_owned(), shard.clone()]].concat()),
            )
        });
        let report = output.join("mutants.out");
        let Ok(text) = fs::read_to_string(report.join("outcomes.json")) else {
            result?;
            bail!("cargo-mutants has written no results to {}", report.display());
        };
        let outcomes = Outcomes::read(&text)?;
        let missed = fs::read_to_string(report.join("missed.txt")).unwrap_or_default();
        let table = outcomes.table(&missed);
        println!("{table}");
        if self.write {
            evidence::write(sh, "mutants", &self.command(), &format!("# Mutants\n\n{table}"))?;
        }
        ensure!(
            outcomes.missed == 0,
            "{} mutants are not noticed: write a test, or exclude them in .cargo/mutants.toml with the reason:\n{missed}",
            outcomes.missed
        );
        result.context("cargo-mutants failed: see target/mutants/mutants.out/log")?;
        Ok(outcomes.to_string())
    }

    /// The options that choose mutants.
    fn chosen(&self) -> Vec<String> {
        let packages = PACKAGES.iter().flat_map(|package| ["--package".to_owned(), (*package).to_owned()]);
        let files = self.file.iter().flat_map(|file| ["--file".to_owned(), file.clone()]);
        packages.chain(files).collect()
    }

    /// The command that does the same again.
    fn command(&self) -> String {
        let sample = self.sample.map(|sample| format!(" --sample {sample}")).unwrap_or_default();
        let offset = if self.offset > 0 { format!(" --offset {}", self.offset) } else { String::new() };
        let files: String = self.file.iter().map(|file| format!(" --file {file}")).collect();
        format!("cargo xtask mutants{sample}{offset}{files}")
    }
}

/// cargo-mutants with the options `chosen`, all tests and limits, in a shell that sets the limit of memory.
fn limited<'a>(sh: &'a Shell, program: &Path, output: &Path, chosen: &[String]) -> Cmd<'a> {
    let limit = LIMIT_SECONDS.to_string();
    cmd!(sh, "sh -c")
        .arg(format!("ulimit -v {MEMORY_KIB} && exec \"$@\""))
        .arg("sh")
        .args([program.as_os_str(), "mutants".as_ref()])
        .args(["--no-times", "--colors", "never", "--minimum-test-timeout", &limit, "--test-package", TESTS])
        .args(["--output".as_ref(), output.as_os_str()])
        .args(chosen)
        // The proofs of the package crash are ignored by cargo test.
        .args(["--", "--lib", "--bins", "--tests", "--locked", "--", "--include-ignored"])
}

impl Outcomes {
    /// Reads `outcomes.json` of cargo-mutants.
    fn read(json: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(json).context("reading the results of cargo-mutants failed")?;
        let count = |key: &str| json[key].as_u64().with_context(|| format!("no {key} in the results of cargo-mutants"));
        let [caught, missed] = [count("caught")?, count("missed")?];
        let [timeout, unviable] = [count("timeout")?, count("unviable")?];
        Ok(Self { total: count("total_mutants")?, caught, missed, timeout, unviable })
    }

    fn table(&self, missed: &str) -> String {
        let Self { total, caught, missed: count, timeout, unviable } = self;
        let list = if missed.is_empty() { String::new() } else { format!("\nNot noticed:\n\n```text\n{missed}```\n") };
        format!(
            "| mutants | found by a test | found by a time limit | do not compile | not noticed |\n|--:|--:|--:|--:|--:|\n\
             | {total} | {caught} | {timeout} | {unviable} | {count} |\n{list}"
        )
    }
}

impl std::fmt::Display for Outcomes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let found = self.caught + self.timeout;
        write!(formatter, "{found} of {} mutants noticed, {} do not compile", found + self.missed, self.unviable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_what_is_not_noticed() {
        let json = r#"{"outcomes": [], "total_mutants": 9, "caught": 5, "missed": 1, "timeout": 1, "unviable": 2, "success": 0}"#;
        let outcomes = Outcomes::read(json).unwrap();
        let table = outcomes.table("src/a.rs:1:2: replace f -> bool with true\n");
        assert!(table.contains("| 9 | 5 | 1 | 2 | 1 |") && table.contains("replace f"), "{table}");
        assert_eq!(outcomes.to_string(), "6 of 7 mutants noticed, 2 do not compile");
    }

    #[test]
    fn the_command_is_shown_with_its_options() {
        let mutants = Mutants { sample: Some(5), offset: 3, file: vec!["a.rs".into()], write: true };
        assert_eq!(mutants.command(), "cargo xtask mutants --sample 5 --offset 3 --file a.rs");
    }
}
