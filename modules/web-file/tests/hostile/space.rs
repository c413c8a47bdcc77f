//! Full file systems.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use mender_update_module_test::Generation;
use mender_update_module_test::failing_storage::FailingStorage;
use mender_update_module_test::privileged::Mounted;
use rustix::fs::FallocateFlags;

use crate::device::{Device, failed, run};

#[test]
fn a_failed_download_frees_its_space_at_once_and_an_interrupted_one_at_boot() {
    let Some(device) = Device::new() else { return };
    let twice = [(OsStr::new("a"), &b"x"[..]), (OsStr::new("passwd/"), &b"x"[..])];
    let outcome = device.client.download(&twice[..1]).unwrap();
    assert!(outcome.success());
    device.ok("Cleanup");
    fs::create_dir(device.www.join("a")).unwrap();
    failed(&device.client.download(&twice[..1]).unwrap(), "directory");
    assert!(!device.staging().exists() && !device.journal().join("journal.json").exists(), "its space is not free");
    let payload = [(OsStr::new("big"), &[7_u8; 100_000][..])];
    device.client.interrupt_download(&payload).unwrap();
    assert!(device.staging().exists());
    assert!(device.client.by_hand(&["--recover"]).arg(device.client.tree()).status().unwrap().success());
    assert!(!device.staging().exists() && !device.journal().join("journal.json").exists());
}

#[test]
fn cleaning_up_needs_neither_space_nor_inodes() {
    for (options, fill) in [
        ("size=1m", "dd if=/dev/zero of=\"$0/fill\" bs=4k"),
        ("nr_inodes=60", "while : > \"$0/fill-$((i+=1))\"; do :; done"),
    ] {
        let Some(mut device) = Device::new() else { return };
        let small = device.client.device().join("mender");
        let Some(_mounted) = Mounted::tmpfs(&small, &format!("mode=755,{options}")) else { return };
        // The web root and the client's data are on the file system that becomes full.
        device.www = small.join("html");
        device.home = small.clone();
        fs::create_dir(&device.www).unwrap();
        fs::write(device.www.join("index.html"), "previous").unwrap();
        device.set(&device.www, "");
        if options.starts_with("size") {
            failed(&device.download(), "free some space");
            assert!(run("mount", &["-o".as_ref(), "remount,size=16m".as_ref(), small.as_os_str()]));
        }
        let outcome = device.download();
        assert!(outcome.success(), "{outcome:?}");
        device.ok("ArtifactInstall");
        let filled = Command::new("sh").args(["-c", fill]).arg(&small).output().unwrap();
        let said = String::from_utf8_lossy(&filled.stderr);
        assert!(said.contains("No space left"), "{options}: {said}");
        device.ok("ArtifactRollback");
        assert_eq!(device.text("index.html"), "previous");
        let outcome = device.call("Cleanup");
        // The rollback could not be recorded: it is done again.
        let expected = if options.starts_with("size") { "rollback complete" } else { "" };
        assert!(outcome.success() && outcome.stderr.contains(expected), "{options}: {outcome:?}");
        assert_eq!(device.text("index.html"), "previous");
        assert!(!device.staging().exists(), "{options}: nothing was freed");
        assert!(!device.journal().join("discard.json").exists());
    }
}

#[test]
fn an_update_of_unknown_size_leaves_the_reserve_free() {
    let content = vec![7_u8; 6 << 20];
    for generation in [Generation::V5, Generation::V3] {
        let Some(device) = Device::of(generation) else { return };
        let small = device.client.device().join("small");
        let Some(_mounted) = Mounted::tmpfs(&small, "mode=755,size=8m") else { return };
        device.set(&small.join("html"), "");
        let outcome = device.client.download(&[(OsStr::new("big"), &content)]).unwrap();
        failed(&outcome, "4194304 stay free: free some space");
        assert_eq!(fs::read_dir(&small).unwrap().count(), 0, "its space is not free");
    }
}

#[test]
fn missing_inodes_are_not_reported_as_a_duplicate_name() {
    let Some(device) = Device::new() else { return };
    let small = device.client.device().join("small");
    let Some(_mounted) = Mounted::tmpfs(&small, "mode=755,nr_inodes=10") else { return };
    device.set(&small.join("html"), "");
    let names: Vec<String> = (0..20).map(|number| format!("file-{number}")).collect();
    let payload: Vec<_> = names.iter().map(|name| (OsStr::new(name.as_str()), &b"x"[..])).collect();
    let outcome = device.client.download(&payload).unwrap();
    failed(&outcome, "No space left on device");
    assert!(!outcome.stderr.contains("twice"), "{outcome:?}");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0, "its space is not free");
}

#[test]
fn blocks_that_are_reserved_for_root_do_not_count_as_free() {
    let Some(device) = Device::new() else { return };
    let small = device.client.device().join("small");
    fs::create_dir(&small).unwrap();
    let Some(_storage) = FailingStorage::mount(&small) else { return };
    let space = || {
        let found = rustix::fs::statvfs(&small).unwrap();
        (found.f_bavail * found.f_frsize, found.f_bfree * found.f_frsize)
    };
    // Another program leaves 6 MiB, of which 4 stay free.
    let other = fs::File::create(small.join("other")).unwrap();
    rustix::fs::fallocate(&other, FallocateFlags::empty(), 0, space().0 - (6 << 20)).unwrap();
    let (available, free) = space();
    assert!(free > available + (1 << 20), "{free} bytes free, {available} for others than root");
    device.set(&small.join("html"), "");
    let content = vec![7; (available - (4 << 20)) as usize + (1 << 20)];
    failed(&device.client.download(&[(OsStr::new("big"), &content)]).unwrap(), "4194304 stay free: free some space");
    let fits = &content[..content.len() - (2 << 20)];
    let outcome = device.client.download(&[(OsStr::new("smaller"), fits)]).unwrap();
    assert!(outcome.success(), "{outcome:?}");
}
