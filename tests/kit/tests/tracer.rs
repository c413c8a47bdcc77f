//! The tracer: the calls that it counts, interrupts, lets fail and records.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use mender_update_module_test::fault_injection::operation::{Operation, Recording};
use tempfile::TempDir;

/// Runs `script` in a fresh directory under the tracer.
fn trace(mode: &[&str], script: &str) -> (TempDir, Output) {
    let directory = tempfile::tempdir().unwrap();
    let output = trace_in(directory.path(), mode, script);
    (directory, output)
}

fn trace_in(directory: &Path, mode: &[&str], script: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mender-update-module-test"))
        .arg("--mender-update-module-tracer")
        .arg(directory)
        .args(mode)
        .args(["--", "/bin/sh", "-c", script])
        .current_dir(directory)
        .output()
        .unwrap()
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_program_ends_as_without_the_tracer() {
    let (_, output) = trace(&["kill-before", "99"], "echo said; echo wrong >&2; exit 7");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((output.stdout, output.stderr), (b"said\n".to_vec(), b"wrong\n".to_vec()));
}

#[test]
fn a_program_that_cannot_be_executed_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let busy = directory.path().join("busy");
    fs::copy("/bin/true", &busy).unwrap();
    let _open = fs::OpenOptions::new().append(true).open(&busy).unwrap();
    for program in [Path::new("/no/such/program"), &script, &busy] {
        let output = Command::new(env!("CARGO_BIN_EXE_mender-update-module-test"))
            .arg("--mender-update-module-tracer")
            .arg(directory.path())
            .args(["kill-before", "1", "--"])
            .arg(program)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{}: {error}", program.display());
        assert!(error.contains("missing, busy or not executable"), "{error}");
    }
}

#[test]
fn calls_of_children_count_and_an_interruption_kills_all_processes() {
    let script = "mkdir a; mkdir b; (mkdir c); echo reached";
    for (mode, call, left) in
        [("kill-before", "1", 0), ("kill-after", "1", 1), ("kill-before", "3", 2), ("kill-after", "3", 3)]
    {
        let (directory, output) = trace(&[mode, call], script);
        assert_eq!(output.status.signal(), Some(9), "{output:?}");
        assert_eq!(names(&directory), ["a", "b", "c"][..left], "{mode} {call}");
        assert!(output.stdout.is_empty(), "it continued after {mode} {call}");
    }
}

