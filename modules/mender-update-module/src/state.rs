//! The words of the protocol: states and answers.

use std::str::FromStr;

/// A state that the client calls a module in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Query: may the client call `DownloadWithFileSizes`?
    ProvidePayloadFileSizes,
    /// The payload streams in; nothing may become active, for its checksum is not known yet.
    Download,
    /// As `Download`, with the size of every file known in advance.
    DownloadWithFileSizes,
    /// Activate the new version.
    ArtifactInstall,
    /// Query: does the new version, or after a rollback the previous one, need a reboot?
    NeedsArtifactReboot,
    /// Reboot in the module's own way.
    ArtifactReboot,
    /// After the reboot: does the new version run?
    ArtifactVerifyReboot,
    /// Make the new version permanent; may still be followed by a rollback.
    ArtifactCommit,
    /// Query: can the module roll back?
    SupportsRollback,
    /// Activate the previous version, from any point that install had reached.
    ArtifactRollback,
    /// Reboot into the previous version in the module's own way.
    ArtifactRollbackReboot,
    /// After that reboot: does the previous version run?
    ArtifactVerifyRollbackReboot,
    /// The update has failed.
    ArtifactFailure,
    /// The last call: remove the previous version and what was staged.
    Cleanup,
}

impl State {
    /// Whether the client only asks something.
    pub(crate) fn is_query(self) -> bool {
        matches!(self, Self::ProvidePayloadFileSizes | Self::NeedsArtifactReboot | Self::SupportsRollback)
    }
}

/// A word that names no state of this protocol; a newer client may know it, a module ignores it.
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
pub enum NeedsReboot {
    /// The change is live as it is.
    No,
    /// The module reboots the device itself, in `ArtifactReboot`.
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
