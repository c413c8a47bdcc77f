//! What an author of a module writes: one method per state.

use anyhow::Result;

use crate::payloads::Payloads;
use crate::state::NeedsReboot;
use crate::tree::WorkTree;

/// An Update Module: one method per state of the protocol, each with the default that the protocol gives it.
///
/// Every method but the queries may be called again after it has succeeded, or after it was cut short by a
/// power loss, and has to cope. An `Err` fails the state; its whole chain is written to the deployment log.
pub trait UpdateModule {
    /// The payload type, which is the executable's name, the settings file's and the journal folder's.
    const NAME: &'static str;

    /// May the client tell the size of every file before the download? Default: no.
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

    /// Makes the new live. Default: does nothing.
    ///
    /// # Errors
    /// Start the rollback chain.
    fn artifact_install(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Does the change need a reboot? Default: no.
    ///
    /// # Errors
    /// Start the rollback chain.
    fn needs_artifact_reboot(&self, _tree: &WorkTree) -> Result<NeedsReboot> {
        Ok(NeedsReboot::No)
    }

    /// Reboots the device, for a module that answered [`NeedsReboot::Yes`]. Default: does nothing.
    ///
    /// # Errors
    /// Start the rollback chain.
    fn artifact_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Checks after the reboot that the new is running. Default: it is.
    ///
    /// # Errors
    /// Start the rollback chain.
    fn artifact_verify_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Makes the new permanent. What undoes it must outlive this call: when power fails here, the client rolls
    /// back although the commit may have completed. Default: does nothing.
    ///
    /// # Errors
    /// Start the rollback chain.
    fn artifact_commit(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Can the module go back? Default: no.
    ///
    /// # Errors
    /// Leave the device inconsistent.
    fn supports_rollback(&self, _tree: &WorkTree) -> Result<bool> {
        Ok(false)
    }

    /// Brings the old back, from any prefix of install, an empty one included. Default: does nothing.
    ///
    /// # Errors
    /// Leave the device inconsistent.
    fn artifact_rollback(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Reboots into the old, for a module that answered [`NeedsReboot::Yes`]. Default: does nothing.
    ///
    /// # Errors
    /// Make the client ask [`artifact_verify_rollback_reboot`](Self::artifact_verify_rollback_reboot) all the same.
    fn artifact_rollback_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Checks after that reboot that the old is running. Default: it is.
    ///
    /// # Errors
    /// Make the client reboot again.
    fn artifact_verify_rollback_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// Hears that the update has failed. Default: does nothing.
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

    /// Called as `MODULE --recover` at boot, before the client starts: brings a change that power cut short
    /// back to the old. Default: does nothing.
    ///
    /// # Errors
    /// Make the boot's recovery unit fail.
    fn recover(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }
}
