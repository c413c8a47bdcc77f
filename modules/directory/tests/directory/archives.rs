//! Archives: supported formats, and entries that are refused.

use std::fs;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use mender_update_module::Accounts;
use mender_update_module_test::privileged::Mounted;
use mender_update_module_test::{Generation, Snapshot};
use rustix::fs::{XattrFlags, getxattr, lsetxattr, setxattr};

use crate::device::{Device, refused};
use crate::tarball::{self, header, record};

#[test]
fn an_archive_before_dest_dir_is_stored() {
    let device = Device::filled(Generation::V3);
    let dest_dir = device.destination.to_str().unwrap().to_owned();
    let archive = device.tar(&["--format=posix"]);
    let outcome = device.download_files(&[("update.tar", &archive), ("dest_dir", dest_dir.as_bytes())]);
    assert!(outcome.success(), "{outcome:?}");
    device.ok("ArtifactInstall");
    assert_eq!(device.active(), device.expected());
}

#[test]
fn a_stored_archive_leaves_the_reserve_free_in_the_work_tree() {
    for generation in [Generation::V5, Generation::V3] {
        let device = Device::filled(generation);
        let dest_dir = device.destination.to_str().unwrap().to_owned();
        fs::write(device.source.join("large"), vec![0; 5 << 20]).unwrap();
        let archive = device.tar(&[]);
        let files = [("update.tar", &archive[..]), ("dest_dir", dest_dir.as_bytes())];
        // The client removes the work tree before a download.
        let datastore = device.client.datastore();
        let Some(mounted) = Mounted::tmpfs(&datastore, "size=8m,mode=755") else { return };
        let outcome = device.download_files(&files);
        assert!(outcome.stderr.contains("4194304 stay free: free some space"), "{generation:?}: {outcome:?}");
        refused(outcome, "not enough space in ");
        device.ok("Cleanup");
        drop(mounted);
        assert!(device.download_files(&files).success());
    }
}

#[test]
fn every_attribute_in_an_archive_is_restored() {
    for format in ["--format=gnu", "--format=posix"] {
        let device = Device::filled(Generation::V3);
        let source = &device.source;
        let long = "a rather long name, ".repeat(12);
        fs::create_dir_all(source.join(&long).join(&long)).unwrap();
        fs::write(source.join(&long).join(&long).join("deep file"), "deep").unwrap();
        symlink("/nowhere/absolute", source.join("absolute")).unwrap();
        symlink("bin/run me", source.join("link")).unwrap();
        fs::hard_link(source.join("index.html"), source.join("second name")).unwrap();
        for (name, mode) in [("bin", 0o2750), ("bin/run me", 0o6751)] {
            fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(source.join("no entry"), "").unwrap();
        assert!(Command::new("mkfifo").arg(source.join("fifo")).status().unwrap().success());
        age_links_too(source);
        device.install(&device.tar(&[format]));
        let expected = device.expected();
        let active = device.active();
        // The GNU format has whole seconds only.
        let exact = format == "--format=posix";
        let same =
            if exact { active == expected } else { active.clone().without_times() == expected.clone().without_times() };
        assert!(same, "{format}: {:?}", active.differences(&expected));
        let inode = |name: &str| fs::metadata(device.destination.join(name)).unwrap().ino();
        assert_eq!(inode("index.html"), inode("second name"));
    }
}

#[test]
fn device_files_have_their_type_and_numbers() {
    let device = Device::filled(Generation::V5);
    for (name, kind) in [("character", "c"), ("block", "b")] {
        let made = Command::new("mknod").arg(device.source.join(name)).args([kind, "1", "3"]).output().unwrap();
        if !made.status.success() {
            return eprintln!("skipped: {}", String::from_utf8_lossy(&made.stderr));
        }
    }
    device.install(&device.tar(&[]));
    let found = |name: &str| fs::symlink_metadata(device.destination.join(name)).unwrap();
    assert!(found("character").file_type().is_char_device() && found("block").file_type().is_block_device());
    for name in ["character", "block"] {
        let number = found(name).rdev();
        assert_eq!((rustix::fs::major(number), rustix::fs::minor(number)), (1, 3), "{name}");
    }
}

fn age_links_too(directory: &Path) {
    let mut find = Command::new("find");
    find.arg(directory).args(["-exec", "touch", "--no-dereference", "--date=@1234567890.987654321", "{}", "+"]);
    assert!(find.status().unwrap().success());
}

/// An ACL with an entry for a user, as Linux stores it in an attribute.
fn acl() -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, 5, 4242), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 1, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

