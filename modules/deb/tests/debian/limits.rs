//! Hostile payloads: each is refused with the reason, in bounded time and memory.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use mender_update_module_test::Outcome;
use mender_update_module_test::debian::Package;
use tar::EntryType;

use crate::device::{Device, app};
use crate::kinds::state;
use crate::raw::{RawPackage, append, archive, header, members};

/// The limit of the module's peak memory.
const MEMORY_KIB: u64 = 16 << 10;

/// The time limit of a call, on a slow and busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Downloads `files` and installs them. Returns the outcome of the last call, and the module's peak memory in
/// KiB.
fn download_and_install(device: &Device, files: &[(&str, &[u8])]) -> (Outcome, u64) {
    let peak = AtomicU64::new(0);
    let ended = AtomicBool::new(false);
    let start = Instant::now();
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                peak.fetch_max(peak_of_modules(device), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        let payload: Vec<_> = files.iter().map(|(name, content)| (OsStr::new(*name), *content)).collect();
        let outcome = device.client.download(&payload).unwrap();
        let outcome = if outcome.success() { device.client.call("ArtifactInstall").unwrap() } else { outcome };
        ended.store(true, Ordering::Relaxed);
        outcome
    });
    assert!(start.elapsed() < TIME_LIMIT, "it took {:?}: {}", start.elapsed(), outcome.stderr);
    (outcome, peak.into_inner())
}

/// The peak memory of the processes that run this device's module, in KiB.
fn peak_of_modules(device: &Device) -> u64 {
    let root = device.client.device();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let of_device = processes.filter(|process| {
        let target = |name: &str| fs::read_link(process.join(name)).unwrap_or_default();
        target("root") == root && target("exe").file_name().is_some_and(|name| name == "deb")
    });
    let peak = |process: std::path::PathBuf| {
        let status = fs::read_to_string(process.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB");
        line.parse::<u64>().ok()
    };
    of_device.filter_map(peak).max().unwrap_or_default()
}

/// Asserts that `files` are refused with `word` within the limits, and that the device is unchanged.
fn assert_refused(what: &str, files: &[(&str, &[u8])], word: &str) {
    let device = Device::new(&[app("1.0")]);
    let before = state(&device);
    // A call that ends between two polls was not measured, and is repeated.
    let measured = (0..10).map(|_| download_and_install(&device, files)).find(|(_, peak)| *peak > 0);
    let (outcome, peak) = measured.unwrap_or_else(|| panic!("{what}: the module's memory was not measured"));
    assert_eq!(outcome.status.code(), Some(1), "{what}: {outcome:?}");
    assert!(outcome.stderr.contains(word), "{what}: {word:?} is missing in {}", outcome.stderr);
    assert!(peak <= MEMORY_KIB, "{what}: {peak} KiB of memory");
    eprintln!("{what}: {peak} KiB");
    device.roll_back();
    device.assert_same(&before, &state(&device), what);
    device.assert_clean();
}

/// A tar archive of one entry with a long name of `size` bytes, and a file after it.
fn long_name(kind: EntryType, size: usize) -> Vec<u8> {
    let mut tar = Vec::new();
    let mut long = header(kind, 0o644);
    long.set_path("././@LongLink").unwrap();
    long.set_size(size as u64);
    append(&mut tar, long, &vec![b'x'; size]);
    let mut file = header(EntryType::Regular, 0o644);
    file.set_path("x").unwrap();
    append(&mut tar, file, b"");
    tar.extend([0; 1024]);
    tar
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A control archive with the control file of `app`, and a member of `size` bytes.
fn control_with(name: &str, size: usize) -> Vec<u8> {
    let description = b"Package: app\nVersion: 2\nArchitecture: all\nMaintainer: x\nDescription: x\n";
    let mut tar = Vec::new();
    let bloated = [b"X-Bloat: ".to_vec(), vec![b'x'; size], b"\n".to_vec()].concat();
    let members = if name == "control" {
        vec![("./control", [description.as_slice(), &bloated].concat())]
    } else {
        vec![(name, bloated), ("./control", description.to_vec())]
    };
    for (name, content) in members {
        let mut file = header(EntryType::Regular, 0o644);
        file.set_path(name).unwrap();
        file.set_size(content.len() as u64);
        append(&mut tar, file, &content);
    }
    tar.extend([0; 1024]);
    tar
}

fn package(control: &[u8], data: &[u8]) -> Vec<u8> {
    members(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &compressed(control)),
        ("data.tar.gz", &compressed(data)),
    ])
}

const LARGE: usize = 300 << 20;

#[test]
fn limits_of_names() {
    let data = long_name(EntryType::GNULongName, 0);
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
        let long = long_name(kind, LARGE);
        let word = if matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader) {
            "not supported"
        } else {
            "314572800 bytes"
        };
        assert_refused("data", &[("a.deb", &package(&control_with("md5sums", 1), &long))], word);
        assert_refused("control", &[("a.deb", &package(&long, &data))], word);
        assert_refused("payload", &[("a.tar", &long)], "314572800 bytes");
    }
}

