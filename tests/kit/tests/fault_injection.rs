//! Fault injection finds the fault of each faulty module, and none in a correct one.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Result;
use mender_update_module_test::fault_injection::{self, Report, Scope, Subject, Tracer, Violation};
use mender_update_module_test::{Generation, MockClient, Snapshot};
use tempfile::TempDir;

/// Scripts are written and run by one test at a time: a file that is open for writing cannot be executed, and a process
/// that another thread forks meanwhile has it open for a moment.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A shell module that replaces one file. `$app` is the file, `$new` its new content, `$kept` the previous file.
/// `$done` exists once the install has succeeded, `$committed` after the commit.
#[derive(Clone)]
struct Parts {
    /// Before every state, for other paths.
    paths: &'static str,
    download: &'static str,
    install: String,
    roll_back: String,
    boot: &'static str,
}

impl Parts {
    /// A correct module.
    fn correct() -> Self {
        let with_sync = |text: &str| text.replace("SYNC", "sync");
        let boot = "[ -e \"$done\" ] || roll_back";
        Self { paths: "", download: "", install: with_sync(INSTALL), roll_back: with_sync(ROLLBACK), boot }
    }
}

/// The module as an executable script.
struct Script {
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Script {
    fn new(install: &str, roll_back: &str) -> Self {
        Self::of(&Parts { install: install.to_owned(), roll_back: roll_back.to_owned(), ..Parts::correct() })
    }

    fn of(Parts { paths, download, install, roll_back, boot }: &Parts) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let script = format!(
            r#"#!/bin/sh
set -e
device=$2/../../../../../..
new=$2/files/app app=$device/srv/app kept=$device/kept done=$device/done committed=$device/committed
{paths}
roll_back() {{
{roll_back}
}}
case "$1" in
    ArtifactInstall)
{install}
        ;;
    ArtifactCommit)
        # After Cleanup has begun, client 3.4 may repeat it.
        [ -e "$done" ] || [ -e "$2/ended" ]
        [ -e "$2/ended" ] || : > "$committed"
        sync ;;
    ArtifactRollback|ArtifactFailure) roll_back ;;
    --recover) {boot} ;;
    Download|Cleanup)
        [ "$1" = Cleanup ] || [ -e "$committed" ] || roll_back
        if [ "$1" = Cleanup ] && [ -e "$committed" ] && [ -d "$2" ]; then : > "$2/ended"; sync; fi
        rm -f "$kept" "$app.new"
        sync
        rm -f "$done" "$committed"
        sync
        if [ "$1" = Download ]; then :
{download}
        fi ;;
esac
"#
        );
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("script"), script).unwrap();
        fs::set_permissions(directory.path().join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, _alone: alone }
    }

    fn module(&self) -> PathBuf {
        self.directory.path().join("script")
    }

    /// All attempts in one report: crash points only, or unsynced writes lost only.
    fn inject(&self, lost_writes: bool) -> Report {
        self.inject_in(Self::scope(lost_writes))
    }

    fn scope(lost_writes: bool) -> Scope {
        Scope { failing_calls: false, lost_writes, pairs: !lost_writes, ..Scope::ALL }
    }

    /// The report of the faults of `scope`, of which a growing sample is injected until `is_found` accepts the report.
    fn find(&self, scope: Scope, is_found: impl Fn(&Report) -> bool) -> Report {
        for sample in [4, 24] {
            let report = self.inject_in(Scope { sample, ..scope });
            if is_found(&report) {
                return report;
            }
        }
        self.inject_in(scope)
    }

    fn inject_in(&self, scope: Scope) -> Report {
        let tracer = Tracer::new(env!("CARGO_BIN_EXE_mender-update-module-test"));
        let mut total = Report::default();
        fault_injection::run(self, &tracer, scope).unwrap().iter().for_each(|report| total += report);
        total
    }
}

fn has_violations(report: &Report) -> bool {
    !report.violations.is_empty()
}

impl Subject for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn device(&self) -> Result<MockClient> {
        let device = MockClient::new_in(fault_injection::directory_for_devices(), self.module(), Generation::V5)?;
        fs::create_dir(device.device().join("srv"))?;
        fs::write(device.device().join("srv/app"), "the previous")?;
        fs::File::open(device.device().join("srv/app"))?.set_modified(SystemTime::UNIX_EPOCH)?;
        Ok(device)
    }

    fn active(&self, device: &MockClient) -> Result<Snapshot> {
        Snapshot::of(&device.device().join("srv/app"))
    }

    fn require_new(&self, device: &MockClient) -> Result<()> {
        anyhow::ensure!(fs::read(device.device().join("srv/app"))? == b"the new");
        Ok(())
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(vec![("app".into(), b"the new".to_vec())])
    }

    fn is_clean(&self, _device: &MockClient) -> Result<()> {
        Ok(())
    }
}

const INSTALL: &str = "ln \"$app\" \"$kept\"; SYNC\ncp \"$new\" \"$app.new\"; SYNC\nmv \"$app.new\" \"$app\"; SYNC
: > \"$done\"; SYNC";
const ROLLBACK: &str = "if [ -e \"$kept\" ]; then cp -p \"$kept\" \"$app.new\"; SYNC\nmv \"$app.new\" \"$app\"; SYNC
fi\nrm -f \"$done\"; SYNC";

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
        let report = script.inject(lost_writes);
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
        let report = if faulty { script.find(scope, has_violations) } else { script.inject_in(scope) };
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

