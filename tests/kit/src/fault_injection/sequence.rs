//! What the client calls around an interruption: the power-loss table of the protocol, as data.

use crate::Generation;

/// The version that is active at the end of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Exactly the previous version.
    Previous,
    /// Exactly the new version, except for the modification times of what the update made.
    New,
}

/// The version that has to be active at the end of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This one.
    Only(End),
    /// The version that was active after the boot; a commit succeeds only if it is the new one.
    AsAfterBoot,
}

impl Expected {
    /// Whether `end` is allowed.
    pub fn allows(self, end: End) -> bool {
        self == Self::Only(end) || self == Self::AsAfterBoot
    }
}

/// The recovery at boot. What is active after it is compared before the client's next call.
pub const BOOT: &str = "--recover";

/// A step in place of a state, after a boot: the client commits, and rolls back if the commit fails. The commit has to
/// succeed if the new version was active after the boot, and to fail if the previous one was.
pub const COMMIT_OR_ROLL_BACK: &str = "ArtifactCommit, else ArtifactRollback";

const PREVIOUS: Expected = Expected::Only(End::Previous);
const NEW: Expected = Expected::Only(End::New);

/// A state that is interrupted, and the calls before and after it.
pub struct Sequence {
    /// The name in reports.
    pub name: &'static str,
    /// The client whose work tree the module sees.
    pub client: Generation,
    /// The states before, without a fault.
    pub before: &'static [&'static str],
    /// The state that is interrupted.
    pub interrupted: &'static str,
    /// What the client calls after a power loss in the state, and the version that has to be active then.
    pub after_power_loss: (&'static [&'static str], Expected),
    /// What it calls after the state has failed.
    pub after_failure: (&'static [&'static str], Expected),
    /// What it calls after the state has succeeded, also in spite of a failing system call.
    pub after_success: (&'static [&'static str], Expected),
}

const ROLL_BACK: &[&str] = &["ArtifactRollback", "ArtifactFailure", "Cleanup"];
const RECOVER: &[&str] = &[BOOT, "ArtifactRollback", "ArtifactFailure", "Cleanup"];
const FAIL: &[&str] = &["ArtifactFailure", "Cleanup"];
const CLEAN_UP: &[&str] = &["Cleanup"];
const INSTALL: &[&str] = &["ArtifactInstall", "ArtifactCommit", "Cleanup"];
const UPDATE: &[&str] = &["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"];
const DOWNLOAD: &[&str] = &["Download", "Cleanup"];
const COMMIT: &[&str] = &["ArtifactCommit", "Cleanup"];

