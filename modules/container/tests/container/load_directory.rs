//! The engine's temporary copies of images during a load: their directory, removal and space.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use mender_update_module_test::Generation;
use serde_json::json;
use test_image::Mode;

use crate::device::{Device, archive, one, refused};

const TAG: &str = "localhost/shop:1";

/// The prefix of the names of load directories.
const PREFIX: &str = "mender-update-module-container-";

/// A device, and the directory `name` for its engine's temporary files.
fn with_tmp_dir(name: &str) -> (Device, PathBuf) {
    let device = Device::new();
    let tmp_dir = device.client.device().join(name);
    fs::create_dir(&tmp_dir).unwrap();
    device.set(&format!("tmp_dir = {tmp_dir:?}\n"));
    (device, tmp_dir)
}

/// The engine's copies in `directory` and below.
fn copies(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let copies = entries.flat_map(|path| match path.file_name() {
        Some(name) if name.to_string_lossy().starts_with("podman") => vec![path],
        _ if path.is_dir() && !path.is_symlink() => copies(&path),
        _ => Vec::new(),
    });
    copies.collect()
}

/// Interrupts a download while the engine has a copy in `tmp_dir`.
fn interrupt_load(device: &mut Device, tmp_dir: &Path) {
    device.interrupt_download(TAG, &archive(TAG, "1", Mode::Healthy), || !copies(tmp_dir).is_empty());
    assert_eq!(copies(tmp_dir).len(), 1, "the load was not interrupted");
}

#[test]
fn the_copy_of_an_interrupted_load_is_removed_though_the_setting_has_changed() {
    let (mut device, tmp_dir) = with_tmp_dir("before");
    interrupt_load(&mut device, &tmp_dir);
    let copy = copies(&tmp_dir).remove(0);
    let directory = copy.parent().unwrap();
    let name = directory.file_name().unwrap().to_str().unwrap();
    assert_eq!(name.strip_prefix(PREFIX).map(str::len), Some(36), "a UUID makes {name} unguessable");
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    device.set("tmp_dir = \"/no/such/directory\"\n");
    device.ok("Cleanup");
    assert_eq!(fs::read_dir(&tmp_dir).unwrap().count(), 0);
    assert!(device.is_clean());
}

#[test]
fn a_boot_removes_the_copy_from_the_engine_s_default_directory() {
    let mut device = Device::new();
    let tmp_dir = device.client.device().to_owned();
    interrupt_load(&mut device, &tmp_dir);
    device.boot();
    assert!(copies(&tmp_dir).is_empty());
    let left: Vec<_> = fs::read_dir(&tmp_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(PREFIX)), "{left:?}");
    assert!(!device.is_clean(), "the rest is for the client's next call");
}

#[test]
fn all_images_of_an_update_are_loaded_through_one_directory() {
    let (mut device, tmp_dir) = with_tmp_dir("tmp");
    let [one_image, other] = [TAG, "localhost/other:1"].map(|tag| archive(tag, tag, Mode::Healthy));
    let mut meta_data = one("shop", TAG, &one_image.id);
    let second = json!({"file": "other.tar", "id": other.id, "ref": "localhost/other:1"});
    meta_data["images"].as_array_mut().unwrap().push(second);
    let files: [(_, &[u8]); 2] = [("app.tar", &one_image.content), ("other.tar", &other.content)];
    let outcome = device.download(&meta_data, &files);
    assert!(outcome.success() && device.has_image(&one_image) && device.has_image(&other), "{outcome:?}");
    assert_eq!(fs::read_dir(&tmp_dir).unwrap().count(), 0);
}

#[test]
fn a_load_leaves_nothing_whether_it_succeeds_or_not() {
    let (mut device, tmp_dir) = with_tmp_dir("tmp");
    let image = archive(TAG, "1", Mode::Healthy);
    let half = &image.content[..image.content.len() / 2];
    for (content, loads) in [(half, false), (&image.content, true)] {
        let outcome = device.download(&one("shop", TAG, &image.id), &[("app.tar", content)]);
        assert_eq!(outcome.success(), loads, "{outcome:?}");
        assert_eq!(fs::read_dir(&tmp_dir).unwrap().count(), 0);
    }
}

#[test]
fn every_update_has_its_own_directory_and_no_other_is_changed() {
    let (mut device, tmp_dir) = with_tmp_dir("tmp");
    let elsewhere = device.client.device().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("file"), "").unwrap();
    let others = [PREFIX.trim_end_matches('-').to_owned(), format!("{PREFIX}1")].map(|name| tmp_dir.join(name));
    others.iter().for_each(|path| symlink(&elsewhere, path).unwrap());
    interrupt_load(&mut device, &tmp_dir);
    let first = copies(&tmp_dir).remove(0);
    // The next download ends the previous update, and removes its directory.
    interrupt_load(&mut device, &tmp_dir);
    assert_ne!(copies(&tmp_dir).remove(0).parent(), first.parent());
    device.update("shop", TAG, "2");
    assert_eq!(fs::read_dir(&tmp_dir).unwrap().count(), others.len());
    assert!(others.iter().all(|path| path.is_symlink()));
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
}

