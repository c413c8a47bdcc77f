//! A table of all changes of one path: what is there before, and what the new version has there. In each
//! cell, the update is either refused with the path, before anything is changed, or installed and rolled back
//! exactly.

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::symlink;

use mender_update_module_test::Snapshot;
use rustix::fs::{FileType, Mode, mknodat};

use crate::device::Device;
use crate::raw::RawPackage;

/// The path that changes.
const PATH: &str = "/srv/place/path";

/// What is at the path before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Absent,
    // of no package
    File,
    EmptyDirectory,
    Directory,
    LinkToDirectory,
    LinkToFile,
    DanglingLink,
    Fifo,
    // of the installed version
    OwnFile,
    OwnDirectory,
    OwnDirectoryWithData,
    OwnDirectoryMoved,
    OwnLinkToDirectory,
    OwnLinkToFile,
    OwnFileIsDirectory,
    Conffile,
    ChangedConffile,
    RemovedConffile,
    LinkedConffile,
    Diverted,
    Overridden,
    // of another package
    Shared,
    SharedDirectory,
}

/// What the new version has at the path.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Absent,
    File,
    Directory,
    LinkToDirectory,
    LinkToFile,
    HardLink,
    Fifo,
    Conffile,
}

const AFTER: [After; 8] = [
    After::Absent,
    After::File,
    After::Directory,
    After::LinkToDirectory,
    After::LinkToFile,
    After::HardLink,
    After::Fifo,
    After::Conffile,
];

/// What is refused where a directory has files of no package, because dpkg would delete them. It leaves the
/// directory alone where the new version has a symlink.
const INSTEAD_OF_DATA: &[After] = &[After::File, After::HardLink, After::Fifo, After::Conffile];

/// The installed version of the package.
fn previous_version(before: Before) -> RawPackage {
    let package = RawPackage::new("app", "1").file("/srv/place/other", "other of 1").directory("/srv/aside");
    match before {
        Before::OwnFile | Before::Diverted | Before::Overridden | Before::OwnFileIsDirectory => {
            package.file(PATH, "path of 1")
        }
        Before::OwnDirectory | Before::OwnDirectoryWithData | Before::OwnDirectoryMoved => package
            .directory(PATH)
            .file(&format!("{PATH}/in"), "in of 1")
            .file(&format!("{PATH}/deep/er"), "deeper of 1"),
        Before::OwnLinkToDirectory => package.symlink(PATH, "../aside"),
        Before::OwnLinkToFile => package.symlink(PATH, "other"),
        Before::Conffile | Before::ChangedConffile | Before::RemovedConffile | Before::LinkedConffile => {
            package.file(PATH, "conf of 1").member("conffiles", &format!("{PATH}\n"))
        }
        _ => package,
    }
}

/// The new version of the package.
fn new_version(after: After) -> RawPackage {
    let package = RawPackage::new("app", "2")
        .field("Replaces", "neighbour")
        .file("/srv/place/other", "other of 2")
        .directory("/srv/aside");
    match after {
        After::Absent => package,
        After::File => package.file(PATH, "path of 2"),
        After::Directory => package.directory(PATH).file(&format!("{PATH}/in"), "in of 2"),
        After::LinkToDirectory => package.symlink(PATH, "../aside"),
        After::LinkToFile => package.symlink(PATH, "other"),
        After::HardLink => package.hard_link(PATH, "/srv/place/other"),
        After::Fifo => package.fifo(PATH),
        After::Conffile => package.file(PATH, "conf of 2").member("conffiles", &format!("{PATH}\n")),
    }
}

fn device(before: Before) -> Device {
    let device = Device::new(&[]);
    device.dpkg(&[previous_version(before).build()]);
    let path = device.path(PATH);
    fs::create_dir_all(device.path("/srv/mine")).unwrap();
    device.write("/srv/mine/data", "data of the user");
    let data = || {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("data"), "data of the user").unwrap();
    };
    match before {
        Before::File => fs::write(&path, "file of the user").unwrap(),
        Before::EmptyDirectory => fs::create_dir(&path).unwrap(),
        Before::Directory => data(),
        Before::LinkToDirectory => symlink("../mine", &path).unwrap(),
        Before::LinkToFile => symlink("../mine/data", &path).unwrap(),
        Before::DanglingLink => symlink("nowhere", &path).unwrap(),
        Before::Fifo => {
            mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        Before::OwnDirectoryWithData => fs::write(path.join("data"), "data of the user").unwrap(),
        Before::OwnDirectoryMoved => {
            fs::rename(&path, device.path("/srv/mine/moved")).unwrap();
            symlink("/srv/mine/moved", &path).unwrap();
        }
        Before::OwnFileIsDirectory => {
            fs::remove_file(&path).unwrap();
            data();
        }
        Before::ChangedConffile => fs::write(&path, "changed by hand").unwrap(),
        Before::RemovedConffile => fs::remove_file(&path).unwrap(),
        Before::LinkedConffile => {
            fs::remove_file(&path).unwrap();
            symlink("../mine/data", &path).unwrap();
        }
        Before::Diverted => {
            let to = format!("{PATH}.mine");
            device.run(&["dpkg-divert", "--local", "--rename", "--divert", &to, "--add", PATH]);
            fs::write(&path, "diverted by hand").unwrap();
        }
        Before::Overridden => {
            device.run(&["dpkg-statoverride", "--update", "--add", "root", "mail", "0640", PATH]);
        }
        Before::Shared => {
            device.dpkg(&[RawPackage::new("neighbour", "1").file(PATH, "path of the neighbour").build()]);
        }
        Before::SharedDirectory => {
            let neighbour = RawPackage::new("neighbour", "1").file(&format!("{PATH}/file"), "of the neighbour");
            device.dpkg(&[neighbour.build()]);
        }
        _ => {}
    }
    device
}

