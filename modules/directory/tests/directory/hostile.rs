//! A local attacker who may write to the destination, and trees that cannot be removed.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use mender_update_module_test::privileged::{Mounted, change_attribute};
use mender_update_module_test::{Generation, Snapshot};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use crate::device::{Device, refused};

/// The user ID of the web server.
const WWW_DATA: u32 = 33;

fn staging(device: &Device) -> PathBuf {
    device.client.device().join("srv/.my app.directory")
}

fn journal(device: &Device) -> PathBuf {
    device.client.datastore().join("update-modules/directory")
}

/// A device whose destination is in a directory of another user, and a tree of root that must not change.
fn device() -> Option<(Device, PathBuf)> {
    let device = Device::filled(Generation::V5);
    if !device.is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    let victim = device.client.device().join("victim");
    fs::create_dir_all(victim.join("new")).unwrap();
    fs::write(victim.join("passwd"), "root's").unwrap();
    chown(device.client.device().join("srv"), Some(WWW_DATA), None).unwrap();
    Some((device, victim))
}

fn update(device: &Device) {
    device.install(&device.tar(&[]));
    device.ok("ArtifactCommit");
    device.ok("Cleanup");
    assert_eq!(device.text("index.html"), "the new index");
}

type Attack = fn(&Device, &Path);

const ATTACKS: &[(&str, Attack)] = &[
    ("the destination becomes a symlink", |device, victim| {
        fs::rename(&device.destination, device.client.device().join("aside")).unwrap();
        symlink(victim, &device.destination).unwrap();
    }),
    ("the destination becomes another directory", |device, _| {
        fs::rename(&device.destination, device.client.device().join("aside")).unwrap();
        fs::create_dir(&device.destination).unwrap();
    }),
    ("the directory above becomes a symlink", |device, victim| {
        let srv = device.client.device().join("srv");
        fs::rename(&srv, device.client.device().join("aside")).unwrap();
        symlink(victim, &srv).unwrap();
    }),
    ("the staging directory becomes another one", |device, _| {
        fs::rename(staging(device), device.client.device().join("aside")).unwrap();
        fs::create_dir_all(staging(device).join("new")).unwrap();
        fs::write(staging(device).join("new/index.html"), "foreign").unwrap();
    }),
    ("the staging directory becomes a symlink", |device, victim| {
        fs::rename(staging(device), device.client.device().join("aside")).unwrap();
        symlink(victim, staging(device)).unwrap();
    }),
    ("the staging directory is given away", |device, _| {
        chown(staging(device), Some(WWW_DATA), None).unwrap();
    }),
    ("the tree in the staging directory becomes another one", |device, _| {
        fs::rename(staging(device).join("new"), device.client.device().join("aside")).unwrap();
        fs::create_dir(staging(device).join("new")).unwrap();
    }),
];

#[test]
fn a_path_that_is_replaced_between_two_calls_is_refused() {
    for (name, attack) in ATTACKS {
        for states in [&["ArtifactInstall"][..], &["ArtifactInstall", "ArtifactRollback"]] {
            let Some((device, victim)) = device() else { return };
            assert!(device.download(&device.tar(&[])).success());
            let (last, before) = states.split_last().unwrap();
            before.iter().for_each(|state| device.ok(state));
            let root = Snapshot::of(&victim).unwrap();
            attack(&device, &victim);
            let outcome = device.client.call(last).unwrap();
            assert_eq!(outcome.status.code(), Some(1), "{name}, then {last}: {outcome:?}");
            for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
                device.client.call(state).unwrap();
            }
            assert!(Snapshot::of(&victim).unwrap() == root, "{name}, then {last}: root's files have changed");
            // Another destination is updated all the same.
            let other = device.client.device().join("other");
            let dest_dir = other.to_str().unwrap().as_bytes();
            let outcome = device.download_files(&[("dest_dir", dest_dir), ("update.tar", &device.tar(&[]))]);
            assert!(outcome.success(), "{name}, then {last}: {outcome:?}");
        }
    }
}

