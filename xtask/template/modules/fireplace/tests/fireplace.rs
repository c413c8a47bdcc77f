//! The executable, called as the client calls it, on real directories.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use mock_client::{Generation, MockClient, Outcome, Snapshot};

/// A device with an old file, and the file.
fn device() -> (MockClient, PathBuf) {
    let client = MockClient::new(env!("CARGO_BIN_EXE_fireplace"), Generation::V5).unwrap();
    let file = client.device().join("etc/fireplace.conf");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "old").unwrap();
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
    assert_eq!(fs::read_to_string(&file).unwrap(), "old", "Download must not touch what is live");
    succeed(&client, &["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
}

#[test]
fn an_update_is_rolled_back_to_exactly_what_was_there() {
    let (client, file) = device();
    let old = Snapshot::of(file.parent().unwrap()).unwrap();
    assert!(download(&client, &[("any name", "new")]).success());
    succeed(&client, &["ArtifactInstall", "ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert!(Snapshot::of(file.parent().unwrap()).unwrap() == old);
}

#[test]
fn an_artifact_of_none_or_two_files_is_refused() {
    let (client, file) = device();
    for files in [&[][..], &[("one", "new"), ("two", "new")]] {
        assert!(!download(&client, files).success(), "{files:?} were taken");
        succeed(&client, &["Cleanup"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    }
}

#[test]
fn what_somebody_has_replaced_between_two_calls_is_refused() {
    for replaced in ["etc", ".etc.fireplace"] {
        let (client, file) = device();
        assert!(download(&client, &[("any name", "new")]).success());
        let (path, aside) = (client.device().join(replaced), client.device().join("aside"));
        fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        assert!(!client.call("ArtifactInstall").unwrap().success(), "{replaced} is a symlink now");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("fireplace.conf"), "theirs").unwrap();
        assert!(!client.call("ArtifactInstall").unwrap().success(), "{replaced} is another directory now");
        fs::remove_dir_all(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        succeed(&client, &["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }
}
