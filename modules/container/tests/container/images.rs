//! Images that an update loads into the engine and removes from it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::json;
use test_image::{Image, Mode};

use crate::device::{Device, archive, one, refused};

const TAG: &str = "localhost/shop:latest";

#[test]
fn an_image_with_another_id_than_in_the_meta_data_is_removed_again() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let before = device.engine_state();
    let (expected, loaded) = (archive(TAG, "2", Mode::Healthy), archive(TAG, "3", Mode::Healthy));
    let outcome = device.download(&one("shop", TAG, &expected.id), &[("app.tar", &loaded.content)]);
    refused(&outcome, &format!("image missing: {}", expected.id));
    let removed = format!("unexpected image in \"app.tar\": {}", loaded.id);
    assert!(outcome.stderr.contains(&removed), "{removed:?} is missing in {}", outcome.stderr);
    device.ok("Cleanup");
    assert_eq!(device.engine_state(), before);
    assert!(device.is_clean());
}

#[test]
fn a_truncated_download_changes_nothing() {
    let mut device = Device::new();
    device.update("shop", TAG, "1");
    let before = device.engine_state();
    let new = archive(TAG, "2", Mode::Healthy);
    let half = &new.content[..new.content.len() / 2];
    let outcome = device.download(&one("shop", TAG, &new.id), &[("app.tar", half)]);
    refused(&outcome, "loading \"app.tar\" failed");
    device.ok("Cleanup");
    assert_eq!(device.engine_state(), before);
}

/// Lets the engine get two images from another program while it loads an archive: `other:1`, and one without a name,
/// as a build has. Returns their IDs.
fn others_during_a_load(device: &Device) -> [String; 2] {
    let ids = ["1", "2"].map(|digit| digit.repeat(64));
    let add = ids.each_ref().map(|id| format!("printf healthy > \"$1/images/{id}\"")).join("; ");
    let script = format!(
        "case \" $* \" in *' load '*) mkdir -p \"$1/images\" \"$1/tags\"; {add}; printf {} > \"$1/tags/other:1\" ;; esac\n\
         exec \"$mock\" \"$@\"",
        ids[0]
    );
    device.replace_program("podman", &script);
    ids
}

#[test]
fn an_image_that_another_program_adds_during_a_load_is_kept() {
    let new = archive(TAG, "1", Mode::Healthy);
    let wrong = archive(TAG, "2", Mode::Healthy);
    for content in [&new.content, &new.content[..new.content.len() / 2], &wrong.content] {
        let mut device = Device::new();
        let others = others_during_a_load(&device);
        let outcome = device.download(&one("shop", TAG, &new.id), &[("app.tar", content)]);
        assert_eq!(outcome.success(), *content == new.content, "{outcome:?}");
        device.ok("Cleanup");
        assert!(!outcome.stderr.contains(&others[0][..12]), "{outcome:?}");
        let (_, tags, images) = device.engine_state();
        assert_eq!(tags, [("other:1".to_owned(), others[0].clone())], "{outcome:?}");
        assert_eq!(images.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), others, "{outcome:?}");
    }
}

#[test]
fn another_image_in_an_archive_is_removed_also_if_the_engine_gives_it_no_name() {
    let mut device = Device::new();
    let script = "\"$mock\" \"$@\" || exit\n\
                  case \" $* \" in *' load '*) rm \"$1\"/tags/localhost+mender-loaded+shop:*; rmdir \"$1/tags\" ;; esac";
    device.replace_program("podman", script);
    let before = device.engine_state();
    let (expected, loaded) = (archive(TAG, "2", Mode::Healthy), archive(TAG, "3", Mode::Healthy));
    let outcome = device.download(&one("shop", TAG, &expected.id), &[("app.tar", &loaded.content)]);
    refused(&outcome, &format!("unexpected image in \"app.tar\": {}", loaded.id));
    device.ok("Cleanup");
    assert_eq!(device.engine_state(), before);
}

