//! dpkg on the host.

use std::path::Path;

use anyhow::{Context, Result};
use host::command::run;
use host::status::Step;
use xshell::{Shell, cmd};

/// Debian's name of the host's architecture.
pub fn architecture(sh: &Shell) -> Result<String> {
    cmd!(sh, "dpkg --print-architecture").quiet().read().context("reading the architecture of the host failed")
}

/// Unpacks the files of the package `deb` into `directory`, without installing it.
pub fn unpack(sh: &Shell, step: &Step, deb: &Path, directory: &Path) -> Result<()> {
    run(step, cmd!(sh, "dpkg-deb --extract {deb} {directory}"))
        .with_context(|| format!("unpacking {} into {} failed", deb.display(), directory.display()))?;
    Ok(())
}
