//! The trait of an Update Module: one method for each state.

use anyhow::Result;

use crate::payloads::Payloads;
use crate::state::NeedsReboot;
use crate::tree::WorkTree;

/// An Update Module: one method for each state of the protocol, each with the default that the protocol gives it.
///
/// Every method but the queries may be called again after it has succeeded, or after a power loss has interrupted it. An `Err`
/// fails the state; its whole chain is written to the deployment log.
pub trait UpdateModule {
    /// The payload type, which is the executable's name, the settings file's and the journal directory's.
    const NAME: &'static str;

    /// Whether the client may announce the size of every file before the download. Default: no.
    ///
    /// # Errors
    /// Fail the download.
    fn provides_payload_file_sizes(&self, _tree: &WorkTree) -> Result<bool> {
        Ok(false)
    }

    /// Takes the payload while it streams in. Default: leaves it to the client, which fills `files/`.
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

    /// Makes the new version permanent. What a rollback needs must outlive this call: when power fails here, the client rolls
    /// back although the commit may have completed. Default: does nothing.
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

    /// Activates the previous version, from any point that install had reached, none included. Default: does nothing.
    ///
    /// # Errors
    /// Leave the device inconsistent.
    fn artifact_rollback(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Reboots into the previous version, for a module that answered [`NeedsReboot::Yes`]. Default: does nothing.
    ///
    /// # Errors
    /// Make the client ask [`artifact_verify_rollback_reboot`](Self::artifact_verify_rollback_reboot) nevertheless.
    fn artifact_rollback_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Checks after that reboot that the previous version runs. Default: it does.
    ///
    /// # Errors
    /// Make the client reboot again.
    fn artifact_verify_rollback_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Called when the update has failed. Default: does nothing.
    ///
    /// # Errors
    /// Are shown; the failure stays what it was.
    fn artifact_failure(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Removes what the update no longer needs, on whatever is there of `tree`. Default: does nothing.
    ///
    /// # Errors
    /// Make the server show a failed deployment, even after a commit: fail only when something is wrong.
    fn cleanup(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Called as `MODULE --recover` at boot, before the client starts: rolls back an update that a power loss interrupted.
    /// Default: does nothing.
    ///
    /// # Errors
    /// Make the unit of the recovery at boot fail.
    fn recover(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }
}
