//! The restart inhibitor: keeps systemd from stopping the unit that the module runs in.
//!
//! An update of the Mender client restarts the client's service. That would end this module, dpkg and the
//! maintainer script that requests the restart. While dpkg runs, the unit therefore refuses manual starts and
//! stops, which in systemd are all that no dependency causes. Maintainer scripts made by debhelper tolerate
//! the refusal. The unit is restarted after the update.
//!
//! At boot, the client's service waits for the recovery, and a maintainer script that restarts the client
//! would wait for itself. There the client's units refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use mender_update_module::{Program, durable, log};

/// systemd's runtime directory of units, which exists only where systemd runs. A reboot empties it.
const SYSTEMD: &str = "/run/systemd/system";

const DROP_IN_NAME: &str = "mender-update-module-deb.conf";

const DROP_IN: &[u8] = b"# While mender-update-module-deb installs packages.
[Unit]
RefuseManualStart=yes
RefuseManualStop=yes
";

/// The module's unit for the recovery at boot.
const RECOVERY_UNIT: &str = "mender-update-module-deb-recover.service";

/// The units that start after the recovery.
const CLIENT_UNITS: [&str; 3] = ["mender-client.service", "mender-updated.service", "mender-authd.service"];

/// The time limit of a call of systemd.
const LIMIT: Duration = Duration::from_secs(300);

/// The units that refuse, until the inhibitor is [released](Self::release).
pub struct RestartInhibitor {
    /// Their drop-in directories.
    directories: Vec<PathBuf>,
    /// Makes systemd read the drop-ins.
    reload: fn() -> Result<()>,
}

impl RestartInhibitor {
    /// Makes the units refuse. Does nothing where systemd does not run this process.
    pub fn acquire() -> Result<Self> {
        let units = refusing_units(own_unit()?);
        Self::acquire_for(&units, Path::new(SYSTEMD), || systemctl().arg("daemon-reload").run())
    }

    fn acquire_for(units: &[String], systemd: &Path, reload: fn() -> Result<()>) -> Result<Self> {
        let directories = units.iter().map(|unit| systemd.join(format!("{unit}.d"))).collect();
        let inhibitor = Self { directories, reload };
        match inhibitor.write_drop_ins().and_then(|()| inhibitor.reload()) {
            Ok(()) => Ok(inhibitor),
            Err(error) => {
                // The next reload, by any program, would make the units refuse.
                inhibitor.release();
                Err(error.context("inhibiting restarts of the unit that this update runs in failed"))
            }
        }
    }

    fn write_drop_ins(&self) -> Result<()> {
        self.directories.iter().try_for_each(|directory| durable::write_file(&directory.join(DROP_IN_NAME), DROP_IN))
    }

    /// Lets the units start and stop again. A failure is only logged: it is no reason to roll back.
    pub fn release(self) {
        let release = || {
            for directory in &self.directories {
                durable::remove_file(&directory.join(DROP_IN_NAME))?;
                durable::remove_empty_dir(directory)?;
            }
            self.reload()
        };
        if let Err(error) = release() {
            log!("releasing the restart inhibitor failed: {error:#}: reboot to let the unit restart");
        }
    }

    fn reload(&self) -> Result<()> {
        if self.directories.is_empty() { Ok(()) } else { (self.reload)() }
    }
}

/// The units that refuse while packages are installed by a process in the service `own`.
fn refusing_units(own: Option<String>) -> Vec<String> {
    match own {
        Some(unit) if unit == RECOVERY_UNIT => CLIENT_UNITS.map(str::to_owned).into(),
        own => own.into_iter().collect(),
    }
}

/// The service that this process runs in; `None` where systemd does not run it.
pub fn own_unit() -> Result<Option<String>> {
    if !Path::new(SYSTEMD).is_dir() {
        return Ok(None);
    }
    let table = "/proc/self/cgroup";
    Ok(service(&fs::read_to_string(table).with_context(|| format!("reading {table} failed"))?))
}

