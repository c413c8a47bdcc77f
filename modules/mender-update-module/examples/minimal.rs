//! The smallest useful module: it logs the names and sizes of the payload's files. It changes nothing, so there is
//! nothing to roll back.
//!
//! Payload type `minimal`: install the executable as `/usr/share/mender/modules/v3/minimal`.

use std::io;
use std::process::ExitCode;

use mender_update_module::anyhow::{Context, Result};
use mender_update_module::{Payloads, UpdateModule, WorkTree, log, run};

struct Minimal;

impl UpdateModule for Minimal {
    const NAME: &'static str = "minimal";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn download(&self, _tree: &WorkTree, payloads: Payloads) -> Result<()> {
        for payload in payloads {
            let mut payload = payload?;
            let bytes = io::copy(&mut payload, &mut io::sink())
                .with_context(|| format!("reading the payload file {}", payload.name))?;
            log!("{}: {bytes} bytes", payload.name);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    run(Minimal)
}
