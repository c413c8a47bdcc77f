//! Rollbacks with changes by other programs, and rollbacks that fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::device::{Attack, Device, failed};

#[test]
fn a_previous_file_is_restored_where_a_directory_has_its_name() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    fs::create_dir(device.www.join("passwd")).unwrap();
    fs::write(device.www.join("passwd/foreign"), "data").unwrap();
    let outcome = device.call("ArtifactRollback");
    assert!(outcome.success() && outcome.stderr.contains("moved aside"), "{outcome:?}");
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
        assert!(device.download().success());
        device.ok("ArtifactInstall");
        let aside = device.home.join("aside");
        fs::rename(&device.www, &aside).unwrap();
        fs::create_dir(&device.www).unwrap();
        failed(&device.call("ArtifactRollback"), "was replaced");
        device.ok("Cleanup");
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
        fs::remove_dir(&device.www).unwrap();
        fs::rename(&aside, &device.www).unwrap();
        let outcome = device.download();
        assert!(outcome.success() && outcome.stderr.contains("rollback complete"), "{between}: {outcome:?}");
        assert_eq!(device.text("index.html"), "previous", "{between}");
        device.ok("Cleanup");
        device.updates_again();
    }
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
