//! Maintainer scripts that fail, and updates that are interrupted.

use mender_update_module_test::debian::Package;

use crate::device::{Device, app};

#[test]
fn a_failing_postinst_is_rolled_back_at_once() {
    let device = Device::new(&[app("1.0")]);
    device.write("/etc/app.conf", "changed\n");
    let previous = device.state();
    device.download(&[app("2.0").script("postinst", "echo no luck; exit 1"), Package::new("extra", "1")]);
    let log = device.fails("ArtifactInstall");
    assert!(log.contains("no luck") && log.contains("rolled back to the previous version"), "{log}");
    device.assert_state(&previous);
    device.roll_back();
    device.assert_state(&previous);
    device.assert_clean();
}

#[test]
fn a_failing_preinst_is_rolled_back_at_once() {
    let device = Device::new(&[app("1.0")]);
    let previous = device.state();
    device.download(&[Package::new("extra", "1").file("/opt/x", ""), app("2.0").script("preinst", "exit 1")]);
    device.fails("ArtifactInstall");
    device.assert_state(&previous);
}

#[test]
fn removal_scripts_of_the_new_version_that_fail_are_disabled() {
    for script in ["prerm", "postrm"] {
        let device = Device::new(&[app("1.0")]);
        let previous = device.state();
        device.install(&[
            app("2.0").script(script, "exit 1"),
            Package::new("extra", "1").script(script, "exit 1").file("/opt/extra", "x"),
        ]);
        device.roll_back();
        device.assert_state(&previous);
    }
}

#[test]
fn a_failing_prerm_of_the_previous_version_fails_the_update() {
    // dpkg would try the new package's prerm, but this one has none.
    let device = Device::new(&[app("1.0").script("prerm", "test \"$1\" != upgrade")]);
    let previous = device.state();
    device.download(&[app("2.0")]);
    device.fails("ArtifactInstall");
    device.assert_state(&previous);
}

/// A command of a maintainer script that simulates a power loss: it kills all processes at once.
///
/// The module is the ancestor of the script; apt and dpkg are in a process group of their own.
const POWER_LOSS: &str = "{ p=$$; until grep --quiet v3/deb /proc/$p/cmdline; do p=$(sed 's/.*) . \\([0-9]*\\) .*/\\1/' /proc/$p/stat); done; kill -9 $p; kill -9 0; }";

#[test]
fn an_interruption_in_any_script_is_rolled_back_at_boot_or_by_the_client() {
    for state in ["--recover", "ArtifactRollback"] {
        for (app_script, extra_script) in
            [("postinst", "none"), ("preinst", "none"), ("none", "preinst"), ("none", "postinst"), ("postrm", "none")]
        {
            let interrupted = |package: Package, script: &str| match script {
                "none" => package,
                // The postrm of the previous version runs when the new one is unpacked.
                script => package
                    .script(script, &format!("[ \"$1\" = abort-upgrade ] || [ ! -e /run/power-loss ] || {POWER_LOSS}")),
            };
            let previous_script = if app_script == "postrm" { "postrm" } else { "none" };
            let new_script = if app_script == "postrm" { "none" } else { app_script };
            let device = Device::new(&[interrupted(app("1.0"), previous_script)]);
            let previous = device.state();
            let extra = Package::new("zz-extra", "1").field("Depends", "app (>= 2)").file("/opt/extra/x", "x");
            device.download(&[interrupted(app("2.0"), new_script), interrupted(extra, extra_script)]);
            device.write("/run/power-loss", "");
            let outcome = device.client.call("ArtifactInstall").unwrap();
            assert_eq!(outcome.status.code(), None, "{app_script} {extra_script}: {outcome:?}");
            std::fs::remove_file(device.path("/run/power-loss")).unwrap();
            device.ok(state);
            device.assert_state(&previous);
            device.roll_back();
            device.assert_state(&previous);
            device.assert_clean();
        }
    }
}

