//! The report of a run, in `target/test-report/`.

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use test_report::{Run, Suite};
use xshell::{Shell, cmd};

use super::charts;
use crate::dist::modules;
use crate::evidence;

/// A run that has started.
pub struct Started {
    command: String,
    commit: String,
    host: String,
    start: SystemTime,
    clock: Instant,
}

impl Started {
    /// The run of `command` that starts now. Removes the report of an earlier run: if this one is interrupted, nobody
    /// may take that for its result.
    pub fn now(sh: &Shell, command: String) -> Result<Self> {
        host::directory::remove(&directory(sh)?)?;
        let describe = cmd!(sh, "git describe --always --dirty").quiet().ignore_stderr();
        let commit = describe.read().unwrap_or_else(|_| "unknown".to_owned());
        Ok(Self { command, commit, host: evidence::host(sh)?, start: SystemTime::now(), clock: Instant::now() })
    }

    /// Writes the report with `suites`.
    pub fn write(self, sh: &Shell, suites: Vec<Suite>) -> Result<()> {
        let directory = directory(sh)?;
        let Self { command, commit, host, start, clock } = self;
        let (charts, source_of_charts) = charts::of(&sh.current_dir());
        let run = Run { command, commit, host, start, duration: clock.elapsed(), suites, charts, source_of_charts };
        test_report::write(&directory, &run).context("writing the report failed")?;
        println!("report: {}", directory.join("index.html").display());
        Ok(())
    }
}

/// The directory of the report.
fn directory(sh: &Shell) -> Result<PathBuf> {
    Ok(modules::target_directory(&modules::metadata(sh)?)?.join("test-report"))
}
