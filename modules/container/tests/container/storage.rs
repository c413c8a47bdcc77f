//! Storage of the engine that loses writes.

use std::fs;

use mender_update_module_test::failing_storage::FailingStorage;
use test_image::Mode;

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
