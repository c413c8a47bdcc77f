//! systemd units around an activation.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::program::Program;

/// The longest that systemctl may take: units have time limits of their own, 90 s unless they say otherwise.
const LIMIT: Duration = Duration::from_secs(300);

/// Names of units, by what is done to them. A unit may be in several lists: stopped before and started after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Units {
    /// Stopped before the activation.
    stop: Vec<UnitName>,
    /// Reloaded after it.
    reload: Vec<UnitName>,
    /// Restarted after it.
    restart: Vec<UnitName>,
    /// Started after it.
    start: Vec<UnitName>,
}

/// A unit's name: no option of systemctl can be made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct UnitName(String);

impl TryFrom<String> for UnitName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let known = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        anyhow::ensure!(
            !name.is_empty() && !name.starts_with('-') && name.chars().all(known),
            "{name:?} is not the name of a systemd unit"
        );
        Ok(Self(name))
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0
    }
}

impl Units {
    pub(super) fn before(&self) -> Result<()> {
        systemctl("stop", &self.stop)
    }

    pub(super) fn after(&self) -> impl Iterator<Item = Result<()>> {
        let lists = [("reload", &self.reload), ("restart", &self.restart), ("start", &self.start)];
        lists.into_iter().map(|(verb, units)| systemctl(verb, units))
    }
}

fn systemctl(verb: &str, units: &[UnitName]) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    let names = units.iter().map(|UnitName(name)| name.as_str());
    let systemctl = Program::new("systemctl", LIMIT).args(["--no-ask-password", "--quiet", verb]).args(names);
    systemctl.run().with_context(|| {
        let names: Vec<&str> = units.iter().map(|UnitName(name)| name.as_str()).collect();
        let names = names.join(" ");
        format!("{verb} failed: {names}, in the table units: see 'systemctl status {names}' and 'journalctl --unit'")
    })
}
