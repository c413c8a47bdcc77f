//! Power losses by the hundred: a device loses power at many moments of a managed and of a standalone update.
//!
//! The power loss is the end of QEMU. The card of the device has no volatile cache: Linux detects it as "write
//! through" and sends no flush. So a power loss loses what the guest had not written, which is what was not synced, and
//! tears the transfer that is in progress after any of its sectors. `point::Writeback` varies what the
//! kernel has written of it by itself.
//!
//! The module's executable is replaced by a script that reports its calls on the console, and the moment of the power
//! loss, before it runs the module. In this way the moment does not depend on the speed of ssh.

mod point;
mod record;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host::{directory, status};
use qemu::{Limit, Snapshot};
use serde_json::Value;
use xshell::Shell;

use crate::device::Device;
use crate::managed::{CONTAINER, Managed, Subject, provides};
use crate::{Setup, scenarios};
pub use point::{Mode, Moment, Point, SUBJECTS, steps};
use record::{Found, NEW, NOTHING_PENDING};
pub use record::{Record, Verdict, row};

/// From the deployment to the moment of the power loss.
const MOMENT: Limit = Limit::new("MOMENT", 1800);
/// From power-on to the recovery at boot.
const RECOVERY: Limit = Limit::new("RECOVERY", 1200);

/// The client's work tree of an update on the device.
const WORK_TREE: &str = "/var/lib/mender/modules/v3/payloads/0000/tree";

/// The directory of the scripts and of the module's executable on the device.
const SCRIPTS: &str = "/usr/lib/power-loss";

/// Reports a call of the module, and at the chosen one, after the chosen delay, the moment of the power loss. The
/// choice is in memory, so that it is lost with the power.
const REPORT: &str = r#"#!/bin/sh
read -r up _ </proc/uptime
echo "pi: state $1 at $up s" >/dev/console
[ -r /run/power-loss ] || exit 0
read -r state delay </run/power-loss
[ "$1" = "$state" ] || exit 0
{
    sleep "$delay"
    while read -r key value _; do [ "$key" != Dirty: ] || break; done </proc/meminfo
    echo "pi: power loss: $value KiB dirty" >/dev/console
} </dev/null >/dev/null 2>&1 &
"#;

/// Runs the module. Its install fails at the end if the update is to be rolled back by the daemon.
const MODULE: &str = r#"#!/bin/sh
/usr/lib/power-loss/report "$1"
if [ "$1" = ArtifactInstall ] && [ -e /run/failing-install ]; then
    /usr/lib/power-loss/MODULE "$@"
    exit 1
fi
exec /usr/lib/power-loss/MODULE "$@"
"#;

/// The settings of a module with the settings of transactions: the health check takes three seconds. It has to pass, so
/// its limit is many times that.
const SETTINGS: &str = "[health]\ncommand = [\"/usr/lib/power-loss/report\", \"health-check\"]\n\
    limit_seconds = 900\nstable_seconds = 3\n";

/// The line on the console at the moment of the power loss.
const LOSS: &str = "pi: power loss: ";
/// The start of a line on the console that reports a call of the module.
const STATE: &str = "pi: state ";

/// The modules that lose power on `machine`.
pub fn modules(machine: &str) -> Vec<&'static str> {
    scenarios::modules(machine).collect()
}

/// The commands of a power loss, which [`Setup::lose_power`] runs.
impl Setup {
    /// As [`Setup::create_snapshot`], with everything that points of different modules have in common.
    pub fn create_power_loss_snapshot(&self) -> Result<Option<Snapshot>> {
        let modules = modules(self.image.board().machine);
        let subjects: Vec<_> = SUBJECTS.into_iter().filter(|subject| modules.contains(&subject.module)).collect();
        self.create_prepared_snapshot(|device| subjects.iter().try_for_each(|subject| prepare(device, subject)))
    }

