//! Payloads that break the configuration of dpkg and apt, which a rollback needs.

use std::fs;
use std::os::unix::fs::symlink;

use mender_update_module_test::debian::Package;

use crate::device::{Device, app};
use crate::others::before_each_call_of_dpkg;
use crate::system::{read_only, remount_of};

/// Paths, each with a content that dpkg or apt reads, and with one that makes it fail.
const FILES: [(&str, &str, &str); 5] = [
    ("/etc/apt/apt.conf.d/99app", "APT::App \"1\";\n", "APT::App \"1\"\n"),
    ("/etc/apt/preferences.d/app", "Package: app\nPin: version 1.0\nPin-Priority: 1\n", "Pin: nonsense\n"),
    ("/etc/dpkg/dpkg.cfg.d/app", "# no option\n", "no-such-option\n"),
    ("/root/.dpkg.cfg", "# no option\n", "no-such-option\n"),
    ("/etc/apt/sources.list.d/app.list", "# no source\n", "nonsense\n"),
];

/// The file that only an update with `network` reads.
const SOURCE: &str = FILES[4].0;

/// What the device has in the place of the file before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    FileOfUser,
    SymlinkOfUser,
    FileOfPackage,
    Conffile,
}

use Before::{Conffile, FileOfPackage, FileOfUser, Nothing, SymlinkOfUser};

impl Before {
    /// `package` with the file `path`.
    fn add(self, package: Package, path: &str, content: &str) -> Package {
        match self {
            Conffile => package.conffile(path, content),
            _ => package.file(path, content),
        }
    }
}

fn device(before: Before, path: &str, good: &str) -> Device {
    let installed = match before {
        FileOfPackage | Conffile => before.add(app("1.0"), path, good),
        Nothing | FileOfUser | SymlinkOfUser => app("1.0"),
    };
    let device = Device::new(&[installed]);
    let target = device.path("/srv/target");
    match before {
        FileOfUser => device.write(path, good),
        SymlinkOfUser => {
            fs::write(&target, good).unwrap();
            symlink("/srv/target", device.path(path)).unwrap();
        }
        Nothing | FileOfPackage | Conffile => {}
    }
    device
}

#[test]
fn a_payload_that_breaks_dpkg_or_apt_is_rolled_back_and_the_next_update_succeeds() {
    for (path, good, bad) in FILES {
        for before in [Nothing, FileOfUser, SymlinkOfUser, FileOfPackage, Conffile] {
            for network in if path == SOURCE { &[false, true][..] } else { &[false] } {
                let case = format!("{path} {before:?} {network}");
                let device = device(before, path, good);
                device.client.set("deb", &format!("network = {network}\n")).unwrap();
                let previous = device.state();
                device.download(&[before.add(app("2.0"), path, bad)]);
                let outcome = device.client.call("ArtifactInstall").unwrap();
                // Offline, nothing reads a source.
                assert_eq!(outcome.success(), path == SOURCE && !*network, "{case}: {outcome:?}");
                if !outcome.success() {
                    assert!(outcome.stderr.contains("rollback complete"), "{case}: {outcome:?}");
                    device.assert_state(&previous);
                }
                device.roll_back();
                device.assert_state(&previous);
                device.assert_clean();
                device.install(&[app("2.0")]);
                assert_eq!(device.version("app"), "ii 2.0", "{case}");
                device.commit();
            }
        }
    }
}

#[test]
fn a_malformed_source_of_others_refuses_no_offline_update() {
    let device = Device::new(&[app("1.0")]);
    device.write("/etc/apt/sources.list.d/other.list", "nonsense\n");
    device.install(&[app("2.0")]);
    assert_eq!(device.version("app"), "ii 2.0");
    let log = device.ok("ArtifactRollback");
    assert_eq!(device.version("app"), "ii 1.0");
    assert!(log.contains("rollback complete"), "{log}");
}

#[test]
fn a_rollback_that_is_interrupted_at_its_first_call_of_dpkg_is_repeated() {
    for (path, good, bad) in FILES {
        for before in [Nothing, FileOfPackage] {
            let device = device(before, path, good);
            let armed = device.path("/tmp/armed");
            let journal = "'/data/with spaces/update-modules/deb/journal.json'";
            // The parent process is the module.
            let kill = format!("[ ! -e /tmp/armed ] || ! grep --quiet RollingBack {journal} || kill -9 $PPID");
            before_each_call_of_dpkg(&device, &kill);
            let previous = device.state();
            device.download(&[before.add(app("2.0"), path, bad)]);
            fs::write(&armed, "").unwrap();
            let mut outcome = device.client.call("ArtifactInstall").unwrap();
            if outcome.success() {
                outcome = device.client.call("ArtifactRollback").unwrap();
            }
            assert_eq!(outcome.status.code(), None, "{path} {before:?}: {outcome:?}");
            fs::remove_file(&armed).unwrap();
            device.ok("--recover");
            device.roll_back();
            device.assert_state(&previous);
        }
    }
}

#[test]
fn a_payload_that_breaks_dpkg_or_apt_on_a_read_only_etc_is_rolled_back() {
    let (writable, read_only_again) = (remount_of("/etc", false), remount_of("/etc", true));
    let hooks = format!("DPkg::Pre-Invoke {{ \"{writable}\"; }};\nDPkg::Post-Invoke {{ \"{read_only_again}\"; }};\n");
    for (path, _, bad) in FILES.into_iter().filter(|(path, ..)| path.starts_with("/etc") && *path != SOURCE) {
        let device = Device::new(&[app("1.0")]);
        device.write("/etc/apt/apt.conf.d/98remount", &hooks);
        read_only(&device, "/etc");
        let previous = device.state();
        device.download(&[app("2.0").file(path, bad)]);
        let log = device.fails("ArtifactInstall");
        assert!(log.contains("rollback complete"), "{path}: {log}");
        device.roll_back();
        device.assert_state(&previous);
        assert!(fs::write(device.path("/etc/x"), "").is_err(), "{path}: left writable");
    }
}

#[test]
fn a_file_that_another_package_has_taken_over_stays() {
    let device = Device::new(&[app("1.0")]);
    let (path, text) = ("/etc/apt/apt.conf.d/99app", "APT::App \"taker\";\n");
    device.install(&[app("2.0").file(path, "APT::App \"2\";\n")]);
    device.dpkg(&[Package::new("taker", "1").field("Replaces", "app").file(path, text).build().unwrap()]);
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("99app: file instead of absent"), "{log}");
    assert_eq!(device.text(path), text);
}
