//! The library's examples, called by the mock client.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use mender_update_module_test::fault_injection::operation::Recording;
use mender_update_module_test::{Generation, MockClient, Outcome};

/// The executable of the example `name`. `cargo xtask test` names the directory of the workspace's executables.
fn example(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = || env::var_os("MENDER_TEST_EXECUTABLES").map_or_else(build, PathBuf::from);
    DIRECTORY.get_or_init(directory).join("examples").join(name)
}

/// Builds the examples, and returns the directory of the executables.
fn build() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", "mender-update-module", "--examples"])
        .status();
    assert!(built.unwrap().success(), "the examples do not build");
    // target/debug/deps/examples-HASH is this test.
    env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

fn client(name: &str) -> MockClient {
    MockClient::new(example(name), Generation::V5).unwrap()
}

#[test]
fn the_minimal_module_reads_its_payload() {
    let client = client("minimal");
    let outcome = client.download(&[(OsStr::new("a"), b"12345")]).unwrap();
    assert!(outcome.success() && outcome.stderr.contains("\"a\": 5 bytes"), "{outcome:?}");
    for state in ["ArtifactInstall", "ArtifactCommit", "Cleanup"] {
        assert!(client.call(state).unwrap().success(), "{state}");
    }
    assert_eq!(client.call("SupportsRollback").unwrap().stdout, "No\n");
}

#[test]
fn a_module_without_transactions_refuses_their_tables() {
    let client = client("minimal");
    client.set("minimal", "[health]\ntcp = \"127.0.0.1:1\"\n").unwrap();
    let outcome = client.download(&[(OsStr::new("a"), b"12345")]).unwrap();
    assert!(
        !outcome.success() && outcome.stderr.contains("table health: this module does not support it"),
        "{outcome:?}"
    );
}

#[test]
fn the_module_that_reboots_leaves_the_download_to_the_client() {
    let client = client("needs-reboot");
    assert!(client.download(&[(OsStr::new("other"), b"x")]).unwrap().success());
    let outcome = client.call("ArtifactInstall").unwrap();
    assert!(!outcome.success() && outcome.stderr.contains("has no file firmware.bin"), "{outcome:?}");
    assert_eq!(client.call("NeedsArtifactReboot").unwrap().stdout, "Automatic\n");
}

#[test]
fn the_module_in_transactions_installs_and_rolls_back() {
    let client = client("one-file");
    let directory = client.device().join("etc/app");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("app.conf");
    let ok = |state: &str| {
        let outcome = client.call(state).unwrap();
        assert!(outcome.success(), "{state}: {outcome:?}");
    };
    for previous in [Some("previous"), None] {
        match previous {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let read = || fs::read_to_string(&file).ok();
        client.set("one-file", &format!("file = {file:?}\n")).unwrap();
        assert!(client.download(&[(OsStr::new("app.conf"), b"new")]).unwrap().success());
        ok("ArtifactInstall");
        assert_eq!(read().as_deref(), Some("new"));
        ok("ArtifactRollback");
        assert_eq!(read().as_deref(), previous);
        ok("Cleanup");
        // A health check that fails rolls back at once.
        let health = "[health]\ncommand = [\"false\"]\nlimit_seconds = 1\nstable_seconds = 0\n";
        client.set("one-file", &format!("file = {file:?}\n{health}")).unwrap();
        assert!(client.download(&[(OsStr::new("app.conf"), b"new")]).unwrap().success());
        let outcome = client.call("ArtifactInstall").unwrap();
        assert!(outcome.stderr.contains("rolled back to the previous version"), "{outcome:?}");
        assert_eq!(read().as_deref(), previous);
        ok("ArtifactRollback");
        ok("Cleanup");
    }
}

/// The module in transactions with a previous version of its file, before the client calls `state`.
fn before(state: &str) -> (MockClient, PathBuf) {
    let client = client("one-file");
    // The staging directory is beside the directory of the file: the tracer sees only what is below the device.
    let file = client.device().join("etc/app.conf");
    fs::create_dir(client.device().join("etc")).unwrap();
    fs::write(&file, "previous").unwrap();
    client.set("one-file", &format!("file = {file:?}\n")).unwrap();
    for earlier in ["Download", "ArtifactInstall", "ArtifactCommit"].iter().take_while(|earlier| **earlier != state) {
        assert!(call(&client, earlier).success(), "{earlier}");
    }
    (client, file)
}

fn call(client: &MockClient, state: &str) -> Outcome {
    let download = || client.download(&[(OsStr::new("app.conf"), b"new")]);
    if state == "Download" { download().unwrap() } else { client.call(state).unwrap() }
}

/// Calls `state` under the tracer in the mode `mode`.
fn traced(client: &mut MockClient, state: &str, mode: &[&str]) -> Outcome {
    let tracer = [env!("CARGO_BIN_EXE_mender-update-module-test"), "--mender-update-module-tracer"];
    let device = client.device().to_str().unwrap().to_owned();
    client.wrap([&tracer[..], &[&device], mode, &["--"]].concat());
    let outcome = call(client, state);
    client.wrap([""; 0]);
    outcome
}

#[test]
fn a_failed_sync_fails_the_state_and_the_previous_version_stays() {
    for state in ["Download", "ArtifactInstall", "ArtifactCommit"] {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("calls.log");
        assert!(traced(&mut before(state).0, state, &["list", log.to_str().unwrap()]).success());
        let calls = Recording::read(&log).unwrap().calls;
        let syncs = (1..).zip(&calls).filter(|(_, call)| call.shown.starts_with("sync "));
        let syncs: Vec<_> = syncs.map(|(number, call)| (number.to_string(), &call.shown)).collect();
        assert!(!syncs.is_empty(), "{state} syncs nothing: {calls:?}");
        for (number, shown) in syncs {
            let (mut client, file) = before(state);
            let outcome = traced(&mut client, state, &["fail", &number, "EIO"]);
            assert_eq!(outcome.status.code(), Some(1), "{state}: EIO from {shown}: {outcome}");
            assert!(outcome.stderr.contains("Input/output error"), "{state}: EIO from {shown}: {outcome}");
            for next in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
                assert!(call(&client, next).success(), "{state}: EIO from {shown}, then {next}");
            }
            assert_eq!(fs::read_to_string(&file).unwrap(), "previous", "{state}: EIO from {shown}");
        }
    }
}
