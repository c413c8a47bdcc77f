//! What some unit tests of the modules need besides Debian packages: owners, attributes and mounts. A test without them
//! returns early, and its runner says that it passed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::needs::is_root;
use crate::record::Record;

/// Records the tests that cannot do anything in this process as skipped.
pub fn record_skipped(record: &Record) -> Result<()> {
    let skipped = |tests: &str, reason: &str| record.skipped("web-file, directory", tests, reason);
    if !is_root()? {
        skipped("tests of owners, mounts and attributes", "not root: run the command as root");
        return Ok(());
    }
    let directory = tempfile::tempdir().context("making a temporary directory failed")?;
    let attributes = succeeds(directory.path(), "touch file && chattr +i file && chattr -i file");
    let mounts = succeeds(
        directory.path(),
        "mkdir lower upper work merged && \
         mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && umount merged",
    );
    for (tests, result) in [("tests of attributes", attributes), ("tests of mounts", mounts)] {
        if let Err(reason) = result {
            skipped(tests, &reason);
        }
    }
    Ok(())
}

/// Runs `script` in `directory`.
///
/// # Errors
/// It failed: the end of its output.
fn succeeds(directory: &Path, script: &str) -> Result<(), String> {
    let output = Command::new("sh").args(["-c", script]).current_dir(directory).output();
    let output = output.map_err(|error| format!("starting sh failed: {error}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(errors.lines().last().unwrap_or("no reason").to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_probe_has_its_reason() {
        let here = Path::new("/");
        assert_eq!(succeeds(here, "true"), Ok(()));
        assert_eq!(succeeds(here, "echo not permitted >&2; false"), Err("not permitted".to_owned()));
    }
}
