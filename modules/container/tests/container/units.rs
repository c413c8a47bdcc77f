//! The calls of systemd: their order, and units that do not stop.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use test_image::Mode;

use crate::device::{Device, archive, one, refused};

const TAG: &str = "localhost/shop:latest";

#[test]
fn systemd_loads_units_before_it_starts_them_and_a_boot_does_not_wait_for_their_start() {
    let mut device = Device::new();
    let log = device.client.device().join("calls");
    device.before_systemctl(&format!("echo \"$*\" >> '{}'", log.display()));
    let calls = || -> Vec<String> {
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        text.lines().filter(|call| !call.contains(" show ")).map(str::to_owned).collect()
    };
    device.update("shop", TAG, "1");
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
    device.all(&["ArtifactInstall", "ArtifactRollback"]);
    let all = calls();
    let is_start = |call: &String| call.ends_with(" start mender-shop.web.service");
    let starts: Vec<_> = all.windows(2).filter(|pair| is_start(&pair[1])).collect();
    assert_eq!(starts.len(), 3, "{all:?}");
    assert!(starts.iter().all(|pair| pair[0].ends_with(" daemon-reload")), "{all:?}");
    // Units wait for this call.
    device.boot();
    let all = calls();
    let [load, start] = &all[..] else { panic!("{all:?}") };
    assert!(load.ends_with(" daemon-reload"), "{all:?}");
    assert!(start.ends_with(" start --no-block mender-shop.web.service"), "{all:?}");
}

#[test]
fn a_unit_that_does_not_stop_fails_the_rollback_and_the_previous_version_is_active() {
    let mut device = Device::new();
    let hangs = device.client.device().join("hangs");
    let script = format!("case \" $* \" in *' stop '*) test ! -e '{}' || exit 1 ;; esac", hangs.display());
    device.before_systemctl(&script);
    let previous = device.update("shop", TAG, "1");
    let list = device.state_directory().join("projects/shop/project.json");
    let before = fs::read(&list).unwrap();
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
    device.ok("ArtifactInstall");
    assert_ne!(fs::read(&list).unwrap(), before);
    fs::write(&hangs, "").unwrap();
    let outcome = device.client.call("ArtifactRollback").unwrap();
    refused(&outcome, "stopping the new version failed");
    assert_eq!(outcome.stderr.matches("systemctl stop failed").count(), 2, "one of each version: {outcome:?}");
    assert_eq!(fs::read(&list).unwrap(), before, "a boot would start the new version");
    fs::remove_file(hangs).unwrap();
    device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert_eq!(device.running("shop.web"), Some(previous.id));
}

