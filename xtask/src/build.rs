//! Builds the workspace for tests.

use std::path::PathBuf;

use anyhow::Result;
use host::cargo::cargo;
use host::status::step;
use xshell::{Shell, cmd};

use crate::dist::modules;

/// Builds all executables and tests of the workspace, and returns the directory of the executables.
///
/// Every suite builds with this command. Cargo chooses the features of dependencies for the packages that it builds
/// together: a command for a single package would compile many of them again.
pub fn workspace(sh: &Shell) -> Result<PathBuf> {
    let build = cmd!(sh, "cargo build --workspace --all-targets --locked");
    step("building the workspace", |step| cargo(step, build))?;
    Ok(modules::target_directory(&modules::metadata(sh)?)?.join("debug"))
}
