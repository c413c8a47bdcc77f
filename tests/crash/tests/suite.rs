//! The suite itself: it has to find what is wrong with a module, and nothing in one that is right.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Result;
use crash::{Report, Scope, Subject, Tracer};
use mock_client::{Generation, MockClient, Snapshot};
use tempfile::TempDir;

/// Scripts are written and run by one test at a time: a file that is being written cannot be run, and a process that
/// another thread starts meanwhile has it open for a moment.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A shell module that replaces one file; `$app` is the file, `$new` its new content, `$kept` where the old is kept.
struct Script {
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Script {
    fn new(install: &str, rollback: &str) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let script = format!(
            "#!/bin/sh\nset -e\nnew=$2/files/app kept=$2/../../../../../../kept app=$2/../../../../../../live/app\n\
             case \"$1\" in\nArtifactInstall)\n{install}\n;;\nArtifactRollback|Download)\n{rollback}\n;;\n\
             Cleanup)\nrm -f \"$kept\" \"$app.new\"\n;;\nesac\n"
        );
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("script"), script).unwrap();
        fs::set_permissions(directory.path().join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, _alone: alone }
    }

    fn module(&self) -> PathBuf {
        self.directory.path().join("script")
    }

    /// Everything in one report: kills alone, or losses of writes alone.
    fn tried(&self, losses: bool) -> Report {
        let tracer = Tracer::new(env!("CARGO_BIN_EXE_crash-tracer"));
        let cuts = if losses { 1 } else { usize::MAX };
        let scope = Scope { failures: false, losses, pairs: !losses, cuts };
        let mut total = Report::default();
        crash::run(self, &tracer, scope).unwrap().iter().for_each(|report| total += report);
        total
    }
}

impl Subject for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn device(&self) -> Result<MockClient> {
        let device = MockClient::new(self.module(), Generation::V5)?;
        fs::create_dir(device.device().join("live"))?;
        fs::write(device.device().join("live/app"), "the old")?;
        fs::File::open(device.device().join("live/app"))?.set_modified(SystemTime::UNIX_EPOCH)?;
        Ok(device)
    }

    fn live(&self, device: &MockClient) -> Result<Snapshot> {
        Snapshot::of(&device.device().join("live/app"))
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(vec![("app".into(), b"the new".to_vec())])
    }

    fn is_clean(&self, _device: &MockClient) -> Result<()> {
        Ok(())
    }
}

const INSTALL: &str =
    "ln \"$app\" \"$kept\"; SYNC\ncp \"$new\" \"$app.new\"; SYNC\nmv \"$app.new\" \"$app\"; SYNC";
const ROLLBACK: &str =
    "if [ -e \"$kept\" ]; then cp -p \"$kept\" \"$app.new\"; SYNC\nmv \"$app.new\" \"$app\"; SYNC\nfi";

#[test]
fn overwriting_in_place_is_found() {
    let script = Script::new(
        "cp -p \"$app\" \"$kept\"; sync\ncp \"$new\" \"$app\"; sync",
        "[ ! -e \"$kept\" ] || cp -p \"$kept\" \"$app\"; sync",
    );
    let report = script.tried(false);
    assert!(!report.other.is_empty(), "{report}");
}

#[test]
fn a_module_that_is_right_is_found_to_be() {
    let script = Script::new(&INSTALL.replace("SYNC", "sync"), &ROLLBACK.replace("SYNC", "sync"));
    for losses in [false, true] {
        let report = script.tried(losses);
        assert!(report.other.is_empty(), "{report}: {:#?}", report.other);
        assert!(report.cuts + report.losses > 10, "{report}");
    }
}

#[test]
fn a_module_that_never_syncs_is_right_under_kills_and_wrong_when_writes_are_lost() {
    let script = Script::new(&INSTALL.replace("SYNC", ":"), &ROLLBACK.replace("SYNC", ":"));
    let report = script.tried(false);
    assert!(report.other.is_empty(), "{report}: {:#?}", report.other);
    let report = script.tried(true);
    assert!(report.losses > 0 && !report.other.is_empty(), "{report}");
}

#[test]
fn a_sync_that_is_missing_is_found_and_one_that_another_covers_is_not_asked_for() {
    let cases = [
        ([":", ":", "sync"], true), // the new has its name before the old has its second one
        (["sync", "sync", ":"], true), // success is reported before it is durable
        ([":", "sync", "sync"], false),
        (["sync", ":", "sync"], false),
    ];
    let parts: Vec<_> = INSTALL.split("SYNC").collect();
    for (words, wrong) in cases {
        let install: String = parts.iter().zip(words).map(|(part, word)| format!("{part}{word}")).collect();
        let script = Script::new(&install, &ROLLBACK.replace("SYNC", "sync"));
        let report = script.tried(true);
        assert_eq!(!report.other.is_empty(), wrong, "{words:?}: {report}: {:#?}", report.other);
    }
}
