use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use mender_update_module_test::debian::Package;

use super::*;
use crate::backup::contents::Backup;
use crate::dpkg::stanza::PackageKey;
use crate::test_device::{
    back_up, build, error, install, installed, names, on_device, source, staged, text, write, write_list, write_status,
};

/// The stanza of a package with this state, and the list of its files.
fn write_package(name: &str, version: &str, status: &str) -> String {
    write_list(name, &["/srv"]);
    installed(name, version).replace("ok installed", status)
}

fn write_packages(packages: &[(&str, &str, &str)]) {
    let stanzas: Vec<_> = packages.iter().map(|(name, version, status)| write_package(name, version, status)).collect();
    write_status(&stanzas.iter().map(String::as_str).collect::<Vec<_>>());
}

const BEFORE: [(&str, &str, &str); 8] = [
    ("changed", "1", "ok installed"),
    ("removed", "1", "ok installed"),
    ("unpacked", "1", "ok unpacked"),
    ("config", "1", "ok config-files"),
    ("rebuilt", "2", "ok installed"),
    ("list", "1", "ok installed"),
    ("same", "1", "ok installed"),
    ("other", "1", "ok installed"),
];

/// The backup of an update that changes all packages of [`BEFORE`] but `other`, and installs `new` and `absent`.
fn backup() -> Backup {
    write_packages(&BEFORE);
    let staged = ["changed", "rebuilt", "same", "new", "absent"].map(|name| staged(name, "", &[]));
    back_up(&staged, &["removed", "config", "list"])
}

fn write_packages_after() {
    write_packages(&[
        ("changed", "2", "ok installed"),
        ("unpacked", "1", "ok installed"),
        ("config", "1", "ok installed"),
        ("rebuilt", "2", "ok installed"),
        ("list", "1", "ok installed"),
        ("same", "1", "ok installed"),
        ("other", "2", "ok installed"),
        ("new", "2", "ok installed"),
    ]);
    write_list("list", &["/srv", "/srv/taken"]);
}

#[test]
fn every_package_gets_the_action_that_restores_it() {
    on_device(|| {
        let backup = backup();
        // dpkg writes a list again with the same content and other times; here it is as it was.
        let lists = ["same", "rebuilt"].map(|name| format!("/var/lib/dpkg/info/{name}.list"));
        let times = lists.each_ref().map(|path| fs::metadata(path).unwrap().modified().unwrap());
        write_packages_after();
        for (path, time) in lists.iter().zip(times) {
            File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        let source = source(&backup);
        let Actions { purge, remove, install, unpack } = decide_actions(&source).unwrap();
        let of = |names: &[&str]| names.iter().map(|name| format!("/var/data/old/{name}_all.deb")).collect::<Vec<_>>();
        assert_eq!(install, of(&["changed_1", "list_1", "rebuilt_2", "removed_1"]));
        assert_eq!((unpack, remove, purge), (of(&["unpacked_1"]), vec!["config:all".into()], vec!["new:all".into()]));
        write("/var/data/old/changed_1_all.deb", "damaged");
        let error = error(decide_actions(&source));
        assert!(error.contains("package changed failed") && error.contains("changed since the backup"), "{error}");
    });
}

#[test]
fn packages_that_are_not_in_their_previous_state_are_found() {
    on_device(|| {
        let backup = backup();
        write_packages_after();
        let source = source(&backup);
        let found = unrestored(&source).unwrap();
        assert_eq!(names(found.iter().map(|package| &package.key)), ["changed", "config", "new", "removed"]);
        let error = error(check_restored(&found, &source));
        assert!(error.contains("changed, config, new, removed") && error.contains("/var/data/journal.json"), "{error}");
        check_restored(&[], &source).unwrap();
    });
}

#[test]
fn installing_is_necessary_for_installed_and_for_unpacked_packages() {
    let actions = |install: usize, unpack: usize| Actions {
        install: vec![String::new(); install],
        unpack: vec![String::new(); unpack],
        purge: vec!["x".into()],
        remove: vec!["x".into()],
    };
    let any = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(install, unpack)| actions(install, unpack).install_any());
    assert_eq!(any, [false, true, true, true]);
}

#[test]
fn an_unpacked_package_is_restored_by_its_files() {
    let stanza = |status: &str, version: &str, architecture: &str| {
        let text = format!("Status: install ok {status}\nVersion: {version}\nArchitecture: {architecture}");
        Stanza(text.into())
    };
    let installed = stanza("installed", "1", "all");
    let unpacked = stanza("unpacked", "1", "all");
    let config = stanza("config-files", "1", "all");
    for (before, now, expected) in [
        (&installed, installed.clone(), true),
        (&installed, stanza("installed", "2", "all"), false),
        (&installed, stanza("installed", "1", "arm64"), false),
        (&installed, unpacked.clone(), false),
        (&installed, Stanza("Status: install reinstreq installed\nVersion: 1\nArchitecture: all".into()), false),
        (&unpacked, installed.clone(), true),
        (&unpacked, stanza("unpacked", "2", "all"), false),
        (&unpacked, stanza("unpacked", "1", "arm64"), false),
        (&unpacked, config.clone(), false),
        (&config, stanza("config-files", "2", "all"), true),
        (&config, installed.clone(), false),
    ] {
        assert_eq!(is_same_state(before, &now), expected, "{before:?} {now:?}");
    }
}