/// The service in the kernel's list of control groups: `0::/system.slice/mender-client.service`.
fn service(table: &str) -> Option<String> {
    let paths = table.lines().filter(|line| line.starts_with("0::") || line.contains(":name=systemd:"));
    paths.filter_map(|line| line.rsplit('/').next()).find(|name| name.ends_with(".service")).map(str::to_owned)
}

/// The file that systemd has read `unit` from.
pub fn unit_file(unit: &str) -> Result<PathBuf> {
    let output = systemctl().args(["show", "--property=FragmentPath", "--value", unit]).output()?;
    Ok(String::from_utf8_lossy(&output).trim_end().into())
}

/// Schedules a restart of `unit`, which this process runs in and has to leave first.
pub fn restart_later(unit: &str) {
    let restart = Program::new("systemd-run", LIMIT)
        .args(["--quiet", "--collect", "--on-active=10s", "--unit=mender-update-module-deb-restart"])
        .args(["systemctl", "try-restart", unit]);
    match restart.run() {
        Ok(()) => log!("{unit} restarts in 10 s: this update has changed it"),
        Err(error) => {
            log!("scheduling the restart of {unit} failed: {error:#}: restart it, this update has changed it");
        }
    }
}

fn systemctl() -> Program {
    Program::new("systemctl", LIMIT).args(["--no-ask-password", "--quiet"])
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use rustix::mount::mount_bind;

    use super::*;
    use crate::test_device::{on_device, write};

    #[test]
    fn units_do_not_refuse_after_a_failure_to_inhibit_them() {
        let systemd = tempfile::tempdir().unwrap();
        let units = ["mender-client.service".to_owned(), "mender-authd.service".to_owned()];
        let inhibitor = RestartInhibitor::acquire_for(&units, systemd.path(), || Ok(())).unwrap();
        assert_eq!(fs::read_dir(systemd.path()).unwrap().count(), 2);
        inhibitor.release();
        assert_eq!(fs::read_dir(systemd.path()).unwrap().count(), 0);
        let failing = || bail!("systemd does not answer");
        let error = RestartInhibitor::acquire_for(&units, systemd.path(), failing).err().unwrap();
        assert!(format!("{error:#}").contains("systemd does not answer"), "{error:#}");
        assert_eq!(fs::read_dir(systemd.path()).unwrap().count(), 0, "a later reload would make them refuse");
        // The second drop-in cannot be written.
        fs::write(systemd.path().join("mender-authd.service.d"), "a file").unwrap();
        assert!(RestartInhibitor::acquire_for(&units, systemd.path(), || Ok(())).is_err());
        assert!(!systemd.path().join("mender-client.service.d").exists());
    }

    #[test]
    fn the_service_is_found_in_both_forms_of_the_list() {
        let unified = "0::/system.slice/mender-client.service\n";
        let mixed = "12:cpu:/\n1:name=systemd:/system.slice/mender-updated.service\n0::/\n";
        assert_eq!(service(unified).as_deref(), Some("mender-client.service"));
        assert_eq!(service(mixed).as_deref(), Some("mender-updated.service"));
        assert_eq!(service("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(service("0::/\n"), None);
    }

    #[test]
    fn the_own_unit_refuses_and_in_the_recovery_those_that_wait_for_it() {
        assert_eq!(refusing_units(None), [""; 0]);
        assert_eq!(refusing_units(Some("mender-client.service".into())), ["mender-client.service"]);
        let units = ["mender-client.service", "mender-updated.service", "mender-authd.service"];
        assert_eq!(refusing_units(Some("mender-update-module-deb-recover.service".into())), units);
    }

    #[test]
    fn without_systemd_nothing_runs_in_a_unit() {
        on_device(|| {
            assert_eq!(own_unit().unwrap(), None);
            RestartInhibitor::acquire().unwrap().release();
            fs::create_dir_all(SYSTEMD).unwrap();
            write("/srv/cgroup", "0::/system.slice/x.service\n");
            mount_bind("/srv/cgroup", "/proc/self/cgroup").unwrap();
            assert_eq!(own_unit().unwrap().as_deref(), Some("x.service"));
        });
    }
}
