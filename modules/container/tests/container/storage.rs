//! Storage that loses writes, and storage with too little space.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use mender_update_module_test::Generation;
use mender_update_module_test::failing_storage::FailingStorage;
use mender_update_module_test::privileged::Mounted;
use serde_json::json;
use test_image::{Archive, Image, Mode};

use crate::device::{Device, archive, one, refused};

const TAG: &str = "localhost/shop:latest";

/// Lets the storage lose a write after the engine's command that begins with `command`, in calls of later downloads.
/// Another program syncs it in vain. Returns the path of the file that is lost.
fn lose_a_write_after(command: &str, device: &Device, storage: &FailingStorage) -> PathBuf {
    let mounted = device.engine.directory().parent().unwrap();
    let lost = mounted.join("lost");
    let script = format!(
        "\"$mock\" \"$@\" || exit\ncase \" $* \" in *' {command}'*)\n{}\nsync --file-system '{}' || {}\nesac",
        FailingStorage::writing_too_much(&lost),
        mounted.display(),
        storage.repairing(),
    );
    device.replace_program("podman", &script);
    lost
}

/// podman does not sync the layers of an image, and another program may sync them: then its sync fails, and the
/// engine has succeeded.
#[test]
fn a_write_of_the_engine_that_another_program_has_synced_in_vain_fails_the_download() {
    let mut device = Device::new();
    let mounted = device.engine.directory().parent().unwrap().to_owned();
    let Some(storage) = FailingStorage::mount(&mounted) else { return };
    fs::create_dir(device.engine.directory()).unwrap();
    let lost = lose_a_write_after("load ", &device, &storage);
    let outcome = device.download_one("shop", TAG, &archive(TAG, "1", Mode::Healthy));
    assert!(lost.exists(), "{outcome:?}");
    refused(&outcome, "making the engine's images durable failed");
    device.ok("Cleanup");
    device.set("");
    device.update("shop", TAG, "1");
}

/// A tar archive of one file of zeros, of `size` bytes.
fn tar(size: u64) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    fs::File::create(directory.path().join("app.data")).unwrap().set_len(size).unwrap();
    let mut tar = std::process::Command::new("tar");
    let output = tar.arg("--create").arg("--directory").arg(directory.path()).arg("app.data").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn the_files_of_an_artifact_leave_the_reserve_free() {
    for generation in [Generation::V5, Generation::V3] {
        let mut device = Device::of(generation, "reserve_mib = 4\n");
        let image = archive(TAG, "1", Mode::Healthy);
        device.engine.add_image(&image.id, "healthy").unwrap();
        let Some(_mounted) = Mounted::tmpfs(&device.state_directory(), "size=8m,mode=755") else { return };
        let meta_data = json!({
            "project": "shop",
            "images": [{"id": image.id, "ref": TAG}],
            "run": {"web": {"image": TAG, "volumes": ["./app.data:/app.data:ro"]}},
            "archive": "files.tar",
        });
        let outcome = device.download(&meta_data, &[("files.tar", &tar(5 << 20))]);
        refused(&outcome, &format!("{} bytes needed", 5 << 20));
        assert!(outcome.stderr.contains("4194304 stay free: free some space"), "{outcome:?}");
        device.ok("Cleanup");
        assert!(device.download(&meta_data, &[("files.tar", &tar(2 << 20))]).success());
    }
}

/// An archive of an image with a layer of at least `size` bytes.
fn archive_of_size(size: usize) -> Archive {
    let mut executable = vec![0; size];
    executable.as_mut_slice().write_all(b"not run here").unwrap();
    Image { reference: TAG, version: "1", mode: Mode::Healthy, architecture: "amd64", executable: &executable }
        .archive()
}