#[test]
fn temporary_files_that_cannot_be_removed_are_logged_and_fail_nothing() {
    let (mut device, tmp_dir) = with_tmp_dir("tmp");
    // This program loads, and replaces the directory by a file.
    let script = "\"$mock\" \"$@\" || exit\n[ \"$2\" != load ] || { rm -r \"$TMPDIR\" && : > \"$TMPDIR\"; }";
    device.replace_program("podman", script);
    let image = archive(TAG, "1", Mode::Healthy);
    let outcome = device.download_one("shop", TAG, &image);
    let logged = "removing the engine's temporary files failed";
    assert!(outcome.success() && outcome.stderr.contains(logged), "{outcome:?}");
    device.all(&["ArtifactInstall", "ArtifactCommit"]);
    let outcome = device.client.call("Cleanup").unwrap();
    assert!(outcome.success() && outcome.stderr.contains(logged), "{outcome:?}");
    assert!(device.is_clean());
    assert_eq!(fs::read_dir(&tmp_dir).unwrap().count(), 1);
}

#[test]
fn a_missing_directory_in_podman_s_storage_is_made() {
    let mut device = Device::new();
    let tmp_dir = device.engine.directory().join("tmp");
    device.set(&format!("tmp_dir = {tmp_dir:?}\n"));
    device.update("shop", TAG, "1");
    assert_eq!(fs::read_dir(&tmp_dir).unwrap().count(), 0);
}

#[test]
fn the_message_about_a_missing_directory_has_the_remedy() {
    for (tmp_dir, expected) in [("/no/such/directory", "tmp_dir in"), ("tmp", "absolute")] {
        let mut device = Device::with(&format!("tmp_dir = {tmp_dir:?}\n"));
        refused(&device.download_one("shop", TAG, &archive(TAG, "1", Mode::Healthy)), expected);
    }
}

#[test]
fn an_update_without_a_load_directory_in_its_journal_goes_on() {
    let mut device = Device::new();
    let image = archive(TAG, "1", Mode::Healthy);
    assert!(device.download_one("shop", TAG, &image).success());
    let journal = device.state_directory().join("journal.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&journal).unwrap()).unwrap();
    let engine = record["change"]["engine"].as_object_mut().unwrap();
    assert!(engine.remove("scratch").is_some(), "{engine:?}");
    engine.insert("tmp_dir".into(), json!(null));
    fs::write(&journal, record.to_string()).unwrap();
    device.all(&["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
    assert_eq!(device.running("shop.web"), Some(image.id));
}

/// Downloads an image whose meta-data have the unpacked size `size`, and returns the message.
fn download_of_size(device: &mut Device, size: u64) -> String {
    let image = archive(TAG, "1", Mode::Healthy);
    let mut meta_data = one("shop", TAG, &image.id);
    meta_data["images"][0]["size"] = json!(size);
    let outcome = device.download(&meta_data, &[("app.tar", &image.content)]);
    refused(&outcome, "stay free");
    device.ok("Cleanup");
    outcome.stderr
}

#[test]
fn space_is_checked_on_every_file_system_that_is_written_to() {
    // This client does not know the sizes of archives.
    let mut device = Device::of(Generation::V3, "");
    let message = download_of_size(&mut device, 1 << 60);
    assert!(message.contains(&(3u64 << 60).to_string()), "one file system has to hold all: {message}");
    let free = message.split(" free").next().unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    // The image fits. Its copies do not: this file system holds no files.
    device.set("tmp_dir = \"/proc\"\n");
    let message = download_of_size(&mut device, free / 2);
    let demand = format!("not enough space in /proc: {} bytes needed, 0 free", free / 2 * 2);
    assert!(message.contains(&demand), "{message}");
}

#[test]
fn the_space_for_images_is_checked_beside_a_directory_with_enough_of_it() {
    let mut device = Device::new();
    let file_system = |path: &str| fs::metadata(path).map_or(0, |found| found.dev());
    let here = file_system(device.client.device().to_str().unwrap());
    let others = ["/dev/shm", env!("CARGO_TARGET_TMPDIR")];
    let Some(tmp_dir) = others.into_iter().find(|path| ![0, here].contains(&file_system(path))) else {
        return eprintln!("skipped: no second file system for temporary files");
    };
    device.set(&format!("tmp_dir = {tmp_dir:?}\nreserve_mib = 0\n"));
    // The copies of the archive are small, as this client announces.
    let message = download_of_size(&mut device, 1 << 60);
    assert!(message.contains(&format!("{} bytes needed", 1_u64 << 60)), "{message}");
}
