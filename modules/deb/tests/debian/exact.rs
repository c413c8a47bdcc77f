//! What a rollback restores and verifies: names, attributes, and marks of packages.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use mender_update_module_test::debian::Package;
use rustix::fs::{IFlags, XattrFlags, ioctl_getflags, ioctl_setflags, setxattr};

use crate::device::{Device, app};
use crate::kinds::state;
use crate::raw::RawPackage;

/// Installs `new` and rolls back. Everything must be as before, and verified.
pub fn install_and_roll_back(device: &Device, new: &[Vec<u8>]) {
    let before = state(device);
    device.download_raw(new);
    device.ok("ArtifactInstall");
    let log = device.ok("ArtifactRollback");
    device.assert_same(&before, &state(device), "the device");
    assert!(log.contains("rollback complete"), "{log}");
    device.ok("Cleanup");
    device.assert_same(&before, &state(device), "the device");
    device.assert_clean();
}

/// Asserts that `new` is refused with all of `words`, and that nothing has changed.
fn assert_refused(device: &Device, new: &[Vec<u8>], words: &[&str]) {
    let before = state(device);
    device.download_raw(new);
    let log = device.fails("ArtifactInstall");
    for word in words {
        assert!(log.contains(word), "{word:?} is missing in {log}");
    }
    assert!(!log.contains("Unpacking"), "refused too late: {log}");
    device.roll_back();
    device.assert_same(&before, &state(device), "the device");
    device.assert_clean();
}

#[test]
fn names_in_every_form_are_the_same_paths() {
    for prefix in ["", "./", "/", ".//"] {
        let device = Device::new(&[app("1.0")]);
        fs::create_dir_all(device.path("/srv/mine")).unwrap();
        device.write("/srv/mine/file", "of the user");
        let new = RawPackage::new("new", "1").prefix(prefix);
        let new = new.file("/srv/mine/file", "of the package").file("/srv/fresh/file", "x");
        install_and_roll_back(&device, &[new.build()]);
        assert_eq!(device.text("/srv/mine/file"), "of the user");
        let thief = RawPackage::new("thief", "1").prefix(prefix).file("/usr/share/app/data", "stolen");
        assert_refused(&device, &[thief.build()], &["thief", "/usr/share/app/data", "app"]);
    }
}

#[test]
fn a_name_that_leads_out_of_its_directory_is_refused() {
    let device = Device::new(&[]);
    for name in ["../etc/shadow", "srv/../../etc/shadow", "srv/a\nb"] {
        let new = RawPackage::new("new", "1").file(name, "x").build();
        assert_refused(&device, &[new], &["new", "name"]);
    }
}

#[test]
fn paths_through_symlinks_to_directories_are_resolved() {
    let device = Device::new(&[]);
    device.dpkg(&[RawPackage::new("old", "1").file("/usr/lib/old/file", "of old").build()]);
    // /lib is a symlink to usr/lib.
    let thief = RawPackage::new("thief", "1").entry_only("/lib/old/file", "stolen");
    assert_refused(&device, &[thief.build()], &["thief", "old"]);
    let newer = RawPackage::new("old", "2").entry_only("/lib/old/file", "moved");
    install_and_roll_back(&device, &[newer.build()]);
    fs::create_dir_all(device.path("/srv/real")).unwrap();
    device.write("/srv/real/file", "of the user");
    symlink("real", device.path("/srv/link")).unwrap();
    install_and_roll_back(&device, &[RawPackage::new("new", "1").file("/srv/link/file", "x").build()]);
}

#[test]
fn the_target_of_a_symlink_in_the_place_of_a_conffile_is_never_deleted() {
    let conffile = |version: &str| {
        let package = RawPackage::new("new", version).file("/etc/new.conf", format!("conf of {version}"));
        package.member("conffiles", "/etc/new.conf\n")
    };
    // A symlink in the package.
    let device = Device::new(&[]);
    let linked = RawPackage::new("new", "1").symlink("/etc/new.conf", "passwd");
    assert_refused(&device, &[linked.member("conffiles", "/etc/new.conf\n").build()], &["new", "/etc/new.conf"]);
    // A symlink of the administrator: to a file, to another symlink, to a path that does not exist.
    for target in ["passwd", "second", "missing"] {
        symlink(target, device.path("/etc/new.conf")).unwrap();
        let _ = symlink("/etc/passwd", device.path("/etc/second"));
        install_and_roll_back(&device, &[conffile("1").build()]);
        fs::remove_file(device.path("/etc/new.conf")).unwrap();
    }
    // A symlink that a maintainer script makes,
    let script = conffile("1").member("postinst", "ln -sf passwd /etc/new.conf");
    install_and_roll_back(&device, &[script.build()]);
    // also in an upgrade.
    device.dpkg(&[conffile("1").build()]);
    install_and_roll_back(&device, &[conffile("2").member("postinst", "ln -sf passwd /etc/new.conf").build()]);
    assert!(device.text("/etc/passwd").contains("root:"));
}

