//! Files that a rebuilt package restores.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use mender_update_module_test::debian::Package;
use rustix::fs::{XattrFlags, setxattr};

use crate::device::{Device, app};

/// A device whose package was changed by hand in many ways.
fn changed_by_hand() -> Device {
    let long = format!("/usr/share/app/{}/{}", "long".repeat(30), "name".repeat(40));
    let device = Device::new(&[app("1.0")
        .file("/usr/share/app/removed", "removed by hand")
        .file("/usr/share/app/linked", "one of two names")
        .file("/usr/share/app/name with spaces \u{e4}", "x")
        .file("/usr/share/app/directory/in", "y")
        .file(&long, "z")]);
    let path = |name: &str| device.path("/usr/share/app").join(name);
    fs::remove_file(path("removed")).unwrap();
    fs::write(path("data"), "changed by hand").unwrap();
    fs::set_permissions(path("data"), fs::Permissions::from_mode(0o4750)).unwrap();
    chown(path("data"), Some(1), Some(2)).unwrap();
    fs::set_permissions(path("data"), fs::Permissions::from_mode(0o4750)).unwrap();
    setxattr(path("data"), "user.origin", b"by hand", XattrFlags::CREATE).unwrap();
    fs::rename(path("directory"), device.path("/srv/directory")).unwrap();
    symlink("/srv/directory", path("directory")).unwrap();
    device
}

#[test]
fn a_package_changed_by_hand_is_restored_with_the_changes() {
    let device = changed_by_hand();
    let previous = device.state();
    device.install(&[app("2.0").file("/usr/share/app/linked", "new")]);
    device.roll_back();
    device.assert_state(&previous);
}

#[test]
fn files_of_no_package_are_restored_where_a_new_package_replaces_them() {
    let device = Device::new(&[app("1.0")]);
    fs::create_dir_all(device.path("/opt/mine/empty")).unwrap();
    device.write("/opt/mine/file", "mine");
    symlink("file", device.path("/opt/mine/link")).unwrap();
    let previous = device.state();
    let new = Package::new("new", "1")
        .file("/opt/mine/file", "of the package")
        .file("/opt/mine/link", "of the package")
        .file("/opt/mine/empty/file", "of the package")
        .file("/opt/new/file", "of the package");
    device.install(&[new]);
    assert_eq!(device.text("/opt/mine/file"), "of the package");
    device.roll_back();
    device.assert_state(&previous);
    assert_eq!(device.text("/opt/mine/file"), "mine");
}

#[test]
fn a_diverted_file_stays_diverted() {
    let device = Device::new(&[app("1.0")]);
    device.run(&[
        "dpkg-divert",
        "--local",
        "--rename",
        "--divert",
        "/usr/share/app/data.mine",
        "--add",
        "/usr/share/app/data",
    ]);
    device.write("/usr/share/app/data", "mine");
    let previous = device.state();
    device.install(&[app("2.0")]);
    assert_eq!(device.text("/usr/share/app/data.mine"), "the data of 2.0");
    device.roll_back();
    device.assert_state(&previous);
    assert_eq!(device.text("/usr/share/app/data"), "mine");
}

#[test]
fn a_package_of_debian_is_rebuilt_and_restored() {
    // Essential, and with documentation that dpkg is configured to leave out.
    let device = Device::new(&[]);
    let version = device.version("hostname").trim_start_matches("ii ").to_owned();
    let architecture = device.run(&["dpkg", "--print-architecture"]);
    let previous = device.state();
    let newer = Package::new("hostname", &format!("{version}+new"))
        .field("Architecture", architecture.trim())
        .field("Essential", "yes")
        .file("/usr/bin/hostname", "#!/bin/sh\necho new");
    device.install(&[newer]);
    assert_eq!(device.run(&["hostname"]), "new\n");
    device.roll_back();
    device.assert_state(&previous);
    assert_ne!(device.run(&["hostname"]), "new\n");
}