    /// Makes a device lose power at `point`, and records what is found after it has settled. The directory of a point
    /// that is bad is kept. `executable` replaces that of the module.
    pub fn lose_power(&self, point: &Point, executable: Option<&PathBuf>) -> Result<Record> {
        let sh = &Shell::new()?;
        let module = point.subject.module;
        let suffix = if executable.is_some() { "-replaced" } else { "" };
        let directory = self.directory.join(format!("power-loss-{module}-{}{suffix}", point.number));
        directory::empty(&directory)?;
        let machine = self.image.board().machine;
        let name = format!("{machine}: {module}: point {} ({})", point.number, row(point.mode, point.moment));
        let begun = Instant::now();
        let record = status::step(name, |step| -> Result<_> {
            let mut device = Device::new(sh, self, &directory, step)?;
            device.power_on_with_package(module)?;
            if self.snapshot.is_none() {
                prepare(&device, point.subject)?;
            }
            if let Some(executable) = executable {
                replace_module(&device, module, executable)?;
            }
            let (state, lost, found) = Run { device: &mut device, point }.run()?;
            let verdict = found.verdict(point.mode, &state);
            let point = *point;
            Ok(Record { point, machine, state, lost, found, verdict, duration: begun.elapsed() })
        })
        .with_context(|| format!("point {} of {module} failed, see {}", point.number, directory.display()))?;
        if !matches!(record.verdict, Verdict::Bad(_)) {
            directory::remove(&directory)?;
        }
        Ok(record)
    }
}

/// Makes the previous version, replaces the module by a script that reports its calls, and makes everything durable.
fn prepare(device: &Device, subject: &Subject) -> Result<()> {
    (subject.prepare)(device)?;
    let module = subject.module;
    let installed = format!("/usr/share/mender/modules/v3/{module}");
    let report = device.write_file("report", REPORT.as_bytes())?;
    let script = device.write_file("script", MODULE.replace("MODULE", module).as_bytes())?;
    let mut commands = format!(
        "mkdir -p {SCRIPTS} && mv {report} {SCRIPTS}/report && mv {installed} {SCRIPTS}/{module} \
         && mv {script} {installed} && chmod 755 {installed} {SCRIPTS}/report"
    );
    if module != CONTAINER.module {
        let settings = device.write_file("settings", SETTINGS.as_bytes())?;
        commands.push_str(&format!(" && mv {settings} /etc/mender-modules/{module}.toml"));
    }
    device.ok(&format!("{commands} && sync")).map(drop)
}

/// Replaces the executable of a prepared module.
fn replace_module(device: &Device, module: &str, executable: &Path) -> Result<()> {
    let copy = device.copy_in(executable)?;
    device.ok(&format!("mv {copy} {SCRIPTS}/{module} && chmod 755 {SCRIPTS}/{module} && sync")).map(drop)
}

/// A device during a point.
struct Run<'a, 'b> {
    device: &'a mut Device<'b>,
    point: &'a Point,
}

impl Run<'_, '_> {
    /// Returns the state of the power loss, the KiB of dirty pages, and what was found.
    fn run(mut self) -> Result<(String, u64, Found)> {
        let subject = self.point.subject;
        let options: &[&str] = if self.point.moment == Moment::Reboot { &["--reboot"] } else { &[] };
        let artifact = (subject.artifact)(self.device, NEW, options)?;
        match self.point.mode {
            Mode::Managed => {
                let managed = Managed::start(self.device)?;
                self.arm()?;
                if self.point.moment.is_in_rollback() {
                    self.device.ok("touch /run/failing-install")?;
                }
                let id = managed.deploy(self.device, &artifact, NEW)?;
                let (state, lost) = self.lose_power(Some((&managed, &id)))?;
                let read = |device: &Device| {
                    let views = managed.views(device, subject, &id)?;
                    let provided = views.provides.get(&version_key(subject.module)).cloned();
                    let status = views.deployment.outcome().unwrap_or_default().to_owned();
                    let has_log = views.deployment.log.is_some();
                    Ok(Found {
                        disk: views.disk,
                        artifact: views.artifact,
                        provided,
                        status,
                        has_log,
                        ..Found::default()
                    })
                };
                Ok((state, lost, self.settled(read)?))
            }
            Mode::Standalone => {
                let artifact = self.device.copy_in(&artifact)?;
                self.device.ok("sync")?;
                let (state, lost) = self.standalone(&artifact)?;
                self.recovery_has_ended()?;
                let has_work_tree = has_work_tree(self.device)?;
                let arguments =
                    if matches!(self.point.moment, Moment::Commit | Moment::Cleanup) { "commit" } else { "rollback" };
                let settled = Some(format!("{arguments}: exit status {}", self.device.client_settles(arguments)?));
                let read = |device: &Device| {
                    let show = |what: &str| device.ok(&format!("{} {what}", device.generation().command));
                    let provided = provides(&show("show-provides")?).get(&version_key(subject.module)).cloned();
                    let status = if device.has_pending_update()? { "update pending" } else { NOTHING_PENDING };
                    Ok(Found {
                        disk: (subject.active)(device)?,
                        artifact: show("show-artifact")?.trim().to_owned(),
                        provided,
                        status: status.to_owned(),
                        settled: settled.clone(),
                        has_work_tree: Some(has_work_tree),
                        ..Found::default()
                    })
                };
                Ok((state, lost, self.settled(read)?))
            }
        }
    }

