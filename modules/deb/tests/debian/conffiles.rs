//! Configuration files that somebody has changed on the device.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::{Duration, UNIX_EPOCH};

use mock_client::debian::Package;

use crate::device::{Device, app};

const CHANGED: &str = "changed on the device\n";

/// A device with a changed configuration file that has a past, and one that its package has given up.
fn changed() -> Device {
    let device = Device::new(&[app("0.9").conffile("/etc/app.old.conf", "given up\n")]);
    device.system().install_packages(&[app("1.0").build().unwrap()]).unwrap();
    device.write("/etc/app.conf", CHANGED);
    device.write("/etc/app.conf.dpkg-old", "of long ago\n");
    let path = device.path("/etc/app.conf");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    chown(&path, Some(0), Some(8)).unwrap();
    File::open(&path).unwrap().set_modified(UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321)).unwrap();
    device
}

#[test]
fn the_policy_decides_and_rollback_is_exact() {
    for (meta_data, live) in [
        ("null", CHANGED),
        (r#"{"conffiles": "keep"}"#, CHANGED),
        (r#"{"conffiles": "default"}"#, CHANGED),
        (r#"{"conffiles": "replace"}"#, "the settings of 2.0\n"),
    ] {
        let mut device = changed();
        let old = device.state();
        device.client.set_meta_data(meta_data);
        device.install(&[app("2.0")]);
        assert_eq!(device.text("/etc/app.conf"), live, "{meta_data}");
        assert_eq!(device.version("app"), "ii 2.0");
        device.roll_back();
        device.is_as_before(&old);
    }
}

#[test]
fn the_device_has_the_last_word() {
    let mut device = changed();
    device.client.set("deb", "conffiles = \"keep\"\n").unwrap();
    device.client.set_meta_data(r#"{"conffiles": "replace"}"#);
    device.install(&[app("2.0")]);
    assert_eq!(device.text("/etc/app.conf"), CHANGED);
}

#[test]
fn a_removed_conffile_stays_removed_and_a_symlink_a_symlink() {
    let device = Device::new(&[app("1.0").conffile("/etc/app.d/more", "more of 1.0\n")]);
    std::fs::remove_file(device.path("/etc/app.conf")).unwrap();
    std::fs::rename(device.path("/etc/app.d/more"), device.path("/etc/real")).unwrap();
    device.write("/etc/real", "elsewhere\n");
    symlink("../real", device.path("/etc/app.d/more")).unwrap();
    let old = device.state();
    device.install(&[app("2.0").conffile("/etc/app.d/more", "more of 2.0\n")]);
    device.roll_back();
    device.is_as_before(&old);
}

#[test]
fn a_package_that_was_removed_but_not_purged_is_so_again() {
    let device = changed();
    device.run(&["dpkg", "--remove", "app"]);
    let old = device.state();
    assert!(device.version("app").starts_with("rc"));
    device.install(&[app("2.0").script("postrm", "exit 0").conffile("/etc/new.conf", "")]);
    assert_eq!(device.version("app"), "ii 2.0");
    device.roll_back();
    device.is_as_before(&old);
}

#[test]
fn a_new_package_leaves_a_file_of_that_name_as_it_was() {
    let device = Device::new(&[]);
    device.write("/etc/app.conf", "nobody's\n");
    let old = device.state();
    device.install(&[app("1.0"), Package::new("x", "1").conffile("/etc/x.d/x", "x")]);
    device.roll_back();
    device.is_as_before(&old);
    assert_eq!(device.text("/etc/app.conf"), "nobody's\n");
}
