//! Packages that depend on, replace or conflict with each other.

use mender_update_module_test::debian::Package;

use crate::device::{Device, app};

#[test]
fn a_package_replaces_another() {
    let device = Device::new(&[app("1.0")]);
    device.run(&["apt-mark", "auto", "app"]);
    device.write("/etc/app.conf", "changed\n");
    let previous = device.state();
    let successor = Package::new("app-ng", "1")
        .field("Conflicts", "app")
        .field("Replaces", "app")
        .field("Provides", "app")
        .file("/usr/share/app/data", "the data of the next generation")
        .conffile("/etc/app.conf", "of the next generation\n");
    device.install(&[successor]);
    assert_eq!(device.version("app-ng"), "ii 1");
    assert!(!device.version("app").starts_with("ii"));
    device.roll_back();
    device.assert_state(&previous);
}

#[test]
fn a_package_replaces_a_file_of_another() {
    let device = Device::new(&[app("1.0").file("/usr/share/app/moved", "in the previous place")]);
    let previous = device.state();
    let taker = Package::new("app-data", "1").field("Replaces", "app").file("/usr/share/app/moved", "taken over");
    device.install(std::slice::from_ref(&taker));
    assert_eq!(device.text("/usr/share/app/moved"), "taken over");
    assert_eq!(device.version("app"), "ii 1.0");
    device.roll_back();
    device.assert_state(&previous);
    device.assert_refused(
        &[Package::new("thief", "1").file("/usr/share/app/moved", "stolen")],
        &["thief", "/usr/share/app/moved", "app"],
    );
}

#[test]
fn two_packages_that_depend_on_each_other() {
    let pair = |version: &str| {
        let needs = |other: &str| format!("{other} (= {version})");
        [
            Package::new("left", version).field("Depends", &needs("right")).file("/usr/share/left", version),
            Package::new("right", version).field("Depends", &needs("left")).file("/usr/share/right", version),
        ]
    };
    let device = Device::new(&pair("1.0"));
    let previous = device.state();
    device.install(&pair("2.0"));
    assert_eq!((device.version("left"), device.version("right")), ("ii 2.0".into(), "ii 2.0".into()));
    device.roll_back();
    device.assert_state(&previous);
    let [left, _] = pair("2.0");
    device.assert_refused(&[left], &["left", "right (= 2.0)"]);
}

