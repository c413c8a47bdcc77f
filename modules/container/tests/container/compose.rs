//! The health check of a compose project: the engine reports other containers than the services that it started.

use std::fs;

use mender_update_module_test::Outcome;
use serde_json::json;
use test_image::Mode;

use crate::device::{Device, archive, mocks, refused};

const TAG: &str = "localhost/shop:1";

/// systemctl, for units that are active.
const SYSTEMCTL: &str = r#"case "$*" in *" show "*) printf 'ActiveState=active\nNRestarts=0\n' ;; esac"#;

/// Installs a compose project of which the engine lists `containers`, one a line: name, status and exit code.
fn install(containers: &str) -> (Device, Outcome) {
    let mut device = Device::new();
    let directory = device.client.device().to_owned();
    let (list, script) = (directory.join("containers"), directory.join("podman.sh"));
    fs::write(&list, containers).unwrap();
    // The provider accepts every file.
    let text = format!(
        r#"case "$1 $2" in
compose*) ;;
'ps --all') cut -d' ' -f1 '{list}' ;;
'container inspect') sed -n "s/^$3 \(.*\) \(.*\)/\
    [{{\"Id\": \"$3\", \"State\": {{\"Status\": \"\1\", \"ExitCode\": \2}}}}]/p" '{list}' ;;
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
         units_dir = {:?}\nstable_seconds = 0\nhealth_seconds = 1\n",
        directory.join("units")
    );
    device.client.set("container", &settings).unwrap();
    let image = archive(TAG, "1", Mode::Healthy);
    let meta_data = json!({
        "project": "shop",
        "images": [{"file": "app.tar", "id": image.id, "ref": TAG}],
        "compose": "compose.yaml",
    });
    let definition = format!("services: {{web: {{image: '{TAG}'}}, db: {{image: '{TAG}'}}}}\n");
    let files: [(&str, &[u8]); 2] = [("app.tar", &image.content), ("compose.yaml", definition.as_bytes())];
    let outcome = device.download(&meta_data, &files);
    assert!(outcome.success(), "{outcome:?}");
    let outcome = device.client.call("ArtifactInstall").unwrap();
    (device, outcome)
}

#[test]
fn a_container_that_runs_or_has_succeeded_is_healthy_and_no_other() {
    for (containers, expected) in [
        ("shop-web-1 running 0\nshop-db-1 exited 1\n", "container shop-db-1: status exited"),
        ("", "no containers yet"),
    ] {
        let (device, outcome) = install(containers);
        refused(&outcome, expected);
        device.all(&["ArtifactRollback", "ArtifactFailure", "Cleanup"]);
    }
    let (device, outcome) = install("shop-web-1 running 0\nshop-migrate-1 exited 0\n");
    assert!(outcome.success(), "{outcome:?}");
    device.all(&["ArtifactCommit", "Cleanup"]);
}
