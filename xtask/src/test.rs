//! `cargo xtask test`: everything that says whether the work tree is sound.

use anyhow::Result;
use clap::Args;
use host::command::run;
use host::status::step;
use xshell::{Shell, cmd};

/// Format, lints and unit tests.
#[derive(Args)]
pub struct Test {}

impl Test {
    /// Runs every suite.
    pub fn run(self, sh: &Shell) -> Result<()> {
        step("format", |step| run(step, cmd!(sh, "cargo fmt --check")))?;
        step("lints", |step| {
            run(step, cmd!(sh, "cargo clippy --workspace --all-targets --quiet -- --deny warnings"))
        })?;
        step("unit tests", |step| run(step, cmd!(sh, "cargo test --workspace --quiet")))?;
        Ok(())
    }
}
