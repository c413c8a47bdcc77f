//! The containers of a compose project: their health, and those of a user's project with the same name.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use mender_update_module_test::Outcome;
use serde_json::{Value, json};
use test_image::Mode;

use crate::device::{Device, archive, mocks, refused};

const TAG: &str = "localhost/shop:1";

/// systemctl, for units that are active.
const SYSTEMCTL: &str = r#"case "$*" in *" show "*) printf 'ActiveState=active\nNRestarts=0\n' ;; esac"#;

/// A device whose engine has the containers in the file `containers`, one a line: name, status, exit code, result of
/// the health check, and number of restarts by the engine; `@` for another one at each call. All have the labels of
/// compose in the file `labels`. They have to be healthy for `stable` seconds.
fn device(stable: u64) -> Device {
    let device = Device::new();
    let directory = device.client.device().to_owned();
    let script = directory.join("podman.sh");
    set(&device, "", "null");
    // The provider accepts every file.
    let text = format!(
        r#"cd '{directory}'
case "$*" in
compose*) ;;
*--filter=label=io.mender*) ;;
'ps --all'*) cut -d' ' -f1 containers ;;
'container inspect '*)
    while read -r name status code health restarts; do
        test "$name" = "$3" || continue
        test "$restarts" != @ || restarts=$(date +1%N)
        printf '[{{"Id": "%s", "RestartCount": %s, "Config": {{"Labels": %s}},
            "State": {{"Status": "%s", "ExitCode": %s, "Health": {{"Status": "%s"}}}}}}]' \
            "$name" "$restarts" "$(cat labels)" "$status" "$code" "$health"
    done < containers ;;
*) exec '{podman}' '{state}' "$@" ;;
esac
"#,
        directory = directory.display(),
        podman = mocks().join("fake-podman").display(),
        state = device.engine.directory().display(),
    );
    fs::write(&script, text).unwrap();
    let settings = format!(
        "engine = [\"/bin/sh\", {script:?}]\nsystemctl = [\"/bin/sh\", \"-c\", {SYSTEMCTL:?}, \"systemctl\"]\n\
         units_dir = {:?}\nstable_seconds = {stable}\nhealth_seconds = {}\n",
        directory.join("units"),
        stable + 1
    );
    device.client.set("container", &settings).unwrap();
    device
}

/// Lets the engine have `containers` with `labels`, in JSON.
fn set(device: &Device, containers: &str, labels: &str) {
    for (file, content) in [("containers", containers), ("labels", labels)] {
        fs::write(device.client.device().join(file), content).unwrap();
    }
}

/// Downloads the project shop with `definition`, a part of its meta-data.
fn download(device: &mut Device, definition: Value) -> Outcome {
    let image = archive(TAG, "1", Mode::Healthy);
    let mut meta_data = definition;
    meta_data["project"] = json!("shop");
    meta_data["images"] = json!([{"file": "app.tar", "id": image.id, "ref": TAG}]);
    let text = format!(
        "services: {{web: {{image: '{TAG}'}}, db: {{image: '{TAG}'}}, \
         debug: {{image: 'vendor/debug:1', profiles: [debug]}}}}\n"
    );
    let mut files: Vec<(&str, &[u8])> = vec![("app.tar", &image.content)];
    if meta_data.get("compose").is_some() {
        files.push(("compose.yaml", text.as_bytes()));
    }
    device.download(&meta_data, &files)
}

fn compose() -> Value {
    json!({"compose": "compose.yaml"})
}

/// Installs a compose project whose containers are `containers`, and have to be healthy for `stable` seconds.
fn install(containers: &str, stable: u64) -> (Device, Outcome) {
    let mut device = device(stable);
    let outcome = download(&mut device, compose());
    assert!(outcome.success(), "{outcome:?}");
    set(&device, containers, "null");
    let outcome = device.client.call("ArtifactInstall").unwrap();
    (device, outcome)
}

