//! Rollbacks while other programs change packages: what they change stays, and does not fail the rollback.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use mender_update_module_test::debian::Package;

use crate::device::{Device, app, built};
use crate::raw::RawPackage;
use crate::relations::source;

/// The table of the previous version; it exists once the backup is complete.
const BACKUP: &str = "'/data/with spaces/update-modules/deb/old/tables.before'";

/// The file with the administrator's commands after dpkg.
const HOOK: &str = "/etc/apt/apt.conf.d/99test";

/// A device with `app` and packages that no update has.
fn device() -> Device {
    Device::new(&[app("1.0"), Package::new("other", "1"), Package::new("gone", "1")])
}

/// The packages that another program installs: an upgrade and a new one.
fn of_others() -> Vec<Vec<u8>> {
    built(&[Package::new("other", "2"), Package::new("fresh", "1")])
}

/// Rolls back. `app` is as before, and the packages of others stay.
fn roll_back_app_alone(device: &Device) {
    let log = device.ok("ArtifactRollback");
    assert!(log.contains("rollback complete") && log.contains("package other: changed by another program"), "{log}");
    let versions = ["app", "other", "fresh", "gone"].map(|package| device.version(package));
    assert_eq!(versions, ["ii 1.0", "ii 2", "ii 1", "ii 1"]);
    assert!(device.run(&["apt-mark", "showmanual"]).contains("fresh"));
}

#[test]
fn changes_of_other_programs_before_the_rollback_stay() {
    let device = device();
    device.install(&[app("2.0")]);
    device.dpkg(&of_others());
    device.run(&["dpkg", "--purge", "gone"]);
    device.run(&["apt-mark", "hold", "other"]);
    let log = device.ok("ArtifactRollback");
    assert!(log.contains("rollback complete") && log.contains("package other: changed by another program"), "{log}");
    assert_eq!(device.version("app"), "ii 1.0");
    assert_eq!(device.version("other"), "hi 2");
    assert_eq!(device.version("fresh"), "ii 1");
}

#[test]
fn packages_that_another_program_changes_during_the_install_stay() {
    let device = device();
    for (name, deb) in ["other", "fresh"].into_iter().zip(of_others()) {
        fs::write(device.path(&format!("/srv/{name}.deb")), deb).unwrap();
    }
    // In the install only: after the backup, and before the module reads the tables after the install.
    device.write(HOOK, "DPkg::Post-Invoke { \"dpkg --install /srv/other.deb /srv/fresh.deb\"; };\n");
    device.install(&[app("2.0")]);
    assert_eq!(device.version("other"), "ii 2");
    fs::remove_file(device.path(HOOK)).unwrap();
    roll_back_app_alone(&device);
}

#[test]
fn packages_that_another_program_changes_after_a_failed_rollback_stay() {
    let device = device();
    device.install(&[app("2.0")]);
    device.write(HOOK, "DPkg::Post-Invoke { \"dpkg-divert --local --no-rename --add /srv/diverted\"; };\n");
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("diversion of /srv/diverted"), "{log}");
    device.dpkg(&of_others());
    fs::remove_file(device.path(HOOK)).unwrap();
    roll_back_app_alone(&device);
}

/// The update itself may have removed it: apt's simulation does not show that a package disappears.
#[test]
fn a_package_that_is_gone_after_the_install_fails_the_rollback() {
    let device = device();
    device.write(HOOK, "DPkg::Post-Invoke { \"dpkg --purge gone\"; };\n");
    device.install(&[app("2.0")]);
    fs::remove_file(device.path(HOOK)).unwrap();
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("package gone: none instead of \"installed 1\""), "{log}");
    let device = Device::new(&[app("1.0")]);
    device.dpkg(&[RawPackage::new("only", "1").directory("/usr/share/only").build()]);
    device.install(&[app("2.0").field("Replaces", "only").file("/usr/share/only/x", "x")]);
    assert_eq!(device.version("only"), "un ");
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("package only: none instead of \"installed 1\""), "{log}");
}

#[test]
fn a_dependency_that_the_update_brings_and_the_rollback_leaves_fails_the_rollback() {
    let device = Device::new(&[app("1.0")]);
    let dependency = Package::new("dependency", "1");
    device.install(&[app("2.0").field("Depends", "dependency"), dependency.clone()]);
    fs::write(device.path("/srv/dependency.deb"), dependency.build().unwrap()).unwrap();
    device.write(HOOK, "DPkg::Post-Invoke { \"dpkg --install /srv/dependency.deb\"; };\n");
    let log = device.fails("ArtifactRollback");
    assert!(
        log.contains("package dependency: \"installed 1\" instead of none") && !log.contains("rollback complete"),
        "{log}"
    );
    fs::remove_file(device.path(HOOK)).unwrap();
    device.ok("ArtifactRollback");
    assert_eq!(device.version("dependency"), "");
}

#[test]
fn a_package_of_no_update_that_is_left_unfinished_fails_the_rollback() {
    let device = device();
    device.install(&[app("2.0")]);
    fs::write(device.path("/srv/other.deb"), &of_others()[0]).unwrap();
    device.write(HOOK, "DPkg::Post-Invoke { \"dpkg --unpack /srv/other.deb\"; };\n");
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("package other: \"unpacked 2\" instead of \"installed 1\""), "{log}");
}

/// A command of the shell that tries to change dpkg's database, and writes the result to `path`.
fn attempt(path: &str) -> String {
    let change = "env --unset=DPKG_FRONTEND_LOCKED /usr/bin/dpkg --set-selections < /dev/null 2> /dev/null";
    format!("if {change}; then echo free; else echo locked; fi >> {path}")
}

