//! Destinations that are accepted, and those that are refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use mender_update_module_test::privileged::Mounted;
use mender_update_module_test::{Generation, Snapshot};

use crate::device::{Device, refused};

#[test]
fn a_first_install_makes_its_parents_and_rolls_back_to_nothing() {
    for generation in [Generation::V3, Generation::V5] {
        let device = Device::new(generation);
        device.install(&device.tar(&["--format=posix"]));
        assert_eq!(device.active(), device.expected());
        device.ok("ArtifactRollback");
        assert!(!device.client.device().join("srv").exists());
        device.ok("Cleanup");
        assert!(device.is_clean());
    }
}

#[test]
fn destinations_that_cannot_be_replaced_are_refused() {
    let device = Device::filled(Generation::V3);
    let previous = device.active();
    let file = device.client.device().join("file");
    fs::write(&file, "").unwrap();
    let datastore = device.client.datastore();
    for (dest_dir, words) in [
        ("/", "root"),
        ("//", "root"),
        ("/.\n", "root"),
        ("/etc/..", "'..'"),
        ("", "absolute"),
        ("srv", "absolute"),
        ("/proc", "mount point"),
        ("/srv/\0x", "NUL"),
        (file.to_str().unwrap(), "not a directory"),
        (datastore.to_str().unwrap(), "client's data"),
        (device.client.device().to_str().unwrap(), "client's data"),
    ] {
        refused(device.download_files(&[("dest_dir", dest_dir.as_bytes()), ("update.tar", &device.tar(&[]))]), words);
        device.ok("Cleanup");
        assert_eq!(device.active(), previous);
    }
    refused(device.download_files(&[("update.tar", &device.tar(&[]))]), "no destination");
    refused(device.download_files(&[("destdir", b"/srv/x")]), "destdir");
    assert!(device.is_clean());
}

#[test]
fn the_target_of_a_symlink_is_replaced() {
    let device = Device::filled(Generation::V3);
    let real = device.client.device().join("real");
    fs::rename(&device.destination, &real).unwrap();
    symlink(&real, &device.destination).unwrap();
    let previous = Snapshot::of(&real).unwrap();
    device.install(&device.tar(&["--format=posix"]));
    assert!(device.destination.is_symlink());
    assert_eq!(Snapshot::of(&real).unwrap().below(&real), device.expected());
    device.ok("ArtifactRollback");
    assert_eq!(Snapshot::of(&real).unwrap(), previous);
}

#[test]
fn a_payload_that_does_not_fit_fails_early_with_the_figures() {
    let device = Device::filled(Generation::V5);
    device.client.set("directory", "reserve_mib = 1000000000\n").unwrap();
    let previous = device.active();
    refused(device.download(&device.tar(&[])), "stay free");
    device.ok("Cleanup");
    assert_eq!(device.active(), previous);
    assert!(device.is_clean());
}

#[test]
fn a_rollback_that_cannot_read_the_destination_fails() {
    let device = Device::new(Generation::V5);
    let parent = device.destination.parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    device.install(&device.tar(&["--format=posix"]));
    let aside = device.client.device().join("aside");
    fs::rename(parent, &aside).unwrap();
    symlink(parent, parent).unwrap(); // a loop
    refused(device.client.call("ArtifactRollback").unwrap(), device.destination.to_str().unwrap());
    fs::remove_file(parent).unwrap();
    fs::rename(&aside, parent).unwrap();
    device.ok("ArtifactRollback");
    assert!(!device.destination.exists());
}

#[test]
fn a_foreign_tree_in_the_destination_does_not_change() {
    let device = Device::filled(Generation::V3);
    device.install(&device.tar(&[]));
    fs::rename(&device.destination, device.client.device().join("taken away")).unwrap();
    fs::create_dir(&device.destination).unwrap();
    fs::write(device.destination.join("mine"), "mine").unwrap();
    refused(device.client.call("ArtifactRollback").unwrap(), "was replaced");
    assert_eq!(device.text("mine"), "mine");
    fs::remove_dir_all(&device.destination).unwrap();
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "the previous index");
}

#[test]
fn a_destination_that_appears_or_disappears_after_the_download_is_refused() {
    let device = Device::new(Generation::V5);
    fs::create_dir_all(device.destination.parent().unwrap()).unwrap();
    assert!(device.download(&device.tar(&[])).success());
    fs::create_dir(&device.destination).unwrap();
    fs::write(device.destination.join("mine"), "mine").unwrap();
    refused(device.client.call("ArtifactInstall").unwrap(), "was made after the download");
    for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
        device.ok(state);
    }
    assert_eq!(device.text("mine"), "mine");
    assert!(device.is_clean());
    assert!(device.download(&device.tar(&[])).success());
    let aside = device.client.device().join("aside");
    fs::rename(&device.destination, &aside).unwrap();
    refused(device.client.call("ArtifactInstall").unwrap(), "was removed or renamed after the download");
    for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
        device.ok(state);
    }
    assert!(!device.destination.exists() && aside.join("mine").exists() && device.is_clean());
}

#[test]
fn a_file_system_that_cannot_exchange_names_is_refused_in_download() {
    let mut device = Device::filled(Generation::V5);
    let before = device.active();
    // Only in the staging directory, and not for the journal.
    let staging = device.client.device().join("srv/.my app.directory");
    if !device.client.fail_call("renameat2", "EINVAL", &staging) {
        return;
    }
    refused(device.download(&device.tar(&[])), "RENAME_EXCHANGE");
    device.client.wrap::<&str>([]);
    device.ok("Cleanup");
    assert!(device.active() == before && device.is_clean());
}

#[test]
fn a_read_only_file_system_is_refused_in_download() {
    let mut device = Device::new(Generation::V5);
    let mounted = device.client.device().join("mounted");
    device.destination = mounted.join("app");
    let Some(_mounted) = Mounted::tmpfs(&mounted, "mode=755") else { return };
    let remounted = Command::new("mount").args(["--options=remount,ro"]).arg(&mounted).status().unwrap();
    assert!(remounted.success());
    refused(device.download(&device.tar(&[])), "read-only file system: remount it");
    device.ok("Cleanup");
}
