//! Every change of what has a path: what is there before, by what the new version brings. In each cell either the update is
//! refused by name with the device untouched, or it is installed and rolled back exactly.

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::symlink;

use mock_client::Snapshot;
use rustix::fs::{FileType, Mode, mknodat};

use crate::device::Device;
use crate::raw::RawPackage;

/// The path that changes.
const PATH: &str = "/srv/place/path";

/// What has the path before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Absent,
    // what no package has
    File,
    EmptyDirectory,
    Directory,
    LinkToDirectory,
    LinkToFile,
    Dangling,
    Fifo,
    // what the installed version has
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
    // what another package has
    Shared,
    SharedDirectory,
}

/// What the new version brings there.
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

/// What is refused where data of somebody is in a directory: dpkg would delete it. A symlink makes it leave that alone.
const IN_PLACE_OF_DATA: &[After] = &[After::File, After::HardLink, After::Fifo, After::Conffile];

/// The installed version, with what `before` says at the path.
fn old(before: Before) -> RawPackage {
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

fn new(after: After) -> RawPackage {
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
    device.dpkg(&[old(before).build()]);
    let path = device.path(PATH);
    fs::create_dir_all(device.path("/srv/mine")).unwrap();
    device.write("/srv/mine/data", "data of somebody");
    let data = || {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("data"), "data of somebody").unwrap();
    };
    match before {
        Before::File => fs::write(&path, "file of somebody").unwrap(),
        Before::EmptyDirectory => fs::create_dir(&path).unwrap(),
        Before::Directory => data(),
        Before::LinkToDirectory => symlink("../mine", &path).unwrap(),
        Before::LinkToFile => symlink("../mine/data", &path).unwrap(),
        Before::Dangling => symlink("nowhere", &path).unwrap(),
        Before::Fifo => {
            mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        Before::OwnDirectoryWithData => fs::write(path.join("data"), "data of somebody").unwrap(),
        Before::OwnDirectoryMoved => {
            fs::rename(&path, device.path("/srv/mine/moved")).unwrap();
            symlink("/srv/mine/moved", &path).unwrap();
        }
        Before::OwnFileIsDirectory => {
            fs::remove_file(&path).unwrap();
            data();
        }
        Before::ChangedConffile => fs::write(&path, "changed by somebody").unwrap(),
        Before::RemovedConffile => fs::remove_file(&path).unwrap(),
        Before::LinkedConffile => {
            fs::remove_file(&path).unwrap();
            symlink("../mine/data", &path).unwrap();
        }
        Before::Diverted => {
            let to = format!("{PATH}.mine");
            device.run(&["dpkg-divert", "--local", "--rename", "--divert", &to, "--add", PATH]);
            fs::write(&path, "diverted by somebody").unwrap();
        }
        Before::Overridden => {
            device.run(&["dpkg-statoverride", "--update", "--add", "root", "mail", "0640", PATH]);
        }
        Before::Shared => {
            device.dpkg(&[RawPackage::new("neighbour", "1").file(PATH, "path of the neighbour").build()]);
        }
        Before::SharedDirectory => {
            let neighbour = RawPackage::new("neighbour", "1").file(&format!("{PATH}/theirs"), "theirs");
            device.dpkg(&[neighbour.build()]);
        }
        _ => {}
    }
    device
}

/// All that the table's packages and people have, beside what every test looks at.
pub fn state(device: &Device) -> Snapshot {
    let own = Snapshot::of(&device.path("/srv")).unwrap().without_folder_times();
    device.state().and(own.below(device.client.device()))
}

/// Goes through one row; `refused` are the cells in which nothing may be changed.
fn row(before: Before, refused: &[After]) {
    let fails = |after: &After| {
        let checked = std::panic::catch_unwind(|| cell(before, *after, refused.contains(after)));
        checked.is_err().then(|| format!("{before:?} to {after:?}"))
    };
    let failed: Vec<_> = AFTER.iter().filter_map(fails).collect();
    assert!(failed.is_empty(), "these cells are wrong, see above: {failed:#?}");
}

fn cell(before: Before, after: After, refused: bool) {
    let cell = format!("{before:?} to {after:?}");
    let device = device(before);
    let was = state(&device);
    device.download_raw(&[new(after).build()]);
    let outcome = device.client.call("ArtifactInstall").unwrap();
    assert_eq!(!outcome.success(), refused, "{cell}: {}", outcome.stderr);
    let mut said = outcome.stderr;
    if refused {
        assert!(said.contains(PATH) && said.contains("app"), "{cell} names neither path nor package: {said}");
        assert!(!said.contains("Unpacking"), "{cell} is refused too late: {said}");
    } else {
        assert_eq!(device.version("app"), "ii 2", "{cell}");
        said = device.ok("ArtifactRollback");
    }
    device.differs(&was, &state(&device), &cell);
    assert!(refused || said.contains("rollback complete"), "{cell}: {said}");
    device.ok("Cleanup");
    device.differs(&was, &state(&device), &cell);
    device.is_clean();
}

macro_rules! rows {
    ($($test:ident: $before:ident refuses $refused:expr;)*) => {
        $(#[test]
        fn $test() {
            row(Before::$before, $refused);
        })*
    };
}

rows! {
    kinds_absent: Absent refuses &[];
    kinds_file: File refuses &[];
    kinds_empty_directory: EmptyDirectory refuses &[After::Conffile];
    kinds_directory: Directory refuses IN_PLACE_OF_DATA;
    kinds_link_to_directory: LinkToDirectory refuses &[After::Conffile];
    kinds_link_to_file: LinkToFile refuses &[];
    kinds_dangling_link: Dangling refuses &[];
    kinds_fifo: Fifo refuses &AFTER[1..];
    kinds_own_file: OwnFile refuses &[];
    kinds_own_directory: OwnDirectory refuses &[After::Conffile];
    kinds_own_directory_with_data: OwnDirectoryWithData refuses IN_PLACE_OF_DATA;
    kinds_own_directory_moved: OwnDirectoryMoved refuses &[After::Conffile];
    kinds_own_link_to_directory: OwnLinkToDirectory refuses &[After::Conffile];
    kinds_own_link_to_file: OwnLinkToFile refuses &[];
    kinds_own_file_is_directory: OwnFileIsDirectory refuses IN_PLACE_OF_DATA;
    kinds_conffile: Conffile refuses &[];
    kinds_changed_conffile: ChangedConffile refuses &[];
    kinds_removed_conffile: RemovedConffile refuses &[];
    kinds_linked_conffile: LinkedConffile refuses &[];
    kinds_diverted: Diverted refuses &[After::Directory];
    kinds_overridden: Overridden refuses &[];
    kinds_shared: Shared refuses &[];
    kinds_shared_directory: SharedDirectory refuses IN_PLACE_OF_DATA;
}