#[test]
fn removed_packages_are_restored() {
    let mut device =
        Device::new(&[app("1.0"), Package::new("plugin", "1").field("Depends", "app").file("/opt/p", "p")]);
    device.write("/etc/app.conf", "changed\n");
    device.run(&["apt-mark", "auto", "plugin"]);
    let previous = device.state();
    device.client.set_meta_data(r#"{"remove": ["plugin", "app", "never-there"]}"#);
    device.install(&[]);
    assert!(device.version("app").starts_with("rc") && !device.path("/opt/p").exists());
    device.ok("ArtifactCommit");
    device.roll_back();
    device.assert_state(&previous);
    device.install(&[Package::new("instead", "1")]);
    assert!(!device.version("plugin").starts_with("ii"));
    device.roll_back();
    device.assert_state(&previous);
    device.client.set_meta_data(r#"{"remove": ["app"]}"#);
    device.assert_refused(&[], &["plugin", "would be removed"]);
}

#[test]
fn a_new_dependency_in_the_payload_is_removed_by_the_rollback() {
    let device = Device::new(&[app("1.0")]);
    let previous = device.state();
    let library = Package::new("libapp", "1").file("/usr/lib/libapp.so", "code").script(
        "prerm",
        "test -e /usr/share/app/data", // which the package that depends on it has
    );
    device.install(&[app("2.0").field("Depends", "libapp"), library]);
    device.roll_back();
    device.assert_state(&previous);
}

#[test]
fn a_downgrade_has_to_be_allowed() {
    let mut device = Device::new(&[app("2.0")]);
    device.assert_refused(&[app("1.0")], &["app", "1.0", "2.0", "allow_downgrade"]);
    let previous = device.state();
    device.client.set_meta_data(r#"{"allow_downgrade": true}"#);
    device.install(&[app("1.0")]);
    assert_eq!(device.version("app"), "ii 1.0");
    device.roll_back();
    device.assert_state(&previous);
    device.client.set("deb", "allow_downgrade = false\n").unwrap();
    device.assert_refused(&[app("1.0")], &["allow_downgrade"]);
}

#[test]
fn a_package_that_disappears_because_another_has_all_its_files_is_restored() {
    let device = Device::new(&[Package::new("tiny", "1").file("/srv/tiny/file", "of tiny")]);
    let previous = device.state();
    device.install(&[Package::new("big", "1").field("Replaces", "tiny").file("/srv/tiny/file", "of big")]);
    assert!(!device.version("tiny").starts_with("ii"), "{}", device.version("tiny"));
    let log = device.ok("ArtifactRollback");
    device.assert_state(&previous);
    assert!(log.contains("rollback complete"), "{log}");
}

#[test]
fn a_package_of_two_architectures_shares_its_files() {
    let native = |version: &str| library(version, &native());
    let foreign = |version: &str| library(version, "s390x");
    let device = Device::new(&[]);
    device.run(&["dpkg", "--add-architecture", "s390x"]);
    device.dpkg(&[native("1").build().unwrap()]);
    let one = device.state();
    device.install(&[foreign("1")]);
    device.roll_back();
    device.assert_state(&one);
    device.dpkg(&[foreign("1").build().unwrap()]);
    let both = device.state();
    device.install(&[native("2"), foreign("2")]);
    assert_eq!(device.text("/usr/share/libshared/data"), "2");
    let log = device.ok("ArtifactRollback");
    device.assert_state(&both);
    assert!(log.contains("rollback complete"), "{log}");
}

#[test]
fn a_removed_package_may_have_the_devices_architecture_in_its_name() {
    let foreign = library("1", "s390x");
    for (package, name) in [
        (library("1", &native()), format!("libshared:{}", native())),
        (library("1", &native()), "libshared:native".to_owned()),
        (app("1.0"), "app:all".to_owned()),
    ] {
        let mut device = Device::new(&[]);
        device.run(&["dpkg", "--add-architecture", "s390x"]);
        device.dpkg(&[package.build().unwrap(), foreign.build().unwrap()]);
        let previous = device.state();
        device.client.set_meta_data(format!(r#"{{"remove": ["{name}"]}}"#));
        device.install(&[Package::new("other", "1")]);
        let removed = if name.starts_with("app") { "app" } else { &format!("libshared:{}", native()) };
        assert!(!device.version(removed).starts_with("ii"), "{name} is installed");
        assert_eq!(device.version("libshared:s390x"), "ii 1", "{name}: another package was removed");
        let log = device.ok("ArtifactRollback");
        device.assert_state(&previous);
        assert!(log.contains("rollback complete"), "{log}");
    }
}

fn native() -> String {
    let log = std::process::Command::new("dpkg").arg("--print-architecture").output().unwrap();
    String::from_utf8(log.stdout).unwrap().trim().to_owned()
}

fn library(version: &str, architecture: &str) -> Package {
    Package::new("libshared", version)
        .field("Architecture", architecture)
        .field("Multi-Arch", "same")
        .file("/usr/share/libshared/data", version)
        .file(&format!("/usr/lib/{architecture}/libshared.so"), version)
}

/// Configures a package source of apt with `packages` on the device.
pub fn source(device: &Device, method: &str, packages: &[Package]) {
    let directory = device.path("/srv/source");
    std::fs::create_dir_all(&directory).unwrap();
    let mut index = String::new();
    for (number, package) in packages.iter().enumerate() {
        let (name, deb) = (format!("{number}.deb"), package.build().unwrap());
        let path = directory.join(&name);
        std::fs::write(&path, &deb).unwrap();
        let fields = std::process::Command::new("dpkg-deb").arg("--field").arg(&path).output().unwrap();
        let sum = std::process::Command::new("sha256sum").arg(&path).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        index.push_str(std::str::from_utf8(&fields.stdout).unwrap().trim_end());
        let sum = sum.split(' ').next().unwrap();
        index.push_str(&format!("\nFilename: ./{name}\nSize: {}\nSHA256: {sum}\n\n", deb.len()));
    }
    std::fs::write(directory.join("Packages"), index).unwrap();
    device.write("/etc/apt/sources.list", &format!("deb [trusted=yes] {method}:/srv/source ./\n"));
    device.run(&["apt-get", "update"]);
}

#[test]
fn downloaded_packages_are_checked_like_the_payload() {
    let needs = app("2.0").field("Depends", "needed");
    let device = Device::new(&[app("1.0")]);
    device.write("/srv/mine", "of the user");
    source(&device, "copy", &[Package::new("needed", "1").file("/srv/mine", "of needed")]);
    device.assert_refused(std::slice::from_ref(&needs), &["needed"]);
    device.client.set("deb", "network = true\n").unwrap();
    let previous = device.state();
    device.install(std::slice::from_ref(&needs));
    assert_eq!(device.version("needed"), "ii 1");
    assert!(device.run(&["apt-mark", "showauto"]).contains("needed"));
    let log = device.ok("ArtifactRollback");
    device.assert_state(&previous);
    assert!(log.contains("rollback complete"), "{log}");
    assert_eq!(device.text("/srv/mine"), "of the user");
    device.ok("Cleanup");
    // A downloaded package that a rollback could not remove is refused, and one that apt does not download.
    source(&device, "copy", &[Package::new("needed", "1").field("Essential", "yes")]);
    device.assert_refused(std::slice::from_ref(&needs), &["needed", "essential"]);
    source(&device, "file", &[Package::new("needed", "1")]);
    device.assert_refused(std::slice::from_ref(&needs), &["needed", "file:"]);
}

#[test]
fn an_apt_that_does_nothing_and_succeeds_fails_the_update() {
    let device = Device::new(&[app("1.0")]);
    let previous = device.state();
    device.write("/etc/apt/apt.conf.d/99test", "APT::Get::Download-Only \"true\";\n");
    device.download(&[app("2.0")]);
    let log = device.fails("ArtifactInstall");
    assert!(log.contains("app") && log.contains("apt has succeeded"), "{log}");
    std::fs::remove_file(device.path("/etc/apt/apt.conf.d/99test")).unwrap();
    device.assert_state(&previous);
}

#[test]
fn packages_that_are_only_recommended_are_not_installed() {
    let device = Device::new(&[app("1.0")]);
    source(&device, "copy", &[Package::new("recommended", "1")]);
    device.write("/etc/apt/apt.conf.d/99test", "APT::Install-Recommends \"true\";\n");
    device.client.set("deb", "network = true\n").unwrap();
    device.install(&[app("2.0").field("Recommends", "recommended")]);
    assert_eq!(device.version("app"), "ii 2.0");
    assert!(!device.version("recommended").starts_with("ii"), "{}", device.version("recommended"));
}
