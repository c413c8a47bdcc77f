//! Kept paths.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use mender_update_module_test::Generation;

use crate::device::{Device, age, refused, then};

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
fn single_files_of_directories_are_kept() {
    for in_artifact in [false, true] {
        let device = Device::filled(Generation::V5);
        device.client.set("directory", "keep = [\"uploads/p*\", \"uploads/deep/letter\"]\n").unwrap();
        fs::write(device.destination.join("uploads/other"), "").unwrap();
        age(&device.destination);
        if in_artifact {
            fs::create_dir_all(device.source.join("uploads/deep")).unwrap();
        }
        let modified = |name: &str| fs::metadata(device.destination.join(name)).unwrap().modified().unwrap();
        let previous = device.active();
        device.install(&device.tar(&["--format=posix"]));
        assert_eq!(
            (device.text("uploads/photo"), device.text("uploads/deep/letter")),
            ("of me".into(), "to you".into())
        );
        assert!(!device.destination.join("uploads/other").exists());
        for directory in ["uploads", "uploads/deep"] {
            assert_eq!(modified(directory) == then(), !in_artifact, "{directory}, {in_artifact}");
        }
        device.ok("ArtifactRollback");
        assert_eq!(device.active(), previous);
    }
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

#[test]
fn kept_directories_have_their_attributes_and_may_be_empty_or_contain_symlinks() {
    let device = Device::filled(Generation::V5);
    device.client.set("directory", "keep = [\"uploads/**\", \"var/spool\"]\n").unwrap();
    let (uploads, spool) = (device.destination.join("uploads"), device.destination.join("var/spool"));
    fs::create_dir_all(&spool).unwrap();
    symlink("photo", uploads.join("latest")).unwrap();
    for directory in [&uploads, &spool] {
        if device.is_root() {
            chown(directory, Some(1001), Some(1002)).unwrap();
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(0o2770)).unwrap();
    }
    age(&device.destination);
    // With another owner and mode, and another time.
    fs::create_dir(device.source.join("uploads")).unwrap();
    let attributes = || {
        ["uploads", "uploads/deep", "var", "var/spool"].map(|name| {
            let found = fs::symlink_metadata(device.destination.join(name)).unwrap();
            (name, found.uid(), found.gid(), found.mode(), found.modified().unwrap())
        })
    };
    let (before, previous) = (attributes(), device.active());
    device.install(&device.tar(&["--format=posix"]));
    assert_eq!(attributes(), before);
    assert_eq!(fs::read_link(uploads.join("latest")).unwrap().to_str(), Some("photo"));
    device.ok("ArtifactRollback");
    assert_eq!(device.active(), previous);
}
