use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use mender_update_module::check_journal;
use mender_update_module_test::debian::Package;
use rustix::mount::mount_bind;

use super::*;
use crate::options::PackageName;
use crate::payload::staging::Staging;
use crate::test_device::{
    build, error, install, installed, make_source, names, on_device, options, staged, text, write, write_list,
    write_status,
};

/// A package may be upgraded while an update is pending: journals of released versions are read for ever.
#[test]
fn journals_of_released_versions_are_read() {
    let phases =
        mender_update_module_test::released_journals(env!("CARGO_MANIFEST_DIR"), check_journal::<PackageUpdate>)
            .unwrap();
    let all = ["Activating", "Active", "Committed", "RolledBack", "RollingBack", "Staged", "Staging"];
    assert_eq!(phases, all);
}

const DATA: &str = "/var/data/deb";

/// An update with these packages, staged.
fn staged_update(packages: &[Package], options: Options) -> PackageUpdate {
    let mut update = PackageUpdate::new(DATA.into(), options);
    Staging::create(&update.staging(), 0).unwrap();
    for (number, package) in packages.iter().enumerate() {
        build(package, update.staging().join(format!("{number}.deb")));
    }
    update.record_staging().unwrap();
    update
}

fn a(version: &str) -> Package {
    Package::new("a", version).file("/srv/a", version).conffile("/etc/a", version)
}

fn version(name: &str) -> String {
    let database = Database::read().unwrap();
    database.installed_version(&PackageKey::from_apt(name)).unwrap_or_default().to_owned()
}

#[test]
fn packages_are_installed_and_removed_and_the_previous_ones_restored() {
    on_device(|| {
        install(&[a("1"), Package::new("gone", "1").file("/srv/gone", "1")]);
        let status = text("/var/lib/dpkg/status");
        let mut options = options();
        options.remove = ["gone", "unknown"].map(|name| PackageName(name.into())).into();
        let mut update = staged_update(&[a("2"), Package::new("new", "1")], options);
        assert!(update.removes_packages());
        let prepared = update.prepare().unwrap();
        assert_eq!([version("a"), version("new"), version("gone")], ["1", "", "1"]);
        update.activate(&prepared).unwrap();
        assert_eq!([version("a"), version("new"), version("gone")], ["2", "1", ""]);
        assert!(Path::new("/var/data/deb/old/tables.after").exists());
        update.roll_back(&prepared, Trigger::Call).unwrap();
        assert_eq!(text("/var/lib/dpkg/status"), status);
        assert_eq!((text("/srv/a"), text("/srv/gone")), ("1".into(), "1".into()));
        update.discard(Some(&prepared)).unwrap();
        let left = ["staging", "old", "download"].map(|name| Path::new(DATA).join(name).exists());
        assert_eq!(left, [false; 3]);
    });
}

#[test]
fn packages_that_are_installed_are_kept_for_the_next_update() {
    on_device(|| {
        let mut update = staged_update(&[a("2")], options());
        assert!(!update.removes_packages());
        let prepared = update.prepare().unwrap();
        update.activate(&prepared).unwrap();
        update.discard(Some(&prepared)).unwrap();
        assert!(Path::new("/var/data/deb/store/a_2_all.deb").exists() && !update.staging().exists());
    });
}

#[test]
fn a_rollback_before_the_install_changes_nothing() {
    on_device(|| {
        install(&[a("1")]);
        let mut update = staged_update(&[a("2")], options());
        let mut prepared = update.prepare().unwrap();
        fs::remove_file("/srv/a").unwrap();
        update.roll_back(&prepared, Trigger::Boot).unwrap();
        assert!(!Path::new("/srv/a").exists());
        // A version that made no mark may have begun.
        prepared.marks_begin = false;
        update.roll_back(&prepared, Trigger::Boot).unwrap();
        assert_eq!(text("/srv/a"), "1");
    });
}

#[test]
fn an_update_of_a_version_that_recorded_no_new_packages_is_rolled_back() {
    on_device(|| {
        install(&[a("1")]);
        let mut update = staged_update(&[a("2"), Package::new("new", "1")], options());
        let mut prepared = update.prepare().unwrap();
        update.activate(&prepared).unwrap();
        prepared.backup.new_packages = None;
        update.roll_back(&prepared, Trigger::Call).unwrap();
        assert_eq!([version("a"), version("new"), text("/srv/a")], ["1", "", "1"]);
    });
}