#[test]
fn what_is_mounted_between_two_calls_is_refused_and_a_rollback_follows() {
    type Place = fn(&Device) -> PathBuf;
    let (install, rollback) = (["ArtifactInstall"].as_slice(), ["ArtifactInstall", "ArtifactRollback"].as_slice());
    let destination: Place = |device| device.destination.clone();
    let inside: Place = |device| device.destination.join("bin");
    for (place, states) in
        [(destination, install), (destination, rollback), (inside, install), (staging, install), (staging, rollback)]
    {
        let Some((device, _)) = device() else { return };
        fs::create_dir(device.destination.join("bin")).unwrap();
        let before = device.active();
        assert!(device.download(&device.tar(&[])).success());
        let (last, earlier) = states.split_last().unwrap();
        earlier.iter().for_each(|state| device.ok(state));
        let path = place(&device);
        let Some(mounted) = Mounted::on_itself(&path) else { return };
        let outcome = device.client.call(last).unwrap();
        drop(mounted);
        let what = format!("{}, then {last}", path.display());
        let words = if *last == "ArtifactInstall" { "refused: " } else { ", unmount " };
        assert!(!outcome.success() && outcome.stderr.contains(words), "{what}: {outcome:?}");
        for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
            device.ok(state);
        }
        assert!(device.active() == before && device.is_clean(), "{what}");
    }
}

/// Calls the module with a limit of open files far below the depth of the trees here.
const FEW_DESCRIPTORS: [&str; 2] = ["prlimit", "--nofile=64"];