/// As a one-shot service that fails on the data which the new version has migrated.
#[test]
fn a_previous_version_that_does_not_start_is_logged_and_blocks_no_update() {
    for state in ["ArtifactRollback", "Cleanup", "Download"] {
        let mut device = Device::new();
        let migrated = device.client.device().join("migrated");
        let script = format!("case \" $* \" in *' start '*) test ! -e '{}' || exit 1 ;; esac", migrated.display());
        device.before_systemctl(&script);
        device.update("shop", TAG, "1");
        let list = device.state_directory().join("projects/shop/project.json");
        let before = fs::read(&list).unwrap();
        assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
        device.ok("ArtifactInstall");
        fs::write(&migrated, "").unwrap();
        let third = archive(TAG, "3", Mode::Healthy);
        let outcome = match state {
            "Download" => device.download_one("shop", TAG, &third),
            state => device.client.call(state).unwrap(),
        };
        assert!(outcome.success(), "{state}: {outcome:?}");
        let log = &outcome.stderr;
        let failed = "starting the previous version failed: systemctl start failed: mender-shop.web.service";
        assert!(log.contains(failed) && log.contains("the rollback continues"), "{state}: {log}");
        assert!(log.contains("last lines of the unit mender-shop.web.service"), "{state}: {log}");
        assert_eq!(fs::read(&list).unwrap(), before, "{state}");
        if state != "Download" {
            device.all(&["ArtifactFailure", "Cleanup"]);
            let outcome = device.download_one("shop", TAG, &third);
            assert!(outcome.success(), "{state}: {outcome:?}");
        }
        fs::remove_file(&migrated).unwrap();
        device.all(&["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
        assert_eq!(device.running("shop.web"), Some(third.id), "{state}");
        assert!(device.is_clean(), "{state}");
    }
}

/// A device with the second version of `shop`, uncommitted, on which the calls of systemctl that match `calls` fail
/// while a file exists, if `failing` succeeds with its name; with that file and the image of the first version.
fn device_with_failing_systemctl(calls: &str, failing: &str) -> (Device, PathBuf, String) {
    let mut device = Device::new();
    let fails = device.client.device().join("fails");
    let script = format!("case \" $* \" in {calls}) {failing} '{}' 2> /dev/null && exit 1 ;; esac", fails.display());
    device.before_systemctl(&script);
    let previous = device.update("shop", TAG, "1");
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
    device.ok("ArtifactInstall");
    fs::write(&fails, "").unwrap();
    (device, fails, previous.id)
}

#[test]
fn a_start_that_fails_once_in_a_rollback_is_repeated() {
    let (device, fails, previous) = device_with_failing_systemctl("*' start '*", "rm");
    device.ok("ArtifactRollback");
    assert!(!fails.exists(), "no start has failed");
    assert_eq!(device.running("shop.web"), Some(previous));
}

#[test]
fn an_install_that_fails_with_a_previous_version_that_does_not_start_is_rolled_back() {
    let mut device = Device::new();
    let migrated = device.client.device().join("migrated");
    // The start of the new version, which is unhealthy, changes the data.
    let script = format!(
        "case \" $* \" in *' start '*) test ! -e '{0}' || exit 1; test ! -e '{0}.soon' || : > '{0}' ;; esac",
        migrated.display()
    );
    device.before_systemctl(&script);
    device.update("shop", TAG, "1");
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Unhealthy)).success());
    fs::write(migrated.with_extension("soon"), "").unwrap();
    let outcome = device.client.call("ArtifactInstall").unwrap();
    refused(&outcome, "install failed; rolled back to the previous version: health check failed");
    assert!(outcome.stderr.contains("starting the previous version failed"), "{outcome:?}");
    device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert!(device.is_clean());
}

#[test]
fn a_rollback_that_neither_stops_the_new_version_nor_starts_the_previous_one_reports_both() {
    let (device, fails, previous) = device_with_failing_systemctl("*' stop '*|*' start '*", "test -e");
    let outcome = device.client.call("ArtifactRollback").unwrap();
    refused(&outcome, "rollback failed: stopping the new version failed: systemctl stop failed");
    assert!(outcome.stderr.contains("starting the previous version failed: systemctl start failed"), "{outcome:?}");
    fs::remove_file(fails).unwrap();
    device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert_eq!(device.running("shop.web"), Some(previous));
}

#[test]
fn a_boot_restores_the_previous_version_although_the_new_one_is_damaged() {
    let mut device = Device::new();
    let previous = device.update("shop", TAG, "1");
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
    device.ok("ArtifactInstall");
    // As if the power had been lost at the end of the install.
    let journal = device.state_directory().join("journal.json");
    let text = fs::read_to_string(&journal).unwrap();
    let interrupted = text.replace("\"phase\":\"Switched\"", "\"phase\":\"Switching\"");
    assert_ne!(interrupted, text);
    fs::write(&journal, interrupted).unwrap();
    fs::write(device.state_directory().join("projects/shop/project.json"), "{").unwrap();
    device.boot();
    assert_eq!(device.running("shop.web"), Some(previous.id));
}

#[test]
fn units_that_the_new_version_does_not_have_are_removed() {
    let mut device = Device::new();
    let image = archive(TAG, "1", Mode::Healthy);
    let mut meta_data = one("shop", TAG, &image.id);
    meta_data["run"]["worker"] = json!({"image": TAG});
    assert!(device.download(&meta_data, &[("app.tar", &image.content)]).success());
    device.all(&["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
    let unit = device.client.device().join("units/mender-shop.worker.service");
    assert!(unit.exists() && device.running("shop.worker").is_some());
    device.update("shop", TAG, "2");
    assert!(!unit.exists() && device.running("shop.worker").is_none());
}
