//! Updates from Download to Cleanup.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use mender_update_module_test::Generation;
use serde_json::json;
use test_image::{Archive, Mode};

use crate::device::{Device, archive, one, refused};

const TAG: &str = "localhost/shop:latest";

#[test]
fn a_rollback_of_a_first_install_leaves_nothing() {
    let mut device = Device::new();
    let before = device.engine_state();
    let new = archive(TAG, "1", Mode::Healthy);
    let outcome = device.download_one("shop", TAG, &new);
    assert!(outcome.success(), "{outcome:?}");
    assert_eq!(device.running("shop.web"), None, "nothing runs before ArtifactInstall");
    device.ok("ArtifactInstall");
    assert_eq!(device.running("shop.web"), Some(new.id.clone()));
    for _ in 0..2 {
        device.ok("ArtifactRollback");
        assert_eq!(device.running("shop.web"), None);
    }
    device.all(&["ArtifactFailure", "Cleanup", "Cleanup"]);
    assert_eq!(device.engine_state(), before);
    assert!(device.is_clean());
}

#[test]
fn a_rollback_of_a_first_install_works_without_the_directory_of_projects() {
    let mut device = Device::new();
    assert!(device.download_one("shop", TAG, &archive(TAG, "1", Mode::Healthy)).success());
    device.ok("ArtifactInstall");
    fs::remove_dir_all(device.state_directory().join("projects")).unwrap();
    device.all(&["ArtifactRollback", "ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert!(!device.state_directory().join("journal.json").exists());
}

#[test]
fn the_previous_version_is_restored_by_its_id_though_both_have_one_tag() {
    for commit in [false, true] {
        let mut device = Device::new();
        device.update("shop", TAG, "1");
        let previous = device.engine_state();
        let new = archive(TAG, "2", Mode::Healthy);
        assert!(device.download_one("shop", TAG, &new).success());
        device.ok("ArtifactInstall");
        assert_eq!(device.running("shop.web"), Some(new.id));
        if commit {
            device.ok("ArtifactCommit");
        }
        device.all(&["ArtifactRollback", "ArtifactRollback", "ArtifactFailure", "Cleanup"]);
        assert_eq!(device.engine_state(), previous);
        assert!(device.is_clean());
    }
}

#[test]
fn a_project_that_cannot_be_read_is_an_error() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
    device.ok("ArtifactInstall");
    let list = device.state_directory().join("projects/shop/project.json");
    let kept = fs::read(&list).unwrap();
    fs::remove_file(&list).unwrap();
    symlink("project.json", &list).unwrap(); // a symlink to itself cannot be resolved
    refused(&device.client.call("ArtifactRollback").unwrap(), list.to_str().unwrap());
    fs::remove_file(&list).unwrap();
    fs::write(&list, kept).unwrap();
    device.ok("ArtifactRollback");
}

#[test]
fn a_commit_removes_the_previous_image_and_nothing_else() {
    let mut device = Device::new();
    let other = "1".repeat(64);
    device.engine.add_image(&other, "well").unwrap();
    let previous = device.update("shop", "localhost/shop:1", "1");
    let new = device.update("shop", "localhost/shop:2", "2");
    assert!(!device.has_image(&previous) && device.has_image(&new));
    assert!(device.engine.images().unwrap().iter().any(|(id, _)| *id == other));
    assert_eq!(
        device.engine.tags().unwrap().len(),
        2,
        "its reference and the name that protects it: {:?}",
        device.engine.tags()
    );
}

/// After a sync that failed, the engine's changes only seem to be done, and a power loss undoes them: the cleanup is
/// repeated with its record, before or after a later update is staged, and removes the images again.
#[test]
fn a_repeated_cleanup_removes_images_that_came_back() {
    let tags = ["localhost/shop:1", "localhost/shop:2", "localhost/shop:3"];
    for [first, second, third] in [tags, [TAG; 3]] {
        for state in ["ArtifactCommit", "ArtifactRollback"] {
            for (record, is_late) in [("left-1.json", false), ("late-1.json", true)] {
                let mut device = Device::new();
                device.update("shop", first, "1");
                assert!(device.download_one("shop", second, &archive(second, "2", Mode::Healthy)).success());
                device.all(&["ArtifactInstall", state]);
                let (_, tags, images) = device.engine_state();
                assert_eq!(images.len(), 2);
                let journal = fs::read(device.state_directory().join("journal.json")).unwrap();
                device.ok("Cleanup");
                let come_back = |device: &Device| {
                    images.iter().for_each(|(id, mode)| device.engine.add_image(id, mode).unwrap());
                    let now = device.engine.tags().unwrap();
                    let lost = tags.iter().filter(|(name, _)| now.iter().all(|(other, _)| other != name));
                    lost.for_each(|(name, id)| device.engine.tag(id, name).unwrap());
                    fs::write(device.state_directory().join(record), &journal).unwrap();
                };
                if !is_late {
                    come_back(&device);
                }
                let next = archive(third, "3", Mode::Healthy);
                assert!(device.download_one("shop", third, &next).success());
                if is_late {
                    come_back(&device);
                }
                device.all(&["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
                let (_, tags, left) = device.engine_state();
                assert_eq!(left, [(next.id, "healthy".to_owned())], "{first}, {state}, {record}");
                assert!(tags.len() == 2 && tags.iter().any(|(name, _)| name == third), "{tags:?}");
                assert!(!device.state_directory().join(record).exists());
            }
        }
    }
}

/// The files of an earlier update of the same project are removed by name: not while a rollback still needs these.
#[test]
fn a_repeated_cleanup_keeps_the_previous_version_of_a_rollback_that_failed() {
    let mut device = Device::new();
    device.update("shop", "localhost/shop:1", "1");
    let two = archive("localhost/shop:2", "2", Mode::Healthy);
    assert!(device.download_one("shop", "localhost/shop:2", &two).success());
    device.all(&["ArtifactInstall", "ArtifactCommit"]);
    let journal = fs::read(device.state_directory().join("journal.json")).unwrap();
    device.ok("Cleanup");
    let three = archive("localhost/shop:3", "3", Mode::Healthy);
    assert!(device.download_one("shop", "localhost/shop:3", &three).success());
    fs::write(device.state_directory().join("late-1.json"), &journal).unwrap();
    device.ok("ArtifactInstall");
    let (active, aside) = (device.state_directory().join("projects/shop"), device.client.device().join("aside"));
    fs::rename(&active, &aside).unwrap();
    assert!(Command::new("cp").arg("--archive").arg(&aside).arg(&active).status().unwrap().success());
    refused(&device.client.call("ArtifactRollback").unwrap(), "it was replaced");
    device.all(&["ArtifactFailure", "Cleanup"]);
    device.update("other", "localhost/other:1", "9");
    assert!(device.state_directory().join("unrestored-1.json").exists());
    assert!(device.has_image(&two) && device.state_directory().join("staging/shop/project.json").exists());
    // As the message says: the rollback succeeds, and everything is removed with the next update.
    fs::remove_dir_all(&active).unwrap();
    fs::rename(&aside, &active).unwrap();
    device.update("other", "localhost/other:1", "10");
    assert_eq!(device.running("shop.web"), Some(two.id.clone()));
    assert!(device.has_image(&two) && !device.has_image(&three) && device.is_clean());
    assert!(!device.state_directory().join("late-1.json").exists());
}

#[test]
fn an_unhealthy_version_is_rolled_back_at_once_and_its_log_is_shown() {
    for (mode, expected) in [(Mode::Unhealthy, "unhealthy"), (Mode::Exit, "restart loop")] {
        let mut device = Device::new();
        device.update("shop", TAG, "1");
        let previous = device.engine_state();
        assert!(device.download_one("shop", TAG, &archive(TAG, "2", mode)).success());
        let outcome = device.client.call("ArtifactInstall").unwrap();
        refused(&outcome, expected);
        assert!(outcome.stderr.contains("last log lines of the container shop.web"), "{}", outcome.stderr);
        assert_eq!(device.running("shop.web"), previous.0.first().map(|(_, id)| id.clone()));
        device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
        assert_eq!(device.engine_state(), previous);
    }
}

#[test]
fn a_first_version_that_fails_leaves_no_failed_unit() {
    let mut device = Device::new();
    assert!(device.download_one("shop", TAG, &archive(TAG, "1", Mode::Exit)).success());
    refused(&device.client.call("ArtifactInstall").unwrap(), "restart loop");
    device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert!(!device.engine.directory().join("failed").exists());
}

#[test]
fn a_one_shot_service_is_healthy_when_it_has_succeeded_and_others_start_after_it() {
    let mut device = Device::new();
    let image = archive(TAG, "1", Mode::Once);
    let meta_data = json!({
        "project": "shop",
        "images": [{"file": "app.tar", "id": image.id, "ref": TAG}],
        "run": {"migrate": {"image": TAG, "oneshot": true}, "web": {"image": TAG, "after": ["migrate"]}},
    });
    assert!(device.download(&meta_data, &[("app.tar", &image.content)]).success());
    device.ok("ArtifactInstall");
    let unit = fs::read_to_string(device.client.device().join("units/mender-shop.web.service")).unwrap();
    let after = unit.lines().find(|line| line.starts_with("After=")).unwrap();
    assert!(after.split(['=', ' ']).any(|word| word == "mender-shop.migrate.service"), "{after}");
}

#[test]
fn a_unit_may_start_for_as_long_as_the_health_check_waits() {
    for (seconds, expected) in [("1", "TimeoutStartSec=300"), ("1800", "TimeoutStartSec=1800")] {
        let mut device = Device::new();
        let settings = device.client.settings().join("container.toml");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, text.replace("health_seconds = 1\n", &format!("health_seconds = {seconds}\n"))).unwrap();
        device.update("shop", TAG, "1");
        let unit = fs::read_to_string(device.client.device().join("units/mender-shop.web.service")).unwrap();
        assert!(unit.lines().any(|line| line == expected), "{unit}");
    }
}

#[test]
fn a_boot_starts_the_active_version_and_never_an_interrupted_one() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let previous = device.engine_state();
    device.boot();
    assert_eq!(device.engine_state(), previous);
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
    device.boot();
    assert_eq!(device.running("shop.web"), previous.0.first().map(|(_, id)| id.clone()), "interrupted in Download");
    device.ok("ArtifactInstall");
    let new = device.engine_state();
    assert_ne!(new, previous);
    device.boot();
    assert_eq!(device.engine_state(), new, "an update that waits for its commit is left alone");
}

#[test]
fn a_boot_starts_the_active_version_although_the_recovery_fails() {
    let mut device = Device::new();
    let image = device.update("shop", TAG, "1");
    let journal = device.state_directory().join("journal.json");
    fs::write(&journal, "{").unwrap();
    device.engine.lose_power(&device.client.device().join("units")).unwrap();
    assert_eq!(device.running("shop.web"), None);
    refused(&device.client.call("--recover").unwrap(), journal.to_str().unwrap());
    assert_eq!(device.running("shop.web"), Some(image.id));
}

#[test]
fn a_cleanup_waits_for_a_recovery_that_still_runs() {
    let mut device = Device::new();
    assert!(device.download_one("shop", TAG, &archive(TAG, "1", Mode::Healthy)).success());
    device.all(&["ArtifactInstall", "ArtifactCommit"]);
    let [begun, end] = ["begun", "end"].map(|name| device.client.device().join(name));
    device.hold_systemctl(&begun, &end);
    let journal = device.state_directory().join("journal.json");
    let is_pending = thread::scope(|scope| {
        scope.spawn(|| device.ok("--recover"));
        let since = Instant::now();
        while !begun.exists() && since.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(10));
        }
        scope.spawn(|| device.ok("Cleanup"));
        thread::sleep(Duration::from_millis(500));
        let is_pending = journal.exists();
        fs::write(&end, "").unwrap();
        is_pending
    });
    assert!(is_pending, "the update was ended during the recovery");
    assert!(device.is_clean());
}

