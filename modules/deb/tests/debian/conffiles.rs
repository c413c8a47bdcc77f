//! Configuration files that were changed on the device.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::{Duration, UNIX_EPOCH};

use mender_update_module_test::debian::Package;

use crate::device::{Device, app};

const CHANGED: &str = "changed on the device\n";

/// A device with a changed configuration file, an earlier version of it, and an obsolete configuration file.
fn changed_device() -> Device {
    let device = Device::new(&[app("0.9").conffile("/etc/app.old.conf", "obsolete\n")]);
    device.system().install_packages(&[app("1.0").build().unwrap()]).unwrap();
    device.write("/etc/app.conf", CHANGED);
    device.write("/etc/app.conf.dpkg-old", "an earlier version\n");
    let path = device.path("/etc/app.conf");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    chown(&path, Some(0), Some(8)).unwrap();
    File::open(&path).unwrap().set_modified(UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321)).unwrap();
    device
}

#[test]
fn every_policy_is_followed_and_rolled_back() {
    for (meta_data, active) in [
        ("null", CHANGED),
        (r#"{"conffiles": "keep"}"#, CHANGED),
        (r#"{"conffiles": "default"}"#, CHANGED),
        (r#"{"conffiles": "replace"}"#, "the settings of 2.0\n"),
    ] {
        let mut device = changed_device();
        let previous = device.state();
        device.client.set_meta_data(meta_data);
        device.install(&[app("2.0")]);
        assert_eq!(device.text("/etc/app.conf"), active, "{meta_data}");
        assert_eq!(device.version("app"), "ii 2.0");
        device.roll_back();
        device.assert_state(&previous);
    }
}

#[test]
fn the_devices_setting_overrides_the_artifact() {
    let mut device = changed_device();
    device.client.set("deb", "conffiles = \"keep\"\n").unwrap();
    device.client.set_meta_data(r#"{"conffiles": "replace"}"#);
    device.install(&[app("2.0")]);
    assert_eq!(device.text("/etc/app.conf"), CHANGED);
}

#[test]
fn removed_conffiles_and_symlinks_are_restored() {
    let device = Device::new(&[app("1.0").conffile("/etc/app.d/more", "more of 1.0\n")]);
    std::fs::remove_file(device.path("/etc/app.conf")).unwrap();
    std::fs::rename(device.path("/etc/app.d/more"), device.path("/etc/real")).unwrap();
    device.write("/etc/real", "elsewhere\n");
    symlink("../real", device.path("/etc/app.d/more")).unwrap();
    let previous = device.state();
    device.install(&[app("2.0").conffile("/etc/app.d/more", "more of 2.0\n")]);
    device.roll_back();
    device.assert_state(&previous);
}

#[test]
fn a_package_in_the_state_config_files_is_restored() {
    let device = changed_device();
    device.run(&["dpkg", "--remove", "app"]);
    let previous = device.state();
    assert!(device.version("app").starts_with("rc"));
    device.install(&[app("2.0").script("postrm", "exit 0").conffile("/etc/new.conf", "")]);
    assert_eq!(device.version("app"), "ii 2.0");
    device.roll_back();
    device.assert_state(&previous);
}

#[test]
fn a_file_with_the_name_of_a_new_conffile_is_restored() {
    let device = Device::new(&[]);
    device.write("/etc/app.conf", "of no package\n");
    let previous = device.state();
    device.install(&[app("1.0"), Package::new("x", "1").conffile("/etc/x.d/x", "x")]);
    device.roll_back();
    device.assert_state(&previous);
    assert_eq!(device.text("/etc/app.conf"), "of no package\n");
}
