//! systemd: units that exist until the next boot, and what becomes of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use mender_update_module::durable;
use mender_update_module::{FileName, Program, log};
use serde::{Deserialize, Serialize};

use crate::project::{Project, read_own};
use crate::settings::{CommandLine, Settings};

/// The longest that systemctl may take: units have time limits of their own.
const LIMIT: Duration = Duration::from_secs(600);

/// systemd on this device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Systemd {
    command: CommandLine,
    units_dir: PathBuf,
}

/// What systemd tells of a unit.
pub struct UnitState(BTreeMap<String, String>);

impl Systemd {
    /// The one that the settings tell of.
    pub fn of(settings: &Settings) -> Self {
        Self { command: settings.systemctl.clone(), units_dir: settings.units_dir.clone() }
    }

    /// Where `unit` is made known.
    pub fn unit_path(&self, unit: &FileName) -> PathBuf {
        self.units_dir.join(unit)
    }

    /// Makes the units of `project` known.
    ///
    /// # Errors
    /// When one cannot be written, or systemd does not read them.
    pub fn publish(&self, project: &Project) -> Result<()> {
        self.put(project)?;
        self.reload()
    }

    fn put(&self, project: &Project) -> Result<()> {
        for unit in &project.units {
            let path = project.directory.join(unit);
            let text = read_own(&path)?;
            durable::write_file(&self.units_dir.join(unit), &text)?;
        }
        Ok(())
    }

    /// Takes the units of `project` away, which must have been stopped.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn withdraw(&self, project: &Project) -> Result<()> {
        project.units.iter().try_for_each(|unit| durable::remove_file(&self.units_dir.join(unit)))
    }

    /// Starts what `projects` run as soon as systemd comes to it.
    ///
    /// # Errors
    /// When the units cannot be made known. One project that is damaged does not keep the others away.
    pub fn start_at_boot(&self, projects: &[Project]) -> Result<()> {
        let mut units = Vec::new();
        for project in projects {
            match self.put(project) {
                Ok(()) => units.extend(project.started()),
                Err(error) => log!("not started: {error:#}"),
            }
        }
        if units.is_empty() {
            return Ok(());
        }
        self.reload()?;
        self.control(&["start", "--no-block"], &units)
    }

    /// Starts the services of `project` and waits for systemd to say that they are.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(&self, project: &Project) -> Result<()> {
        self.control(&["start"], &project.started())
    }

    /// Stops all units of `project` that are known; networks and volumes are nothing that runs.
    ///
    /// # Errors
    /// When one does not stop.
    pub fn stop(&self, project: &Project) -> Result<()> {
        let mut known = Vec::new();
        for unit in &project.units {
            if durable::exists(&self.units_dir.join(unit))? {
                known.extend(unit.as_ref().to_str());
            }
        }
        self.control(&["stop"], &known)
    }

    fn reload(&self) -> Result<()> {
        self.program().arg("daemon-reload").run()
    }

    fn control(&self, verb: &[&str], units: &[&str]) -> Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        self.program().args(verb).args(units).run().with_context(|| format!("units {}", units.join(", ")))
    }

    /// How `unit` is.
    ///
    /// # Errors
    /// When systemctl fails.
    pub fn state(&self, unit: &str) -> Result<UnitState> {
        let said = self
            .program()
            .args(["show", "--property=ActiveState,SubState,Result,NRestarts", unit])
            .output()?;
        let said = String::from_utf8_lossy(&said);
        let pairs = said.lines().filter_map(|line| line.split_once('='));
        Ok(UnitState(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    /// Shows the last lines of `unit` in systemd's journal, from `since` on, in the deployment log.
    pub fn show_journal(unit: &str, since: SystemTime) {
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        log!("the last lines of the unit {unit} in the journal:");
        let journal =
            Program::new("journalctl", LIMIT).args(["--no-pager", "--quiet", "--output=cat", "--lines=30"]);
        // Systemd's own lines about a unit are not of the unit.
        let shown = journal.arg(format!("--since=@{since}")).args(["--unit", unit]).run();
        if let Err(error) = shown {
            log!("reading the journal failed: unit {unit}: {error:#}");
        }
    }

    fn program(&self) -> Program {
        let Self { command: CommandLine { program, options }, .. } = self;
        Program::new(program, LIMIT).args(options).args(["--no-ask-password", "--quiet"])
    }
}

impl UnitState {
    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// Whether it is there and up.
    pub fn is_active(&self) -> bool {
        self.get("ActiveState") == "active"
    }

    /// Whether it has done what it is for, and has ended.
    pub fn has_succeeded(&self) -> bool {
        let ended = self.get("ActiveState") == "inactive" || self.get("SubState") == "exited";
        ended && self.get("Result") == "success"
    }

    /// How often systemd has started it again by itself.
    pub fn restarts(&self) -> u64 {
        self.get("NRestarts").parse().unwrap_or_default()
    }

    /// For a person.
    pub fn shown(&self) -> String {
        format!("{} ({}), result {}", self.get("ActiveState"), self.get("SubState"), self.get("Result"))
    }
}
