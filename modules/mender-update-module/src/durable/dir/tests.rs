//! Each operation of an open directory, and what it refuses.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use rustix::io::{FdFlags, fcntl_getfd};
use tempfile::TempDir;

use super::super::mounted::Mounted;
use super::*;

fn name(name: &str) -> FileName {
    FileName::new(name).unwrap()
}

/// A directory with the file `file`, the directory `directory`, and the symlink `link` to it.
fn example() -> (TempDir, Dir) {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    fs::write(path("file"), "content").unwrap();
    fs::create_dir(path("directory")).unwrap();
    symlink("directory", path("link")).unwrap();
    let opened = Dir::open(temporary.path()).unwrap();
    (temporary, opened)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// The text of the error, which must name `path`.
#[track_caller]
fn refused<T>(result: Result<T>, path: &Path, text: &str) {
    let error = format!("{:#}", result.err().expect("an error"));
    assert!(error.contains(path.to_str().unwrap()) && error.contains(text), "{error}");
}

#[test]
fn a_directory_is_opened_and_nothing_else() {
    let (temporary, opened) = example();
    let path = |name: &str| temporary.path().join(name);
    assert_eq!(opened.path(), temporary.path());
    assert_eq!(Dir::open(&path("link")).unwrap().path(), path("link"));
    refused(Dir::open(&path("file")), &path("file"), "opening the directory");
    assert_eq!(opened.child(&name("directory")).unwrap().path(), path("directory"));
    for other in ["file", "link"] {
        refused(opened.child(&name(other)), &path(other), "failed (a symlink or not a directory)");
    }
    refused(opened.child(&name("absent")), &path("absent"), "failed: No such file");
}

#[test]
fn an_exact_path_has_no_symlink() {
    let (temporary, _) = example();
    let root = temporary.path().canonicalize().unwrap();
    fs::create_dir(root.join("directory/below")).unwrap();
    for exact in ["directory", "directory/below"] {
        let opened = Dir::open_exact(&root.join(exact)).unwrap();
        assert_eq!(opened.path(), root.join(exact));
        assert_eq!(opened.names().unwrap().len(), usize::from(exact == "directory"), "{exact}");
    }
    for other in ["link", "link/below", "file"] {
        refused(Dir::open_exact(&root.join(other)), &root.join(other), "(a component is a symlink or not a directory)");
    }
    refused(Dir::open_exact(&root.join("absent")), &root.join("absent"), "failed: No such file");
    for invalid in [Path::new("relative"), &root.join("directory/../directory")] {
        refused(Dir::open_exact(invalid), invalid, "use an absolute path");
    }
}

#[test]
fn programs_inherit_nothing_that_is_open() {
    let (temporary, opened) = example();
    let path = temporary.path().canonicalize().unwrap();
    let above = Dir::open(path.parent().unwrap()).unwrap().device_and_inode().unwrap();
    let directories = [
        Dir::open_exact(&path).unwrap(),
        Dir::make(&path, 0o700).unwrap(),
        opened.child(&name("directory")).unwrap(),
        opened.reopen().unwrap(),
        opened.up(above).unwrap(),
        opened,
    ];
    let directory = &directories[0];
    let files = [
        directory.create_file(&name("new")),
        directory.open_for_reading(&name("file")),
        directory.open_from_storage(&name("file")),
    ];
    let files = files.map(|file| OwnedFd::from(file.unwrap()));
    for (index, fd) in directories.into_iter().map(|directory| directory.fd).chain(files).enumerate() {
        assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC), "{index}");
    }
}

#[test]
fn a_directory_is_made_with_exactly_its_permissions() {
    let (temporary, opened) = example();
    let path = |name: &str| temporary.path().join(name);
    let made = opened.make_child(&name("new"), 0o777).unwrap();
    assert_eq!((made.path(), mode(&path("new"))), (&*path("new"), 0o777));
    refused(opened.make_child(&name("new"), 0o700), &path("new"), "making the directory");
    assert_eq!(mode(&path("new")), 0o777);
    // An existing one gets the permissions, too.
    for made in ["other", "other", "directory"] {
        assert_eq!(Dir::make(&path(made), 0o1770).unwrap().path(), path(made));
        assert_eq!(mode(&path(made)), 0o1770, "{made}");
    }
    refused(Dir::make(&path("link"), 0o700), &path("link"), "opening the directory");
    refused(Dir::make(&path("absent/x"), 0o700), &path("absent/x"), "making the directory");
    assert_eq!(mode(&path("directory")), 0o1770, "the target of the symlink");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let (temporary, opened) = example();
    opened.set_mode(0o755).unwrap();
    opened.require_private().unwrap();
    opened.set_mode(0o777).unwrap();
    refused(opened.require_private(), temporary.path(), "not trusted");
}

