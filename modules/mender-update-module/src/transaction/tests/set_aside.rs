//! Records of updates whose previous version could not be restored.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A trial with an update whose rollback has failed, and that is set aside.
fn unrestored() -> Trial {
    let trial = Trial::in_phase(Phase::Active);
    trial.fail("roll-back");
    assert_eq!(trial.transaction().clear().unwrap().len(), 1);
    assert!(trial.has("unrestored-1.json") && trial.phase().is_none());
    trial.succeed("roll-back");
    trial.calls();
    trial
}

#[test]
fn a_record_that_cannot_be_read_or_is_not_trusted_is_never_taken_for_none() {
    let trial = unrestored();
    let path = trial.journal().join("unrestored-1.json");
    let whole = fs::read(&path).unwrap();
    let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    for (content, mode) in [(&whole[..whole.len() / 2], 0o600), (&[], 0o600), (&whole, 0o666)] {
        fs::write(&path, content).unwrap();
        set_mode(mode);
        let transaction = trial.transaction();
        assert!(transaction.clear().is_err(), "an update of the same destination would begin");
        assert!(transaction.recover().is_err());
        assert!(trial.calls().is_empty());
        assert_eq!(fs::read(&path).unwrap(), content, "the record stays for its user");
    }
    set_mode(0o600);
    assert!(trial.transaction().clear().unwrap().is_empty());
    assert_eq!(trial.calls(), ["roll-back", "discard"]);
}

#[test]
fn an_update_that_is_restored_while_a_later_one_is_pending_restores_nothing_else() {
    let trial = unrestored();
    trial.stage(Guard::default()).unwrap();
    trial.transaction().recover().unwrap();
    assert_eq!(trial.calls(), ["roll-back-at-boot"]);
    assert!(trial.has("late-1.json") && !trial.has("left-1.json"), "it is older than the pending one");
    trial.transaction().clear().unwrap();
    assert_eq!(trial.calls(), ["discard", "discard-late"]);
    assert!(!trial.has("late-1.json"));
}