#[test]
fn symlinks_in_the_place_of_configuration_files_are_removed() {
    on_device(|| {
        let stanza = installed("a", "1") + "Conffiles:\n /etc/symlink 0\n /etc/file 0\n";
        write_status(&[&stanza]);
        write("/etc/symlink", "");
        write("/etc/file", "");
        let backup = back_up(&[staged("a", "", &[])], &[]);
        fs::remove_file("/etc/symlink").unwrap();
        write_status(&[&(stanza + " /etc/of-user 0\n")]);
        for path in ["/etc/symlink", "/etc/of-user"] {
            symlink("file", path).unwrap();
        }
        remove_conffile_symlinks(&source(&backup)).unwrap();
        let is_there = |path: &str| Path::new(path).is_symlink() || Path::new(path).exists();
        assert_eq!(["/etc/symlink", "/etc/file", "/etc/of-user"].map(is_there), [false, true, true]);
    });
}

#[test]
fn dpkg_installs_the_previous_packages_and_removes_the_new_ones() {
    on_device(|| {
        let state = |name: &str| {
            let database = Database::read().unwrap();
            database.find(&PackageKey::from_apt(name)).map(|found| found.state().to_owned()).unwrap_or_default()
        };
        install(&[
            Package::new("new", "1").conffile("/etc/new", "1"),
            Package::new("gone", "1").conffile("/etc/gone", "1"),
        ]);
        let deb = |name: &str| {
            let path = format!("/var/{name}.deb");
            build(&Package::new(name, "1").file(&format!("/srv/{name}"), "1"), &path);
            path
        };
        let actions = Actions {
            purge: vec!["new".into()],
            remove: vec!["gone".into()],
            install: vec![deb("a")],
            unpack: vec![deb("b")],
        };
        remove_new(&actions);
        assert_eq!(
            (state("new"), state("gone"), Path::new("/etc/new").exists()),
            ("".into(), "config-files".into(), false)
        );
        install_previous(&actions);
        assert_eq!((state("a"), state("b")), ("installed".into(), "unpacked".into()));
        fs::remove_file("/srv/a").unwrap();
        reinstall(&actions.install);
        assert_eq!(text("/srv/a"), "1");
    });
}

#[test]
fn only_packages_that_were_configured_are_configured() {
    on_device(|| {
        write_packages(&[("a", "1", "ok installed"), ("u", "1", "ok unpacked"), ("z", "1", "ok installed")]);
        let backup = back_up(&[staged("a", "", &[])], &[]);
        write_packages(&["a", "u", "z"].map(|name| (name, "1", "ok unpacked")));
        configure(&source(&backup)).unwrap();
        let database = Database::read().unwrap();
        let unfinished: Vec<_> = database.unfinished().filter_map(|package| package.field("Package")).collect();
        assert_eq!(unfinished, ["u"]);
    });
}

#[test]
fn the_removal_scripts_of_packages_that_are_not_restored_are_disabled() {
    on_device(|| {
        let new = Package::new("a", "2").script("prerm", "exit 1").script("postinst", "exit 0 # kept");
        let backup = back_up(&[staged("a", "", &[])], &[]);
        install(&[new]);
        disable_scripts(&unrestored(&source(&backup)).unwrap()).unwrap();
        let script = |kind: &str| fs::read(format!("/var/lib/dpkg/info/a.{kind}")).unwrap_or_default();
        assert_eq!(script("prerm"), EMPTY_SCRIPT);
        assert!(script("postinst") != EMPTY_SCRIPT && script("postrm").is_empty());
    });
}

#[test]
fn packages_with_missing_files_are_found() {
    on_device(|| {
        install(&[Package::new("a", "1").file("/srv/a", "1"), Package::new("b", "1").file("/srv/b", "1")]);
        let backup = back_up(&[staged("a", "", &[]), staged("b", "", &[]), staged("new", "", &[])], &[]);
        assert_eq!(with_wrong_files(&source(&backup)).unwrap(), [""; 0]);
        fs::remove_file("/srv/b").unwrap();
        assert_eq!(with_wrong_files(&source(&backup)).unwrap(), ["/var/data/old/b_1_all.deb"]);
    });
}
