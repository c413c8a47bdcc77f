//! Keeps systemd from stopping the unit that this module runs in.
//!
//! An update of the Mender client restarts the client's service, and with it would end this module, dpkg and the very
//! script that asks for it. So while dpkg is at work the unit refuses to be stopped or restarted by hand, as systemd calls
//! everything but a dependency; the maintainer scripts that debhelper makes bear that. The unit is restarted when the
//! update has ended.
//!
//! At boot it is the other way round: the client's service waits for the recovery, and a script that restarts it would
//! wait for itself. So there it is the client's units that refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use mender_update_module::{Program, durable, log};

/// It is there where systemd runs.
const SYSTEMD: &str = "/run/systemd/system";

/// What our part of a unit is called. It is gone after a boot, whatever happens.
const DROP_IN: &str = "mender-update-module-deb.conf";

const REFUSE: &[u8] = b"# While mender-update-module-deb installs packages.\n[Unit]\nRefuseManualStart=yes\nRefuseManualStop=yes\n";

/// Our own unit at boot, and the units that it comes before.
const RECOVERY: &str = "mender-update-module-deb-recover.service";
const CLIENTS: [&str; 3] = ["mender-client.service", "mender-updated.service", "mender-authd.service"];

/// The longest that a look at systemd may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Units that refuse, until it is [lowered](Self::lower).
pub struct Shield(Vec<PathBuf>);

impl Shield {
    /// Raises it where systemd runs, and runs this.
    ///
    /// # Errors
    /// When systemd cannot be told.
    pub fn raise() -> Result<Self> {
        let units = match own_unit()? {
            Some(unit) if unit == RECOVERY => CLIENTS.map(str::to_owned).into(),
            own => own.into_iter().collect::<Vec<_>>(),
        };
        let shield = Self(units.iter().map(|unit| Path::new(SYSTEMD).join(format!("{unit}.d"))).collect());
        shield.0.iter().try_for_each(|folder| durable::write_file(&folder.join(DROP_IN), REFUSE))?;
        shield
            .reload()
            .context("having the unit that this update runs in refuse to be restarted meanwhile")?;
        Ok(shield)
    }

    /// Lowers it. That it could not be is no reason to undo an update.
    pub fn lower(self) {
        let lower = || {
            for folder in &self.0 {
                durable::remove_file(&folder.join(DROP_IN))?;
                durable::remove_empty_dir(folder)?;
            }
            self.reload()
        };
        if let Err(error) = lower() {
            log!("until the next boot the unit cannot be restarted: {error:#}");
        }
    }

    fn reload(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { systemctl().arg("daemon-reload").run() }
    }
}

/// The service that this process runs in, where systemd runs one.
///
/// # Errors
/// When the kernel does not say.
pub fn own_unit() -> Result<Option<String>> {
    if !Path::new(SYSTEMD).is_dir() {
        return Ok(None);
    }
    let table = "/proc/self/cgroup";
    Ok(service(&fs::read_to_string(table).with_context(|| format!("reading {table}"))?))
}

/// The service in the kernel's list of control groups: `0::/system.slice/mender-client.service`.
fn service(table: &str) -> Option<String> {
    let paths = table.lines().filter(|line| line.starts_with("0::") || line.contains(":name=systemd:"));
    paths
        .filter_map(|line| line.rsplit('/').next())
        .find(|name| name.ends_with(".service"))
        .map(str::to_owned)
}

/// The file that `unit` was read from.
///
/// # Errors
/// When systemd does not say.
pub fn unit_file(unit: &str) -> Result<PathBuf> {
    let said = systemctl().args(["show", "--property=FragmentPath", "--value", unit]).output()?;
    Ok(String::from_utf8_lossy(&said).trim_end().into())
}

/// Has `unit` restarted in a moment, from outside of it: what runs in it has to end first.
pub fn restart_later(unit: &str) {
    let restart = Program::new("systemd-run", LIMIT)
        .args(["--quiet", "--collect", "--on-active=10s", "--unit=mender-update-module-deb-restart"])
        .args(["systemctl", "try-restart", unit]);
    match restart.run() {
        Ok(()) => log!("{unit} will be restarted, because this update has changed it"),
        Err(error) => {
            log!("{unit} has to be restarted by hand, because this update has changed it: {error:#}")
        }
    }
}

fn systemctl() -> Program {
    Program::new("systemctl", LIMIT).args(["--no-ask-password", "--quiet"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_found_in_both_forms_of_the_list() {
        let unified = "0::/system.slice/mender-client.service\n";
        let mixed = "12:cpu:/\n1:name=systemd:/system.slice/mender-updated.service\n0::/\n";
        assert_eq!(service(unified).as_deref(), Some("mender-client.service"));
        assert_eq!(service(mixed).as_deref(), Some("mender-updated.service"));
        assert_eq!(service("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(service("0::/\n"), None);
    }
}
