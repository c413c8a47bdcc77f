//! Kept paths.

use std::fs;

use mender_update_module_test::Generation;

use crate::device::{Device, refused, then};

#[test]
fn kept_paths_are_linked_and_the_previous_tree_does_not_change() {
    let device = Device::filled(Generation::V5);
    device.client.set("directory", "keep = [\"uploads/**\", \"*.db\", \"no such thing\"]\n").unwrap();
    // The artifact has these too: users' data win.
    fs::write(device.source.join("users.db"), "an example").unwrap();
    fs::create_dir(device.source.join("uploads")).unwrap();
    fs::write(device.source.join("uploads/README"), "of the artifact").unwrap();
    let previous = device.active();
    let top = fs::metadata(&device.source).unwrap().modified().unwrap();
    device.install(&device.tar(&["--format=posix"]));
    assert_eq!(device.text("users.db"), "Ada");
    assert_eq!(device.text("uploads/deep/letter"), "to you");
    assert_eq!(device.text("uploads/README"), "of the artifact");
    assert!(!device.destination.join("gone.html").exists());
    let modified = |name: &str| fs::metadata(device.destination.join(name)).unwrap().modified().unwrap();
    assert_eq!(modified("uploads/deep"), then());
    assert_eq!(modified(""), top, "a directory that something is kept in has its own time");
    device.ok("ArtifactRollback");
    assert_eq!(device.active(), previous);
}

#[test]
fn a_kept_path_that_is_a_directory_in_one_tree_only_is_refused() {
    let device = Device::filled(Generation::V5);
    device.client.set("directory", "keep = [\"users.db\"]\n").unwrap();
    fs::create_dir(device.source.join("users.db")).unwrap();
    let previous = device.active();
    assert!(device.download(&device.tar(&[])).success());
    refused(device.client.call("ArtifactInstall").unwrap(), "users.db");
    assert_eq!(device.active(), previous);
    device.ok("ArtifactRollback");
    device.ok("Cleanup");
    assert_eq!(device.active(), previous);
    assert!(device.is_clean());
}
