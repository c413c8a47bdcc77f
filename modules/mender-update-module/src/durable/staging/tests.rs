//! The place of a staging directory, and what of it is removed.

use std::fs as std_fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

fn staging(destination: &Path) -> Staging {
    Staging::beside(&Destination::find(destination).unwrap(), "m").unwrap()
}

fn again(staging: &Staging) -> Staging {
    serde_json::from_str(&serde_json::to_string(staging).unwrap()).unwrap()
}

#[test]
fn it_is_beside_the_destination_or_in_the_nearest_existing_directory() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    std_fs::create_dir(real.join("www")).unwrap();
    assert_eq!(staging(&real.join("www")).path(), real.join(".www.m"));
    assert_eq!(staging(&real.join("x/y/www")).path(), real.join(".www.m"));
    assert!(Staging::beside(&Destination::find(Path::new("/")).unwrap(), "m").is_err());
    assert_eq!(staging(Path::new("/proc")).path(), Path::new("/proc/.proc.m"), "a mount point");
    let long = real.join("n".repeat(NAME_MAX));
    let mut of_long = staging(&long);
    of_long.create(&[]).unwrap();
    of_long.remove().unwrap();
}

#[test]
fn an_existing_name_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    let planted = real.join(".www.m");
    type Plant = fn(&Path);
    let plants: [Plant; 3] = [
        |path| std_fs::write(path, "").unwrap(),
        |path| symlink("/", path).unwrap(),
        |path| {
            std_fs::create_dir(path).unwrap();
            std_fs::write(path.join("foreign"), "").unwrap();
        },
    ];
    for plant in plants {
        plant(&planted);
        let mut staging = staging(&real.join("www"));
        staging.create(&["new"]).unwrap();
        assert_ne!(staging.path(), planted);
        let staging = again(&staging);
        staging.child(&FileName::new("new").unwrap()).unwrap();
        staging.remove().unwrap();
        assert!(std_fs::symlink_metadata(&planted).is_ok());
        let _ = std_fs::remove_file(&planted);
    }
}

#[test]
fn a_replaced_directory_is_refused_and_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    let (path, new) = (real.join(".www.m"), FileName::new("new").unwrap());
    let mut made = staging(&real.join("www"));
    made.create(&["new"]).unwrap();
    let made = again(&made);
    let of_0_1_0: Staging = serde_json::from_value(serde_json::json!(path)).unwrap();
    of_0_1_0.open().unwrap();
    std_fs::rename(&path, real.join("aside")).unwrap();
    std_fs::create_dir_all(path.join("new")).unwrap();
    std_fs::write(path.join("new/foreign"), "").unwrap();
    for error in [made.open().map(drop), made.child(&new).map(drop), made.remove()] {
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("not trusted") || error.contains("replaced"), "{error}");
    }
    assert!(path.join("new/foreign").exists());
    std_fs::rename(&path, real.join("foreign")).unwrap();
    symlink("aside", &path).unwrap();
    assert!(made.open().is_err() && made.remove().is_err());
    std_fs::remove_file(&path).unwrap();
    made.remove().unwrap();
    std_fs::rename(real.join("aside"), &path).unwrap();
    std_fs::rename(path.join("new"), path.join("other")).unwrap();
    std_fs::create_dir(path.join("new")).unwrap();
    assert!(made.child(&new).is_err(), "the directory in it was replaced");
    made.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_directory_without_identity_is_removed_only_if_it_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    let before = again(&staging(&real.join("www")));
    let mut made = staging(&real.join("www"));
    made.create(&[]).unwrap();
    std_fs::write(made.path().join("file"), "").unwrap();
    before.remove().unwrap();
    assert!(made.path().exists());
    std_fs::remove_file(made.path().join("file")).unwrap();
    before.remove().unwrap();
    assert!(!made.path().exists());
}

#[test]
fn choosing_a_name_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    let mut other = staging(&real.join("www"));
    other.create(&["new", "old"]).unwrap();
    for _ in 0..2 {
        let mut another = staging(&real.join("www"));
        another.create(&["new"]).unwrap();
        assert_ne!(another.path(), other.path());
    }
    other.child(&FileName::new("old").unwrap()).unwrap();
    std_fs::write(other.path().join("old/kept"), "").unwrap();
    let unmade = Staging { made: Made::No, ..other };
    unmade.remove().unwrap();
    assert!(real.join(".www.m/new").exists(), "the empty one of two was removed");
}

#[test]
fn empty_directories_of_an_update_that_is_not_in_the_journal_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    let before = again(&staging(&real.join("www")));
    let mut made = staging(&real.join("www"));
    made.create(&["new", "old"]).unwrap();
    before.remove().unwrap();
    assert!(!made.path().exists());
}

#[test]
fn the_times_of_a_destination_that_contains_it_are_restored() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    let opened = Dir::open(&real).unwrap();
    let before = super::super::Times::at((7, 8));
    for inside in [true, false] {
        let mut staging = Staging { inside, ..staging(&real.join("www")) };
        opened.set_times(before).unwrap();
        staging.create(&["new"]).unwrap();
        assert_eq!(opened.times().unwrap() == before, inside);
        opened.set_times(before).unwrap();
        staging.remove().unwrap();
        assert_eq!(opened.times().unwrap() == before, inside);
    }
}
