//! The changes of maintainer scripts: to files, to the tables of dpkg and apt, and to units.

use std::fs;
use std::os::unix::fs::symlink;

use mender_update_module_test::debian::Package;

use crate::device::{Device, app};
use crate::exact::install_and_roll_back;
use crate::kinds::state;
use crate::raw::RawPackage;

/// The package with maintainer scripts that call dpkg-maintscript-helper with `words`.
fn helper(package: RawPackage, words: &str) -> RawPackage {
    ["preinst", "postinst", "postrm"]
        .into_iter()
        .fold(package, |package, script| package.member(script, &format!("dpkg-maintscript-helper {words} -- \"$@\"")))
}

#[test]
fn changes_of_dpkg_maintscript_helper_are_rolled_back() {
    let conffile = |version: &str, path: &str| {
        let package = RawPackage::new("app", version).file(path, "the same conf");
        package.member("conffiles", &format!("{path}\n"))
    };
    let directory = |version: &str| RawPackage::new("app", version).file("/usr/share/app/d/in", version);
    let link = |version: &str| {
        let package = RawPackage::new("app", version).file("/usr/share/app/e/in", version);
        package.symlink("/usr/share/app/d", "e")
    };
    let unlinked = |version: &str| RawPackage::new("app", version).file("/usr/share/app/e/in", version);
    for (previous, new, words) in [
        (directory("1"), link("2"), "dir_to_symlink /usr/share/app/d e 1~"),
        (directory("1"), link("2"), "dir_to_symlink /usr/share/app/d e 2"),
        (directory("1"), unlinked("2"), "dir_to_symlink /usr/share/app/d e 2"),
        (link("1"), directory("2"), "symlink_to_dir /usr/share/app/d e 2"),
        (
            conffile("1", "/etc/app/a/conf"),
            conffile("2", "/etc/app/b/conf"),
            "mv_conffile /etc/app/a/conf /etc/app/b/conf 2",
        ),
        (conffile("1", "/etc/app/conf"), directory("2"), "rm_conffile /etc/app/conf 2"),
    ] {
        for changed in [false, true] {
            for fails in [false, true] {
                let device = Device::new(&[]);
                device.dpkg(&[previous.build()]);
                for path in ["/etc/app/a/conf", "/etc/app/conf"] {
                    if changed && device.path(path).exists() {
                        device.write(path, "changed by hand");
                    }
                }
                let new = helper(new.clone(), words);
                if !fails {
                    install_and_roll_back(&device, &[new.build()]);
                    continue;
                }
                // Interrupted between preinst and postinst by a package that fails.
                let broken = RawPackage::new("zz", "1").field("Pre-Depends", "dpkg").member("preinst", "exit 1");
                let before = state(&device);
                device.download_raw(&[new.build(), broken.build()]);
                let log = device.fails("ArtifactInstall");
                assert!(log.contains("rolled back to the previous version"), "{words}: {log}");
                device.assert_same(&before, &state(&device), words);
            }
        }
    }
}

#[test]
fn changes_of_maintainer_scripts_to_the_tables_of_dpkg_and_apt_are_rolled_back() {
    let device = Device::new(&[
        app("1.0"),
        Package::new("other", "1").file("/usr/share/other/tool", "x").file("/usr/share/other/tool2", "x"),
    ]);
    let alternative = |priority: &str, tool: &str| {
        format!("update-alternatives --quiet --install /usr/bin/tool tool /usr/share/other/{tool} {priority}")
    };
    let install = alternative("10", "tool");
    device.run(&install.split(' ').collect::<Vec<_>>());
    device.run(&["dpkg-statoverride", "--add", "root", "mail", "0640", "/usr/share/other/tool2"]);
    for script in [
        "dpkg-statoverride --quiet --update --add root mail 0600 /usr/share/app/data",
        "dpkg-statoverride --quiet --remove /usr/share/other/tool2",
        "dpkg-divert --quiet --package extra --rename --divert /usr/share/other/tool.real --add /usr/share/other/tool",
        "dpkg-divert --quiet --local --no-rename --divert /srv/x --add /srv/y",
        &alternative("20", "tool2"),
        // With a second link, which belongs to the first.
        &format!("{} --slave /usr/share/tool-data tool-data /usr/share/other/tool", alternative("20", "tool2")),
        "update-alternatives --quiet --set tool /usr/share/other/tool",
        "update-alternatives --quiet --remove-all tool",
        "update-alternatives --quiet --install /usr/bin/tool2 tool2 /usr/share/other/tool2 5",
        "rm /etc/alternatives/tool",
        "chmod 600 /usr/share/app/data; chown mail /usr/share/app; touch /etc/app.conf",
        "rm -r /usr/share/app",
        "mkdir -p /usr/share/app/data.dpkg-backup/deep",
    ] {
        let extra = Package::new("extra", "1").script("postinst", script).file("/opt/extra", "x");
        install_and_roll_back(&device, &[extra.build().unwrap(), app("2.0").build().unwrap()]);
    }
}

#[test]
fn init_scripts_that_the_new_version_enables_are_not_enabled_after_a_rollback() {
    let script = "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: app\n# Required-Start:\n# Required-Stop:\n\
                  # Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n### END INIT INFO\n";
    let device = Device::new(&[app("1.0")]);
    for level in ["0", "1", "2", "3", "4", "5", "6", "S"] {
        fs::create_dir_all(device.path(&format!("/etc/rc{level}.d"))).unwrap();
    }
    let new = app("2.0").file("/etc/init.d/app", script).script("postinst", "update-rc.d app defaults");
    let links = || fs::read_dir(device.path("/etc/rc2.d")).unwrap().count();
    let before = links();
    device.install(std::slice::from_ref(&new));
    assert_eq!(links(), before + 1, "update-rc.d has made no link");
    device.roll_back();
    assert_eq!(links(), before);
    install_and_roll_back(&device, &[new.build().unwrap()]);
}

#[test]
fn units_that_the_new_version_enables_are_not_enabled_after_a_rollback() {
    let unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    let with = |version: &str, units: &[&str]| {
        let package = units
            .iter()
            .fold(app(version), |package, name| package.file(&format!("/lib/systemd/system/{name}.service"), unit));
        let enable: String = units.iter().map(|name| format!("deb-systemd-helper enable {name}.service\n")).collect();
        package.script("postinst", &enable)
    };
    let device = Device::new(&[]);
    install_and_roll_back(&device, &[with("1.0", &["first"]).build().unwrap()]);
    device.dpkg(&[with("1.0", &["first"]).build().unwrap()]);
    let wants = "/etc/systemd/system/multi-user.target.wants";
    assert!(device.path(wants).join("first.service").symlink_metadata().is_ok());
    install_and_roll_back(&device, &[with("2.0", &["first", "second"]).build().unwrap()]);
    // The administrator has disabled the unit, and the new version's script enables it.
    device.run(&["env", "DPKG_MAINTSCRIPT_PACKAGE=app", "deb-systemd-helper", "disable", "first.service"]);
    let enables = with("2.0", &[]).script("postinst", "ln -s /lib/systemd/system/x /etc/systemd/system/x.service");
    install_and_roll_back(&device, &[enables.build().unwrap()]);
    device.install(&[with("2.0", &["first", "second"])]);
    symlink("/dev/null", device.path("/etc/systemd/system/of-the-administrator.service")).unwrap();
    device.ok("ArtifactRollback");
    assert!(device.path("/etc/systemd/system/of-the-administrator.service").symlink_metadata().is_ok());
    assert!(device.path(wants).join("second.service").symlink_metadata().is_err());
}
