//! Each part of the model finds a fault that no other part finds.

use mender_update_module_test::fault_injection::{Report, Scope, Violation};

use crate::script::{Parts, Script};

/// The correct module with another install.
fn with_install(install: &str) -> Parts {
    Parts { install: install.to_owned(), ..Parts::correct() }
}

/// A module whose Download stages the new file without a sync, and whose install copies it again unless `is_usable`.
fn staged(is_usable: &str) -> Parts {
    Parts {
        paths: "staged=$device/staged",
        download: "touch \"$staged\"; sync; printf 'the new' > \"$staged\"",
        ..with_install(&format!(
            "ln \"$app\" \"$kept\"; sync; {is_usable} || cp \"$new\" \"$staged\"; cp \"$staged\" \"$app.new\"; sync
             mv \"$app.new\" \"$app\"; sync; : > \"$done\"; rm -f \"$staged\"; sync"
        ))
    }
}

/// Lost writes in the recovery at boot, or in a rollback that is repeated, after an interruption. The offset chooses
/// the two states; one kind of fault in each sequence leaves out most others.
const IN_RECOVERY: Scope = Scope { failing_calls: false, one_kind: true, offset: 5, ..Scope::ALL };
const IN_REPEATED_ROLLBACK: Scope = Scope { offset: 0, ..IN_RECOVERY };
const FAILING_CALLS: Scope = Scope { lost_writes: false, pairs: false, ..Scope::ALL };
const LOST_WRITES: Scope = Scope { failing_calls: false, pairs: false, ..Scope::ALL };

/// Fails unless faults of `scope` lead to a violation with `words`.
fn is_found(parts: &Parts, scope: Scope, words: &str) {
    let is_it = |violation: &Violation| violation.to_string().contains(words);
    let is_found = |report: &Report| report.violations.iter().any(is_it);
    let report = Script::of(parts).find(scope, is_found);
    assert!(is_found(&report), "{words}: {report}: {:#?}", report.violations);
}

#[test]
fn a_file_that_cannot_be_read_and_is_taken_for_missing_is_found() {
    is_found(&Parts::correct(), FAILING_CALLS, "EIO from read");
}

#[test]
fn a_second_attempt_that_is_expected_to_have_space_is_found() {
    let install = "printf kept > \"$device/x\" || :; cp -p \"$app\" \"$kept\" || cp -p \"$app\" \"$kept\" || :; sync
        cp \"$new\" \"$app.new\"; sync; mv \"$app.new\" \"$app\"; sync; : > \"$done\"; sync";
    is_found(&with_install(install), FAILING_CALLS, "ENOSPC from call 4 on");
}

#[test]
fn an_ignored_error_of_a_sync_is_found() {
    let install = "ln \"$app\" \"$kept\"; sync; cp \"$new\" \"$app.new\"; sync \"$app.new\" || :
        mv \"$app.new\" \"$app\"; sync; : > \"$done\"; sync";
    is_found(&with_install(install), LOST_WRITES, "failed and lost its data");
}

#[test]
fn a_sync_of_another_file_system_is_found() {
    let parts = Parts {
        paths: "done=$device/mender/done",
        ..with_install(
            "ln \"$app\" \"$kept\"; sync; cp \"$new\" \"$app.new\"; sync; mv \"$app.new\" \"$app\"; sync
             : > \"$done\"; sync --file-system \"$app\"",
        )
    };
    is_found(&parts, LOST_WRITES, "power lost after success was reported");
}

#[test]
fn a_length_that_is_taken_for_the_content_is_found() {
    is_found(&staged("[ \"$(stat -c %s \"$staged\")\" = 7 ]"), LOST_WRITES, "is zeros");
}

#[test]
fn a_first_word_that_is_taken_for_the_content_is_found() {
    is_found(&staged("grep -q ^the \"$staged\""), LOST_WRITES, "torn");
}

#[test]
fn unsynced_changes_of_an_earlier_state_are_found() {
    let parts = Parts {
        paths: "done=$device/srv/done",
        download: "ln \"$app\" \"$kept\"",
        ..with_install(
            "cp \"$new\" \"$app.new\"; sync \"$app.new\"; mv \"$app.new\" \"$app\"; sync \"$device/srv\"
             : > \"$done\"; sync \"$device/srv\"",
        )
    };
    is_found(&parts, LOST_WRITES, "all unsynced changes lost");
}

#[test]
fn a_recovery_that_does_not_sync_is_found() {
    // It removes the previous file's second name before the first is durable.
    let parts = Parts {
        boot: "if [ ! -e \"$done\" ] && [ -e \"$kept\" ]; then
                   cp -p \"$kept\" \"$app.new\"; mv \"$app.new\" \"$app\"; rm \"$kept\"
               fi",
        ..Parts::correct()
    };
    is_found(&parts, IN_RECOVERY, ", --recover: power lost");
}

#[test]
fn a_repeated_rollback_that_does_not_sync_is_found() {
    // It finds the previous file in its place, and does not make that durable.
    let roll_back = "if [ -e \"$kept\" ] && [ ! -e \"$restored\" ]; then
                         if [ \"$(cat \"$kept\")\" != \"$(cat \"$app\")\" ]; then
                             cp -p \"$kept\" \"$app.new\"; sync \"$app.new\"
                             mv \"$app.new\" \"$app\"; sync \"$device/srv\"
                         fi
                         : > \"$restored\"; sync \"$device/mender\"
                     fi
                     rm -f \"$done\"; sync \"$device\"";
    let parts = Parts {
        paths: "restored=$device/mender/restored; [ \"$1\" != Download ] || rm -f \"$restored\"",
        roll_back: roll_back.to_owned(),
        ..Parts::correct()
    };
    is_found(&parts, IN_REPEATED_ROLLBACK, ", ArtifactFailure: power lost");
}

#[test]
fn an_inode_number_that_is_taken_for_a_file_is_found() {
    let parts = Parts {
        paths: "journal=$device/journal.json",
        boot: "roll_back_by_number() {
                   number=$(tr -dc 0-9 < \"$journal\")
                   find \"$device\" -type f -inum \"$number\" ! -path \"$app\" -delete
               }
               if [ ! -e \"$done\" ]; then roll_back; [ ! -s \"$journal\" ] || roll_back_by_number; fi",
        ..with_install(
            "ln \"$app\" \"$kept\"; sync; : > \"$app.new\"
             printf '{\"inode\": %s}' \"$(stat -c %i \"$app.new\")\" > \"$journal\"; sync \"$journal\" \"$device\"
             cp \"$new\" \"$app.new\"; sync; mv \"$app.new\" \"$app\"; sync; : > \"$done\"; rm \"$journal\"; sync",
        )
    };
    is_found(&parts, LOST_WRITES, "a file of another program was removed");
}