/// The state that every test compares, and everything in `/srv`.
pub fn state(device: &Device) -> Snapshot {
    let own = Snapshot::of(&device.path("/srv")).unwrap().without_directory_times();
    device.state().and(own.below(device.client.device()))
}

/// Tests one row. The cells in `refused` must be refused.
fn test_row(before: Before, refused: &[After]) {
    let failure = |after: &After| {
        let checked = std::panic::catch_unwind(|| test_cell(before, *after, refused.contains(after)));
        checked.is_err().then(|| format!("{before:?} to {after:?}"))
    };
    let failed: Vec<_> = AFTER.iter().filter_map(failure).collect();
    assert!(failed.is_empty(), "these cells failed, see above: {failed:#?}");
}

fn test_cell(before: Before, after: After, refused: bool) {
    let cell = format!("{before:?} to {after:?}");
    let device = device(before);
    let previous = state(&device);
    device.download_raw(&[new_version(after).build()]);
    let outcome = device.client.call("ArtifactInstall").unwrap();
    assert_eq!(!outcome.success(), refused, "{cell}: {}", outcome.stderr);
    let mut log = outcome.stderr;
    if refused {
        assert!(log.contains(PATH) && log.contains("app"), "{cell} names neither path nor package: {log}");
        assert!(!log.contains("Unpacking"), "{cell} is refused too late: {log}");
    } else {
        assert_eq!(device.version("app"), "ii 2", "{cell}");
        log = device.ok("ArtifactRollback");
    }
    device.assert_same(&previous, &state(&device), &cell);
    assert!(refused || log.contains("rollback complete"), "{cell}: {log}");
    device.ok("Cleanup");
    device.assert_same(&previous, &state(&device), &cell);
    device.assert_clean();
}

macro_rules! rows {
    ($($test:ident: $before:ident refuses $refused:expr;)*) => {
        $(#[test]
        fn $test() {
            test_row(Before::$before, $refused);
        })*
    };
}

rows! {
    kinds_absent: Absent refuses &[];
    kinds_file: File refuses &[];
    kinds_empty_directory: EmptyDirectory refuses &[After::Conffile];
    kinds_directory: Directory refuses INSTEAD_OF_DATA;
    kinds_link_to_directory: LinkToDirectory refuses &[After::Conffile];
    kinds_link_to_file: LinkToFile refuses &[];
    kinds_dangling_link: DanglingLink refuses &[];
    kinds_fifo: Fifo refuses &AFTER[1..];
    kinds_own_file: OwnFile refuses &[];
    kinds_own_directory: OwnDirectory refuses &[After::Conffile];
    kinds_own_directory_with_data: OwnDirectoryWithData refuses INSTEAD_OF_DATA;
    kinds_own_directory_moved: OwnDirectoryMoved refuses &[After::Conffile];
    kinds_own_link_to_directory: OwnLinkToDirectory refuses &[After::Conffile];
    kinds_own_link_to_file: OwnLinkToFile refuses &[];
    kinds_own_file_is_directory: OwnFileIsDirectory refuses INSTEAD_OF_DATA;
    kinds_conffile: Conffile refuses &[];
    kinds_changed_conffile: ChangedConffile refuses &[];
    kinds_removed_conffile: RemovedConffile refuses &[];
    kinds_linked_conffile: LinkedConffile refuses &[];
    kinds_diverted: Diverted refuses &[After::Directory];
    kinds_overridden: Overridden refuses &[];
    kinds_shared: Shared refuses &[];
    kinds_shared_directory: SharedDirectory refuses INSTEAD_OF_DATA;
}
