//! Whole updates, in both forms of the payload.

use std::path::Path;

use mender_update_module_test::Generation;

use crate::device::{Device, refused};

#[test]
fn the_payload_of_menders_module_is_installed_and_rolled_back_exactly() {
    for generation in [Generation::V3, Generation::V5] {
        for commit in [false, true] {
            let device = Device::filled(generation);
            let previous = device.active();
            assert!(device.download(&device.tar(&["--format=posix"])).success());
            assert_eq!(device.active(), previous, "nothing changes before ArtifactInstall");
            device.ok("ArtifactInstall");
            assert_eq!(device.active(), device.expected());
            if commit {
                device.ok("ArtifactCommit");
            }
            for _ in 0..2 {
                device.ok("ArtifactRollback");
                assert_eq!(device.active(), previous);
            }
            device.ok("ArtifactFailure");
            device.ok("Cleanup");
            assert_eq!(device.active(), previous);
            assert!(device.is_clean());
        }
    }
}

#[test]
fn install_commit_and_cleanup_leave_exactly_the_new_version() {
    let device = Device::filled(Generation::V5);
    device.install(&device.tar(&["--format=posix"]));
    for state in ["ArtifactInstall", "ArtifactCommit", "ArtifactCommit", "Cleanup", "Cleanup"] {
        device.ok(state);
    }
    assert_eq!(device.active(), device.expected());
    assert!(device.is_clean());
}

#[test]
fn the_destination_can_be_in_the_meta_data() {
    let mut device = Device::filled(Generation::V5);
    let previous = device.active();
    let destination = device.destination.clone();
    device.client.set_meta_data(format!(r#"{{"dest_dir": {destination:?}, "keep": ["*.db"], "other": 1}}"#));
    let outcome = device.download_files(&[("tree.tar", &device.tar(&[]))]);
    assert!(outcome.success(), "{outcome:?}");
    device.ok("ArtifactInstall");
    assert_eq!(device.text("index.html"), "the new index");
    assert_eq!(device.text("users.db"), "Ada");
    device.ok("ArtifactRollback");
    assert_eq!(device.active(), previous);
    refused(device.download_files(&[("a.tar", &device.tar(&[])), ("b.tar", &device.tar(&[]))]), "b.tar");
    refused(device.download_files(&[]), "no archive");
}

#[test]
fn the_status_names_the_directory_with_the_previous_version() {
    let device = Device::filled(Generation::V5);
    device.install(&device.tar(&[]));
    device.ok("ArtifactInstall");
    let output = device.client.by_hand(&["--status"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let kept = text.lines().find_map(|line| line.strip_prefix("kept in:   ")).unwrap();
    assert!(Path::new(kept).join("new/users.db").exists(), "{text}");
}