#[test]
fn a_default_acl_above_the_destination_does_not_reach_the_new_tree() {
    let device = Device::filled(Generation::V3);
    let above = device.destination.parent().unwrap();
    setxattr(above, "system.posix_acl_default", &acl(), XattrFlags::empty()).unwrap();
    device.install(&device.tar(&["--format=posix"]));
    let (active, expected) = (device.active(), device.expected());
    assert_eq!(active, expected, "{:?}", active.differences(&expected));
}

#[test]
fn attributes_acls_and_capabilities_are_restored() {
    let device = Device::filled(Generation::V3);
    let program = device.source.join("bin/run me");
    setxattr(&program, "user.with newline", b"a\nb", XattrFlags::CREATE).unwrap();
    let acl = acl();
    setxattr(&program, "system.posix_acl_access", &acl, XattrFlags::empty()).unwrap();
    // What was made before the default ACL has none, and inherits none on the device.
    for plain in ["plain", "fifo", "sub/file"] {
        let path = device.source.join("bin").join(plain);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let made = if plain == "fifo" {
            Command::new("mkfifo").arg(&path).status().map(|_| ())
        } else {
            fs::write(&path, plain)
        };
        made.unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    setxattr(device.source.join("bin"), "system.posix_acl_default", &acl, XattrFlags::empty()).unwrap();
    let mut options = vec!["--format=posix", "--acls", "--xattrs", "--xattrs-include=*"];
    if device.is_root() {
        // cap_net_bind_service=ep
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        setxattr(&program, "security.capability", &capability, XattrFlags::empty()).unwrap();
    } else {
        options.push("--xattrs-exclude=security.*");
    }
    device.install(&device.tar(&options));
    let (active, expected) = (device.active(), device.expected());
    assert_eq!(active, expected, "{:?}", active.differences(&expected));
}

/// As labels of SELinux are.
#[test]
fn extended_attributes_of_symlinks_and_fifos_are_restored() {
    let device = Device::filled(Generation::V3);
    symlink("bin/run me", device.source.join("link")).unwrap();
    assert!(Command::new("mkfifo").arg(device.source.join("fifo")).status().unwrap().success());
    for name in ["link", "fifo"] {
        if let Err(error) = lsetxattr(device.source.join(name), "trusted.label", b"app_t", XattrFlags::CREATE) {
            return eprintln!("skipped: setting a trusted attribute: {error}");
        }
    }
    device.install(&device.tar(&["--format=posix", "--xattrs", "--xattrs-include=*"]));
    let (active, expected) = (device.active(), device.expected());
    assert_eq!(active, expected, "{:?}", active.differences(&expected));
}

#[test]
fn sparse_files_stay_sparse() {
    for format in ["--format=gnu", "--format=posix"] {
        let device = Device::filled(Generation::V5);
        let path = device.source.join("disk");
        let file = fs::File::create(&path).unwrap();
        // More parts than a header has room for, and a hole at the end.
        for part in 0..40 {
            file.write_all_at(&[part as u8 + 1; 4096], part * (1 << 20)).unwrap();
        }
        file.set_len(100 << 20).unwrap();
        let archive = device.tar(&[format, "--sparse"]);
        assert!(archive.len() < 4 << 20, "tar made no sparse archive");
        device.install(&archive);
        let active = device.destination.join("disk");
        let (found, expected) = (fs::read(&active).unwrap(), fs::read(&path).unwrap());
        // 100 MiB that are the same are compared at once; the position is for the message.
        let differs = || found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert!(found == expected, "{format}: {} bytes, different from byte {:?} on", found.len(), differs());
        assert!(fs::metadata(&active).unwrap().blocks() * 512 < 4 << 20, "{format}: the holes were filled");
    }
}

#[test]
fn an_archive_without_an_entry_for_the_top_keeps_its_owner_and_mode() {
    let device = Device::filled(Generation::V3);
    if device.is_root() {
        chown(&device.destination, Some(1001), Some(1002)).unwrap();
    }
    fs::set_permissions(&device.destination, fs::Permissions::from_mode(0o2770)).unwrap();
    setxattr(&device.destination, "user.origin", b"factory", XattrFlags::CREATE).unwrap();
    let attributes = || {
        let (found, mut value) = (fs::metadata(&device.destination).unwrap(), [0; 16]);
        let length = getxattr(&device.destination, "user.origin", &mut value).unwrap_or_default();
        (found.uid(), found.gid(), found.mode(), value[..length].to_vec())
    };
    let before = attributes();
    let output =
        Command::new("tar").args(["--create", "--directory"]).arg(&device.source).arg("index.html").output().unwrap();
    device.install(&output.stdout);
    assert_eq!(attributes(), before);
    assert_eq!(device.text("index.html"), "the new index");
}

#[test]
fn directories_without_an_entry_are_open_to_all_users() {
    let device = Device::new(Generation::V3);
    device.install(&[tarball::entry("a/b", b'0', b"x"), tarball::end()].concat());
    for directory in [&device.destination, &device.destination.join("a")] {
        assert_eq!(fs::metadata(directory).unwrap().mode() & 0o7777, 0o755, "{}", directory.display());
    }
}

#[test]
fn owners_are_found_by_name_or_else_by_number() {
    let device = Device::filled(Generation::V5);
    if !device.is_root() {
        return eprintln!("skipped: needs root");
    }
    let (accounts, name) = (Accounts::read().unwrap(), "daemon");
    let (Some(user), Some(group)) = (accounts.user(name), accounts.group(name)) else {
        return eprintln!("skipped: no user or group {name}");
    };
    for (name, expected) in [(name, (user, group)), ("no-such-name", (4242, 4243))] {
        let records =
            [("uname", name), ("gname", name), ("uid", "4242"), ("gid", "4243")].map(|(key, value)| record(key, value));
        let entries = [tarball::entry("pax", b'x', &records.concat()), tarball::entry("file", b'0', b"x")];
        device.install(&[entries.concat(), tarball::end()].concat());
        let found = fs::metadata(device.destination.join("file")).unwrap();
        assert_eq!((found.uid(), found.gid()), expected, "{name}");
        device.ok("ArtifactRollback");
        device.ok("Cleanup");
    }
}

#[test]
fn entries_that_lead_out_of_the_tree_are_refused() {
    let device = Device::filled(Generation::V3);
    let previous = device.active();
    let outside = device.client.device().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "untouched").unwrap();
    let before = Snapshot::of(&outside).unwrap();
    let absolute = outside.join("precious").to_str().unwrap().to_owned();
    for (archive, words) in [
        (archive(&[("../outside/precious", b'0', "")]), "leads out"),
        (archive(&[("../\u{1b}[2Ja\rb", b'0', "")]), "../\\u{1b}[2Ja\\rb"),
        (archive(&[(&absolute, b'0', "")]), "absolute"),
        (archive(&[("door", b'2', outside.to_str().unwrap()), ("door/precious", b'0', "")]), "door"),
        (archive(&[("door", b'1', "../../outside/precious")]), "leads out"),
        (archive(&[("door", b'2', outside.to_str().unwrap()), ("name", b'1', "door/precious")]), "before its target"),
        (archive(&[("name", b'1', "later")]), "before its target"),
        (archive(&[("a", b'Z', "")]), "unknown type"),
        (b"#!/bin/sh\n".repeat(100), "tar archive"),
        (device.tar(&[])[..2048].to_vec(), "ends"),
        (device.tar(&["--gzip"]), "compressed"),
        (vec![0; 10240], "no entry"),
        (Vec::new(), "end marker"),
    ] {
        let outcome = device.download(&archive);
        assert!(!outcome.stderr.contains(['\u{1b}', '\r']), "control characters in the log: {outcome:?}");
        refused(outcome, words);
        device.ok("Cleanup");
        assert_eq!(device.active(), previous);
        assert_eq!(Snapshot::of(&outside).unwrap(), before);
        assert!(device.is_clean());
    }
}