    /// Configures the writeback of the device, and chooses the moment.
    fn arm(&self) -> Result<()> {
        let Point { moment, delay, writeback, .. } = self.point;
        let (call, delay) = match moment {
            // The module container has its own health check, in the second half of its install.
            Moment::HealthCheck if self.point.subject.module == CONTAINER.module => {
                (Moment::Install.call(), *delay + CONTAINER_HEALTH_CHECK)
            }
            _ => (moment.call(), *delay),
        };
        let commands = writeback.commands();
        let delay = delay.as_secs_f64();
        self.device.ok(&format!("sync && {commands} && echo {call} {delay:.3} >/run/power-loss")).map(drop)
    }

    /// Runs the standalone update up to the power loss, and boots.
    fn standalone(&mut self, artifact: &str) -> Result<(String, u64)> {
        let arguments = match self.point.moment {
            Moment::Download | Moment::Install | Moment::HealthCheck | Moment::Reboot => format!("install {artifact}"),
            Moment::Commit | Moment::Cleanup => "commit".to_owned(),
            Moment::Rollback | Moment::CleanupAfterRollback => "rollback".to_owned(),
        };
        if !arguments.starts_with("install") {
            self.device.install(artifact)?;
        }
        self.arm()?;
        self.device.start_client_until(&arguments, "true")?;
        self.lose_power(None)
    }

    /// Waits for the moment, and makes the device lose power and boot again. Every fourth point interrupts the
    /// recovery.
    fn lose_power(&mut self, deployment: Option<(&Managed, &str)>) -> Result<(String, u64)> {
        let (state, lost) = match deployment {
            Some((managed, id)) if self.point.moment == Moment::Reboot => (self.reboot(managed, id)?, 0),
            _ => {
                self.device.wait_for_line(LOSS, MOMENT)?;
                let console = self.device.console()?;
                let lost = console.rsplit_once(LOSS).and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
                self.device.power_loss()?;
                (last_state(&console), lost.unwrap_or_default())
            }
        };
        if let Some(delay) = self.point.second {
            self.device.start_boot()?;
            self.device.wait_for_line(&format!("{STATE}--recover"), RECOVERY)?;
            thread::sleep(delay);
            self.device.power_loss()?;
        }
        self.device.power_on()?;
        Ok((state, lost))
    }

    /// The daemon reboots the device, which loses power on its way down or up.
    fn reboot(&mut self, managed: &Managed, id: &str) -> Result<String> {
        managed.wait(self.device, id, |deployment| deployment.statuses.iter().any(|status| status == "rebooting"))?;
        if self.point.delay < DOWN {
            thread::sleep(self.point.delay);
            self.device.power_loss()?;
            return Ok("shutdown".to_owned());
        }
        self.device.shuts_down_to_reboot()?;
        self.device.start_boot()?;
        thread::sleep(self.point.delay - DOWN);
        self.device.power_loss()?;
        Ok("boot".to_owned())
    }

