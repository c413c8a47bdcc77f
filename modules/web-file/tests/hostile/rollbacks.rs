//! Rollbacks with changes by other programs, and rollbacks that fail.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use mender_update_module_test::failing_storage::FailingStorage;
use mender_update_module_test::privileged::{Mounted, change_attribute};

use crate::device::{Attack, Device, failed};
use crate::units::with_units;

#[test]
fn a_previous_file_is_restored_where_a_directory_has_its_name() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    fs::create_dir(device.www.join("passwd")).unwrap();
    fs::write(device.www.join("passwd/foreign"), "data").unwrap();
    let outcome = device.call("ArtifactRollback");
    assert!(outcome.success() && outcome.stderr.contains("moving aside"), "{outcome:?}");
    assert_eq!((device.text("passwd"), device.text("index.html")), ("previous".into(), "previous".into()));
    assert_eq!(device.text("passwd.aside-1/foreign"), "data");
    device.ok("Cleanup");
    device.updates_again();
}

#[test]
fn a_rollback_without_the_previous_files_fails_and_blocks_only_its_destination() {
    let removals: &[(&str, Attack)] = &[
        ("previous files", |device| fs::remove_dir_all(device.previous()).unwrap()),
        ("passwd", |device| fs::remove_file(device.previous().join("passwd")).unwrap()),
        ("html", |device| fs::remove_dir_all(&device.www).unwrap()),
    ];
    for (words, remove) in removals {
        let Some(device) = Device::new() else { return };
        assert!(device.download().success());
        device.ok("ArtifactInstall");
        remove(&device);
        failed(&device.call("ArtifactRollback"), words);
        for state in ["ArtifactFailure", "Cleanup"] {
            device.ok(state);
        }
        let refused = device.download();
        failed(&refused, "an earlier update of the same destination failed");
        let record = device.journal().join("unrestored-1.json");
        assert!(refused.stderr.contains(record.to_str().unwrap()), "{}", refused.stderr);
        device.set(&device.client.device().join("other"), "");
        assert!(device.download().success(), "another destination is blocked");
        device.ok("Cleanup");
        // Follow the message.
        fs::remove_file(record).unwrap();
        fs::create_dir_all(&device.www).unwrap();
        device.set(&device.www, "");
        device.updates_again();
    }
}

#[test]
fn a_failed_rollback_succeeds_at_the_next_update_after_its_cause_is_removed() {
    for between in ["nothing", "a refused update", "an update of another destination of the same name"] {
        let Some(device) = Device::new() else { return };
        let aside = device.fail_a_rollback();
        match between {
            "nothing" => {}
            "a refused update" => {
                let refused = device.download();
                failed(&refused, "an earlier update of the same destination failed");
                assert!(refused.stderr.contains(device.staging().to_str().unwrap()), "{}", refused.stderr);
            }
            _ => {
                // Its staging directory would have the same path.
                device.set(&device.home.join("missing/html"), "");
                assert!(device.download().success());
                device.ok("Cleanup");
                device.set(&device.www, "");
            }
        }
        device.put_back(&aside);
        let outcome = device.download();
        assert!(outcome.success() && outcome.stderr.contains("rollback complete"), "{between}: {outcome:?}");
        assert_eq!(device.text("index.html"), "previous", "{between}");
        device.ok("Cleanup");
        device.updates_again();
    }
}

#[test]
fn a_failed_rollback_is_tried_again_in_artifact_failure() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    let aside = device.home.join("aside");
    fs::rename(&device.www, &aside).unwrap();
    failed(&device.call("ArtifactRollback"), "html");
    let again = device.call("ArtifactFailure");
    assert!(again.success() && again.stderr.contains("the previous version is still not active"), "{again:?}");
    fs::rename(&aside, &device.www).unwrap();
    device.ok("ArtifactFailure");
    assert_eq!((device.text("index.html"), device.text("passwd")), ("previous".into(), "previous".into()));
    device.ok("Cleanup");
    device.updates_again();
}

