//! The health check of a compose project: the engine reports other containers than the services that it started.

use std::fs;

use mender_update_module_test::Outcome;
use serde_json::json;
use test_image::Mode;

use crate::device::{Device, archive, mocks, refused};

const TAG: &str = "localhost/shop:1";

/// systemctl, for units that are active.
const SYSTEMCTL: &str = r#"case "$*" in *" show "*) printf 'ActiveState=active\nNRestarts=0\n' ;; esac"#;

/// Installs a compose project of which the engine lists `containers`, one a line: name, status, exit code, result of
/// the health check, and number of restarts by the engine; `@` for another one at each call. They have to be healthy
/// for `stable` seconds.
fn install(containers: &str, stable: u64) -> (Device, Outcome) {
    let mut device = Device::new();
    let directory = device.client.device().to_owned();
    let (list, script) = (directory.join("containers"), directory.join("podman.sh"));
    fs::write(&list, containers).unwrap();
    // The provider accepts every file.
    let text = format!(
        r#"case "$1 $2" in
compose*) ;;
'ps --all') cut -d' ' -f1 '{list}' ;;
'container inspect') sed -n "s/^$3 \(.*\) \(.*\) \(.*\) \(.*\)/\
    [{{\"Id\": \"$3\", \"RestartCount\": \4, \"State\": \
    {{\"Status\": \"\1\", \"ExitCode\": \2, \"Health\": {{\"Status\": \"\3\"}}}}}}]/p" '{list}' |
    sed "s/@/$(date +1%N)/" ;;
*) exec '{podman}' '{state}' "$@" ;;
esac
"#,
        list = list.display(),
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
    let image = archive(TAG, "1", Mode::Healthy);
    let meta_data = json!({
        "project": "shop",
        "images": [{"file": "app.tar", "id": image.id, "ref": TAG}],
        "compose": "compose.yaml",
    });
    let definition = format!(
        "services: {{web: {{image: '{TAG}'}}, db: {{image: '{TAG}'}}, \
         debug: {{image: 'vendor/debug:1', profiles: [debug]}}}}\n"
    );
    let files: [(&str, &[u8]); 2] = [("app.tar", &image.content), ("compose.yaml", definition.as_bytes())];
    let outcome = device.download(&meta_data, &files);
    assert!(outcome.success(), "{outcome:?}");
    let outcome = device.client.call("ArtifactInstall").unwrap();
    (device, outcome)
}

/// A provider also activates the profiles that a file `.env` names.
#[test]
fn nothing_is_pulled_for_a_service_whose_profile_is_not_active() {
    let (device, outcome) = install("shop-web-1 running 0 healthy 0\n", 0);
    assert!(outcome.success(), "{outcome:?}");
    let images = fs::read_to_string(device.state_directory().join("projects/shop/images.json")).unwrap();
    let images: serde_json::Value = serde_json::from_str(&images).unwrap();
    assert_eq!(images["services"]["debug"], json!({"pull_policy": "never"}), "{images}");
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
