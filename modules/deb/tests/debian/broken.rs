//! Packages whose scripts fail, and updates that are cut in the middle.

use mock_client::debian::Package;

use crate::device::{Device, app};

#[test]
fn a_failing_postinst_brings_the_old_back_at_once() {
    let device = Device::new(&[app("1.0")]);
    device.write("/etc/app.conf", "changed\n");
    let old = device.state();
    device.download(&[app("2.0").script("postinst", "echo no luck; exit 1"), Package::new("extra", "1")]);
    let said = device.fails("ArtifactInstall");
    assert!(said.contains("no luck") && said.contains("rolled back to the previous version"), "{said}");
    device.is_as_before(&old);
    device.roll_back();
    device.is_as_before(&old);
    device.is_clean();
}

#[test]
fn a_failing_preinst_too() {
    let device = Device::new(&[app("1.0")]);
    let old = device.state();
    device.download(&[Package::new("extra", "1").file("/opt/x", ""), app("2.0").script("preinst", "exit 1")]);
    device.fails("ArtifactInstall");
    device.is_as_before(&old);
}

#[test]
fn scripts_of_the_new_that_fail_when_it_goes_do_not_keep_the_old_away() {
    for script in ["prerm", "postrm"] {
        let device = Device::new(&[app("1.0")]);
        let old = device.state();
        device.install(&[
            app("2.0").script(script, "exit 1"),
            Package::new("extra", "1").script(script, "exit 1").file("/opt/extra", "x"),
        ]);
        device.roll_back();
        device.is_as_before(&old);
    }
}

#[test]
fn a_prerm_of_the_old_that_fails_fails_the_update_and_nothing_else() {
    // Debian's way out is the new package's prerm, which this one does not have.
    let device = Device::new(&[app("1.0").script("prerm", "test \"$1\" != upgrade")]);
    let old = device.state();
    device.download(&[app("2.0")]);
    device.fails("ArtifactInstall");
    device.is_as_before(&old);
}

/// What a loss of power does, brought about by a maintainer script: everything ends at once.
///
/// The module, which has apt and dpkg in a process group of their own, is the ancestor of the script.
const POWER_CUT: &str = "{ p=$$; until grep --quiet v3/deb /proc/$p/cmdline; do p=$(sed 's/.*) . \\([0-9]*\\) .*/\\1/' /proc/$p/stat); done; kill -9 $p; kill -9 0; }";

#[test]
fn a_cut_in_any_script_is_taken_back_by_the_boot_or_by_the_client() {
    for state in ["--recover", "ArtifactRollback"] {
        for (app_script, extra_script) in [
            ("postinst", "none"),
            ("preinst", "none"),
            ("none", "preinst"),
            ("none", "postinst"),
            ("postrm", "none"),
        ] {
            let cut = |package: Package, script: &str| match script {
                "none" => package,
                // A postrm of the old runs when the new is unpacked.
                script => package.script(
                    script,
                    &format!("[ \"$1\" = abort-upgrade ] || [ ! -e /run/cut ] || {POWER_CUT}"),
                ),
            };
            let old_script = if app_script == "postrm" { "postrm" } else { "none" };
            let new_script = if app_script == "postrm" { "none" } else { app_script };
            let device = Device::new(&[cut(app("1.0"), old_script)]);
            let old = device.state();
            let extra =
                Package::new("zz-extra", "1").field("Depends", "app (>= 2)").file("/opt/extra/x", "x");
            device.download(&[cut(app("2.0"), new_script), cut(extra, extra_script)]);
            device.write("/run/cut", "");
            let outcome = device.client.call("ArtifactInstall").unwrap();
            assert_eq!(outcome.status.code(), None, "{app_script} {extra_script}: {outcome:?}");
            std::fs::remove_file(device.path("/run/cut")).unwrap();
            device.ok(state);
            device.is_as_before(&old);
            device.roll_back();
            device.is_as_before(&old);
            device.is_clean();
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
    let said = device.fails("ArtifactInstall");
    assert!(said.contains("half is half-configured") && said.contains("does not repair it"), "{said}");
    assert_eq!(device.version("app"), "ii 1.0");
    device.roll_back();
    device.write("/run/now", "");
    let said = device.install(&[app("2.0")]);
    assert!(said.contains("repairing"), "{said}");
    assert_eq!((device.version("app"), device.version("half")), ("ii 2.0".into(), "ii 1".into()));
}