/// A client older than 4.0 announces no sizes, and the meta-data of this artifact have none.
#[test]
fn an_image_of_unknown_size_leaves_the_reserve_free() {
    let mut device = Device::of(Generation::V3, "");
    let directory = device.client.device().join("tmp");
    let Some(_mounted) = Mounted::tmpfs(&directory, "size=16m,mode=755") else { return };
    device.set(&format!("reserve_mib = 4\ntmp_dir = {directory:?}\n"));
    for (size, fits) in [(13 << 20, false), (5 << 20, true)] {
        let image = archive_of_size(size);
        let outcome = device.download_one("shop", TAG, &image);
        if fits {
            assert!(outcome.success(), "{outcome:?}");
        } else {
            refused(&outcome, "4194304 stay free: free some space");
            assert!(outcome.stderr.contains(&format!("not enough space in {}", directory.display())), "{outcome:?}");
        }
        assert_eq!(device.has_image(&image), fits);
        device.ok("Cleanup");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "its space is not free");
    }
}

/// The archive's end is read after the engine has stored the image: its space is not needed a second time. Temporary
/// files are on another file system, so that the storage alone is small.
#[test]
fn an_image_needs_its_space_in_the_storage_once() {
    for (generation, size_in_meta_data) in [(Generation::V5, false), (Generation::V3, false), (Generation::V3, true)] {
        let mut device = Device::of(generation, "");
        let storage = device.engine.directory().to_owned();
        let tmp_dir = device.client.device().join("tmp");
        fs::create_dir(&tmp_dir).unwrap();
        let Some(_mounted) = Mounted::tmpfs(storage.parent().unwrap(), "size=16m,mode=755") else { return };
        fs::create_dir(&storage).unwrap();
        device.set(&format!("reserve_mib = 4\ntmp_dir = {tmp_dir:?}\n"));
        let layers = storage.join("layers");
        let script = format!(
            "\"$mock\" \"$@\" || exit\ncase \" $* \" in *' load '*) head --bytes {} /dev/zero >'{}'; esac",
            7 << 20,
            layers.display()
        );
        device.replace_program("podman", &script);
        for (size, fits) in [(13 << 20, false), (7 << 20, true)] {
            let image = archive_of_size(size);
            let mut meta_data = one("shop", TAG, &image.id);
            if size_in_meta_data {
                meta_data["images"][0]["size"] = json!(size);
            }
            let outcome = device.download(&meta_data, &[("app.tar", &image.content)]);
            assert_eq!(outcome.success(), fits, "{generation:?}, {size}: {outcome:?}");
            let expected = format!("not enough space in {}", storage.display());
            assert_eq!(outcome.stderr.contains(&expected), !fits, "{outcome:?}");
            assert!(!outcome.stderr.contains("unexpected image"), "{outcome:?}");
            assert_eq!(device.has_image(&image), fits);
            device.ok("Cleanup");
        }
    }
}

#[test]
fn a_small_definition_needs_no_more_space_than_it_has() {
    for generation in [Generation::V5, Generation::V3] {
        let mut device = Device::of(generation, "reserve_mib = 4\n");
        let image = archive(TAG, "1", Mode::Healthy);
        device.engine.add_image(&image.id, "healthy").unwrap();
        let Some(_mounted) = Mounted::tmpfs(&device.state_directory(), "size=4200k,mode=755") else { return };
        let meta_data = json!({
            "project": "shop",
            "images": [{"id": format!("sha256:{}", image.id), "ref": TAG}],
            "quadlet": ["web.container"],
        });
        let definition = format!("[Container]\nImage={TAG}\n");
        // Without podman's generator of units, it is refused later.
        let outcome = device.download(&meta_data, &[("web.container", definition.as_bytes())]);
        assert!(!outcome.stderr.contains("not enough space"), "{generation:?}: {outcome:?}");
        device.ok("Cleanup");
        let long = definition + &"#".repeat(120 << 10);
        refused(&device.download(&meta_data, &[("web.container", long.as_bytes())]), "4194304 stay free");
        device.ok("Cleanup");
    }
}

