//! `peak-memory FILE COMMAND...`: runs the command, and writes to the file how many KiB of memory the largest of it and
//! its children have used.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};

fn main() -> Result<ExitCode> {
    let mut words = env::args_os().skip(1);
    let file = words.next().context("peak-memory FILE COMMAND...")?;
    let program = words.next().context("peak-memory FILE COMMAND...")?;
    let status = Command::new(program).args(words).status().context("starting the command")?;
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    std::fs::write(file, peak.to_string()).context("writing the peak")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255).into())
}
