//! What an artifact brings to the engine, and what is taken away again.

use test_image::Mode;

use crate::device::{Device, archive, one, refused};

const TAG: &str = "localhost/shop:latest";

#[test]
fn an_image_with_another_id_than_the_meta_data_say_is_taken_away_again() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let before = device.live();
    let (promised, brought) = (archive(TAG, "2", Mode::Well), archive(TAG, "3", Mode::Well));
    let outcome = device.download(&one("shop", TAG, &promised.id), &[("app.tar", &brought.content)]);
    refused(&outcome, &promised.id);
    device.ok("Cleanup");
    assert_eq!(device.live(), before);
    assert!(device.is_clean());
}

#[test]
fn a_download_that_is_cut_leaves_exactly_what_was_there() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let before = device.live();
    let new = archive(TAG, "2", Mode::Well);
    let half = &new.content[..new.content.len() / 2];
    let outcome = device.download(&one("shop", TAG, &new.id), &[("app.tar", half)]);
    refused(&outcome, "loading \"app.tar\"");
    device.ok("Cleanup");
    assert_eq!(device.live(), before);
}

#[test]
fn an_image_that_somebody_has_named_stays() {
    let mut device = Device::new();
    let old = device.update("shop", TAG, "1");
    device.engine.tag(&old.id, "example.org/mine:1").unwrap();
    device.update("shop", TAG, "2");
    assert!(device.has_image(&old));
    let tags = device.engine.tags().unwrap();
    let names: Vec<_> = tags.iter().filter(|(_, id)| *id == old.id).map(|(tag, _)| tag.as_str()).collect();
    assert_eq!(names, ["example.org/mine:1"]);
}

#[test]
fn an_image_that_a_container_of_somebody_needs_stays() {
    let mut device = Device::new();
    let old = device.update("shop", TAG, "1");
    device.engine.start("mine", &old.id).unwrap();
    device.update("shop", TAG, "2");
    assert!(device.has_image(&old) && device.is_clean());
    assert_eq!(device.running("mine"), Some(old.id));
}

#[test]
fn space_is_checked_before_anything_is_loaded() {
    let mut device = Device::with("reserve_mib = 1000000000\n");
    let new = archive(TAG, "1", Mode::Well);
    refused(&device.download_one("shop", TAG, &new), "stay in reserve");
    assert!(!device.has_image(&new));
}
