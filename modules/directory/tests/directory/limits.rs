//! Hostile archives are refused in bounded time and memory.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mender_update_module_test::Generation;
use rustix::fs::{Mode, OFlags, fcntl_setfl};

use crate::device::Device;
use crate::tarball::{end, entry, header, record};

/// The limit of memory for a hostile archive, in KiB.
const PEAK_MAX: u64 = 16 << 10;

/// How often the peak of the module's memory is read.
const POLL: Duration = Duration::from_millis(2);

/// The outcome of a download.
struct Outcome {
    success: bool,
    log: String,
    peak: u64,
}

/// Writes an archive, as far as the module reads it.
type Feed = fn(&mut dyn Write) -> std::io::Result<()>;

/// Feeds an archive of any size, and measures the memory of the module.
fn download(device: &Device, feed: Feed) -> Outcome {
    let meta_data = format!("{{\"dest_dir\": {:?}}}", device.destination.to_str().unwrap());
    download_file(device, &meta_data, "app.tar", None, feed)
}

/// As [`download`], with any meta-data and any payload file, whose size the client may announce.
fn download_file(device: &Device, meta_data: &str, name: &str, size: Option<u64>, feed: Feed) -> Outcome {
    let tree = device.client.tree();
    fs::create_dir_all(tree.join("header")).unwrap();
    fs::create_dir_all(tree.join("streams")).unwrap();
    fs::write(tree.join("header/meta-data"), meta_data).unwrap();
    let (next, stream) = (tree.join("stream-next"), tree.join("streams").join(name));
    let (state, announcement) = match size {
        Some(size) => ("DownloadWithFileSizes", format!("streams/{name} {size}\n")),
        None => ("Download", format!("streams/{name}\n")),
    };
    for fifo in [&next, &stream] {
        let _ = fs::remove_file(fifo);
        assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    }
    let mut module = device.client.by_hand(&[state]);
    module.arg(&tree).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let module = module.spawn().unwrap();
    let status = format!("/proc/{}/status", module.id());
    let over = Arc::new(AtomicBool::new(false));
    let has_ended = Arc::clone(&over);
    let feeder = thread::spawn(move || {
        let Some(mut announce) = open_for_writing(&next, &has_ended) else { return };
        announce.write_all(announcement.as_bytes()).unwrap();
        drop(announce);
        let Some(mut stream) = open_for_writing(&stream, &has_ended) else { return };
        // A module that closes the stream early, and does not exit, finds the end of the download.
        let _ = feed(&mut stream);
        drop(stream);
        drop(open_for_writing(&next, &has_ended));
    });
    let waiter = thread::spawn(move || module.wait_with_output().unwrap());
    let mut peak = 0;
    while !waiter.is_finished() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(now.unwrap_or(0));
        thread::sleep(POLL);
    }
    let output = waiter.join().unwrap();
    over.store(true, Ordering::SeqCst);
    feeder.join().unwrap();
    Outcome { success: output.status.success(), log: String::from_utf8_lossy(&output.stderr).into_owned(), peak }
}

