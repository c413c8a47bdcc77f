//! Installed files: their attributes, and that they are durable.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::device::{Device, WWW_DATA, failed};

#[test]
fn installed_files_have_owner_group_and_mode_of_the_settings() {
    let Some(device) = Device::new() else { return };
    let group = WWW_DATA + 1;
    // The change of an owner clears the set-ID bits.
    for mode in [0o4750, 0o600] {
        let settings = format!("owner = \"{WWW_DATA}\"\ngroup = \"{group}\"\nfile_mode = \"{mode:04o}\"\n");
        device.set(&device.www, &settings);
        device.updates_again();
        for name in ["index.html", "added.css"] {
            let found = fs::metadata(device.www.join(name)).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (WWW_DATA, group, mode), "{name}");
        }
    }
}

#[test]
fn every_directory_is_synced_and_a_failed_sync_fails_the_call() {
    for (state, directories) in [
        ("ArtifactInstall", &["staging/old", "staging", "staging/new", "www"][..]),
        ("ArtifactRollback", &["staging/new", "www"][..]),
    ] {
        for directory in directories {
            let Some(mut device) = Device::new() else { return };
            assert!(device.download().success());
            if state == "ArtifactRollback" {
                device.ok("ArtifactInstall");
            }
            let path = match directory.strip_prefix("staging/") {
                Some(name) => device.staging().join(name),
                None if *directory == "staging" => device.staging(),
                None => device.www.clone(),
            };
            let only = format!("--trace-path={}", path.display());
            if !device.inject(&["--trace=fsync", "--inject=fsync:error=EIO:when=1", &only]) {
                return;
            }
            failed(&device.call(state), &format!("syncing the directory {} failed", path.display()));
            device.client.wrap::<&str>([]);
            for next in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
                device.ok(next);
            }
            assert_eq!(device.text("index.html"), "previous", "{state}, {directory}");
            assert!(!device.www.join("added.css").exists() && !device.staging().exists(), "{state}, {directory}");
        }
    }
}