/// Makes the device run `command` of the shell before each call of dpkg by the module, but not by apt.
pub fn before_each_call_of_dpkg(device: &Device, command: &str) {
    let dpkg = device.path("/usr/local/sbin/dpkg");
    fs::write(&dpkg, format!("#!/bin/sh\n{command}\nexec /usr/bin/dpkg \"$@\"\n")).unwrap();
    fs::set_permissions(&dpkg, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes the device run `command` of the shell when the module stops a unit: after the backup, before the install.
fn when_a_unit_is_stopped(device: &Device, command: &str) {
    device.client.set("deb", "[units]\nstop = [\"app.service\"]\n").unwrap();
    let systemctl = device.path("/usr/bin/systemctl");
    fs::write(&systemctl, format!("#!/bin/sh\nPATH=/usr/sbin:/usr/bin\ncase \"$*\" in *stop*)\n{command}\nesac\n"))
        .unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_package_that_another_program_changes_between_backup_and_install_stays() {
    let of_update = [app("2.0"), Package::new("extra", "2")];
    // A power loss is simulated by a kill of the module.
    for (name, version, then) in [("app", "1.1", "exit 0"), ("extra", "1", "exit 0"), ("app", "1.1", "kill -9 $PPID")] {
        let device = Device::new(&[app("1.0")]);
        let other = if name == "app" { app(version) } else { Package::new(name, version) };
        fs::write(device.path("/srv/other.deb"), other.build().unwrap()).unwrap();
        let command = "[ -e /srv/stopped ] || { : > /srv/stopped; dpkg --install /srv/other.deb";
        when_a_unit_is_stopped(&device, &format!("{command}; {then}; }}"));
        device.download(&of_update);
        let outcome = device.client.call("ArtifactInstall").unwrap();
        if then.starts_with("kill") {
            assert_eq!(outcome.status.code(), None, "{outcome:?}");
            device.ok("--recover");
        } else {
            assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
            let message = format!("update refused: package {name} was changed");
            assert!(outcome.stderr.contains(&message), "{outcome:?}");
        }
        let changed = device.state();
        device.roll_back();
        device.assert_state(&changed);
        device.assert_clean();
        assert_eq!(device.version(name), format!("ii {version}"), "{then}");
        device.install(&of_update);
        assert_eq!([device.version("app"), device.version("extra")], ["ii 2.0", "ii 2"]);
    }
}

/// apt would remove it: nothing has checked that, and the backup does not have the package.
#[test]
fn another_package_that_conflicts_with_the_update_since_the_backup_stays() {
    let old = Package::new("other", "1");
    for installed in [vec![app("1.0"), old], vec![app("1.0")]] {
        let device = Device::new(&installed);
        fs::write(device.path("/srv/other.deb"), Package::new("other", "2").build().unwrap()).unwrap();
        when_a_unit_is_stopped(&device, "dpkg --install /srv/other.deb");
        device.download(&[app("2.0").field("Breaks", "other (>= 2)")]);
        let log = device.fails("ArtifactInstall");
        assert!(log.contains("apt would also change package other"), "{log}");
        device.roll_back();
        assert_eq!([device.version("app"), device.version("other")], ["ii 1.0", "ii 2"]);
    }
}

#[test]
fn an_install_waits_for_another_package_manager_and_compares_what_it_has_changed() {
    let device = Device::new(&[app("1.0")]);
    let other = app("1.1").script("preinst", ": > /srv/begun; sleep 3").build().unwrap();
    when_a_unit_is_stopped(
        &device,
        "[ -e /srv/begun ] || touch /srv/stopped; while [ ! -e /srv/begun ]; do sleep 0.1; done",
    );
    device.download(&[app("2.0")]);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !device.path("/srv/stopped").exists() {
                thread::sleep(Duration::from_millis(10));
            }
            device.dpkg(&[other]);
        });
        let log = device.fails("ArtifactInstall");
        assert!(log.contains("waiting for the lock") && log.contains("package app was changed"), "{log}");
    });
    device.roll_back();
    assert_eq!(device.version("app"), "ii 1.1");
}

#[test]
fn other_package_managers_wait_until_the_backup_is_complete() {
    let device = Device::new(&[app("1.0")]);
    source(&device, "copy", &[Package::new("needed", "1")]);
    device.client.set("deb", "network = true\n").unwrap();
    before_each_call_of_dpkg(&device, &format!("[ -e {BACKUP} ] || {{ {}; }}", attempt("/srv/attempts")));
    device.install(&[app("2.0").field("Depends", "needed")]);
    let attempts = device.text("/srv/attempts");
    assert!(attempts.lines().count() > 2 && attempts.lines().all(|line| line == "locked"), "{attempts}");
    assert_eq!([device.version("app"), device.version("needed")], ["ii 2.0", "ii 1"]);
}

#[test]
fn other_package_managers_wait_until_the_rollback_is_verified() {
    let device = device();
    device.install(&[app("2.0")]);
    // The module reads dpkg's database with a call of dpkg each time; the last time is in the verification.
    before_each_call_of_dpkg(&device, &attempt("/srv/attempts"));
    device.ok("ArtifactRollback");
    let attempts = device.text("/srv/attempts");
    assert!(attempts.lines().count() > 2 && attempts.lines().all(|line| line == "locked"), "{attempts}");
}