#[test]
fn replaced_directories_are_refused() {
    on_device(|| {
        let mut update = staged_update(&[a("2")], options());
        let prepared = update.prepare().unwrap();
        let replace = |path: &Path| {
            fs::rename(path, path.with_extension("moved")).unwrap();
            fs::create_dir(path).unwrap();
        };
        replace(&update.staging());
        assert!(update.activate(&prepared).is_err());
        assert!(update.prepare().is_err());
        replace(Path::new("/var/data/deb/old"));
        assert!(error(update.roll_back(&prepared, Trigger::Call)).contains("opening the backup failed"));
    });
}

#[test]
fn changes_of_other_programs_after_the_backup_are_refused() {
    on_device(|| {
        install(&[a("1")]);
        let mut update = staged_update(&[a("2")], options());
        let prepared = update.prepare().unwrap();
        install(&[a("1.1")]);
        assert!(error(update.activate(&prepared)).contains("package a was changed by another program"));
        assert_eq!(version("a"), "1.1");
    });
}

#[test]
fn with_network_dependencies_are_downloaded_and_marked_as_automatic() {
    on_device(|| {
        make_source();
        install(&[a("1")]);
        write("/var/lib/apt/extended_states", "Package: a\nArchitecture: all\nAuto-Installed: 1\n\n");
        let update = |network| staged_update(&[a("2").field("Depends", "lib")], Options { network, ..options() });
        assert!(error(update(false).prepare()).contains("Depends: lib"));
        let mut update = update(true);
        let prepared = update.prepare().unwrap();
        let new = prepared.backup.new_packages.iter().flatten();
        let mut new: Vec<_> = new.map(|new| (new.key.to_string(), new.downloaded)).collect();
        new.sort();
        assert_eq!(new, [("a".into(), false), ("lib".into(), true)]);
        assert!(!update.directory.downloads().exists());
        update.activate(&prepared).unwrap();
        let marked = mark::automatic(&Database::read().unwrap()).unwrap();
        assert_eq!(names(&marked), ["a", "lib"]);
    });
}

#[test]
fn with_network_an_update_without_dependencies_downloads_nothing() {
    on_device(|| {
        let mut update = staged_update(&[a("2")], Options { network: true, ..options() });
        update.prepare().unwrap();
        let (staged, database) = ([staged("a", "", &[])], Database::read().unwrap());
        let transaction = Transaction { install: vec![PackageKey::from_apt("a")], ..Transaction::default() };
        assert!(!update.download(&staged, &[], &transaction, &database).unwrap());
    });
}

#[test]
fn a_reboot_is_needed_where_it_is_requested() {
    on_device(|| {
        let mut update = staged_update(&[a("2")], options());
        let prepared = update.prepare().unwrap();
        let needed = |reboot| {
            let update = PackageUpdate::new(DATA.into(), Options { reboot, ..options() });
            update.needs_reboot(&prepared).unwrap() == NeedsReboot::Automatic
        };
        assert_eq!((needed(Reboot::No), needed(Reboot::Automatic)), (false, true));
        write("/run/reboot-required", "");
        assert!(needed(Reboot::No));
    });
}

#[test]
fn the_result_of_apt_is_checked() {
    on_device(|| {
        let triggers = installed("c", "2").replace("ok installed", "ok triggers-awaited");
        let unpacked = installed("d", "2").replace("ok installed", "ok unpacked");
        write_status(&[&installed("a", "2"), &installed("b", "1"), &triggers, &unpacked]);
        let check = |name, remove: &[&str]| {
            let removals: Vec<_> = remove.iter().map(|name| PackageKey::from_apt(name)).collect();
            check_installed(&[staged(name, "", &[])], &removals)
        };
        check("a", &["gone"]).unwrap();
        check("c", &[]).unwrap();
        assert!(error(check("b", &[])).contains("installing package b failed"));
        assert!(error(check("d", &[])).contains("the package is unpacked"));
        assert!(error(check("e", &[])).contains("the package is not-installed"));
        assert!(error(check("a", &["b"])).contains("removing package b failed"));
    });
}

