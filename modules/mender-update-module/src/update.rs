//! What a module says about one update, for the library to do it as a transaction.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::NeedsReboot;

/// What makes a rollback begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// A call of the client, or a failed activation: services run, and units around the rollback are stopped and started.
    Call,
    /// The recovery at boot: nothing of the new version runs, nothing can be waited for, and systemd starts units later.
    Boot,
}

/// One update, with everything that it needs to know of itself: it is in the journal, because the process that goes on after a
/// power loss has nothing else.
///
/// The journal holds the update and [`Prepared`](Self::Prepared) as one JSON object. Both are structs with named fields, and
/// no field has the same name in both.
///
/// ```
/// use std::path::PathBuf;
///
/// use mender_update_module::durable::{Destination, Staging};
/// use mender_update_module::{Trigger, Update};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Website {
///     destination: Destination,
///     staging: Staging,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Prepared {
///     previous_inode: Option<u64>,
/// }
///
/// impl Update for Website {
///     type Prepared = Prepared;
///
///     fn make_staging(&mut self) -> anyhow::Result<()> {
///         self.staging.create(&["new"])
///     }
///
///     fn prepare(&mut self) -> anyhow::Result<Prepared> {
///         let previous = self.destination.open()?;
///         Ok(Prepared { previous_inode: previous.map(|directory| directory.inode()).transpose()? })
///     }
///
///     fn activate(&self, _prepared: &Prepared) -> anyhow::Result<()> {
///         // Move what is staged into the destination, and keep what was there.
///         Ok(())
///     }
///
///     fn roll_back(&self, _prepared: &Prepared, _trigger: Trigger) -> anyhow::Result<()> {
///         // From any point of `activate`: what was kept is in the destination again.
///         Ok(())
///     }
///
///     fn discard(&self, _prepared: Option<&Prepared>) -> anyhow::Result<()> {
///         self.staging.remove()
///     }
/// }
/// ```
pub trait Update: Serialize + DeserializeOwned {
    /// What [`prepare`](Self::prepare) finds out, and the activation and a rollback go by.
    type Prepared: Serialize + DeserializeOwned;

    /// Makes the directories that the payload is staged in, and records what tells them from others that could take their
    /// names: the journal is written again before anything is put into them. Default: makes none.
    ///
    /// # Errors
    /// Fail the download.
    fn make_staging(&mut self) -> Result<()> {
        Ok(())
    }

    /// Finds out what the activation will do, and refuses what it could not do. Changes nothing that is active.
    ///
    /// # Errors
    /// Fail the install before anything is changed.
    fn prepare(&mut self) -> Result<Self::Prepared>;

    /// Makes the directories that the destination needs and that are missing, and records what they are. Returns whether that
    /// was anything, for the journal to be written again before they are used. Default: makes none.
    ///
    /// # Errors
    /// Are followed by [`roll_back`](Self::roll_back).
    fn make_destination(&mut self, _prepared: &Self::Prepared) -> Result<bool> {
        Ok(false)
    }

    /// Activates the new version and keeps the previous one, durably. Called once: an activation that was interrupted is rolled
    /// back.
    ///
    /// # Errors
    /// Are followed by [`roll_back`](Self::roll_back).
    fn activate(&self, prepared: &Self::Prepared) -> Result<()>;

    /// Activates the previous version again, durably, from any point that [`activate`](Self::activate) or itself had reached.
    ///
    /// # Errors
    /// Fail the rollback; it may be tried again.
    fn roll_back(&self, prepared: &Self::Prepared, trigger: Trigger) -> Result<()>;

    /// Removes what is staged or kept. Called again, it goes on where it was interrupted.
    ///
    /// # Errors
    /// Leave the rest for the next update to remove.
    fn discard(&self, prepared: Option<&Self::Prepared>) -> Result<()>;

    /// Called at boot, before [`discard`](Self::discard) of an interrupted download, which no client resumes, or of an update
    /// that has ended: whether that can be done now. An update that needs a service for it, which does not run yet, removes what
    /// it can, and leaves the rest for the next call of the client. Default: it can.
    ///
    /// # Errors
    /// Fail the recovery at boot; it may be tried again.
    fn discard_at_boot(&self) -> Result<bool> {
        Ok(true)
    }

    /// Whether the device has to be rebooted for the active version to be in use. Asked after the activation, and again after a
    /// rollback. Default: no.
    ///
    /// # Errors
    /// As those of [`UpdateModule::needs_artifact_reboot`](crate::UpdateModule::needs_artifact_reboot).
    fn needs_reboot(&self, _prepared: &Self::Prepared) -> Result<NeedsReboot> {
        Ok(NeedsReboot::No)
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

    /// Called at the very end, in `Cleanup`: the journal is gone, and whoever calls has nothing more to do. Default: does
    /// nothing.
    fn ended(&self, _prepared: Option<&Self::Prepared>) {}
}
