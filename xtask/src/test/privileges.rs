//! What some unit tests need besides Debian packages: owners, attributes and mounts. A test without them
//! returns early, and its runner says that it passed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::needs::{is_root, refusal};
use crate::record::Record;

/// The packages with tests that need root, or one of [`PROBES`].
const MODULES: &str = "deb, directory, mender-update-module, mender-update-module-test, web-file";

/// What tests do that a container may refuse, each as a script that does it in an empty directory.
const PROBES: [(&str, &str); 3] = [
    ("tests of attributes", "touch file && chattr +i file && chattr -i file"),
    (
        "tests of mounts",
        "mkdir mount && mount -t tmpfs tmpfs mount && umount mount && mount --bind mount mount && umount mount",
    ),
    (
        "tests of overlayfs",
        "mkdir lower upper work merged && \
         mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && umount merged",
    ),
];

/// Makes a file system in a file, which tests of a failing storage do.
const STORAGE_PROBE: &str =
    "truncate --size 8M image && mkfs.ext4 -q image && mkdir mount && mount -o loop image mount && umount mount";

/// Records the tests that cannot do anything in this process as skipped.
pub fn record_skipped(record: &Record) -> Result<()> {
    if !is_root()? {
        let reason = "not root: run the command as root";
        record.skipped(MODULES, "tests of owners, mounts and attributes", reason);
        return Ok(());
    }
    PROBES.iter().try_for_each(|(tests, probe)| record_unless(probe, record, MODULES, tests))?;
    record_unless("apt-get --version > /dev/null", record, "deb", "tests with dpkg and apt")?;
    record_skipped_storage(record, "container, deb, mender-update-module-test, web-file")
}

/// Records the tests of `modules` with a failing storage as skipped, if this process cannot make one.
pub fn record_skipped_storage(record: &Record, modules: &str) -> Result<()> {
    record_unless(STORAGE_PROBE, record, modules, "tests of a failing storage")
}

fn record_unless(probe: &str, record: &Record, modules: &str, tests: &str) -> Result<()> {
    let directory = tempfile::tempdir().context("making a temporary directory failed")?;
    if let Err(reason) = succeeds(directory.path(), probe) {
        record.skipped(modules, tests, reason);
    }
    Ok(())
}

/// Runs `script` in `directory`.
///
/// # Errors
/// It failed: as [`refusal`].
fn succeeds(directory: &Path, script: &str) -> Result<(), String> {
    let output = Command::new("sh").args(["-c", script]).current_dir(directory).output();
    let output = output.map_err(|error| format!("starting sh failed: {error}"))?;
    refusal(&output).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_probe_has_its_reason() {
        let here = Path::new("/");
        assert_eq!(succeeds(here, "true"), Ok(()));
        let failing = "(echo; echo ' not permitted'; echo '  dmesg(1) may have more') >&2; false";
        assert_eq!(succeeds(here, failing), Err("not permitted".to_owned()));
    }
}
