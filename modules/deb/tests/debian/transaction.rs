//! Updates from Download to Cleanup.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use mender_update_module_test::Generation;
use mender_update_module_test::debian::Package;

use crate::device::{Device, app};

#[test]
fn the_official_payload_installs_rolls_back_exactly_and_commits() {
    for generation in [Generation::V3, Generation::V5] {
        for commit in [false, true] {
            let device = Device::of_generation(generation, &[app("1.0")]);
            let previous = device.state();
            device.download(&[app("2.0"), Package::new("extra", "1").file("/opt/extra/file", "x")]);
            device.assert_state(&previous);
            device.ok("ArtifactInstall");
            assert_eq!(device.version("app"), "ii 2.0");
            assert_eq!(device.version("extra"), "ii 1");
            assert_eq!(device.text("/etc/app.conf"), "the settings of 2.0\n");
            assert_eq!(device.answer("NeedsArtifactReboot"), "No");
            if commit {
                device.ok("ArtifactCommit");
            }
            for _ in 0..2 {
                device.ok("ArtifactRollback");
                device.assert_state(&previous);
            }
            device.ok("ArtifactFailure");
            device.ok("Cleanup");
            device.assert_state(&previous);
            device.assert_clean();
        }
    }
}

#[test]
fn a_committed_update_stays() {
    let device = Device::new(&[app("1.0")]);
    device.install(&[app("2.0")]);
    let new = device.state();
    for state in ["ArtifactInstall", "ArtifactCommit", "ArtifactCommit", "Cleanup", "Cleanup", "--recover"] {
        device.ok(state);
    }
    device.assert_state(&new);
    device.assert_clean();
}

#[test]
fn the_next_update_finds_the_package_in_the_cache() {
    let device = Device::new(&[app("1.0")]);
    let log = device.install(&[app("2.0").checksums()]);
    assert!(log.contains("rebuilt from the installed files"), "{log}");
    device.commit();
    let second = device.state();
    let log = device.install(&[app("3.0")]);
    assert!(log.contains("the original package"), "{log}");
    device.roll_back();
    device.assert_state(&second);
    device.write("/usr/share/app/data", "changed by hand");
    let changed = device.state();
    let log = device.install(&[app("3.0")]);
    assert!(log.contains("rebuilt from the installed files"), "{log}");
    device.roll_back();
    device.assert_state(&changed);
    assert_eq!(device.text("/usr/share/app/data"), "changed by hand");
}

#[test]
fn another_build_of_the_same_version_is_installed_and_rolled_back() {
    let build = |number: &str| {
        app("1.0").file("/usr/share/app/build", number).file(&format!("/usr/share/app/of-build-{number}"), "")
    };
    let device = Device::new(&[build("1")]);
    let previous = device.state();
    device.install(&[build("2")]);
    assert_eq!(device.text("/usr/share/app/build"), "2");
    device.roll_back();
    device.assert_state(&previous);
}

#[test]
fn another_build_of_the_same_version_in_a_cache_is_not_the_original() {
    let build = |number: &str| app("1.0").file("/usr/share/app/build", number).checksums();
    let device = Device::new(&[build("1")]);
    fs::write(device.path("/var/cache/apt/archives/app_1.0_all.deb"), build("2").build().unwrap()).unwrap();
    let previous = device.state();
    let log = device.install(&[app("2.0")]);
    assert!(log.contains("rebuilt from the installed files"), "{log}");
    device.roll_back();
    device.assert_state(&previous);
}

#[test]
fn a_package_in_a_cache_that_others_may_change_is_not_used() {
    let device = Device::new(&[app("1.0").checksums()]);
    let cached = device.path("/var/cache/apt/archives/app_1.0_all.deb");
    fs::write(&cached, app("1.0").checksums().build().unwrap()).unwrap();
    let (rebuilt, original) = ("rebuilt from the installed files", "the original package");
    for (owner, mode, expected) in [(8, 0o644, rebuilt), (0, 0o664, rebuilt), (0, 0o644, original)] {
        chown(&cached, Some(owner), None).unwrap();
        fs::set_permissions(&cached, fs::Permissions::from_mode(mode)).unwrap();
        let log = device.install(&[app("2.0")]);
        assert!(log.contains(expected), "owner {owner}, mode {mode:o}: {log}");
        device.roll_back();
    }
}

#[test]
fn the_cache_is_private_and_its_size_is_limited() {
    let device = Device::new(&[app("1.0")]);
    let cache = device.client.datastore().join("update-modules/deb/store");
    let cached = || {
        let names = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    device.client.set("deb", "store_mib = 1\n").unwrap();
    device.install(&[app("2.0"), Package::new("large", "1").file("/usr/share/large", &"x".repeat(2 << 20))]);
    device.commit();
    assert_eq!(cached(), ["app_2.0_all.deb"]);
    let mode = fs::metadata(&cache).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "a package has files that others may not read");
    device.client.set("deb", "store_mib = 0\n").unwrap();
    device.install(&[app("3.0")]);
    device.commit();
    assert_eq!(cached(), [""; 0]);
}

