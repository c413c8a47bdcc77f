//! An update from its download to its end.

use mock_client::Generation;
use mock_client::debian::Package;

use crate::device::{Device, app};

#[test]
fn the_official_payload_installs_rolls_back_exactly_and_commits() {
    for generation in [Generation::V3, Generation::V5] {
        for commit in [false, true] {
            let device = Device::of_generation(generation, &[app("1.0")]);
            let old = device.state();
            device.download(&[app("2.0"), Package::new("extra", "1").file("/opt/extra/file", "x")]);
            device.is_as_before(&old);
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
                device.is_as_before(&old);
            }
            device.ok("ArtifactFailure");
            device.ok("Cleanup");
            device.is_as_before(&old);
            device.is_clean();
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
    device.is_as_before(&new);
    device.is_clean();
}

#[test]
fn the_next_update_finds_the_package_in_the_store() {
    let device = Device::new(&[app("1.0")]);
    let said = device.install(&[app("2.0").checksums()]);
    assert!(said.contains("rebuilt from the installed files"), "{said}");
    device.commit();
    let second = device.state();
    let said = device.install(&[app("3.0")]);
    assert!(said.contains("as it was installed"), "{said}");
    device.roll_back();
    device.is_as_before(&second);
    device.write("/usr/share/app/data", "changed by hand");
    let changed = device.state();
    let said = device.install(&[app("3.0")]);
    assert!(said.contains("rebuilt from the installed files"), "{said}");
    device.roll_back();
    device.is_as_before(&changed);
    assert_eq!(device.text("/usr/share/app/data"), "changed by hand");
}

#[test]
fn a_package_of_the_same_version_is_installed_again_and_taken_back() {
    let build = |number: &str| {
        app("1.0").file("/usr/share/app/build", number).file(&format!("/usr/share/app/of-build-{number}"), "")
    };
    let device = Device::new(&[build("1")]);
    let old = device.state();
    device.install(&[build("2")]);
    assert_eq!(device.text("/usr/share/app/build"), "2");
    device.roll_back();
    device.is_as_before(&old);
}

#[test]
fn packages_arrive_renamed_or_in_an_archive() {
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
        let old = device.state();
        let outcome = device.download_files(&files);
        assert!(outcome.success(), "{outcome:?}");
        device.ok("ArtifactInstall");
        assert_eq!(device.version("lib++a"), "ii 1:1.0+b1~rc1");
        assert_eq!(device.version("app"), "ii 1.0");
        device.roll_back();
        device.is_as_before(&old);
    }
}

#[test]
fn what_is_no_package_is_refused() {
    let deb = app("1.0").build().unwrap();
    let device = Device::new(&[]);
    for (content, words) in [(&b"#!/bin/sh\n"[..], "neither"), (&deb[..100], ""), (b"", "neither")] {
        let outcome = device.download_files(&[("x.deb", content)]);
        let said = if words.is_empty() {
            assert!(outcome.success(), "what is in it, nobody asks before it has been checked");
            device.fails("ArtifactInstall")
        } else {
            outcome.stderr
        };
        assert!(said.contains(words), "{words:?} is missing in {said}");
        device.ok("Cleanup");
    }
    let outcome = device.download_files(&[]);
    assert!(outcome.stderr.contains("neither a package to install"), "{outcome:?}");
    device.ok("Cleanup");
    device.is_clean();
}

#[test]
fn a_reboot_is_asked_for_by_a_package_or_by_the_artifact() {
    let mut device = Device::new(&[app("1.0")]);
    device.install(&[app("2.0").script("postinst", "touch /run/reboot-required")]);
    assert_eq!(device.answer("NeedsArtifactReboot"), "Automatic");
    device.ok("ArtifactRollback");
    assert_eq!(device.answer("NeedsArtifactReboot"), "Automatic", "the old is to be used again");
    device.ok("Cleanup");
    device.install(&[app("2.0")]);
    assert_eq!(device.answer("NeedsArtifactReboot"), "No", "somebody else has asked before");
    device.roll_back();
    device.client.set_meta_data(r#"{"reboot": "automatic"}"#);
    device.install(&[app("2.0")]);
    assert_eq!(device.answer("NeedsArtifactReboot"), "Automatic");
    device.commit();
    assert_eq!(device.answer("NeedsArtifactReboot"), "No");
}

#[test]
fn marks_stay_what_they_were() {
    let device = Device::new(&[app("1.0"), Package::new("other", "1")]);
    device.run(&["apt-mark", "auto", "app"]);
    let old = device.state();
    device.install(&[app("2.0"), Package::new("new", "1")]);
    assert!(device.run(&["apt-mark", "showauto"]).contains("app"), "an update is no wish for the package");
    assert!(device.run(&["apt-mark", "showmanual"]).contains("new"));
    device.roll_back();
    device.is_as_before(&old);
}

#[test]
fn an_interrupted_update_is_rolled_back_by_the_next_download() {
    let device = Device::new(&[app("1.0")]);
    let old = device.state();
    device.install(&[app("2.0")]);
    device.download(&[app("3.0")]);
    device.is_as_before(&old);
    device.ok("Cleanup");
    device.is_clean();
}
