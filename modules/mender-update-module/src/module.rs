//! The trait of an Update Module: one method for each state.

use std::path::Path;

use anyhow::Result;

use crate::payloads::Payloads;
use crate::settings;
use crate::state::NeedsReboot;
use crate::status::Pending;
use crate::tree::WorkTree;

/// An Update Module: one method for each state of the protocol, with the protocol's default.
///
/// Every method but the queries may be called again, after it has succeeded or after a power loss has interrupted it.
/// An `Err` fails the state, and its chain is written to the deployment log.
///
/// ```
/// use mender_update_module::{Payloads, UpdateModule, WorkTree};
///
/// struct Discard;
///
/// impl UpdateModule for Discard {
///     const NAME: &'static str = "discard";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn download(&self, _tree: &WorkTree, payloads: Payloads) -> anyhow::Result<()> {
///         for payload in payloads {
///             std::io::copy(&mut payload?, &mut std::io::sink())?;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait UpdateModule {
    /// The payload type: also the name of the executable, of the settings file and of the journal directory.
    const NAME: &'static str;

    /// The version that `MODULE --version` prints: `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;

    /// Whether the tables `units` and `health` of the settings apply. Otherwise a settings file with one of them is
    /// refused.
    const GUARDED: bool = false;

    /// Whether the client may announce the size of every file before the download. Default: no.
    ///
    /// # Errors
    /// Fail the download.
    fn provides_payload_file_sizes(&self, _tree: &WorkTree) -> Result<bool> {
        Ok(false)
    }

    /// Reads the payload stream. Default: the client writes the payload to `files/`.
    ///
    /// # Errors
    /// Fail the download; [`cleanup`](Self::cleanup) follows.
    fn download(&self, _tree: &WorkTree, _payloads: Payloads) -> Result<()> {
        Ok(())
    }

    /// Activates the new version. Default: does nothing.
    ///
    /// # Errors
    /// Start the rollback states.
    fn artifact_install(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Whether the update needs a reboot. Default: no.
    ///
    /// # Errors
    /// Start the rollback states.
    fn needs_artifact_reboot(&self, _tree: &WorkTree) -> Result<NeedsReboot> {
        Ok(NeedsReboot::No)
    }

    /// Reboots the device, for a module that answered [`NeedsReboot::Yes`]. Default: does nothing.
    ///
    /// # Errors
    /// Start the rollback states.
    fn artifact_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Checks after the reboot that the new version runs. Default: it does.
    ///
    /// # Errors
    /// Start the rollback states.
    fn artifact_verify_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Makes the new version permanent. A rollback must still be possible after this call: after a power loss here,
    /// the client rolls back, although the commit may have completed. Default: does nothing.
    ///
    /// # Errors
    /// Start the rollback states.
    fn artifact_commit(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Whether the module can roll back. Default: no.
    ///
    /// # Errors
    /// Leave the device inconsistent.
    fn supports_rollback(&self, _tree: &WorkTree) -> Result<bool> {
        Ok(false)
    }

    /// Activates the previous version, from any point of an interrupted install, also if it never began. Default:
    /// does nothing.
    ///
    /// # Errors
    /// Leave the device inconsistent.
    fn artifact_rollback(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Reboots into the previous version, for a module that answered [`NeedsReboot::Yes`]. Default: does nothing.
    ///
    /// # Errors
    /// Are ignored by the client, which calls
    /// [`artifact_verify_rollback_reboot`](Self::artifact_verify_rollback_reboot).
    fn artifact_rollback_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Checks after the reboot that the previous version runs. Default: it does.
    ///
    /// # Errors
    /// Make the client reboot again.
    fn artifact_verify_rollback_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Called when the update has failed. Default: does nothing.
    ///
    /// # Errors
    /// Are logged only: the update has failed already.
    fn artifact_failure(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Removes everything that the update no longer needs. `tree` may be incomplete. Default: does nothing.
    ///
    /// # Errors
    /// Make the server show a failed deployment, even after a commit: fail only when something is wrong.
    fn cleanup(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Checks a settings file, for `MODULE --check-settings`. Default: the file may have the common keys only.
    ///
    /// # Errors
    /// When the file is invalid.
    fn check_settings(&self, file: &Path) -> Result<()> {
        settings::check::<settings::NoSettings>(file).map(drop)
    }

    /// The pending update, for `MODULE --status`. Default: none.
    fn pending(&self, _tree: &WorkTree) -> Result<Option<Pending>> {
        Ok(None)
    }

    /// Called as `MODULE --recover` at boot, before the client starts: rolls back an update that a power loss
    /// interrupted. Default: does nothing.
    ///
    /// # Errors
    /// Make the unit of the recovery at boot fail.
    fn recover(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;

    impl UpdateModule for Plain {
        const NAME: &'static str = "plain";
        const VERSION: &'static str = "1.0.0";
    }

    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let directory = tempfile::tempdir().unwrap();
        let tree = WorkTree::new(directory.path());
        assert!(!Plain.provides_payload_file_sizes(&tree).unwrap());
        assert_eq!(Plain.needs_artifact_reboot(&tree).unwrap(), NeedsReboot::No);
        assert!(!Plain.supports_rollback(&tree).unwrap());
        assert!(Plain.pending(&tree).unwrap().is_none());
    }

    #[test]
    fn the_settings_may_have_the_common_keys_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plain.toml");
        for (content, is_valid) in [("datastore = \"/data\"\n", true), ("own = 1\n", false)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(Plain.check_settings(&path).is_ok(), is_valid, "{content}");
        }
    }
}
