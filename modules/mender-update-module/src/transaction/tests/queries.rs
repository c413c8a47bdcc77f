//! Answers about a pending update, which follow from its phase.

use super::*;

#[test]
fn only_an_update_that_is_discarded_has_ended() {
    assert!(Trial::new().transaction().has_ended().unwrap());
    for phase in PHASES {
        let ended = Trial::in_phase(phase).transaction().has_ended().unwrap();
        assert_eq!(ended, phase == Phase::Discarding, "{phase:?}");
    }
}

#[test]
fn only_the_phase_after_a_commit_is_committed() {
    assert!(!Trial::new().transaction().is_committed().unwrap());
    for phase in PHASES {
        let committed = Trial::in_phase(phase).transaction().is_committed().unwrap();
        assert_eq!(committed, phase == Phase::Committed, "{phase:?}");
    }
}

#[test]
fn only_a_version_that_is_active_after_a_change_needs_a_reboot() {
    assert_eq!(Trial::new().transaction().needs_reboot().unwrap(), NeedsReboot::No);
    for phase in PHASES {
        let expected = match phase {
            Phase::Active | Phase::RolledBack => NeedsReboot::Yes,
            _ => NeedsReboot::No,
        };
        assert_eq!(Trial::in_phase(phase).transaction().needs_reboot().unwrap(), expected, "{phase:?}");
    }
}

#[test]
fn only_a_committed_update_is_set_aside_when_its_rollback_cannot_begin() {
    for (phase, is_blocked) in [(Phase::Active, true), (Phase::Active, false), (Phase::Committed, true)] {
        let trial = Trial::in_phase(phase);
        trial.fail("roll-back");
        if is_blocked {
            trial.block_writes();
        }
        assert!(trial.transaction().fail().is_err());
        assert_eq!(trial.has("unrestored-1.json"), phase == Phase::Committed, "{phase:?}, blocked: {is_blocked}");
    }
}
