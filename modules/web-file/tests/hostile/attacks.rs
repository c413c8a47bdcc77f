//! A local attacker changes paths between two calls, or before an update.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;

use mender_update_module_test::Snapshot;
use mender_update_module_test::privileged::Mounted;

use crate::device::{Attack, Device, WWW_DATA, failed, run};

const ATTACKS: &[(&str, Attack)] = &[
    ("the destination becomes a symlink", |device| {
        fs::rename(&device.www, device.home.join("aside")).unwrap();
        symlink(&device.victim, &device.www).unwrap();
    }),
    ("the destination becomes another directory", |device| {
        fs::rename(&device.www, device.home.join("aside")).unwrap();
        fs::create_dir(&device.www).unwrap();
        fs::write(device.www.join("index.html"), "foreign").unwrap();
    }),
    ("a directory above becomes a symlink", |device| {
        fs::rename(&device.home, device.client.device().join("aside")).unwrap();
        fs::create_dir(device.client.device().join("fake")).unwrap();
        symlink(&device.victim, device.client.device().join("fake/html")).unwrap();
        symlink("fake", &device.home).unwrap();
    }),
    ("the staging directory becomes another one", |device| {
        fs::rename(device.staging(), device.home.join("aside")).unwrap();
        for name in ["new", "old", "kept"] {
            fs::create_dir_all(device.staging().join(name)).unwrap();
            for file in ["index.html", "added.css", "passwd"] {
                fs::write(device.staging().join(name).join(file), "foreign").unwrap();
            }
        }
        assert!(run("chown", &["-R".as_ref(), "33".as_ref(), device.staging().as_os_str()]));
    }),
    ("the staging directory becomes another one of root's", |device| {
        fs::rename(device.staging(), device.home.join("aside")).unwrap();
        fs::create_dir_all(device.staging().join("new")).unwrap();
        fs::create_dir_all(device.staging().join("old")).unwrap();
        for file in ["index.html", "added.css"] {
            fs::write(device.staging().join("new").join(file), "foreign").unwrap();
        }
    }),
    ("the staging directory becomes a symlink", |device| {
        fs::rename(device.staging(), device.home.join("aside")).unwrap();
        symlink(&device.victim, device.staging()).unwrap();
    }),
    ("the staging directory is given away", |device| {
        chown(device.staging(), Some(WWW_DATA), None).unwrap();
    }),
    ("the staging directory is opened to others", |device| {
        fs::set_permissions(device.staging(), fs::Permissions::from_mode(0o777)).unwrap();
    }),
    ("what was downloaded becomes another directory", |device| {
        fs::rename(device.staging().join("new"), device.home.join("aside")).unwrap();
        fs::create_dir(device.staging().join("new")).unwrap();
        fs::write(device.staging().join("new/index.html"), "foreign").unwrap();
        fs::write(device.staging().join("new/added.css"), "foreign").unwrap();
    }),
    ("the previous files become another directory", |device| {
        let previous = device.previous();
        fs::rename(&previous, device.home.join("aside")).unwrap();
        fs::create_dir(&previous).unwrap();
        fs::write(previous.join("passwd"), "foreign").unwrap();
    }),
];

#[test]
fn a_path_that_is_replaced_between_two_calls_is_refused() {
    for (name, attack) in ATTACKS {
        for states in [&["ArtifactInstall"][..], &["ArtifactInstall", "ArtifactRollback"]] {
            let Some(device) = Device::new() else { return };
            assert!(device.download().success());
            let (last, before) = states.split_last().unwrap();
            before.iter().for_each(|state| device.ok(state));
            let victim = Snapshot::of(&device.victim).unwrap();
            attack(&device);
            let what = format!("{name}, then {last}");
            let outcome = device.call(last);
            assert_eq!(outcome.status.code(), Some(1), "{what}: {outcome:?}");
            assert!(
                ["refused", "not trusted", "replaced", "mounted", "symlink", "missing"]
                    .iter()
                    .any(|word| outcome.stderr.contains(word)),
                "{what}: {}",
                outcome.stderr
            );
            if *last == "ArtifactInstall" {
                assert!(!outcome.stderr.contains("rollback failed"), "{what}: refused too late: {outcome:?}");
            }
            for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
                device.call(state);
            }
            assert!(Snapshot::of(&device.victim).unwrap() == victim, "{what}: root's files have changed");
            // An update of another destination succeeds.
            device.set(&device.client.device().join("other"), "");
            let outcome = device.download();
            assert!(outcome.success(), "{what}: {outcome:?}");
        }
    }
}