#[test]
fn a_file_that_appears_after_the_preparation_is_neither_replaced_nor_removed() {
    let script = "[ $verb != stop ] || [ -e \"${0%/*}/made\" ] || \
        { touch \"${0%/*}/made\"; echo foreign > \"${0%/*}/home/html/added.css\"; }";
    for has_inodes in [true, false] {
        let Some(device) = with_units(script) else { return };
        assert!(device.download().success());
        if !has_inodes {
            remove_inodes(&device);
        }
        let outcome = device.call("ArtifactInstall");
        failed(&outcome, "rolled back to the previous version");
        assert!(outcome.stderr.contains("added.css"), "{outcome:?}");
        for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
            device.ok(state);
        }
        assert_eq!((device.text("index.html"), device.text("added.css")), ("previous".into(), "foreign\n".into()));
    }
}

/// Removes the inode numbers of the staged files from the journal, as it is on overlayfs.
fn remove_inodes(device: &Device) {
    let mut record = fs::read_to_string(device.journal().join("journal.json")).unwrap();
    for name in ["index.html", "added.css"] {
        let inode = fs::metadata(device.staging().join("new").join(name)).unwrap().ino();
        let without = record.replace(&staged(name, &inode.to_string()), &staged(name, "null"));
        assert_ne!(without, record);
        record = without;
    }
    fs::write(device.journal().join("journal.json"), record).unwrap();
}

#[test]
fn inode_numbers_are_not_recorded_on_a_file_system_that_does_not_keep_them() {
    let Some(device) = Device::new() else { return };
    let layers = device.client.device().join("layers: one, two");
    let Some(_mounted) = Mounted::overlay(&layers) else { return };
    for (dest_dir, keeps) in [(device.www.clone(), true), (layers.join("merged/html"), false)] {
        device.set(&dest_dir, "");
        assert!(device.download().success());
        let record = fs::read_to_string(device.journal().join("journal.json")).unwrap();
        assert_ne!(record.contains(&staged("added.css", "null")), keeps, "{record}");
        for state in ["ArtifactInstall", "ArtifactRollback", "Cleanup"] {
            device.ok(state);
        }
    }
}

/// A staged file in the journal.
fn staged(name: &str, inode: &str) -> String {
    format!("{{\"name\":{name:?},\"inode\":{inode}}}")
}

#[test]
fn a_rollback_that_leaves_a_new_file_fails() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    let staged = device.staging().join("new/added.css");
    fs::hard_link(device.www.join("added.css"), &staged).unwrap();
    failed(&device.call("ArtifactRollback"), "it is the new file");
    fs::remove_file(staged).unwrap();
    device.ok("ArtifactRollback");
    assert!(device.text("index.html") == "previous" && !device.www.join("added.css").exists());
}

#[test]
fn a_previous_file_that_is_replaced_while_it_is_restored_fails_the_rollback() {
    let Some(mut device) = Device::new() else { return };
    device.set(&device.www, "mode = \"add\"\n");
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    // As if another program's file won: the renames succeed, and have no effect.
    let kept = format!("--trace-path={}", device.previous().display());
    if !device.inject(&["--trace=renameat,renameat2", "--inject=renameat,renameat2:retval=0", &kept]) {
        return;
    }
    failed(&device.call("ArtifactRollback"), "another program replaced it meanwhile");
    device.client.wrap::<&str>([]);
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "previous");
    device.ok("Cleanup");
}

#[test]
fn a_new_file_that_cannot_be_moved_back_is_removed() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    // As if its file system had no space for another entry of the directory.
    let new = device.staging().join("new");
    if !change_attribute("+i", &new) {
        return;
    }
    let outcome = device.call("ArtifactRollback");
    assert!(change_attribute("-i", &new) && outcome.success(), "{outcome:?}");
    assert!(device.text("index.html") == "previous" && !device.www.join("added.css").exists());
    device.ok("Cleanup");
}

#[test]
fn a_file_that_replaced_a_new_one_after_the_activation_stays() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    // As an editor saves a file.
    fs::write(device.www.join("added.css~"), "foreign").unwrap();
    fs::rename(device.www.join("added.css~"), device.www.join("added.css")).unwrap();
    for state in ["ArtifactRollback", "Cleanup"] {
        device.ok(state);
    }
    assert_eq!((device.text("index.html"), device.text("added.css")), ("previous".into(), "foreign".into()));
}

