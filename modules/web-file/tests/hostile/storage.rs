//! Storage that fails.

use std::ffi::OsStr;
use std::fs;

use mender_update_module_test::Snapshot;
use mender_update_module_test::failing_storage::FailingStorage;

use crate::device::{Device, failed};

#[test]
fn an_update_is_refused_if_the_storage_returns_other_data_than_was_written() {
    let Some(mut device) = Device::new() else { return };
    device.home = device.client.device().join("storage");
    device.www = device.home.join("html");
    fs::create_dir(&device.home).unwrap();
    let Some(storage) = FailingStorage::mount(&device.home) else { return };
    fs::create_dir(&device.www).unwrap();
    fs::write(device.www.join("index.html"), "previous").unwrap();
    device.set(&device.www, "");
    let before = Snapshot::of(&device.home).unwrap().without_directory_times();
    let content = "the whole content ".repeat(500);
    let payload = [(OsStr::new("index.html"), content.as_bytes()), (OsStr::new("second"), b"second")];
    let damage = |name: &OsStr| {
        if name == "second" {
            rustix::fs::syncfs(fs::File::open(&device.home).unwrap()).unwrap();
            storage.damage(b"the whole", b"the wrong").unwrap();
        }
    };
    let (outcome, _) = device.client.download_with(&payload, &damage).unwrap();
    failed(&outcome, "storage failed");
    failed(&outcome, "replace the storage");
    device.ok("Cleanup");
    assert!(Snapshot::of(&device.home).unwrap().without_directory_times() == before);
}
