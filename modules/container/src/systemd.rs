//! systemd: units that exist until the next boot, and their states.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable;
use mender_update_module::{FileName, Program, log};
use serde::{Deserialize, Serialize};

use crate::project::{Project, read_trusted};
use crate::settings::{CommandLine, Settings};

/// The time limit of a query, and of a reload.
const LIMIT: Duration = Duration::from_secs(600);

/// The time limit of a start or a stop of units. They have their own time limits, and start one after the other: so
/// this one only has to end a systemd that does not answer. The client's for one state is the same by default: 4 hours.
const CONTROL_LIMIT: Duration = Duration::from_secs(14_400);

/// systemd on this device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Systemd {
    command: CommandLine,
    units_dir: PathBuf,
}

/// The properties of a unit.
pub struct UnitState(BTreeMap<String, String>);

impl Systemd {
    pub fn of(settings: &Settings) -> Self {
        Self { command: settings.systemctl.clone(), units_dir: settings.units_dir.clone() }
    }

    /// The path of the installed unit `unit`.
    pub fn unit_path(&self, unit: &FileName) -> PathBuf {
        self.units_dir.join(unit)
    }

    /// Installs the units of `project`.
    ///
    /// # Errors
    /// When one cannot be written, or systemd does not load them.
    pub fn install(&self, project: &Project) -> Result<()> {
        self.write_units(project)?;
        self.reload()
    }

    fn write_units(&self, project: &Project) -> Result<()> {
        for unit in &project.units {
            let text = read_trusted(&project.directory.join(unit))?;
            durable::write_file(&self.unit_path(unit), &text)?;
        }
        Ok(())
    }

    /// Removes the units of `project`. They must have been stopped.
    pub fn remove(&self, project: &Project) -> Result<()> {
        project.units.iter().try_for_each(|unit| durable::remove_file(&self.unit_path(unit)))
    }

    /// Installs and starts the units of `projects`, without waiting for their start. A project that cannot be read, or
    /// whose units cannot be installed, does not keep the others from being started.
    ///
    /// # Errors
    /// When there was such a project, or systemd does not load units or does not accept their start.
    pub fn start_at_boot(&self, projects: Vec<Result<Project>>) -> Result<()> {
        let (mut units, mut failed) = (Vec::new(), 0);
        for project in projects {
            let installed = project.and_then(|project| {
                self.write_units(&project).with_context(|| project.directory.display().to_string())?;
                Ok(project)
            });
            match installed {
                Ok(project) => units.extend(project.services.into_iter().map(|service| service.unit)),
                Err(error) => {
                    failed += 1;
                    log!("project not started: {error:#}");
                }
            }
        }
        if !units.is_empty() {
            self.reload()?;
            self.control(&["start", "--no-block"], &units.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        ensure!(failed == 0, "projects not started at boot: {failed}: the log names each, with its cause");
        Ok(())
    }

    /// Starts the services of `project`, and waits until systemd reports them as started.
    pub fn start(&self, project: &Project) -> Result<()> {
        self.control(&["start"], &project.started())
    }

    /// Stops all installed units of `project`. Networks and volumes are kept: stopping their units does not remove
    /// them.
    pub fn stop(&self, project: &Project) -> Result<()> {
        let mut installed = Vec::new();
        for unit in &project.units {
            if durable::exists(&self.unit_path(unit))? {
                installed.extend(unit.as_ref().to_str());
            }
        }
        self.control(&["stop"], &installed)?;
        if let Err(error) = self.reset_failed(&installed) {
            log!("units may stay in the list of systemctl --failed: {error:#}");
        }
        Ok(())
    }

    /// Removes those of `units` that have failed from systemd's list of failed units, in which they would stay after
    /// their files are removed. Others may not be loaded any more, and cannot be reset.
    fn reset_failed(&self, units: &[&str]) -> Result<()> {
        let mut failed = Vec::new();
        for unit in units {
            if self.state(unit)?.has_failed() {
                failed.push(*unit);
            }
        }
        self.control(&["reset-failed"], &failed)
    }

    fn reload(&self) -> Result<()> {
        self.program(LIMIT).arg("daemon-reload").run()
    }

    fn control(&self, verb: &[&str], units: &[&str]) -> Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        let failed = || format!("systemctl {} failed: {}", verb[0], units.join(" "));
        self.program(CONTROL_LIMIT).args(verb).args(units).run().with_context(failed)
    }

    /// The state of `unit`.
    pub fn state(&self, unit: &str) -> Result<UnitState> {
        let output =
            self.program(LIMIT).args(["show", "--property=ActiveState,SubState,Result,NRestarts", unit]).output()?;
        let output = String::from_utf8_lossy(&output);
        let pairs = output.lines().filter_map(|line| line.split_once('='));
        Ok(UnitState(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    /// Shows the last lines of `unit` in systemd's journal, from `since` on, in the deployment log.
    pub fn show_journal(unit: &str, since: SystemTime) {
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        log!("last lines of the unit {unit} in the journal:");
        let journal = Program::new("journalctl", LIMIT).args(["--no-pager", "--quiet", "--output=cat", "--lines=30"]);
        let shown = journal.arg(format!("--since=@{since}")).args(["--unit", unit]).run();
        if let Err(error) = shown {
            log!("reading the journal failed: unit {unit}: {error:#}");
        }
    }

    fn program(&self, limit: Duration) -> Program {
        let Self { command: CommandLine { program, options }, .. } = self;
        Program::new(program, limit).args(options).args(["--no-ask-password", "--quiet"])
    }
}

impl UnitState {
    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub fn is_active(&self) -> bool {
        self.get("ActiveState") == "active"
    }

    /// Whether it has ended with success.
    pub fn has_succeeded(&self) -> bool {
        let has_ended = self.get("ActiveState") == "inactive" || self.get("SubState") == "exited";
        has_ended && self.get("Result") == "success"
    }

    fn has_failed(&self) -> bool {
        self.get("ActiveState") == "failed"
    }

    /// The number of restarts by systemd.
    pub fn restarts(&self) -> u64 {
        self.get("NRestarts").parse().unwrap_or_default()
    }

    /// For messages, such as `failed (failed), result exit-code`.
    pub fn summary(&self) -> String {
        format!("{} ({}), result {}", self.get("ActiveState"), self.get("SubState"), self.get("Result"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(active: &str, sub: &str, result: &str) -> UnitState {
        let properties = [("ActiveState", active), ("SubState", sub), ("Result", result), ("NRestarts", "2")];
        UnitState(properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
    }

    #[test]
    fn the_properties_of_a_unit_have_one_meaning_each() {
        // As systemd 257 shows a service, a one-shot service that ended, one with RemainAfterExit, and failed ones.
        for (state, [is_active, has_succeeded, has_failed]) in [
            (state("active", "running", "success"), [true, false, false]),
            (state("activating", "start", "success"), [false, false, false]),
            (state("inactive", "dead", "success"), [false, true, false]),
            (state("active", "exited", "success"), [true, true, false]),
            (state("active", "exited", "exit-code"), [true, false, false]),
            (state("inactive", "dead", "exit-code"), [false, false, false]),
            (state("failed", "failed", "exit-code"), [false, false, true]),
        ] {
            let found = [state.is_active(), state.has_succeeded(), state.has_failed()];
            assert_eq!(found, [is_active, has_succeeded, has_failed], "{}", state.summary());
            assert_eq!(state.restarts(), 2);
        }
        assert_eq!(state("failed", "dead", "exit-code").summary(), "failed (dead), result exit-code");
        assert_eq!(UnitState(BTreeMap::new()).restarts(), 0);
    }
}