#[test]
fn a_name_that_another_program_gives_an_unexpected_image_is_kept() {
    let mut device = Device::new();
    let (expected, loaded) = (archive(TAG, "2", Mode::Healthy), archive(TAG, "3", Mode::Healthy));
    let script = format!(
        "\"$mock\" \"$@\" || exit\ncase \" $* \" in *' load '*) \"$mock\" \"$1\" tag {} other:1 ;; esac",
        loaded.id
    );
    device.replace_program("podman", &script);
    refused(&device.download(&one("shop", TAG, &expected.id), &[("app.tar", &loaded.content)]), "unexpected image");
    device.ok("Cleanup");
    assert_eq!(device.engine_state().1, [("other:1".to_owned(), loaded.id)]);
}

#[test]
fn an_image_with_a_name_from_elsewhere_is_kept() {
    let mut device = Device::new();
    let previous = device.update("shop", TAG, "1");
    device.engine.tag(&previous.id, "example.org/mine:1").unwrap();
    device.update("shop", TAG, "2");
    assert!(device.has_image(&previous));
    let tags = device.engine.tags().unwrap();
    let names: Vec<_> = tags.iter().filter(|(_, id)| *id == previous.id).map(|(tag, _)| tag.as_str()).collect();
    assert_eq!(names, ["example.org/mine:1"]);
}

#[test]
fn an_image_of_another_container_is_kept() {
    let mut device = Device::new();
    let previous = device.update("shop", TAG, "1");
    device.engine.start("mine", &previous.id).unwrap();
    device.update("shop", TAG, "2");
    assert!(device.has_image(&previous) && device.is_clean());
    assert_eq!(device.running("mine"), Some(previous.id));
}

#[test]
fn space_is_checked_before_anything_is_loaded() {
    let mut device = Device::with("reserve_mib = 1000000000\n");
    let new = archive(TAG, "1", Mode::Healthy);
    refused(&device.download_one("shop", TAG, &new), "stay free");
    assert!(!device.has_image(&new));
}

#[test]
fn space_is_checked_for_the_files_of_an_artifact_without_images() {
    let mut device = Device::with("reserve_mib = 1000000000\n");
    let image = archive(TAG, "1", Mode::Healthy);
    device.engine.add_image(&image.id, "healthy").unwrap();
    let file = device.client.device().join("app.conf");
    fs::write(&file, "x").unwrap();
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--directory").arg(device.client.device()).arg("app.conf");
    let files = tar.output().unwrap().stdout;
    let meta_data = json!({
        "project": "shop",
        "images": [{"id": image.id, "ref": TAG}],
        "run": {"web": {"image": TAG, "volumes": ["./app.conf:/app.conf:ro"]}},
        "archive": "files.tar",
    });
    refused(&device.download(&meta_data, &[("files.tar", &files)]), "stay free");
    device.ok("Cleanup");
    device.set("");
    assert!(device.download(&meta_data, &[("files.tar", &files)]).success());
}