/// A provider also activates the profiles that a file `.env` names.
#[test]
fn nothing_is_pulled_for_a_service_whose_profile_is_not_active() {
    let (device, outcome) = install("shop-web-1 running 0 healthy 0\n", 0);
    assert!(outcome.success(), "{outcome:?}");
    let images = fs::read_to_string(device.state_directory().join("projects/shop/images.json")).unwrap();
    let images: Value = serde_json::from_str(&images).unwrap();
    assert_eq!(images["services"]["debug"], json!({"pull_policy": "never"}), "{images}");
}

/// The labels that compose gives the containers of the project shop, whose files are in `directory`.
fn labels(directory: &Path) -> String {
    json!({"com.docker.compose.project": "shop", "com.docker.compose.project.working_dir": directory}).to_string()
}

#[test]
fn the_name_of_a_users_compose_project_is_refused_in_the_first_install() {
    let mut device = device(0);
    let similar = device.state_directory().join("projects/shop2/files");
    for labels in [labels(Path::new("/root/mine")), labels(&similar), "{}".to_owned(), "null".to_owned()] {
        set(&device, "mine exited 0 none 0\n", &labels);
        let outcome = download(&mut device, compose());
        refused(&outcome, "compose project name in use: shop: by the container mine");
        device.ok("Cleanup");
        assert!(device.is_clean(), "{labels}");
    }
    // A container_name, or the name of a service of the form run.
    set(&device, "shop.web running 0 none 0\n", &labels(Path::new("/root/mine")));
    let run = json!({"run": {"web": {"image": TAG}}});
    refused(&download(&mut device, run), "container name in use: shop.web");
}

#[test]
fn containers_that_an_interrupted_first_install_has_left_are_accepted() {
    let mut device = device(0);
    let files = device.state_directory().join("projects/shop/files");
    // podman-compose resolves symlinks.
    let (datastore, aside) = (device.client.datastore().to_owned(), device.client.device().join("aside"));
    let real = aside.join(files.strip_prefix(&datastore).unwrap());
    fs::create_dir(&aside).unwrap();
    symlink(&aside, &datastore).unwrap();
    for directory in [files, real] {
        set(&device, "shop-web-1 running 0 none 0\n", &labels(&directory));
        let outcome = download(&mut device, compose());
        assert!(outcome.success(), "{outcome:?}");
        device.ok("Cleanup");
    }
}

/// The compose files of earlier versions of the module may have been elsewhere, for example on another mount.
#[test]
fn containers_of_a_project_that_is_installed_block_no_update() {
    let (mut device, outcome) = install("shop-web-1 running 0 none 0\n", 0);
    assert!(outcome.success(), "{outcome:?}");
    device.all(&["ArtifactCommit", "Cleanup"]);
    set(&device, "shop-web-1 running 0 none 0\n", &labels(Path::new("/elsewhere/shop/files")));
    let outcome = download(&mut device, compose());
    assert!(outcome.success(), "{outcome:?}");
}

#[test]
fn a_container_that_runs_or_has_succeeded_is_healthy_and_no_other() {
    for (containers, expected) in [
        ("shop-web-1 running 0 none 0\nshop-db-1 exited 1 none 0\n", "container shop-db-1: status exited"),
        ("shop-web-1 running 0 healthy 0\nshop-db-1 running 0 starting 0\n", "shop-db-1: health check: starting"),
        ("", "no containers yet"),
    ] {
        let (device, outcome) = install(containers, 0);
        refused(&outcome, expected);
        device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    }
    let (device, outcome) = install("shop-web-1 running 0 healthy 3\nshop-migrate-1 exited 0 none 0\n", 0);
    assert!(outcome.success(), "{outcome:?}");
    device.all(&["ArtifactCommit", "Cleanup"]);
}

#[test]
fn a_container_that_the_engine_restarts_again_and_again_is_not_healthy() {
    let (device, outcome) = install("shop-web-1 running 0 none @\n", 1);
    refused(&outcome, "not healthy for 1s within 2s");
    device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
}
