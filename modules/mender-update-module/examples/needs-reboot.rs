//! A module without transactions: it hands the payload to a program, asks the client for a reboot, and checks after
//! it whether the new version runs. It cannot roll back, and says so.
//!
//! The program stands for a vendor's tool that flashes a peripheral: `/usr/lib/vendor/flash FILE`,
//! `/usr/lib/vendor/version`.

use std::process::ExitCode;
use std::time::Duration;

use mender_update_module::anyhow::{Context, Result, ensure};
use mender_update_module::{NeedsReboot, Program, UpdateModule, WorkTree, log, run};

/// How long the tool may take.
const LIMIT: Duration = Duration::from_secs(600);

struct Peripheral;

impl UpdateModule for Peripheral {
    const NAME: &'static str = "needs-reboot";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    // `download` is left to the client, which writes the payload to `files/`.

    fn artifact_install(&self, tree: &WorkTree) -> Result<()> {
        let firmware = tree.files().join("firmware.bin");
        ensure!(firmware.is_file(), "the artifact has no file firmware.bin");
        Program::new("/usr/lib/vendor/flash", LIMIT).arg(&firmware).run()?;
        log!("firmware written");
        Ok(())
    }

    fn needs_artifact_reboot(&self, _tree: &WorkTree) -> Result<NeedsReboot> {
        Ok(NeedsReboot::Automatic)
    }

    fn artifact_verify_reboot(&self, tree: &WorkTree) -> Result<()> {
        let wanted = tree.artifact_name()?.context("the artifact has no name")?;
        let running = Program::new("/usr/lib/vendor/version", LIMIT).output()?;
        let running = String::from_utf8_lossy(&running);
        ensure!(running.trim() == wanted, "the peripheral runs {}, not {wanted}", running.trim());
        Ok(())
    }
}

fn main() -> ExitCode {
    run(Peripheral)
}