/// Opens a FIFO when the module reads from it; `None` when the module has ended.
fn open_for_writing(fifo: &Path, has_ended: &AtomicBool) -> Option<File> {
    loop {
        if let Ok(fd) = rustix::fs::open(fifo, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()) {
            fcntl_setfl(&fd, OFlags::empty()).unwrap();
            return Some(fd.into());
        }
        if has_ended.load(Ordering::SeqCst) {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// Writes a file's header with a list of sparse parts of 64 MiB at the start of its content.
fn begin_sparse_list(archive: &mut dyn Write) -> std::io::Result<()> {
    let records =
        [record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.realsize", "1")];
    archive.write_all(&entry("pax", b'x', &records.concat()))?;
    archive.write_all(&header("file", b'0', 64 << 20, ""))
}

#[test]
fn hostile_archives_take_bounded_time_and_memory() {
    let hostile: &[(&str, &str, Feed)] = &[
        ("200 extended headers of 1 MB for one entry", "more than 1048576 bytes", |archive| {
            let value = "x".repeat(1_000_000);
            for number in 0..200 {
                archive.write_all(&entry("pax", b'x', &record(&format!("comment.{number}"), &value)))?;
            }
            archive.write_all(&[entry("file", b'0', b"x"), end()].concat())
        }),
        ("one extended header of more than 1 MiB", "the limit is 1048576", |archive| {
            archive.write_all(&entry("pax", b'x', &record("comment", &"x".repeat(2 << 20))))?;
            archive.write_all(&end())
        }),
        ("80,000 records in one extended header", "", |archive| {
            let records: Vec<u8> = (0..80_000).flat_map(|number| record(&number.to_string(), "")).collect();
            archive.write_all(&[entry("pax", b'x', &records), entry("file", b'0', b"x"), end()].concat())
        }),
        ("a large global header before many entries", "", |archive| {
            archive.write_all(&entry("pax", b'g', &record("comment", &"x".repeat(1_000_000))))?;
            for number in 0..2000 {
                archive.write_all(&entry(&format!("file-{}", number % 10), b'0', b"x"))?;
            }
            archive.write_all(&end())
        }),
        ("80,000 records in a global header", "more than 1024 global records", |archive| {
            let records: Vec<u8> = (0..80_000).flat_map(|number| record(&number.to_string(), "")).collect();
            archive.write_all(&[entry("pax", b'g', &records), entry("file", b'0', b"x"), end()].concat())
        }),
        ("a long name of 300 MB", "the limit is 1048576", |archive| {
            archive.write_all(&header("././@LongLink", b'L', 300 << 20, ""))?;
            (0..300).try_for_each(|_| archive.write_all(&vec![b'n'; 1 << 20]))
        }),
        ("a name of 1 MiB", "4096", |archive| {
            archive.write_all(&entry("././@LongLink", b'L', &b"n/".repeat(1 << 19)))?;
            archive.write_all(&[entry("file", b'0', b"x"), end()].concat())
        }),
        ("a size of 2^63", "", |archive| {
            archive.write_all(&entry("pax", b'x', &record("size", "9223372036854775808")))?;
            archive.write_all(&[entry("file", b'0', b"x"), end()].concat())
        }),
        ("a size of 2^64 - 1", "", |archive| {
            archive.write_all(&entry("pax", b'x', &record("size", "18446744073709551615")))?;
            archive.write_all(&[entry("file", b'0', b"x"), end()].concat())
        }),
        ("a file of 2^50 bytes", "stay free", |archive| {
            archive.write_all(&entry("pax", b'x', &record("size", &(1_u64 << 50).to_string())))?;
            archive.write_all(&entry("file", b'0', b"x"))
        }),
        ("sparse parts that overflow", "sparse", |archive| {
            let records = [
                record("GNU.sparse.map", "18446744073709551615,18446744073709551615"),
                record("GNU.sparse.size", "18446744073709551615"),
            ];
            archive.write_all(&[entry("pax", b'x', &records.concat()), entry("file", b'0', b"x"), end()].concat())
        }),
        ("a list of sparse parts without an end", "sparse", |archive| {
            begin_sparse_list(archive)?;
            archive.write_all(b"9999999999\n")?;
            (0..64).try_for_each(|_| archive.write_all(&b"0\n1\n".repeat(1 << 18)))
        }),
        ("a number of sparse parts without an end", "list of parts", |archive| {
            begin_sparse_list(archive)?;
            (0..64).try_for_each(|_| archive.write_all(&vec![b'9'; 1 << 20]))
        }),
        ("2,000 nested directories", "", |archive| {
            archive.write_all(&entry("././@LongLink", b'L', &b"n/".repeat(2000)))?;
            archive.write_all(&[header("dir", b'5', 0, ""), end()].concat())
        }),
    ];
    for (name, words, feed) in hostile {
        let device = Device::filled(Generation::V5);
        let outcome = download(&device, *feed);
        assert!(outcome.peak > 0 && outcome.peak < PEAK_MAX, "{name}: a peak of {} KiB", outcome.peak);
        assert!(!outcome.log.contains("panicked"), "{name}: {}", outcome.log);
        if !words.is_empty() {
            assert!(!outcome.success && outcome.log.contains(words), "{name}: {}", outcome.log);
        }
        device.ok("Cleanup");
        assert!(device.is_clean(), "{name}");
    }
}

#[test]
fn a_destination_of_any_length_takes_bounded_memory() {
    let device = Device::filled(Generation::V5);
    let outcome = download_file(&device, "null", "dest_dir", None, |stream| {
        stream.write_all(b"/")?;
        (0..64).try_for_each(|_| stream.write_all(&vec![b'x'; 1 << 20]))
    });
    assert!(!outcome.success && outcome.log.contains("dest_dir: longer than 4096 bytes"), "{}", outcome.log);
    assert!(outcome.peak > 0 && outcome.peak < PEAK_MAX, "a peak of {} KiB", outcome.peak);
    device.ok("Cleanup");
    assert!(device.is_clean());
}

#[test]
fn an_announced_size_that_does_not_fit_is_refused_before_a_file_is_unpacked() {
    let device = Device::filled(Generation::V5);
    let meta_data = format!("{{\"dest_dir\": {:?}}}", device.destination.to_str().unwrap());
    let outcome = download_file(&device, &meta_data, "app.tar", Some(1 << 50), |archive| {
        archive.write_all(&[entry("file", b'0', b"x"), end()].concat())
    });
    assert!(!outcome.success && outcome.log.contains("1125899906842624 bytes needed"), "{}", outcome.log);
    device.ok("Cleanup");
    assert!(device.is_clean());
}
