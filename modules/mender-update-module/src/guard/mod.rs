//! What may go around a switch, in every module: units that are stopped and started, and a health gate.
//!
//! Both are optional and come from two tables, `units` and `health`, of the device's settings or the artifact's
//! meta-data. A table that the device's settings have is theirs alone: the artifact's of that name is ignored.

mod health;
mod units;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::log::say;
use crate::settings;
use crate::tree::WorkTree;
use health::Health;
use units::Units;

/// The names of the tables, which a module's own settings must not use.
pub(crate) const TABLES: [&str; 2] = ["units", "health"];

/// What goes around one switch. It is in the journal, for what undoes the switch needs it too, and by then settings may
/// have changed and the artifact's meta-data be gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guard {
    units: Option<Units>,
    health: Option<Health>,
}

impl Guard {
    /// The guard that the settings of module `name` and the artifact of `tree` ask for.
    ///
    /// # Errors
    /// When one of the tables has a mistake.
    pub(crate) fn of(name: &str, tree: &WorkTree) -> Result<Self> {
        let device: Self = settings::common(name)?;
        let artifact: Self = tree.meta_data()?.unwrap_or_default();
        let guard =
            Self { units: device.units.or(artifact.units), health: device.health.or(artifact.health) };
        if let Some(health) = &guard.health {
            health.check().context("the health gate")?;
        }
        Ok(guard)
    }

    /// Does what comes before a switch.
    ///
    /// # Errors
    /// When a unit does not stop.
    pub(crate) fn before(&self) -> Result<()> {
        self.units.as_ref().map_or(Ok(()), Units::before)
    }

    /// Does what comes after a switch.
    ///
    /// # Errors
    /// When a unit does not start, or the like.
    pub(crate) fn after(&self) -> Result<()> {
        self.units.as_ref().map_or(Ok(()), Units::after)
    }

    /// Waits until the device is healthy.
    ///
    /// # Errors
    /// When it is not within the limit: what was asked last and what came of it.
    pub(crate) fn gate(&self) -> Result<()> {
        let Some(health) = &self.health else { return Ok(()) };
        health.wait().context("the health gate did not open")?;
        say("the health gate is open");
        Ok(())
    }

    /// As [`gate`](Self::gate), for a report only: after a rollback there is nothing better to go to.
    pub(crate) fn report(&self) {
        if let Err(error) = self.gate() {
            say(format_args!("with the old in place: {error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tables_come_from_meta_data_and_other_keys_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("header")).unwrap();
        let meta_data = |text: &str| fs::write(folder.path().join("header/meta-data"), text).unwrap();
        let tree = WorkTree::new(folder.path());
        meta_data("null");
        assert_eq!(Guard::of("no-such-module", &tree).unwrap(), Guard::default());
        meta_data(
            r#"{"dest_dir": "/x", "units": {"stop": ["a.service"]}, "health": {"tcp": "127.0.0.1:1"}}"#,
        );
        let guard = Guard::of("no-such-module", &tree).unwrap();
        assert!(guard.units.is_some() && guard.health.is_some());
        for bad in [
            r#"{"units": {"halt": []}}"#,
            r#"{"units": {"stop": ["-H root@host"]}}"#,
            r#"{"health": {}}"#,
            r#"{"health": {"command": []}}"#,
            r#"{"health": {"url": "https://example.org/"}}"#,
            r#"{"health": {"tcp": "somewhere"}}"#,
            r#"{"health": {"tcp": "127.0.0.1:1", "limit_seconds": 2, "stable_seconds": 3}}"#,
        ] {
            meta_data(bad);
            assert!(Guard::of("no-such-module", &tree).is_err(), "{bad} was taken");
        }
    }
}
