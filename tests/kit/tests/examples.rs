//! The library's examples, called by the mock client.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use mender_update_module_test::{Generation, MockClient};

/// The executable of the example `name`.
fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--package", "mender-update-module", "--examples"])
            .status();
        assert!(built.unwrap().success(), "the examples do not build");
        // target/debug/deps/examples-HASH is this test.
        env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples")
    });
    directory.join(name)
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
