//! What a module says about one change, for the library to do it as a [`Transaction`](crate::Transaction).

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::NeedsReboot;

/// What is special to a payload: everything a change needs to know of itself is in its record, because the process
/// that goes on after a power cut has nothing else.
pub trait Change: Serialize + DeserializeOwned {
    /// Completes the record with what the switch will do, and refuses what it could not do. Touches nothing live.
    ///
    /// # Errors
    /// Fail the install before anything is touched.
    fn prepare(&mut self) -> Result<()>;

    /// Makes the directories that the payload is staged in, and records what tells them from others that could take their
    /// names: the journal is written again before anything is put into them. Default: makes none.
    ///
    /// # Errors
    /// Fail the download.
    fn make_staging(&mut self) -> Result<()> {
        Ok(())
    }

    /// Makes the directories that the destination needs and that are missing, and records what they are; whether that was
    /// anything, for the journal to be written again before they are used. Default: makes none.
    ///
    /// # Errors
    /// Are followed by [`switch_back`](Self::switch_back).
    fn make_destination(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// The directory that the previous version is kept in, for the message that says what to do when it cannot be restored.
    /// Default: none.
    fn kept_in(&self) -> Option<PathBuf> {
        None
    }

    /// Whether an update that could not be rolled back keeps this one from beginning: both change the same things. Default:
    /// they do.
    fn conflicts_with(&self, _unrestored: &Self) -> bool {
        true
    }

    /// Makes the new live and keeps the old, durably. Called once: a switch that was cut is switched back.
    ///
    /// # Errors
    /// Are followed by [`switch_back`](Self::switch_back).
    fn switch(&self) -> Result<()>;

    /// Makes the old live, durably, from any prefix of [`switch`](Self::switch) or of itself.
    ///
    /// # Errors
    /// Fail the rollback; it may be tried again.
    fn switch_back(&self) -> Result<()>;

    /// As [`switch_back`](Self::switch_back), at boot: nothing of the new runs, and nothing can be waited for. Default:
    /// the same.
    ///
    /// # Errors
    /// Fail the boot's recovery; it may be tried again.
    fn switch_back_at_boot(&self) -> Result<()> {
        self.switch_back()
    }

    /// Called at a boot, before [`forget`](Self::forget) of an interrupted download, which no client resumes, or of a change
    /// that has ended: whether that can be done now. A change that needs a service for it, which does not run yet, removes here
    /// what it can, and leaves the rest for the next call of the client. Default: it can.
    ///
    /// # Errors
    /// Fail the boot's recovery; it may be tried again.
    fn discard_at_boot(&self) -> Result<bool> {
        Ok(true)
    }

    /// Removes what is staged or kept; called again, it goes on from wherever it was cut.
    ///
    /// # Errors
    /// Leave the rest for the next update to remove.
    fn forget(&self) -> Result<()>;

    /// Does the device have to be rebooted for what is live to be in use? Asked after the switch, and again when it has
    /// been switched back. Default: no.
    ///
    /// # Errors
    /// Start the rollback chain, as those of [`UpdateModule::needs_artifact_reboot`](crate::UpdateModule::needs_artifact_reboot).
    fn needs_reboot(&self) -> Result<NeedsReboot> {
        Ok(NeedsReboot::No)
    }

    /// The client's last word: the update has ended in `Cleanup`, the journal is gone, and whoever calls has nothing
    /// more to do. Default: does nothing.
    fn ended(&self) {}
}