#[test]
fn projects_are_independent_and_may_share_an_image() {
    let mut device = Device::new();
    let shared = device.update("shop", "localhost/base:1", "1");
    assert_eq!(device.update("museum", "localhost/base:1", "1").id, shared.id);
    let before = device.engine_state();
    device.update("shop", "localhost/shop:2", "2");
    assert_eq!(device.running("museum.web"), Some(shared.id.clone()));
    assert!(device.has_image(&shared), "the project museum needs it");
    device.update("museum", "localhost/museum:2", "3");
    assert!(!device.has_image(&shared), "no project needs it: {:?}", device.engine_state());
    assert_ne!(device.engine_state(), before);
}

#[test]
fn an_image_on_the_device_is_optional_in_the_artifact_and_not_loaded_again() {
    let mut device = Device::new();
    let image = device.update("shop", TAG, "1");
    let previous = device.engine_state();
    let outcome = device.download_one("shop", TAG, &image);
    assert!(outcome.success() && outcome.stderr.contains("already on the device"), "{outcome:?}");
    device.ok("ArtifactInstall");
    device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert_eq!(device.engine_state(), previous);
    let meta_data = json!({
        "project": "museum",
        "images": [{"id": image.id, "ref": TAG}],
        "run": {"web": {"image": TAG}},
    });
    assert!(device.download(&meta_data, &[]).success());
    device.ok("ArtifactInstall");
    assert_eq!(device.running("museum.web"), Some(image.id));
}

