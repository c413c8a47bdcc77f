//! The health check.

use mender_update_module_test::Generation;

use crate::device::{Device, refused};

/// The limit of a health check that has to pass, in seconds: many times what a program needs to start.
const PASSES: u64 = 60;

#[test]
fn a_failed_health_check_rolls_back() {
    let device = Device::filled(Generation::V5);
    let previous = device.active();
    let check = device.destination.join("gone.html"); // only the previous tree has it
    let set_limit = |limit: u64| {
        let check = format!("command = [\"test\", \"-e\", {check:?}]\nlimit_seconds = {limit}\nstable_seconds = 0");
        device.client.set("directory", &format!("[health]\n{check}\n")).unwrap();
    };
    set_limit(1); // it fails
    assert!(device.download(&device.tar(&[])).success());
    refused(device.client.call("ArtifactInstall").unwrap(), "health check failed");
    assert_eq!(device.active(), previous);
    set_limit(PASSES);
    let rollback = device.client.call("ArtifactRollback").unwrap();
    assert!(rollback.success() && rollback.stderr.contains("health check passed"), "{rollback:?}");
    device.ok("Cleanup");
    assert!(device.is_clean());
}

#[test]
fn after_a_passed_health_check_the_new_version_stays_active() {
    let mut device = Device::filled(Generation::V3);
    let destination = device.destination.clone();
    let new = destination.join("bin/run me");
    // It passes after the install, and fails after the rollback, which takes all of the limit.
    let health = format!(r#"{{"command": ["test", "-e", {new:?}], "limit_seconds": 10, "stable_seconds": 0}}"#);
    device.client.set_meta_data(format!(r#"{{"dest_dir": {destination:?}, "health": {health}}}"#));
    assert!(device.download_files(&[("new.tar", &device.tar(&[]))]).success());
    device.ok("ArtifactInstall");
    assert_eq!(device.text("index.html"), "the new index");
    // A health check that fails after the rollback is reported, and the rollback has succeeded.
    let rollback = device.client.call("ArtifactRollback").unwrap();
    assert!(rollback.success() && rollback.stderr.contains("with the previous version active"), "{rollback:?}");
}

#[test]
fn the_health_check_of_the_device_takes_precedence_over_that_of_the_artifact() {
    let mut device = Device::filled(Generation::V5);
    let destination = device.destination.clone();
    let settings = "[health]\ncommand = [\"false\"]\nlimit_seconds = 1\nstable_seconds = 0\n";
    device.client.set("directory", settings).unwrap();
    device.client.set_meta_data(format!(
        r#"{{"dest_dir": {destination:?}, "health": {{"command": ["true"], "limit_seconds": 1, "stable_seconds": 0}}}}"#
    ));
    assert!(device.download_files(&[("new.tar", &device.tar(&[]))]).success());
    refused(device.client.call("ArtifactInstall").unwrap(), "health check failed");
}