/// An archive of empty entries: path, type and link target. The builder of the crate `tar` refuses such paths.
fn archive(entries: &[(&str, u8, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, link) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_size(0);
        let me = fs::metadata("/proc/self").unwrap();
        header.set_uid(me.uid().into());
        header.set_gid(me.gid().into());
        header.set_mtime(0);
        header.set_cksum();
        bytes.extend(header.as_bytes());
    }
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn archives_of_other_programs_and_options_are_unpacked() {
    let content = "part".repeat(128);
    let sparse_0_1 = [record("GNU.sparse.size", "4096"), record("GNU.sparse.map", "1024,512")].concat();
    let sparse_0_0 = [
        record("GNU.sparse.size", "4096"),
        record("GNU.sparse.numblocks", "1"),
        record("GNU.sparse.offset", "1024"),
        record("GNU.sparse.numbytes", "512"),
    ]
    .concat();
    let file = |name: &str| tarball::entry(name, b'0', content.as_bytes());
    let sparse = |records: &[u8]| [tarball::entry("pax", b'x', records), file("sparse")].concat();
    let device = Device::filled(Generation::V5);
    for (what, archive, name) in [
        ("a volume label", [header("my label", b'V', 0, ""), file("file")].concat(), "file"),
        (
            "a hard link with a size and no content",
            [file("file"), header("link", b'1', 512, "file"), file("z")].concat(),
            "z",
        ),
        ("a hard link with a size at the end", [file("file"), header("link", b'1', 512, "file")].concat(), "link"),
        (
            "a hard link with its content",
            [file("file"), header("link", b'1', 512, "file"), content.clone().into_bytes(), file("z")].concat(),
            "z",
        ),
        (
            "a directory of an incremental backup",
            [tarball::entry("d/", b'D', b"Yfile\0\0"), file("d/file")].concat(),
            "d/file",
        ),
        ("sparse 0.1", sparse(&sparse_0_1), "sparse"),
        ("sparse 0.0", sparse(&sparse_0_0), "sparse"),
    ] {
        device.install(&[archive, tarball::end()].concat());
        let found = device.text(name);
        if name == "sparse" {
            assert_eq!((found.len(), found.trim_matches('\0')), (4096, content.as_str()), "{what}");
            assert!(found[1024..].starts_with("part"), "{what}");
        } else {
            assert_eq!(found, content, "{what}");
        }
        device.ok("ArtifactRollback");
        device.ok("Cleanup");
    }
}

#[test]
fn attributes_that_linux_does_not_have_are_refused_or_ignored() {
    let device = Device::filled(Generation::V5);
    let records = [record("SCHILY.xattr.com.apple.quarantine", "x"), record("SCHILY.xattr.user.origin", "y")].concat();
    let archive = [tarball::entry("pax", b'x', &records), tarball::entry("file", b'0', b"x"), tarball::end()].concat();
    refused(device.download(&archive), "unknown_xattrs = \"ignore\"");
    device.client.set("directory", "unknown_xattrs = \"ignore\"\n").unwrap();
    device.install(&archive);
    let mut value = [0; 8];
    let length = getxattr(device.destination.join("file"), "user.origin", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
}

#[test]
fn an_owner_that_would_become_root_is_refused() {
    let device = Device::filled(Generation::V5);
    for (key, number, words) in [
        ("uid", "4294967295", "4294967295"),
        ("gid", "4294967295", "4294967295"),
        // The lower 32 bits are root's.
        ("uid", "4294967296", "number too large"),
        ("gid", "4294967296", "number too large"),
    ] {
        let records = record(key, number);
        let archive =
            [tarball::entry("pax", b'x', &records), tarball::entry("file", b'0', b"x"), tarball::end()].concat();
        refused(device.download(&archive), words);
    }
    let records = record("SCHILY.acl.access", "user::rw-,user:4294967295:rwx,group::r--,mask::r--,other::r--");
    let archive = [tarball::entry("pax", b'x', &records), tarball::entry("file", b'0', b"x"), tarball::end()].concat();
    refused(device.download(&archive), "4294967295");
}

#[test]
fn an_invalid_pattern_is_refused_with_the_reason() {
    let device = Device::filled(Generation::V5);
    device.client.set("directory", "keep = [\"sub/\"]\n").unwrap();
    refused(device.download(&device.tar(&[])), "empty name");
}
