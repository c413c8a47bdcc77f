//! The project's commands. This file parses the command line; each command has a file of its own.

mod bench;
mod build;
mod conformance;
mod crash;
mod debian;
mod dist;
mod distribution;
mod docs;
mod dpkg;
mod e2e;
mod engines;
mod evidence;
mod fuzz;
mod image;
mod layer;
mod mutants;
mod needs;
mod new;
mod power_loss;
mod record;
mod release;
mod shell;
mod summary;
mod target;
mod test;
mod test_output;
#[cfg(test)]
mod tidy;
mod upstream;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use host::command::shell_in;
use record::Record;

/// Builds, packages and tests Mender Update Modules
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
enum Xtask {
    Bench(bench::Bench),
    Conformance(conformance::Conformance),
    Crash(crash::Crash),
    Debian(debian::Debian),
    Dist(distribution::Distribution),
    Docs(docs::Docs),
    E2e(e2e::E2e),
    Engines(engines::Engines),
    Fuzz(fuzz::Fuzz),
    Image(image::Image),
    Layer(layer::Layer),
    Mutants(mutants::Mutants),
    New(new::New),
    PowerLoss(power_loss::PowerLoss),
    Release(release::Release),
    Shell(shell::Shell),
    Test(test::Test),
}

/// The remedy for a full file system, an error of any program that a command runs.
const FULL: &str = "A file system is full: find it with df -h and free space there, or use another one: set \
    CARGO_TARGET_DIR for build results, XDG_CACHE_HOME for the cache directory, TMPDIR for temporary files.";

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes without a backtrace: the cause is almost always outside this program.
            let error = format!("{error:#}");
            eprintln!("error: {error}");
            if error.contains("No space left on device") {
                eprintln!("{FULL}");
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<()> {
    let sh = shell_in(work_tree()?)?;
    match Xtask::parse() {
        Xtask::Bench(command) => command.run(&sh),
        Xtask::Conformance(command) => command.run(&sh, &Record::default()).map(drop),
        Xtask::Crash(command) => command.run(&sh, &Record::default()).map(drop),
        Xtask::Debian(command) => command.run(&sh, &Record::default()).map(|summary| println!("{summary}")),
        Xtask::Dist(command) => command.run(&sh).map(drop),
        Xtask::Docs(command) => command.run(&sh),
        Xtask::E2e(command) => command.run(&sh, &Record::default()).map(drop),
        Xtask::Engines(command) => command.run(&sh, &Record::default()).map(|summary| println!("{summary}")),
        Xtask::Fuzz(command) => command.run(&sh, &Record::default()).map(|summary| println!("{summary}")),
        Xtask::Image(command) => command.run(&sh),
        Xtask::Layer(command) => command.run(&sh).map(drop),
        Xtask::Mutants(command) => command.run(&sh, &Record::default()).map(|summary| println!("{summary}")),
        Xtask::New(command) => command.run(&sh),
        Xtask::PowerLoss(command) => command.run(&sh, &Record::default()).map(|summary| println!("{summary}")),
        Xtask::Release(command) => command.run(&sh),
        Xtask::Shell(command) => command.run(&sh),
        Xtask::Test(command) => command.run(&sh),
    }
}

/// The top directory of the work tree, whatever directory cargo was called in. It comes from cargo at run time: in a
/// copied work tree, cargo may run the executable of the original one without building it again.
fn work_tree() -> Result<PathBuf> {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    Ok(xtask.parent().context("finding the work tree failed: xtask has no parent directory")?.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Xtask::command().debug_assert();
    }

    /// Such a report would replace the page of all modules or scenarios.
    #[test]
    fn a_partial_report_is_not_written() {
        for partial in [
            "bench --module web-file",
            "bench --quick",
            "bench --rounds 3",
            "bench --directory /srv",
            "crash --module web-file",
            "crash --sample 3",
            "e2e --machine raspi3b",
            "e2e --sample",
            "e2e web-file-update",
        ] {
            let refused = |options: &str| {
                let words = format!("xtask {partial}{options}");
                Xtask::try_parse_from(words.split(' ')).err().map(|error| error.kind())
            };
            assert_eq!(refused(""), None, "{partial}");
            assert_eq!(refused(" --write"), Some(ErrorKind::ArgumentConflict), "{partial} --write");
        }
    }
}
