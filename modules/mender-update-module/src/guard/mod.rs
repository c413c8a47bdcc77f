//! What may go around an activation, in every module: units that are stopped and started, and a health check.
//!
//! Both are optional and come from two tables, `units` and `health`, of the device's settings or the artifact's
//! meta-data. A table in the device's settings takes precedence: the artifact's of that name is ignored.

mod health;
mod http;
mod units;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::log;
use crate::settings_file;
use crate::tree::WorkTree;
use health::Health;
use units::Units;

/// What goes around one activation. It is in the journal, because a rollback needs it too, and by then settings may
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
        let device: Self = settings_file::common(name)?;
        let artifact: Self = tree.meta_data()?.unwrap_or_default();
        let guard = Self { units: device.units.or(artifact.units), health: device.health.or(artifact.health) };
        guard.check()?;
        Ok(guard)
    }

    /// Refuses a health check that could never succeed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<()> {
        self.health.as_ref().map_or(Ok(()), Health::check).context("invalid health check")
    }

    /// Stops units before an activation or a rollback.
    ///
    /// # Errors
    /// When a unit does not stop.
    pub(crate) fn before(&self) -> Result<()> {
        self.units.as_ref().map_or(Ok(()), Units::before)
    }

    /// Reloads, restarts and starts units after it. The result of each of the three is known only when the iterator
    /// reaches it.
    pub(crate) fn after(&self) -> impl Iterator<Item = Result<()>> {
        self.units.iter().flat_map(Units::after)
    }

    /// Waits until the device is healthy.
    ///
    /// # Errors
    /// When it is not within the limit: what was checked last, and the result.
    pub(crate) fn check_health(&self) -> Result<()> {
        let Some(health) = &self.health else { return Ok(()) };
        health.wait().context("health check failed")?;
        log!("health check passed");
        Ok(())
    }

    /// As [`check_health`](Self::check_health), for a report only: after a rollback there is no other version to
    /// activate.
    pub(crate) fn report(&self) {
        if let Err(error) = self.check_health() {
            log!("with the previous version active: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::test_support::{log_of, systemctl_calls};

    #[test]
    fn tables_come_from_meta_data_and_other_keys_do_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("header")).unwrap();
        let meta_data = |text: &str| fs::write(directory.path().join("header/meta-data"), text).unwrap();
        let tree = WorkTree::new(directory.path());
        meta_data("null");
        assert_eq!(Guard::of("no-such-module", &tree).unwrap(), Guard::default());
        meta_data(r#"{"dest_dir": "/x", "units": {"stop": ["a.service"]}, "health": {"tcp": "127.0.0.1:1"}}"#);
        let guard = Guard::of("no-such-module", &tree).unwrap();
        assert!(guard.units.is_some() && guard.health.is_some());
        // The journal has the tables.
        let recorded = serde_json::to_string(&guard).unwrap();
        assert_eq!(serde_json::from_str::<Guard>(&recorded).unwrap(), guard, "{recorded}");
        for bad in [
            r#"{"units": {"halt": []}}"#,
            r#"{"units": {"stop": ["-H root@host"]}}"#,
            r#"{"health": {}}"#,
            r#"{"health": {"command": []}}"#,
            r#"{"health": {"url": "https://example.org/"}}"#,
            r#"{"health": {"tcp": "somewhere"}}"#,
            r#"{"health": {"tcp": "127.0.0.1:1", "limit_seconds": 2, "stable_seconds": 3}}"#,
            r#"{"health": {"tcp": "127.0.0.1:1", "limit_seconds": 3, "stable_seconds": 3}}"#,
        ] {
            meta_data(bad);
            assert!(Guard::of("no-such-module", &tree).is_err(), "{bad} was taken");
        }
    }

    fn guard(json: &str) -> Guard {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn units_are_stopped_before_and_reloaded_restarted_and_started_after() {
        let Some((calls, _)) =
            systemctl_calls("guard::tests::units_are_stopped_before_and_reloaded_restarted_and_started_after", || {
                let lists = r#""stop": ["a"], "reload": ["b@1.service", "c"], "restart": ["d"], "start": ["e"]"#;
                let all = guard(&format!(r#"{{"units": {{{lists}}}}}"#));
                all.before().unwrap();
                let results: Vec<_> = all.after().collect();
                assert!(results.len() == 3 && results.iter().all(Result::is_ok));
                let bad = guard(r#"{"units": {"stop": ["bad.service"], "restart": ["good", "bad.service"]}}"#);
                let failed: Vec<_> = [bad.before()].into_iter().chain(bad.after()).filter_map(Result::err).collect();
                assert_eq!(failed.len(), 2);
                for error in failed {
                    let error = format!("{error:#}");
                    assert!(error.contains("bad.service") && error.contains("systemctl status"), "{error}");
                }
                Guard::default().before().unwrap();
                assert_eq!(Guard::default().after().count(), 0);
            })
        else {
            return;
        };
        let expected =
            ["stop a", "reload b@1.service c", "restart d", "start e", "stop bad.service", "restart good bad.service"];
        assert_eq!(calls, expected.map(|call| format!("--no-ask-password --quiet {call}")));
    }

    #[test]
    fn the_health_after_a_rollback_is_reported_only() {
        let Some(log) = log_of(
            "guard::tests::the_health_after_a_rollback_is_reported_only",
            |_| {},
            || {
                Guard::default().report();
                for (command, is_healthy) in [("true", true), ("false", false)] {
                    let health = format!(r#"{{"command": ["{command}"], "limit_seconds": 0, "stable_seconds": 0}}"#);
                    let guard = guard(&format!(r#"{{"health": {health}}}"#));
                    assert_eq!(guard.check_health().is_ok(), is_healthy);
                    guard.report();
                }
            },
        ) else {
            return;
        };
        assert_eq!(log.matches("health check passed\n").count(), 2, "{log}");
        assert_eq!(log.matches("with the previous version active: health check failed").count(), 1, "{log}");
    }
}
