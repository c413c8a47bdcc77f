//! The project's commands. This file parses and dispatches; each command has a file of its own.

mod conformance;
mod dist;
mod target;
mod test;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use xshell::Shell;

/// Builds, packages and proves Mender Update Modules.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
enum Xtask {
    Conformance(conformance::Conformance),
    Dist(dist::Dist),
    Test(test::Test),
}

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes, and never a backtrace: what went wrong is outside this program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(work_tree()?);
    match Xtask::parse() {
        Xtask::Conformance(command) => command.run(&sh).map(drop),
        Xtask::Dist(command) => command.run(&sh),
        Xtask::Test(command) => command.run(&sh),
    }
}

/// The work tree's top, whichever folder cargo was called in.
fn work_tree() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the work tree")
}
