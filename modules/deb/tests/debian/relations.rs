//! Packages that have to do with each other.

use mock_client::debian::Package;

use crate::device::{Device, app};

#[test]
fn a_package_that_replaces_another() {
    let device = Device::new(&[app("1.0")]);
    device.run(&["apt-mark", "auto", "app"]);
    device.write("/etc/app.conf", "changed\n");
    let old = device.state();
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
    device.is_as_before(&old);
}

#[test]
fn a_package_that_takes_a_file_from_one_that_stays() {
    let device = Device::new(&[app("1.0").file("/usr/share/app/moved", "in the old place")]);
    let old = device.state();
    let taker =
        Package::new("app-data", "1").field("Replaces", "app").file("/usr/share/app/moved", "taken over");
    device.install(std::slice::from_ref(&taker));
    assert_eq!(device.text("/usr/share/app/moved"), "taken over");
    assert_eq!(device.version("app"), "ii 1.0");
    device.roll_back();
    device.is_as_before(&old);
    device.refuses(
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
    let old = device.state();
    device.install(&pair("2.0"));
    assert_eq!((device.version("left"), device.version("right")), ("ii 2.0".into(), "ii 2.0".into()));
    device.roll_back();
    device.is_as_before(&old);
    let [left, _] = pair("2.0");
    device.refuses(&[left], &["left", "right (= 2.0)"]);
}

#[test]
fn packages_are_removed_and_come_back() {
    let mut device =
        Device::new(&[app("1.0"), Package::new("plugin", "1").field("Depends", "app").file("/opt/p", "p")]);
    device.write("/etc/app.conf", "changed\n");
    device.run(&["apt-mark", "auto", "plugin"]);
    let old = device.state();
    device.client.set_meta_data(r#"{"remove": ["plugin", "app", "never-there"]}"#);
    device.install(&[]);
    assert!(device.version("app").starts_with("rc") && !device.path("/opt/p").exists());
    device.ok("ArtifactCommit");
    device.roll_back();
    device.is_as_before(&old);
    device.install(&[Package::new("instead", "1")]);
    assert!(!device.version("plugin").starts_with("ii"));
    device.roll_back();
    device.is_as_before(&old);
    device.client.set_meta_data(r#"{"remove": ["app"]}"#);
    device.refuses(&[], &["plugin", "would be removed"]);
}

#[test]
fn a_dependency_in_the_payload_is_new_and_goes_again() {
    let device = Device::new(&[app("1.0")]);
    let old = device.state();
    let library = Package::new("libapp", "1").file("/usr/lib/libapp.so", "code").script(
        "prerm",
        "test -e /usr/share/app/data", // whatever needs it
    );
    device.install(&[app("2.0").field("Depends", "libapp"), library]);
    device.roll_back();
    device.is_as_before(&old);
}

#[test]
fn an_older_version_needs_leave() {
    let mut device = Device::new(&[app("2.0")]);
    device.refuses(&[app("1.0")], &["app", "1.0", "2.0", "allow_downgrade"]);
    let old = device.state();
    device.client.set_meta_data(r#"{"allow_downgrade": true}"#);
    device.install(&[app("1.0")]);
    assert_eq!(device.version("app"), "ii 1.0");
    device.roll_back();
    device.is_as_before(&old);
    device.client.set("deb", "allow_downgrade = false\n").unwrap();
    device.refuses(&[app("1.0")], &["allow_downgrade"]);
}
