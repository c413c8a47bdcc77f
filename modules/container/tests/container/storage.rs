//! Storage of the engine that loses writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mender_update_module_test::failing_storage::FailingStorage;
use test_image::Mode;

use crate::device::{Device, archive, mocks, refused};

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
    let engine = device.client.device().join("losing-podman");
    let (podman, lost) = (mocks().join("fake-podman"), mounted.join("lost"));
    let script = format!(
        "#!/bin/sh\n'{0}' \"$@\" || exit\ncase \" $* \" in *' load '*)\n{1}\nsync --file-system '{2}' || {3}\nesac\n",
        podman.display(),
        FailingStorage::writing_too_much(&lost),
        mounted.display(),
        storage.repairing(),
    );
    fs::write(&engine, script).unwrap();
    fs::set_permissions(&engine, fs::Permissions::from_mode(0o755)).unwrap();
    device.set_engine(&engine, "");
    let outcome = device.download_one("shop", TAG, &archive(TAG, "1", Mode::Healthy));
    assert!(lost.exists(), "{outcome:?}");
    refused(&outcome, "making the engine's images durable failed");
    device.ok("Cleanup");
    device.set("");
    device.update("shop", TAG, "1");
}
