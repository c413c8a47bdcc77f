//! Storage that loses writes, and storage with too little space.

use std::fs;
use std::io::Write;

use mender_update_module_test::Generation;
use mender_update_module_test::failing_storage::FailingStorage;
use mender_update_module_test::privileged::Mounted;
use serde_json::json;
use test_image::{Archive, Image, Mode};

use crate::device::{Device, archive, refused};

const TAG: &str = "localhost/shop:latest";

/// podman does not sync the layers of an image, and another program may sync them: then its sync fails, and the
/// engine has succeeded.
#[test]
fn a_write_of_the_engine_that_another_program_has_synced_in_vain_fails_the_download() {
    let mut device = Device::new();
    let mounted = device.engine.directory().parent().unwrap().to_owned();
    let storage = match FailingStorage::mount(&mounted) {
        Ok(storage) => storage,
        Err(error) => return eprintln!("skipped: {error:#}"),
    };
    fs::create_dir(device.engine.directory()).unwrap();
    let lost = mounted.join("lost");
    let script = format!(
        "\"$mock\" \"$@\" || exit\ncase \" $* \" in *' load '*)\n{}\nsync --file-system '{}' || {}\nesac",
        FailingStorage::writing_too_much(&lost),
        mounted.display(),
        storage.repairing(),
    );
    device.replace_program("podman", &script);
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
        fs::create_dir_all(device.state_directory()).unwrap();
        let _mounted = match Mounted::tmpfs(&device.state_directory(), "size=8m,mode=755") {
            Ok(mounted) => mounted,
            Err(error) => return eprintln!("skipped: {error:#}"),
        };
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
    fs::create_dir(&directory).unwrap();
    let _mounted = match Mounted::tmpfs(&directory, "size=16m,mode=755") {
        Ok(mounted) => mounted,
        Err(error) => return eprintln!("skipped: {error:#}"),
    };
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
