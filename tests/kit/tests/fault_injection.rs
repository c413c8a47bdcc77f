//! Fault injection finds the fault of each faulty module, and none in a correct one.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Result;
use mender_update_module_test::fault_injection::{self, Report, Scope, Subject, Tracer};
use mender_update_module_test::{Generation, MockClient, Snapshot};
use tempfile::TempDir;

/// Scripts are written and run by one test at a time: a file that is open for writing cannot be executed, and a process
/// that another thread forks meanwhile has it open for a moment.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A shell module that replaces one file. `$app` is the file, `$new` its new content, `$kept` the previous file.
/// `$done` exists once the install has succeeded, `$committed` after the commit.
struct Script {
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Script {
    fn new(install: &str, rollback: &str) -> Self {
        Self::with(install, rollback, "[ -e \"$done\" ] || roll_back")
    }

    fn with(install: &str, rollback: &str, boot: &str) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let script = format!(
            r#"#!/bin/sh
set -e
device=$2/../../../../../..
new=$2/files/app app=$device/srv/app kept=$device/kept done=$device/done committed=$device/committed
roll_back() {{
{rollback}
}}
case "$1" in
    ArtifactInstall)
{install}
        ;;
    ArtifactCommit) [ -e "$done" ] && : > "$committed" && sync ;;
    ArtifactRollback) roll_back ;;
    --recover) {boot} ;;
    Download|Cleanup)
        [ "$1" = Cleanup ] || [ -e "$committed" ] || roll_back
        rm -f "$kept" "$app.new"
        sync
        rm -f "$done" "$committed"
        sync ;;
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
        self.inject_in(Scope { failing_calls: false, lost_writes, pairs: !lost_writes, ..Scope::ALL })
    }

    fn inject_in(&self, scope: Scope) -> Report {
        let tracer = Tracer::new(env!("CARGO_BIN_EXE_mender-update-module-test"));
        let mut total = Report::default();
        fault_injection::run(self, &tracer, scope).unwrap().iter().for_each(|report| total += report);
        total
    }
}

impl Subject for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn device(&self) -> Result<MockClient> {
        let device = MockClient::new(self.module(), Generation::V5)?;
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
    let report = script.inject(false);
    assert!(!report.violations.is_empty(), "{report}");
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
    let report = script.inject(true);
    assert!(report.lost_writes > 0 && !report.violations.is_empty(), "{report}");
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
        let report = script.inject(true);
        assert_eq!(!report.violations.is_empty(), faulty, "{words:?}: {report}: {:#?}", report.violations);
    }
}

#[test]
fn a_boot_that_restores_nothing_or_undoes_an_install_is_found() {
    for (boot, words) in [(":", "after the boot, the new version was active"), ("roll_back", "ArtifactCommit failed")] {
        let (install, rollback) = (INSTALL.replace("SYNC", "sync"), ROLLBACK.replace("SYNC", "sync"));
        let scope = Scope { failing_calls: false, lost_writes: false, pairs: false, ..Scope::ALL };
        let report = Script::with(&install, &rollback, boot).inject_in(scope);
        let found = report.violations.iter().any(|violation| violation.end.contains(words));
        assert!(found, "{boot}: {report}: {:#?}", report.violations);
    }
}
