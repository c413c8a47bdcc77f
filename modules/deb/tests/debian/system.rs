//! Special systems: read-only, half configured, with settings of dpkg and apt, and with the packages of this
//! project.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use mender_update_module_test::Generation;
use mender_update_module_test::debian::Package;
use mender_update_module_test::privileged::Mounted;
use rustix::mount::{MountFlags, mount_bind, mount_bind_recursive, mount_remount};

use crate::device::{Device, app};
use crate::kinds::state;
use crate::raw::RawPackage;
use crate::relations::source;

/// Makes the device's `/usr` a read-only mount.
fn read_only_usr(device: &Device) {
    read_only(device, "/usr");
}

/// Makes the device's `directory` a read-only mount.
pub fn read_only(device: &Device, directory: &str) {
    let directory = device.path(directory);
    // Recursively, because the module is a mount in `/usr`.
    mount_bind_recursive(&directory, &directory).unwrap();
    mount_remount(&directory, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
}

#[test]
fn a_read_only_root_is_updated_where_other_file_systems_have_the_changed_paths() {
    let device = Device::new(&[Package::new("data", "1").file("/srv/data/file", "1")]);
    let root = device.client.device();
    for name in ["etc", "var", "srv", "tmp", "data", "run"] {
        let path = root.join(name);
        fs::create_dir_all(&path).unwrap();
        mount_bind_recursive(&path, &path).unwrap();
    }
    read_only_usr(&device);
    mount_bind_recursive(root, root).unwrap();
    mount_remount(root, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    assert!(fs::write(root.join("x"), "").is_err());
    let before = state(&device);
    device.install(&[Package::new("data", "2").file("/srv/data/file", "2")]);
    assert_eq!(device.text("/srv/data/file"), "2");
    let log = device.ok("ArtifactRollback");
    device.assert_same(&before, &state(&device), "the device");
    assert!(log.contains("rollback complete"), "{log}");
    device.assert_refused(&[app("1.0")], &["/usr", "read-only"]);
}

/// A command that remounts `/usr`.
fn remount(read_only: bool) -> String {
    remount_of("/usr", read_only)
}

/// A command that remounts `directory` with mount(2), called by perl, because the system has no program for it.
pub fn remount_of(directory: &str, read_only: bool) -> String {
    let flags = 4096 + 32 + u32::from(read_only); // MS_BIND, MS_REMOUNT, MS_RDONLY
    let number = if cfg!(target_arch = "x86_64") { 165 } else { 40 };
    format!(
        "perl -e 'my ($none, $at) = (qq(none), qq({directory})); exit(syscall({number}, $none, $at, $none, {flags}, 0) != 0)'"
    )
}

#[test]
fn a_read_only_usr_is_refused_before_anything_is_changed() {
    let device = Device::new(&[app("1.0")]);
    read_only_usr(&device);
    device.assert_refused(&[app("2.0")], &["/usr", "read-only", "DPkg::Pre-Invoke"]);
    // A command that does not remount it makes no difference.
    device.write("/etc/apt/apt.conf.d/99remount", "DPkg::Pre-Invoke { \"true\"; };\n");
    device.assert_refused(&[app("2.0")], &["/usr", "read-only", "none of the commands"]);
}

#[test]
fn a_read_only_usr_with_commands_that_remount_it_is_updated_and_rolled_back() {
    let apt =
        format!("DPkg::Pre-Invoke {{ \"{}\"; }};\nDPkg::Post-Invoke {{ \"{}\"; }};\n", remount(false), remount(true));
    let dpkg = format!("pre-invoke={}\npost-invoke={}\n", remount(false), remount(true));
    for (path, text) in [("/etc/apt/apt.conf.d/99remount", apt), ("/etc/dpkg/dpkg.cfg.d/remount", dpkg)] {
        for fails in [false, true] {
            let device = Device::new(&[app("1.0")]);
            device.write("/usr/share/of-the-user", "x");
            device.write(path, &text);
            read_only_usr(&device);
            let before = state(&device);
            let new = app("2.0").file("/usr/share/of-the-user", "y");
            let new = if fails { new.script("postinst", "exit 1") } else { new };
            device.download(&[new]);
            if fails {
                let log = device.fails("ArtifactInstall");
                assert!(log.contains("rollback complete"), "{path}: {log}");
            } else {
                device.ok("ArtifactInstall");
                assert_eq!(device.text("/usr/share/app/data"), "the data of 2.0");
                assert!(fs::write(device.path("/usr/share/x"), "").is_err(), "{path}: still writable");
                let log = device.ok("ArtifactRollback");
                assert!(log.contains("rollback complete"), "{path}: {log}");
            }
            device.assert_same(&before, &state(&device), path);
            assert!(fs::write(device.path("/usr/share/x"), "").is_err(), "{path}: left writable");
        }
    }
}

/// The directory with the module's data.
fn data(device: &Device) -> PathBuf {
    device.client.datastore().join("update-modules")
}

/// Gives the module's data a file system of 8 MiB.
fn small_data(device: &Device) -> Mounted {
    Mounted::tmpfs(&data(device), "size=8m,mode=755").expect("deb's tests run where they may mount")
}

#[test]
fn a_rollback_on_a_full_file_system_frees_space() {
    let device = Device::new(&[]);
    device.dpkg(&[app("1.0").build().unwrap()]);
    let _mounted = small_data(&device);
    device.client.set("deb", "reserve_mib = 0\n").unwrap();
    let before = state(&device);
    device.install(&[app("2.0").file("/usr/share/app/large", &"x".repeat(1 << 20))]);
    let mut filler = fs::File::create(data(&device).join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    let staging = data(&device).join("deb/staging");
    assert!(staging.exists());
    let log = device.ok("ArtifactRollback");
    assert!(log.contains("rollback complete"), "{log}");
    assert!(!staging.exists(), "the staged packages are not removed");
    fs::remove_file(data(&device).join("filler")).unwrap();
    device.assert_same(&before, &state(&device), "the device");
    device.ok("Cleanup");
    device.assert_clean();
}

#[test]
fn the_reserve_stays_free_also_if_the_client_announces_no_size() {
    let payload = [b"!<arch>\n".to_vec(), vec![b'x'; 6 << 20]].concat();
    for generation in [Generation::V5, Generation::V3] {
        let device = Device::of_generation(generation, &[]);
        let _mounted = small_data(&device);
        device.client.set("deb", "reserve_mib = 4\n").unwrap();
        let outcome = device.client.download(&[("app.deb".as_ref(), payload.as_slice())]).unwrap();
        assert_eq!(outcome.status.code(), Some(1), "{generation:?}: {outcome:?}");
        assert!(outcome.stderr.contains("4194304 stay free: free some space"), "{generation:?}: {outcome:?}");
        device.ok("Cleanup");
        device.assert_clean();
    }
}

#[test]
fn the_reserve_stays_free_also_if_apt_downloads_packages() {
    let device = Device::new(&[app("1.0")]);
    let _mounted = small_data(&device);
    device.client.set("deb", "network = true\nreserve_mib = 4\n").unwrap();
    let needs = app("2.0").field("Depends", "needed");
    let of_size = |size| Package::new("needed", "1").file("/usr/share/needed/data", &incompressible(size));
    for (size, fits) in [(5 << 20, false), (2 << 20, true)] {
        source(&device, "copy", &[of_size(size)]);
        device.download(std::slice::from_ref(&needs));
        let outcome = device.client.call("ArtifactInstall").unwrap();
        assert_eq!(outcome.success(), fits, "{outcome:?}");
        assert_eq!(outcome.stderr.contains("downloading packages failed: not enough space in "), !fits, "{outcome:?}");
        assert_eq!(outcome.stderr.contains("4194304 stay free: free some space"), !fits, "{outcome:?}");
        device.roll_back();
        device.assert_clean();
    }
}

#[test]
fn the_reserve_stays_free_also_for_copies_of_files() {
    let device = Device::new(&[]);
    let _mounted = small_data(&device);
    device.client.set("deb", "reserve_mib = 4\n").unwrap();
    for (size, fits) in [(5 << 20, false), (2 << 20, true)] {
        device.write("/srv/large", &"x".repeat(size));
        device.download_raw(&[RawPackage::new("new", "1").file("/srv/large", "x").build()]);
        let outcome = device.client.call("ArtifactInstall").unwrap();
        assert_eq!(outcome.success(), fits, "{outcome:?}");
        assert_eq!(outcome.stderr.contains("4194304 stay free: free some space"), !fits, "{outcome:?}");
        device.roll_back();
        assert_eq!(device.text("/srv/large").len(), size);
        device.assert_clean();
    }
}

/// Text of about `size` bytes that a package has uncompressed or hardly smaller.
fn incompressible(size: usize) -> String {
    // Marsaglia's xorshift.
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Printable characters have a little more than 6 of 8 bits.
        char::from(b'!' + (state % 94) as u8)
    };
    std::iter::repeat_with(next).take(size).collect()
}

#[test]
fn a_mount_point_in_the_place_of_a_file_is_refused() {
    let device = Device::new(&[app("1.0")]);
    let path = device.path("/usr/share/app/data");
    mount_bind(&path, &path).unwrap();
    device.assert_refused(&[app("2.0")], &["/usr/share/app/data", "mount point"]);
}

/// A package whose `postinst` fails at version 1.
fn half(version: &str) -> Package {
    Package::new("half", version)
        .file("/usr/share/half/data", version)
        .conffile("/etc/half.conf", version)
        .script("postinst", "test -e /usr/share/helper/helps || test \"$(cat /usr/share/half/data)\" != 1")
}

#[test]
fn an_unconfigured_package_is_updated_and_rolled_back() {
    for state_before in ["half-configured", "unpacked"] {
        let device = Device::new(&[app("1.0")]);
        if state_before == "half-configured" {
            assert!(device.system().install_packages(&[half("1").build().unwrap()]).is_err());
        } else {
            device.write("/tmp/half.deb", "");
            fs::write(device.path("/tmp/half.deb"), half("1").build().unwrap()).unwrap();
            device.run(&["dpkg", "--unpack", "/tmp/half.deb"]);
        }
        // The repair tries to configure the package in both cases.
        device.assert_refused_after_repair(&[app("2.0")], &["half is half-configured", "does not repair it"]);
        let before = state(&device);
        device.install(&[half("2"), app("2.0")]);
        assert_eq!(device.version("half"), "ii 2");
        let log = device.ok("ArtifactRollback");
        device.assert_same(&before, &state(&device), state_before);
        assert!(log.contains("rollback complete"), "{log}");
        assert!(device.version("half").starts_with("iF"), "{}", device.version("half"));
        device.ok("Cleanup");
    }
}

#[test]
fn a_package_that_dpkg_has_not_unpacked_completely_is_not_updated() {
    let device = Device::new(&[app("1.0")]);
    let status = device.text("/var/lib/dpkg/status");
    let (before, app_and_after) = status.split_once("Package: app\n").unwrap();
    let interrupted = app_and_after.replacen("install ok installed", "install ok half-installed", 1);
    device.write("/var/lib/dpkg/status", &format!("{before}Package: app\n{interrupted}"));
    assert!(device.version("app").starts_with("iH"), "{}", device.version("app"));
    device.assert_refused_after_repair(&[app("2.0")], &["app is half-installed", "could not restore that"]);
}

#[test]
fn a_package_with_a_dependency_in_the_payload_is_configured() {
    let device = Device::new(&[app("1.0")]);
    let needy = half("1").field("Depends", "helper");
    assert!(device.system().install_packages(&[needy.build().unwrap()]).is_err());
    let before = state(&device);
    device.install(&[Package::new("helper", "1").file("/usr/share/helper/helps", "x")]);
    assert_eq!((device.version("half"), device.version("helper")), ("ii 1".into(), "ii 1".into()));
    let log = device.ok("ArtifactRollback");
    device.assert_same(&before, &state(&device), "the device");
    assert!(log.contains("rollback complete"), "{log}");
}

#[test]
fn the_modules_policy_for_conffiles_overrides_that_of_dpkg_and_apt() {
    let dpkg = (
        "/etc/dpkg/dpkg.cfg.d/local",
        ["force-confnew\nforce-confmiss\n", "force-confold\n", "force-confdef\nforce-confask\n"],
    );
    let apt = (
        "/etc/apt/apt.conf.d/99local",
        [
            "Dpkg::Options { \"--force-confnew\"; \"--force-confmiss\"; };\n",
            "Dpkg::Options { \"--force-confold\"; };\n",
            "Dpkg::Options:: \"--force-confask\";\n",
        ],
    );
    for (path, settings) in [dpkg, apt] {
        for setting in settings {
            for (policy, active) in [("keep", "changed\n"), ("replace", "the settings of 2.0\n")] {
                let mut device = Device::new(&[app("1.0").conffile("/etc/app.d/gone", "1")]);
                device.write("/etc/app.conf", "changed\n");
                fs::remove_file(device.path("/etc/app.d/gone")).unwrap();
                device.write(path, setting);
                let before = state(&device);
                device.client.set_meta_data(format!(r#"{{"conffiles": "{policy}"}}"#));
                device.install(&[app("2.0").conffile("/etc/app.d/gone", "2")]);
                assert_eq!(device.text("/etc/app.conf"), active, "{policy} with {setting}");
                let exists = device.path("/etc/app.d/gone").exists();
                assert_eq!(exists, policy == "replace", "{policy} with {setting}");
                device.ok("ArtifactRollback");
                device.assert_same(&before, &state(&device), setting);
                device.ok("Cleanup");
            }
        }
    }
}

const MODULES: &str = "/usr/share/mender/modules/v3";

/// A package of this project, with the maintainer scripts in `debian/` and `executable`.
fn own(name: &str, version: &str, executable: &[u8]) -> RawPackage {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian").join(name);
    let settings = fs::read_to_string(scripts.join(name).with_extension("toml")).unwrap();
    let conffile = format!("/etc/mender-modules/{name}.toml");
    let package = RawPackage::new(&format!("mender-update-module-{name}"), version)
        .file(&format!("{MODULES}/{name}"), executable)
        .file(&conffile, settings)
        .member("conffiles", &format!("{conffile}\n"));
    ["preinst", "prerm", "postrm"]
        .into_iter()
        .fold(package, |package, script| package.member(script, &fs::read_to_string(scripts.join(script)).unwrap()))
}

/// Debian's package of the client, with modules of the same names.
fn client() -> RawPackage {
    let package = RawPackage::new("mender-client", "3.4.0");
    ["deb", "directory", "single-file"].into_iter().fold(package, |package, name| {
        package.file(&format!("{MODULES}/{name}"), "#!/bin/sh\n# the module of the client\n")
    })
}

#[test]
fn the_packages_of_this_project_are_installed_upgraded_and_rolled_back() {
    for with_client in [false, true] {
        for name in ["directory", "deb"] {
            let device = Device::new_as("module-under-test", &[]);
            if with_client {
                device.dpkg(&[client().build()]);
            }
            for version in ["1", "2", "2"] {
                let before = state(&device);
                let package = own(name, version, b"#!/bin/sh\n# the module of this package\n").build();
                for commits in [false, true] {
                    device.download_raw(std::slice::from_ref(&package));
                    device.ok("ArtifactInstall");
                    assert!(device.text(&format!("{MODULES}/{name}")).contains("of this package"));
                    let diverted = device.path(&format!("/usr/share/mender/modules/{name}.mender-client"));
                    assert_eq!(diverted.exists(), with_client, "the client's module is not diverted");
                    if commits {
                        device.commit();
                    } else {
                        let log = device.ok("ArtifactRollback");
                        device.assert_same(&before, &state(&device), name);
                        assert!(log.contains("rollback complete"), "{log}");
                        device.ok("Cleanup");
                    }
                }
            }
        }
    }
}

#[test]
fn the_module_replaces_itself_and_is_rolled_back_by_the_new_version() {
    let executable = fs::read(env!("CARGO_BIN_EXE_deb")).unwrap();
    let device = Device::new_as("module-under-test", &[app("1.0")]);
    device.dpkg(&[client().build()]);
    device.dpkg(&[own("deb", "1", &executable).build()]);
    let before = state(&device);
    device.download_raw(&[own("deb", "2", &executable).build(), app("2.0").build().unwrap()]);
    device.ok("ArtifactInstall");
    assert_eq!(device.version("mender-update-module-deb"), "ii 2");
    // From here on, the client runs the version that was just installed.
    let tree = Path::new("/").join(device.client.tree().strip_prefix(device.client.device()).unwrap());
    let module = format!("{MODULES}/deb");
    for state in ["ArtifactRollback", "ArtifactFailure"] {
        device.run(&[&module, state, tree.to_str().unwrap()]);
    }
    device.assert_same(&before, &state(&device), "the device");
    device.run(&[&module, "Cleanup", tree.to_str().unwrap()]);
    device.assert_clean();
}

#[test]
fn the_refused_removal_names_the_command_that_the_device_has() {
    for (command, other) in [("mender", "mender-update"), ("mender-update", "mender")] {
        let device = Device::new(&[]);
        fs::create_dir_all(device.path("/var/lib/mender/update-modules/deb")).unwrap();
        device.write("/var/lib/mender/update-modules/deb/journal.json", "{}");
        let tool = RawPackage::new("client", "1").file(&format!("/usr/bin/{command}"), "#!/bin/sh\n");
        device.dpkg(&[tool.build()]);
        device.dpkg(&[own_without_executable().build()]);
        let removed = device.system().command(&["dpkg", "--remove", "mender-update-module-deb"]).output().unwrap();
        let log = String::from_utf8_lossy(&removed.stderr).into_owned();
        assert!(!removed.status.success() && log.contains(&format!("'{command} commit'")), "{log}");
        assert!(!log.contains(&format!("'{other} commit'")), "{log}");
    }
}

/// The package of `deb` without its executable, because the test has its own in that place.
fn own_without_executable() -> RawPackage {
    let prerm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian/deb/prerm");
    RawPackage::new("mender-update-module-deb", "1").member("prerm", &fs::read_to_string(prerm).unwrap())
}