#[test]
fn other_directories_are_ignored_and_a_damaged_project_does_not_block_others() {
    let mut device = Device::new();
    let image = device.update("shop", TAG, "1");
    let projects = device.state_directory().join("projects");
    fs::create_dir(projects.join("empty")).unwrap();
    fs::create_dir(projects.join("shop.bak")).unwrap();
    fs::create_dir(projects.join("damaged")).unwrap();
    fs::write(projects.join("damaged/project.json"), "{").unwrap();
    device.engine.lose_power(&device.client.device().join("units")).unwrap();
    refused(&device.client.call("--recover").unwrap(), "projects not started at boot: 1");
    assert_eq!(device.running("shop.web"), Some(image.id));
    fs::remove_dir_all(projects.join("damaged")).unwrap();
    device.update("shop", TAG, "2");
}

#[test]
fn a_project_that_others_may_write_to_is_not_started() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let project = device.state_directory().join("projects/shop");
    let unit = project.join("mender-shop.web.service");
    for (path, mode, good) in
        [(&project, 0o777, 0o755), (&unit, 0o666, 0o600), (&project.join("project.json"), 0o622, 0o600)]
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        device.engine.lose_power(&device.client.device().join("units")).unwrap();
        refused(&device.client.call("--recover").unwrap(), path.to_str().unwrap());
        assert_eq!(device.running("shop.web"), None, "{}", path.display());
        fs::set_permissions(path, fs::Permissions::from_mode(good)).unwrap();
        device.boot();
        assert!(device.running("shop.web").is_some());
    }
    let other = device.state_directory().join("other");
    fs::rename(&unit, &other).unwrap();
    symlink(&other, &unit).unwrap();
    device.engine.lose_power(&device.client.device().join("units")).unwrap();
    refused(&device.client.call("--recover").unwrap(), "is a symlink");
    assert_eq!(device.running("shop.web"), None);
}