/// Makes `depth` nested directories below `top`, each with a file.
fn nest(top: &Path, depth: usize) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut here = openat(CWD, top, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        drop(openat(&here, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).unwrap());
        mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = openat(&here, "d", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn a_tree_deeper_than_the_limit_of_open_files_blocks_no_update() {
    let mut device = Device::filled(Generation::V5);
    device.client.wrap(FEW_DESCRIPTORS);
    nest(&device.destination.join("uploads"), 1100);
    for _ in 0..2 {
        update(&device);
        assert!(device.is_clean());
    }
}

#[test]
fn a_deep_tree_is_kept() {
    let mut device = Device::filled(Generation::V5);
    device.client.wrap(FEW_DESCRIPTORS);
    nest(&device.destination.join("uploads"), 1100);
    device.client.set("directory", "keep = [\"uploads/**\", \"**/nowhere\"]\n").unwrap();
    for _ in 0..2 {
        update(&device);
        assert_eq!(device.text("uploads/d/d/d/file"), "");
        assert_eq!(device.text(&format!("uploads/{}file", "d/".repeat(1099))), "");
        assert!(device.is_clean());
    }
}

#[test]
fn a_tree_that_cannot_be_removed_is_reported_and_blocks_no_update() {
    let device = Device::filled(Generation::V5);
    if !change_attribute("+i", &device.destination.join("uploads/deep/letter")) {
        return;
    }
    device.install(&device.tar(&[]));
    device.ok("ArtifactCommit");
    let outcome = device.client.call("Cleanup").unwrap();
    assert!(outcome.success(), "{outcome:?}");
    for words in ["letter", "chattr -ia", "left-1.json"] {
        assert!(outcome.stderr.contains(words), "{words:?} is missing in {}", outcome.stderr);
    }
    update(&device);
    update(&device);
    let find = Command::new("find").arg(device.client.device()).args(["-name", "letter"]).output().unwrap();
    let left = String::from_utf8(find.stdout).unwrap();
    assert!(change_attribute("-i", Path::new(left.trim_end())), "{left:?}");
    update(&device);
    assert!(device.is_clean() && !journal(&device).join("left-1.json").exists());
}

#[test]
fn an_immutable_destination_is_refused_in_download() {
    let device = Device::filled(Generation::V5);
    for path in [device.destination.as_path(), device.destination.parent().unwrap()] {
        if !change_attribute("+i", path) {
            return;
        }
        let outcome = device.download(&device.tar(&[]));
        assert!(change_attribute("-i", path));
        refused(outcome, &format!("{} refused: immutable or append-only: run chattr -ia", path.display()));
        assert!(device.is_clean());
    }
    update(&device);
}

#[test]
fn a_destination_that_becomes_immutable_or_append_only_after_the_download_is_refused() {
    let device = Device::filled(Generation::V5);
    let previous = device.active();
    for path in [device.destination.as_path(), device.destination.parent().unwrap()] {
        for (set, clear) in [("+i", "-i"), ("+a", "-a")] {
            assert!(device.download(&device.tar(&[])).success());
            if !change_attribute(set, path) {
                return;
            }
            let outcome = device.client.call("ArtifactInstall").unwrap();
            assert!(change_attribute(clear, path));
            assert!(!outcome.stderr.contains("rollback failed"), "refused too late: {outcome:?}");
            refused(outcome, &format!("{} refused: immutable or append-only", path.display()));
            for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
                device.ok(state);
            }
            assert!(device.active() == previous && device.is_clean(), "{set} on {}", path.display());
        }
    }
}

#[test]
fn a_failed_rollback_blocks_only_its_destination() {
    let device = Device::filled(Generation::V5);
    device.install(&device.tar(&[]));
    fs::rename(&device.destination, device.client.device().join("aside")).unwrap();
    fs::create_dir(&device.destination).unwrap();
    refused(device.client.call("ArtifactRollback").unwrap(), "was replaced");
    device.ok("Cleanup");
    refused(device.download(&device.tar(&[])), "an earlier update of the same destination failed");
    // The previous tree is kept in the directory above.
    for path in [device.destination.join("inside"), device.destination.parent().unwrap().to_owned()] {
        let dest_dir = path.to_str().unwrap().as_bytes();
        refused(
            device.download_files(&[("dest_dir", dest_dir), ("update.tar", &device.tar(&[]))]),
            "an earlier update of the same destination failed",
        );
    }
    let other = device.client.device().join("other");
    let dest_dir = other.to_str().unwrap().as_bytes();
    assert!(device.download_files(&[("dest_dir", dest_dir), ("update.tar", &device.tar(&[]))]).success());
    device.ok("Cleanup");
    // Follow the message: move the foreign tree away, and rename the previous tree to its path.
    fs::remove_dir(&device.destination).unwrap();
    fs::rename(staging(&device).join("new"), &device.destination).unwrap();
    assert_eq!(device.text("index.html"), "the previous index");
    update(&device);
    assert!(device.is_clean());
}

#[test]
fn a_destination_with_the_module_or_on_overlayfs_is_refused() {
    let device = Device::filled(Generation::V5);
    let download = |path: &Path| {
        let dest_dir = path.to_str().unwrap().as_bytes();
        device.download_files(&[("dest_dir", dest_dir), ("update.tar", &device.tar(&[]))])
    };
    let own = PathBuf::from(env!("CARGO_BIN_EXE_directory"));
    for path in
        [own.parent().unwrap(), own.parent().unwrap().parent().unwrap(), Path::new("/etc/mender"), &journal(&device)]
    {
        refused(download(path), "name another directory");
    }
    refused(download(&PathBuf::from(format!("{}\r", device.destination.display()))), "control character");
    let layers = device.client.device().join("layers");
    fs::create_dir_all(layers.join("lower/app")).unwrap();
    let Some(_mounted) = Mounted::overlay(&layers) else { return };
    refused(download(&layers.join("merged/app")), "overlayfs");
}

#[test]
fn an_empty_previous_tree_outlives_a_refused_update() {
    let device = Device::new(Generation::V5);
    fs::create_dir_all(&device.destination).unwrap();
    device.install(&device.tar(&[]));
    let aside = device.client.device().join("aside");
    fs::rename(&device.destination, &aside).unwrap();
    fs::create_dir(&device.destination).unwrap();
    refused(device.client.call("ArtifactRollback").unwrap(), "was replaced");
    device.ok("Cleanup");
    refused(device.download(&device.tar(&[])), "an earlier update of the same destination failed");
    fs::remove_dir(&device.destination).unwrap();
    fs::rename(&aside, &device.destination).unwrap();
    let outcome = device.download(&device.tar(&[]));
    assert!(outcome.success() && outcome.stderr.contains("rollback complete"), "{outcome:?}");
    assert_eq!(fs::read_dir(&device.destination).unwrap().count(), 0);
}

#[test]
fn an_unknown_key_in_the_meta_data_is_logged() {
    let mut device = Device::filled(Generation::V5);
    let dest_dir = device.destination.to_str().unwrap().to_owned();
    for (keys, named) in [("\"keeps\": [\"uploads\"]", true), ("\"keep\": [\"uploads\"], \"units\": {}", false)] {
        device.client.set_meta_data(format!("{{\"dest_dir\": {dest_dir:?}, {keys}}}"));
        let outcome = device.download_files(&[("app.tar", &device.tar(&[]))]);
        assert!(
            outcome.success() && outcome.stderr.contains("unknown keys in the meta-data ignored: keeps") == named,
            "{outcome:?}"
        );
    }
}