#[test]
fn names_are_listed_with_their_kinds() {
    let (temporary, opened) = example();
    let expected = ["directory", "file", "link"].map(name);
    assert_eq!(opened.names().unwrap(), expected);
    let mut visited = Vec::new();
    let visit = |name: &FileName| {
        visited.push(name.clone());
        Ok(())
    };
    opened.for_each_name(visit).unwrap();
    visited.sort();
    assert_eq!(visited, expected);
    let mut calls = 0;
    let result = opened.for_each_name(|_| {
        calls += 1;
        bail!("ended")
    });
    assert_eq!((result.unwrap_err().to_string().as_str(), calls), ("ended", 1));
    let kinds = expected.map(|name| opened.kind(&name).unwrap());
    assert_eq!(kinds, [Kind::Directory, Kind::File, Kind::Other].map(Some));
    assert_eq!(opened.kind(&name("absent")).unwrap(), None);
    // Another error must not look like an absent file.
    let long = "x".repeat(300);
    refused(opened.kind(&name(&long)), &temporary.path().join(&long), "reading");
}

#[test]
fn a_new_file_is_private_and_replaces_nothing() {
    let (temporary, opened) = example();
    let path = |name: &str| temporary.path().join(name);
    opened.create_file(&name("new")).unwrap().write_all(b"text").unwrap();
    assert_eq!((fs::read(path("new")).unwrap(), mode(&path("new"))), (b"text".to_vec(), 0o600));
    symlink("absent", path("dangling")).unwrap();
    for other in ["new", "file", "dangling"] {
        refused(opened.create_file(&name(other)), &path(other), "making the file");
    }
    assert_eq!(fs::read(path("file")).unwrap(), b"content");
    assert!(!path("absent").exists());
}

