//! The command line of the executable: usage, exit codes, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const RIGHT: &str = "tests/modules/right";
const PAYLOAD: &str = "tests/payload";

/// The exit code, standard output and standard error of a run in the directory of the crate.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mender-update-module-test"));
    let output = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), stdout, stderr)
}

#[test]
fn the_version_is_printed() {
    let expected = format!("mender-update-module-test {}\n", env!("CARGO_PKG_VERSION"));
    for option in ["--version", "-V"] {
        assert_eq!(run(&[option]), (Some(0), expected.clone(), String::new()));
    }
}

#[test]
fn help_names_every_exit_code() {
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for line in ["  0    ", "  1    ", "  2    ", "  101  "] {
        assert!(stdout.lines().any(|shown| shown.starts_with(line)), "{line}: {stdout}");
    }
}

#[test]
fn options_before_the_module_are_refused() {
    for arguments in [&["--list", RIGHT, PAYLOAD][..], &[RIGHT, "--list", PAYLOAD], &["--list"], &[RIGHT, "--list"]] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(stderr.starts_with("invalid command line: --list before "), "{stderr}");
        assert!(stderr.contains(": write MODULE PAYLOAD --list\n"), "{stderr}");
    }
    let (code, _, stderr) = run(&[RIGHT]);
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with("invalid command line: PAYLOAD is missing"), "{stderr}");
}

#[test]
fn a_filter_that_matches_nothing_fails() {
    let (code, stdout, stderr) = run(&[RIGHT, PAYLOAD, "instal-commit"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.ends_with("no test matches instal-commit: --list shows the tests\n"), "{stderr}");
    assert_eq!(run(&[RIGHT, PAYLOAD, "--exact", "unknown-state"]).0, Some(1));
    assert_eq!(run(&[RIGHT, PAYLOAD, "--exact", "conformance: unknown-state"]).0, Some(0));
    assert_eq!(run(&[RIGHT, PAYLOAD, "unknown-state"]).0, Some(0));
}

#[test]
fn a_failed_test_exits_with_101() {
    assert_eq!(run(&["tests/modules/installs-nothing", PAYLOAD, "install-commit"]).0, Some(101));
}

#[test]
fn a_module_that_cannot_be_executed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("module");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o644)).unwrap();
    let path = script.to_str().unwrap();
    let expected = format!("invalid module {path}: it is not executable: run chmod +x {path}\n");
    let (code, _, stderr) = run(&[path, PAYLOAD]);
    assert_eq!((code, stderr), (Some(1), expected));
    let (code, _, stderr) = run(&["tests/modules", PAYLOAD]);
    let expected = "invalid module tests/modules: it is a directory: give the path of the executable\n";
    assert_eq!((code, stderr.as_str()), (Some(1), expected));
}

#[test]
fn parts_that_are_not_compared_are_named_once_before_the_tests() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("files")).unwrap();
    fs::write(directory.path().join("files/dest"), "@DEVICE@/app.conf").unwrap();
    let payload = directory.path().to_str().unwrap();
    let (code, _, stderr) = run(&[RIGHT, payload, "unknown-state"]);
    let expected = "payload: no new/: what an update installs is not compared\n\
                    payload: no previous/: every update is a first install\n";
    assert_eq!((code, stderr.as_str()), (Some(0), expected));
    assert_eq!(run(&[RIGHT, payload, "--list"]).2, "");
    assert_eq!(run(&[RIGHT, PAYLOAD, "unknown-state"]).2, "");
}