#[test]
fn new_extended_attributes_are_removed() {
    let device = Device::new(&[app("1.0")]);
    let before = state(&device);
    device.install(&[app("2.0")]);
    for path in ["/usr/share/app", "/etc/app.conf"] {
        setxattr(device.path(path), "user.new", b"x", XattrFlags::CREATE).unwrap();
    }
    let log = device.ok("ArtifactRollback");
    device.assert_same(&before, &state(&device), "the device");
    assert!(log.contains("rollback complete"), "{log}");
}

#[test]
fn names_that_are_too_long_for_dpkg_are_refused() {
    let device = Device::new(&[]);
    let file = |length: usize| app("1.0").file(&format!("/srv/{}", "n".repeat(length)), "x").build().unwrap();
    install_and_roll_back(&device, &[file(246)]);
    assert_refused(&device, &[file(247)], &["app", "246 bytes"]);
}

#[test]
fn holds_and_marks_of_other_packages_are_restored() {
    let device = Device::new(&[app("1.0"), Package::new("other", "1"), Package::new("third", "1")]);
    device.run(&["apt-mark", "hold", "third"]);
    let hook = "DPkg::Post-Invoke { \"echo other hold | dpkg --set-selections; apt-mark auto other\"; };\n";
    device.write("/etc/apt/apt.conf.d/99test", hook);
    let before = state(&device);
    device.install(&[app("2.0")]);
    device.run(&["apt-mark", "manual", "third"]);
    assert!(device.run(&["apt-mark", "showhold"]).contains("other"));
    let log = device.ok("ArtifactRollback");
    device.assert_same(&before, &state(&device), "the device");
    assert!(log.contains("rollback complete"), "{log}");
}

#[test]
fn a_new_essential_or_protected_package_is_refused() {
    let device = Device::new(&[]);
    for (field, value) in [("Essential", "yes"), ("Protected", "yes"), ("Essential", "Yes")] {
        let new = Package::new("new", "1").field(field, value).build().unwrap();
        assert_refused(&device, &[new], &["new", "essential or protected"]);
    }
    device.dpkg(&[app("1.0").build().unwrap()]);
    install_and_roll_back(&device, &[app("2.0").field("Essential", "yes").build().unwrap()]);
    install_and_roll_back(&device, &[app("2.0").field("Protected", "yes").build().unwrap()]);
}

#[test]
fn hard_links_are_restored_and_those_to_other_paths_are_refused() {
    let device = Device::new(&[]);
    let linked = |version: &str| {
        let package = RawPackage::new("app", version).file("/usr/share/app/a", version);
        package.hard_link("/usr/share/app/b", "/usr/share/app/a")
    };
    device.dpkg(&[linked("1").build()]);
    install_and_roll_back(&device, &[RawPackage::new("app", "2").file("/usr/share/app/a", "x").build()]);
    let inode = |path: &str| fs::metadata(device.path(path)).unwrap().ino();
    assert_eq!(inode("/usr/share/app/a"), inode("/usr/share/app/b"));
    fs::hard_link(device.path("/usr/share/app/a"), device.path("/srv/third")).unwrap();
    assert_refused(&device, &[linked("2").build()], &["/usr/share/app/a", "hard links"]);
}

#[test]
fn attributes_changed_by_hand_are_restored_with_a_package_from_the_cache() {
    let device = Device::new(&[]);
    device.install(&[app("1.0").checksums()]);
    device.commit();
    let path = device.path("/usr/share/app/data");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(8), Some(8)).unwrap();
    std::os::unix::fs::chown(device.path("/usr/share/app"), Some(8), Some(8)).unwrap();
    install_and_roll_back(&device, &[app("2.0").build().unwrap()]);
}