/// On overlayfs, inode numbers change with a boot, and the rollback would not recognize its directories.
#[test]
fn a_data_directory_that_cannot_exchange_directories_is_refused_before_an_image_is_loaded() {
    let mut device = Device::new();
    let before = device.engine_state();
    let layers = device.client.device().join("layers");
    let state = device.state_directory();
    for below in [state.clone(), state.join("projects")] {
        fs::create_dir_all(&below).unwrap();
        let Some(_mounted) = Mounted::overlay(&layers) else { return };
        let Some(_bound) = Mounted::bind(&layers.join("merged"), &below) else { return };
        let outcome = device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy));
        refused(&outcome, "overlayfs, vfat and exfat cannot exchange directories");
        assert!(outcome.stderr.contains(below.to_str().unwrap()), "{outcome:?}");
        device.ok("Cleanup");
        assert_eq!(device.engine_state(), before);
    }
    let Some(mounted) = Mounted::tmpfs(&state.join("projects"), "mode=755") else { return };
    refused(&device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)), "is on another mount");
    device.ok("Cleanup");
    assert_eq!(device.engine_state(), before);
    drop(mounted);
    device.update("shop", TAG, "2");
}

/// A device on which a committed update has removed the previous image in Cleanup, and this was not durable. Returns
/// that image, too; `None` if this process may not mount.
fn with_a_failed_cleanup() -> Option<(Device, FailingStorage, Archive)> {
    let mut device = Device::new();
    let mounted = device.engine.directory().parent().unwrap().to_owned();
    let storage = FailingStorage::mount(&mounted)?;
    fs::create_dir(device.engine.directory()).unwrap();
    let previous = device.update("shop", TAG, "1");
    let lost = lose_a_write_after("rmi --no-prune localhost/mender-kept/", &device, &storage);
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
    device.all(&["ArtifactInstall", "ArtifactCommit"]);
    assert!(!lost.exists());
    let outcome = device.client.call("Cleanup").unwrap();
    assert!(lost.exists(), "{outcome:?}");
    assert!(outcome.stderr.contains("cleanup incomplete: making the engine's images durable failed"), "{outcome:?}");
    assert!(device.state_directory().join("left-1.json").exists());
    device.set("");
    Some((device, storage, previous))
}

/// As in Download. A cleanup blocks no update: its record stays, and the next update tries again.
#[test]
fn the_record_of_a_cleanup_stays_if_the_removal_of_an_image_is_not_durable() {
    let Some((mut device, _storage, previous)) = with_a_failed_cleanup() else { return };
    device.update("shop", TAG, "3");
    assert!(!device.has_image(&previous) && device.is_clean());
    assert!(!device.state_directory().join("left-1.json").exists());
}

/// It may be the previous version of a later update of the project, which could not be restored.
#[test]
fn a_later_cleanup_keeps_a_directory_of_another_update() {
    let Some((mut device, _storage, _)) = with_a_failed_cleanup() else { return };
    let staged = device.state_directory().join("staging/shop");
    fs::rename(&staged, device.client.device().join("aside")).unwrap();
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("of-a-later-update"), "").unwrap();
    device.update("other", "localhost/other:1", "3");
    assert!(staged.join("of-a-later-update").exists());
}

#[test]
fn a_failed_rollback_blocks_only_its_project() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    assert!(device.download_one("shop", TAG, &archive(TAG, "2", Mode::Healthy)).success());
    device.ok("ArtifactInstall");
    let previous = device.state_directory().join("staging/shop");
    fs::rename(&previous, device.client.device().join("aside")).unwrap();
    assert!(!device.client.call("ArtifactRollback").unwrap().success());
    for state in ["ArtifactFailure", "Cleanup"] {
        device.client.call(state).unwrap();
    }
    let outcome = device.download_one("shop", TAG, &archive(TAG, "3", Mode::Healthy));
    refused(&outcome, "unrestored-1.json");
    device.client.call("Cleanup").unwrap();
    device.update("other", "localhost/other:1", "4");
}

#[test]
fn a_file_system_that_cannot_exchange_names_is_refused_before_an_image_is_loaded() {
    let mut device = Device::new();
    let before = device.engine_state();
    let staging = device.state_directory().join("staging/shop");
    if !device.client.fail_call("renameat2", "EINVAL", &staging) {
        return;
    }
    refused(&device.download_one("shop", TAG, &archive(TAG, "1", Mode::Healthy)), "RENAME_EXCHANGE");
    device.client.wrap::<&str>([]);
    device.ok("Cleanup");
    assert!(device.engine_state() == before && device.is_clean());
}