#[test]
fn a_rollback_keeps_an_image_that_was_on_the_device_before() {
    let mut device = Device::new();
    let (name, image) = ("localhost/mine:1", archive("localhost/mine:1", "1", Mode::Healthy));
    device.engine.add_image(&image.id, "healthy").unwrap();
    device.engine.tag(&image.id, name).unwrap();
    let before = device.engine_state();
    let meta_data = json!({
        "project": "shop",
        "images": [{"id": image.id, "ref": name}],
        "run": {"web": {"image": name}},
    });
    assert!(device.download(&meta_data, &[]).success());
    device.all(&["ArtifactInstall", "ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert_eq!(device.engine_state(), before);
}

#[test]
fn an_image_that_had_no_name_before_has_none_after_a_rollback_or_a_refused_download() {
    for image_of_service in ["localhost/mine:1", "localhost/missing:1"] {
        let mut device = Device::new();
        let image = archive("localhost/mine:1", "1", Mode::Healthy);
        device.engine.add_image(&image.id, "healthy").unwrap();
        let before = device.engine_state();
        let meta_data = json!({
            "project": "shop",
            "images": [{"id": image.id, "ref": "localhost/mine:1"}],
            "run": {"web": {"image": image_of_service}},
        });
        if device.download(&meta_data, &[]).success() {
            device.all(&["ArtifactInstall", "ArtifactRollback", "ArtifactFailure"]);
        }
        device.ok("Cleanup");
        assert_eq!(device.engine_state(), before);
        device.update("shop", TAG, "2");
        assert!(device.has_image(&image), "the next update has removed it");
    }
}

#[test]
fn a_users_name_of_an_image_that_both_versions_have_stays() {
    let mut device = Device::new();
    let image = archive(TAG, "1", Mode::Healthy);
    device.engine.add_image(&image.id, "healthy").unwrap();
    device.engine.tag(&image.id, TAG).unwrap();
    for _ in 0..3 {
        assert!(device.download_one("shop", TAG, &image).success());
        device.all(&["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
        let tags = device.engine.tags().unwrap();
        assert!(tags.contains(&(TAG.to_owned(), image.id.clone())), "{tags:?}");
    }
}

#[test]
fn an_image_that_had_no_name_before_is_kept_by_a_rollback_that_restores_its_name_to_another_image() {
    let mut device = Device::new();
    let [unnamed, named] = ["1", "2"].map(|version| archive("localhost/mine:1", version, Mode::Healthy));
    device.engine.add_image(&unnamed.id, "healthy").unwrap();
    device.engine.add_image(&named.id, "healthy").unwrap();
    device.engine.tag(&named.id, "localhost/mine:1").unwrap();
    let before = device.engine_state();
    assert!(device.download_one("shop", "localhost/mine:1", &unnamed).success());
    device.all(&["ArtifactInstall", "ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert_eq!(device.engine_state(), before);
}

/// Lets the engine give the image `id` the temporary names with these `keys` while it loads an archive, as if the
/// archive had it under them.
fn loaded_too(device: &Device, id: &str, keys: &[&str]) {
    let tag = keys.iter().map(|key| format!("\"$mock\" \"$1\" tag {id} localhost/mender-loaded/shop:{key}"));
    let tag = tag.collect::<Vec<_>>().join(" && ");
    device.replace_program("podman", &format!("\"$mock\" \"$@\" || exit\ncase \" $* \" in *' load '*) {tag} ;; esac"));
}

#[test]
fn an_image_that_had_no_name_before_is_kept_if_an_archive_has_it_twice() {
    let mut device = Device::new();
    let (unnamed, new) = (archive(TAG, "1", Mode::Healthy), archive(TAG, "2", Mode::Healthy));
    device.engine.add_image(&unnamed.id, "healthy").unwrap();
    loaded_too(&device, &unnamed.id, &["1", "2"]);
    assert!(device.download_one("shop", TAG, &new).success());
    assert!(device.has_image(&unnamed));
}

#[test]
fn a_download_leaves_only_the_names_and_files_of_the_update() {
    let mut device = Device::new();
    let staged = device.state_directory().join("staging/shop");
    fs::create_dir_all(&staged).unwrap();
    fs::write(staged.join("of-an-earlier-download.service"), "").unwrap();
    let image = archive(TAG, "1", Mode::Healthy);
    let outcome = device.download_one("shop", TAG, &image);
    assert!(outcome.success(), "{outcome:?}");
    let tags = device.engine.tags().unwrap();
    let is_of_update = |(name, id): &(String, String)| {
        *id == image.id && (name == TAG || name.starts_with("localhost/mender-kept/shop:"))
    };
    assert!(tags.len() == 2 && tags.iter().all(is_of_update), "{tags:?}");
    let names = fs::read_dir(&staged).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let expected = ["mender-shop.web.service", "project.json"].map(str::to_owned);
    assert_eq!(BTreeSet::from_iter(names), expected.into());
}

#[test]
fn an_image_of_the_device_that_a_service_uses_gets_a_name_that_keeps_it() {
    let mut device = Device::new();
    let (base, image) = (archive("localhost/base:1", "1", Mode::Healthy), archive(TAG, "2", Mode::Healthy));
    device.engine.add_image(&base.id, "healthy").unwrap();
    device.engine.tag(&base.id, "localhost/base:1").unwrap();
    let mut meta_data = one("shop", TAG, &image.id);
    meta_data["run"]["base"] = json!({"image": "localhost/base:1"});
    let outcome = device.download(&meta_data, &[("app.tar", &image.content)]);
    assert!(outcome.success(), "{outcome:?}");
    let tags = device.engine.tags().unwrap();
    let is_kept = |(name, id): &(String, String)| *id == base.id && name.starts_with("localhost/mender-kept/shop:");
    assert!(tags.iter().any(is_kept), "{tags:?}");
}

/// The client fails a download of which the module closes a stream before its end.
#[test]
fn the_archive_of_an_image_that_is_already_on_the_device_is_read_to_its_end() {
    let mut device = Device::new();
    let executable = vec![0; 1 << 20]; // more than a FIFO holds
    let image =
        Image { reference: TAG, version: "1", mode: Mode::Healthy, architecture: "amd64", executable: &executable };
    let image = image.archive();
    device.engine.add_image(&image.id, "healthy").unwrap();
    let outcome = device.download_one("shop", TAG, &image);
    assert!(outcome.success(), "{outcome:?}");
}

/// As docker does, and podman if the image has no other name: it lists the name with the digest without that, and an
/// image that has only this name is removed by its ID.
#[test]
fn an_image_with_a_name_from_elsewhere_that_has_a_digest_is_kept() {
    let mut device = Device::new();
    let previous = device.update("shop", TAG, "1");
    let name = "example.org/mine@sha256";
    device.engine.tag(&previous.id, name).unwrap();
    let script = format!(
        "case \" $* \" in *' images '*) \"$mock\" \"$@\" | sed 's/@sha256$/:<none>/'; exit ;;\n\
         *' rmi --no-prune {0} '*) \"$mock\" \"$1\" untag {0} {name} ;; esac\nexec \"$mock\" \"$@\"",
        previous.id
    );
    device.replace_program("podman", &script);
    device.update("shop", TAG, "2");
    assert!(device.has_image(&previous));
    let tags = device.engine.tags().unwrap();
    let names: Vec<_> = tags.iter().filter(|(_, id)| *id == previous.id).map(|(tag, _)| tag.as_str()).collect();
    assert_eq!(names, [name]);
}

#[test]
fn a_rollback_leaves_no_temporary_name_of_an_image_that_gets_its_name_back() {
    let mut device = Device::new();
    let (previous, new) = (archive(TAG, "1", Mode::Healthy), archive(TAG, "2", Mode::Healthy));
    device.engine.add_image(&previous.id, "healthy").unwrap();
    device.engine.tag(&previous.id, TAG).unwrap();
    let before = device.engine_state();
    loaded_too(&device, &previous.id, &["1"]);
    assert!(device.download_one("shop", TAG, &new).success());
    device.all(&["ArtifactInstall", "ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert_eq!(device.engine_state(), before);
}

/// As podman and docker do without the option `--no-prune`: with an image, they remove its parent without a name.
#[test]
fn an_image_without_a_name_from_which_the_new_one_is_made_is_kept() {
    let mut device = Device::new();
    let (parent, new) = (archive(TAG, "1", Mode::Healthy), archive(TAG, "2", Mode::Healthy));
    device.engine.add_image(&parent.id, "healthy").unwrap();
    let before = device.engine_state();
    let script = format!(
        "case \" $* \" in *' --no-prune '*) ;; *' rmi '*) rm -f \"$1/images/{}\" ;; esac\nexec \"$mock\" \"$@\"",
        parent.id
    );
    device.replace_program("podman", &script);
    assert!(device.download_one("shop", TAG, &new).success());
    device.all(&["ArtifactInstall", "ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    assert_eq!(device.engine_state(), before);
}