#[test]
fn files_that_dpkg_is_configured_to_leave_out_are_as_before() {
    let device = Device::new(&[]);
    let documented =
        |version: &str| app(version).file("/usr/share/doc/app/readme", version).file("/usr/share/man/x", "x");
    device.dpkg(&[documented("1.0").build().unwrap()]);
    assert!(!device.path("/usr/share/doc/app/readme").exists(), "dpkg is configured to leave out documentation");
    install_and_roll_back(&device, &[documented("2.0").build().unwrap()]);
    device.write("/etc/dpkg/dpkg.cfg.d/local", "path-exclude=/usr/share/app/only-in-*\n");
    install_and_roll_back(&device, &[documented("2.0").build().unwrap()]);
}

#[test]
fn the_size_of_the_copies_is_limited_by_a_setting() {
    let device = Device::new(&[]);
    device.client.set("deb", "backup_mib = 1\n").unwrap();
    device.write("/srv/large", &"x".repeat(2 << 20));
    assert_refused(
        &device,
        &[RawPackage::new("new", "1").file("/srv/large", "x").build()],
        &["/srv/large", "backup_mib"],
    );
    device.client.set("deb", "").unwrap();
    install_and_roll_back(&device, &[RawPackage::new("new", "1").file("/srv/large", "x").build()]);
}

#[test]
fn an_incomplete_rollback_fails_and_names_the_path() {
    let device = Device::new(&[app("1.0")]);
    device.write("/srv/mine", "of the user");
    device.download_raw(&[RawPackage::new("new", "1").file("/srv/mine", "x").build()]);
    device.ok("ArtifactInstall");
    let copies = device.client.datastore().join("update-modules/deb/old/places");
    let is_mine = |path: &std::path::PathBuf| fs::read(path).is_ok_and(|text| text == b"of the user");
    let copy = fs::read_dir(copies).unwrap().map(|entry| entry.unwrap().path()).find(is_mine).unwrap();
    fs::write(&copy, "changed").unwrap();
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("/srv/mine: content differs") && !log.contains("rollback complete"), "{log}");
    fs::write(&copy, "of the user").unwrap();
    assert!(device.ok("ArtifactRollback").contains("rollback complete"), "the modification time is in the record");
}

#[test]
fn an_incomplete_rollback_of_a_table_fails_and_names_the_entry() {
    let device = Device::new(&[app("1.0")]);
    let before = state(&device);
    device.install(&[app("2.0")]);
    // After the diversions are restored.
    let (hook, command) = ("/etc/apt/apt.conf.d/99test", "dpkg-divert --local --no-rename --add /srv/diverted");
    device.write(hook, &format!("DPkg::Post-Invoke {{ \"{command}\"; }};\n"));
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("diversion of /srv/diverted") && !log.contains("rollback complete"), "{log}");
    fs::remove_file(device.path(hook)).unwrap();
    assert!(device.ok("ArtifactRollback").contains("rollback complete"));
    device.assert_same(&before, &state(&device), "the device");
}

#[test]
fn data_in_a_directory_of_the_new_version_stays_and_is_logged() {
    let device = Device::new(&[app("1.0")]);
    device.install(&[app("2.0").file("/srv/new/file", "x")]);
    device.write("/srv/new/data", "of a service");
    let log = device.ok("ArtifactRollback");
    assert!(log.contains("rollback complete") && log.contains("/srv/new is not empty"), "{log}");
    assert_eq!(device.text("/srv/new/data"), "of a service");
    assert!(!device.path("/srv/new/file").exists());
}

#[test]
fn data_in_a_directory_in_the_place_of_a_previous_file_are_moved_aside() {
    let device = Device::new(&[]);
    device.dpkg(&[RawPackage::new("app", "1").file("/srv/path", "a file").build()]);
    let new = RawPackage::new("app", "2").directory("/srv/path").file("/srv/path/in", "x");
    // Nothing removes the first directory before the second rollback.
    for aside in ["/srv/path.aside-1", "/srv/path.aside-2"] {
        device.download_raw(&[new.build()]);
        device.ok("ArtifactInstall");
        device.write("/srv/path/data", aside);
        let log = device.ok("ArtifactRollback");
        assert!(log.contains("rollback complete") && log.contains(&format!(" to {aside}:")), "{log}");
        assert_eq!(device.text("/srv/path"), "a file");
        assert_eq!(device.text(&format!("{aside}/data")), aside);
        device.ok("ArtifactFailure");
        device.ok("Cleanup");
    }
    assert_eq!(device.text("/srv/path.aside-1/data"), "/srv/path.aside-1");
}

