//! The executable, called by a mock of the client, on real directories.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use mender_update_module_test::{Generation, MockClient, Outcome, Snapshot};

/// A device with a previous file, and the path of that file.
fn device() -> (MockClient, PathBuf) {
    let client = MockClient::new(env!("CARGO_BIN_EXE_fireplace"), Generation::V5).unwrap();
    let file = client.device().join("etc/fireplace.conf");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "previous").unwrap();
    client.set("fireplace", &format!("file = {file:?}\n")).unwrap();
    (client, file)
}

fn download(client: &MockClient, files: &[(&str, &str)]) -> Outcome {
    let files: Vec<_> = files.iter().map(|(name, content)| (OsStr::new(*name), content.as_bytes())).collect();
    client.download(&files).unwrap()
}

fn succeed(client: &MockClient, states: &[&str]) {
    for state in states {
        let outcome = client.call(state).unwrap();
        assert!(outcome.success(), "{state}: {outcome:?}");
    }
}

#[test]
fn an_update_is_committed() {
    let (client, file) = device();
    assert!(download(&client, &[("any name", "new")]).success());
    assert_eq!(fs::read_to_string(&file).unwrap(), "previous", "Download must not change the active file");
    succeed(&client, &["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
}

#[test]
fn a_rollback_restores_exactly_the_previous_version() {
    let (client, file) = device();
    let previous = Snapshot::of(file.parent().unwrap()).unwrap();
    assert!(download(&client, &[("any name", "new")]).success());
    succeed(&client, &["ArtifactInstall", "ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert!(Snapshot::of(file.parent().unwrap()).unwrap() == previous);
}

#[test]
fn an_artifact_without_a_file_or_with_two_is_refused() {
    let (client, file) = device();
    for files in [&[][..], &[("one", "new"), ("two", "new")]] {
        assert!(!download(&client, files).success(), "{files:?} were accepted");
        succeed(&client, &["Cleanup"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "previous");
    }
}

#[test]
fn a_directory_that_was_replaced_between_two_calls_is_refused() {
    for replaced in ["etc", ".etc.fireplace"] {
        let (client, file) = device();
        assert!(download(&client, &[("any name", "new")]).success());
        let (path, aside) = (client.device().join(replaced), client.device().join("aside"));
        fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        assert!(!client.call("ArtifactInstall").unwrap().success(), "{replaced} is a symlink now");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("fireplace.conf"), "foreign").unwrap();
        assert!(!client.call("ArtifactInstall").unwrap().success(), "{replaced} is another directory now");
        fs::remove_dir_all(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "previous");
        succeed(&client, &["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }
}
