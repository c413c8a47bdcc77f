//! Destinations that are refused, and datastores at any path.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mender_update_module_test::Snapshot;
use mender_update_module_test::privileged::change_attribute;

use crate::device::{Device, failed, may_mount};

#[test]
fn impossible_destinations_are_refused_in_download_and_block_nothing() {
    let Some(device) = Device::new() else { return };
    let root = device.client.device().to_owned();
    for (dest_dir, words) in [
        (PathBuf::from("/proc/web"), "a file system without files"),
        (PathBuf::from("/sys/web"), "a file system without files"),
        (root.join("n".repeat(256)), "File name too long"),
        (root.join("missing").join("n".repeat(256)), "longer than 255 bytes"),
        (root.join("home\r"), "control character"),
        (device.client.datastore().join("modules"), "name another directory"),
        (device.journal(), "name another directory"),
        (PathBuf::from(env!("CARGO_BIN_EXE_web-file")).parent().unwrap().to_owned(), "name another directory"),
    ] {
        device.set(&dest_dir, "");
        failed(&device.download(), words);
        assert!(!device.journal().join("journal.json").exists(), "{dest_dir:?}: the journal was opened");
        device.ok("Cleanup");
    }
    for length in [240, 245, 250, 255] {
        device.set(&root.join("n".repeat(length)), "");
        assert!(device.download().success(), "{length}");
        device.ok("ArtifactInstall");
        device.ok("ArtifactRollback");
        device.ok("Cleanup");
    }
    device.set(&device.www, "owner = \"4294967295\"\n");
    failed(&device.download(), "4294967295");
    device.set(&device.www, "");
    device.updates_again();
}

#[test]
fn a_web_root_that_another_program_makes_after_the_download_is_refused_and_stays() {
    for made in ["srv", "srv/www"] {
        let Some(device) = Device::new() else { return };
        let (web_root, made) = (device.client.device().join("srv/www"), device.client.device().join(made));
        device.set(&web_root, "");
        assert!(device.download().success());
        fs::create_dir_all(&made).unwrap();
        let inode = fs::metadata(&made).unwrap().ino();
        failed(&device.call("ArtifactInstall"), "was made after the download");
        for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
            device.ok(state);
        }
        assert_eq!(fs::metadata(&made).unwrap().ino(), inode, "{made:?}");
        for state in ["ArtifactInstall", "ArtifactCommit", "Cleanup"] {
            assert!(state != "ArtifactInstall" || device.download().success());
            device.ok(state);
        }
    }
}

#[test]
fn a_directory_with_a_program_of_the_client_is_refused() {
    let Some(mut device) = Device::new().filter(|_| may_mount()) else { return };
    let programs = Path::new("/usr/local/bin");
    device.set(programs, "");
    // The file system is mounted for the module only.
    let script = "mount -t tmpfs -o mode=755 tmpfs \"$0\" && : > \"$0/mender-update\" && exec \"$@\"";
    device.client.wrap(["unshare", "--mount", "sh", "-c", script, programs.to_str().unwrap()]);
    failed(&device.download(), "/usr/local/bin/mender-update belongs to the Mender client");
    assert!(!device.journal().join("journal.json").exists());
}

#[test]
fn an_immutable_web_root_is_refused_and_an_immutable_file_in_it_blocks_nothing() {
    let Some(device) = Device::new() else { return };
    for (set, clear) in [("+i", "-i"), ("+a", "-a")] {
        if !change_attribute(set, &device.www) {
            return;
        }
        let outcome = device.download();
        change_attribute(clear, &device.www);
        failed(&outcome, "chattr -ia");
        assert!(!device.journal().join("journal.json").exists());
    }
    let before = Snapshot::of(&device.www).unwrap();
    assert!(device.download().success());
    change_attribute("+i", &device.www);
    let outcome = device.call("ArtifactInstall");
    failed(&outcome, "chattr -ia");
    assert!(!outcome.stderr.contains("rollback failed"), "refused too late: {outcome:?}");
    for state in ["ArtifactRollback", "Cleanup"] {
        device.ok(state);
    }
    change_attribute("-i", &device.www);
    change_attribute("+i", &device.www.join("passwd"));
    assert!(device.download().success());
    failed(&device.call("ArtifactInstall"), "immutable");
    for state in ["ArtifactRollback", "Cleanup"] {
        device.ok(state);
    }
    assert!(Snapshot::of(&device.www).unwrap() == before);
    change_attribute("-i", &device.www.join("passwd"));
    device.updates_again();
}

