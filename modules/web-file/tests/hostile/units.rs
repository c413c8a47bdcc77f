//! Units that are stopped and started around an update.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::device::{Device, failed};

/// A device whose units are in every list of the table, with a systemctl that runs `script` with its verb in `$verb`.
pub fn with_units(script: &str) -> Option<Device> {
    let mut device = Device::new()?;
    let systemctl = device.client.device().join("systemctl");
    let verb = "for verb in stop reload restart start; do case \" $* \" in *\" $verb \"*) break;; esac; done";
    fs::write(&systemctl, format!("#!/bin/sh\n{verb}\n{script}\n")).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:/usr/bin:/bin", device.client.device().display());
    device.client.wrap(["env", &path]);
    let unit = "[\"app.service\"]";
    device.set(&device.www, &format!("[units]\nstop = {unit}\nreload = {unit}\nrestart = {unit}\nstart = {unit}\n"));
    Some(device)
}

#[test]
fn units_are_stopped_before_a_change_and_started_after_it() {
    let Some(device) = with_units("echo \"$verb $(cat \"${0%/*}/home/html/index.html\")\" >> \"${0%/*}/verbs\"") else {
        return;
    };
    let verbs = || {
        let log = device.client.device().join("verbs");
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(log).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    assert_eq!(verbs(), ["stop previous", "reload new", "restart new", "start new"]);
    device.ok("ArtifactRollback");
    assert_eq!(verbs(), ["stop new", "reload previous", "restart previous", "start previous"]);
    device.ok("Cleanup");
}

#[test]
fn a_unit_that_does_not_stop_or_start_fails_the_install() {
    for verb in ["stop", "reload", "restart", "start"] {
        let Some(device) = with_units("[ ! -e \"${0%/*}/fail-$verb\" ]") else { return };
        let flag = device.client.device().join(format!("fail-{verb}"));
        fs::write(&flag, "").unwrap();
        assert!(device.download().success());
        let outcome = device.call("ArtifactInstall");
        failed(&outcome, "rolled back to the previous version");
        assert!(outcome.stderr.contains(&format!("{verb} failed: app.service")), "{outcome:?}");
        assert_eq!(device.text("index.html"), "previous");
        // It prevents no rollback, and the log has it.
        fs::remove_file(&flag).unwrap();
        device.ok("ArtifactRollback");
        device.ok("Cleanup");
        assert!(device.download().success());
        device.ok("ArtifactInstall");
        fs::write(&flag, "").unwrap();
        let outcome = device.call("ArtifactRollback");
        assert!(outcome.success() && outcome.stderr.contains(&format!("{verb} failed: app.service")), "{outcome:?}");
        assert_eq!(device.text("index.html"), "previous");
        device.ok("Cleanup");
    }
}

#[test]
fn a_rollback_starts_units_although_others_cannot_be_reloaded_or_restarted() {
    for verb in ["reload", "restart"] {
        let script = format!("echo $verb >> \"${{0%/*}}/verbs\"; [ $verb != {verb} ]");
        let Some(device) = with_units(&script) else { return };
        assert!(device.download().success());
        let outcome = device.call("ArtifactInstall");
        failed(&outcome, "rolled back to the previous version");
        let log = outcome.stderr.matches("starting units failed").count();
        let verbs = fs::read_to_string(device.client.device().join("verbs")).unwrap();
        assert!(verbs.ends_with("stop\nreload\nrestart\nstart\n") && log == 1, "{verbs}{outcome:?}");
    }
}

#[test]
fn a_rollback_that_the_next_update_tries_again_stops_and_starts_units() {
    let Some(device) = with_units("echo $verb >> \"${0%/*}/verbs\"") else { return };
    let verbs = device.client.device().join("verbs");
    let aside = device.fail_a_rollback();
    let started = fs::read_to_string(&verbs).unwrap();
    assert!(started.ends_with("stop\nreload\nrestart\nstart\n"), "a failed rollback starts the units, too: {started}");
    failed(&device.download(), "an earlier update of the same destination failed");
    for is_restored in [false, true] {
        if is_restored {
            device.put_back(&aside);
        }
        fs::remove_file(&verbs).unwrap();
        assert_eq!(device.download().success(), is_restored);
        assert_eq!(fs::read_to_string(&verbs).unwrap(), "stop\nreload\nrestart\nstart\n", "{is_restored}");
    }
    assert_eq!(device.text("index.html"), "previous");
    device.ok("Cleanup");
}

#[test]
fn a_recovery_at_boot_rolls_back_without_stopping_or_starting_units() {
    // At the first start of the unit the module is killed, as by a power loss.
    let script = "echo $verb >> \"${0%/*}/verbs\"; [ $verb != start ] || kill -9 $PPID";
    let Some(device) = with_units(script) else { return };
    let verbs = device.client.device().join("verbs");
    assert!(device.download().success());
    assert!(!device.call("ArtifactInstall").success());
    assert_eq!(fs::read_to_string(&verbs).unwrap(), "stop\nreload\nrestart\nstart\n");
    assert_eq!(device.text("index.html"), "new");
    // systemd starts the units after this call, and a unit that waits for it would block it.
    device.ok("--recover");
    assert_eq!(device.text("index.html"), "previous");
    assert_eq!(fs::read_to_string(&verbs).unwrap(), "stop\nreload\nrestart\nstart\n");
}

#[test]
fn units_are_started_before_the_health_check() {
    let Some(device) = with_units("echo $verb >> \"${0%/*}/verbs\"") else { return };
    let (settings, verbs) = (device.client.settings().join("web-file.toml"), device.client.device().join("verbs"));
    // It has to pass, within many times what grep needs to start.
    let check = format!("command = [\"grep\", \"^start$\", {verbs:?}]\nlimit_seconds = 60\nstable_seconds = 0");
    fs::write(&settings, fs::read_to_string(&settings).unwrap() + &format!("[health]\n{check}\n")).unwrap();
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    assert_eq!(fs::read_to_string(&verbs).unwrap(), "stop\nreload\nrestart\nstart\n");
}

#[test]
fn the_units_of_the_device_take_precedence_over_those_of_the_artifact() {
    let Some(mut device) = with_units("echo $* >> \"${0%/*}/calls\"") else { return };
    let calls = device.client.device().join("calls");
    device.client.set_meta_data(r#"{"units": {"stop": ["artifact.service"]}}"#);
    for (unit, other) in [("app.service", "artifact.service"), ("artifact.service", "app.service")] {
        assert!(device.download().success());
        device.ok("ArtifactInstall");
        let text = fs::read_to_string(&calls).unwrap();
        assert!(text.contains(&format!("stop {unit}\n")) && !text.contains(other), "{text}");
        device.ok("ArtifactRollback");
        device.ok("Cleanup");
        // Without the table of the device, the artifact's counts.
        device.set(&device.www, "");
        fs::remove_file(&calls).unwrap();
    }
}