#[test]
fn a_downloaded_file_that_was_removed_or_replaced_is_not_activated() {
    for replaces in [false, true] {
        let Some(device) = Device::new() else { return };
        let before = Snapshot::of(&device.www).unwrap();
        assert!(device.download().success());
        let staged = device.staging().join("new/added.css");
        fs::rename(&staged, device.home.join("aside")).unwrap();
        if replaces {
            fs::write(&staged, "foreign").unwrap();
        }
        failed(&device.call("ArtifactInstall"), "was removed or replaced after the download");
        for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
            device.ok(state);
        }
        assert!(Snapshot::of(&device.www).unwrap() == before, "{replaces}: the web root has changed");
    }
}

#[test]
fn a_path_that_is_mounted_between_two_calls_is_refused_and_a_rollback_follows() {
    let places: [fn(&Device) -> PathBuf; 2] = [|device| device.www.clone(), Device::staging];
    let sources: [fn(&Device, PathBuf) -> PathBuf; 2] = [|device, _| device.victim.clone(), |_, itself| itself];
    for (place, source) in places.iter().flat_map(|place| sources.iter().map(move |source| (place, source))) {
        for states in [&["ArtifactInstall"][..], &["ArtifactInstall", "ArtifactRollback"]] {
            let Some(device) = Device::new() else { return };
            assert!(device.download().success());
            let (last, before) = states.split_last().unwrap();
            before.iter().for_each(|state| device.ok(state));
            let path = place(&device);
            let source = source(&device, path.clone());
            let victim = Snapshot::of(&device.victim).unwrap();
            let Some(mounted) = Mounted::bind(&source, &path) else { return };
            let outcome = device.call(last);
            drop(mounted);
            let what = format!("{} on {}, then {last}", source.display(), path.display());
            if *last == "ArtifactRollback" {
                let is_new = device.text("index.html") == "new" && device.www.join("added.css").exists();
                assert!(is_new, "{what}: a rollback that is refused changes nothing");
            }
            assert_eq!(outcome.status.code(), Some(1), "{what}: {outcome:?}");
            let refused = outcome.stderr.lines().find(|line| line.contains("refused: ")).unwrap_or_default();
            assert!(refused.contains(path.to_str().unwrap()), "{what}: {outcome:?}");
            // ArtifactInstall refuses it before it has anything to roll back.
            let (is_rollback, has_failed) = (*last == "ArtifactRollback", outcome.stderr.contains("rollback failed"));
            assert_eq!(has_failed, is_rollback, "{what}: {outcome:?}");
            assert!(Snapshot::of(&device.victim).unwrap() == victim, "{what}: root's files have changed");
            for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
                device.ok(state);
            }
            assert_eq!(device.text("index.html"), "previous", "{what}");
            assert!(!device.www.join("added.css").exists() && !device.staging().exists(), "{what}");
        }
    }
}

#[test]
fn a_symlink_of_another_user_is_not_followed_in_download() {
    let Some(device) = Device::new() else { return };
    fs::rename(&device.www, device.home.join("aside")).unwrap();
    symlink(&device.victim, &device.www).unwrap();
    let victim = Snapshot::of(&device.victim).unwrap();
    failed(&device.download(), "is a symlink, and others may change");
    assert!(Snapshot::of(&device.victim).unwrap() == victim);
    // A symlink of root in a directory of root is followed.
    let link = device.client.device().join("link");
    fs::remove_file(&device.www).unwrap();
    fs::rename(device.home.join("aside"), &device.www).unwrap();
    symlink(&device.www, &link).unwrap();
    device.set(&link, "");
    device.updates_again();
}