#[test]
fn a_file_that_an_application_saves_while_its_unit_stops_is_restored() {
    let Some(mut device) = Device::new() else { return };
    let save = format!("printf saved > '{0}/x' && mv '{0}/x' '{0}/passwd'", device.www.display());
    let systemctl = device.client.device().join("systemctl");
    let first = device.client.device().join("stopped");
    let script =
        format!("#!/bin/sh\ncase $* in *stop*) test -e '{0}' || {{ touch '{0}'; {save}; }};; esac\n", first.display());
    fs::write(&systemctl, script).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:/usr/bin:/bin", device.client.device().display());
    device.client.wrap(["env", &path]);
    device.set(
        &device.www,
        "[units]\nstop = [\"app.service\"]\n[health]\ncommand = [\"false\"]\nlimit_seconds = 1\nstable_seconds = 0\n",
    );
    assert!(device.download().success());
    failed(&device.call("ArtifactInstall"), "rolled back to the previous version");
    assert!(first.exists(), "no unit was stopped");
    for state in ["ArtifactRollback", "Cleanup"] {
        device.ok(state);
    }
    assert_eq!((device.text("index.html"), device.text("passwd")), ("previous".into(), "saved".into()));
    device.client.wrap::<&str>([]);
    device.set(&device.www, "");
    device.updates_again();
}

#[test]
fn a_damaged_journal_does_not_count_as_none() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    let journal = device.journal().join("journal.json");
    let whole = fs::read(&journal).unwrap();
    let zeros = vec![0; whole.len()];
    for damaged in [&whole[..whole.len() / 2], &[], &zeros] {
        fs::write(&journal, damaged).unwrap();
        for state in ["ArtifactCommit", "ArtifactRollback"] {
            failed(&device.call(state), "damaged, or not written by this module");
        }
        // The client does not expect a failure of this state.
        device.ok("Cleanup");
        failed(&device.download(), "damaged, or not written by this module");
        assert_eq!(device.text("index.html"), "new");
    }
    fs::write(&journal, whole).unwrap();
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "previous");
}

#[test]
fn a_recovery_names_every_record_that_it_cannot_read() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    for name in ["journal.json", "unrestored-1.json"] {
        fs::write(device.journal().join(name), "x").unwrap();
    }
    let outcome = device.call("--recover");
    failed(&outcome, "journal.json");
    failed(&outcome, "unrestored-1.json");
}

#[test]
fn a_committed_update_that_cannot_be_rolled_back_on_a_full_file_system_keeps_the_previous_files() {
    let Some(device) = Device::new() else { return };
    let journal = device.journal();
    let Some(_mounted) = Mounted::tmpfs(&journal, "size=64k,mode=700") else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    device.ok("ArtifactCommit");
    // Another program fills the file system; a file of the destination cannot be changed.
    let _ = fs::write(journal.join("other"), vec![0; 1 << 20]);
    let index = device.www.join("index.html");
    if !change_attribute("+i", &index) {
        return;
    }
    let outcome = device.call("ArtifactRollback");
    assert!(!outcome.success(), "{outcome:?}");
    device.ok("ArtifactFailure");
    device.ok("Cleanup");
    assert!(change_attribute("-i", &index));
    fs::remove_file(journal.join("other")).unwrap();
    assert!(device.download().success(), "it rolls back, now that it can");
    device.ok("Cleanup");
    assert_eq!(device.text("index.html"), "previous");
}

#[test]
fn the_previous_files_stay_until_the_end_of_the_update_is_durable() {
    let Some(device) = Device::new() else { return };
    let journal = device.journal();
    fs::create_dir_all(&journal).unwrap();
    let Some(storage) = FailingStorage::mount(&journal) else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    device.ok("ArtifactCommit");
    storage.refuse_writes_of(b"journal.json").unwrap();
    let outcome = device.call("Cleanup");
    assert!(outcome.success() && outcome.stderr.contains("syncing the directory"), "{outcome:?}");
    assert!(device.previous().join("passwd").exists(), "a power loss brings the journal back: {outcome:?}");
}
