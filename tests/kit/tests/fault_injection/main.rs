//! Fault injection finds the fault of each faulty module, and none in a correct one.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod model;
mod script;

use mender_update_module_test::fault_injection::{Report, Scope};

use script::{INSTALL, Parts, ROLLBACK, Script};

fn has_violations(report: &Report) -> bool {
    !report.violations.is_empty()
}

#[test]
fn overwriting_in_place_is_found() {
    let script = Script::new(
        "cp -p \"$app\" \"$kept\"; sync\ncp \"$new\" \"$app\"; : > \"$done\"; sync",
        "[ ! -e \"$kept\" ] || cp -p \"$kept\" \"$app\"; sync",
    );
    let report = script.find(Script::scope(false), has_violations);
    assert!(has_violations(&report), "{report}");
}

#[test]
fn a_correct_module_has_no_violation() {
    let script = Script::new(&INSTALL.replace("SYNC", "sync"), &ROLLBACK.replace("SYNC", "sync"));
    for lost_writes in [false, true] {
        // All faults: a violation that the model reports falsely may be at one of them only.
        let report = script.inject_in(Script::scope(lost_writes));
        assert!(report.violations.is_empty(), "{report}: {:#?}", report.violations);
        assert!(report.crash_points + report.lost_writes > 10, "{report}");
    }
}

#[test]
fn a_module_that_never_syncs_fails_only_when_writes_are_lost() {
    let script = Script::new(&INSTALL.replace("SYNC", ":"), &ROLLBACK.replace("SYNC", ":"));
    let report = script.inject(false);
    assert!(report.violations.is_empty(), "{report}: {:#?}", report.violations);
    let report = script.find(Script::scope(true), has_violations);
    assert!(report.lost_writes > 0 && has_violations(&report), "{report}");
}

#[test]
fn a_missing_sync_is_found_and_a_redundant_one_is_not_required() {
    let cases = [
        ([":", ":", "sync", "sync"], true), // the new file has its name before the previous file has its second one
        (["sync", "sync", ":", "sync"], true), // the install counts as done before the new file has its name
        (["sync", "sync", "sync", ":"], true), // success is reported before it is durable
        ([":", "sync", "sync", "sync"], false),
        (["sync", ":", "sync", "sync"], false),
    ];
    let parts: Vec<_> = INSTALL.split("SYNC").collect();
    for (words, faulty) in cases {
        let install: String = parts.iter().zip(words).map(|(part, word)| format!("{part}{word}")).collect();
        let script = Script::new(&install, &ROLLBACK.replace("SYNC", "sync"));
        let scope = Script::scope(true);
        let report = if faulty { script.find(scope, has_violations) } else { script.inject(true) };
        assert_eq!(has_violations(&report), faulty, "{words:?}: {report}: {:#?}", report.violations);
    }
}

#[test]
fn a_boot_that_restores_nothing_or_undoes_an_install_is_found() {
    for (boot, words) in [(":", "after the boot, the new version was active"), ("roll_back", "ArtifactCommit failed")] {
        let scope = Scope { failing_calls: false, lost_writes: false, pairs: false, ..Scope::ALL };
        let is_found = |report: &Report| report.violations.iter().any(|violation| violation.end.contains(words));
        let report = Script::of(&Parts { boot, ..Parts::correct() }).find(scope, is_found);
        assert!(is_found(&report), "{boot}: {report}: {:#?}", report.violations);
    }
}

#[test]
fn a_cleanup_that_undoes_a_commit_after_an_interrupted_install_is_found() {
    let correct = Parts::correct();
    // Cleanup takes an install that was interrupted at its very end for one that failed, also after its commit.
    let parts = Parts {
        paths: "finished=$device/finished
                if [ \"$1\" = Cleanup ] && [ -e \"$committed\" ] && [ ! -e \"$finished\" ] && [ -e \"$kept\" ]; then
                    cp -p \"$kept\" \"$app.new\"; mv \"$app.new\" \"$app\"; sync
                fi",
        download: "rm -f \"$finished\"; sync",
        install: format!("{}\n: > \"$finished\"; sync", correct.install),
        ..correct
    };
    let scope = Scope { failing_calls: false, lost_writes: false, pairs: false, ..Scope::ALL };
    let report = Script::of(&parts).find(scope, has_violations);
    assert!(has_violations(&report), "{report}");
}