#[test]
fn the_configuration_is_restored_between_the_commands_if_that_fails_without_them() {
    on_device(|| {
        write("/etc/dpkg/dpkg.cfg", "pre-invoke=echo >> /srv/hook\n");
        let mut update = staged_update(&[a("2")], options());
        let prepared = update.prepare().unwrap();
        fs::remove_file("/srv/hook").ok();
        let calls = Cell::new(0);
        let restore = |fails| {
            calls.set(0);
            restore_configuration(&prepared, || {
                calls.set(calls.get() + 1);
                if fails { bail!("read-only") } else { Ok(()) }
            });
            calls.get()
        };
        assert_eq!((restore(false), Path::new("/srv/hook").exists()), (1, false));
        assert_eq!((restore(true), Path::new("/srv/hook").exists()), (2, true));
    });
}

#[test]
fn a_unit_belongs_to_the_package_with_its_file() {
    on_device(|| {
        write_status(&[&installed("a", "1"), &installed("b", "1")]);
        write("/srv/system/x.service", "");
        write("/srv/other/x.service", "");
        write("/srv/system/y.service", "");
        symlink("system", "/srv/link").unwrap();
        let changes = |install: &str, path: &str| {
            let transaction = Transaction { install: vec![PackageKey::from_apt(install)], ..Transaction::default() };
            changes_file(&transaction, &Database::read().unwrap(), Path::new(path))
        };
        write_list("a", &["/srv/link/x.service"]);
        assert!(changes("a", "/srv/system/x.service"));
        assert!(!changes("b", "/srv/system/x.service"));
        assert!(!changes("a", "/srv/other/x.service") && !changes("a", "/srv/system/y.service"));
        symlink("x.service", "/srv/system/alias.service").unwrap();
        assert!(!changes("a", "/srv/system/alias.service"), "the names differ");
        let is_same = |path: &str, other: &str| is_same_file(Path::new(path), Path::new(other));
        assert!(!is_same("/srv/absent", "/srv/absent") && !is_same("/srv/absent", "/srv/system"));
    });
}

/// Replaces a program of this machine by a script that adds its arguments to `/srv/calls`, and prints `output`. Returns
/// false where the machine does not have it.
fn replace(program: &str, output: &str) -> bool {
    let script = Path::new("/srv").join(program);
    write("/srv/script", format!("#!/bin/sh\necho {program} \"$@\" >> /srv/calls\necho '{output}'\n"));
    // Another process writes it: a file that this one has open for writing cannot be executed.
    let copied = Command::new("install").args(["--mode=755", "/srv/script"]).arg(&script).status().unwrap();
    assert!(copied.success());
    mount_bind(&script, Path::new("/usr/bin").join(program)).is_ok()
}

#[test]
fn the_unit_of_the_client_restarts_at_the_end_if_the_update_has_changed_it() {
    on_device(|| {
        let mut update = staged_update(&[a("2")], options());
        let mut prepared = update.prepare().unwrap();
        if !replace("systemctl", "/srv/x.service") || !replace("systemd-run", "") {
            return eprintln!("skipped: systemctl or systemd-run is not installed");
        }
        write_status(&[&installed("a", "1"), &installed("b", "1")]);
        write("/srv/x.service", "");
        write_list("a", &["/srv/x.service"]);
        let changes = |install: &str| {
            let transaction = Transaction { install: vec![PackageKey::from_apt(install)], ..Transaction::default() };
            changes_unit(&transaction, &Database::read().unwrap(), "x.service")
        };
        assert!(changes("a") && !changes("b"));
        fs::remove_file("/srv/calls").unwrap();
        update.ended(None);
        update.ended(Some(&prepared));
        assert!(!Path::new("/srv/calls").exists());
        prepared.restart_unit = Some("x.service".into());
        update.ended(Some(&prepared));
        assert!(text("/srv/calls").ends_with(" systemctl try-restart x.service\n"), "{}", text("/srv/calls"));
    });
}

#[test]
fn the_reserve_is_that_of_the_options() {
    assert_eq!(PackageUpdate::new(DATA.into(), Options { reserve: 7, ..options() }).reserve(), 7);
}
