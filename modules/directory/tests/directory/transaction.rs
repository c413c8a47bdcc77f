//! An update from its download to its end, in both forms.

use mock_client::Generation;

use crate::device::{Device, refused};

#[test]
fn the_official_payload_replaces_the_tree_and_rolls_back_exactly() {
    for generation in [Generation::V3, Generation::V5] {
        for commit in [false, true] {
            let device = Device::filled(generation);
            let old = device.live();
            assert!(device.download(&device.tar(&["--format=posix"])).success());
            assert_eq!(device.live(), old, "nothing is live before ArtifactInstall");
            device.ok("ArtifactInstall");
            assert_eq!(device.live(), device.expected());
            if commit {
                device.ok("ArtifactCommit");
            }
            for _ in 0..2 {
                device.ok("ArtifactRollback");
                assert_eq!(device.live(), old);
            }
            device.ok("ArtifactFailure");
            device.ok("Cleanup");
            assert_eq!(device.live(), old);
            assert!(device.is_clean());
        }
    }
}

#[test]
fn install_commit_and_cleanup_leave_exactly_the_new() {
    let device = Device::filled(Generation::V5);
    device.install(&device.tar(&["--format=posix"]));
    for state in ["ArtifactInstall", "ArtifactCommit", "ArtifactCommit", "Cleanup", "Cleanup"] {
        device.ok(state);
    }
    assert_eq!(device.live(), device.expected());
    assert!(device.is_clean());
}

#[test]
fn meta_data_name_the_destination_and_the_tree_streams() {
    let mut device = Device::filled(Generation::V5);
    let old = device.live();
    let destination = device.destination.clone();
    device.client.set_meta_data(format!(r#"{{"dest_dir": {destination:?}, "keep": ["*.db"], "other": 1}}"#));
    let outcome = device.download_files(&[("tree.tar", &device.tar(&[]))]);
    assert!(outcome.success(), "{outcome:?}");
    device.ok("ArtifactInstall");
    assert_eq!(device.text("index.html"), "the new index");
    assert_eq!(device.text("users.db"), "Ada");
    device.ok("ArtifactRollback");
    assert_eq!(device.live(), old);
    refused(device.download_files(&[("a.tar", &device.tar(&[])), ("b.tar", &device.tar(&[]))]), "b.tar");
    refused(device.download_files(&[]), "no archive");
}