#[test]
fn an_interruption_leaves_no_process_behind() {
    /// A limit for the end of a killed process, which takes milliseconds.
    const LIMIT: Duration = Duration::from_secs(60);
    let script = "sleep 600 >/dev/null 2>&1 & echo $!; mkdir a; wait";
    let (directory, output) = trace(&["kill-after", "1"], script);
    assert_eq!(output.status.signal(), Some(9));
    assert_eq!(names(&directory), ["a"]);
    let other = format!("/proc/{}/stat", String::from_utf8_lossy(&output.stdout).trim());
    let start = Instant::now();
    while fs::read_to_string(&other).is_ok_and(|state| !state.contains(") Z ")) {
        assert!(start.elapsed() < LIMIT, "a process is left: {other}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_failing_call_does_nothing() {
    let (directory, output) = trace(&["fail", "2", "ENOSPC"], "mkdir a; mkdir b; mkdir c");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(names(&directory), ["a", "c"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{output:?}");
}

#[test]
fn a_failing_read_is_one_of_the_program_itself() {
    let reads = "mkdir a; (cd a; cat ../none) 2>/dev/null; [ -d a ] && echo found || echo not found; echo end > a/b";
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("log");
    let (_, output) = trace(&["list-reads", log.to_str().unwrap()], reads);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "found\n", "{output:?}");
    let calls = Recording::read(&log).unwrap().calls;
    assert!(calls.iter().all(|call| call.shown.starts_with("read ")), "{calls:?}");
    let number = calls.iter().position(|call| call.shown.ends_with(" a")).unwrap() + 1;
    let (directory, output) = trace(&["fail-read", &number.to_string()], reads);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "not found\n", "{output:?}");
    assert!(directory.path().join("a/b").exists());
}

#[test]
fn a_killed_program_is_recorded_up_to_the_call() {
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("log");
    let (directory, output) = trace(&["record-killed", "3", log.to_str().unwrap(), ""], "mkdir a; mkdir b; mkdir c");
    assert_eq!(output.status.signal(), Some(9), "{output:?}");
    assert_eq!(names(&directory), ["a", "b"]);
    let recording = Recording::read(&log).unwrap();
    let shown: Vec<_> = recording.calls.iter().map(|call| call.shown.as_str()).collect();
    assert_eq!(shown, ["make a", "make b"]);
}

#[test]
fn changes_outside_the_directory_and_reads_do_not_count() {
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("log");
    let script = "echo x >/dev/null; cat /dev/null; mkdir -p /tmp; mkfifo p; (cat p >/dev/null) & echo y >p; wait; ls";
    let (_, output) = trace(&["record", log.to_str().unwrap(), ""], script);
    assert!(output.status.success(), "{output:?}");
    let shown: Vec<_> = Recording::read(&log).unwrap().calls.into_iter().map(|call| call.shown).collect();
    // The FIFO is made, and opened with O_CREAT; data in a FIFO is not stored.
    assert!(shown.iter().all(|call| call.starts_with("make ") || call.starts_with("open ")), "{shown:?}");
    assert_eq!(shown.len(), 2, "{shown:?}");
}

#[test]
fn a_recording_contains_every_effect() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let device = directory.path().join("device");
    fs::create_dir(&device).unwrap();
    fs::write(device.join("old"), "content").unwrap();
    let script = "echo more >>old; ln old second; ln -s x link; mkdir d; mv second d/third; chmod 600 old; \
                  touch -d @5 old; rm link; mkdir d; sync d";
    trace_in(&device, &["record", log.to_str().unwrap(), ""], script);
    let recording = Recording::read(&log).unwrap();
    let old = fs::metadata(device.join("old")).unwrap().ino();
    let done = recording.calls.iter().filter(|call| call.done);
    let operations: Vec<_> = done.filter_map(|call| call.operation.clone()).collect();
    let has = |what: &str, found: &dyn Fn(&Operation) -> bool| {
        assert!(operations.iter().any(found), "no {what} in {:#?}", recording.calls);
    };
    has(
        "write",
        &|operation| matches!(operation, Operation::Write { inode, offset: 7, data } if *inode == old && data == b"more\n"),
    );
    has("link", &|operation| matches!(operation, Operation::Names(changes) if changes[0].to == Some(old)));
    has("rename", &|operation| matches!(operation, Operation::Names(changes) if changes.len() == 2));
    has("mode", &|operation| matches!(operation, Operation::Mode { mode: 0o100600, .. }));
    has("time", &|operation| matches!(operation, Operation::Modified { modified: (5, 0), .. }));
    has("removal", &|operation| matches!(operation, Operation::Names(changes) if changes[0].to.is_none()));
    has("sync", &|operation| matches!(operation, Operation::Sync { .. }));
    assert!(recording.calls.iter().any(|call| !call.done), "the second mkdir d fails");
    assert_eq!(recording.before.inodes.len(), 2, "the directory and the file in it");
}

#[test]
fn a_failed_sync_is_reported_again_for_its_own_file_system_and_once() {
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("log");
    let script = "mkdir data; echo x >a; sync a || echo a; sync a || echo again; sync -f data || echo data
        sync -f . || echo file system; sync -f . || echo file system again";
    let (_, output) = trace(&["record-failing", "4", "data", log.to_str().unwrap(), ""], script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\nfile system\n", "{output:?}");
    let calls = Recording::read(&log).unwrap().calls;
    let syncs: Vec<_> = calls.iter().filter(|call| call.is_sync).map(|call| call.operation.clone().unwrap()).collect();
    assert!(matches!(syncs[0], Operation::FailedSync(_)), "{syncs:?}");
    // It has written everything else.
    assert!(matches!(syncs[3], Operation::SyncFileSystem { .. }), "{syncs:?}");
}