#[test]
fn packages_are_accepted_renamed_or_in_an_archive() {
    let awkward = Package::new("lib++a", "1:1.0+b1~rc1").file("/usr/share/lib++a/x", "x");
    let [first, second] = [awkward.build().unwrap(), app("1.0").build().unwrap()];
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [("deep/lib++a_1.0+b1~rc1_all.deb", &first), ("app.deb", &second)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    for files in [vec![("packages.tar", archive.as_slice())], vec![("a", &first), ("b.bin", &second)]] {
        let device = Device::new(&[]);
        let previous = device.state();
        let outcome = device.download_files(&files);
        assert!(outcome.success(), "{outcome:?}");
        device.ok("ArtifactInstall");
        assert_eq!(device.version("lib++a"), "ii 1:1.0+b1~rc1");
        assert_eq!(device.version("app"), "ii 1.0");
        device.roll_back();
        device.assert_state(&previous);
    }
}

#[test]
fn other_files_than_packages_are_refused() {
    let deb = app("1.0").build().unwrap();
    let device = Device::new(&[]);
    for (content, words) in [(&b"#!/bin/sh\n"[..], "neither"), (&deb[..100], ""), (b"", "neither")] {
        let outcome = device.download_files(&[("x.deb", content)]);
        let log = if words.is_empty() {
            assert!(outcome.success(), "packages are read only after the client has checked the payload");
            device.fails("ArtifactInstall")
        } else {
            outcome.stderr
        };
        assert!(log.contains(words), "{words:?} is missing in {log}");
        device.ok("Cleanup");
    }
    let outcome = device.download_files(&[]);
    assert!(outcome.stderr.contains("no packages"), "{outcome:?}");
    device.ok("Cleanup");
    device.assert_clean();
}

#[test]
fn a_package_or_the_artifact_requests_a_reboot() {
    let mut device = Device::new(&[app("1.0")]);
    device.install(&[app("2.0").script("postinst", "touch /run/reboot-required")]);
    assert_eq!(device.answer("NeedsArtifactReboot"), "Automatic");
    device.ok("ArtifactRollback");
    assert_eq!(device.answer("NeedsArtifactReboot"), "Automatic", "the previous version has to be started");
    device.ok("Cleanup");
    device.install(&[app("2.0")]);
    assert_eq!(device.answer("NeedsArtifactReboot"), "No", "the request is from before the update");
    device.roll_back();
    device.client.set_meta_data(r#"{"reboot": "automatic"}"#);
    device.install(&[app("2.0")]);
    assert_eq!(device.answer("NeedsArtifactReboot"), "Automatic");
    device.commit();
    assert_eq!(device.answer("NeedsArtifactReboot"), "No");
}

#[test]
fn marks_stay_as_before() {
    let device = Device::new(&[app("1.0"), Package::new("other", "1")]);
    device.run(&["apt-mark", "auto", "app"]);
    let previous = device.state();
    device.install(&[app("2.0"), Package::new("new", "1")]);
    assert!(device.run(&["apt-mark", "showauto"]).contains("app"), "the update has changed the mark");
    assert!(device.run(&["apt-mark", "showmanual"]).contains("new"));
    device.roll_back();
    device.assert_state(&previous);
}

#[test]
fn an_interrupted_update_is_rolled_back_by_the_next_download() {
    let device = Device::new(&[app("1.0")]);
    let previous = device.state();
    device.install(&[app("2.0")]);
    device.download(&[app("3.0")]);
    device.assert_state(&previous);
    device.ok("Cleanup");
    device.assert_clean();
}

#[test]
fn an_interrupted_download_frees_its_space_at_boot() {
    let device = Device::new(&[]);
    let deb = app("1.0").build().unwrap();
    device.client.interrupt_download(&[(OsStr::new("a.deb"), &deb)]).unwrap();
    let staging = device.client.datastore().join("update-modules/deb/staging");
    assert!(staging.exists());
    device.ok("--recover");
    assert!(!staging.exists());
}

#[test]
fn a_boot_during_cleanup_keeps_the_installed_package_in_the_cache() {
    let device = Device::new(&[app("1.0")]);
    device.install(&[app("2.0").checksums()]);
    device.ok("ArtifactCommit");
    // The first step of Cleanup, before a power loss.
    let directory = device.client.datastore().join("update-modules/deb");
    fs::rename(directory.join("journal.json"), directory.join("discard.json")).unwrap();
    device.ok("--recover");
    device.assert_clean();
    assert!(!directory.join("discard.json").exists());
    assert!(directory.join("store/app_2.0_all.deb").exists(), "the next update needs it");
    assert!(device.install(&[app("3.0")]).contains("the original package"));
}