#[test]
fn limits_of_control_archives() {
    let data = long_name(EntryType::GNULongName, 0);
    for (name, size, word) in [
        ("control", LARGE, "33554432"),
        ("control", 20 << 20, "131072"),
        ("./conffiles", 20 << 20, "131072"),
        ("./preinst", 20 << 20, "1048576"),
        ("./preinst", LARGE, "33554432"),
        ("./md5sums", LARGE, "33554432"),
    ] {
        let deb = package(&control_with(name, size), &data);
        assert_refused(name, &[("a.deb", &deb)], word);
    }
    let bomb = control_with("./md5sums", LARGE);
    let many: Vec<u8> = (0..80_000).flat_map(|_| b"6 a=b\n".to_vec()).collect();
    let mut pax = header(EntryType::XHeader, 0o644);
    pax.set_path("x").unwrap();
    pax.set_size(many.len() as u64);
    let mut tar = Vec::new();
    append(&mut tar, pax, &many);
    assert_refused("pax", &[("a.tar", &tar)], "480000 bytes");
    // A truncated package is refused as invalid.
    let deb = package(&bomb[..4096], &data);
    for length in [9, 68, 100, 140, deb.len() - 40, deb.len() - 1] {
        assert_refused("truncated", &[("a.deb", &deb[..length])], "invalid package");
    }
}

#[test]
fn limits_of_data_archives() {
    let control = control_with("md5sums", 1);
    let mut tar = Vec::new();
    for number in 0..400_000 {
        let mut file = header(EntryType::Regular, 0o644);
        file.set_path(format!("srv/{}/{number}", "name".repeat(20))).unwrap();
        append(&mut tar, file, b"");
    }
    assert_refused("many", &[("a.deb", &package(&control, &tar))], "max_files");
    let mut tar = Vec::new();
    for number in 0..400_000 {
        let mut file = header(EntryType::Regular, 0o644);
        file.set_path(format!("s/{number}")).unwrap();
        append(&mut tar, file, b"");
    }
    assert_refused("many short", &[("a.deb", &package(&control, &tar))], "max_files");
    for size in [8 << 40, i64::MAX as u64, u64::MAX / 2 + 7, u64::MAX - 7] {
        let mut tar = Vec::new();
        for name in ["a", "b"] {
            let mut file = header(EntryType::Regular, 0o644);
            file.set_path(name).unwrap();
            file.set_size(size);
            append(&mut tar, file, b"x");
        }
        assert_refused("size", &[("a.deb", &package(&control, &tar))], "invalid package");
        assert_refused("size", &[("a.tar", &tar)], "a.tar");
    }
}

#[test]
fn limits_of_announced_sizes() {
    for (first, second) in [
        ("18446744073709551615", "1"),
        ("18014398509481983", "18014398509481984"),
        ("9007199254740992", "9007199254740992"),
        ("17592186044416", "1"),
    ] {
        let with = |name: &str, size: &str| Package::new(name, "1").field("Installed-Size", size).build().unwrap();
        assert_refused(first, &[("a.deb", &with("one", first)), ("b.deb", &with("two", second))], "free");
    }
    // An invalid number counts as 0.
    for size in ["-1", "x", "99999999999999999999999"] {
        let device = Device::new(&[]);
        device.download(&[Package::new("one", "1").field("Installed-Size", size)]);
        let _ = device.client.call("ArtifactInstall").unwrap();
        device.roll_back();
    }
    let device = Device::new(&[app("1.0")]);
    let largest = i64::MAX;
    device
        .client
        .set(
            "deb",
            &format!(
                "reserve_mib = {largest}\nstore_mib = {largest}\nbackup_mib = {largest}\nlock_seconds = {largest}\n"
            ),
        )
        .unwrap();
    device.assert_refused_in_download(&app("2.0").build().unwrap(), &["free", "not enough space"]);
}

#[test]
fn limits_of_names_of_packages() {
    let long = "x".repeat(300);
    assert_refused("name", &[("a.deb", &RawPackage::new(&long, "1").build())], "255");
    assert_refused("version", &[("a.deb", &RawPackage::new("a", &long).build())], "255");
    assert_refused("slash", &[("a.deb", &RawPackage::new("a/b", "1").build())], "Package");
    let empty = archive(&[0; 1024], &[0; 1024]);
    assert_refused("empty", &[("a.deb", &empty)], "no control file");
    let twice = RawPackage::new("a", "1").field("X", "y\n\nPackage: b").build();
    assert_refused("twice", &[("a.deb", &twice)], "two paragraphs");
}

#[test]
fn a_large_package_is_accepted() {
    // As many files as the largest packages of Debian, and more bytes of checksums.
    let device = Device::new(&[]);
    let mut tar = Vec::new();
    for number in 0..19_000 {
        let mut file = header(EntryType::Directory, 0o755);
        if number == 0 {
            file.set_path("srv/large").unwrap();
        } else {
            file.set_path(format!("srv/large/directory-of-a-very-large-package-{number}/")).unwrap();
        }
        append(&mut tar, file, b"");
    }
    tar.extend([0; 1024]);
    let deb = package(&control_with("./md5sums", 8 << 20), &tar);
    let (outcome, peak) = download_and_install(&device, &[("a.deb", &deb)]);
    assert!(outcome.success(), "{}", outcome.stderr);
    eprintln!("large: {peak} KiB");
    assert!(peak <= MEMORY_KIB, "{peak} KiB of memory");
    device.roll_back();
}
