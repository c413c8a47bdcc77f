//! The states and answers of the protocol.

use std::str::FromStr;

/// A state in which the client calls a module.
///
/// ```
/// use mender_update_module::State;
///
/// assert_eq!("Download".parse::<State>().ok(), Some(State::Download));
/// assert!("ArtifactTeleport".parse::<State>().is_err(), "a module ignores unknown states");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Query: may the client call `DownloadWithFileSizes`?
    ProvidePayloadFileSizes,
    /// The payload streams in. Nothing may become active: the client has not verified the checksum yet.
    Download,
    /// As `Download`, with the size of every file known in advance.
    DownloadWithFileSizes,
    /// Activate the new version.
    ArtifactInstall,
    /// Query: does the new version, or after a rollback the previous one, need a reboot?
    NeedsArtifactReboot,
    /// The module reboots the device.
    ArtifactReboot,
    /// After the reboot: does the new version run?
    ArtifactVerifyReboot,
    /// Make the new version permanent. A rollback may still follow.
    ArtifactCommit,
    /// Query: can the module roll back?
    SupportsRollback,
    /// Activate the previous version, from any point of an interrupted install.
    ArtifactRollback,
    /// The module reboots the device into the previous version.
    ArtifactRollbackReboot,
    /// After the reboot: does the previous version run?
    ArtifactVerifyRollbackReboot,
    /// The update has failed.
    ArtifactFailure,
    /// The last call: remove the previous version and staged files.
    Cleanup,
}

impl State {
    /// Whether the state is a query.
    pub(crate) fn is_query(self) -> bool {
        matches!(self, Self::ProvidePayloadFileSizes | Self::NeedsArtifactReboot | Self::SupportsRollback)
    }
}

/// The error for an unknown state, for example of a newer client. A module ignores such a state.
#[derive(Debug)]
pub struct UnknownState;

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<Self, UnknownState> {
        Ok(match word {
            "ProvidePayloadFileSizes" => State::ProvidePayloadFileSizes,
            "Download" => State::Download,
            "DownloadWithFileSizes" => State::DownloadWithFileSizes,
            "ArtifactInstall" => State::ArtifactInstall,
            "NeedsArtifactReboot" => State::NeedsArtifactReboot,
            "ArtifactReboot" => State::ArtifactReboot,
            "ArtifactVerifyReboot" => State::ArtifactVerifyReboot,
            "ArtifactCommit" => State::ArtifactCommit,
            "SupportsRollback" => State::SupportsRollback,
            "ArtifactRollback" => State::ArtifactRollback,
            "ArtifactRollbackReboot" => State::ArtifactRollbackReboot,
            "ArtifactVerifyRollbackReboot" => State::ArtifactVerifyRollbackReboot,
            "ArtifactFailure" => State::ArtifactFailure,
            "Cleanup" => State::Cleanup,
            _ => return Err(UnknownState),
        })
    }
}

/// The answer to `NeedsArtifactReboot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NeedsReboot {
    /// No reboot is needed.
    No,
    /// The module reboots the device, in `ArtifactReboot`.
    Yes,
    /// The client reboots the device.
    Automatic,
}

impl NeedsReboot {
    pub(crate) fn word(self) -> &'static str {
        match self {
            NeedsReboot::No => "No",
            NeedsReboot::Yes => "Yes",
            NeedsReboot::Automatic => "Automatic",
        }
    }
}