#[test]
fn an_interrupted_dpkg_is_repaired_first() {
    let device = Device::new(&[app("1.0")]);
    let half = Package::new("half", "1").script("postinst", "test -e /run/now");
    assert!(device.system().install_packages(&[half.build().unwrap()]).is_err());
    assert!(device.version("half").starts_with("iF"));
    device.download(&[app("2.0")]);
    let log = device.fails("ArtifactInstall");
    assert!(log.contains("half is half-configured") && log.contains("does not repair it"), "{log}");
    assert_eq!(device.version("app"), "ii 1.0");
    device.roll_back();
    device.write("/run/now", "");
    let log = device.install(&[app("2.0")]);
    assert!(log.contains("repairing"), "{log}");
    assert_eq!((device.version("app"), device.version("half")), ("ii 2.0".into(), "ii 1".into()));
}

#[test]
fn info_files_of_a_new_package_that_dpkg_does_not_know_are_removed() {
    for multi_arch in ["same", "foreign"] {
        let device = Device::new(&[app("1.0")]);
        let architecture = device.system().ok(&["dpkg", "--print-architecture"]).unwrap();
        let of_other = "/var/lib/dpkg/info/extra.other.list";
        device.write(of_other, "");
        let previous = device.state();
        let extra = Package::new("extra", "1").field("Multi-Arch", multi_arch);
        let extra = extra.field("Architecture", architecture.trim());
        device.install(&[app("2.0"), extra.file("/opt/extra", "x")]);
        // A power loss may keep the files and lose the status.
        let status = device.text("/var/lib/dpkg/status");
        let stanzas = status.split("\n\n").filter(|stanza| !stanza.starts_with("Package: extra\n"));
        device.write("/var/lib/dpkg/status", &stanzas.collect::<Vec<_>>().join("\n\n"));
        device.roll_back();
        device.assert_state(&previous);
        assert!(device.path(of_other).exists(), "a file of another package was removed");
    }
}

#[test]
fn an_interruption_of_dpkg_in_a_rollback_fails_it() {
    let device = Device::new(&[app("1.0")]);
    let previous = device.state();
    device.install(&[app("2.0")]);
    let status = device.text("/var/lib/dpkg/status");
    let installed = status.split("\n\n").find(|stanza| stanza.starts_with("Package: app\n")).unwrap();
    // What an interrupted dpkg leaves. dpkg runs the command, too, but would merge the file at once.
    device.write("/tmp/left", &format!("{}\n", installed.replace("ok installed", "ok half-configured")));
    let settings = "/etc/dpkg/dpkg.cfg.d/interrupted";
    let command = "[ -n \"$DPKG_HOOK_ACTION\" ] || cp /tmp/left /var/lib/dpkg/updates/0000";
    device.write(settings, &format!("pre-invoke={command}\n"));
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("dpkg was interrupted") && !log.contains("rollback complete"), "{log}");
    std::fs::remove_file(device.path(settings)).unwrap();
    device.roll_back();
    device.assert_state(&previous);
    device.assert_clean();
}

#[test]
fn what_an_interrupted_apt_leaves_is_removed() {
    let device = Device::new(&[app("1.0")]);
    let previous = device.state();
    device.install(&[app("2.0")]);
    let unfinished = "/var/lib/apt/extended_states.a1b2c3";
    device.write(unfinished, "Package: app\n");
    device.roll_back();
    device.assert_state(&previous);
    assert!(!device.path(unfinished).exists());
}

#[test]
fn the_commands_after_dpkg_run_also_when_a_rollback_fails() {
    let device = Device::new(&[app("1.0")]);
    device.install(&[app("2.0")]);
    device.write("/etc/apt/apt.conf.d/99test", "DPkg::Post-Invoke { \"touch /run/after\"; };\n");
    let kept = device.client.datastore().join("update-modules/deb/old/app_1.0_all.deb");
    let original = std::fs::read(&kept).unwrap();
    std::fs::write(&kept, "changed").unwrap();
    device.fails("ArtifactRollback");
    assert!(device.path("/run/after").exists(), "a file system may be left writable");
    std::fs::write(&kept, original).unwrap();
    device.roll_back();
    assert_eq!(device.version("app"), "ii 1.0");
}
