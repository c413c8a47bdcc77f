//! Directories of projects that other users or programs have changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use test_image::Mode;

use crate::device::{Device, archive, refused};

const TAG: &str = "localhost/shop:latest";

/// A user that is not root.
const WWW_DATA: u32 = 33;

#[test]
fn a_project_of_another_user_is_not_started() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let project = device.state_directory().join("projects/shop");
    if fs::metadata(&project).unwrap().uid() != 0 {
        return eprintln!("skipped: needs root");
    }
    for path in [&project, &project.join("mender-shop.web.service"), &project.join("project.json")] {
        chown(path, Some(WWW_DATA), None).unwrap();
        device.engine.lose_power(&device.client.device().join("units")).unwrap();
        refused(&device.client.call("--recover").unwrap(), path.to_str().unwrap());
        assert_eq!(device.running("shop.web"), None, "{}", path.display());
        chown(path, Some(0), None).unwrap();
        device.boot();
        assert!(device.running("shop.web").is_some());
    }
}

#[test]
fn directories_that_others_may_write_to_are_refused_before_anything_changes() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let before = device.engine_state();
    for (directory, expected) in [("projects/shop", "previous version refused"), ("staging", "is not trusted")] {
        assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
        let directory = device.state_directory().join(directory);
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        refused(&device.client.call("ArtifactInstall").unwrap(), expected);
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
        assert_eq!(device.engine_state(), before);
        assert!(device.is_clean());
    }
}

#[test]
fn a_project_that_appears_after_the_download_is_refused_and_stays() {
    let mut device = Device::new();
    assert!(device.download_one("shop", TAG, &archive(TAG, "1", Mode::Healthy)).success());
    let project = device.state_directory().join("projects/shop");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("mine"), "mine").unwrap();
    refused(&device.client.call("ArtifactInstall").unwrap(), "was made after the download");
    device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert_eq!(fs::read_to_string(project.join("mine")).unwrap(), "mine");
    assert!(device.is_clean());
}
