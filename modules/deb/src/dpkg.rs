//! The programs of dpkg and apt, called as an updater has to: nobody is there to answer, and what they say is in C.

use std::time::Duration;

use anyhow::{Context, Result};
use mender_update_module::Program;

/// The longest that a look may take.
const LOOK: Duration = Duration::from_secs(600);

/// The longest that a change may take. The client has a limit of its own, 4 hours unless it is told another.
const CHANGE: Duration = Duration::from_secs(4 * 3600);

/// `program`, which only looks.
pub fn look(program: &str) -> Program {
    quiet(program, LOOK)
}

/// `program`, which changes the device.
pub fn change(program: &str) -> Program {
    quiet(program, CHANGE)
}

/// dpkg, changing the device while this process holds the frontends' lock.
pub fn dpkg() -> Program {
    dpkg_tool("dpkg")
}

/// A program of dpkg's, as [`dpkg`].
pub fn dpkg_tool(program: &str) -> Program {
    change(program).env("DPKG_FRONTEND_LOCKED", "true")
}

fn quiet(program: &str, limit: Duration) -> Program {
    Program::new(program, limit)
        // Maintainer scripts need the programs of sbin, and the client may run with no PATH at all.
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
        .env("DEBIAN_PRIORITY", "critical")
        .env("APT_LISTCHANGES_FRONTEND", "none")
        .env("APT_LISTBUGS_FRONTEND", "none")
        // It would restart the client in the middle of its update.
        .env("NEEDRESTART_SUSPEND", "1")
}

/// This device's own architecture.
///
/// # Errors
/// When dpkg does not say.
pub fn native() -> Result<String> {
    Ok(text_of(look("dpkg").arg("--print-architecture").output()?)?.trim().to_owned())
}

/// Other architectures whose packages may be installed.
///
/// # Errors
/// When dpkg does not say.
pub fn foreign() -> Result<Vec<String>> {
    let said = text_of(look("dpkg").arg("--print-foreign-architectures").output()?)?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// Whether version `one` is older than `other`.
///
/// # Errors
/// When dpkg cannot be asked.
pub fn is_older(one: &str, other: &str) -> Result<bool> {
    Ok(look("dpkg").args(["--compare-versions", one, "lt", other]).status()?.success())
}

/// What a program has said, as text.
///
/// # Errors
/// When it is not UTF-8.
pub fn text_of(said: Vec<u8>) -> Result<String> {
    String::from_utf8(said).context("dpkg and apt speak UTF-8")
}