/// Every row of the power-loss table, for client 5, and for client 3.4 where it differs; and the recovery at boot.
pub const SEQUENCES: &[Sequence] = &[
    Sequence {
        name: "Download",
        client: Generation::V5,
        before: &[],
        interrupted: "Download",
        after_power_loss: (CLEAN_UP, PREVIOUS),
        after_failure: (CLEAN_UP, PREVIOUS),
        after_success: (INSTALL, NEW),
    },
    Sequence {
        name: "Download, then another update (3.4)",
        client: Generation::V3,
        before: &[],
        interrupted: "Download",
        after_power_loss: (UPDATE, NEW),
        after_failure: (UPDATE, NEW),
        after_success: (INSTALL, NEW),
    },
    Sequence {
        name: "Download, then a boot",
        client: Generation::V3,
        before: &[],
        interrupted: "Download",
        after_power_loss: (&[BOOT, "Cleanup"], PREVIOUS),
        after_failure: (&[BOOT, "Cleanup"], PREVIOUS),
        after_success: (&[BOOT, "ArtifactInstall", "ArtifactCommit", "Cleanup"], NEW),
    },
    Sequence {
        name: "ArtifactInstall",
        client: Generation::V5,
        before: &["Download"],
        interrupted: "ArtifactInstall",
        after_power_loss: (ROLL_BACK, PREVIOUS),
        after_failure: (ROLL_BACK, PREVIOUS),
        after_success: (COMMIT, NEW),
    },
    Sequence {
        name: "ArtifactInstall, then a boot",
        client: Generation::V5,
        before: &["Download"],
        interrupted: "ArtifactInstall",
        after_power_loss: (RECOVER, PREVIOUS),
        after_failure: (RECOVER, PREVIOUS),
        after_success: (&[BOOT, "ArtifactCommit", "Cleanup"], NEW),
    },
    Sequence {
        name: "ArtifactInstall, then a boot and a commit",
        client: Generation::V3,
        before: &["Download"],
        interrupted: "ArtifactInstall",
        after_power_loss: (&[BOOT, COMMIT_OR_ROLL_BACK, "Cleanup"], Expected::AsAfterBoot),
        after_failure: (RECOVER, PREVIOUS),
        after_success: (&[BOOT, COMMIT_OR_ROLL_BACK, "Cleanup"], NEW),
    },
    Sequence {
        name: "boot between ArtifactInstall and ArtifactCommit",
        client: Generation::V5,
        before: &["Download", "ArtifactInstall"],
        interrupted: BOOT,
        after_power_loss: (&[BOOT, "ArtifactCommit", "Cleanup"], NEW),
        after_failure: (&[BOOT, "ArtifactCommit", "Cleanup"], NEW),
        after_success: (COMMIT, NEW),
    },
    Sequence {
        name: "boot between ArtifactCommit and Cleanup",
        client: Generation::V5,
        before: &["Download", "ArtifactInstall", "ArtifactCommit"],
        interrupted: BOOT,
        after_power_loss: (&[BOOT, "Cleanup"], NEW),
        after_failure: (&[BOOT, "Cleanup"], NEW),
        after_success: (CLEAN_UP, NEW),
    },
    Sequence {
        name: "Download after ArtifactCommit without Cleanup",
        client: Generation::V3,
        before: &["Download", "ArtifactInstall", "ArtifactCommit"],
        interrupted: "Download",
        after_power_loss: (&[BOOT, "Cleanup"], NEW),
        after_failure: (CLEAN_UP, NEW),
        after_success: (INSTALL, NEW),
    },
    Sequence {
        name: "ArtifactInstall, then another update (3.4)",
        client: Generation::V3,
        before: &["Download"],
        interrupted: "ArtifactInstall",
        after_power_loss: (DOWNLOAD, PREVIOUS),
        after_failure: (DOWNLOAD, PREVIOUS),
        after_success: (DOWNLOAD, PREVIOUS),
    },
    Sequence {
        name: "ArtifactCommit",
        client: Generation::V5,
        before: &["Download", "ArtifactInstall"],
        interrupted: "ArtifactCommit",
        after_power_loss: (ROLL_BACK, PREVIOUS),
        after_failure: (ROLL_BACK, PREVIOUS),
        after_success: (CLEAN_UP, NEW),
    },
    Sequence {
        name: "ArtifactCommit, repeated",
        client: Generation::V5,
        before: &["Download", "ArtifactInstall"],
        interrupted: "ArtifactCommit",
        after_power_loss: (COMMIT, NEW),
        after_failure: (COMMIT, NEW),
        after_success: (CLEAN_UP, NEW),
    },
    Sequence {
        name: "ArtifactRollback",
        client: Generation::V5,
        before: &["Download", "ArtifactInstall"],
        interrupted: "ArtifactRollback",
        after_power_loss: (ROLL_BACK, PREVIOUS),
        after_failure: (FAIL, PREVIOUS),
        after_success: (FAIL, PREVIOUS),
    },
    Sequence {
        name: "ArtifactRollback after commit",
        client: Generation::V5,
        before: &["Download", "ArtifactInstall", "ArtifactCommit"],
        interrupted: "ArtifactRollback",
        after_power_loss: (RECOVER, PREVIOUS),
        after_failure: (FAIL, PREVIOUS),
        after_success: (FAIL, PREVIOUS),
    },
    Sequence {
        name: "Cleanup after commit",
        client: Generation::V5,
        before: &["Download", "ArtifactInstall", "ArtifactCommit"],
        interrupted: "Cleanup",
        after_power_loss: (CLEAN_UP, NEW),
        after_failure: (CLEAN_UP, NEW),
        after_success: (CLEAN_UP, NEW),
    },
    Sequence {
        name: "Cleanup after commit, then a boot and another commit (3.4)",
        client: Generation::V3,
        before: &["Download", "ArtifactInstall", "ArtifactCommit"],
        interrupted: "Cleanup",
        after_power_loss: (&[BOOT, COMMIT_OR_ROLL_BACK, "Cleanup"], NEW),
        after_failure: (CLEAN_UP, NEW),
        after_success: (CLEAN_UP, NEW),
    },
    Sequence {
        name: "Cleanup after rollback",
        client: Generation::V5,
        before: &["Download", "ArtifactInstall", "ArtifactRollback", "ArtifactFailure"],
        interrupted: "Cleanup",
        after_power_loss: (CLEAN_UP, PREVIOUS),
        after_failure: (CLEAN_UP, PREVIOUS),
        after_success: (CLEAN_UP, PREVIOUS),
    },
];

