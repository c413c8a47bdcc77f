//! The order of the states, as data: the conformance suite, fault injection and the diagrams of the documentation use
//! it.

/// The states that follow a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state.
    pub state: &'static str,
    /// The next state after success; `None` at the end of the update.
    pub after_success: Option<&'static str>,
    /// The next state after a failure.
    pub after_failure: Option<&'static str>,
    /// The first state that client 5 calls after a power loss in the state.
    pub after_power_loss: &'static str,
}

/// The states of an update with rollback, without queries and reboots.
pub const TRANSITIONS: &[Transition] = &[
    Transition {
        state: "Download",
        after_success: Some("ArtifactInstall"),
        after_failure: Some("Cleanup"),
        after_power_loss: "Cleanup",
    },
    Transition {
        state: "ArtifactInstall",
        after_success: Some("ArtifactCommit"),
        after_failure: Some("ArtifactRollback"),
        after_power_loss: "ArtifactRollback",
    },
    Transition {
        state: "ArtifactCommit",
        after_success: Some("Cleanup"),
        after_failure: Some("ArtifactRollback"),
        after_power_loss: "ArtifactRollback",
    },
    Transition {
        state: "ArtifactRollback",
        after_success: Some("ArtifactFailure"),
        after_failure: Some("ArtifactFailure"),
        after_power_loss: "ArtifactRollback",
    },
    Transition {
        state: "ArtifactFailure",
        after_success: Some("Cleanup"),
        after_failure: Some("Cleanup"),
        after_power_loss: "ArtifactFailure",
    },
    Transition { state: "Cleanup", after_success: None, after_failure: None, after_power_loss: "Cleanup" },
];

/// The transition of `state`, if it has one.
pub fn transition(state: &str) -> Option<&'static Transition> {
    TRANSITIONS.iter().find(|transition| transition.state == state)
}

/// The states from `state` to the end of the update, if every call succeeds.
///
/// ```
/// use mender_update_module_test::protocol::states_from;
///
/// assert_eq!(states_from("ArtifactRollback"), ["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
/// ```
pub fn states_from(state: &str) -> Vec<&'static str> {
    let mut states = Vec::new();
    let mut next = transition(state);
    while let Some(transition) = next {
        states.push(transition.state);
        next = transition.after_success.and_then(self::transition);
    }
    states
}