#[test]
fn the_recovery_at_boot_finds_a_moved_datastore_or_reports_it() {
    let Some(device) = Device::new() else { return };
    device.client.interrupt_download(&[(OsStr::new("big"), &[7_u8; 100_000][..])]).unwrap();
    let recover = |datastore: Option<&Path>| {
        let mut call = device.client.by_hand(&["--recover"]);
        match datastore {
            Some(path) => call.env("MENDER_DATASTORE_DIR", path),
            None => call.env_remove("MENDER_DATASTORE_DIR"),
        };
        let output = call.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(recover(Some(Path::new("/no/such/datastore"))).contains("does not exist"));
    assert!(device.staging().exists());
    recover(Some(&device.client.datastore()));
    assert!(!device.staging().exists(), "by the client's variable");
    device.client.interrupt_download(&[(OsStr::new("big"), &[7_u8; 100_000][..])]).unwrap();
    device.set(&device.www, &format!("datastore = {:?}\n", device.client.datastore().to_str().unwrap()));
    recover(None);
    assert!(!device.staging().exists(), "by the module's setting");
}

#[test]
fn a_pending_update_is_found_for_any_datastore() {
    let Some(device) = Device::new() else { return };
    let under_way = |datastore: &str| {
        let settings = format!("datastore = {datastore}\n");
        device.set(&device.www, &settings);
        let output = device.client.by_hand(&["--under-way"]).env_remove("MENDER_DATASTORE_DIR").output().unwrap();
        (output.status.code() == Some(0), String::from_utf8(output.stdout).unwrap())
    };
    let code = || device.client.by_hand(&["--under-way"]).output().unwrap().status.code();
    let datastore = device.client.datastore().display().to_string();
    assert!(!under_way(&format!("\"{datastore}\"")).0, "none has begun");
    assert!(device.download().success());
    let journal = format!("{}\n", device.journal().join("journal.json").display());
    for spelling in [format!("\"{datastore}\""), format!("'{datastore}' # the \"big\" one")] {
        assert_eq!(under_way(&spelling), (true, journal.clone()));
    }
    // A mistake in the settings hides no update. What cannot be read may be one.
    let settings = device.client.settings().join("web-file.toml");
    fs::write(&settings, "datastore =\n").unwrap();
    assert_eq!(code(), Some(0), "settings that are not TOML");
    let mut call = device.client.by_hand(&["--under-way"]);
    let elsewhere = call.env("MENDER_DATASTORE_DIR", device.client.device().join("elsewhere")).output().unwrap();
    assert_eq!(elsewhere.status.code(), Some(2), "the settings may have meant another datastore");
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(code(), Some(2), "settings that are not trusted");
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&settings, "").unwrap();
    device.ok("Cleanup");
    assert_eq!(code(), Some(1), "none");
    assert!(!under_way(&format!("\"{datastore}\"")).0, "it has ended");
    // The rollback fails, and an update of another destination sets its record aside.
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    fs::remove_dir_all(device.previous()).unwrap();
    failed(&device.call("ArtifactRollback"), "previous files");
    device.ok("Cleanup");
    device.set(&device.client.device().join("other"), "");
    assert!(device.download().success());
    device.ok("Cleanup");
    let record = format!("{}\n", device.journal().join("unrestored-1.json").display());
    assert_eq!(under_way(&format!("\"{datastore}\"")), (true, record), "nothing else restores the previous version");
}

#[test]
fn a_file_system_without_hard_links_is_refused_in_download() {
    let Some(mut device) = Device::new() else { return };
    if !device.inject(&["--trace=linkat", "--inject=linkat:error=EPERM"]) {
        return;
    }
    failed(&device.download(), "its file system has no hard links");
    device.client.wrap::<&str>([]);
    device.ok("Cleanup");
    device.updates_again();
}