/// Modules with one fault each, which only one part of the model finds, and words of the violation.
fn faulty() -> Vec<(&'static str, Parts)> {
    let correct = Parts::correct();
    let install = |text: &str| Parts { install: text.to_owned(), ..correct.clone() };
    let staged = |is_usable: &str| Parts {
        paths: "staged=$device/staged",
        // The staged file is not synced. A file that the module takes for incomplete is copied again.
        download: "touch \"$staged\"; sync; printf 'the new' > \"$staged\"",
        ..install(&format!(
            "ln \"$app\" \"$kept\"; sync; {is_usable} || cp \"$new\" \"$staged\"; cp \"$staged\" \"$app.new\"; sync
             mv \"$app.new\" \"$app\"; sync; : > \"$done\"; rm -f \"$staged\"; sync"
        ))
    };
    vec![
        // What cannot be looked up is taken for missing.
        ("EIO from read", correct.clone()),
        // The second attempt is expected to have space.
        (
            "ENOSPC from call 4 on",
            install(
                "printf kept > \"$device/x\" || :; cp -p \"$app\" \"$kept\" || cp -p \"$app\" \"$kept\" || :; sync
                 cp \"$new\" \"$app.new\"; sync; mv \"$app.new\" \"$app\"; sync; : > \"$done\"; sync",
            ),
        ),
        // The error of a sync is ignored.
        (
            "failed and lost its data",
            install(
                "ln \"$app\" \"$kept\"; sync; cp \"$new\" \"$app.new\"; sync \"$app.new\" || :
                 mv \"$app.new\" \"$app\"; sync; : > \"$done\"; sync",
            ),
        ),
        // The sync of the destination's file system is taken for one of the client's data.
        (
            "power lost after success was reported",
            Parts {
                paths: "done=$device/mender/done",
                ..install(
                    "ln \"$app\" \"$kept\"; sync; cp \"$new\" \"$app.new\"; sync; mv \"$app.new\" \"$app\"; sync
                     : > \"$done\"; sync --file-system \"$app\"",
                )
            },
        ),
        // The length is taken for the content, and the first word for all of it.
        ("is zeros", staged("[ \"$(stat -c %s \"$staged\")\" = 7 ]")),
        ("torn", staged("grep -q ^the \"$staged\"")),
        // Download has not synced the previous file's second name.
        (
            "all unsynced changes lost",
            Parts {
                paths: "done=$device/srv/done",
                download: "ln \"$app\" \"$kept\"",
                ..install(
                    "cp \"$new\" \"$app.new\"; sync \"$app.new\"; mv \"$app.new\" \"$app\"; sync \"$device/srv\"
                     : > \"$done\"; sync \"$device/srv\"",
                )
            },
        ),
        // The recovery removes the previous file's second name before the first is durable.
        (
            ", --recover: power lost",
            Parts {
                boot: "if [ ! -e \"$done\" ] && [ -e \"$kept\" ]; then
                           cp -p \"$kept\" \"$app.new\"; mv \"$app.new\" \"$app\"; rm \"$kept\"
                       fi",
                ..correct.clone()
            },
        ),
        // A repeated rollback finds the previous file in its place, and does not make that durable.
        (
            ", ArtifactFailure: power lost",
            Parts {
                paths: "restored=$device/mender/restored; [ \"$1\" != Download ] || rm -f \"$restored\"",
                roll_back: "if [ -e \"$kept\" ] && [ ! -e \"$restored\" ]; then
                                if [ \"$(cat \"$kept\")\" != \"$(cat \"$app\")\" ]; then
                                    cp -p \"$kept\" \"$app.new\"; sync \"$app.new\"
                                    mv \"$app.new\" \"$app\"; sync \"$device/srv\"
                                fi
                                : > \"$restored\"; sync \"$device/mender\"
                            fi
                            rm -f \"$done\"; sync \"$device\""
                    .to_owned(),
                ..correct.clone()
            },
        ),
        // A number is taken for a file.
        (
            "a file of another program was removed",
            Parts {
                paths: "journal=$device/journal.json",
                boot: "roll_back_by_number() {
                           number=$(tr -dc 0-9 < \"$journal\")
                           find \"$device\" -type f -inum \"$number\" ! -path \"$app\" -delete
                       }
                       if [ ! -e \"$done\" ]; then roll_back; [ ! -s \"$journal\" ] || roll_back_by_number; fi",
                ..install(
                    "ln \"$app\" \"$kept\"; sync; : > \"$app.new\"
                     printf '{\"inode\": %s}' \"$(stat -c %i \"$app.new\")\" > \"$journal\"; sync \"$journal\" \"$device\"
                     cp \"$new\" \"$app.new\"; sync; mv \"$app.new\" \"$app\"; sync; : > \"$done\"; rm \"$journal\"; sync",
                )
            },
        ),
    ]
}

#[test]
fn each_part_of_the_model_finds_the_fault_that_it_is_for() {
    for (words, parts) in faulty() {
        let failing_calls = words.starts_with('E');
        let pairs = words.starts_with(", ");
        let scope = Scope { failing_calls, lost_writes: !failing_calls, pairs, ..Scope::ALL };
        let is_it = |violation: &Violation| violation.to_string().contains(words);
        let is_found = |report: &Report| report.violations.iter().any(is_it);
        let report = Script::of(&parts).find(scope, is_found);
        assert!(is_found(&report), "{words}: {report}: {:#?}", report.violations);
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
