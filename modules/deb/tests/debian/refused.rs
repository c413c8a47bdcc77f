//! Refused updates: the system is unchanged, and the deployment log names the package and the reason.

use std::fs::File;
use std::thread;
use std::time::Duration;

use mender_update_module_test::debian::Package;
use rustix::fs::{FlockOperation, fcntl_lock};

use crate::device::{Device, app};

#[test]
fn a_missing_dependency() {
    let device = Device::new(&[app("1.0")]);
    device.assert_refused(&[app("2.0").field("Depends", "libmissing (>= 3)")], &["app", "libmissing (>= 3)"]);
}

#[test]
fn a_held_package() {
    let device = Device::new(&[app("1.0")]);
    device.run(&["apt-mark", "hold", "app"]);
    device.assert_refused(&[app("2.0")], &["app", "held"]);
}

#[test]
fn a_package_for_another_machine() {
    let device = Device::new(&[]);
    device.assert_refused(&[Package::new("app", "1").field("Architecture", "s390x")], &["app", "s390x"]);
}

#[test]
fn an_unrequested_removal_and_one_of_an_essential_package() {
    let mut device = Device::new(&[app("1.0")]);
    device.assert_refused(&[Package::new("enemy", "1").field("Conflicts", "app")], &["app", "would be removed"]);
    device.client.set_meta_data(r#"{"remove": ["hostname"]}"#);
    device.assert_refused(&[], &["hostname", "essential"]);
}

#[test]
fn an_update_that_does_not_fit() {
    let device = Device::new(&[app("1.0")]);
    let terabytes = (8_u64 << 40 >> 10).to_string();
    device.assert_refused(
        &[app("2.0").field("Installed-Size", &terabytes)],
        &["free", "not enough space", "8796093022208 bytes"],
    );
    let device = Device::new(&[app("1.0").field("Installed-Size", &terabytes)]);
    device.assert_refused(&[app("2.0")], &["backing up the previous packages failed", "8796093022208 bytes"]);
}

#[test]
fn the_same_package_twice() {
    let device = Device::new(&[]);
    device.assert_refused(&[app("1.0"), app("2.0")], &["app", "twice"]);
}

#[test]
fn a_locked_database_is_waited_for_up_to_a_limit() {
    let device = Device::new(&[app("1.0")]);
    device.client.set("deb", "lock_seconds = 1\n").unwrap();
    for lock in ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/cache/apt/archives/lock"] {
        let file = File::options().write(true).create(true).truncate(false).open(device.path(lock)).unwrap();
        device.download(&[app("2.0")]);
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let log = device.fails("ArtifactInstall");
        assert!(log.contains(lock) && log.contains("lock_seconds"), "{log}");
        assert!(log.contains(&std::process::id().to_string()), "{log}");
        drop(file);
        device.roll_back();
    }
    device.client.set("deb", "lock_seconds = 600\n").unwrap();
    let file = File::options().write(true).open(device.path("/var/lib/dpkg/lock-frontend")).unwrap();
    device.download(&[app("2.0")]);
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(2));
            drop(file);
        });
        device.ok("ArtifactInstall");
    });
    assert_eq!(device.version("app"), "ii 2.0");
}

#[test]
fn another_package_manager_waits_for_the_end_of_a_rollback() {
    let device = Device::new(&[app("1.0")]);
    device.install(&[app("2.0")]);
    // No dpkg of the rollback runs meanwhile.
    let command = "env --unset=DPKG_FRONTEND_LOCKED dpkg --set-selections < /dev/null >> /run/other 2>&1 || true";
    device.write(
        "/etc/apt/apt.conf.d/99other",
        &format!("DPkg::Pre-Invoke {{ \"{command}\"; }};\nDPkg::Post-Invoke {{ \"{command}\"; }};\n"),
    );
    device.ok("ArtifactRollback");
    let errors = device.text("/run/other");
    assert_eq!(errors.matches("frontend lock").count(), 2, "{errors}");
    assert_eq!(device.version("app"), "ii 1.0");
}

#[test]
fn meta_data_with_a_mistake() {
    let mut device = Device::new(&[]);
    for bad in [r#"{"removes": ["app"]}"#, r#"{"remove": ["-o"]}"#, r#"{"conffiles": "ask"}"#] {
        device.client.set_meta_data(bad);
        let outcome = device.download_files(&[("a.deb", &app("1.0").build().unwrap())]);
        assert!(!outcome.success() && outcome.stderr.contains("meta-data"), "{bad}: {outcome:?}");
        device.ok("Cleanup");
    }
}
