//! A shell module that replaces one file, and variants of it with a fault, as subjects of fault injection.

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
#[derive(Clone)]
pub struct Parts {
    /// Before every state, for other paths.
    pub paths: &'static str,
    pub download: &'static str,
    pub install: String,
    pub roll_back: String,
    pub boot: &'static str,
}

impl Parts {
    /// A correct module.
    pub fn correct() -> Self {
        let with_sync = |text: &str| text.replace("SYNC", "sync");
        let boot = "[ -e \"$done\" ] || roll_back";
        Self { paths: "", download: "", install: with_sync(INSTALL), roll_back: with_sync(ROLLBACK), boot }
    }
}

/// The module as an executable script.
pub struct Script {
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Script {
    pub fn new(install: &str, roll_back: &str) -> Self {
        Self::of(&Parts { install: install.to_owned(), roll_back: roll_back.to_owned(), ..Parts::correct() })
    }

    pub fn of(Parts { paths, download, install, roll_back, boot }: &Parts) -> Self {
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

    /// The report of a sample of the faults: with or without the loss of unsynced writes.
    pub fn inject(&self, lost_writes: bool) -> Report {
        /// The faults of each kind in a sequence.
        const SAMPLE: usize = 8;
        self.inject_in(Scope { sample: SAMPLE, ..Self::scope(lost_writes) })
    }

    pub fn scope(lost_writes: bool) -> Scope {
        Scope { failing_calls: false, lost_writes, pairs: !lost_writes, ..Scope::ALL }
    }

    /// The report of the faults of `scope`. Small samples with different offsets are injected, and all faults if
    /// `is_found` accepts none of their reports.
    pub fn find(&self, scope: Scope, is_found: impl Fn(&Report) -> bool) -> Report {
        const SAMPLES: usize = 8;
        // With one kind of fault in each sequence, another offset is another kind.
        if scope.one_kind {
            return self.inject_in(scope);
        }
        let samples = (0..SAMPLES).map(|shift| Scope { sample: 4, offset: scope.offset + shift, ..scope });
        let found = samples.map(|sample| self.inject_in(sample)).find(is_found);
        found.unwrap_or_else(|| self.inject_in(scope))
    }

    /// The report of the faults of `scope`.
    pub fn inject_in(&self, scope: Scope) -> Report {
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

pub const INSTALL: &str = "ln \"$app\" \"$kept\"; SYNC\ncp \"$new\" \"$app.new\"; SYNC\nmv \"$app.new\" \"$app\"; SYNC
: > \"$done\"; SYNC";
pub const ROLLBACK: &str =
    "if [ -e \"$kept\" ]; then cp -p \"$kept\" \"$app.new\"; SYNC\nmv \"$app.new\" \"$app\"; SYNC
fi\nrm -f \"$done\"; SYNC";