#[test]
fn a_file_that_another_package_has_now_stays() {
    let device = Device::new(&[app("1.0")]);
    device.install(&[app("2.0")]);
    let path = "/usr/share/app/only-in-2.0";
    let other = Package::new("other", "1").field("Replaces", "app").file(path, "of the other package");
    device.dpkg(&[other.build().unwrap()]);
    let log = device.fails("ArtifactRollback");
    assert!(log.contains(path), "{log}");
    assert_eq!(device.text(path), "of the other package");
}

#[test]
fn a_journal_of_a_version_without_records_is_rolled_back() {
    let device = Device::new(&[app("1.0")]);
    device.write("/etc/app.conf", "changed\n");
    let before = device.state();
    device.install(&[app("2.0").file("/usr/share/extra/x", "x")]);
    let directory = device.client.datastore().join("update-modules/deb");
    for name in ["record", "tables.before", "tables.after"] {
        fs::remove_file(directory.join("old").join(name)).unwrap();
    }
    let journal = fs::read_to_string(directory.join("journal.json")).unwrap();
    let begin = journal.find("\"new\":").unwrap();
    let end = begin + journal[begin..].find("],").unwrap() + 2;
    fs::write(directory.join("journal.json"), format!("{}{}", &journal[..begin], &journal[end..])).unwrap();
    let log = device.ok("ArtifactRollback");
    device.assert_state(&before);
    assert!(!log.contains("rollback complete"), "{log}");
}

#[test]
fn a_kept_package_that_was_changed_is_not_used() {
    let device = Device::new(&[app("1.0")]);
    device.install(&[app("2.0")]);
    let path = device.client.datastore().join("update-modules/deb/old/app_1.0_all.deb");
    let original = fs::read(&path).unwrap();
    fs::write(&path, app("1.0").script("preinst", "touch /srv/changed").build().unwrap()).unwrap();
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("app_1.0_all.deb: changed since the backup was made"), "{log}");
    assert!(!device.path("/srv/changed").exists());
    fs::write(&path, original).unwrap();
    device.roll_back();
    assert_eq!(device.version("app"), "ii 1.0");
}

#[test]
fn an_immutable_or_append_only_file_or_directory_is_refused() {
    let device = Device::new(&[app("1.0")]);
    for (path, flag) in [
        ("/usr/share/app/data", IFlags::IMMUTABLE),
        ("/usr/share/app", IFlags::IMMUTABLE),
        ("/etc/app.conf", IFlags::IMMUTABLE),
        ("/usr/share/app/data", IFlags::APPEND),
        ("/usr/share/app", IFlags::APPEND),
    ] {
        let file = fs::File::open(device.path(path)).unwrap();
        let before = ioctl_getflags(&file).unwrap();
        ioctl_setflags(&file, before | flag).unwrap();
        assert_refused(&device, &[app("2.0").build().unwrap()], &[path, "chattr -i"]);
        ioctl_setflags(&file, before).unwrap();
    }
    install_and_roll_back(&device, &[app("2.0").build().unwrap()]);
}

#[test]
fn files_that_were_replaced_between_two_calls_are_refused() {
    let device = Device::new(&[app("1.0")]);
    let directory = device.client.datastore().join("update-modules/deb");
    let replace = |name: &str| {
        fs::rename(directory.join(name), directory.join("aside")).unwrap();
        fs::create_dir(directory.join(name)).unwrap();
    };
    let undo = |name: &str| {
        fs::remove_dir_all(directory.join(name)).unwrap();
        fs::rename(directory.join("aside"), directory.join(name)).unwrap();
    };
    device.download(&[app("2.0")]);
    replace("staging");
    let log = device.fails("ArtifactInstall");
    assert!(log.contains("was replaced"), "{log}");
    undo("staging");
    device.ok("ArtifactInstall");
    replace("old");
    let log = device.fails("ArtifactRollback");
    assert!(log.contains("was replaced"), "{log}");
    undo("old");
    device.roll_back();
    assert_eq!(device.version("app"), "ii 1.0");
}
