//! Records of updates that could not be restored, or whose files could not be removed.

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

#[test]
fn only_an_update_that_cannot_be_rolled_back_blocks_others() {
    let trial = Trial::in_phase(Phase::Active);
    trial.fail("roll-back");
    let unrestored = trial.transaction().clear().unwrap();
    assert_eq!(unrestored.len(), 1);
    assert!(trial.has("unrestored-1.json") && trial.phase().is_none());
    let update = Recorded { directory: trial.path("data") };
    for unrestored in unrestored {
        let error = format!("{:#}", unrestored.refuse(&update).unwrap_err());
        assert!(error.contains("unrestored-1.json") && error.contains("roll-back has to fail"), "{error}");
    }
    trial.succeed("roll-back");
    assert!(trial.transaction().clear().unwrap().is_empty());
    assert!(!trial.has("unrestored-1.json"));
}

#[test]
fn files_that_an_update_left_are_removed_later_and_not_while_another_is_pending() {
    let trial = Trial::in_phase(Phase::Committed);
    trial.fail("discard");
    trial.transaction().finish().unwrap();
    assert!(trial.has("left-1.json") && trial.phase().is_none());
    trial.stage(Guard::default()).unwrap();
    assert!(trial.has("late-1.json") && !trial.has("left-1.json"));
    trial.transaction().install().unwrap();
    trial.succeed("discard");
    trial.calls();
    trial.transaction().recover().unwrap();
    assert!(trial.calls().is_empty() && trial.has("late-1.json"), "an update is pending");
    trial.transaction().clear().unwrap();
    assert_eq!(trial.calls(), ["roll-back", "discard", "discard-late"]);
    assert!(!trial.has("late-1.json"));
}

#[test]
fn the_files_of_an_update_that_cannot_be_rolled_back_are_not_removed_for_an_earlier_one() {
    let trial = Trial::in_phase(Phase::Committed);
    trial.fail("discard");
    trial.transaction().finish().unwrap();
    trial.succeed("discard");
    trial.stage(Guard::default()).unwrap();
    trial.transaction().install().unwrap();
    trial.fail("roll-back");
    trial.fail("roll-back-at-boot");
    trial.calls();
    assert!(trial.has("late-1.json"));
    assert_eq!(trial.transaction().clear().unwrap().len(), 1);
    assert!(trial.has("unrestored-1.json"));
    let _ = trial.transaction().recover();
    let calls = trial.calls();
    let removed = calls.iter().any(|call| call.starts_with("discard"));
    assert!(!removed, "the earlier update may have had the same staging directory: {calls:?}");
}

#[test]
fn a_boot_restores_what_it_can_although_the_journal_cannot_be_read() {
    let trial = Trial::in_phase(Phase::Active);
    trial.fail("roll-back");
    assert_eq!(trial.transaction().clear().unwrap().len(), 1);
    fs::write(trial.journal().join("journal.json"), "{").unwrap();
    trial.calls();
    assert!(trial.transaction().recover().is_err());
    assert_eq!(trial.calls(), ["roll-back-at-boot"]);
}

#[test]
fn a_boot_rolls_back_although_the_record_of_an_earlier_update_is_damaged() {
    let trial = Trial::in_phase(Phase::Activating);
    fs::write(trial.journal().join("unrestored-1.json"), "{").unwrap();
    let error = format!("{:#}", trial.transaction().recover().unwrap_err());
    assert!(error.contains("unrestored-1.json"), "{error}");
    assert_eq!(trial.calls(), ["roll-back-at-boot"]);
    assert_eq!(trial.phase(), Some(Phase::RolledBack));
}

#[test]
fn each_update_that_cannot_be_rolled_back_is_tried_again_and_blocks_others() {
    let trial = unrestored();
    trial.stage(Guard::default()).unwrap();
    trial.transaction().install().unwrap();
    trial.fail("roll-back");
    trial.calls();
    // The first call also ends the pending update.
    for calls in [3, 2] {
        assert_eq!(trial.transaction().clear().unwrap().len(), 2);
        assert_eq!(trial.calls(), vec!["roll-back"; calls]);
        assert!(trial.has("unrestored-1.json") && trial.has("unrestored-2.json"));
    }
    trial.succeed("roll-back");
    assert!(trial.transaction().clear().unwrap().is_empty());
    assert!(!trial.has("unrestored-1.json") && !trial.has("unrestored-2.json"));
}
