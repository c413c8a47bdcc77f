//! Refused artifacts and settings, and the messages about them.

use std::fs;

use serde_json::json;
use test_image::Mode;

use crate::device::{Device, archive, one, refused};

const TAG: &str = "localhost/shop:1";

#[test]
fn invalid_meta_data_are_refused_before_an_image_is_loaded() {
    let mut device = Device::new();
    let image = archive(TAG, "1", Mode::Healthy);
    let good = one("shop", TAG, &image.id);
    let with = |key: &str, value| {
        let mut changed = good.clone();
        changed[key] = value;
        changed
    };
    for (meta_data, expected) in [
        (json!(null), "no meta-data"),
        (with("project", json!("../etc")), "../etc"),
        (with("images", json!([])), "no images"),
        (with("images", json!([{"id": "latest", "ref": TAG}])), "invalid image ID"),
        (with("images", json!([{"id": image.id, "ref": "--all"}])), "reference"),
        (with("images", json!([{"id": image.id, "ref": TAG}, {"id": "0".repeat(64), "ref": TAG}])), "has two IDs"),
        (
            with("images", json!([{"id": image.id, "ref": "a:1"}, {"id": "0".repeat(64), "ref": "localhost/a:1"}])),
            "has two IDs",
        ),
        (with("images", json!([{"id": image.id, "ref": "localhost/mender-kept/shop:1"}])), "reserved for this module"),
        (with("images", json!(vec![json!({"id": image.id, "ref": TAG}); 101])), "more than 100"),
        (with("profiles", json!(["x"])), "profiles"),
        (with("padding", json!("x".repeat(2 << 20))), "larger than"),
        (with("compose", json!("compose.yaml")), "exactly one"),
        (with("run", json!(null)), "exactly one"),
        (with("run", json!({"web": {"image": TAG, "privileged": true}})), "privileged"),
    ] {
        let outcome = device.download(&meta_data, &[("app.tar", &image.content)]);
        refused(&outcome, expected);
        assert!(!device.has_image(&image), "{meta_data}");
        device.ok("Cleanup");
    }
}

#[test]
fn a_definition_that_cannot_run_is_refused_and_leaves_nothing() {
    let mut device = Device::new();
    let before = device.engine_state();
    let image = archive(TAG, "1", Mode::Healthy);
    for (run, expected) in [
        (json!({}), "no services"),
        (json!({"web": {"image": "localhost/other:1"}}), "neither in the artifact nor on the device"),
        (json!({"web": {"image": TAG, "after": ["db"]}}), "after db"),
        (json!({"web": {"image": TAG, "after": ["web"]}}), "circular dependency"),
        (json!({"a": {"image": TAG, "after": ["b"]}, "b": {"image": TAG, "after": ["a"]}}), "circular dependency"),
        (json!({"web": {"image": TAG, "volumes": ["./data:/data"]}}), "named volume"),
        (json!({"web": {"image": TAG, "options": ["-v", "data/x:/data"]}}), "named volume"),
        (json!({"web": {"image": TAG, "command": ["a\nb"]}}), "control character"),
    ] {
        let mut meta_data = one("shop", TAG, &image.id);
        meta_data["run"] = run;
        refused(&device.download(&meta_data, &[("app.tar", &image.content)]), expected);
        device.ok("Cleanup");
        assert_eq!(device.engine_state(), before, "{meta_data}");
    }
    let files: [(&str, &[u8]); 2] = [("app.tar", &image.content), ("notes.txt", b"x")];
    refused(&device.download(&one("shop", TAG, &image.id), &files), "notes.txt");
    device.ok("Cleanup");
    refused(&device.download(&one("shop", TAG, &image.id), &[]), "nor in the artifact's file \"app.tar\"");
}