/// A state that is interrupted, and the call that follows it and is interrupted too.
pub struct SecondInterruption {
    /// The states before, without a fault.
    pub before: &'static [&'static str],
    /// The state that is interrupted first.
    pub first: &'static str,
    /// The state that follows, or the recovery at boot.
    pub state: &'static str,
    /// What the client calls then. The previous version has to be active at the end.
    pub after_power_loss: &'static [&'static str],
    /// What it calls after the state has succeeded, if only the module was killed before, and not the device: then
    /// what the first state has not synced is still not durable.
    pub after_success: Option<&'static [&'static str]>,
}

/// After an install the client's rollback, the recovery at boot, and the next update: client 3.4 has no record of an
/// interrupted install, nor of an interrupted download, after which it calls yet another one. After a rollback that
/// has failed, the state in which it is repeated.
pub const SECOND_INTERRUPTIONS: &[SecondInterruption] = &[
    SecondInterruption {
        before: &["Download"],
        first: "ArtifactInstall",
        state: "ArtifactRollback",
        after_power_loss: ROLL_BACK,
        after_success: Some(FAIL),
    },
    SecondInterruption {
        before: &["Download", "ArtifactInstall"],
        first: "ArtifactRollback",
        state: "ArtifactFailure",
        after_power_loss: FAIL,
        after_success: Some(CLEAN_UP),
    },
    SecondInterruption {
        before: &["Download"],
        first: "ArtifactInstall",
        state: BOOT,
        after_power_loss: RECOVER,
        after_success: None,
    },
    SecondInterruption {
        before: &["Download"],
        first: "ArtifactInstall",
        state: "Download",
        after_power_loss: &[BOOT, "Download", "Cleanup"],
        after_success: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{TRANSITIONS, Transition, states_from, transition};

    /// The sequences of client 3.4, of a repeated commit and of the recovery at boot have names of their own.
    #[test]
    fn the_sequences_of_client_5_follow_the_protocol() {
        for Transition { state, after_power_loss, .. } in TRANSITIONS {
            let Some(sequence) = SEQUENCES.iter().find(|sequence| sequence.name == *state) else { continue };
            assert_eq!(sequence.after_power_loss.0, states_from(after_power_loss), "{state}");
            let next = |state: Option<&str>| state.map(states_from).unwrap_or_default();
            let Some(Transition { after_success, after_failure, .. }) = transition(state) else { continue };
            assert_eq!(sequence.after_success.0, next(*after_success), "{state}");
            assert_eq!(sequence.after_failure.0, next(*after_failure), "{state}");
        }
    }
}
