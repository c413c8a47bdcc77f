//! The project's commands. This file parses and dispatches; each command has a file of its own.

mod dist;
mod target;
mod test;

use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;
use xshell::Shell;

/// Builds, packages and proves Mender Update Modules.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
enum Xtask {
    Dist(dist::Dist),
    Test(test::Test),
}

fn main() -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(work_tree()?);
    match Xtask::parse() {
        Xtask::Dist(command) => command.run(&sh),
        Xtask::Test(command) => command.run(&sh),
    }
}

/// The work tree's top, whichever folder cargo was called in.
fn work_tree() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the work tree")
}