#[test]
fn the_message_about_a_missing_or_stopped_engine_has_the_remedy() {
    let mut device = Device::new();
    let image = archive(TAG, "1", Mode::Healthy);
    device.client.set("container", "engine = \"/no/such/podman\"\n").unwrap();
    refused(&device.download_one("shop", TAG, &image), "install it");
    // This program fails with any arguments, as docker does without its service.
    std::os::unix::fs::symlink("/bin/false", device.client.device().join("docker")).unwrap();
    let docker = device.client.device().join("docker");
    device.client.set("container", &format!("engine = {docker:?}\n")).unwrap();
    refused(&device.download_one("shop", TAG, &image), "systemctl start docker.service");
}

/// The units of podman's generator run podman without them: with `--root`, they would not find the image.
#[test]
fn quadlets_are_refused_where_the_engine_has_options() {
    let mut device = Device::new();
    let settings = device.client.settings().join("container.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replacen("engine = [", "engine = [\"env\", \"--unset=X\", ", 1)).unwrap();
    let image = archive(TAG, "1", Mode::Healthy);
    let mut meta_data = one("shop", TAG, &image.id);
    meta_data["run"] = json!(null);
    meta_data["quadlet"] = json!(["web.container"]);
    let quadlet = format!("[Container]\nImage={TAG}\n");
    let files: [(&str, &[u8]); 2] = [("web.container", quadlet.as_bytes()), ("app.tar", &image.content)];
    refused(&device.download(&meta_data, &files), "options of engine");
}

#[test]
fn the_message_about_a_missing_compose_provider_has_the_remedy() {
    let mut device = Device::new();
    let image = archive(TAG, "1", Mode::Healthy);
    let mut meta_data = one("shop", TAG, &image.id);
    meta_data["run"] = json!(null);
    meta_data["compose"] = json!("compose.yaml");
    let files: [(&str, &[u8]); 2] =
        [("compose.yaml", b"services: {web: {image: 'localhost/shop:1'}}\n"), ("app.tar", &image.content)];
    refused(&device.download(&meta_data, &files), "podman-compose");
}

#[test]
fn sizes_that_overflow_are_refused_as_too_large() {
    let mut device = Device::new();
    let image = archive(TAG, "1", Mode::Healthy);
    for sizes in [[u64::MAX, u64::MAX], [1 << 63, 1 << 63]] {
        let mut meta_data = one("shop", TAG, &image.id);
        meta_data["images"] = sizes.iter().enumerate().map(|(number, size)| {
            json!({"file": "app.tar", "id": image.id, "ref": format!("localhost/shop:{number}"), "size": size})
        }).collect();
        refused(&device.download(&meta_data, &[("app.tar", &image.content)]), "free some space");
        device.ok("Cleanup");
    }
    device.set("reserve_mib = 17592186044415\n");
    refused(&device.download_one("shop", TAG, &image), "free some space");
    device.ok("Cleanup");
    device.set("reserve_mib = 9223372036854775807\n");
    refused(&device.download_one("shop", TAG, &image), "reserve_mib");
}

#[test]
fn a_unit_of_another_program_is_not_overwritten() {
    let mut device = Device::new();
    let units = device.client.device().join("units");
    let unit = units.join("mender-shop.web.service");
    fs::create_dir(units).unwrap();
    fs::write(&unit, "of another program").unwrap();
    refused(&device.download_one("shop", TAG, &archive(TAG, "1", Mode::Healthy)), "not a unit of this project");
    device.ok("Cleanup");
    assert_eq!(fs::read_to_string(&unit).unwrap(), "of another program");
}

#[test]
fn the_name_of_another_container_is_refused() {
    let mut device = Device::new();
    let other = "1".repeat(64);
    device.engine.add_image(&other, "healthy").unwrap();
    device.engine.start("shop.web", &other).unwrap();
    // No container has a label of the project.
    device.replace_program("podman", "case \"$*\" in *--filter=label=*) exit 0 ;; esac\nexec \"$mock\" \"$@\"");
    let new = archive(TAG, "1", Mode::Healthy);
    refused(&device.download_one("shop", TAG, &new), "container name in use: shop.web");
    device.ok("Cleanup");
    assert_eq!(device.running("shop.web"), Some(other));
}
