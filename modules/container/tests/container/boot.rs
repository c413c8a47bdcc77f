//! A boot with a mistake in the settings: the active version is started.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::device::{Device, refused};

const TAG: &str = "localhost/shop:latest";

#[test]
fn a_boot_with_a_mistake_in_the_settings_starts_the_projects() {
    let mut device = Device::new();
    let image = device.update("shop", TAG, "1");
    let file = device.client.settings().join("container.toml");
    let settings = fs::read_to_string(&file).unwrap();
    for mistake in ["reserve_mb = 8", "stable_seconds = \"long\"", "stable_seconds = 9"] {
        fs::write(&file, settings.replace("stable_seconds = 0", mistake)).unwrap();
        device.engine.lose_power(&device.client.device().join("units")).unwrap();
        assert_eq!(device.running("shop.web"), None);
        let outcome = device.client.call("--recover").unwrap();
        assert!(outcome.success(), "{mistake}: {outcome:?}");
        assert_eq!(device.running("shop.web"), Some(image.id.clone()), "{mistake}");
        let key = mistake.split(' ').next().unwrap();
        assert!(outcome.stderr.contains(key), "{mistake} is not logged: {outcome:?}");
    }
}

#[test]
fn a_boot_does_not_read_settings_that_others_may_change() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let file = device.client.settings().join("container.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    device.engine.lose_power(&device.client.device().join("units")).unwrap();
    refused(&device.client.call("--recover").unwrap(), "not trusted");
    assert_eq!(device.running("shop.web"), None);
}

/// The default directory of units is that of the machine: the one project cannot be read, and no unit is written.
#[test]
fn a_boot_with_settings_without_a_valid_datastore_finds_the_projects() {
    let device = Device::new();
    let project = device.state_directory().join("projects/damaged");
    fs::create_dir_all(&project).unwrap();
    fs::write(project.join("project.json"), "{").unwrap();
    let mistakes: [&[u8]; 5] =
        [b"datastore = 5\n", b"datastore = \"mender\"\n", b"engine =\n", &[0xff], &[b'#'; (1 << 20) + 1]];
    for content in mistakes {
        fs::write(device.client.settings().join("container.toml"), content).unwrap();
        let mut recover = device.client.by_hand(&["--recover"]);
        let output = recover.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("projects not started at boot: 1"), "{stderr}");
        assert!(stderr.contains("container.toml"), "{stderr}");
        fs::rename(&project, device.client.device().join("aside")).unwrap();
        let output = recover.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "the mistake is not reported: {stderr}");
        fs::rename(device.client.device().join("aside"), &project).unwrap();
    }
}
