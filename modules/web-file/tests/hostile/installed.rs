//! Installed files: their attributes, and that they are durable.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use mender_update_module_test::Snapshot;
use mender_update_module_test::privileged::Mounted;

use crate::device::{Device, WWW_DATA, failed, may_mount};

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
fn an_owner_is_found_among_the_users_and_a_group_among_the_groups() {
    let Some(mut device) = Device::new().filter(|_| may_mount()) else { return };
    let accounts = device.client.device().join("accounts");
    fs::create_dir(&accounts).unwrap();
    fs::write(accounts.join("passwd"), "root:x:0:0::/:/bin/sh\nweb:x:4242:4242::/:/bin/sh\n").unwrap();
    fs::write(accounts.join("group"), "root:x:0:\nweb:x:4343:\n").unwrap();
    // The files are mounted for the module only.
    let script = "for name in passwd group; do mount --bind \"$0/$name\" \"/etc/$name\" || exit; done; exec \"$@\"";
    device.client.wrap(["unshare", "--mount", "sh", "-c", script, accounts.to_str().unwrap()]);
    device.set(&device.www, "owner = \"web\"\ngroup = \"web\"\n");
    device.updates_again();
    let found = fs::metadata(device.www.join("index.html")).unwrap();
    assert_eq!((found.uid(), found.gid()), (4242, 4343));
}

#[test]
fn the_times_of_a_web_root_stay_although_the_staging_directory_is_in_it() {
    let Some(device) = Device::new() else { return };
    let Some(_mounted) = Mounted::tmpfs(&device.www, "mode=755") else { return };
    fs::write(device.www.join("index.html"), "previous").unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    fs::File::open(&device.www).unwrap().set_modified(then).unwrap();
    let before = Snapshot::of(&device.www).unwrap();
    for states in [&["Cleanup"][..], &["ArtifactInstall", "ArtifactRollback", "Cleanup"]] {
        assert!(device.download().success());
        assert!(device.www.join(".html.web-file").exists());
        states.iter().for_each(|state| device.ok(state));
        assert!(Snapshot::of(&device.www).unwrap() == before, "{states:?}");
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

#[test]
fn the_check_of_the_file_system_leaves_no_files() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    let names = fs::read_dir(device.staging()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(BTreeSet::from_iter(names), ["new", "old"].map(str::to_owned).into());
}
