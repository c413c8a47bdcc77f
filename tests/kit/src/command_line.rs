//! The command line of the executable `mender-update-module-test`.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Trial};

use crate::Suite;
use crate::suite::{SAMPLE, run_tracer};

const USAGE: &str = "\
Tests a Mender Update Module: conformance to the protocol, and fault injection

Usage: mender-update-module-test MODULE PAYLOAD [--all] [FILTER] [TEST OPTIONS]

  MODULE     the executable, a program or a script
  PAYLOAD    the directory that says what the module installs:
             settings.toml, meta-data.json, files/, previous/, new/
  --all      every crash point, instead of 50 in each sequence
  FILTER     runs only the tests whose names contain this text
  TEST OPTIONS, such as --list: those of every Rust test executable
  --help     prints this text
  --version  prints name and version

Exit codes:

  0    all tests passed
  1    no test was run: an invalid module or payload, or a filter without a match
  2    an invalid command line
  101  a test failed";

/// Runs the executable.
pub fn main() -> ExitCode {
    if let Some(end) = run_tracer() {
        return end;
    }
    let mut arguments: Vec<_> = env::args_os().collect();
    let given = |names: [&str; 2]| arguments.iter().skip(1).any(|argument| names.iter().any(|name| argument == name));
    if given(["--help", "-h"]) {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if given(["--version", "-V"]) {
        println!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let all = arguments.iter().position(|argument| argument == "--all");
    let sample = all.map_or(SAMPLE, |index| {
        arguments.remove(index);
        usize::MAX
    });
    if let Err(error) = check(&arguments) {
        eprintln!("invalid command line: {error}\n\n{USAGE}");
        return ExitCode::from(2);
    }
    let (module, payload) = (arguments.remove(1), arguments.remove(1));
    let arguments = Arguments::from_iter(arguments);
    Suite::new(module, payload).sample(sample).start(&arguments, |tests| matches(&arguments, tests))
}

/// Checks that MODULE and PAYLOAD come first.
fn check(arguments: &[OsString]) -> Result<()> {
    for (index, name) in [(1, "MODULE"), (2, "PAYLOAD")] {
        let argument = arguments.get(index).map(|argument| argument.to_string_lossy());
        let Some(argument) = argument else { anyhow::bail!("{name} is missing") };
        ensure!(!argument.starts_with('-'), "{argument} before {name}: write MODULE PAYLOAD {argument}");
    }
    Ok(())
}

/// Checks that a filter selects a test: a misspelled one must not look like success. A list may be empty.
fn matches(arguments: &Arguments, tests: &[Trial]) -> Result<()> {
    let Some(filter) = &arguments.filter else { return Ok(()) };
    let matched = tests.iter().any(|test| !arguments.is_filtered_out(test));
    ensure!(matched || arguments.list, "no test matches {filter}: --list shows the tests");
    Ok(())
}