    fn recovery_has_ended(&self) -> Result<()> {
        let service = self.recovery_service();
        self.device
            .wait_until(&format!("! systemctl show --property=ActiveState --value {service} | grep -q ^activating"))
            .context("the recovery did not end")
    }

    /// The phase of the update that the module takes for pending.
    fn phase(&self) -> Result<Option<String>> {
        let module = self.point.subject.module;
        let status = self.device.ok(&format!("{SCRIPTS}/{module} --status --json"))?;
        let status: Value = serde_json::from_str(&status).context("reading the status of the module failed")?;
        Ok(status["pending"]["phase"].as_str().map(str::to_owned))
    }

    fn recovery_service(&self) -> String {
        format!("mender-update-module-{}-recover.service", self.point.subject.module)
    }

    /// Reads the views with `read`, and then checks the file systems.
    fn settled(&mut self, read: impl Fn(&Device) -> Result<Found>) -> Result<Found> {
        let mut found = read(self.device)?;
        // A service starts some time after the boot.
        let mut tries = if self.point.subject.module == CONTAINER.module { SERVICE_TRIES } else { 0 };
        while found.disk != found.artifact && tries > 0 {
            tries -= 1;
            thread::sleep(SERVICE_PAUSE);
            found = read(self.device)?;
        }
        self.recovery_has_ended()?;
        let state = format!("systemctl show --property=ActiveState --value {}", self.recovery_service());
        found.recovery = self.device.ok(&state)?.trim().to_owned();
        found.phase = self.phase()?;
        found.damage = self.device.check_file_systems().err().map(|error| format!("{error:#}"));
        Ok(found)
    }
}

/// From the start of ArtifactInstall of the module container to its health check.
const CONTAINER_HEALTH_CHECK: Duration = Duration::from_secs(10);
/// The part of the delay of a reboot in which the device shuts down. It boots in the rest.
const DOWN: Duration = Duration::from_secs(8);
/// How often, and after which pause, the views are read again while a service starts.
const SERVICE_TRIES: u32 = 60;
const SERVICE_PAUSE: Duration = Duration::from_secs(5);

/// The key of the payload's version in `show-provides`.
/// Whether the client's work tree of an update is on `device`.
fn has_work_tree(device: &Device) -> Result<bool> {
    let answer = device.ok(&format!("if test -d {WORK_TREE}; then echo yes; else echo no; fi"))?;
    match answer.trim() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => bail!("unexpected answer of the device: {answer:?} instead of yes or no"),
    }
}

fn version_key(module: &str) -> String {
    format!("data-partition.{module}.version")
}

/// The last call of the module that `console` reports.
fn last_state(console: &str) -> String {
    let call = console.rsplit_once(STATE).and_then(|(_, rest)| rest.split_whitespace().next());
    call.unwrap_or_default().to_owned()
}

/// Points that are chosen so that an executable without syncs has to be bad in some of them: everything unsynced is
/// lost soon after the client has made its own data durable.
pub fn negative_control(count: u32) -> Result<Vec<Point>> {
    let subject = SUBJECTS.iter().find(|subject| subject.module == "web-file").context("no module web-file")?;
    let steps = [(Mode::Managed, Moment::Cleanup), (Mode::Standalone, Moment::Cleanup)];
    ensure!(count > 0, "no points: use --count 1 or more");
    let point = |number| {
        let (mode, moment) = steps[number as usize % steps.len()];
        let (delay, writeback) = (Duration::from_millis(300), point::Writeback::OnlyData);
        Point { mode, moment, delay, writeback, second: None, ..Point::new(subject, number) }
    };
    Ok((0..count).map(point).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_state_is_found() {
        assert_eq!(last_state("pi: state Download at 1.0 s\npi: state Cleanup at 2.0 s\npi: power loss"), "Cleanup");
        assert_eq!(last_state(""), "");
    }

    #[test]
    fn the_script_of_a_module_runs_it() {
        assert!(MODULE.replace("MODULE", "web-file").contains("exec /usr/lib/power-loss/web-file \"$@\""));
    }
}
