//! The programs of dpkg and apt, run without questions and with messages in English.

use std::time::Duration;

use anyhow::{Context, Result};
use mender_update_module::Program;

/// The time limit of a query.
const QUERY_LIMIT: Duration = Duration::from_secs(600);

/// The time limit of a change. The client has a limit of its own: 4 hours, unless it is configured otherwise.
const CHANGE_LIMIT: Duration = Duration::from_secs(14_400);

/// `program`, called in a form that changes nothing.
pub fn query(program: &str) -> Program {
    unattended(program, QUERY_LIMIT)
}

/// `program`, called in a form that changes the device.
pub fn change(program: &str) -> Program {
    unattended(program, CHANGE_LIMIT)
}

/// `program`, one of dpkg's or a command around it, while this process holds the frontend lock.
pub fn change_under_lock(program: &str) -> Program {
    change(program).env("DPKG_FRONTEND_LOCKED", "true")
}

fn unattended(program: &str, limit: Duration) -> Program {
    Program::new(program, limit)
        // Maintainer scripts need the programs in sbin, and the client may run without PATH.
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
        .env("DEBIAN_PRIORITY", "critical")
        .env("APT_LISTCHANGES_FRONTEND", "none")
        .env("APT_LISTBUGS_FRONTEND", "none")
        // needrestart would restart the client during its update.
        .env("NEEDRESTART_SUSPEND", "1")
}

/// The device's native architecture.
pub fn native_architecture() -> Result<String> {
    Ok(text(query("dpkg").arg("--print-architecture").output()?)?.trim().to_owned())
}

/// The other architectures whose packages may be installed.
pub fn foreign_architectures() -> Result<Vec<String>> {
    let output = text(query("dpkg").arg("--print-foreign-architectures").output()?)?;
    Ok(output.lines().map(str::to_owned).collect())
}

/// Whether `version` is older than `other`.
pub fn is_older(version: &str, other: &str) -> Result<bool> {
    Ok(query("dpkg").args(["--compare-versions", version, "lt", other]).status()?.success())
}

/// The output of a program as text.
pub fn text(output: Vec<u8>) -> Result<String> {
    String::from_utf8(output).context("invalid output of dpkg or apt: not UTF-8")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::test_device::{on_device, write};

    #[test]
    fn the_architectures_are_those_of_dpkg() {
        on_device(|| {
            let native = native_architecture().unwrap();
            let printed = Command::new("dpkg").arg("--print-architecture").output().unwrap();
            assert_eq!(format!("{native}\n").into_bytes(), printed.stdout);
            assert_eq!(foreign_architectures().unwrap(), [""; 0]);
            write("/var/lib/dpkg/arch", format!("{native}\nfirst\nsecond\n"));
            assert_eq!(foreign_architectures().unwrap(), ["first", "second"]);
        });
    }

    #[test]
    fn versions_are_compared() {
        let is_older = |version, other| is_older(version, other).unwrap();
        assert_eq!((is_older("1.9", "1.10"), is_older("2", "2"), is_older("1:1", "2")), (true, false, false));
    }

    #[test]
    fn output_is_utf_8() {
        assert_eq!(text(b"a\n".into()).unwrap(), "a\n");
        assert!(text(b"\xe9".into()).is_err());
    }
}
