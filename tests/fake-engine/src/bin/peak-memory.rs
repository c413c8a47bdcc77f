//! `peak-memory FILE COMMAND...`: runs the command, and writes to the file the peak memory in KiB of the largest
//! process among the command and its children.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};

fn main() -> Result<ExitCode> {
    let mut words = env::args_os().skip(1);
    let file = words.next().context("usage: peak-memory FILE COMMAND...")?;
    let program = words.next().context("usage: peak-memory FILE COMMAND...")?;
    let status = Command::new(program).args(words).status().context("starting the command failed")?;
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    std::fs::write(file, peak.to_string()).context("writing the peak memory failed")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255).into())
}
