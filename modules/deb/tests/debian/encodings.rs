//! Packages and tables with text that is not UTF-8: dpkg keeps bytes.

use std::fs;

use crate::device::{Device, app};
use crate::exact::install_and_roll_back;
use crate::raw::RawPackage;

/// A name in Latin-1, as some packages from before UTF-8 have it.
const LATIN_1: &[u8] = b"Ren\xe9 <rene@example.org>";

fn latin(version: &str) -> RawPackage {
    let package = RawPackage::new("latin", version).field("Original-Maintainer", LATIN_1);
    package
        .file("/usr/share/latin/version", version)
        .file("/etc/latin.conf", version)
        .member("conffiles", "/etc/latin.conf\n")
}

#[test]
fn packages_with_fields_that_are_not_utf_8_are_updated_and_rolled_back() {
    let device = Device::new(&[app("1.0")]);
    device.dpkg(&[latin("1").build()]);
    let status = || fs::read(device.path("/var/lib/dpkg/status")).unwrap();
    let has_name = || status().windows(LATIN_1.len()).any(|window| window == LATIN_1);
    assert!(has_name(), "dpkg keeps the bytes");
    // One that is not in the update, and one that is: its package is rebuilt for the rollback.
    install_and_roll_back(&device, &[app("2.0").build().unwrap()]);
    assert!(has_name());
    install_and_roll_back(&device, &[latin("2").build()]);
    assert!(has_name());
    device.download_raw(&[latin("2").build()]);
    device.ok("ArtifactInstall");
    device.commit();
    assert_eq!(device.version("latin"), "ii 2");
    assert!(has_name());
    // The previous package is in the cache now.
    install_and_roll_back(&device, &[latin("3").build()]);
    device.run(&["dpkg", "--remove", "latin"]);
    install_and_roll_back(&device, &[latin("2").build()]);
    assert!(has_name(), "the state config-files has the field, too");
}

#[test]
fn diversions_and_stat_overrides_of_paths_that_are_not_utf_8_are_restored() {
    let device = Device::new(&[app("1.0")]);
    let add = |name: &str| {
        format!(
            "path=$(printf '/srv/{name}-\\351')\n\
             dpkg-divert --local --no-rename --divert \"$path.other\" --add \"$path\"\n\
             dpkg-statoverride --add root root 640 \"$path\"\n"
        )
    };
    let remove = "path=$(printf '/srv/local-\\351')\n\
                  dpkg-divert --no-rename --remove \"$path\"\n\
                  dpkg-statoverride --remove \"$path\"\n";
    device.run(&["sh", "-ec", &add("local")]);
    for name in ["diversions", "statoverride"] {
        let table = fs::read(device.path(&format!("/var/lib/dpkg/{name}"))).unwrap();
        assert!(table.windows(8).any(|window| window == b"local-\xe9\n" || window == b"local-\xe9."), "{name}");
    }
    let new = |script: String| app("2.0").script("postinst", &script).build().unwrap();
    for script in [String::new(), add("new"), remove.to_owned(), add("new") + remove] {
        install_and_roll_back(&device, &[new(script)]);
    }
}
