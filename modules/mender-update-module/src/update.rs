//! The trait of an update in a transaction.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::NeedsReboot;

/// The cause of a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// A call of the client, or a failed activation. Services are running, and units are stopped and started around it.
    Call,
    /// The recovery at boot. Services are not running yet; systemd starts units later, and waits for the recovery.
    Boot,
}

/// One update. The journal stores it, and after a power loss another process continues with it: it contains
/// everything that the later states need.
///
/// The journal stores the update and [`Prepared`](Self::Prepared) in one JSON object. Both are structs with named
/// fields, and no field has the same name in both.
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
///         let previous = self.destination.open_as_found()?;
///         Ok(Prepared { previous_inode: previous.map(|directory| directory.inode()).transpose()? })
///     }
///
///     fn activate(&self, _prepared: &Prepared) -> anyhow::Result<()> {
///         // Rename the staged files into the destination, and keep the previous ones.
///         Ok(())
///     }
///
///     fn roll_back(&self, _prepared: &Prepared, _trigger: Trigger) -> anyhow::Result<()> {
///         // From any point of `activate`: rename the previous files into the destination.
///         Ok(())
///     }
///
///     fn discard(&self, _prepared: Option<&Prepared>) -> anyhow::Result<()> {
///         self.staging.remove()
///     }
/// }
/// ```
pub trait Update: Serialize + DeserializeOwned {
    /// The result of [`prepare`](Self::prepare), for activation and rollback.
    type Prepared: Serialize + DeserializeOwned;

    /// Makes the staging directories, and records their identities. The journal is written again before they are used.
    /// Default: makes none.
    ///
    /// # Errors
    /// Fail the download.
    fn make_staging(&mut self) -> Result<()> {
        Ok(())
    }

    /// Prepares the activation, and refuses one that would fail. Changes nothing that is active.
    ///
    /// # Errors
    /// Fail the install before anything changes.
    fn prepare(&mut self) -> Result<Self::Prepared>;

    /// Makes missing directories of the destination, and records their identities. Returns whether it made any: then
    /// the journal is written again before they are used. Default: makes none.
    ///
    /// # Errors
    /// Are followed by [`roll_back`](Self::roll_back).
    fn make_destination(&mut self, _prepared: &Self::Prepared) -> Result<bool> {
        Ok(false)
    }

    /// Activates the new version and keeps the previous one, durably. It is called once: an interrupted activation is
    /// rolled back, not continued.
    ///
    /// # Errors
    /// Are followed by [`roll_back`](Self::roll_back).
    fn activate(&self, prepared: &Self::Prepared) -> Result<()>;

    /// Activates the previous version, durably, from any point of an interrupted [`activate`](Self::activate) or
    /// rollback.
    ///
    /// # Errors
    /// Fail the rollback; it may be called again.
    fn roll_back(&self, prepared: &Self::Prepared, trigger: Trigger) -> Result<()>;

    /// Removes the staged or kept files. After an interruption, it is called again and continues.
    ///
    /// # Errors
    /// Are logged; the next update calls it again.
    fn discard(&self, prepared: Option<&Self::Prepared>) -> Result<()>;

    /// As [`discard`](Self::discard), after a later update was staged: an update whose `discard` also restores
    /// something must not do that any more. Default: `discard`.
    ///
    /// # Errors
    /// Are logged; the next update calls it again.
    fn discard_late(&self, prepared: Option<&Self::Prepared>) -> Result<()> {
        self.discard(prepared)
    }

    /// Whether [`discard`](Self::discard) is possible at boot, before services run. It is called for an interrupted
    /// download, which no client resumes, and for an ended update. An update that needs a service removes what it can
    /// and returns `false`; the next call of the client discards the rest. Default: `true`.
    ///
    /// # Errors
    /// Fail the recovery at boot.
    fn discard_at_boot(&self) -> Result<bool> {
        Ok(true)
    }

    /// Whether the active version needs a reboot. It is called after the activation, and again after a rollback.
    /// Default: no.
    fn needs_reboot(&self, _prepared: &Self::Prepared) -> Result<NeedsReboot> {
        Ok(NeedsReboot::No)
    }

    /// The directory of the previous version, for messages. Default: none.
    fn kept_in(&self) -> Option<PathBuf> {
        None
    }

    /// Whether this update must not begin, because the update `unrestored`, which could not be rolled back, has the
    /// same destination. Default: `true`.
    fn conflicts_with(&self, _unrestored: &Self) -> bool {
        true
    }

    /// Called at the end of `Cleanup`, after the journal is removed. Default: does nothing.
    fn ended(&self, _prepared: Option<&Self::Prepared>) {}
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;

    use super::*;

    /// An update that makes the file of its path when it is discarded.
    #[derive(Serialize, Deserialize)]
    struct Plain(PathBuf);

    impl Update for Plain {
        type Prepared = ();

        fn prepare(&mut self) -> Result<()> {
            Ok(())
        }

        fn activate(&self, (): &()) -> Result<()> {
            Ok(())
        }

        fn roll_back(&self, (): &(), _: Trigger) -> Result<()> {
            Ok(())
        }

        fn discard(&self, _: Option<&()>) -> Result<()> {
            Ok(fs::write(&self.0, "")?)
        }
    }

    #[test]
    fn an_update_needs_nothing_but_its_own_steps() {
        let directory = tempfile::tempdir().unwrap();
        let mut update = Plain(directory.path().join("discarded"));
        update.make_staging().unwrap();
        assert!(!update.make_destination(&()).unwrap(), "it made none");
        assert!(update.discard_at_boot().unwrap());
        assert_eq!((update.needs_reboot(&()).unwrap(), update.kept_in()), (NeedsReboot::No, None));
        assert!(update.conflicts_with(&update), "one that could not be rolled back blocks it");
        assert!(!update.0.exists());
        update.discard_late(None).unwrap();
        assert!(update.0.exists());
    }
}