#[test]
fn a_project_that_was_replaced_after_the_download_is_refused() {
    for replaced in ["staging/shop", "projects/shop"] {
        let mut device = Device::new();
        device.update("shop", TAG, "1");
        let previous = device.running("shop.web");
        assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
        let (path, aside) = (device.state_directory().join(replaced), device.state_directory().join("aside"));
        fs::rename(&path, &aside).unwrap();
        let copied = Command::new("cp").arg("--archive").arg(&aside).arg(&path).status().unwrap();
        assert!(copied.success());
        refused(&device.client.call("ArtifactInstall").unwrap(), "was replaced");
        fs::remove_dir_all(&path).unwrap();
        symlink(&aside, &path).unwrap();
        refused(&device.client.call("ArtifactInstall").unwrap(), "symlink");
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(device.running("shop.web"), previous);
        device.all(&["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
    }
}

/// The journal of an update from `before` to `after`, at its end.
fn ended_record(device: &mut Device, version: &str, states: &[&str]) -> Vec<u8> {
    assert!(device.download_one("shop", TAG, &archive(TAG, version, Mode::Healthy)).success());
    device.all(states);
    fs::read(device.state_directory().join("journal.json")).unwrap()
}

#[test]
fn files_that_an_earlier_update_left_are_removed_only_while_no_update_is_pending() {
    for next in ["Cleanup", "--recover", "Download"] {
        let mut device = Device::of(Generation::V3, "");
        let image = device.update("shop", TAG, "1");
        let record = ended_record(&mut device, "2", &["ArtifactInstall", "ArtifactRollback"]);
        device.ok("Cleanup");
        let before = device.engine_state();
        assert!(device.download_one("shop", TAG, &archive(TAG, "3", Mode::Healthy)).success());
        device.ok("ArtifactInstall");
        fs::write(device.state_directory().join("left-1.json"), record).unwrap();
        match next {
            "Cleanup" => device.all(&["ArtifactRollback", "Cleanup"]),
            "--recover" => {
                device.boot();
                device.all(&["ArtifactRollback", "Cleanup"]);
            }
            _ => {
                let refused = device.download_one("shop", TAG, &Archive { id: "0".repeat(64), content: vec![] });
                assert!(!refused.success(), "{refused:?}");
                device.ok("Cleanup");
            }
        }
        assert_eq!(device.running("shop.web"), Some(image.id), "{next}");
        assert_eq!(device.engine_state(), before, "{next}");
        assert!(device.is_clean() && !device.state_directory().join("left-1.json").exists(), "{next}");
    }
}

#[test]
fn an_earlier_update_does_not_restore_names_that_a_later_one_has_changed() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let record = ended_record(&mut device, "2", &["ArtifactInstall", "ArtifactRollback"]);
    device.ok("Cleanup");
    device.update("shop", TAG, "3");
    let before = device.engine_state();
    let late = device.state_directory().join("late-1.json");
    fs::write(&late, record).unwrap();
    device.ok("Cleanup");
    assert_eq!(device.engine_state(), before);
    assert!(!late.exists());
}

#[test]
fn an_update_of_another_project_keeps_a_previous_version_that_could_not_be_restored() {
    let mut device = Device::new();
    let image = device.update("shop", TAG, "1");
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
    device.ok("ArtifactInstall");
    let kept = device.state_directory().join("staging/shop");
    let open_to_others =
        |mode| fs::set_permissions(kept.join("project.json"), fs::Permissions::from_mode(mode)).unwrap();
    open_to_others(0o666);
    refused(&device.client.call("ArtifactRollback").unwrap(), "not trusted");
    device.all(&["ArtifactFailure", "Cleanup"]);
    assert!(kept.exists());
    let other = "localhost/other:latest";
    let _ = device.download_one("other", other, &archive(other, "3", Mode::Healthy));
    device.ok("Cleanup");
    assert!(kept.exists(), "the previous version is removed");
    open_to_others(0o600);
    let outcome = device.download_one("shop", TAG, &archive(TAG, "4", Mode::Healthy));
    assert!(outcome.success(), "{outcome:?}");
    device.ok("Cleanup");
    assert_eq!(device.running("shop.web"), Some(image.id));
}

#[test]
fn a_recovery_without_a_boot_ends_the_units_of_the_new_version() {
    let mut device = Device::new();
    let previous = device.update("shop", TAG, "1");
    let before = device.engine_state();
    let new = archive(TAG, "2", Mode::Healthy);
    let mut meta_data = one("shop", TAG, &new.id);
    meta_data["run"]["worker"] = json!({"image": TAG});
    for _ in 0..2 {
        let outcome = device.download(&meta_data, &[("app.tar", &new.content)]);
        assert!(outcome.success(), "{outcome:?}");
        device.ok("ArtifactInstall");
        assert_eq!(device.running("shop.worker"), Some(new.id.clone()));
        // As if the module had been killed at the end of its install.
        let journal = device.state_directory().join("journal.json");
        let text = fs::read_to_string(&journal).unwrap();
        let killed = text.replace("\"phase\":\"Switched\"", "\"phase\":\"Switching\"");
        assert_ne!(killed, text);
        fs::write(&journal, killed).unwrap();
        device.ok("--recover");
        assert_eq!(device.running("shop.worker"), None);
        assert_eq!(device.running("shop.web"), Some(previous.id.clone()));
        let units = fs::read_dir(device.client.device().join("units")).unwrap();
        let workers = units.filter(|unit| unit.as_ref().unwrap().file_name().to_string_lossy().contains("worker"));
        assert_eq!(workers.count(), 0);
    }
    device.ok("Cleanup");
    assert_eq!(device.engine_state(), before);
}