#[test]
fn a_file_is_read_and_a_symlink_is_not_followed() {
    let (temporary, opened) = example();
    let path = |name: &str| temporary.path().join(name);
    symlink("file", path("to file")).unwrap();
    for open in [Dir::open_for_reading, Dir::open_from_storage] {
        let mut content = String::new();
        open(&opened, &name("file")).unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        for other in ["to file", "absent"] {
            refused(open(&opened, &name(other)), &path(other), "opening");
        }
    }
    opened.make_node(&name("fifo"), Node::Fifo).unwrap();
    assert!(fs::symlink_metadata(path("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(mode(&path("fifo")), 0o600);
    opened.open_for_reading(&name("fifo")).unwrap(); // does not wait for a writer
    refused(opened.make_node(&name("file"), Node::Fifo), &path("file"), "making the FIFO");
}

#[test]
fn an_open_file_gets_owner_and_permissions() {
    let (temporary, opened) = example();
    let path = temporary.path().join("file");
    let file = opened.open_for_reading(&name("file")).unwrap();
    let (owner, group) = (file.metadata().unwrap().uid(), file.metadata().unwrap().gid());
    opened.set_owner_and_mode(&name("file"), &file, owner, group, 0o640).unwrap();
    assert_eq!(mode(&path), 0o640);
    // The kernel takes this number for "unchanged".
    for (owner, group) in [(u32::MAX, group), (owner, u32::MAX)] {
        refused(opened.set_owner_and_mode(&name("file"), &file, owner, group, 0o600), &path, "setting the owner");
    }
    assert_eq!(mode(&path), 0o640);
}

#[test]
fn a_link_is_the_same_file() {
    let (temporary, opened) = example();
    let path = |name: &str| temporary.path().join(name);
    let inode = |path: &Path| fs::symlink_metadata(path).unwrap().ino();
    let into = opened.child(&name("directory")).unwrap();
    for _ in 0..2 {
        opened.link(&name("file"), &into).unwrap();
        assert_eq!(inode(&path("directory/file")), inode(&path("file")));
    }
    refused(opened.link(&name("absent"), &into), &path("absent"), "making a hard link");
    opened.link_as(&name("file"), &opened, &name("second")).unwrap();
    assert_eq!(inode(&path("second")), inode(&path("file")));
    refused(opened.link_as(&name("file"), &opened, &name("second")), &path("second"), "making the hard link");
    opened.symlink(&name("new"), Path::new("target")).unwrap();
    assert_eq!(fs::read_link(path("new")).unwrap(), Path::new("target"));
    refused(opened.symlink(&name("new"), Path::new("other")), &path("new"), "making the symlink");
    assert_eq!(fs::read_link(path("new")).unwrap(), Path::new("target"));
}

#[test]
fn a_name_is_renamed_exchanged_and_removed() {
    let (temporary, opened) = example();
    let path = |name: &str| temporary.path().join(name);
    let read = |name: &str| fs::read_to_string(path(name)).ok();
    let into = opened.child(&name("directory")).unwrap();
    fs::write(path("directory/other"), "other").unwrap();
    refused(opened.rename_to_free(&name("file"), &into, &name("other")), &path("directory/other"), "renaming");
    assert_eq!((read("file").as_deref(), read("directory/other").as_deref()), (Some("content"), Some("other")));
    opened.exchange(&name("file"), &into, &name("other")).unwrap();
    assert_eq!((read("file").as_deref(), read("directory/other").as_deref()), (Some("other"), Some("content")));
    refused(opened.exchange(&name("file"), &into, &name("absent")), &path("directory/absent"), "RENAME_EXCHANGE");
    opened.rename(&name("file"), &into, &name("other")).unwrap();
    assert_eq!((read("file"), read("directory/other").as_deref()), (None, Some("other")));
    into.rename_to_free(&name("other"), &opened, &name("file")).unwrap();
    assert_eq!((read("file").as_deref(), read("directory/other")), (Some("other"), None));
    refused(opened.rename(&name("absent"), &into, &name("x")), &path("absent"), "renaming");
    for _ in 0..2 {
        opened.remove(&name("file")).unwrap();
        assert_eq!(read("file"), None);
    }
    refused(opened.remove(&name("directory")), &path("directory"), "removing");
}

#[test]
fn a_directory_that_cannot_be_synced_is_named() {
    refused(Dir::open(Path::new("/proc")).unwrap().sync(), Path::new("/proc"), "syncing the directory");
}

#[test]
fn a_mount_point_is_not_renamed() {
    let (temporary, opened) = example();
    let point = temporary.path().join("directory");
    let Some(_mounted) = Mounted::on(&point, &["-t", "tmpfs", "tmpfs"]) else { return };
    refused(opened.rename(&name("directory"), &opened, &name("x")), &point, "unmount it");
    refused(opened.exchange(&name("file"), &opened, &name("directory")), &point, "unmount it");
}

#[test]
fn a_directory_is_moved_aside_to_the_first_free_name() {
    let (temporary, opened) = example();
    let path = |name: &str| temporary.path().join(name);
    fs::write(path("directory/user file"), "").unwrap();
    fs::write(path("directory.aside-1"), "of the user").unwrap();
    opened.move_aside(&name("directory")).unwrap();
    assert!(!path("directory").exists() && path("directory.aside-2/user file").exists());
    assert_eq!(fs::read(path("directory.aside-1")).unwrap(), b"of the user");
    for number in 3..=ASIDE_MAX {
        fs::write(path(&format!("directory.aside-{number}")), "").unwrap();
    }
    fs::create_dir(path("directory")).unwrap();
    refused(opened.move_aside(&name("directory")), &path("directory"), "others are beside it");
    assert!(path("directory").exists());
    refused(opened.move_aside(&name("absent")), &path("absent"), "moving");
}

#[test]
fn a_failed_sync_of_the_file_system_is_an_error() {
    let (temporary, opened) = example();
    opened.sync_filesystem().unwrap();
    // The kernel refuses to sync by a descriptor that only names the directory.
    let fd = rustix::fs::open(temporary.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let named = Dir { fd, path: temporary.path().to_owned() };
    refused(named.sync_filesystem(), temporary.path(), "syncing the file system of");
}
