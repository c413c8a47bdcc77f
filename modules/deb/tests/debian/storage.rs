//! Storage that loses writes.

use std::fs;
use std::path::Path;

use mender_update_module_test::debian::Package;
use mender_update_module_test::failing_storage::FailingStorage;

use crate::device::Device;

/// A device with version 1.0, whose directory `path` is on a storage that loses writes. `None` where it cannot be made.
fn device(path: &str) -> Option<(Device, FailingStorage)> {
    let device = Device::new(&[]);
    fs::create_dir_all(device.path(path)).unwrap();
    let storage = FailingStorage::mount(&device.path(path))?;
    device.dpkg(&[app("1.0").build().unwrap()]);
    Some((device, storage))
}

fn app(version: &str) -> Package {
    Package::new("app", version).file("/srv/app/version", version)
}

/// Version 2.0, whose maintainer script writes more to `file` than its storage has space for.
fn writing_too_much(file: &str) -> Package {
    app("2.0").script("postinst", &format!("#!/bin/sh\n{}\n", FailingStorage::writing_too_much(Path::new(file))))
}

#[test]
fn a_write_of_a_maintainer_script_that_is_lost_fails_the_install() {
    let Some((device, storage)) = device("/srv/app") else { return };
    device.download(&[writing_too_much("/srv/app/lost")]);
    let log = device.fails("ArtifactInstall");
    assert!(log.contains("syncing"), "{log}");
    storage.repair().unwrap();
    device.roll_back();
    assert_eq!(device.version("app"), "ii 1.0");
}

#[test]
fn a_write_that_is_lost_on_a_file_system_without_files_of_the_update_does_not_fail_it() {
    let Some((device, _storage)) = device("/boot") else { return };
    let log = device.install(&[writing_too_much("/boot/lost")]);
    assert!(log.contains("what maintainer scripts wrote may be lost"), "{log}");
    device.commit();
    assert_eq!(device.version("app"), "ii 2.0");
}

#[test]
fn a_write_that_was_lost_before_does_not_fail_the_install() {
    let Some((device, storage)) = device("/srv/app") else { return };
    device.download(&[app("2.0")]);
    storage.lose_a_write().unwrap();
    storage.repair().unwrap();
    let log = device.ok("ArtifactInstall");
    assert!(log.contains("before this update, a write was lost"), "{log}");
    device.commit();
}
