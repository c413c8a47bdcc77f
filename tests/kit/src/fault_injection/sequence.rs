//! What the client calls around an interruption: the power-loss table of the protocol, as data.

/// The version that is active at the end of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Exactly the previous version.
    Previous,
    /// Exactly the new version, except for the modification times of what the update made.
    New,
}

/// A state that is interrupted, and the calls before and after it.
pub struct Sequence {
    /// The name in reports.
    pub name: &'static str,
    /// The states before, without a fault.
    pub before: &'static [&'static str],
    /// The state that is interrupted.
    pub interrupted: &'static str,
    /// What the client calls after a power loss in the state, and the version that has to be active then.
    pub after_power_loss: (&'static [&'static str], End),
    /// What it calls after the state has failed.
    pub after_failure: (&'static [&'static str], End),
    /// What it calls after the state has succeeded, also in spite of a failing system call.
    pub after_success: (&'static [&'static str], End),
}

const ROLL_BACK: &[&str] = &["ArtifactRollback", "ArtifactFailure", "Cleanup"];
const RECOVER: &[&str] = &["--recover", "ArtifactRollback", "ArtifactFailure", "Cleanup"];
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
        before: &[],
        interrupted: "Download",
        after_power_loss: (CLEAN_UP, End::Previous),
        after_failure: (CLEAN_UP, End::Previous),
        after_success: (INSTALL, End::New),
    },
    Sequence {
        name: "Download, then another update (3.4)",
        before: &[],
        interrupted: "Download",
        after_power_loss: (UPDATE, End::New),
        after_failure: (UPDATE, End::New),
        after_success: (INSTALL, End::New),
    },
    Sequence {
        name: "ArtifactInstall",
        before: &["Download"],
        interrupted: "ArtifactInstall",
        after_power_loss: (ROLL_BACK, End::Previous),
        after_failure: (ROLL_BACK, End::Previous),
        after_success: (COMMIT, End::New),
    },
    Sequence {
        name: "ArtifactInstall, then a boot",
        before: &["Download"],
        interrupted: "ArtifactInstall",
        after_power_loss: (RECOVER, End::Previous),
        after_failure: (RECOVER, End::Previous),
        after_success: (&["--recover", "ArtifactCommit", "Cleanup"], End::New),
    },
    Sequence {
        name: "ArtifactInstall, then another update (3.4)",
        before: &["Download"],
        interrupted: "ArtifactInstall",
        after_power_loss: (DOWNLOAD, End::Previous),
        after_failure: (DOWNLOAD, End::Previous),
        after_success: (DOWNLOAD, End::Previous),
    },
    Sequence {
        name: "ArtifactCommit",
        before: &["Download", "ArtifactInstall"],
        interrupted: "ArtifactCommit",
        after_power_loss: (ROLL_BACK, End::Previous),
        after_failure: (ROLL_BACK, End::Previous),
        after_success: (CLEAN_UP, End::New),
    },
    Sequence {
        name: "ArtifactCommit, repeated",
        before: &["Download", "ArtifactInstall"],
        interrupted: "ArtifactCommit",
        after_power_loss: (COMMIT, End::New),
        after_failure: (COMMIT, End::New),
        after_success: (CLEAN_UP, End::New),
    },
    Sequence {
        name: "ArtifactRollback",
        before: &["Download", "ArtifactInstall"],
        interrupted: "ArtifactRollback",
        after_power_loss: (ROLL_BACK, End::Previous),
        after_failure: (FAIL, End::Previous),
        after_success: (FAIL, End::Previous),
    },
    Sequence {
        name: "ArtifactRollback after commit",
        before: &["Download", "ArtifactInstall", "ArtifactCommit"],
        interrupted: "ArtifactRollback",
        after_power_loss: (RECOVER, End::Previous),
        after_failure: (FAIL, End::Previous),
        after_success: (FAIL, End::Previous),
    },
    Sequence {
        name: "Cleanup after commit",
        before: &["Download", "ArtifactInstall", "ArtifactCommit"],
        interrupted: "Cleanup",
        after_power_loss: (CLEAN_UP, End::New),
        after_failure: (CLEAN_UP, End::New),
        after_success: (CLEAN_UP, End::New),
    },
    Sequence {
        name: "Cleanup after rollback",
        before: &["Download", "ArtifactInstall", "ArtifactRollback", "ArtifactFailure"],
        interrupted: "Cleanup",
        after_power_loss: (CLEAN_UP, End::Previous),
        after_failure: (CLEAN_UP, End::Previous),
        after_success: (CLEAN_UP, End::Previous),
    },
];

/// A call that follows an interrupted install, and is interrupted too.
pub struct SecondInterruption {
    /// The state, or the recovery at boot.
    pub state: &'static str,
    /// What the client calls then. The previous version has to be active at the end.
    pub after_power_loss: &'static [&'static str],
}

/// The client's rollback, the recovery at boot, and the next update: client 3.4 has no record of an interrupted
/// install, nor of an interrupted download, after which it calls yet another one.
pub const SECOND_INTERRUPTIONS: &[SecondInterruption] = &[
    SecondInterruption { state: "ArtifactRollback", after_power_loss: ROLL_BACK },
    SecondInterruption { state: "--recover", after_power_loss: RECOVER },
    SecondInterruption { state: "Download", after_power_loss: &["--recover", "Download", "Cleanup"] },
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