#[test]
fn settings_and_journal_that_others_may_change_are_refused() {
    let Some(device) = Device::new() else { return };
    let settings = device.client.settings();
    for path in [settings.join("web-file.toml"), settings.clone(), device.client.device().to_owned()] {
        chown(&path, Some(WWW_DATA), None).unwrap();
        failed(&device.download(), "not trusted");
        chown(&path, Some(0), None).unwrap();
    }
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    for path in [device.journal().join("journal.json"), device.journal(), device.client.datastore()] {
        chown(&path, Some(WWW_DATA), None).unwrap();
        failed(&device.call("ArtifactRollback"), "not trusted");
        chown(&path, Some(0), None).unwrap();
    }
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "previous");
}

#[test]
fn special_files_in_the_web_root_are_neither_opened_nor_followed() {
    let Some(device) = Device::new() else { return };
    let index = device.www.join("index.html");
    fs::remove_file(&index).unwrap();
    assert!(run("mkfifo", &[index.as_os_str()]));
    fs::hard_link(device.victim.join("passwd"), device.www.join("added.css")).unwrap();
    assert!(run("mknod", &[device.www.join("null").as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()]));
    assert!(run("mkfifo", &[device.www.join("pipe").as_os_str()]));
    symlink(device.victim.join("passwd"), device.www.join("link")).unwrap();
    let types = || ["null", "pipe", "link"].map(|name| device.www.join(name).symlink_metadata().unwrap().file_type());
    let types_before = types();
    let (before, victim) = (Snapshot::of(&device.www).unwrap(), Snapshot::of(&device.victim).unwrap());
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    assert_eq!(device.text("index.html"), "new");
    assert_eq!(types(), types_before, "special files that are not in the artifact");
    device.ok("ArtifactRollback");
    assert!(Snapshot::of(&device.www).unwrap() == before);
    device.ok("Cleanup");
    assert!(Snapshot::of(&device.victim).unwrap() == victim, "the file behind a hard link");
}

#[test]
fn existing_staging_names_block_no_update() {
    let plants: &[Attack] = &[
        |device| fs::write(device.staging(), "a file").unwrap(),
        |device| symlink(&device.victim, device.staging()).unwrap(),
        |device| assert!(run("mkfifo", &[device.staging().as_os_str()])),
        |device| {
            fs::create_dir(device.staging()).unwrap();
            fs::write(device.staging().join("foreign"), "").unwrap();
        },
    ];
    for plant in plants {
        let Some(device) = Device::new() else { return };
        plant(&device);
        let victim = Snapshot::of(&device.victim).unwrap();
        device.updates_again();
        assert!(Snapshot::of(&device.victim).unwrap() == victim);
        assert!(fs::symlink_metadata(device.staging()).is_ok(), "a foreign file was removed");
    }
}

#[test]
fn other_users_can_read_neither_staged_nor_previous_files() {
    let Some(device) = Device::new() else { return };
    let is_private = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777 == 0o700;
    assert!(device.download().success());
    for state in ["ArtifactInstall", "ArtifactCommit", "ArtifactRollback"] {
        assert!(is_private(device.staging()), "before {state}");
        device.ok(state);
        assert!(is_private(device.staging()), "after {state}");
    }
}

#[test]
fn a_new_directory_that_is_replaced_before_the_recovery_is_refused() {
    let Some(device) = Device::new() else { return };
    let (made, aside) = (device.client.device().join("made"), device.client.device().join("aside"));
    let (journal, during) = (device.journal().join("journal.json"), device.client.device().join("during"));
    let check = format!("[health]\ncommand = [\"cp\", {journal:?}, {during:?}]\nstable_seconds = 0\n");
    device.set(&made.join("html"), &check);
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    // The power is lost during the health check, and the directory is replaced before the boot.
    fs::copy(during, journal).unwrap();
    fs::rename(&made, &aside).unwrap();
    fs::create_dir_all(made.join("html")).unwrap();
    failed(&device.call("--recover"), "was replaced after this update made it");
    assert!(made.join("html").exists());
    fs::remove_dir_all(&made).unwrap();
    fs::rename(&aside, &made).unwrap();
    device.ok("--recover");
    assert!(!made.exists());
}
